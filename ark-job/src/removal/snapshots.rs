//! Snapshots of volumes that a backup records, and how they are deleted with it.
//!
//! What speaks against deleting them is asked before the tombstone. Behind it, a list of them is stored before the first goes:
//! from then on nobody can say that they are all there, and what is left to delete is known though the archive is gone.

use super::{Removal, RemovalError, Target, target};
use crate::context::Context;
use crate::layout::BackupKeys;
use crate::marker::{MAX_LENGTH, Marker, MarkerError};
use crate::store::{ObjectMeta, Store, StoreError, location_id};
use crate::tombstone::Cause;
use crate::volumes::disks::{self, DiskError, DiskSnapshot};
use crate::volumes::{
    CSI_SNAPSHOT_TIMEOUT, CsiSnapshot, Data, EbsSnapshot, Owner, VolumeRecord, csi, identity,
    recorded, snapshots,
};
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Read;

/// No list of snapshots is longer, bytes; one that is has some.
const LIST_MAX: u64 = 16 << 20;

/// Ends of the names of files in which Velero records snapshots.
const RECORDS: [&str; 3] = [
    "-volumesnapshots.json.gz",
    "-csi-volumesnapshots.json.gz",
    "-csi-volumesnapshotcontents.json.gz",
];

/// Tag with which Velero names the backup of a snapshot of EBS.
const VELERO_BACKUP: &str = "velero.io/backup";

/// What is stored before the first snapshot is deleted: `ark-deleting-snapshots.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleting {
    /// The backup.
    pub backup: String,
    /// Why it is deleted. Of a sweep, over a marker, it is void as the tombstone is.
    pub cause: Cause,
    /// The snapshots that are about to go.
    pub volumes: Vec<VolumeRecord>,
}

/// The list of the snapshots whose deletion has begun; `None` when it has not.
///
/// # Errors
/// When it cannot be read.
pub async fn deleting(store: &Store, name: &str) -> Result<Option<Deleting>, RemovalError> {
    let key = BackupKeys::new(name).deleting_snapshots();
    let Some(json) = store.get(&key, MAX_LENGTH).await? else {
        return Ok(None);
    };
    let read = serde_json::from_slice(&json);
    read.map(Some)
        .map_err(|error| unreadable(name, format!("{key}: {error}")))
}

/// Stores that list, if there is none.
///
/// # Errors
/// When the store fails.
pub async fn put_deleting(
    store: &Store,
    name: &str,
    cause: Cause,
    volumes: &[VolumeRecord],
) -> Result<(), StoreError> {
    let list = Deleting {
        backup: name.to_owned(),
        cause,
        volumes: volumes.to_vec(),
    };
    let mut json = serde_json::to_vec_pretty(&list).expect("a list holds only what JSON can say");
    json.push(b'\n');
    let key = BackupKeys::new(name).deleting_snapshots();
    store.put_new(&key, json.into()).await?;
    Ok(())
}

fn unreadable(name: &str, why: String) -> RemovalError {
    RemovalError::Snapshots {
        backup: name.to_owned(),
        why,
        hint: None,
    }
}

