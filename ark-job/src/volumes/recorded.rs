//! The snapshots that a stored backup records, whoever made it: ours in the footer, Velero's in its volume files, original
//! Ark's in its description.
//!
//! Velero's files came one after the other, and each may be missing: `volumesnapshots` (always), `podvolumebackups`, the
//! `csi-` ones (until 1.16), `itemoperations` (since 1.11), `volumeinfo` (since 1.13), which alone says everything.

use super::disks::region_of;
use super::{ClaimName, CsiSnapshot, Data, EbsSnapshot, VolumeRecord};
use crate::foreign::Origin;
use crate::layout::{BackupKeys, OriginalKeys};
use crate::repository::{OpenBackup, RepositoryError};
use crate::store::{Store, StoreError};
use flate2::read::MultiGzDecoder;
use futures::StreamExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

/// A list is kilobytes; one of more bytes, packed or not, is refused.
const LIST_MAX: u64 = 16 << 20;
/// Members of an archive that are read at once: each may need some MiB.
const AHEAD: usize = 2;
/// What snapshots of EBS are called.
const EBS_SNAPSHOT: &str = "snap-";
/// Resource type of the archive.
const CLAIMS: &str = "persistentvolumeclaims";
/// Resource type of the archive.
const CONTENTS: &str = "volumesnapshotcontents.snapshot.storage.k8s.io";
/// What is said of data that Velero has copied.
const IN_A_REPOSITORY: &str =
    "Velero has its files in a repository of kopia or restic, and ark does not restore those";

/// Whether a record without a snapshot (`reason` says why) is of data that the backup has nevertheless, where ark does not
/// reach it.
pub fn is_elsewhere(reason: &str) -> bool {
    reason.contains(IN_A_REPOSITORY)
}

/// Why the records of a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordedError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive, in which the objects are that belong to the records.
    #[error(transparent)]
    Archive(#[from] RepositoryError),
    /// A file is damaged, or says what is not understood.
    #[error("{key}: {why}")]
    Unreadable {
        /// Its key.
        key: String,
        /// What is wrong.
        why: String,
    },
}

/// The records of a backup that is open, whoever made it: also of volumes without a snapshot, as far as it says something of
/// them.
///
/// Velero's files of older versions name claims, not volumes: their records get the volume of the claim in the archive. One
/// whose `persistent_volume` is empty nevertheless belongs to no volume of the archive (a directory of a pod's own).
///
/// # Errors
/// When a file or the archive cannot be read: then nobody may say that there are none.
pub async fn of_backup(
    store: &Store,
    backup: &Arc<OpenBackup>,
) -> Result<Vec<VolumeRecord>, RecordedError> {
    let head = &backup.footer.head;
    let name = &head.backup;
    let mut records = match backup.origin {
        Origin::Ark => return Ok(head.volumes.clone()),
        Origin::Velero => of_velero(store, name).await?,
        Origin::OriginalArk => of_stored_original(store, name).await?,
    };
    if records
        .iter()
        .any(|record| record.persistent_volume.is_empty())
    {
        let claims = objects(backup, CLAIMS).await?;
        name_volumes(&mut records, &claims);
    }
    if records
        .iter()
        .any(|record| matches!(record.data, Data::Csi(_)))
    {
        let contents = objects(backup, CONTENTS).await?;
        describe_snapshots(&mut records, &contents);
    }
    Ok(records)
}

/// The records of original Ark's backup called `name`; since 0.10 they are in a file, which 0.11 and Velero took over.
async fn of_stored_original(store: &Store, name: &str) -> Result<Vec<VolumeRecord>, RecordedError> {
    for key in [
        BackupKeys::new(name).marker(),
        OriginalKeys::new(name).description(),
    ] {
        let Some(description) = store.get(&key, LIST_MAX).await? else {
            continue;
        };
        let mut records = of_original(&description).map_err(|why| RecordedError::Unreadable {
            key: key.clone(),
            why,
        })?;
        records.extend(of_velero(store, name).await?);
        return Ok(records);
    }
    Ok(Vec::new())
}

