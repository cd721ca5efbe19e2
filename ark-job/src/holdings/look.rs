//! What there is: everything that an expiry decides about, read. Nothing is decided or changed here.

use super::{
    Candidate, Deletion, FailedRecord, Found, Kind, Orphan, Recorded, State, Uncommitted, Whole,
};
use crate::api::{
    Backup, BackupPhase, DEFAULT_TTL, OPERATION_LABEL, Restore, failed_log_name, kept_results_name,
};
use crate::archive::footer::Footer;
use crate::archive::read::{self, ReadError};
use crate::archive::write::END_LENGTH;
use crate::args::parse_duration;
use crate::cluster::{ClusterError, encode};
use crate::context::{Context, storage_failure};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::foreign::{Description, Origin};
use crate::identity::check_name;
use crate::layout::BACKUPS;
use crate::marker::{MAX_LENGTH, Marker, MarkerError};
use crate::records::Record;
use crate::removal::{RemovalError, Target, snapshots};
use crate::repository::inventory::{self, READ_AT_ONCE, Stored};
use crate::repository::{self, Described, RepositoryError};
use crate::store::{ObjectMeta, Store, StoreError};
use crate::tombstone::Found::{Readable, Unreadable};
use crate::tombstone::{self, Cause};
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Time};
use kube::ResourceExt;
use std::collections::BTreeSet;

/// Objects of the cluster that are listed at once.
const PAGE: usize = 500;

/// Looks at the location and the cluster.
///
/// # Errors
/// When the location cannot be listed to its end, or the cluster cannot be asked: then nothing may be deleted.
pub async fn look(context: &Context) -> Result<Found, Failure> {
    let failed = |error: StoreError| storage_failure(&error);
    let store = &context.store;
    let stored = inventory::all(store).await.map_err(failed)?;
    let mut found = Found::default();
    let originals = originals(store, &stored).await.map_err(failed)?;
    let names: BTreeSet<String> = stored.iter().map(|one| one.name.clone()).collect();
    found.backups = futures::stream::iter(stored)
        .map(|one| candidate(store, one))
        .buffered(READ_AT_ONCE)
        .try_filter_map(async |candidate| Ok(candidate))
        .try_collect()
        .await
        .map_err(failed)?;
    found.backups.extend(originals);
    match store.uploads(BACKUPS).await {
        Ok(uploads) => found.uploads = uploads,
        Err(error) => {
            let why = format!("unfinished uploads cannot be listed: {}", chain(&error));
            found.troubles.push((Kind::Upload, BACKUPS.to_owned(), why));
        }
    }
    look_at_cluster(context, &names, &mut found)
        .await
        .map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    Ok(found)
}

/// Backups at the top of the location, where only original Ark put any.
async fn originals(store: &Store, stored: &[Stored]) -> Result<Vec<Candidate>, StoreError> {
    let taken: BTreeSet<&str> = stored.iter().map(|one| one.name.as_str()).collect();
    let names = inventory::originals(store, &taken).await?;
    futures::stream::iter(names)
        .map(|name| original(store, name))
        .buffered(READ_AT_ONCE)
        .try_filter_map(async |candidate| Ok(candidate))
        .try_collect()
        .await
}

async fn original(store: &Store, name: String) -> Result<Option<Candidate>, StoreError> {
    let state = match repository::find(store, &name).await {
        Ok(found) => match (&found.described, store.head(&found.description).await?) {
            (Described::Foreign(description), Some(meta)) => {
                State::Whole(of_description(description, &meta))
            }
            _ => return Ok(None),
        },
        // A directory of somebody's that is no backup.
        Err(RepositoryError::NotFound { .. }) => return Ok(None),
        Err(RepositoryError::Store(error)) => return Err(error),
        Err(error @ RepositoryError::Incomplete { .. }) => State::Other(chain(&error)),
        Err(error) => State::Unreadable(chain(&error)),
    };
    Ok(Some(Candidate {
        name,
        state,
        recorded: Recorded::default(),
    }))
}