/// The snapshots that a stored backup records, whoever made it and however much of it is left, each once.
///
/// # Errors
/// [`RemovalError::Snapshots`], when what records them cannot be read, or is another backup's: then nobody may say which
/// they are.
pub async fn recorded(
    store: &Store,
    name: &str,
    target: &Target,
) -> Result<Vec<VolumeRecord>, RemovalError> {
    let mut all = Vec::new();
    if let Some(deleting) = deleting(store, name).await? {
        all.extend(deleting.volumes);
    }
    let mut ours = false;
    let mut named = BTreeSet::new();
    if let Some(object) = target.marker()
        && let Some(json) = small(store, object).await?
    {
        match Marker::from_json(&json) {
            Ok(marker) => {
                ours = true;
                named.insert(marker.metadata.name);
                all.extend(marker.commit.volumes);
            }
            Err(error @ MarkerError::UnknownFormat { .. }) => {
                return Err(RemovalError::LaterFormat {
                    key: object.key.clone(),
                    why: error.to_string(),
                });
            }
            Err(MarkerError::Foreign) => {
                let records = recorded::of_original(&json)
                    .map_err(|why| unreadable(name, format!("{}: {why}", object.key)))?;
                if records.is_empty() && volume_backups(&json) {
                    return Err(velero(name, &object.key));
                }
                all.extend(records);
            }
            // One that is damaged says nothing; the archive's footer does.
            Err(MarkerError::Malformed(_)) => {}
        }
    }
    if let Some(archive) = target.archive()
        && !target.is_original()
    {
        match target::footer(store, archive).await {
            Ok(Some((footer, _))) => {
                ours = true;
                named.insert(footer.head.backup);
                all.extend(footer.head.volumes);
            }
            Ok(None) => {}
            // A twin was faster: it has stored the list before the archive went.
            Err(RemovalError::Store(error)) if error.is_not_found() => {
                ours = true;
                all.extend(
                    deleting(store, name)
                        .await?
                        .map_or(Vec::new(), |list| list.volumes),
                );
            }
            Err(error) => return Err(error),
        }
    }
    let all = snapshots(&all);
    if !all.is_empty()
        && let Some(other) = named.iter().find(|other| *other != name)
    {
        let directory = BackupKeys::new(name).directory();
        return Err(RemovalError::Snapshots {
            backup: name.to_owned(),
            why: format!(
                "what is in {directory} is a copy of backup {other}, whose snapshots they are"
            ),
            hint: Some(format!(
                "delete {other} with ark, and {directory} with the tools of the bucket"
            )),
        });
    }
    // Velero's files beside our own say the same.
    let others = match ours {
        true => Vec::new(),
        false => of_velero(store, name, target).await?,
    };
    Ok(once(all.into_iter().chain(others)))
}

async fn of_velero(
    store: &Store,
    name: &str,
    target: &Target,
) -> Result<Vec<VolumeRecord>, RemovalError> {
    let lists = |object: &&ObjectMeta| RECORDS.iter().any(|end| object.key.ends_with(end));
    let mut filled = None;
    for object in target.objects.iter().filter(lists) {
        if small(store, object)
            .await?
            .is_none_or(|bytes| has_entries(&bytes))
        {
            filled = filled.or(Some(object));
        }
    }
    let Some(filled) = filled else {
        return Ok(Vec::new());
    };
    match recorded::of_velero(store, name).await {
        Ok(records) if records.is_empty() => Err(velero(name, &filled.key)),
        Ok(records) => Ok(snapshots(&records)),
        Err(recorded::RecordedError::Store(error)) => Err(error.into()),
        Err(error) => Err(RemovalError::Snapshots {
            backup: name.to_owned(),
            why: crate::error::chain(&error),
            hint: Some("delete it with what made it: `velero backup delete NAME`".to_owned()),
        }),
    }
}

/// There are records, and none is understood.
fn velero(name: &str, key: &str) -> RemovalError {
    RemovalError::Snapshots {
        backup: name.to_owned(),
        why: format!("those in {key} are not understood"),
        hint: Some("delete it with what made it: `velero backup delete NAME`".to_owned()),
    }
}

/// Each snapshot once.
fn once(records: impl Iterator<Item = VolumeRecord>) -> Vec<VolumeRecord> {
    let mut seen = BTreeSet::new();
    let is_new = |record: &VolumeRecord| seen.insert(id(record));
    records.filter(is_new).collect()
}

/// What tells a snapshot from others: driver (empty for EBS itself) and the driver's name for it.
pub type Id = (String, String);

/// What tells a snapshot from others; of what is not known, the volume.
pub fn id(record: &VolumeRecord) -> Id {
    match &record.data {
        Data::Csi(snapshot) => (snapshot.driver.clone(), snapshot.handle.clone()),
        Data::Ebs(snapshot) => (String::new(), snapshot.snapshot_id.clone()),
        _ => ("?".to_owned(), record.persistent_volume.clone()),
    }
}

