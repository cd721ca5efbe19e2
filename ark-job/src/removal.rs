//! Removing one backup: its snapshots, files, restores and resource, in an order that can be cut off anywhere and gone on
//! with by anyone. What deletion, expiry and sweep share; the protocol is defined in docs/format.md.
//!
//! Nothing is touched before all that speaks against it has been asked. Then the tombstone stands first and goes last, and
//! while it stands, nothing under the name counts as a backup. It is looked for again before each deletion: when
//! it is gone, somebody else has finished, or has taken the deletion back, and nothing more is deleted.

mod error;
pub mod intact;
mod permission;
mod records;
mod restore;
pub mod snapshots;
mod target;
mod too_late;
mod undelete;

pub use self::error::{RemovalError, lasts};
pub use self::permission::refuse_unless_deletable;
pub use self::restore::{RemovedRestore, remove_restore};
pub use self::target::Target;
pub use self::undelete::{Undeleted, undelete};

use self::records::Of;
use crate::api::{Backup, BackupPhase, DEFAULT_LOCATION, namespace_flag};
use crate::context::Context;
use crate::foreign::Description;
use crate::layout::BackupKeys;
use crate::marker::{MAX_LENGTH, Marker};
use crate::mode;
use crate::store::{Created, Lock, ObjectMeta, Store, StoreError};
use crate::tombstone::{Cause, Tombstone};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;

/// Looks through a directory before it is given up: each finds only what others have written since the last.
const PASSES: usize = 8;

/// What is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Objects in storage: of the backup and of restores of it.
    pub objects: u64,
    /// Their length together, bytes.
    pub bytes: u64,
    /// Snapshots of volumes.
    pub snapshots: u64,
    /// Restore resources.
    pub restores: u64,
    /// Whether there was a Backup resource.
    pub record: bool,
    /// Whether this run began it. Of several at once, one has.
    pub begun: bool,
    /// Whether this run ended it.
    pub ended: bool,
}

/// What was there when a removal was decided: if it is another one now, nothing is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// ETag of what describes it: marker, or somebody else's description; of what was never committed, of its archive.
    pub description: Option<&'a str>,
    /// ETag of the tombstone of the deletion that is to be finished: without it none is begun.
    pub tombstone: Option<&'a str>,
}

impl Seen<'_> {
    /// Of what was described by, or is an archive with, this ETag.
    pub fn of(etag: &str) -> Seen<'_> {
        Seen {
            description: Some(etag),
            tombstone: None,
        }
    }
}

/// Removes the backup called `name`, whoever made it, if it still is what was `seen`.
///
/// # Errors
/// When it must not be removed, or something of it is left.
pub async fn remove(
    context: &Context,
    name: &str,
    cause: Cause,
    seen: Seen<'_>,
) -> Result<Removed, RemovalError> {
    refuse_unless_writable(context).await?;
    let (mut removal, record) = Removal::prepare(context, name, cause, seen).await?;
    let record = record.as_ref();
    if removal.target.is_nothing() {
        // A record without anything in storage, such as that of a failed backup.
        removal.mark(record).await?;
        removal.remove_records(record).await?;
        return Ok(removal.removed);
    }
    removal.mark(record).await?;
    removal.removed.begun = match removal.bury().await {
        Ok(began) => began,
        Err(error) => {
            removal.unmark(record).await;
            return Err(error);
        }
    };
    let begun = |error: RemovalError| error.after_beginning(next_step(context, name));
    // Whoever began before the tombstone was there may not have been seen before.
    if let Err(error) = records::refuse_while_in_use(context, name, None).await {
        if !removal.removed.begun {
            return Err(begun(error));
        }
        removal.take_back().await.map_err(begun)?;
        removal.unmark(record).await;
        return Err(error);
    }
    removal.go_on(record).await.map_err(begun)?;
    Ok(removal.removed)
}

/// What speaks against removing the backup called `name` now: asked, and nothing touched.
///
/// # Errors
/// When [`remove`] would refuse; the mode is not asked for.
pub async fn obstacle(
    context: &Context,
    name: &str,
    cause: Cause,
    seen: Seen<'_>,
) -> Result<(), RemovalError> {
    Removal::prepare(context, name, cause, seen).await?;
    Ok(())
}

