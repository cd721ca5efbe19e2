//! `schedule get` and `schedule describe`: schedules, and what came of them. [`Shown`] is pure.

use super::{chosen, name, of_cron_job, times};
use crate::age::{age, duration, time, until};
use crate::describe::Page;
use crate::get::LOOKS_AT_A_TIME;
use crate::options::schedule::{Chosen, GetOptions};
use crate::output::{self, Asked, Format, Printable, Watch};
use crate::pod_template::CONTAINER;
use crate::records::{self, Planned, Record};
use crate::schedule::create::moment;
use crate::schedule::times::SHOWN;
use crate::status::schedules;
use crate::table::Fit;
use crate::wait::{self, Waiting};
use crate::watch::{self, Watched};
use crate::{Surroundings, client, recorded};
use ark_job::api::{Backup, BackupPhase, SCHEDULE_LABEL, SUSPENDED_BY_ANNOTATION};
use ark_job::args::{Args, BackupArgs, Command};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::schedule::DEFAULT_KEEP_LAST;
use futures::StreamExt;
use jiff::{Timestamp, Zoned};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::Value;

/// A schedule and its backups.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The schedule.
    pub cron_job: CronJob,
    /// Its backups, those that have only a Job among them, newest first.
    pub backups: Vec<Backup>,
    /// Why the newest of them does not get on, if it has not ended and anything is known.
    pub waiting: Option<Waiting>,
}

/// Whether a schedule makes backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Enabled,
    /// It was paused by hand.
    Paused,
    /// Restore-only mode has suspended it.
    Suspended,
}

impl State {
    /// Where a CronJob stands.
    pub fn of(cron_job: &CronJob) -> State {
        let spec = cron_job.spec.as_ref();
        if spec.and_then(|spec| spec.suspend) != Some(true) {
            return State::Enabled;
        }
        let annotations = cron_job.metadata.annotations.as_ref();
        match annotations.and_then(|all| all.get(SUSPENDED_BY_ANNOTATION)) {
            Some(_) => State::Suspended,
            None => State::Paused,
        }
    }

    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            State::Enabled => "Enabled",
            State::Paused => "Paused",
            State::Suspended => "Suspended",
        }
    }
}

impl Shown {
    /// A schedule with those of these backups that are its own: in a shared bucket another cluster's schedule may have the
    /// same name. What says of no cluster that it made it has only a Job, which is here. When it is not known which cluster
    /// this is, all count.
    pub fn new(cron_job: CronJob, backups: &[Backup], cluster_uid: Option<&str>) -> Shown {
        let schedule = of_cron_job(&cron_job).unwrap_or_default();
        let made_here = |backup: &Backup| {
            let status = backup.status.as_ref();
            let made_by = status.and_then(|status| status.cluster_uid.as_deref());
            match (made_by, cluster_uid) {
                (Some(made_by), Some(here)) => made_by == here,
                (None, _) | (_, None) => true,
            }
        };
        let mut backups: Vec<Backup> = backups
            .iter()
            .filter(|backup| {
                let labels = backup.metadata.labels.as_ref();
                labels
                    .and_then(|labels| labels.get(SCHEDULE_LABEL))
                    .map(String::as_str)
                    == Some(schedule)
            })
            .filter(|backup| made_here(backup))
            .cloned()
            .collect();
        backups.sort_by(|one, other| {
            (begun(other), records::name(other)).cmp(&(begun(one), records::name(one)))
        });
        Shown {
            cron_job,
            backups,
            waiting: None,
        }
    }