/// Refuses to remove a backup whose snapshots could not be deleted: without their records, nobody would ever delete them.
///
/// # Errors
/// [`RemovalError::Snapshots`], or when that cannot be found out.
pub(super) async fn refuse(
    context: &Context,
    name: &str,
    target: &Target,
) -> Result<(), RemovalError> {
    let records = recorded(&context.store, name, target).await?;
    let refused = |why: String, hint: Option<&str>| {
        Err(RemovalError::Snapshots {
            backup: name.to_owned(),
            why,
            hint: hint.map(str::to_owned),
        })
    };
    let unknown = |record: &&VolumeRecord| record.data == Data::Unknown;
    if let Some(record) = records.iter().find(unknown) {
        let volume = &record.persistent_volume;
        return refused(
            format!(
                "that of persistentVolume {volume} is of a kind that this version does not know"
            ),
            Some(
                "delete it with what made it (`velero backup delete NAME`), or with a later version of ark",
            ),
        );
    }
    let has_ebs = records
        .iter()
        .any(|record| matches!(record.data, Data::Ebs(_)));
    if has_ebs && !context.disks.is_here() {
        return refused(
            "they are snapshots of EBS, which only Jobs reach".to_owned(),
            Some("delete it without --local"),
        );
    }
    if has_ebs {
        let found = match disks::existing(&context.disks, &records).await {
            Ok(found) => found,
            Err(error) => {
                return refused(crate::error::chain(&error), Some(way_out(&error)));
            }
        };
        let here = location_id(context.store.canonical());
        let begun = target.tombstone.is_some();
        for record in &records {
            if let Data::Ebs(snapshot) = &record.data
                && let Some((why, hint)) = doubt(
                    name,
                    &here,
                    snapshot,
                    found.get(&snapshot.snapshot_id),
                    begun,
                )
            {
                return refused(why, Some(&hint));
            }
        }
    }
    let drivers: BTreeSet<&str> = records
        .iter()
        .filter_map(|record| match &record.data {
            Data::Csi(snapshot) => Some(snapshot.driver.as_str()),
            _ => None,
        })
        .collect();
    for driver in drivers {
        if let Some(why) = unserved(context, driver).await? {
            return refused(
                why,
                Some("delete it from a cluster that has the driver and a snapshot controller"),
            );
        }
    }
    Ok(())
}

/// Why a snapshot of EBS must not be deleted with the backup called `name` of the location `here`: it is another's, or it may be
/// somewhere else. Pure.
fn doubt(
    name: &str,
    here: &str,
    snapshot: &EbsSnapshot,
    found: Option<&DiskSnapshot>,
    begun: bool,
) -> Option<(String, String)> {
    let id = &snapshot.snapshot_id;
    let Some(found) = found else {
        // Not found is deleted, unless it was looked for in a region that nobody has named.
        let guessed = snapshot.known_region().is_empty() && !begun;
        return guessed.then(|| {
            (
                format!("{id} is not in this region, and the backup does not say in which it is"),
                "set AWS_REGION to that of the snapshots; of snapshots that are gone, delete the backup with what made it"
                    .to_owned(),
            )
        });
    };
    let tag = |key: &str| found.tags.get(key).map(String::as_str);
    if let Some(other) = tag(identity::LOCATION).filter(|other| *other != here) {
        return Some((
            format!(
                "{id} belongs to the backup in another place (its tag {} is {other}, and this place is {here}), of which this is a copy",
                identity::LOCATION
            ),
            format!(
                "delete the backup there; if that place is no more, tag the snapshots with {}={here}, and delete again",
                identity::LOCATION
            ),
        ));
    }
    let backups = [tag(identity::BACKUP), tag(VELERO_BACKUP)];
    let other = backups.into_iter().flatten().find(|other| *other != name)?;
    Some((
        format!("{id} belongs to backup {other}, as its tags say"),
        format!("delete {other}; this is a copy of it, which the tools of the bucket delete"),
    ))
}