/// For who would otherwise ask once for each of many backups: heartbeats that stand still are told from others in the
/// background of other questions.
///
/// # Errors
/// When the cluster does not answer.
pub async fn listen(context: &Context) -> Result<(), RemovalError> {
    Ok(records::listen(context).await?)
}

/// What can be done about a deletion that has begun and not ended.
pub fn next_step(context: &Context, name: &str) -> String {
    let namespace = namespace_flag(&context.namespace);
    let place = match context.location.as_deref() {
        Some(DEFAULT_LOCATION) => String::new(),
        Some(location) => format!(" --location {location}"),
        None => " --storage=…".to_owned(),
    };
    let flags = namespace + &place;
    format!(
        "the deletion of {name} has begun, and it is not listed any more: `kubectl ark backup delete {name}{flags}` goes on \
         with it, `kubectl ark backup undelete {name}{flags}` takes it back as long as nothing is lost"
    )
}

/// Whether the deletion of the backup called `name` has begun, and not ended.
///
/// # Errors
/// When the store fails.
pub async fn has_begun(context: &Context, name: &str) -> Result<bool, StoreError> {
    let key = BackupKeys::new(name).tombstone();
    Ok(context.store.head(&key).await?.is_some())
}

/// Refuses what is no backup, with or without files of somebody's under its name.
fn refuse_nothing(context: &Context, name: &str, target: &Target) -> Result<(), RemovalError> {
    let (backup, location) = (name.to_owned(), context.store.canonical().to_owned());
    if target.is_nothing() {
        return Err(RemovalError::NotFound { backup, location });
    }
    let archive = target.archive().or(target.description());
    if archive.is_none() && target.tombstone.is_none() {
        let directory = BackupKeys::new(name).directory();
        return Err(RemovalError::NoBackup {
            directory,
            location,
        });
    }
    Ok(())
}

/// Refuses when the deletion that is to be finished is not under way any more: it has been taken back since, and perhaps
/// another one has begun.
fn refuse_another_deletion(
    name: &str,
    seen: Seen<'_>,
    target: &Target,
) -> Result<(), RemovalError> {
    let Some(seen) = seen.tombstone else {
        return Ok(());
    };
    let backup = name.to_owned();
    match &target.tombstone {
        Some((found, _)) if found.etag == seen => Ok(()),
        Some(_) => Err(RemovalError::Changed { backup }),
        None => Err(RemovalError::TakenBack { backup }),
    }
}

/// Removes the void tombstone of the backup called `name`, and nothing else, if it still has the ETag `seen`; tells whether
/// it had.
///
/// # Errors
/// When nothing may be deleted here, or the store fails.
pub async fn remove_void_tombstone(
    context: &Context,
    name: &str,
    seen: &str,
) -> Result<bool, RemovalError> {
    refuse_unless_writable(context).await?;
    let keys = BackupKeys::new(name);
    let store = &context.store;
    let key = keys.tombstone();
    // What lies beside it goes first: with another tombstone, it is that one's.
    if store
        .head(&key)
        .await?
        .is_some_and(|found| found.etag == seen)
    {
        target::remove_deleting(store, &keys).await?;
    }
    Ok(target::remove_tombstone(store, &keys, Some(seen)).await?)
}

async fn refuse_unless_writable(context: &Context) -> Result<(), RemovalError> {
    mode::refuse_unless_writable(context)
        .await
        .map_err(RemovalError::Refused)
}

/// A removal under way.
struct Removal<'a> {
    context: &'a Context,
    keys: BackupKeys,
    name: &'a str,
    cause: Cause,
    seen: Seen<'a>,
    target: Target,
    /// Which backup it is that is being removed.
    described: too_late::Identity,
    /// Whether a DELETE was sent.
    has_deleted: bool,
    /// Snapshots that are gone.
    gone: BTreeSet<snapshots::Id>,
    removed: Removed,
    /// What the bucket keeps, though not archive and marker.
    locked: Vec<(String, Lock)>,
    /// Keys that cannot be asked for, and so not deleted: other programs' place holders.
    refused: Vec<String>,
}

