//! The snapshots that a process has begun, from before the first request until their backup is there or they are deleted.
//!
//! What is lost with the process is found by its tags and labels (see [`super::identity`]): this is only for who ends in
//! order.

use super::VolumeRecord;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What has been begun.
#[derive(Debug, Default)]
pub struct Begun(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    /// Ids of snapshots of disks, by the region that was asked for them. A region may be here before its first id is.
    disks: BTreeMap<String, BTreeSet<String>>,
    csi: bool,
    in_archive: bool,
}

impl Begun {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Every method that takes the lock leaves the entries whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot of a disk is about to be asked for in `region`.
    pub fn disk(&self, region: &str) {
        self.entries().disks.entry(region.to_owned()).or_default();
    }

    /// A snapshot of a CSI driver is about to be asked for.
    pub fn csi(&self) {
        self.entries().csi = true;
    }

    /// The snapshot `id` was taken in `region`.
    pub fn taken(&self, region: &str, id: &str) {
        let mut entries = self.entries();
        let ids = entries.disks.entry(region.to_owned()).or_default();
        ids.insert(id.to_owned());
    }

    /// From now on the archive may come to be in storage at any moment, and with it all that was taken.
    pub fn goes_into_archive(&self) {
        self.entries().in_archive = true;
    }

    /// Whether it may be in storage even when it is not there yet.
    pub fn may_be_in_archive(&self) -> bool {
        self.entries().in_archive
    }

    /// Nothing is left that this process would delete.
    pub fn forget(&self) {
        *self.entries() = Entries::default();
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        let entries = self.entries();
        entries.disks.is_empty() && !entries.csi
    }

    /// The regions in which snapshots of disks were asked for, with the ids that are known.
    pub fn disks(&self) -> BTreeMap<String, BTreeSet<String>> {
        self.entries().disks.clone()
    }

    /// Whether snapshots of CSI drivers were asked for.
    pub fn has_csi(&self) -> bool {
        self.entries().csi
    }
}

/// The ids and handles in records.
pub fn ids(records: &[VolumeRecord]) -> BTreeSet<&str> {
    records
        .iter()
        .filter_map(VolumeRecord::snapshot_id)
        .collect()
}
