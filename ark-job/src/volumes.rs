//! The data of persistent volumes: snapshots, what is recorded of them, and whose they are.
//!
//! Records are in the footer of an archive and in the marker. What takes, finds and deletes snapshots is below: [`disks`]
//! for those of the cloud (EBS), [`csi`] for those of CSI drivers. The rules are in docs/volumes.md.

pub mod begun;
pub mod csi;
pub mod disks;
#[cfg(feature = "ec2")]
pub mod ec2;
pub mod identity;
pub mod policy;
pub mod quantity;
pub mod recorded;
pub mod velero;

pub use self::identity::Owner;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a CSI driver may take until a snapshot has a handle, if nobody says (Velero's default).
pub const CSI_SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long snapshots that are being taken, and volumes that are being made, are waited for, if nobody says (Velero's
/// time-out of item operations): the first snapshot of a large disk takes hours.
pub const VOLUME_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// The CSI driver of EBS; also what records say of EBS volumes that the kubelet mounts without one.
pub const EBS_DRIVER: &str = "ebs.csi.aws.com";
/// Annotation (value `true`) on a persistentVolumeClaim or persistentVolume: no snapshot is taken of it.
pub const SKIP_ANNOTATION: &str = "ark.heptio.com/skip-snapshot";

/// A persistent volume of a backup, and what became of its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRecord {
    /// Name of the persistentVolume; empty in a record of Velero's that is of no volume in the archive.
    pub persistent_volume: String,
    /// The claim that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimName>,
    /// `Delete`, `Retain` or `Recycle`; empty when not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reclaim_policy: String,
    /// Labels of the persistentVolume, for Velero's list.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What became of its data.
    pub data: Data,
}

/// Namespace and name of a persistentVolumeClaim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClaimName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for ClaimName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What became of the data of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "camelCase")]
pub enum Data {
    /// A snapshot of EBS.
    Ebs(EbsSnapshot),
    /// A snapshot of a CSI driver.
    Csi(CsiSnapshot),
    /// None, as was asked for.
    Skipped {
        /// Why.
        reason: String,
    },
    /// None, though it was not asked for.
    Missing {
        /// Why.
        reason: String,
    },
    /// Something of a later version: a backup with it can be read, but not deleted by this one.
    #[serde(other)]
    Unknown,
}

/// A snapshot of an EBS volume, and what is needed to make a volume like it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EbsSnapshot {
    /// `snap-…`
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    /// `vol-…`
    #[serde(rename = "volumeID")]
    pub volume_id: String,
    /// Region of both; empty when the record (Velero's) does not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// Zone of the volume; empty when nobody says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub availability_zone: String,
    /// `gp3`, `io2`, …
    pub volume_type: String,
    /// Provisioned operations a second, of the types that have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops: Option<i32>,
    /// Provisioned throughput, MiB/s, of the types that have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput: Option<i32>,
    /// Size of the volume, GiB; absent in others' records.
    #[serde(rename = "sizeGiB", skip_serializing_if = "Option::is_none")]
    pub size_gib: Option<i32>,
    /// Whether the volume was encrypted; absent in others' records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// The key it was encrypted with.
    #[serde(rename = "kmsKeyID", skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// When the snapshot began, by the cloud's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
}

/// A snapshot of a CSI driver, and what is needed to make a volume from it in any cluster that has the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiSnapshot {
    /// The driver's own name for it.
    pub handle: String,
    /// Name of the driver.
    pub driver: String,
    /// The class it was taken with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_class: Option<String>,
    /// The least size of a volume made from it, bytes; absent when the driver has not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<i64>,
    /// `Filesystem` or `Block`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_volume_mode: Option<String>,
    /// Annotations of the content that name Secrets for the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The group snapshot that it was taken with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_handle: Option<String>,
    /// The handles of all snapshots of that group, without which it cannot be deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_members: Vec<String>,
    /// When it was taken, by the driver's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Name of the volumeSnapshotContent in the cluster of the backup, which is removed after the marker.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// Namespace and name of its volumeSnapshot, which is removed with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot: Option<ClaimName>,
}

impl EbsSnapshot {
    /// Its region: as recorded, or by its zone; empty when nobody says.
    pub fn known_region(&self) -> &str {
        match self.region.as_str() {
            "" => disks::region_of(&self.availability_zone),
            region => region,
        }
    }
}

impl VolumeRecord {
    /// The id by which a snapshot is found again; `None` when there is no snapshot.
    pub fn snapshot_id(&self) -> Option<&str> {
        match &self.data {
            Data::Ebs(snapshot) => Some(&snapshot.snapshot_id),
            Data::Csi(snapshot) => Some(&snapshot.handle),
            Data::Skipped { .. } | Data::Missing { .. } | Data::Unknown => None,
        }
    }

    /// Whether there is a snapshot, or may be one.
    pub fn has_snapshot(&self) -> bool {
        !matches!(self.data, Data::Skipped { .. } | Data::Missing { .. })
    }
}

/// Of all records, those of snapshots.
pub fn snapshots(records: &[VolumeRecord]) -> Vec<VolumeRecord> {
    let mut snapshots = records.to_vec();
    snapshots.retain(VolumeRecord::has_snapshot);
    snapshots
}
