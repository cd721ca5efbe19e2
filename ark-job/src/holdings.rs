//! What there is: everything that a location and its cluster hold of backups, and what runs that were cut off have left.
//!
//! Read only: an expiry decides about it, and `volumes` lists some of it.

mod look;
pub mod loose;

pub use self::look::{list, look};
pub use self::loose::{Loose, Reference, What, references, unrecorded};

use crate::foreign::Origin;
use crate::store::Upload;
use crate::tombstone::Cause;
use crate::volumes::VolumeRecord;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Directories of backups.
    pub backups: Vec<Candidate>,
    /// Unfinished uploads.
    pub uploads: Vec<Upload>,
    /// Backup resources in phase Failed.
    pub failed: Vec<FailedRecord>,
    /// ConfigMaps whose backup or restore is gone.
    pub orphans: Vec<Orphan>,
    /// Snapshots and volumes that say that they are of this location.
    pub loose: Vec<Loose>,
    /// Names of backups and restores that are in progress.
    pub running: BTreeSet<String>,
    /// What could not be looked at, and why.
    pub troubles: Vec<(Kind, String, String)>,
}

/// A directory that may hold a backup.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub state: State,
    /// The snapshots that it records.
    pub recorded: Recorded,
}

/// The snapshots of ours that a directory records.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// They.
    pub snapshots: Vec<VolumeRecord>,
    /// Whether a marker does.
    pub committed: bool,
    /// Why not all are known.
    pub unknown: Option<String>,
}

/// What is in a backup's directory.
#[derive(Clone, Debug)]
pub enum State {
    /// A whole backup.
    Whole(Whole),
    /// A whole backup of ours under a void tombstone, with the tombstone's ETag.
    WholeUnderSweep(Whole, String),
    /// Its deletion has begun.
    BeingDeleted(Deletion),
    /// An archive of ours without a marker.
    Uncommitted(Uncommitted),
    /// Nothing that expires, and why.
    Other(String),
    /// What describes it cannot be used, and why.
    Unreadable(String),
}

/// A whole backup.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Who made it.
    pub origin: Origin,
    /// UID of its cluster; of ours only.
    pub cluster_uid: String,
    /// Namespace of the Ark that made it.
    pub namespace: String,
    /// The schedule that asked for it.
    pub schedule: Option<String>,
    /// How many of that schedule's newest are kept, as it says.
    pub keep_last: Option<u32>,
    /// Whether nothing is missing from it.
    pub completed: bool,
    /// When it was begun, by the clock of its pod.
    pub start: Option<Timestamp>,
    /// When it expires, by the clock of its pod; none is never.
    pub expiration: Option<Timestamp>,
    /// How long it is kept, if that is known.
    pub ttl: Option<SignedDuration>,
    /// When it was committed, by the store's clock.
    pub written: Timestamp,
    /// ETag of what describes it.
    pub etag: String,
}

/// A deletion that has begun.
#[derive(Clone, Debug)]
pub struct Deletion {
    /// Why.
    pub cause: Cause,
    /// The cluster that began it.
    pub cluster_uid: String,
    /// When, by the clock of its pod.
    pub at: Timestamp,
    /// When, by the store's clock.
    pub written: Timestamp,
    /// ETag of the tombstone.
    pub tombstone: String,
    /// ETag of the archive, if that is still there.
    pub archive: Option<String>,
}

/// An archive of ours without a marker.
#[derive(Clone, Debug)]
pub struct Uncommitted {
    /// The cluster that wrote it.
    pub cluster_uid: String,
    /// When, by the store's clock.
    pub written: Timestamp,
    /// ETag of the archive.
    pub etag: String,
}

/// A Backup resource in phase Failed: there is nothing of it in storage.
#[derive(Clone, Debug)]
pub struct FailedRecord {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// The state it is in.
    pub resource_version: String,
    /// When it was created, by the API server's clock.
    pub created: Timestamp,
    /// When it expires; it may not say.
    pub expiration: Option<Timestamp>,
    /// How long the backup was to be kept: 0 is for ever.
    pub ttl: SignedDuration,
}

/// A ConfigMap with what is left of an operation whose resource is gone.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// When it was created, by the API server's clock.
    pub created: Timestamp,
}

/// What a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A backup in storage.
    Backup,
    /// A void tombstone over a backup, which stays.
    Tombstone,
    /// An unfinished upload.
    Upload,
    /// A Backup resource.
    Record,
    /// A ConfigMap.
    ConfigMap,
    /// A snapshot that no backup records, or objects of one in the cluster.
    Snapshot,
    /// A volume that a restore has made and nothing uses.
    Volume,
}

impl Kind {
    /// For people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Backup => "backup",
            Kind::Tombstone => "tombstone",
            Kind::Upload => "upload",
            Kind::Record => "resource",
            Kind::ConfigMap => "configmap",
            Kind::Snapshot => "snapshot",
            Kind::Volume => "volume",
        }
    }
}
