//! `--from-schedule`: the newest good backup of a schedule, found once, by whoever asks for the restore: the Job that is made
//! names it, so that its retries and copies restore the same.

use crate::cli::ClusterFlags;
use crate::options::Schedule;
use crate::{client, get, records, stored};
use ark_job::api::{Backup, BackupPhase, SCHEDULE_LABEL};
use ark_job::args::{Args, StorageFlags};
use ark_job::context::storage_failure;
use ark_job::error::{Failure, chain};
use ark_job::exit::Exit;
use ark_job::identity::label_value;
use ark_job::layout::BACKUPS;
use ark_job::repository::{Described, find};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Velero's name of the label.
const VELERO_SCHEDULE_LABEL: &str = "velero.io/schedule-name";
/// How many of the backups that are no good are named.
const NAMED: usize = 3;

/// A backup of the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    phase: BackupPhase,
    started: Option<Timestamp>,
}

/// Looks the backup up, and writes it into the arguments of a restore.
///
/// # Errors
/// [`Exit::NotFound`], with what there is, when there is no good one.
pub async fn fill(
    cluster: &ClusterFlags,
    schedule: &Schedule,
    local: bool,
    args: &mut Args,
) -> Result<(), Failure> {
    let storage = args.command.storage();
    let backup = match &storage.location {
        Some(location) if !local => recorded(cluster, schedule, location).await?,
        // A URL has no records: what is stored is looked at, by this process.
        _ => listed(cluster, schedule, storage).await?,
    };
    eprintln!(
        "the newest backup of schedule {} is {backup}",
        schedule.name
    );
    schedule.fill(args, &backup);
    Ok(())
}

/// By the Backup resources of a location.
async fn recorded(
    cluster: &ClusterFlags,
    schedule: &Schedule,
    location: &str,
) -> Result<String, Failure> {
    let client = client::connect(cluster).await?.kube;
    let backups = get::list::<Backup>(&client, &cluster.namespace, None).await?;
    let place = format!("location {location}");
    let candidates = backups
        .into_iter()
        .filter(|backup| backup.spec.storage_location.as_deref() == Some(location))
        .filter(|backup| {
            let labels = backup.metadata.labels.clone().unwrap_or_default();
            belongs(records::name(backup), &labels, &schedule.name)
        })
        .map(|backup| Candidate {
            name: records::name(&backup).to_owned(),
            phase: records::phase(&backup),
            started: backup
                .status
                .and_then(|status| status.start_timestamp)
                .map(|time| time.0),
        });
    newest(candidates.collect(), schedule, &place)
}

/// By what is stored. Only names can be listed, so labels count for nothing here; and no more markers are read than needed.
async fn listed(
    cluster: &ClusterFlags,
    schedule: &Schedule,
    storage: &StorageFlags,
) -> Result<String, Failure> {
    let store = stored::open(cluster, storage).await?;
    let mut names = store
        .list_directories(BACKUPS)
        .await
        .map_err(|error| storage_failure(&error))?;
    names.retain(|name| has_time(name, &schedule.name));
    names.sort_unstable();
    let mut candidates = Vec::new();
    for name in names.into_iter().rev() {
        let found = find(&store, &name).await;
        let status = found.map(|found| match found.described {
            Described::Ours(marker) => marker.status,
            Described::Foreign(description) => description.status,
        });
        match status {
            Ok(status) => {
                let candidate = Candidate {
                    name,
                    phase: status.phase.unwrap_or(BackupPhase::Completed),
                    started: status.start_timestamp.map(|time| time.0),
                };
                let good = candidate.is_good(schedule);
                candidates.push(candidate);
                if good {
                    break;
                }
            }
            Err(error) => {
                eprintln!("warning: backup {name} is passed over: {}", chain(&error));
            }
        }
    }
    newest(candidates, schedule, store.canonical())
}

impl Candidate {
    fn is_good(&self, schedule: &Schedule) -> bool {
        match self.phase {
            BackupPhase::Completed => true,
            BackupPhase::PartiallyFailed => schedule.allow_partially_failed,
            BackupPhase::New
            | BackupPhase::InProgress
            | BackupPhase::Failed
            | BackupPhase::Deleting => false,
        }
    }
}

/// Whether a backup is one of the schedule: by its label, or without one by its name.
fn belongs(name: &str, labels: &BTreeMap<String, String>, schedule: &str) -> bool {
    let label = [SCHEDULE_LABEL, VELERO_SCHEDULE_LABEL]
        .iter()
        .find_map(|label| labels.get(*label));
    match label {
        Some(label) => *label == label_value(schedule),
        None => has_time(name, schedule),
    }
}