/// Reads what a directory holds; nothing when it has gone meanwhile.
async fn candidate(store: &Store, stored: Stored) -> Result<Option<Candidate>, StoreError> {
    let (state, recorded) = match read_state(store, &stored).await {
        Ok(read) => read,
        Err(Unread::Gone) => return Ok(None),
        Err(Unread::Because(why)) => unreadable(why),
        // Of one object such an answer is as good as of all: what could not be read must not look like what cannot be.
        Err(Unread::Store(error))
            if error.is_unreachable() || error.is_credentials() || error.is_bucket_missing() =>
        {
            return Err(error);
        }
        Err(Unread::Store(error)) => unreadable(chain(&error)),
    };
    Ok(Some(Candidate {
        name: stored.name,
        state,
        recorded,
    }))
}

fn unreadable(why: String) -> (State, Recorded) {
    let recorded = Recorded {
        unknown: Some(why.clone()),
        ..Recorded::default()
    };
    (State::Unreadable(why), recorded)
}

/// What records no snapshot of ours.
fn bare(state: State) -> (State, Recorded) {
    (state, Recorded::default())
}

/// Why nothing is known of a directory.
enum Unread {
    /// What was listed is not there any more.
    Gone,
    Because(String),
    Store(StoreError),
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Unread {
        Unread::Store(error)
    }
}

async fn read_state(store: &Store, stored: &Stored) -> Result<(State, Recorded), Unread> {
    let name = &stored.name;
    if let Err(why) = check_name(name) {
        return Ok(bare(State::Other(format!("no name of a backup: {why}"))));
    }
    if let Some(tombstone) = &stored.tombstone {
        let deletion = read_deletion(store, stored, tombstone).await?;
        if deletion.cause == Cause::Sweep
            && let Some(marker) = &stored.marker
            && let (State::Whole(whole), recorded) = read_marker(store, stored, marker).await?
            && whole.origin == Origin::Ark
        {
            return Ok((State::WholeUnderSweep(whole, deletion.tombstone), recorded));
        }
        let recorded = recorded_by_deletion(store, name).await?;
        return Ok((State::BeingDeleted(deletion), recorded));
    }
    if let Some(marker) = &stored.marker {
        return read_marker(store, stored, marker).await;
    }
    if let Some(velero) = &stored.velero {
        let json = fetch(store, velero, MAX_LENGTH).await?;
        let description = describe(&json, velero, name)?;
        if !description.is_ours {
            return Ok(bare(of_foreign(&description, velero, stored)));
        }
    }
    match &stored.archive {
        Some(archive) => read_archive(store, name, archive).await,
        None => Ok(bare(State::Other(
            "neither a marker nor an archive: no backup (any more)".to_owned(),
        ))),
    }
}

/// The snapshots of a backup that is being deleted: until it has ended, they are its deletion's to delete.
async fn recorded_by_deletion(store: &Store, name: &str) -> Result<Recorded, Unread> {
    let target = Target::look(store, name).await?;
    match snapshots::recorded(store, name, &target).await {
        Ok(snapshots) => Ok(Recorded {
            snapshots,
            ..Recorded::default()
        }),
        Err(RemovalError::Store(error)) => Err(error.into()),
        Err(error) => Ok(Recorded {
            unknown: Some(chain(&error)),
            ..Recorded::default()
        }),
    }
}

async fn fetch(store: &Store, object: &ObjectMeta, max: u64) -> Result<bytes::Bytes, Unread> {
    store.get(&object.key, max).await?.ok_or(Unread::Gone)
}

async fn read_deletion(
    store: &Store,
    stored: &Stored,
    object: &ObjectMeta,
) -> Result<Deletion, Unread> {
    let found = tombstone::read(store, &object.key).await?;
    let tombstone = match found.ok_or(Unread::Gone)? {
        Readable(tombstone) => tombstone,
        Unreadable => {
            let why = format!("being deleted, but {} cannot be read", object.key);
            return Err(Unread::Because(why));
        }
    };
    if tombstone.backup != stored.name {
        return Err(Unread::Because(format!(
            "being deleted, but {} is that of {:?}",
            object.key, tombstone.backup
        )));
    }
    Ok(Deletion {
        cause: tombstone.cause,
        cluster_uid: tombstone.cluster_uid,
        at: tombstone.at,
        written: object.last_modified,
        tombstone: object.etag.clone(),
        archive: stored.archive.as_ref().map(|archive| archive.etag.clone()),
    })
}

