//! Snapshots of CSI drivers, by the objects of `snapshot.storage.k8s.io/v1`.
//!
//! [`take`] makes them, [`group`] several at once; [`remove`] lets go of their objects, and deletes their data from any
//! cluster; [`owned`] finds what was left behind; [`restore`] makes the objects that volumes are made from. What a name
//! follows from is hashed into it, so that every function finds what an earlier call, cut off anywhere, has made.
//!
//! The controllers' rules that this rests on (kubernetes-csi/external-snapshotter v8.7): deleting a volumeSnapshot marks
//! its content with an annotation; the driver's sidecar acts on a content that is being deleted and has the mark (or was
//! never bound): with policy Delete and a handle in its status it has the driver delete the data, else not; then it takes
//! its finalizer off. A content without that finalizer is gone at once, and its data stays. A content that tells the
//! handle of a group is only ever deleted with its group's content.

mod classes;
mod group;
mod objects;
mod owned;
mod remove;
mod restore;
mod take;

pub use self::classes::{
    CLASS_ANNOTATION, CLASS_LABEL, Class, Classes, VELERO_CLASS_ANNOTATION, VELERO_CLASS_LABEL,
};
pub use self::group::snapshot_group;
pub use self::objects::{GROUP_OF_GROUPS, GROUP_VERSIONS};
pub use self::owned::{delete_owned, let_go_owned, owned};
pub use self::remove::{delete, let_go};
pub use self::restore::{group_to_restore, to_restore};
pub use self::take::snapshot;

use super::ClaimName;
use crate::cluster::ClusterError;
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

/// An object of ours in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Namespace and name of the volumeGroupSnapshot that it was taken with, if there is one (still).
    pub group: Option<ClaimName>,
    /// Name of its volumeGroupSnapshotContent, if there is one (still).
    pub group_content: Option<String>,
    /// When the older of the two was made, by the API server's clock.
    pub created: Option<jiff::Timestamp>,
    /// Size, bytes.
    pub size: Option<i64>,
    /// Whether the driver says that it can be used.
    pub ready: Option<bool>,
}

/// A right that is needed: API group, resources, verbs, as in a rule of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// API group.
    pub group: &'static str,
    /// Resources, in all namespaces.
    pub resources: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
}

/// What a backup must be allowed to do for snapshots of CSI drivers: [`Classes::read`], [`snapshot`], [`snapshot_group`]
/// and [`let_go`].
pub const RIGHTS_OF_BACKUP: [Right; 7] = [
    Right {
        group: "snapshot.storage.k8s.io",
        resources: &["volumesnapshotclasses"],
        verbs: &["list"],
    },
    Right {
        group: "snapshot.storage.k8s.io",
        resources: &["volumesnapshots"],
        verbs: &["get", "list", "create", "patch", "delete"],
    },
    Right {
        group: "snapshot.storage.k8s.io",
        resources: &["volumesnapshotcontents"],
        verbs: &["get", "list", "patch", "delete"],
    },
    Right {
        group: "groupsnapshot.storage.k8s.io",
        resources: &["volumegroupsnapshotclasses"],
        verbs: &["list"],
    },
    Right {
        group: "groupsnapshot.storage.k8s.io",
        resources: &["volumegroupsnapshots"],
        verbs: &["get", "create", "delete"],
    },
    Right {
        group: "groupsnapshot.storage.k8s.io",
        resources: &["volumegroupsnapshotcontents"],
        verbs: &["get", "list", "patch", "delete"],
    },
    Right {
        group: "",
        resources: &["persistentvolumeclaims"],
        verbs: &["list"],
    },
];

/// What deleting backups and sweeping must be allowed to do for snapshots of CSI drivers: [`let_go`], [`delete`],
/// [`owned()`] and [`delete_owned`].
pub const RIGHTS_OF_HOUSEKEEPING: [Right; 5] = [
    Right {
        group: "snapshot.storage.k8s.io",
        resources: &["volumesnapshotclasses"],
        verbs: &["get"],
    },
    Right {
        group: "snapshot.storage.k8s.io",
        resources: &["volumesnapshots"],
        verbs: &["get", "list", "delete"],
    },
    Right {
        group: "snapshot.storage.k8s.io",
        resources: &["volumesnapshotcontents"],
        verbs: &["get", "list", "create", "patch", "delete"],
    },
    Right {
        group: "groupsnapshot.storage.k8s.io",
        resources: &["volumegroupsnapshots"],
        verbs: &["get", "list", "delete"],
    },
    Right {
        group: "groupsnapshot.storage.k8s.io",
        resources: &["volumegroupsnapshotcontents"],
        verbs: &["get", "list", "create", "patch", "delete"],
    },
];