/// `<SCHEDULE>-<YYYYMMDDhhmmss>`
fn has_time(name: &str, schedule: &str) -> bool {
    let time = name
        .strip_prefix(schedule)
        .and_then(|rest| rest.strip_prefix('-'));
    time.is_some_and(|time| time.len() == 14 && time.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The one that was started last; one that does not say when is older than all that do.
fn newest(
    mut candidates: Vec<Candidate>,
    schedule: &Schedule,
    place: &str,
) -> Result<String, Failure> {
    candidates.sort_by(|one, other| (other.started, &other.name).cmp(&(one.started, &one.name)));
    if let Some(found) = candidates.iter().find(|one| one.is_good(schedule)) {
        return Ok(found.name.clone());
    }
    let name = &schedule.name;
    if candidates.is_empty() {
        let none = format!("schedule {name} has no backup in {place}");
        return Err(Failure::new(Exit::NotFound, none).hint(format!(
            "`kubectl ark backup get` lists backups; those of a schedule are called {name}-<YYYYMMDDhhmmss>, or have the label \
             {SCHEDULE_LABEL}"
        )));
    }
    let mut found: Vec<String> = candidates
        .iter()
        .take(NAMED)
        .map(|one| format!("{} is {}", one.name, one.phase))
        .collect();
    if let more @ 1.. = candidates.len().saturating_sub(NAMED) {
        found.push(format!("and {more} more"));
    }
    let found = found.join(", ");
    let none_good = format!("schedule {name} has no completed backup in {place}: {found}");
    let failure = Failure::new(Exit::NotFound, none_good);
    let partial = |one: &Candidate| one.phase == BackupPhase::PartiallyFailed;
    Err(if candidates.iter().any(partial) {
        failure.hint("--allow-partially-failed takes one from which something is missing")
    } else {
        failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(allow_partially_failed: bool) -> Schedule {
        Schedule {
            name: "nightly".into(),
            allow_partially_failed,
        }
    }

    fn backup(name: &str, phase: BackupPhase, second: Option<i64>) -> Candidate {
        Candidate {
            name: name.into(),
            phase,
            started: second.map(|second| Timestamp::from_second(second).unwrap()),
        }
    }

    fn found(candidates: &[Candidate], allow: bool) -> Result<String, Failure> {
        newest(candidates.to_vec(), &schedule(allow), "location default")
    }

    #[test]
    fn o18_q2_a_schedule_without_a_good_backup_says_what_there_is() {
        let none = found(&[], false).unwrap_err();
        assert_eq!(none.exit(), Exit::NotFound);
        assert_eq!(
            none.message(),
            "schedule nightly has no backup in location default"
        );
        let bad = [
            backup("a", BackupPhase::Failed, Some(1)),
            backup("b", BackupPhase::InProgress, Some(5)),
            backup("c", BackupPhase::Deleting, Some(4)),
            backup("d", BackupPhase::New, None),
        ];
        let failure = found(&bad, true).unwrap_err();
        assert_eq!(failure.exit(), Exit::NotFound);
        assert_eq!(
            failure.message(),
            "schedule nightly has no completed backup in location default: b is InProgress, c is Deleting, a is Failed, and 1 more"
        );
        assert_eq!(failure.next_step(), None);
        let partial = [backup("p", BackupPhase::PartiallyFailed, Some(1))];
        let hint = found(&partial, false).unwrap_err();
        assert!(
            hint.next_step()
                .unwrap()
                .contains("--allow-partially-failed")
        );
    }

    #[test]
    fn o22_q4_the_newest_good_one_is_taken_by_its_start() {
        let all = [
            backup("z-no-start", BackupPhase::Completed, None),
            backup("old", BackupPhase::Completed, Some(1)),
            backup("good", BackupPhase::Completed, Some(5)),
            backup("partial", BackupPhase::PartiallyFailed, Some(7)),
            backup("failed", BackupPhase::Failed, Some(9)),
        ];
        assert_eq!(found(&all, false).unwrap(), "good");
        assert_eq!(found(&all, true).unwrap(), "partial");
        assert_eq!(found(&all[..1], false).unwrap(), "z-no-start");
    }

    #[test]
    fn a_backup_is_of_a_schedule_by_its_label_or_its_name() {
        let none = BTreeMap::new();
        let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let named = "nightly-20261123201501";
        assert!(belongs(named, &none, "nightly"));
        assert!(belongs("x", &label(SCHEDULE_LABEL, "nightly"), "nightly"));
        assert!(belongs(
            "x",
            &label(VELERO_SCHEDULE_LABEL, "nightly"),
            "nightly"
        ));
        assert!(!belongs(named, &label(SCHEDULE_LABEL, "other"), "nightly"));
        for other in [
            "nightly",
            "nightly-2026112320150",
            "nightly-b-20261123201501",
            "nightly-2026112320150x",
            "nightly20261123201501",
        ] {
            assert!(!belongs(other, &none, "nightly"), "{other}");
        }
    }
}