async fn read_marker(
    store: &Store,
    stored: &Stored,
    object: &ObjectMeta,
) -> Result<(State, Recorded), Unread> {
    let name = &stored.name;
    let json = fetch(store, object, MAX_LENGTH).await?;
    let marker = match Marker::from_json(&json) {
        Ok(marker) => marker,
        // The file of that name was original Ark's first.
        Err(MarkerError::Foreign) => {
            let description = describe(&json, object, name)?;
            return Ok(bare(of_foreign(&description, object, stored)));
        }
        Err(error) => {
            let why = format!("its marker cannot be used: {}", chain(&error));
            return Err(Unread::Because(why));
        }
    };
    if marker.metadata.name != *name {
        let other = &marker.metadata.name;
        return Err(Unread::Because(format!("its marker is that of {other:?}")));
    }
    let recorded = Recorded {
        snapshots: marker.commit.volumes.clone(),
        committed: true,
        unknown: None,
    };
    let length = stored.archive.as_ref().map(|archive| archive.length);
    if length != Some(marker.commit.archive.length) {
        let why = "damaged: its archive is missing or has another length; `kubectl ark backup delete` removes it";
        return Ok((State::Unreadable(why.to_owned()), recorded));
    }
    let status = &marker.status;
    let (start, expiration) = (time(&status.start_timestamp), time(&status.expiration));
    let whole = Whole {
        origin: Origin::Ark,
        ttl: ttl(marker.spec.ttl.as_deref(), start, expiration),
        cluster_uid: marker.commit.cluster_uid,
        namespace: marker.commit.namespace,
        schedule: marker.commit.schedule,
        keep_last: marker.commit.keep_last,
        completed: status.phase == Some(BackupPhase::Completed),
        start,
        expiration,
        written: object.last_modified,
        etag: object.etag.clone(),
    };
    Ok((State::Whole(whole), recorded))
}

fn describe(json: &[u8], object: &ObjectMeta, name: &str) -> Result<Description, Unread> {
    Description::from_json(json, name).map_err(|error| {
        Unread::Because(format!("{} cannot be used: {}", object.key, chain(&error)))
    })
}

fn of_foreign(description: &Description, object: &ObjectMeta, stored: &Stored) -> State {
    let origin = description.origin;
    if !description.is_complete() {
        let phase = &description.phase;
        return State::Other(format!("made by {origin}, in phase {phase:?}"));
    }
    if stored.archive.is_none() {
        return State::Other(format!("made by {origin}, without an archive"));
    }
    State::Whole(of_description(description, object))
}

fn of_description(description: &Description, object: &ObjectMeta) -> Whole {
    let status = &description.status;
    let (start, expiration) = (time(&status.start_timestamp), time(&status.expiration));
    Whole {
        origin: description.origin,
        cluster_uid: String::new(),
        namespace: description.namespace.clone(),
        schedule: None,
        keep_last: None,
        completed: status.phase == Some(BackupPhase::Completed),
        start,
        expiration,
        ttl: ttl(description.spec.ttl.as_deref(), start, expiration),
        written: object.last_modified,
        etag: object.etag.clone(),
    }
}

/// How long a backup is kept: the longest that can be read out of what it says.
fn ttl(
    said: Option<&str>,
    start: Option<Timestamp>,
    expiration: Option<Timestamp>,
) -> Option<SignedDuration> {
    let said = said
        .and_then(|text| parse_duration(text).ok())
        .and_then(|ttl| SignedDuration::try_from(ttl).ok());
    let meant = start
        .zip(expiration)
        .map(|(start, expiration)| expiration.duration_since(start));
    said.max(meant)
}

fn time(time: &Option<Time>) -> Option<Timestamp> {
    time.as_ref().map(|Time(at)| *at)
}

/// An archive without a marker: its footer says whose it is.
async fn read_archive(
    store: &Store,
    name: &str,
    object: &ObjectMeta,
) -> Result<(State, Recorded), Unread> {
    let Some(footer) = read_footer(store, object).await? else {
        return Ok(bare(State::Other(
            "an archive of another program's, without a description".to_owned(),
        )));
    };
    let head = footer.head;
    if head.backup != name {
        let other = &head.backup;
        return Err(Unread::Because(format!("its archive is that of {other:?}")));
    }
    let recorded = Recorded {
        snapshots: crate::volumes::snapshots(&head.volumes),
        ..Recorded::default()
    };
    let uncommitted = Uncommitted {
        cluster_uid: head.cluster_uid,
        written: object.last_modified,
        etag: object.etag.clone(),
    };
    Ok((State::Uncommitted(uncommitted), recorded))
}