/// The records in the files of Velero's backup called `name`; none when it has none.
///
/// Of a volume that only a claim is known of, `persistent_volume` is empty; [`of_backup`] finds it.
///
/// # Errors
/// When a file cannot be read: then nobody may say that there are none.
pub async fn of_velero(store: &Store, name: &str) -> Result<Vec<VolumeRecord>, RecordedError> {
    let keys = BackupKeys::new(name);
    let (native, infos, contents, snapshots) = (
        keys.volume_snapshots(),
        keys.volume_info(),
        keys.csi_volume_snapshot_contents(),
        keys.csi_volume_snapshots(),
    );
    let (native, infos, contents, snapshots) = futures::try_join!(
        list::<Native>(store, &native),
        list::<Info>(store, &infos),
        list::<Content>(store, &contents),
        list::<Snapshot>(store, &snapshots),
    )?;
    let mut files = Files {
        native: native.unwrap_or_default(),
        contents: contents.unwrap_or_default(),
        snapshots: snapshots.unwrap_or_default(),
        ..Files::default()
    };
    match infos {
        Some(infos) => files.infos = infos,
        // Before there was one file that says all of it.
        None => {
            let (pods, operations) = (keys.pod_volume_backups(), keys.item_operations());
            let (pods, operations) = futures::try_join!(
                list::<PodVolume>(store, &pods),
                list::<Operation>(store, &operations)
            )?;
            files.pods = pods.unwrap_or_default();
            files.operations = operations.unwrap_or_default();
        }
    }
    Ok(files.records())
}