impl<'a> Removal<'a> {
    /// Looks, and asks for all that speaks against it.
    async fn prepare(
        context: &'a Context,
        name: &'a str,
        cause: Cause,
        seen: Seen<'a>,
    ) -> Result<(Removal<'a>, Option<Backup>), RemovalError> {
        let target = Target::look(&context.store, name).await?;
        let record = records::find(context, name).await?;
        if record.is_none() {
            refuse_nothing(context, name, &target)?;
        }
        let is_seen = |seen| target.is_seen(seen);
        if !seen.description.is_none_or(is_seen) {
            let backup = name.to_owned();
            return Err(RemovalError::Changed { backup });
        }
        refuse_another_deletion(name, seen, &target)?;
        records::refuse_while_in_use(context, name, record.as_ref()).await?;
        let removal = Removal {
            context,
            keys: BackupKeys::new(name),
            name,
            cause,
            seen,
            target,
            described: too_late::Identity::default(),
            has_deleted: false,
            gone: BTreeSet::new(),
            removed: Removed::default(),
            locked: Vec::new(),
            refused: Vec::new(),
        };
        removal.refuse_sweep_of_others().await?;
        removal.refuse_being_made_by_others().await?;
        removal.refuse_locked().await?;
        match snapshots::refuse(context, name, &removal.target).await {
            // Listed, and gone: somebody else removes it right now.
            Err(RemovalError::Store(error)) if error.is_not_found() => {
                let backup = name.to_owned();
                return Err(RemovalError::Changed { backup });
            }
            refused => refused?,
        }
        Ok((removal, record))
    }

    /// Behind the tombstone.
    async fn go_on(&mut self, record: Option<&Backup>) -> Result<(), RemovalError> {
        self.described = too_late::Identity::of(&self.target);
        match self.remove_all(record).await {
            Err(error @ RemovalError::Marked { .. }) => {
                self.unmark(record).await;
                Err(error)
            }
            Err(error @ RemovalError::TakenBack { .. }) => {
                if self.is_gone().await? {
                    return Ok(());
                }
                self.refuse_to_leave_it_broken(record).await?;
                Err(error)
            }
            result => result,
        }
    }

    fn store(&self) -> &Store {
        &self.context.store
    }

    /// A sweep removes only what runs of ours have left: an archive with our footer and no marker.
    async fn refuse_sweep_of_others(&self) -> Result<(), RemovalError> {
        if self.cause != Cause::Sweep || self.target.tombstone.is_some() {
            return Ok(());
        }
        let backup = || self.name.to_owned();
        if self.target.marker().is_some() {
            return Err(RemovalError::Marked { backup: backup() });
        }
        let ours = match self.target.archive() {
            Some(archive) => target::footer(self.store(), archive).await?.is_some(),
            None => false,
        };
        if ours || self.target.is_nothing() {
            return Ok(());
        }
        Err(RemovalError::Malformed {
            backup: backup(),
            why: "it is no archive of ark's, so it is not swept up".into(),
        })
    }

    /// Velero and original Ark describe a backup while they make it.
    async fn refuse_being_made_by_others(&self) -> Result<(), RemovalError> {
        let Some(described) = self.target.description() else {
            return Ok(());
        };
        if self.target.tombstone.is_some() {
            return Ok(());
        }
        let json = match self.store().get(&described.key, MAX_LENGTH).await {
            Err(StoreError::TooLong { .. }) => None,
            json => json?,
        };
        // Ours is committed or not at all, whatever else its marker says.
        let others = json.filter(|json| Marker::from_json(json).is_err());
        let found = others.and_then(|json| Description::from_json(&json, self.name).ok());
        match found {
            Some(found) if !found.is_ours && !found.has_ended() => {
                Err(RemovalError::BeingMadeByOthers {
                    backup: self.name.to_owned(),
                    origin: found.origin,
                    phase: found.phase,
                })
            }
            _ => Ok(()),
        }
    }