/// Why snapshots of a driver cannot be deleted through this cluster.
async fn unserved(context: &Context, driver: &str) -> Result<Option<String>, RemovalError> {
    let there = async |path: &str| {
        let asked = context
            .cluster
            .get::<Value>(path, "asking whether snapshots can be deleted");
        match asked.await {
            Ok(_) => Ok(true),
            // Who may not look there may still be right.
            Err(error) if error.is_forbidden() => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    };
    if !there("/apis/snapshot.storage.k8s.io/v1").await? {
        let error = csi::CsiError::NotServed;
        return Ok(Some(format!("{error}, and those of {driver} need one")));
    }
    let path = format!("/apis/storage.k8s.io/v1/csidrivers/{driver}");
    Ok((!there(&path).await?)
        .then(|| format!("the driver {driver} is not installed in this cluster")))
}

impl Removal<'_> {
    /// Stores the list of the snapshots that are about to go, and of a backup that is deleted, deletes them: all, though some
    /// cannot be.
    pub(super) async fn remove_snapshots(
        &mut self,
        records: &[VolumeRecord],
    ) -> Result<(), RemovalError> {
        let left: Vec<&VolumeRecord> = records
            .iter()
            .filter(|record| !self.gone.contains(&id(record)))
            .collect();
        let owner = Owner::new(self.store().canonical(), &self.context.run, self.name);
        let (mut failures, mut denied) = (Vec::new(), false);
        for record in left {
            // As close as can be, as for objects.
            self.may_go_on().await?;
            let volume = &record.persistent_volume;
            let deleted = match &record.data {
                Data::Ebs(snapshot) => self.remove_disk_snapshot(snapshot).await,
                Data::Csi(snapshot) => self.remove_csi_snapshot(&owner, volume, snapshot).await,
                _ => Err((
                    "it is of a kind that this version does not know".to_owned(),
                    false,
                )),
            };
            let what = record.snapshot_id().unwrap_or("?");
            match deleted {
                Ok(was_there) => {
                    self.has_deleted = true;
                    self.removed.snapshots += u64::from(was_there);
                    self.gone.insert(id(record));
                }
                Err((why, is_denied)) => {
                    let text = format!("snapshot {what} of persistentVolume {volume}: {why}");
                    self.context.log.error(&text);
                    denied |= is_denied;
                    failures.push(text);
                }
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        Err(RemovalError::SnapshotsLeft {
            backup: self.name.to_owned(),
            failures,
            denied,
        })
    }

    async fn remove_disk_snapshot(&self, snapshot: &EbsSnapshot) -> Result<bool, (String, bool)> {
        let deleted = async {
            let disks = self.context.disks.disks().await?;
            let region = snapshot.known_region();
            disks.delete_snapshot(region, &snapshot.snapshot_id).await
        };
        deleted
            .await
            .map_err(|error| (crate::error::chain(&error), is_denied(&error)))
    }

    async fn remove_csi_snapshot(
        &self,
        owner: &Owner,
        volume: &str,
        snapshot: &CsiSnapshot,
    ) -> Result<bool, (String, bool)> {
        let cluster = &self.context.cluster;
        csi::delete(cluster, owner, volume, snapshot, CSI_SNAPSHOT_TIMEOUT)
            .await
            .map(|()| true)
            .map_err(|error| (crate::error::chain(&error), false))
    }

    /// Stores the list of the snapshots that are about to go, before the first of them does.
    pub(super) async fn begin_snapshots(
        &mut self,
        records: &[VolumeRecord],
    ) -> Result<(), RemovalError> {
        if records.iter().all(|record| self.gone.contains(&id(record))) {
            return Ok(());
        }
        self.may_go_on().await?;
        put_deleting(self.store(), self.name, self.cause, records).await?;
        Ok(())
    }
}

/// Codes by which the cloud says that it may not be.
const DENIALS: [&str; 6] = [
    "UnauthorizedOperation",
    "AccessDenied",
    "AuthFailure",
    "InvalidClientTokenId",
    "ExpiredToken",
    "RequestExpired",
];

/// What to do when it cannot be seen which snapshots there are. Pure.
fn way_out(error: &DiskError) -> &'static str {
    match error {
        DiskError::Refused { code, .. } if DENIALS.contains(&code.as_str()) => {
            "docs/volumes.md has the rights that ark needs in AWS; then delete again"
        }
        _ => "try again when EC2 can be reached",
    }
}

/// Whether the cloud denies it, which it will deny the next one, too.
fn is_denied(error: &DiskError) -> bool {
    match error {
        DiskError::Refused { code, .. } => DENIALS.contains(&code.as_str()),
        DiskError::NotHere | DiskError::Setup(_) => true,
        _ => false,
    }
}

/// A small object; `None` when it is larger than any of its kind.
async fn small(store: &Store, object: &ObjectMeta) -> Result<Option<Vec<u8>>, StoreError> {
    match store.get(&object.key, MAX_LENGTH).await {
        Err(StoreError::TooLong { .. }) => Ok(None),
        found => Ok(Some(found?.unwrap_or_default().into())),
    }
}

/// Whether a list, as gzip of a JSON array, may have an entry: one that cannot be read may. A file without a byte has none.
fn has_entries(gzip: &[u8]) -> bool {
    if gzip.is_empty() {
        return false;
    }
    let mut json = Vec::new();
    let mut limited = GzDecoder::new(gzip).take(LIST_MAX + 1);
    if limited.read_to_end(&mut json).is_err() || json.len() as u64 > LIST_MAX {
        return true;
    }
    match serde_json::from_slice(&json) {
        Ok(Value::Array(entries)) => !entries.is_empty(),
        Ok(Value::Null) => false,
        Ok(_) | Err(_) => true,
    }
}

/// Whether a description of original Ark's names snapshots.
fn volume_backups(json: &[u8]) -> bool {
    let description: Value = serde_json::from_slice(json).unwrap_or_default();
    let backups = &description["status"]["volumeBackups"];
    backups.as_object().is_some_and(|map| !map.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    #[test]
    fn rights_are_looked_up_by_who_is_denied_and_not_by_who_has_no_answer() {
        let refused = |code: &str| DiskError::Refused {
            doing: "looking at 1 snapshots in r".into(),
            code: code.into(),
            message: "no".into(),
        };
        for code in DENIALS {
            assert!(way_out(&refused(code)).contains("rights"), "{code}");
        }
        for error in [
            refused(""),
            refused("InternalError"),
            DiskError::Setup("no region".into()),
        ] {
            assert_eq!(way_out(&error), "try again when EC2 can be reached");
        }
    }

    #[test]
    fn a_snapshot_that_may_be_anothers_is_not_deleted() {
        let recorded = |region: &str| EbsSnapshot {
            snapshot_id: "snap-1".into(),
            region: region.into(),
            ..EbsSnapshot::default()
        };
        let found = |tags: &[(&str, &str)]| DiskSnapshot {
            id: "snap-1".into(),
            volume_id: "vol-1".into(),
            region: "r".into(),
            state: "completed".into(),
            state_message: None,
            progress: None,
            size_gib: None,
            started: None,
            tags: tags
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let why = |snapshot: &EbsSnapshot, found: Option<&DiskSnapshot>, begun| {
            doubt("b", "here", snapshot, found, begun).map(|(why, _)| why)
        };
        let own = found(&[(identity::LOCATION, "here"), (identity::BACKUP, "b")]);
        let veleros = found(&[("velero.io/backup", "b")]);
        for fine in [&own, &veleros, &found(&[])] {
            assert_eq!(why(&recorded(""), Some(fine), false), None);
        }
        let elsewhere = found(&[(identity::LOCATION, "there"), (identity::BACKUP, "b")]);
        let others = found(&[(identity::LOCATION, "here"), (identity::BACKUP, "a")]);
        for (tags, says) in [
            (elsewhere, "in another place"),
            (others, "belongs to backup a"),
            (found(&[("velero.io/backup", "a")]), "belongs to backup a"),
        ] {
            let why = why(&recorded("r"), Some(&tags), true).unwrap();
            assert!(why.contains(says), "{why}");
        }
        // Not found is deleted, where it surely was.
        assert_eq!(why(&recorded("r"), None, false), None);
        assert!(why(&recorded(""), None, false).is_some());
        assert_eq!(why(&recorded(""), None, true), None);
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn only_a_list_that_is_surely_empty_has_no_entries() {
        for empty in ["[]", "null\n", " [ ] "] {
            assert!(!has_entries(&gzip(empty)), "{empty}");
        }
        assert!(!has_entries(b""));
        for full in [r#"[{"spec":{}}]"#, "{}", "", "[", "x"] {
            assert!(has_entries(&gzip(full)), "{full}");
        }
        assert!(has_entries(b"no gzip"));
        let mut cut = gzip("[]");
        cut.truncate(cut.len() - 9);
        assert!(has_entries(&cut));
    }

    #[test]
    fn original_arks_snapshots_are_seen() {
        let description = |backups: &str| {
            format!(r#"{{"kind":"Backup","status":{{"volumeBackups":{backups}}}}}"#)
        };
        assert!(volume_backups(
            description(r#"{"pv-1":{"snapshotID":"snap-1"}}"#).as_bytes()
        ));
        assert!(!volume_backups(description("null").as_bytes()));
        assert!(!volume_backups(description("{}").as_bytes()));
    }
}