    /// The columns of the table.
    pub fn header(wide: bool) -> &'static [&'static str] {
        const WIDE: [&str; 10] = [
            "NAME",
            "STATUS",
            "SCHEDULE",
            "TIME-ZONE",
            "LAST-BACKUP",
            "NEXT",
            "KEEP-LAST",
            "TTL",
            "LOCATION",
            "IMAGE",
        ];
        if wide { &WIDE } else { &WIDE[..6] }
    }

    /// Its row in that table.
    pub fn row(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let spec = self.spec();
        let next = self.next(now, 1);
        let mut row = vec![
            name(&self.cron_job).to_owned(),
            State::of(&self.cron_job).word().to_owned(),
            spec.schedule,
            spec.time_zone.unwrap_or_default(),
            self.backups
                .first()
                .map(|last| {
                    let reason = self.waiting.as_ref().and_then(|one| one.reason.as_ref());
                    let reason = reason.map(|one| format!(", {one}")).unwrap_or_default();
                    let phase = records::phase(last);
                    match begun(last) {
                        Some(at) => format!("{phase}{reason} ({} ago)", age(at, now)),
                        None => format!("{phase}{reason}"),
                    }
                })
                .unwrap_or_default(),
            next.first()
                .map(|at| until(at.timestamp(), now))
                .unwrap_or_default(),
        ];
        if wide {
            let told = self.told();
            let planned = self.planned();
            row.extend([
                told.as_ref()
                    .map(|told| keep_last(told).to_string())
                    .unwrap_or_default(),
                planned
                    .as_ref()
                    .map(|backup| ttl(backup, "720h"))
                    .unwrap_or_default(),
                planned
                    .and_then(|backup| backup.spec.storage_location)
                    .unwrap_or_default(),
                self.image().unwrap_or_default(),
            ]);
        }
        row
    }

    /// The whole text.
    pub fn describe(&self, now: Timestamp) -> String {
        let spec = self.spec();
        let mut page = Page::default();
        page.metadata(&self.cron_job.metadata, name(&self.cron_job));
        page.field("Status", self.status(now));
        if let Some(item) = schedules::attention(self, now) {
            page.field("Attention", format!("{}\n`{}`", item.message, item.command));
        }
        page.field("Schedule", &spec.schedule);
        page.field(
            "Time zone",
            spec.time_zone
                .as_deref()
                .unwrap_or("that of the cluster's controller manager, mostly UTC"),
        );
        let late = spec.starting_deadline_seconds.map(duration);
        page.field("May start late", late.unwrap_or("however late".into()));
        let next: Vec<String> = self
            .next(now, SHOWN)
            .iter()
            .map(|at| format!("{} (in {})", moment(at), until(at.timestamp(), now)))
            .collect();
        page.field("Next", next.join("\n"));
        page.gap();
        let moments = |backup: &Backup| match begun(backup) {
            Some(at) => format!(
                "{}, {} ({} ago)",
                records::name(backup),
                time(at),
                age(at, now)
            ),
            None => records::name(backup).to_owned(),
        };
        let last = self.backups.first();
        page.field("Last backup", last.map(moments).unwrap_or_default());
        page.some("  Phase", last.map(|last| records::phase(last).to_string()));
        page.some("  Reason", last.and_then(Record::failure_reason));
        page.some("  Waiting for", self.waiting.as_ref().map(|one| &one.text));
        page.field(
            "Last good",
            self.last_good().map(moments).unwrap_or_default(),
        );
        page.field(
            "Failures in a row",
            match self.failures() {
                (all, 0) => all.to_string(),
                (all, partial) => format!("{all} ({partial} of them partially)"),
            },
        );
        page.gap();
        match self.planned() {
            Some(planned) => {
                page.contents(&planned.spec, planned.spec.storage_location.as_deref());
                page.field("Kept for", ttl(&planned, "720h"));
            }
            None => page.field("Told", "nothing that this version understands"),
        }
        page.some(
            "Never expire",
            self.told().map(|told| match keep_last(&told) {
                0 => "none of them".to_owned(),
                1 => "the newest Completed one".to_owned(),
                count => format!("the newest {count} Completed ones"),
            }),
        );
        page.some("Image", self.image());
        page.text()
    }

    fn spec(&self) -> CronJobSpec {
        self.cron_job.spec.clone().unwrap_or_default()
    }

    /// Whether it makes backups, and if not, why.
    fn status(&self, now: Timestamp) -> String {
        match State::of(&self.cron_job) {
            State::Enabled => "Enabled".into(),
            State::Suspended => {
                "Suspended by restore-only mode: `kubectl ark restore-only off` resumes it".into()
            }
            State::Paused => match who_suspended(&self.cron_job) {
                Some((who, at)) => format!("Paused (by {who}, {} ago)", age(at, now)),
                None => "Paused".into(),
            },
        }
    }

    /// The next times, unless it makes none.
    pub fn next(&self, now: Timestamp, count: usize) -> Vec<Zoned> {
        match State::of(&self.cron_job) {
            State::Enabled => times::of_cron_job(&self.cron_job, now, count),
            State::Paused | State::Suspended => Vec::new(),
        }
    }

    /// What its Jobs are told.
    fn args(&self) -> Option<Args> {
        let template = &self.cron_job.spec.as_ref()?.job_template;
        records::args(&template.spec.as_ref()?.template)
    }

    fn told(&self) -> Option<BackupArgs> {
        match self.args()?.command {
            Command::Backup(backup) => Some(backup),
            _ => None,
        }
    }

    /// A backup as it will be made.
    fn planned(&self) -> Option<Backup> {
        let mut told = self.told()?;
        // A name for what has none yet.
        told.tick.scheduled = Some(Timestamp::UNIX_EPOCH);
        Backup::planned(&Command::Backup(told), Planned::New, None)
    }

    fn image(&self) -> Option<String> {
        let job = self.cron_job.spec.as_ref()?.job_template.spec.as_ref()?;
        let containers = &job.template.spec.as_ref()?.containers;
        containers
            .iter()
            .find(|one| one.name == CONTAINER)?
            .image
            .clone()
    }

    /// The newest that is complete.
    pub fn last_good(&self) -> Option<&Backup> {
        let good = |backup: &&Backup| records::phase(backup) == BackupPhase::Completed;
        self.backups.iter().find(good)
    }

    /// How many of those that have ended since the last good one are not good: all, and those that are complete in part.
    pub fn failures(&self) -> (u64, u64) {
        let ended = self.backups.iter().map(records::phase);
        let since = ended.take_while(|phase| *phase != BackupPhase::Completed);
        let (mut all, mut partial) = (0, 0);
        for phase in since {
            match phase {
                BackupPhase::Failed => all += 1,
                BackupPhase::PartiallyFailed => {
                    all += 1;
                    partial += 1;
                }
                BackupPhase::New
                | BackupPhase::InProgress
                | BackupPhase::Completed
                | BackupPhase::Deleting => {}
            }
        }
        (all, partial)
    }
}

