//! What a sync is to do: decided from what the cluster has, what storage lists, and which Jobs there are. Pure.
//!
//! The resources were listed before storage, so a backup that was committed in between is one that is not known here, never
//! one that seems to be gone.

use super::jobs::{Job, JobState};
use crate::api::{Backup, BackupPhase, Restore, RestorePhase};
use crate::identity::check_name;
use crate::records::ALIVE_WITHIN;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// A record that was created and has no status yet belongs to its creator for this long: the status follows at once.
const CREATED_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// What must be known of a Backup or Restore resource: kilobytes are not kept of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its version, which a write needs.
    pub version: String,
    /// When it was created, by the API server's clock.
    pub created: Option<Timestamp>,
    /// The run it records.
    pub run: Option<String>,
    /// Who made the backup, if we did not.
    pub origin: Option<String>,
    /// Where the backup is; none for a URL.
    pub location: Option<String>,
    /// Where it stands.
    pub stage: Stage,
    /// The last sign of life of its run.
    pub heartbeat: Option<Timestamp>,
    /// ETag of its description.
    pub etag: Option<String>,
    /// Length of its archive.
    pub size: Option<i64>,
}

/// Where a record stands, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It has no status, or is New.
    #[default]
    Empty,
    /// A run is at work, or was.
    InProgress,
    /// There is something in storage.
    Good,
    /// There is nothing.
    Failed,
    /// It is being deleted.
    Deleting,
}

impl Known {
    fn of(metadata: &ObjectMeta) -> Known {
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).cloned();
        Known {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map(|at| at.0),
            run: annotation(crate::api::RUN_ANNOTATION),
            origin: annotation(crate::api::ORIGIN_ANNOTATION),
            ..Known::default()
        }
    }

    /// What must be known of a backup.
    pub fn backup(record: &Backup) -> Known {
        let status = record.status.clone().unwrap_or_default();
        Known {
            location: record.spec.storage_location.clone(),
            stage: match status.phase {
                None | Some(BackupPhase::New) => Stage::Empty,
                Some(BackupPhase::InProgress) => Stage::InProgress,
                Some(BackupPhase::Completed | BackupPhase::PartiallyFailed) => Stage::Good,
                Some(BackupPhase::Failed) => Stage::Failed,
                Some(BackupPhase::Deleting) => Stage::Deleting,
            },
            heartbeat: status.heartbeat.map(|at| at.0),
            etag: status.marker_etag,
            size: status.size,
            ..Known::of(&record.metadata)
        }
    }

    /// What must be known of a restore.
    pub fn restore(record: &Restore) -> Known {
        let status = record.status.clone().unwrap_or_default();
        Known {
            stage: match status.phase {
                None | Some(RestorePhase::New) => Stage::Empty,
                Some(RestorePhase::InProgress) => Stage::InProgress,
                Some(RestorePhase::Completed | RestorePhase::PartiallyFailed) => Stage::Good,
                Some(RestorePhase::Failed) => Stage::Failed,
            },
            heartbeat: status.heartbeat.map(|at| at.0),
            ..Known::of(&record.metadata)
        }
    }

    fn by_hand(&self) -> bool {
        self.run.is_none() && self.origin.is_none()
    }

    /// Whether the run that created it may be about to write its first status.
    pub fn is_new(&self, now: Timestamp) -> bool {
        self.stage == Stage::Empty
            && self.run.is_some()
            && within(self.created, now, CREATED_WITHIN)
    }
}

fn within(at: Option<Timestamp>, now: Timestamp, time: SignedDuration) -> bool {
    at.is_some_and(|at| now.duration_since(at) < time)
}

/// What a listing shows of one backup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What describes it, if anything does.
    pub description: Option<Describing>,
    /// Whether it is being deleted. A tombstone that a sweep has put over a marker is void, and none.
    pub deleting: bool,
}

/// The object that describes a backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Describing {
    /// Its key.
    pub key: String,
    /// Its ETag.
    pub etag: String,
    /// Key of the archive that belongs to it.
    pub archive: String,
    /// Length of that archive; none if the listing does not show it, or was not asked.
    pub archive_length: Option<u64>,
    /// Whether the listing was asked for the archive.
    pub archive_listed: bool,
}

impl Describing {
    /// The length as a status has it.
    pub fn size(&self) -> Option<i64> {
        self.archive_length
            .and_then(|length| i64::try_from(length).ok())
    }
}

/// What is asked for, and when.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The location that is synced; none for a URL.
    pub location: Option<&'a str>,
    /// The Jobs in Ark's namespace; none when they cannot be seen.
    pub jobs: Option<&'a [Job]>,
    /// The present.
    pub now: Timestamp,
    /// Remove resources though storage lists no backup.
    pub force: bool,
}