    /// Asks before anything is touched: a plain delete of a locked object would only hide it.
    async fn refuse_locked(&self) -> Result<(), RemovalError> {
        let first = [self.target.archive(), self.target.description()];
        for object in first.into_iter().flatten() {
            let Some(found) = self.store().head(&object.key).await? else {
                continue;
            };
            if let Some(lock) = found.lock.filter(|lock| holds(lock, self.now())) {
                return Err(RemovalError::Locked {
                    what: object.key.clone(),
                    until: lock.until,
                    legal_hold: lock.legal_hold,
                });
            }
        }
        Ok(())
    }

    /// Now, by the store's clock if it has one: it is the one that keeps to locks.
    fn now(&self) -> Timestamp {
        self.store().clock().unwrap_or_else(Timestamp::now)
    }

    /// Says in the Backup resource that it is being deleted.
    async fn mark(&self, record: Option<&Backup>) -> Result<(), RemovalError> {
        let deleting = json!({"phase": BackupPhase::Deleting, "heartbeat": null});
        records::set_status(self.context, record, &deleting).await
    }

    /// Says in the Backup resource again what it said before. It is for people: trouble is a warning.
    async fn unmark(&self, record: Option<&Backup>) {
        let status = record.and_then(|record| record.status.clone());
        let status = status.unwrap_or_default();
        let before = json!({"phase": status.phase, "heartbeat": status.heartbeat});
        if let Err(error) = records::set_status(self.context, record, &before).await {
            let text = crate::error::chain(&error);
            self.context.log.warn(&text);
        }
    }

    /// Puts the tombstone, or finds one to go on from; tells whether it is this removal's.
    async fn bury(&mut self) -> Result<bool, RemovalError> {
        let key = self.keys.tombstone();
        for _ in 0..PASSES {
            refuse_another_deletion(self.name, self.seen, &self.target)?;
            let void = match &self.target.tombstone {
                Some((_, found)) => found.cause() == Cause::Sweep,
                None => false,
            };
            if void && (self.cause != Cause::Sweep || self.target.marker().is_some()) {
                refuse_unless_writable(self.context).await?;
                self.take_back().await?;
                self.target = Target::look(self.store(), self.name).await?;
                continue;
            }
            if self.cause == Cause::Sweep && self.target.marker().is_some() {
                let backup = self.name.to_owned();
                return Err(RemovalError::Marked { backup });
            }
            if let Some((_, found)) = &self.target.tombstone {
                // What was asked for earlier is finished as it was asked for.
                self.cause = found.cause();
                self.context.log.info(&format!(
                    "{key} is there already: going on with that deletion"
                ));
                return Ok(false);
            }
            refuse_unless_writable(self.context).await?;
            let created = self.put_tombstone(self.target.is_original()).await?;
            if let Created::New { .. } = created {
                return Ok(true);
            }
            self.target = Target::look(self.store(), self.name).await?;
        }
        Err(self.unsettled())
    }

    /// Puts a tombstone, if there is none.
    async fn put_tombstone(&self, original: bool) -> Result<Created, RemovalError> {
        let run = &self.context.run;
        let tombstone = Tombstone {
            backup: self.name.to_owned(),
            cause: self.cause,
            original,
            run_id: run.id.to_string(),
            cluster_uid: run.cluster_uid.clone(),
            at: Timestamp::now(),
        };
        let json = tombstone.to_json().into();
        Ok(self.store().put_new(&self.keys.tombstone(), json).await?)
    }

    /// Removes the tombstone with what is stored beside it, and nothing else; tells whether it was there.
    async fn take_back(&self) -> Result<bool, RemovalError> {
        target::remove_deleting(self.store(), &self.keys).await?;
        Ok(target::remove_tombstone(self.store(), &self.keys, None).await?)
    }

    fn unsettled(&self) -> RemovalError {
        RemovalError::Malformed {
            backup: self.name.to_owned(),
            why: "somebody else writes under its name again and again".into(),
        }
    }

    /// Asks again whether deleting may go on: the mode, and what is [standing](Self::is_standing).
    async fn may_go_on(&self) -> Result<(), RemovalError> {
        refuse_unless_writable(self.context).await?;
        self.is_standing().await
    }