/// When a backup began, or was asked for.
pub fn begun(backup: &Backup) -> Option<Timestamp> {
    let status = backup.status.as_ref();
    records::created(
        backup,
        status.and_then(|status| status.start_timestamp.as_ref()),
    )
}

fn keep_last(told: &BackupArgs) -> u32 {
    told.tick.keep_last.unwrap_or(DEFAULT_KEEP_LAST)
}

fn ttl(planned: &Backup, default: &str) -> String {
    match planned.spec.ttl.as_deref() {
        Some("0") => "ever".to_owned(),
        Some(ttl) => ttl.to_owned(),
        None => default.to_owned(),
    }
}

/// Who set `spec.suspend`, and when.
fn who_suspended(cron_job: &CronJob) -> Option<(String, Timestamp)> {
    let entries = cron_job.metadata.managed_fields.as_deref()?;
    let owns = |fields: &Value| fields.pointer("/f:spec/f:suspend").is_some();
    entries
        .iter()
        .filter(|entry| {
            entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| owns(&fields.0))
        })
        .filter_map(|entry| Some((entry.manager.clone()?, entry.time.as_ref()?.0)))
        .max_by_key(|(_, at)| *at)
}

impl Printable for Shown {
    const FIT: Fit = Fit {
        leave_out: &["IMAGE", "LOCATION", "TTL", "KEEP-LAST", "TIME-ZONE", "NEXT"],
        cut: &["LAST-BACKUP", "IMAGE"],
    };

