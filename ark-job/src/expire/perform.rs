//! A plan being carried out: entry after entry, and what does not work is named and stops no other.

use super::exit;
use super::plan::{Entry, Fate, Reason, Step};
use super::volumes::{self, Dropped, NotDropped};
use crate::api::{Backup, GROUP, failed_log_name};
use crate::cluster::ClusterError;
use crate::context::{Context, Outcome};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::holdings::Kind;
use crate::kept;
use crate::mode;
use crate::records::request;
use crate::removal::{self, RemovalError, Removed, Seen};
use crate::report::plural;
use crate::store::StoreError;
use crate::tombstone::Cause;
use http::Method;
use kube::Resource;

/// How an entry that was to go ended.
enum Done {
    /// It is gone; with what there is to say of it.
    Gone(String),
    /// It is gone by another run, which counts it.
    GoneByAnother,
    /// It stays for now, which is no error.
    Stays(String),
}

/// Why an entry could not be done.
enum Trouble {
    /// Nothing may be deleted any more.
    Refused(Failure),
    /// The rights are missing, which the next one would need, too.
    Denied(String, Option<String>),
    /// This one failed.
    Failed(String),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        RemovalError::from(error).into()
    }
}

impl From<NotDropped> for Trouble {
    fn from(NotDropped(why): NotDropped) -> Trouble {
        Trouble::Failed(why)
    }
}

impl From<Dropped> for Done {
    fn from(dropped: Dropped) -> Done {
        match dropped {
            Dropped::Gone => Done::Gone(String::new()),
            Dropped::GoneBefore => Done::GoneByAnother,
            Dropped::Stays(why) => Done::Stays(why),
        }
    }
}

impl From<ClusterError> for Trouble {
    fn from(error: ClusterError) -> Trouble {
        Trouble::Failed(error.full_text())
    }
}

impl From<RemovalError> for Trouble {
    fn from(error: RemovalError) -> Trouble {
        let denied = error.is_denied();
        match error {
            RemovalError::Refused(failure) => Trouble::Refused(failure),
            RemovalError::Begun { source, next } => match Trouble::from(*source) {
                Trouble::Failed(why) => Trouble::Failed(format!("{why}; {next}")),
                Trouble::Denied(why, hint) => Trouble::Denied(why, joined(hint, next)),
                Trouble::Refused(failure) => {
                    let hint = joined(failure.next_step().map(str::to_owned), next);
                    Trouble::Refused(failure.maybe_hint(hint))
                }
            },
            error if denied => {
                let failure = Failure::from(error);
                let hint = failure.next_step().map(str::to_owned);
                Trouble::Denied(failure.message().to_owned(), hint)
            }
            error => Trouble::Failed(chain(&error)),
        }
    }
}

fn joined(hint: Option<String>, next: String) -> Option<String> {
    Some(hint.map_or(next.clone(), |hint| format!("{hint}; {next}")))
}

/// Carries the plan out.
///
/// # Errors
/// When nothing may be deleted any more.
pub(super) async fn perform(context: &Context, entries: &[Entry]) -> Result<Outcome, Failure> {
    let mut tally = Tally::default();
    let removes = |entry: &Entry| matches!(entry.fate, Fate::Delete(Step::Remove { .. }));
    if entries.iter().any(removes) {
        removal::refuse_unless_deletable(context)
            .await
            .map_err(|error| {
                let failure = Failure::from(error);
                let hint = failure.next_step().map(str::to_owned);
                let text = format!(
                    "nothing was deleted, since not even an object of this run's own could be: {}",
                    failure.message()
                );
                Failure::new(failure.exit(), text).maybe_hint(hint)
            })?;
    }
    for entry in entries {
        let (kind, name, reason) = (entry.kind.word(), &entry.name, &entry.reason);
        match &entry.fate {
            Fate::Keep => {
                if matches!(reason, Reason::Held { .. } | Reason::NotSure(_)) {
                    context
                        .log
                        .warn(&format!("{kind} {name} stays for now: {reason}"));
                }
                tally.kept += usize::from(entry.kind == Kind::Backup);
            }
            Fate::KeepInDoubt => {
                context.log.error(&format!("{kind} {name} stays: {reason}"));
                tally.troubles += 1;
                tally.kept += usize::from(entry.kind == Kind::Backup);
            }
            Fate::Delete(step) => match take(context, name, step).await {
                Ok(Done::Gone(what)) => {
                    context
                        .log
                        .info(&format!("deleted {kind} {name}{what}: {reason}"));
                    tally.add(entry);
                }
                Ok(Done::GoneByAnother) => {
                    context
                        .log
                        .info(&format!("{kind} {name} is gone, by another run: {reason}"));
                }
                Ok(Done::Stays(why)) => {
                    context
                        .log
                        .warn(&format!("{kind} {name} stays for now ({reason}): {why}"));
                    tally.kept += usize::from(entry.kind == Kind::Backup);
                }
                Err(Trouble::Failed(why)) => {
                    context
                        .log
                        .error(&format!("{kind} {name} was to go ({reason}), but: {why}"));
                    tally.troubles += 1;
                }
                Err(Trouble::Denied(why, hint)) => {
                    let text = format!(
                        "{kind} {name} was to go ({reason}), but: {why}; before that, {tally}"
                    );
                    return Err(Failure::new(Exit::Failed, text).maybe_hint(hint));
                }
                Err(Trouble::Refused(failure)) => {
                    let text = format!("{}; before that, {tally}", failure.message());
                    let hint = failure.next_step().map(str::to_owned);
                    return Err(Failure::new(failure.exit(), text).maybe_hint(hint));
                }
            },
        }
    }
    let troubles = tally.troubles;
    Ok(Outcome {
        exit: exit(troubles),
        message: tally.to_string(),
        hint: (troubles > 0).then(|| {
            "the log names what could not be decided or deleted, and why; run it again when that is put right"
                .to_owned()
        }),
    })
}

