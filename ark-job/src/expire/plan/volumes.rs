//! What becomes of snapshots and volumes that nothing seems to need. Pure.
//!
//! They are found by the tags and labels of this location and cluster. An orphan is what no backup records; as long as not
//! everything is known that may record it, nothing is one.

use super::{Age, Candidate, Clocks, Entry, Fate, Found, Kind, Reason, Rules, Step, age};
use crate::identity::label_value;
use crate::removal::snapshots::{Id, id};
use crate::volumes::csi::Owned;
use crate::volumes::{EBS_DRIVER, VolumeRecord};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

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
    fn ids(&self) -> Vec<Id> {
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
struct Reference<'a> {
    backup: &'a str,
    committed: bool,
}

fn references(backups: &[Candidate]) -> BTreeMap<Id, Reference<'_>> {
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

/// Backups that record a snapshot that another one records, too, and how that is said: neither may go, since the snapshot would
/// go with it.
pub(super) fn shared(backups: &[Candidate]) -> BTreeMap<&str, String> {
    let mut by_id: BTreeMap<Id, BTreeSet<&str>> = BTreeMap::new();
    for candidate in backups {
        for record in &candidate.recorded.snapshots {
            by_id.entry(id(record)).or_default().insert(&candidate.name);
        }
    }
    let mut shared = BTreeMap::new();
    for ((_, snapshot), names) in by_id {
        for name in &names {
            if let Some(other) = names.iter().find(|other| *other != name) {
                shared.entry(*name).or_insert_with(|| {
                    format!("it records snapshot {snapshot}, and so does backup {other}: one of them is a copy")
                });
            }
        }
    }
    shared
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

/// Decides about all of them. What a backup records, and what is in use, has no entry.
pub(super) fn plan(found: &Found, rules: &Rules, clocks: Clocks) -> Vec<Entry> {
    let references = references(&found.backups);
    let doubt = doubt(found, rules);
    let decided = found.loose.iter().filter_map(|loose| {
        let clocks = Clocks {
            pod: loose
                .cloud
                .map_or(clocks.pod, |cloud| clocks.pod.min(cloud)),
            store: clocks.store,
        };
        let (fate, reason) = of_loose(loose, &references, doubt.as_deref(), found, rules, clocks)?;
        Some(Entry {
            kind: loose.kind(),
            name: loose.name.clone(),
            fate,
            reason,
        })
    });
    decided.collect()
}

/// Why it is not known what all backups record.
fn doubt(found: &Found, rules: &Rules) -> Option<String> {
    for candidate in &found.backups {
        if candidate.recorded.unknown.is_some() {
            let name = &candidate.name;
            return Some(format!("what backup {name} records is not known"));
        }
    }
    let committed = |candidate: &Candidate| candidate.recorded.committed;
    if rules.force || found.backups.iter().any(committed) {
        return None;
    }
    Some(
        "storage lists no backup of ark's at all: if that is right, `--force` sweeps up".to_owned(),
    )
}

fn of_loose(
    loose: &Loose,
    references: &BTreeMap<Id, Reference<'_>>,
    doubt: Option<&str>,
    found: &Found,
    rules: &Rules,
    clocks: Clocks,
) -> Option<(Fate, Reason)> {
    let not_sure = |why: &str| Some((Fate::Keep, Reason::NotSure(why.to_owned())));
    let grace = rules.grace;
    let Some(at) = loose.created else {
        return not_sure("nobody says how old it is");
    };
    let aged = age(at, grace, clocks);
    let by = loose.ids().iter().find_map(|id| references.get(id));
    if let Some(by) = by {
        // Its backup removes the objects after the marker; what is left is of one that was cut off.
        let left = matches!(loose.what, What::Csi(_)) && by.committed;
        return (left && matches!(aged, Age::Reached { .. })).then(|| {
            let backup = by.backup.to_owned();
            let step = Step::LetGo(Box::new(loose.clone()));
            (Fate::Delete(step), Reason::Served { backup })
        });
    }
    if let What::Volume { state, named, .. } = &loose.what {
        match named {
            Some(true) => return None,
            None => return not_sure("whether a persistentVolume names it cannot be found out"),
            Some(false) => {}
        }
        if !["available", "error"].contains(&state.as_str()) {
            return not_sure(&format!("it is {state}"));
        }
    } else if let Some(why) = doubt {
        return not_sure(why);
    }
    if loose.of.is_empty() {
        return not_sure("it does not say of which backup it is");
    }
    if group_is_recorded(loose, references, &found.loose) {
        return not_sure("a backup records another snapshot of its group, which would go with it");
    }
    // A label has a long name shortened.
    let runs = |name: &String| *name == loose.of || label_value(name) == loose.of;
    if found.running.iter().any(runs) {
        return not_sure(&format!("{} is in progress", loose.of));
    }
    Some(match aged {
        Age::Reached { ago } => (
            Fate::Delete(Step::Drop(Box::new(loose.clone()))),
            Reason::Unrecorded { at, ago, grace },
        ),
        Age::Left { within } => (Fate::Keep, Reason::NotRecorded { at, grace, within }),
    })
}

/// Whether a backup records a snapshot that was taken in one group with this: a driver deletes the whole group.
fn group_is_recorded(
    loose: &Loose,
    references: &BTreeMap<Id, Reference<'_>>,
    all: &[Loose],
) -> bool {
    let group = |loose: &Loose| match &loose.what {
        What::Csi(owned) => Some((owned.group.clone(), owned.group_content.clone())),
        _ => None,
    };
    let Some((of, content)) = group(loose) else {
        return false;
    };
    all.iter().any(|other| {
        let together = group(other).is_some_and(|(other_of, other_content)| {
            (of.is_some() && of == other_of) || (content.is_some() && content == other_content)
        });
        together && other.ids().iter().any(|id| references.contains_key(id))
    })
}

#[cfg(test)]
mod tests;