/// Why a record becomes Failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// Nothing has been heard of its run.
    Silent {
        /// Since when.
        since: Option<Timestamp>,
        /// Its Job, if that is still there.
        job: Option<String>,
        /// Whether it is known that there is no Job of it.
        gone: bool,
    },
    /// Its Job has failed.
    JobFailed {
        /// The Job.
        job: String,
        /// What the Job says.
        why: String,
    },
    /// Its Job is failing, and has a pod that does not end.
    JobFailing {
        /// The Job.
        job: String,
        /// What the Job says.
        why: String,
    },
    /// Its Job is complete, and it could not write what came of it.
    JobComplete {
        /// The Job.
        job: String,
    },
    /// A person made it, not a run.
    ByHand,
}

/// What is to be done about one name.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Create the resource of a backup that has none.
    Create(Describing),
    /// Write again what its backup's description says.
    Repair(Known, Describing),
    /// Say that its backup is being deleted.
    Deleting(Known),
    /// Remove the resource, if a last look at storage finds nothing.
    Remove(Known),
    /// Say that its run has ended without a backup; with `look`, if a last look at storage finds none.
    Fail {
        /// The record.
        known: Known,
        /// Why.
        why: Ended,
        /// Whether its storage is the one that is synced.
        look: bool,
    },
    /// The name is that of a backup in another location, which is shown.
    Elsewhere {
        /// The other location; none for a URL.
        location: Option<String>,
    },
    /// It cannot be the name of a resource.
    OddName(String),
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// By name; those for which nothing is to be done are not here.
    pub entries: Vec<(String, Entry)>,
    /// Resources that are as they should be.
    pub kept: usize,
    /// Resources that are not removed since storage lists no backup at all.
    pub withheld: usize,
}

/// Decides about all Backup resources.
pub fn plan(known: &[Known], listed: &[Listed], view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    let known: BTreeMap<&str, &Known> = known.iter().map(|k| (k.name.as_str(), k)).collect();
    let listed: BTreeMap<&str, &Listed> = listed.iter().map(|l| (l.name.as_str(), l)).collect();
    let empty = !listed
        .values()
        .any(|listed| listed.deleting || listed.description.is_some());
    let names: std::collections::BTreeSet<&str> =
        known.keys().chain(listed.keys()).copied().collect();
    for name in names {
        let known = known.get(name).copied();
        let listed = listed.get(name).copied();
        let described = listed.and_then(|listed| listed.description.as_ref());
        let decision = match (known, described, listed.is_some_and(|l| l.deleting)) {
            (None, Some(described), false) => Some(match check_name(name) {
                Ok(()) => Entry::Create(described.clone()),
                Err(why) => Entry::OddName(why),
            }),
            (None, ..) => continue,
            (Some(known), _, true) => tombstoned(known, view),
            (Some(known), Some(described), false) => present(known, described, view),
            (Some(known), None, false) => {
                let absent = absent(known, view);
                if empty && !view.force && matches!(absent, Some(Entry::Remove(_))) {
                    plan.withheld += 1;
                    continue;
                }
                absent
            }
        };
        match decision {
            Some(entry) => plan.entries.push((name.to_owned(), entry)),
            None => plan.kept += 1,
        }
    }
    plan
}

fn is_here(known: &Known, view: &View<'_>) -> bool {
    known.location.as_deref() == view.location
}

/// A backup is in storage.
fn present(known: &Known, described: &Describing, view: &View<'_>) -> Option<Entry> {
    let at_work = known.stage == Stage::InProgress && ended(known, view).is_none();
    if at_work {
        return None;
    }
    let same = known.etag.as_ref() == Some(&described.etag)
        && (!described.archive_listed || known.size == described.size());
    let good = matches!(known.stage, Stage::Good | Stage::Deleting);
    if !is_here(known, view) && (known.location.is_some() || good && !same) {
        return Some(Entry::Elsewhere {
            location: known.location.clone(),
        });
    }
    // One without a location was made with a URL: of the very same backup, it is that of this place.
    if known.stage == Stage::Good && same && is_here(known, view) {
        return None;
    }
    Some(Entry::Repair(known.clone(), described.clone()))
}

/// A backup is being deleted.
fn tombstoned(known: &Known, view: &View<'_>) -> Option<Entry> {
    match known.stage {
        Stage::Good if is_here(known, view) => Some(Entry::Deleting(known.clone())),
        Stage::Good | Stage::Deleting | Stage::Failed => None,
        Stage::Empty | Stage::InProgress => fail(known, view),
    }
}