/// Does one step.
async fn take(context: &Context, name: &str, step: &Step) -> Result<Done, Trouble> {
    match step {
        Step::Remove { etag } => {
            remove(context, name, Cause::Expire, Seen::of(etag), |gone| {
                gone.begun
            })
            .await
        }
        Step::Sweep { etag } => {
            remove(context, name, Cause::Sweep, Seen::of(etag), |gone| {
                gone.begun
            })
            .await
        }
        Step::Finish {
            cause,
            tombstone,
            archive,
        } => {
            let description = match cause {
                Cause::Sweep => archive.as_deref(),
                Cause::Delete | Cause::Expire => None,
            };
            // It may have been taken back, or finished, since it was listed.
            let seen = Seen {
                description,
                tombstone: Some(tombstone),
            };
            remove(context, name, *cause, seen, |gone| gone.ended).await
        }
        Step::Void { tombstone } => {
            match removal::remove_void_tombstone(context, name, tombstone).await {
                Ok(true) => Ok(Done::Gone(String::new())),
                Ok(false) => Ok(Done::Stays("it is another one now".to_owned())),
                Err(error) => Err(error.into()),
            }
        }
        Step::Abort(upload) => {
            allowed(context).await?;
            context.store.abort_upload(upload).await?;
            Ok(Done::Gone(String::new()))
        }
        Step::Forget {
            uid,
            resource_version,
        } => {
            allowed(context).await?;
            let namespace = &context.namespace;
            let plural = Backup::plural(&());
            let path = format!("/apis/{GROUP}/v1/namespaces/{namespace}/{plural}/{name}");
            // The state counts, too: a new run may have taken the name over.
            let conditions = serde_json::json!({"uid": uid, "resourceVersion": resource_version});
            let doing = format!("deleting Backup {name}");
            let done = delete(context, &path, &conditions, &doing).await?;
            if !matches!(done, Done::Stays(_)) {
                kept::remove(context, &failed_log_name(name)).await?;
            }
            Ok(done)
        }
        Step::Discard { uid } => {
            allowed(context).await?;
            let namespace = &context.namespace;
            let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
            let conditions = serde_json::json!({"uid": uid});
            let doing = format!("deleting ConfigMap {name}");
            Ok(delete(context, &path, &conditions, &doing).await?)
        }
        Step::Drop(loose) => {
            allowed(context).await?;
            Ok(volumes::drop_loose(context, loose).await?.into())
        }
        Step::LetGo(loose) => {
            allowed(context).await?;
            Ok(volumes::let_go(context, loose).await?.into())
        }
    }
}

/// Right before each step: the mode may have been switched meanwhile. A removal asks by itself.
async fn allowed(context: &Context) -> Result<(), Trouble> {
    mode::refuse_unless_writable(context)
        .await
        .map_err(Trouble::Refused)
}