async fn read_footer(store: &Store, object: &ObjectMeta) -> Result<Option<Footer>, Unread> {
    let key = &object.key;
    let unusable =
        |error: ReadError| Unread::Because(format!("{key} cannot be used: {}", chain(&error)));
    let range = |range| async move {
        match store.get_range(key, range).await {
            Err(error) if error.is_not_found() => Err(Unread::Gone),
            read => read.map_err(Unread::Store),
        }
    };
    let start = object.length.saturating_sub(END_LENGTH as u64);
    let place = match read::locate(&range(start..object.length).await?, object.length) {
        Ok(place) => place,
        Err(ReadError::NoFooter) => return Ok(None),
        Err(error) => return Err(unusable(error)),
    };
    let bytes = range(place.offset..place.offset + place.length).await?;
    read::footer(&bytes, &place).map(Some).map_err(unusable)
}

/// The resources and ConfigMaps that outlive what they are about.
async fn look_at_cluster(
    context: &Context,
    stored: &BTreeSet<String>,
    found: &mut Found,
) -> Result<(), ClusterError> {
    let records = &context.records;
    // Before the resources: one that is made in between is older than its resource then, not without it.
    let maps = list::<ConfigMap>(
        context,
        &format!("/api/v1/namespaces/{}/configmaps", context.namespace),
        &format!("{OPERATION_LABEL} in (backup,restore)"),
        "listing the ConfigMaps that are kept of operations",
    )
    .await?;
    let backups = records.list::<Backup>().await?;
    let restores = records.list::<Restore>().await?;
    let mut belong: BTreeSet<String> = BTreeSet::new();
    belong.extend(backups.iter().map(|one| failed_log_name(&one.name_any())));
    belong.extend(
        restores
            .iter()
            .map(|one| kept_results_name(&one.name_any())),
    );
    for map in maps {
        let name = map.name_any();
        let known = (name.starts_with(&failed_log_name("")) && records.keeps::<Backup>())
            || (name.starts_with(&kept_results_name("")) && records.keeps::<Restore>());
        let (Some(uid), Some(Time(created))) = (map.uid(), map.metadata.creation_timestamp) else {
            continue;
        };
        if known && !belong.contains(&name) {
            found.orphans.push(Orphan { name, uid, created });
        }
    }
    let running = |restore: &&Restore| restore.alive().is_some();
    let restores = restores.iter().filter(running).map(ResourceExt::name_any);
    found.running.extend(restores);
    let location = context.location.as_deref();
    for backup in backups {
        if backup.alive().is_some() {
            found.running.insert(backup.name_any());
        }
        let name = backup.name_any();
        let status = backup.status.clone().unwrap_or_default();
        let elsewhere = backup
            .spec
            .storage_location
            .as_deref()
            .is_some_and(|there| Some(there) != location);
        // Of what is in storage, storage decides; and a Failed one of another location is that location's.
        if status.phase != Some(BackupPhase::Failed) || elsewhere || stored.contains(&name) {
            continue;
        }
        let (Some(uid), Some(resource_version), Some(Time(created))) = (
            backup.uid(),
            backup.resource_version(),
            backup.metadata.creation_timestamp,
        ) else {
            continue;
        };
        let asked = backup.spec.ttl.as_deref().map(parse_duration);
        let ttl = asked.and_then(Result::ok).unwrap_or(DEFAULT_TTL);
        found.failed.push(FailedRecord {
            name,
            uid,
            resource_version,
            created,
            expiration: time(&status.expiration),
            ttl: SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX),
        });
    }
    Ok(())
}

/// Lists objects of the cluster, page by page.
///
/// # Errors
/// When they cannot be listed to the end.
pub async fn list<K: serde::de::DeserializeOwned>(
    context: &Context,
    path: &str,
    selector: &str,
    doing: &str,
) -> Result<Vec<K>, ClusterError> {
    #[derive(serde::Deserialize)]
    struct Page<K> {
        metadata: ListMeta,
        items: Vec<K>,
    }
    let mut found = Vec::new();
    let mut next = String::new();
    let selector = encode(selector);
    loop {
        let path = format!("{path}?labelSelector={selector}&limit={PAGE}{next}");
        let page: Page<K> = context.cluster.get(&path, doing).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => next = format!("&continue={}", encode(&token)),
            None => return Ok(found),
        }
    }
}