    /// Looks for the tombstone again; of a sweep, for the marker too.
    async fn is_standing(&self) -> Result<(), RemovalError> {
        let backup = || self.name.to_owned();
        if self.store().head(&self.keys.tombstone()).await?.is_none() {
            return Err(RemovalError::TakenBack { backup: backup() });
        }
        if self.cause == Cause::Sweep && self.store().head(&self.keys.marker()).await?.is_some() {
            self.take_back().await?;
            return Err(RemovalError::Marked { backup: backup() });
        }
        Ok(())
    }

    async fn remove_all(&mut self, record: Option<&Backup>) -> Result<(), RemovalError> {
        for pass in 0..PASSES {
            self.target = Target::look(self.store(), self.name).await?;
            // A twin had ended all of it before this tombstone was there: it has counted it.
            self.removed.begun &= pass > 0 || !self.target.objects.is_empty();
            self.remove_files().await?;
            self.remove_restores().await?;
            self.remove_last().await?;
            // A commit that began before the tombstone was there may have written something since.
            let left = Target::look(self.store(), self.name).await?;
            let done = self.locked.iter().map(|(key, _)| key).chain(&self.refused);
            let done: Vec<&String> = done.collect();
            if left
                .objects
                .iter()
                .all(|object| done.contains(&&object.key))
            {
                return self.finish(record).await;
            }
        }
        Err(self.unsettled())
    }

    /// Everything but the description by which the backup is found, in an order that can be taken back for long: what can
    /// be made again, the snapshots, the archive, the rest.
    ///
    /// Of a sweep, the archive goes before the snapshots. A commit that comes in between withdraws its marker when it finds the
    /// archive gone; it would not miss a snapshot.
    async fn remove_files(&mut self) -> Result<(), RemovalError> {
        let snapshots = snapshots::recorded(self.store(), self.name, &self.target).await?;
        let velero = self.keys.velero_backup();
        let archive = self.target.archive().map(|archive| archive.key.clone());
        let last = self.target.last().map(|last| last.key.clone());
        let is = |key: &str, other: &Option<String>| other.as_deref() == Some(key);
        let objects = std::mem::take(&mut self.target.objects);
        let (first, rest): (Vec<_>, Vec<_>) =
            objects.iter().partition(|object| object.key == velero);
        let (archive, rest): (Vec<&ObjectMeta>, Vec<_>) = rest
            .into_iter()
            .partition(|object| is(&object.key, &archive));
        let rest: Vec<_> = rest
            .into_iter()
            .filter(|object| !is(&object.key, &last))
            .collect();
        self.remove_group(&first).await?;
        self.begin_snapshots(&snapshots).await?;
        if self.cause == Cause::Sweep {
            self.remove_group(&archive).await?;
            self.remove_snapshots(&snapshots).await?;
        } else {
            self.remove_snapshots(&snapshots).await?;
            self.remove_group(&archive).await?;
        }
        self.remove_group(&rest).await?;
        self.target.objects = objects;
        Ok(())
    }

    /// The marker, or what describes a backup of original Ark's.
    async fn remove_last(&mut self) -> Result<(), RemovalError> {
        let last: Vec<_> = self.target.last().cloned().into_iter().collect();
        let last: Vec<_> = last.iter().collect();
        self.remove_group(&last).await
    }

    async fn remove_group(&mut self, objects: &[&ObjectMeta]) -> Result<(), RemovalError> {
        if !objects.is_empty() {
            self.may_go_on().await?;
        }
        for object in objects {
            self.remove_object(object).await?;
        }
        Ok(())
    }

    /// Removes an object, if it still is the one that was listed: by its version, for else a versioned bucket only hides it.
    async fn remove_object(&mut self, listed: &ObjectMeta) -> Result<(), RemovalError> {
        let key = &listed.key;
        let found = match self.store().head(key).await {
            Err(StoreError::Key { reason, .. }) => {
                if !self.refused.contains(key) {
                    let text = format!("{key:?} is left, since {reason}: another program made it");
                    self.context.log.warn(&text);
                    self.refused.push(key.clone());
                }
                return Ok(());
            }
            found => found?,
        };
        let Some(found) = found.filter(|found| found.etag == listed.etag) else {
            return Ok(());
        };
        if let Some(lock) = found.lock.filter(|lock| holds(lock, self.now())) {
            if !self.locked.iter().any(|(other, _)| other == key) {
                let lasts = error::lasts(lock.until, lock.legal_hold);
                let text = format!("{key} is left: the bucket keeps it {lasts}");
                self.context.log.warn(&text);
                self.locked.push((key.clone(), lock));
            }
            return Ok(());
        }
        // As close as can be: an undeletion trusts that whoever has seen the tombstone deletes at once.
        self.is_standing().await?;
        self.has_deleted = true;
        self.store().delete(key, found.version.as_deref()).await?;
        self.removed.objects += 1;
        self.removed.bytes += found.length;
        Ok(())
    }

