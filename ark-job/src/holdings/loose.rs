//! Snapshots and volumes whose tags and labels say that they are of this location and cluster, and which backup records them.

mod look;

pub use self::look::{bytes, in_words, look, persistent_volumes};

use super::{Candidate, Found, Kind};
use crate::removal::snapshots::{Id, id};
use crate::volumes::csi::Owned;
use crate::volumes::{EBS_DRIVER, VolumeRecord};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// A snapshot or volume whose tags or labels say that it is of this location and of a cluster whose backups expire here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loose {
    /// Its name for people: `snap-…`, `vol-…`, that of the object in the cluster.
    pub name: String,
    /// The backup that its tags or labels name (labels shorten it); of a volume, the restore.
    pub of: String,
    /// The persistentVolume that they name.
    pub persistent_volume: String,
    /// When it was made, by the clock of who made it: the cloud or the API server.
    pub created: Option<Timestamp>,
    /// What the cloud's clock says now, if the cloud made it.
    pub cloud: Option<Timestamp>,
    /// Size, bytes.
    pub size: Option<u64>,
    /// What it is.
    pub what: What,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A snapshot of EBS.
    Disk {
        /// Its region.
        region: String,
        /// Its state, with its progress.
        state: String,
    },
    /// Objects of a snapshot of a CSI driver.
    Csi(Box<Owned>),
    /// A volume of EBS that a restore has made, and that has not been used.
    Volume {
        /// Its region.
        region: String,
        /// Its state.
        state: String,
        /// Whether a persistentVolume names it; none when that cannot be found out.
        named: Option<bool>,
    },
}

impl Loose {
    /// What it is in a plan.
    pub fn kind(&self) -> Kind {
        match self.what {
            What::Volume { .. } => Kind::Volume,
            What::Disk { .. } | What::Csi(_) => Kind::Snapshot,
        }
    }

    /// Whether `record` is of it.
    pub fn is(&self, record: &VolumeRecord) -> bool {
        self.ids().contains(&id(record))
    }

    /// What a record of it would have: of a snapshot of EBS, also that of its CSI driver.
    pub fn ids(&self) -> Vec<Id> {
        match &self.what {
            What::Disk { .. } => vec![
                (String::new(), self.name.clone()),
                (EBS_DRIVER.to_owned(), self.name.clone()),
            ],
            What::Csi(owned) => {
                let handle = owned.handle.clone();
                handle
                    .map(|handle| (owned.driver.clone(), handle))
                    .into_iter()
                    .collect()
            }
            What::Volume { .. } => Vec::new(),
        }
    }
}

/// Which backup records a snapshot, and whether by a marker.
pub struct Reference<'a> {
    /// The backup.
    pub backup: &'a str,
    /// Whether its marker does.
    pub committed: bool,
}

/// What backups record, and which does; of several, the first.
pub fn references(backups: &[Candidate]) -> BTreeMap<Id, Reference<'_>> {
    let mut references: BTreeMap<Id, Reference<'_>> = BTreeMap::new();
    for candidate in backups {
        let (backup, committed) = (candidate.name.as_str(), candidate.recorded.committed);
        for record in &candidate.recorded.snapshots {
            let new = Reference { backup, committed };
            let known = references.entry(id(record));
            known
                .and_modify(|known| known.committed |= committed)
                .or_insert(new);
        }
    }
    references
}

/// Those that no backup records, and volumes that no persistentVolume is known to name.
pub fn unrecorded(found: &Found) -> Vec<&Loose> {
    let references = references(&found.backups);
    let is_free = |loose: &&Loose| match &loose.what {
        What::Volume { named, .. } => *named != Some(true),
        What::Disk { .. } | What::Csi(_) => {
            !loose.ids().iter().any(|id| references.contains_key(id))
        }
    };
    found.loose.iter().filter(is_free).collect()
}