    fn header(wide: bool) -> &'static [&'static str] {
        Shown::header(wide)
    }

    fn row(&self, wide: bool, now: Timestamp) -> Vec<String> {
        Shown::row(self, wide, now)
    }

    fn value(&self) -> Value {
        serde_json::to_value(&self.cron_job).expect("Kubernetes objects can be written as JSON")
    }

    fn reference(&self) -> String {
        super::reference(&self.cron_job)
    }
}

/// Lists schedules.
pub async fn get(
    client: &Client,
    options: &GetOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let GetOptions {
        chosen: which,
        printing,
    } = options;
    let namespace = &which.namespace;
    let look = async || {
        let (schedules, missing) = chosen(client, which).await?;
        // Only tables tell of backups.
        let (backups, here) = match printing.format {
            Format::Table | Format::Wide if !schedules.is_empty() => {
                backups(client, namespace, SCHEDULE_LABEL).await?
            }
            _ => (Vec::new(), None),
        };
        let shown = schedules
            .into_iter()
            .map(|schedule| Shown::new(schedule, &backups, here.as_deref()));
        Ok((with_waiting(client, namespace, shown).await, missing))
    };
    let asked = Asked {
        namespace,
        by_name: which.names.len() == 1,
    };
    if printing.watch != Watch::No {
        let watched = [
            Watched::of::<CronJob>(Some(SCHEDULE_LABEL.into())),
            Watched::of::<Backup>(Some(SCHEDULE_LABEL.into())),
            // Who may not see these sees less.
            Watched::of::<Job>(Some(SCHEDULE_LABEL.into())).optional(),
            Watched::of::<Pod>(Some("batch.kubernetes.io/job-name".into())).optional(),
        ];
        return watch::run(
            client,
            &watched,
            look,
            asked,
            printing,
            surroundings,
            interrupt,
        )
        .await;
    }
    let (found, missing) = look().await?;
    output::print_found(found, missing, asked, printing, surroundings)
}

/// Finds out why the last backups do not get on that have not ended.
async fn with_waiting(
    client: &Client,
    namespace: &str,
    schedules: impl Iterator<Item = Shown>,
) -> Vec<Shown> {
    let all = schedules.map(async |mut shown| {
        if let Some(last) = shown.backups.first()
            && last.end().is_none()
        {
            shown.waiting = wait::waiting::<Backup>(client, namespace, records::name(last)).await;
        }
        shown
    });
    futures::stream::iter(all)
        .buffered(LOOKS_AT_A_TIME)
        .collect()
        .await
}

/// Shows schedules in full.
pub async fn describe(client: &Client, which: &Chosen, now: Timestamp) -> Result<Exit, Failure> {
    let (schedules, missing) = chosen(client, which).await?;
    for (index, schedule) in schedules.into_iter().enumerate() {
        if index > 0 {
            print!("\n\n");
        }
        let label = of_cron_job(&schedule).unwrap_or_default();
        let of_schedule = format!("{SCHEDULE_LABEL}={label}");
        let (backups, here) = backups(client, &which.namespace, &of_schedule).await?;
        let shown = Shown::new(schedule, &backups, here.as_deref());
        let shown = with_waiting(client, &which.namespace, std::iter::once(shown)).await;
        for shown in shown {
            print!("{}", shown.describe(now));
        }
    }
    missing.map_or(Ok(Exit::Done), Err)
}

/// The backups with a label, and Jobs that have no record yet; and the UID of this cluster, if it may be read.
async fn backups(
    client: &Client,
    namespace: &str,
    label: &str,
) -> Result<(Vec<Backup>, Option<String>), Failure> {
    let (backups, here) = futures::join!(
        recorded::list::<Backup>(client, namespace, Some(label)),
        client::cluster_uid(client)
    );
    Ok((backups?, here.ok().flatten()))
}
