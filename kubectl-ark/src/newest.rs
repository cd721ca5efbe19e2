//! `latest` and `--from-schedule`: the newest good backup, of the cluster or of a schedule, found once, by whoever asks for the restore: the Job that is made
//! names it, so that its retries and copies restore the same.

use crate::cli::ClusterFlags;
use crate::lookup::{self, Place};
use crate::options::Newest;
use crate::recorded;
use crate::{client, records, similar, stored};
use ark_job::api::{Backup, BackupPhase, BackupStatus, SCHEDULE_LABEL};
use ark_job::args::{Args, StorageFlags};
use ark_job::context::storage_failure;
use ark_job::error::{Failure, chain};
use ark_job::exit::Exit;
use ark_job::identity::label_value;
use ark_job::layout::BACKUPS;
use ark_job::repository::{Described, find as stored_backup};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Velero's name of the label.
const VELERO_SCHEDULE_LABEL: &str = "velero.io/schedule-name";
/// How many of the backups that are no good are named.
const NAMED: usize = 3;
/// How many markers are read at once: enough to hide the way to the store.
const READ_AT_ONCE: usize = 16;

/// A backup that may be the one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    phase: BackupPhase,
    started: Option<Timestamp>,
    /// The UID of the cluster that made it; of Velero's and original Ark's it is not known.
    cluster: Option<String>,
}

/// Looks the backup up, and writes it into the arguments of a restore.
///
/// # Errors
/// [`Exit::NotFound`], with what there is, when there is no good one.
pub async fn fill(
    cluster: &ClusterFlags,
    wanted: &Newest,
    local: bool,
    args: &mut Args,
) -> Result<(), Failure> {
    let place = Place {
        cluster,
        storage: Some(args.command.storage()),
        local,
    };
    let backup = find(&place, wanted).await?;
    wanted.fill(args, &backup);
    Ok(())
}

/// The newest good backup, which is said.
///
/// # Errors
/// [`Exit::NotFound`], with what there is, when there is no good one.
pub async fn find(place: &Place<'_>, wanted: &Newest) -> Result<String, Failure> {
    let here = match client::connect(place.cluster).await {
        Ok(connection) => client::cluster_uid(&connection.kube).await.ok().flatten(),
        // What is stored can be read without a cluster.
        Err(_) => None,
    };
    let (candidates, where_) = match (place.records(), place.storage) {
        (Some(location), _) => recorded(place.cluster, wanted, location).await?,
        // A URL has no records: what is stored is looked at, by this process.
        (None, Some(storage)) => listed(place.cluster, wanted, storage).await?,
        (None, None) => (Vec::new(), "storage".to_owned()),
    };
    let none = candidates.is_empty();
    let backup = match newest(candidates, wanted, here.as_deref(), &where_) {
        Ok(backup) => backup,
        Err(failure) => {
            return Err(match &wanted.schedule {
                Some(schedule) if none => nearly(place, schedule, failure).await,
                _ => failure,
            });
        }
    };
    match &wanted.schedule {
        Some(schedule) => eprintln!("the newest backup of schedule {schedule} is {backup}"),
        None => eprintln!("the newest backup is {backup}"),
    }
    Ok(backup)
}

/// The failure, with the schedules that are nearly called so.
async fn nearly(place: &Place<'_>, schedule: &str, failure: Failure) -> Failure {
    let names = lookup::names(place).await;
    let mut schedules: Vec<&str> = names
        .iter()
        .filter_map(|name| records::stem(name))
        .collect();
    schedules.sort_unstable();
    schedules.dedup();
    let question = similar::did_you_mean(schedule, schedules);
    let hint = failure.next_step().unwrap_or_default().to_owned();
    failure.hint(similar::with_question(question, hint))
}

/// By the Backup resources, of a location or of all.
async fn recorded(
    cluster: &ClusterFlags,
    wanted: &Newest,
    location: Option<&str>,
) -> Result<(Vec<Candidate>, String), Failure> {
    let client = client::connect(cluster).await?.kube;
    let backups = recorded::list::<Backup>(&client, &cluster.namespace, None).await?;
    let place = match location {
        Some(location) => format!("location {location}"),
        None => format!("namespace {}", cluster.namespace),
    };
    let candidates = backups
        .into_iter()
        .filter(|backup| location.is_none() || backup.spec.storage_location.as_deref() == location)
        .filter(|backup| {
            let labels = backup.metadata.labels.clone().unwrap_or_default();
            wanted.is_of(records::name(backup), &labels)
        })
        .map(|backup| {
            let (name, phase) = (records::name(&backup).to_owned(), records::phase(&backup));
            Candidate::new(name, phase, backup.status.unwrap_or_default())
        });
    Ok((candidates.collect(), place))
}

/// By what is stored. Only names can be listed, so labels count for nothing here; and of a schedule, no more markers are read
/// than needed.
async fn listed(
    cluster: &ClusterFlags,
    wanted: &Newest,
    storage: &StorageFlags,
) -> Result<(Vec<Candidate>, String), Failure> {
    let store = stored::open(cluster, storage).await?;
    let mut names = store
        .list_directories(BACKUPS)
        .await
        .map_err(|error| storage_failure(&error))?;
    let at_once = match &wanted.schedule {
        Some(schedule) => {
            names.retain(|name| has_time(name, schedule));
            1
        }
        None => READ_AT_ONCE,
    };
    names.sort_unstable();
    let mut reading = stream::iter(names.into_iter().rev())
        .map(async |name| {
            let found = stored_backup(&store, &name).await;
            (name, found)
        })
        .buffered(at_once);
    let mut candidates = Vec::new();
    while let Some((name, found)) = reading.next().await {
        let status = found.map(|found| match found.described {
            Described::Ours(marker) => marker.status,
            Described::Foreign(description) => description.status,
        });
        match status {
            Ok(status) => {
                let phase = status.phase.unwrap_or(BackupPhase::Completed);
                let candidate = Candidate::new(name, phase, status);
                let ends = wanted.schedule.is_some() && candidate.is_good(wanted);
                candidates.push(candidate);
                if ends {
                    break;
                }
            }
            Err(error) => {
                eprintln!("warning: backup {name} is passed over: {}", chain(&error));
            }
        }
    }
    drop(reading);
    Ok((candidates, store.canonical().to_owned()))
}