/// Nothing in storage describes a backup of this name.
pub fn absent(known: &Known, view: &View<'_>) -> Option<Entry> {
    match known.stage {
        // A URL is no location: what was there may be anywhere.
        Stage::Good | Stage::Deleting if view.location.is_some() && is_here(known, view) => {
            Some(Entry::Remove(known.clone()))
        }
        Stage::Good | Stage::Deleting | Stage::Failed => None,
        Stage::Empty | Stage::InProgress => fail(known, view),
    }
}

fn fail(known: &Known, view: &View<'_>) -> Option<Entry> {
    let look = is_here(known, view);
    // Runs that were given a URL have no location that would ever be synced: any sync sees that they have ended.
    if !look && known.location.is_some() {
        return None;
    }
    Some(Entry::Fail {
        known: known.clone(),
        why: ended(known, view)?,
        look,
    })
}

/// Why the run of a record that has no end yet is at work no more; none while it may be.
pub fn ended(known: &Known, view: &View<'_>) -> Option<Ended> {
    if known.by_hand() {
        return Some(Ended::ByHand);
    }
    let run = known.run.as_deref();
    let job = view.jobs.and_then(|jobs| {
        jobs.iter()
            .find(|job| run.is_some_and(|run| job.is_of(run)))
    });
    let since = known.heartbeat.or(known.created);
    let fresh = within(since, view.now, ALIVE_WITHIN);
    let name = |job: &Job| job.name.clone();
    match job.map(|job| (job, &job.state)) {
        Some((job, JobState::Failed(why))) => Some(Ended::JobFailed {
            job: name(job),
            why: why.clone(),
        }),
        Some((job, JobState::Failing(why))) => Some(Ended::JobFailing {
            job: name(job),
            why: why.clone(),
        }),
        Some((job, JobState::Complete)) => Some(Ended::JobComplete { job: name(job) }),
        // It may be one of `--local`, which has no Job.
        _ if fresh => None,
        job => Some(Ended::Silent {
            since,
            job: job.map(|(job, _)| name(job)),
            gone: view.jobs.is_some(),
        }),
    }
}