    /// Restore resources of this backup, and what is stored and kept of them.
    async fn remove_restores(&mut self) -> Result<(), RemovalError> {
        for restore in records::restores(self.context, self.name, Of::Here).await? {
            // It began when the tombstone was there, and will fail by itself and say why.
            if records::is_at_work(self.context, &restore).await? {
                continue;
            }
            let locked = self.locked.len();
            for directory in records::directories(&restore) {
                let objects = self.store().list(&directory).collect().await?;
                let objects: Vec<_> = objects.iter().collect();
                self.remove_group(&objects).await?;
            }
            // What is locked is found by it next time.
            if self.locked.len() == locked {
                records::remove_restore(self.context, &restore).await?;
                self.removed.restores += 1;
            }
        }
        Ok(())
    }

    /// The record of a backup that is not in storage, and those of restores of it: the resources only, since no tombstone
    /// keeps others away.
    async fn remove_records(&mut self, record: Option<&Backup>) -> Result<(), RemovalError> {
        for restore in records::restores(self.context, self.name, Of::Here).await? {
            if !records::is_at_work(self.context, &restore).await? {
                records::remove_restore(self.context, &restore).await?;
                self.removed.restores += 1;
            }
        }
        let gone = records::remove_backup(self.context, self.name, record).await?;
        self.removed.record = gone;
        (self.removed.begun, self.removed.ended) = (gone, gone);
        Ok(())
    }

    /// The records, and the tombstone as the last of all; or what is locked, for which it stays.
    async fn finish(&mut self, record: Option<&Backup>) -> Result<(), RemovalError> {
        if let Some((first, _)) = self.locked.first() {
            let locks = || self.locked.iter().map(|(_, lock)| lock);
            return Err(RemovalError::Left {
                backup: self.name.to_owned(),
                objects: self.locked.len(),
                first: first.clone(),
                until: locks().filter_map(|lock| lock.until).max(),
                legal_hold: locks().any(|lock| lock.legal_hold),
            });
        }
        if records::remove_backup(self.context, self.name, record).await? {
            self.removed.record = true;
        }
        self.may_go_on().await?;
        let Some(tombstone) = self.store().head(&self.keys.tombstone()).await? else {
            return Ok(());
        };
        if let Some(lock) = tombstone.lock.filter(|lock| holds(lock, self.now())) {
            return Err(RemovalError::Left {
                backup: self.name.to_owned(),
                objects: 1,
                first: tombstone.key,
                until: lock.until,
                legal_hold: lock.legal_hold,
            });
        }
        self.removed.ended = self.take_back().await?;
        Ok(())
    }

    /// Whether nothing is left, so that somebody else has finished.
    async fn is_gone(&self) -> Result<bool, RemovalError> {
        let target = Target::look(self.store(), self.name).await?;
        Ok(target.is_nothing())
    }
}

/// Whether a lock still holds: a store goes on telling of one that has ended.
fn holds(lock: &Lock, now: Timestamp) -> bool {
    lock.legal_hold || lock.until.is_some_and(|until| until > now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_holds_until_its_end_and_a_legal_hold_for_ever() {
        let now: Timestamp = "2026-11-23T20:15:01Z".parse().unwrap();
        let lock = |until: Option<&str>, legal_hold| Lock {
            until: until.map(|until| until.parse().unwrap()),
            legal_hold,
        };
        assert!(holds(&lock(Some("2026-11-23T20:15:02Z"), false), now));
        assert!(!holds(&lock(Some("2026-11-23T20:15:01Z"), false), now));
        assert!(holds(&lock(Some("2026-11-23T20:15:00Z"), true), now));
        assert!(holds(&lock(None, true), now));
    }
}