/// The records of snapshots in original Ark's description (`ark-backup.json`).
///
/// # Errors
/// A sentence, when they are not what original Ark writes.
pub fn of_original(description: &[u8]) -> Result<Vec<VolumeRecord>, String> {
    #[derive(Deserialize)]
    struct Description {
        #[serde(default)]
        status: Option<Status>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        #[serde(default)]
        volume_backups: Option<BTreeMap<String, VolumeBackup>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct VolumeBackup {
        #[serde(rename = "snapshotID")]
        snapshot_id: String,
        r#type: String,
        availability_zone: String,
        iops: Option<i64>,
    }
    let description: Description = serde_json::from_slice(description)
        .map_err(|error| format!("status.volumeBackups is not original Ark's: {error}"))?;
    let backups = description.status.and_then(|status| status.volume_backups);
    let backups = backups.unwrap_or_default().into_iter();
    Ok(backups
        .map(|(persistent_volume, backup)| VolumeRecord {
            persistent_volume,
            claim: None,
            reclaim_policy: String::new(),
            labels: BTreeMap::new(),
            data: disk(
                "original Ark's",
                EbsSnapshot {
                    snapshot_id: backup.snapshot_id,
                    region: region_of(&backup.availability_zone).to_owned(),
                    availability_zone: backup.availability_zone,
                    volume_type: backup.r#type,
                    iops: provisioned(backup.iops),
                    ..EbsSnapshot::default()
                },
            ),
        })
        .collect())
}

/// Of types without provisioned operations, the number is recorded as 0.
fn provisioned(iops: Option<i64>) -> Option<i32> {
    iops.and_then(|iops| i32::try_from(iops).ok())
        .filter(|&iops| iops > 0)
}

/// What there is of a disk: other clouds' snapshots were recorded in the same way, and are beyond this program.
fn disk(whose: &str, snapshot: EbsSnapshot) -> Data {
    match snapshot.snapshot_id.as_str() {
        "" => Data::Missing {
            reason: format!("{whose} snapshot of it failed"),
        },
        id if id.starts_with(EBS_SNAPSHOT) => Data::Ebs(snapshot),
        _ => Data::Unknown,
    }
}

/// A file of Velero's: gzip of a JSON array or `null`; `None` if it is not there.
async fn list<T: DeserializeOwned>(
    store: &Store,
    key: &str,
) -> Result<Option<Vec<T>>, RecordedError> {
    match store.get(key, LIST_MAX).await {
        Ok(None) => Ok(None),
        Ok(Some(gzip)) => parse_list(&gzip).map(Some).map_err(|why| {
            let key = key.to_owned();
            RecordedError::Unreadable { key, why }
        }),
        Err(error @ StoreError::TooLong { .. }) => Err(RecordedError::Unreadable {
            key: key.to_owned(),
            why: error.to_string(),
        }),
        Err(error) => Err(error.into()),
    }
}

fn parse_list<T: DeserializeOwned>(gzip: &[u8]) -> Result<Vec<T>, String> {
    // Velero has nothing to write where a feature is off.
    if gzip.is_empty() {
        return Ok(Vec::new());
    }
    let mut json = Vec::new();
    MultiGzDecoder::new(gzip)
        .take(LIST_MAX + 1)
        .read_to_end(&mut json)
        .map_err(|error| format!("it is no gzip, or is damaged: {error}"))?;
    if json.len() as u64 > LIST_MAX {
        return Err(format!("it unpacks to more than {} MiB", LIST_MAX >> 20));
    }
    let list: Option<Vec<T>> = serde_json::from_slice(&json)
        .map_err(|error| format!("it is not the list that Velero writes: {error}"))?;
    Ok(list.unwrap_or_default())
}

/// What Velero's files say.
#[derive(Default)]
struct Files {
    native: Vec<Native>,
    infos: Vec<Info>,
    contents: Vec<Content>,
    snapshots: Vec<Snapshot>,
    pods: Vec<PodVolume>,
    operations: Vec<Operation>,
}

/// An entry of `volumesnapshots`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Native {
    spec: NativeSpec,
    status: NativeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NativeSpec {
    // Until 1.0 a misspelt tag gave it a capital.
    #[serde(rename = "persistentVolumeName", alias = "PersistentVolumeName")]
    persistent_volume: String,
    #[serde(rename = "providerVolumeID")]
    volume_id: String,
    #[serde(rename = "volumeType")]
    volume_type: String,
    #[serde(rename = "volumeAZ")]
    zone: String,
    #[serde(rename = "volumeIOPS")]
    iops: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NativeStatus {
    #[serde(rename = "providerSnapshotID")]
    snapshot_id: String,
}

/// An entry of `volumeinfo`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Info {
    pvc_name: String,
    pvc_namespace: String,
    pv_name: String,
    backup_method: String,
    snapshot_data_moved: bool,
    skipped: bool,
    skipped_reason: String,
    start_timestamp: Option<Timestamp>,
    csi_snapshot_info: Option<CsiInfo>,
    native_snapshot_info: Option<NativeInfo>,
    pvb_info: Option<PodInfo>,
    pv_info: Option<VolumeInfo>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CsiInfo {
    snapshot_handle: String,
    size: i64,
    driver: String,
    vsc_name: String,
    volume_group_snapshot_handle: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NativeInfo {
    snapshot_handle: String,
    volume_type: String,
    #[serde(rename = "volumeAZ")]
    zone: String,
    iops: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodInfo {
    volume_name: String,
    pod_name: String,
    pod_namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeInfo {
    reclaim_policy: String,
    labels: Option<BTreeMap<String, String>>,
}

/// A volumeSnapshotContent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Content {
    metadata: Metadata,
    spec: ContentSpec,
    status: Option<ContentStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    namespace: String,
    name: String,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContentSpec {
    driver: String,
    source_volume_mode: Option<String>,
    volume_snapshot_class_name: Option<String>,
    volume_snapshot_ref: Reference,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContentStatus {
    snapshot_handle: Option<String>,
    restore_size: Option<i64>,
    /// Nanoseconds since 1970.
    creation_time: Option<i64>,
    volume_group_snapshot_handle: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reference {
    namespace: String,
    name: String,
}

/// A volumeSnapshot.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Snapshot {
    metadata: Metadata,
    spec: SnapshotSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SnapshotSpec {
    source: SnapshotSource,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SnapshotSource {
    persistent_volume_claim_name: Option<String>,
}

/// A podVolumeBackup.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PodVolume {
    metadata: Metadata,
    spec: PodVolumeSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodVolumeSpec {
    pod: Reference,
    volume: String,
}

/// An entry of `itemoperations`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Operation {
    spec: OperationSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OperationSpec {
    resource_identifier: Identifier,
    post_operation_items: Option<Vec<Identifier>>,
}

/// Without tags in Velero, so with capitals.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Identifier {
    resource: String,
    namespace: String,
    name: String,
}

impl Files {
    fn records(self) -> Vec<VolumeRecord> {
        let mut records: Vec<_> = self.native.into_iter().map(Native::record).collect();
        for info in self.infos {
            let of_this = |record: &&mut VolumeRecord| {
                !info.pv_name.is_empty() && record.persistent_volume == info.pv_name
            };
            match records.iter_mut().find(of_this) {
                Some(record) => info.complete(record),
                None => records.push(info.record()),
            }
        }
        for content in self.contents {
            add_content(&mut records, content, &self.snapshots);
        }
        for pod in self.pods {
            add(&mut records, pod.record());
        }
        for operation in self.operations {
            if let Some(record) = operation.record() {
                add(&mut records, record);
            }
        }
        records
    }
}

/// Adds a record, unless there is one of that claim.
fn add(records: &mut Vec<VolumeRecord>, record: VolumeRecord) {
    let is_known =
        record.claim.is_some() && records.iter().any(|known| known.claim == record.claim);
    if !is_known {
        records.push(record);
    }
}

/// A claim, if it is named.
fn claim(namespace: &str, name: &str) -> Option<ClaimName> {
    (!name.is_empty()).then(|| ClaimName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// A record of a volume of which only the claim is known, if that.
fn of_claim(claim: Option<ClaimName>, data: Data) -> VolumeRecord {
    VolumeRecord {
        persistent_volume: String::new(),
        claim,
        reclaim_policy: String::new(),
        labels: BTreeMap::new(),
        data,
    }
}

impl Native {
    fn record(self) -> VolumeRecord {
        let Native { spec, status } = self;
        VolumeRecord {
            persistent_volume: spec.persistent_volume,
            ..of_claim(
                None,
                disk(
                    "Velero's",
                    EbsSnapshot {
                        snapshot_id: status.snapshot_id,
                        volume_id: spec.volume_id,
                        region: region_of(&spec.zone).to_owned(),
                        availability_zone: spec.zone,
                        volume_type: spec.volume_type,
                        iops: provisioned(spec.iops),
                        ..EbsSnapshot::default()
                    },
                ),
            )
        }
    }
}

impl Info {
    /// Adds what the snapshot's own entry does not say.
    fn complete(self, record: &mut VolumeRecord) {
        record.claim = claim(&self.pvc_namespace, &self.pvc_name);
        let volume = self.pv_info.unwrap_or_default();
        record.reclaim_policy = volume.reclaim_policy;
        record.labels = volume.labels.unwrap_or_default();
        if let Data::Ebs(snapshot) = &mut record.data {
            snapshot.started = self.start_timestamp;
        }
    }

    fn record(self) -> VolumeRecord {
        let mut record = VolumeRecord {
            persistent_volume: self.pv_name.clone(),
            ..of_claim(None, self.data())
        };
        self.complete(&mut record);
        record
    }

    fn data(&self) -> Data {
        if self.skipped {
            let reason = self.skipped_reason.trim_end_matches(';').trim();
            return Data::Skipped {
                reason: match reason {
                    "" => "Velero skipped it".to_owned(),
                    reason => format!("Velero skipped it: {reason}"),
                },
            };
        }
        let missing = |reason: String| Data::Missing { reason };
        match (self.backup_method.as_str(), &self.csi_snapshot_info) {
            ("PodVolumeBackup", _) => missing(match &self.pvb_info {
                Some(pod) if self.pvc_name.is_empty() => pod.describe(),
                _ => IN_A_REPOSITORY.to_owned(),
            }),
            ("CSISnapshot", _) if self.snapshot_data_moved => missing(IN_A_REPOSITORY.to_owned()),
            ("CSISnapshot", Some(csi)) if !csi.snapshot_handle.is_empty() => {
                Data::Csi(CsiSnapshot {
                    handle: csi.snapshot_handle.clone(),
                    driver: csi.driver.clone(),
                    restore_size: Some(csi.size).filter(|&size| size > 0),
                    group_handle: text(&csi.volume_group_snapshot_handle),
                    created: self.start_timestamp,
                    content: csi.vsc_name.clone(),
                    ..CsiSnapshot::default()
                })
            }
            ("NativeSnapshot" | "CSISnapshot", _) => match &self.native_snapshot_info {
                Some(native) => disk("Velero's", native.snapshot()),
                None => missing("Velero's snapshot of it failed".to_owned()),
            },
            ("", _) => missing("Velero took no snapshot of it".to_owned()),
            // What a later Velero may do.
            _ => Data::Unknown,
        }
    }
}

impl NativeInfo {
    fn snapshot(&self) -> EbsSnapshot {
        EbsSnapshot {
            snapshot_id: self.snapshot_handle.clone(),
            region: region_of(&self.zone).to_owned(),
            availability_zone: self.zone.clone(),
            volume_type: self.volume_type.clone(),
            iops: provisioned(self.iops.parse().ok()),
            ..EbsSnapshot::default()
        }
    }
}

impl PodInfo {
    /// Of what is no persistent volume.
    fn describe(&self) -> String {
        let PodInfo {
            volume_name,
            pod_name,
            pod_namespace,
        } = self;
        format!("volume {volume_name} of pod {pod_namespace}/{pod_name}: {IN_A_REPOSITORY}")
    }
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Content {
    fn handle(&self) -> Option<&str> {
        let handle = self.status.as_ref()?.snapshot_handle.as_deref();
        handle.filter(|handle| !handle.is_empty())
    }

    /// Fills in what is not known yet.
    fn complete(&self, snapshot: &mut CsiSnapshot) {
        let Content {
            metadata,
            spec,
            status,
        } = self;
        snapshot.driver.clone_from(&spec.driver);
        snapshot.content.clone_from(&metadata.name);
        snapshot
            .snapshot_class
            .clone_from(&spec.volume_snapshot_class_name);
        snapshot
            .source_volume_mode
            .clone_from(&spec.source_volume_mode);
        let reference = &spec.volume_snapshot_ref;
        snapshot.volume_snapshot = claim(&reference.namespace, &reference.name);
        // `snapshot.storage.kubernetes.io/deletion-secret-name`, `csi.storage.k8s.io/snapshotter-secret-namespace`, …
        let names_secret =
            |key: &str| key.ends_with("-secret-name") || key.ends_with("-secret-namespace");
        snapshot.annotations = metadata.annotations.clone().unwrap_or_default();
        snapshot.annotations.retain(|key, _| names_secret(key));
        let Some(status) = status else { return };
        let size = status.restore_size.filter(|&size| size > 0);
        snapshot.restore_size = size.or(snapshot.restore_size);
        let created = status.creation_time;
        let created = created.and_then(|time| Timestamp::from_nanosecond(time.into()).ok());
        snapshot.created = created.or(snapshot.created);
        let group = status.volume_group_snapshot_handle.clone();
        snapshot.group_handle = group.or(snapshot.group_handle.take());
    }
}

/// Adds what a content says to the record of its snapshot, or a record of the claim that it was taken of.
fn add_content(records: &mut Vec<VolumeRecord>, content: Content, snapshots: &[Snapshot]) {
    let Some(handle) = content.handle() else {
        return;
    };
    for record in records.iter_mut() {
        if let Data::Csi(snapshot) = &mut record.data
            && snapshot.handle == handle
        {
            content.complete(snapshot);
            return;
        }
    }
    let mut snapshot = CsiSnapshot {
        handle: handle.to_owned(),
        ..CsiSnapshot::default()
    };
    content.complete(&mut snapshot);
    let reference = &content.spec.volume_snapshot_ref;
    let (namespace, name) = (&reference.namespace, &reference.name);
    let taken_of = snapshots
        .iter()
        .find(|found| found.metadata.namespace == *namespace && found.metadata.name == *name)
        .and_then(|found| found.spec.source.persistent_volume_claim_name.as_deref())
        .and_then(|name| claim(namespace, name));
    let of_that_claim = |record: &&mut VolumeRecord| {
        taken_of.is_some() && record.claim == taken_of && !record.has_snapshot()
    };
    match records.iter_mut().find(of_that_claim) {
        Some(record) => record.data = Data::Csi(snapshot),
        None => records.push(of_claim(taken_of, Data::Csi(snapshot))),
    }
}

impl PodVolume {
    fn record(self) -> VolumeRecord {
        let PodVolume { metadata, spec } = self;
        let annotations = metadata.annotations.unwrap_or_default();
        let pod = PodInfo {
            volume_name: spec.volume,
            pod_name: spec.pod.name,
            pod_namespace: spec.pod.namespace,
        };
        let claim = annotations
            .get("velero.io/pvc-name")
            .and_then(|name| claim(&pod.pod_namespace, name));
        let reason = match &claim {
            Some(_) => IN_A_REPOSITORY.to_owned(),
            None => pod.describe(),
        };
        of_claim(claim, Data::Missing { reason })
    }
}

impl Operation {
    /// Of one that moves the data of a claim.
    fn record(self) -> Option<VolumeRecord> {
        let subject = self.spec.resource_identifier;
        let items = self.spec.post_operation_items.unwrap_or_default();
        let moves = items.iter().any(|item| item.resource == "datauploads");
        let claim = claim(&subject.namespace, &subject.name);
        (moves && subject.resource == CLAIMS).then(|| {
            let reason = IN_A_REPOSITORY.to_owned();
            of_claim(claim, Data::Missing { reason })
        })
    }
}

/// The objects of one type in the archive.
async fn objects(
    backup: &Arc<OpenBackup>,
    resource: &'static str,
) -> Result<Vec<Value>, RecordedError> {
    let members = backup.footer.members.iter().enumerate();
    let indices: Vec<usize> = members
        .filter(|(_, member)| member.resource == resource)
        .map(|(index, _)| index)
        .collect();
    let read = backup.read_members(indices, AHEAD, |_, opened| {
        // What is not JSON is an error of that object, which the restore names.
        let parsed = opened
            .entries()
            .map(|entry| serde_json::from_slice(entry.body).ok());
        parsed.flatten().collect::<Vec<Value>>()
    });
    let mut read = std::pin::pin!(read);
    let mut objects = Vec::new();
    while let Some(found) = read.next().await {
        objects.extend(found?);
    }
    Ok(objects)
}

/// Gives records of claims the volumes that these are bound to.
fn name_volumes(records: &mut [VolumeRecord], claims: &[Value]) {
    for record in records {
        if !record.persistent_volume.is_empty() {
            continue;
        }
        let Some(wanted) = &record.claim else {
            continue;
        };
        let is_it = |object: &&Value| {
            let metadata = &object["metadata"];
            metadata["namespace"] == wanted.namespace.as_str()
                && metadata["name"] == wanted.name.as_str()
        };
        let found = claims.iter().find(is_it);
        let volume = found.and_then(|object| object["spec"]["volumeName"].as_str());
        record.persistent_volume = volume.unwrap_or_default().to_owned();
    }
}

/// Adds to records of CSI snapshots what only the objects say: secrets, class, kind of volume.
fn describe_snapshots(records: &mut [VolumeRecord], contents: &[Value]) {
    for object in contents {
        let Ok(content) = Content::deserialize(object) else {
            continue;
        };
        for record in records.iter_mut() {
            if let Data::Csi(snapshot) = &mut record.data
                && content.handle() == Some(&snapshot.handle)
            {
                content.complete(snapshot);
            }
        }
    }
}

#[cfg(test)]
mod tests;
