//! What becomes of snapshots and volumes that nothing seems to need. Pure.
//!
//! They are found by the tags and labels of this location and cluster. An orphan is what no backup records; as long as not
//! everything is known that may record it, nothing is one.

use super::{Age, Clocks, Entry, Fate, Reason, Rules, Step, age};
use crate::holdings::{Candidate, Found, Loose, Reference, What, references};
use crate::identity::label_value;
use crate::removal::snapshots::{Id, id};
use std::collections::{BTreeMap, BTreeSet};

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