/// Decides about the Restore resources whose runs have ended.
pub fn restores(known: &[Known], view: &View<'_>) -> Vec<(Known, Ended)> {
    known
        .iter()
        .filter(|known| matches!(known.stage, Stage::Empty | Stage::InProgress))
        .filter_map(|known| Some((known.clone(), ended(known, view)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn view() -> View<'static> {
        View {
            location: Some("here"),
            jobs: Some(&[]),
            now: now(),
            force: false,
        }
    }

    fn known(stage: Stage) -> Known {
        Known {
            name: "b".into(),
            run: Some("run".into()),
            location: Some("here".into()),
            etag: Some("e".into()),
            size: Some(7),
            stage,
            ..Known::default()
        }
    }

    fn minutes_ago(minutes: i64) -> Option<Timestamp> {
        Some(now() - SignedDuration::from_mins(minutes))
    }

    fn listed(name: &str, etag: &str) -> Listed {
        Listed {
            name: name.into(),
            description: Some(Describing {
                key: format!("backups/{name}/ark-backup.json"),
                etag: etag.into(),
                archive: format!("backups/{name}/{name}.tar.gz"),
                archive_length: Some(7),
                archive_listed: true,
            }),
            deleting: false,
        }
    }

    fn entry(known: &Known, listed: &[Listed], view: &View<'_>) -> Option<Entry> {
        let plan = plan(std::slice::from_ref(known), listed, view);
        plan.entries
            .into_iter()
            .find(|(name, _)| name == "b")
            .map(|(_, entry)| entry)
    }

    #[test]
    fn a_resource_is_removed_only_if_its_backup_was_good_and_here() {
        let others = [listed("other", "x")];
        let removed = |known: &Known, view: &View<'_>| {
            matches!(entry(known, &others, view), Some(Entry::Remove(_)))
        };
        assert!(removed(&known(Stage::Good), &view()));
        assert!(removed(&known(Stage::Deleting), &view()));
        for stage in [Stage::Empty, Stage::InProgress, Stage::Failed] {
            assert!(!removed(&known(stage), &view()), "{stage:?}");
        }
        for location in [None, Some("there".to_owned())] {
            let elsewhere = Known {
                location,
                ..known(Stage::Good)
            };
            assert!(!removed(&elsewhere, &view()));
        }
        let url = View {
            location: None,
            ..view()
        };
        let at_url = Known {
            location: None,
            ..known(Stage::Good)
        };
        assert!(!removed(&at_url, &url), "with a URL nothing is removed");
    }

    #[test]
    fn an_empty_listing_removes_nothing_unless_told() {
        let plan_of = |force| plan(&[known(Stage::Good)], &[], &View { force, ..view() });
        assert_eq!(
            (plan_of(false).withheld, plan_of(false).entries.len()),
            (1, 0)
        );
        assert_eq!(
            (plan_of(true).withheld, plan_of(true).entries.len()),
            (0, 1)
        );
        // What is being deleted is in storage.
        let deleting = Listed {
            deleting: true,
            ..listed("other", "x")
        };
        assert_eq!(
            plan(&[known(Stage::Good)], &[deleting], &view())
                .entries
                .len(),
            1
        );
    }

    #[test]
    fn what_has_not_changed_is_not_read() {
        assert_eq!(
            entry(&known(Stage::Good), &[listed("b", "e")], &view()),
            None
        );
        for changed in [
            Known {
                etag: Some("f".into()),
                ..known(Stage::Good)
            },
            Known {
                size: Some(8),
                ..known(Stage::Good)
            },
            known(Stage::Failed),
            known(Stage::Deleting),
            known(Stage::Empty),
            Known {
                run: None,
                ..known(Stage::Empty)
            },
        ] {
            let entry = entry(&changed, &[listed("b", "e")], &view());
            assert!(
                matches!(entry, Some(Entry::Repair(..))),
                "{changed:?}: {entry:?}"
            );
        }
    }

    #[test]
    fn a_name_in_two_locations_stays_with_the_first() {
        let there = Known {
            location: Some("there".into()),
            ..known(Stage::Good)
        };
        let decided = entry(&there, &[listed("b", "f")], &view());
        assert_eq!(
            decided,
            Some(Entry::Elsewhere {
                location: there.location.clone()
            })
        );
        // A URL may be this very place.
        let url = Known {
            location: None,
            ..known(Stage::Good)
        };
        assert!(matches!(
            entry(&url, &[listed("b", "e")], &view()),
            Some(Entry::Repair(..))
        ));
        let decided = entry(&url, &[listed("b", "f")], &view());
        assert_eq!(decided, Some(Entry::Elsewhere { location: None }));
    }

    #[test]
    fn who_is_alive_is_left_alone_and_who_is_not_is_told() {
        let at = |minutes| Known {
            heartbeat: minutes_ago(minutes),
            ..known(Stage::InProgress)
        };
        let marker = [listed("b", "e")];
        assert_eq!(entry(&at(9), &[], &view()), None);
        assert_eq!(entry(&at(9), &marker, &view()), None);
        assert!(matches!(
            entry(&at(10), &[], &view()),
            Some(Entry::Fail { look: true, .. })
        ));
        // A marker beats it.
        assert!(matches!(
            entry(&at(10), &marker, &view()),
            Some(Entry::Repair(..))
        ));
        // Created and killed before its first status.
        let empty = |minutes| Known {
            created: minutes_ago(minutes),
            ..known(Stage::Empty)
        };
        assert_eq!(entry(&empty(9), &[], &view()), None);
        assert!(matches!(
            entry(&empty(10), &[], &view()),
            Some(Entry::Fail { .. })
        ));
        // That of another location is its sync's.
        let there = Known {
            location: Some("there".into()),
            ..at(10)
        };
        assert_eq!(entry(&there, &[], &view()), None);
        let url = Known {
            location: None,
            ..at(10)
        };
        assert!(matches!(
            entry(&url, &[], &view()),
            Some(Entry::Fail { look: false, .. })
        ));
        let by_hand = Known {
            run: None,
            ..empty(0)
        };
        assert!(matches!(
            entry(&by_hand, &[], &view()),
            Some(Entry::Fail {
                why: Ended::ByHand,
                ..
            })
        ));
    }

    #[test]
    fn what_is_being_deleted_is_not_created_and_says_so() {
        let tombstoned = [Listed {
            deleting: true,
            ..listed("b", "e")
        }];
        assert_eq!(plan(&[], &tombstoned, &view()), Plan::default());
        assert!(matches!(
            entry(&known(Stage::Good), &tombstoned, &view()),
            Some(Entry::Deleting(_))
        ));
        assert_eq!(entry(&known(Stage::Deleting), &tombstoned, &view()), None);
        assert_eq!(entry(&known(Stage::Failed), &tombstoned, &view()), None);
    }

    #[test]
    fn a_name_that_is_none_is_reported() {
        let plan = plan(&[], &[listed("Upper", "e")], &view());
        assert!(matches!(plan.entries[..], [(_, Entry::OddName(_))]));
    }
}