/// Removes a backup; `counts` says whether it is this run that did, for several may be at work on it.
async fn remove(
    context: &Context,
    name: &str,
    cause: Cause,
    seen: Seen<'_>,
    counts: fn(&Removed) -> bool,
) -> Result<Done, Trouble> {
    match removal::remove(context, name, cause, seen).await {
        Ok(removed) if counts(&removed) => {
            let objects = plural(removed.objects, "object");
            let bytes = plural(removed.bytes, "byte");
            let snapshots = match removed.snapshots {
                0 => String::new(),
                n => format!(", {}", plural(n, "snapshot")),
            };
            Ok(Done::Gone(format!(" ({objects}, {bytes}{snapshots})")))
        }
        // A twin was faster.
        Ok(_) | Err(RemovalError::NotFound { .. }) => Ok(Done::GoneByAnother),
        Err(
            error @ (RemovalError::RestoreInProgress { .. }
            | RemovalError::BackupInProgress { .. }
            | RemovalError::BeingMadeByOthers { .. }
            | RemovalError::Locked { .. }
            | RemovalError::Left { .. }
            | RemovalError::Changed { .. }
            | RemovalError::NoBackup { .. }
            | RemovalError::TakenBack { .. }
            | RemovalError::Marked { .. }),
        ) => Ok(Done::Stays(chain(&error))),
        Err(error) => Err(error.into()),
    }
}

/// Deletes an object of the cluster if the conditions hold.
async fn delete(
    context: &Context,
    path: &str,
    conditions: &serde_json::Value,
    doing: &str,
) -> Result<Done, ClusterError> {
    let options = serde_json::json!({"preconditions": conditions});
    let request = request(Method::DELETE, path, "application/json", &options);
    match context.cluster.request(&request, doing).await {
        Ok(_) => Ok(Done::Gone(String::new())),
        Err(error) if error.is_not_found() => Ok(Done::GoneByAnother),
        Err(error) if error.is_conflict() => Ok(Done::Stays("it has changed since".to_owned())),
        Err(error) => Err(error),
    }
}

/// How many.
#[derive(Default)]
struct Tally {
    expired: usize,
    finished: usize,
    swept: usize,
    records: usize,
    snapshots: usize,
    volumes: usize,
    kept: usize,
    troubles: usize,
}

impl Tally {
    fn add(&mut self, entry: &Entry) {
        let place = match (entry.kind, &entry.reason) {
            (Kind::Backup, Reason::Cut { .. }) => &mut self.finished,
            (Kind::Backup, Reason::Expired { .. }) => &mut self.expired,
            (Kind::Backup | Kind::Upload | Kind::Tombstone, _) => &mut self.swept,
            (Kind::Record | Kind::ConfigMap, _) => &mut self.records,
            (Kind::Snapshot, _) => &mut self.snapshots,
            (Kind::Volume, _) => &mut self.volumes,
        };
        *place += 1;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally {
            expired,
            finished,
            swept,
            records,
            snapshots,
            volumes,
            kept,
            troubles,
        } = self;
        let plural = |count: &usize, thing| plural(*count as u64, thing);
        write!(f, "{} deleted", plural(expired, "expired backup"))?;
        for (count, thing, done) in [
            (finished, "deletion", "finished"),
            (swept, "left-over", "swept up"),
            (records, "record", "removed"),
            (snapshots, "snapshot", "swept up"),
            (volumes, "unused volume", "deleted"),
        ] {
            if *count > 0 {
                write!(f, ", {} {done}", plural(count, thing))?;
            }
        }
        let stay = if *kept == 1 { "stays" } else { "stay" };
        write!(f, "; {} {stay}", plural(kept, "backup"))?;
        if *troubles > 0 {
            write!(f, "; {}", plural(troubles, "error"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn what_was_done_is_told_in_one_line() {
        assert_eq!(
            Tally::default().to_string(),
            "0 expired backups deleted; 0 backups stay"
        );
        let each = |n| Tally {
            expired: n,
            finished: n,
            swept: n,
            records: n,
            snapshots: n,
            volumes: n,
            kept: n,
            troubles: n,
        };
        assert_eq!(
            each(1).to_string(),
            "1 expired backup deleted, 1 deletion finished, 1 left-over swept up, 1 record removed, 1 snapshot swept up, 1 unused volume deleted; 1 backup stays; 1 error"
        );
        assert_eq!(
            each(2).to_string(),
            "2 expired backups deleted, 2 deletions finished, 2 left-overs swept up, 2 records removed, 2 snapshots swept up, 2 unused volumes deleted; 2 backups stay; 2 errors"
        );
    }
}