impl Candidate {
    fn new(name: String, phase: BackupPhase, status: BackupStatus) -> Candidate {
        Candidate {
            name,
            phase,
            started: status.start_timestamp.map(|time| time.0),
            cluster: status.cluster_uid,
        }
    }

    fn is_good(&self, wanted: &Newest) -> bool {
        match self.phase {
            BackupPhase::Completed => true,
            BackupPhase::PartiallyFailed => wanted.allow_partially_failed,
            BackupPhase::New
            | BackupPhase::InProgress
            | BackupPhase::Failed
            | BackupPhase::Deleting => false,
        }
    }
}

impl Newest {
    /// Whether a backup may be meant.
    fn is_of(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let schedule = self.schedule.as_deref();
        schedule.is_none_or(|schedule| belongs(name, labels, schedule))
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

/// The one that was started last; one that does not say when is older than all that do. In a shared bucket, this cluster's own
/// come first; where it has none, those of another, if there are no two.
fn newest(
    mut candidates: Vec<Candidate>,
    wanted: &Newest,
    here: Option<&str>,
    place: &str,
) -> Result<String, Failure> {
    candidates.sort_by(|one, other| (other.started, &other.name).cmp(&(one.started, &one.name)));
    let good: Vec<&Candidate> = candidates
        .iter()
        .filter(|one| one.is_good(wanted))
        .collect();
    let own = good
        .iter()
        .find(|one| here.is_some() && one.cluster.as_deref() == here);
    if let Some(found) = own {
        return Ok(found.name.clone());
    }
    let of = match &wanted.schedule {
        Some(schedule) => format!("schedule {schedule}"),
        None => "this cluster".to_owned(),
    };
    if let Some(found) = good.first() {
        let other = good.iter().find(|one| one.cluster != found.cluster);
        return match other {
            None => Ok(found.name.clone()),
            Some(other) => Err(Failure::new(
                Exit::NotFound,
                format!(
                    "{of} has no completed backup of its own in {place}, and there are those of several clusters: {} is of one, {} of \
                     another",
                    found.name, other.name
                ),
            )
            .hint("name the backup; `kubectl ark backup get -o wide` shows which cluster made it")),
        };
    }
    if candidates.is_empty() {
        let none = Failure::new(Exit::NotFound, format!("{of} has no backup in {place}"));
        return Err(match &wanted.schedule {
            Some(name) => none.hint(format!(
                "`kubectl ark backup get` lists backups; those of a schedule are called {name}-<YYYYMMDDhhmmss>, or have the label \
                 {SCHEDULE_LABEL}"
            )),
            None => none.hint("`kubectl ark backup create NAME` makes one"),
        });
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
    let none_good = format!("{of} has no completed backup in {place}: {found}");
    let failure = Failure::new(Exit::NotFound, none_good);
    let partial = |one: &Candidate| one.phase == BackupPhase::PartiallyFailed;
    Err(if candidates.iter().any(partial) {
        failure.hint(
            "`kubectl ark restore create` takes one from which something is missing with --allow-partially-failed; what only reads it \
             takes its name",
        )
    } else {
        failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(allow_partially_failed: bool) -> Newest {
        Newest {
            schedule: Some("nightly".into()),
            allow_partially_failed,
        }
    }

    fn backup(name: &str, phase: BackupPhase, second: Option<i64>) -> Candidate {
        Candidate {
            name: name.into(),
            phase,
            started: second.map(|second| Timestamp::from_second(second).unwrap()),
            cluster: None,
        }
    }

    fn found(candidates: &[Candidate], allow: bool) -> Result<String, Failure> {
        newest(
            candidates.to_vec(),
            &schedule(allow),
            Some("here"),
            "location default",
        )
    }

    #[test]
    fn in_a_shared_bucket_a_clusters_own_backups_come_first() {
        let of = |name: &str, cluster: Option<&str>, second| Candidate {
            cluster: cluster.map(str::to_owned),
            ..backup(name, BackupPhase::Completed, Some(second))
        };
        let all = [
            of("mine", Some("here"), 1),
            of("theirs", Some("there"), 5),
            of("velero", None, 9),
        ];
        let latest = |candidates: &[Candidate], here| {
            let any = Newest {
                schedule: None,
                allow_partially_failed: false,
            };
            newest(candidates.to_vec(), &any, here, "location default")
        };
        assert_eq!(latest(&all, Some("here")).unwrap(), "mine");
        // After a disaster, the cluster is a new one.
        assert_eq!(latest(&all[1..2], Some("new")).unwrap(), "theirs");
        assert_eq!(latest(&all[..1], None).unwrap(), "mine");
        for (candidates, here) in [(&all[1..], Some("new")), (&all[..2], None)] {
            let failure = latest(candidates, here).unwrap_err();
            assert_eq!(failure.exit(), Exit::NotFound);
            assert!(failure.message().contains("several clusters"));
        }
        let none = latest(&[], Some("here")).unwrap_err();
        assert_eq!(
            none.message(),
            "this cluster has no backup in location default"
        );
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
