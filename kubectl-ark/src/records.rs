//! Backups and restores as a person asks about them: the record that `ark-job` wrote, or the Job that will write it.

use crate::age::{age, bytes, until};
use crate::noun::Noun;
use crate::pod_template::CONTAINER;
use crate::table::Fit;
use crate::volumes;
use ark_job::api::{
    Backup, BackupPhase, BackupProgress, BackupSpec, BackupStatus, DEFAULT_TTL, Restore,
    RestorePhase, RestoreProgress, RestoreStatus, STORAGE_ANNOTATION,
};
use ark_job::args::{Args, BackupArgs, Command, parse_duration};
use ark_job::exit::Exit;
use ark_job::report::plural;
use ark_job::restore;
use ark_job::schedule::scheduled_time;
use ark_job::selector;
use clap::Parser;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// How far an operation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects done.
    pub items: u64,
    /// Objects in all, when known.
    pub total: Option<u64>,
    /// Bytes read, of a backup.
    pub bytes: u64,
}

/// A resource that records an operation.
pub trait Record:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + PartialEq
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Backups or restores.
    const NOUN: Noun;

    /// What to do with its table in a narrow terminal.
    const FIT: Fit;

    /// The columns of its table.
    fn header(wide: bool) -> &'static [&'static str];

    /// Its row in that table.
    fn row(&self, wide: bool, now: Timestamp) -> Vec<String>;

    /// What a command that has no record yet will record; `None` if it records something else.
    fn planned(command: &Command, phase: Planned, why: Option<String>) -> Option<Self>;

    /// How far it is, while it runs.
    fn progress(&self) -> Option<Progress>;

    /// How it ended, if it has.
    fn end(&self) -> Option<Exit>;

    /// One line on what came of it.
    fn summary(&self) -> String;

    /// Why it failed, as the record says.
    fn failure_reason(&self) -> Option<&str>;
}

/// What is known of an operation that has only a Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Its pod has not started, or has not got as far as writing a record.
    New,
    /// The Job has failed.
    Failed,
}

/// What a Job's container was told, if it is one of ours.
///
/// A CronJob tells all its Jobs the same: for which time one is, the Job itself says.
pub fn command(job: &Job) -> Option<Command> {
    let mut args = args(&job.spec.as_ref()?.template)?;
    if let Command::Backup(backup) = &mut args.command
        && backup.tick.schedule.is_some()
        && backup.tick.scheduled.is_none()
    {
        backup.tick.scheduled = scheduled_time(job);
    }
    Some(args.command)
}

/// What a pod of this template is told, if it is one of ours.
pub fn args(template: &PodTemplateSpec) -> Option<Args> {
    let pod = template.spec.as_ref()?;
    let container = pod.containers.iter().find(|one| one.name == CONTAINER)?;
    let argv = container.args.as_deref().unwrap_or_default();
    let argv = std::iter::once(CONTAINER).chain(argv.iter().map(String::as_str));
    Args::try_parse_from(argv).ok()
}

/// The name of the backup or restore that a Job makes.
pub fn subject<R: Record>(job: &Job) -> Option<String> {
    let record = R::planned(&command(job)?, Planned::New, None)?;
    Some(name(&record).to_owned())
}

/// The record that a Job stands for while it has none, or `None` when it stands for nothing (any more).
pub fn of_job<R: Record>(job: &Job) -> Option<R> {
    let (phase, why) = match ended(job) {
        // Done, and the record is gone: so is the backup.
        Some(End::Complete) => return None,
        Some(End::Failed { reason, message }) => {
            (Planned::Failed, Some(format!("{reason}: {message}")))
        }
        None => (Planned::New, None),
    };
    let mut record = R::planned(&command(job)?, phase, why)?;
    let meta = record.meta_mut();
    meta.namespace = job.metadata.namespace.clone();
    meta.creation_timestamp = job.metadata.creation_timestamp.clone();
    meta.labels = job.metadata.labels.clone();
    Some(record)
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Well.
    Complete,
    /// With the reason and message of its condition.
    Failed {
        /// `BackoffLimitExceeded`, `DeadlineExceeded`, `PodFailurePolicy` …
        reason: String,
        /// The controller's sentence.
        message: String,
    },
}

/// How `job` ended, if it has.
pub fn ended(job: &Job) -> Option<End> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    conditions
        .iter()
        .filter(|one| one.status == "True")
        .find_map(|one| match one.type_.as_str() {
            "Complete" => Some(End::Complete),
            "Failed" => Some(End::Failed {
                reason: one.reason.clone().unwrap_or_default(),
                message: one.message.clone().unwrap_or_default(),
            }),
            _ => None,
        })
}

/// Sorts by name, but newest first where names differ only in a `-<YYYYMMDDhhmmss>` at their end (as Ark did).
pub fn sort<R: Record>(records: &mut [R]) {
    records.sort_by(|left, right| {
        let (left, right) = (name(left), name(right));
        match (stem(left), stem(right)) {
            (Some(one), Some(other)) if one == other => right.cmp(left),
            (one, other) => one
                .unwrap_or(left)
                .cmp(other.unwrap_or(right))
                .then(left.cmp(right)),
        }
    });
}

/// The name of a record.
pub fn name<R: Record>(record: &R) -> &str {
    record.meta().name.as_deref().unwrap_or_default()
}

/// `<STEM>-<YYYYMMDDhhmmss>`
pub fn stem(name: &str) -> Option<&str> {
    let (stem, time) = name.rsplit_once('-')?;
    (time.len() == 14 && time.bytes().all(|byte| byte.is_ascii_digit())).then_some(stem)
}

/// Where a backup is: its location, or the URL that it was given.
pub fn place(backup: &Backup) -> Option<&str> {
    let annotations = backup.metadata.annotations.as_ref();
    let url = || annotations?.get(STORAGE_ANNOTATION).map(String::as_str);
    backup.spec.storage_location.as_deref().or_else(url)
}

/// When an operation was begun, or else asked for.
pub fn created<R: Record>(record: &R, started: Option<&Time>) -> Option<Timestamp> {
    started
        .or(record.meta().creation_timestamp.as_ref())
        .map(|time| time.0)
}

fn age_of<R: Record>(record: &R, started: Option<&Time>, now: Timestamp) -> String {
    created(record, started)
        .map(|at| age(at, now))
        .unwrap_or_default()
}

fn troubles(warnings: u64, errors: u64) -> String {
    let mut text = String::new();
    for (count, thing) in [(errors, "error"), (warnings, "warning")] {
        if count > 0 {
            text.push_str(&format!(", {}", plural(count, thing)));
        }
    }
    text
}

impl Record for Backup {
    const NOUN: Noun = Noun::Backup;

    const FIT: Fit = Fit {
        leave_out: &[
            "RESOURCEVERSION",
            "CLUSTER",
            "LOCATION",
            "WARNINGS",
            "VOLUMES",
            "ITEMS",
            "SIZE",
            "EXPIRES",
            "ERRORS",
        ],
        cut: &["STATUS", "CLUSTER", "VOLUMES"],
    };

    fn header(wide: bool) -> &'static [&'static str] {
        const WIDE: [&str; 12] = [
            "NAME",
            "STATUS",
            "ERRORS",
            "WARNINGS",
            "AGE",
            "EXPIRES",
            "LOCATION",
            "ITEMS",
            "SIZE",
            "VOLUMES",
            "CLUSTER",
            "RESOURCEVERSION",
        ];
        if wide { &WIDE } else { &WIDE[..7] }
    }

    fn row(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        let mut row = vec![
            name(self).to_owned(),
            phase(self).to_string(),
            status.errors.to_string(),
            status.warnings.to_string(),
            age_of(self, status.start_timestamp.as_ref(), now),
            expires(self)
                .map(|at| until(at, now))
                .unwrap_or_else(|| "n/a".into()),
            place(self).unwrap_or_default().to_owned(),
        ];
        if wide {
            row.extend([
                status
                    .progress
                    .map(|progress| progress.items_backed_up.to_string())
                    .unwrap_or_default(),
                status.size.map(bytes).unwrap_or_default(),
                volumes::cell(&status),
                status
                    .cluster_name
                    .filter(|name| !name.is_empty())
                    .or(status.cluster_uid)
                    .unwrap_or_default(),
                status.resource_version.clone().unwrap_or_default(),
            ]);
        }
        row
    }

    fn planned(command: &Command, planned: Planned, why: Option<String>) -> Option<Self> {
        let Command::Backup(arguments) = command else {
            return None;
        };
        let BackupArgs {
            name: _,
            tick: _,
            storage,
            backup,
            exit: _,
        } = arguments;
        let spec = BackupSpec {
            included_namespaces: backup.include_namespaces.clone(),
            excluded_namespaces: backup.exclude_namespaces.clone(),
            included_resources: backup.include_resources.clone(),
            excluded_resources: backup.exclude_resources.clone(),
            label_selector: backup
                .selector
                .as_deref()
                .and_then(|text| selector::parse(text).ok()),
            or_label_selectors: backup
                .or_selector
                .iter()
                .filter_map(|text| selector::parse_choice(text).ok())
                .flatten()
                .collect(),
            include_cluster_resources: backup.include_cluster_resources,
            snapshot_volumes: backup.snapshot_volumes,
            resource_policy: backup.resource_policies_configmap.clone(),
            csi_snapshot_timeout: backup.csi_snapshot_timeout.clone(),
            ignore_undiscoverable: backup.ignore_undiscoverable.clone(),
            ttl: backup.ttl.clone(),
            storage_location: storage.location.clone(),
            ..BackupSpec::default()
        };
        let status = BackupStatus {
            phase: Some(match planned {
                Planned::New => BackupPhase::New,
                Planned::Failed => BackupPhase::Failed,
            }),
            failure_reason: why,
            ..BackupStatus::default()
        };
        let mut record = Backup::new(&arguments.known_name()?, spec);
        record.status = Some(status);
        Some(record)
    }

    fn progress(&self) -> Option<Progress> {
        let BackupProgress {
            total_items,
            items_backed_up,
            bytes_read,
        } = self.status.as_ref()?.progress?;
        Some(Progress {
            items: items_backed_up,
            total: total_items,
            bytes: bytes_read,
        })
    }

    fn end(&self) -> Option<Exit> {
        match phase(self) {
            BackupPhase::New | BackupPhase::InProgress | BackupPhase::Deleting => None,
            BackupPhase::Completed => Some(Exit::Done),
            BackupPhase::PartiallyFailed => Some(Exit::PartiallyFailed),
            BackupPhase::Failed => Some(Exit::Failed),
        }
    }

    fn summary(&self) -> String {
        let status = self.status.clone().unwrap_or_default();
        let items = status
            .progress
            .map(|progress| plural(progress.items_backed_up, "object"))
            .unwrap_or_default();
        let size = status
            .size
            .map(|size| format!(", {}", bytes(size)))
            .unwrap_or_default();
        format!("{items}{size}{}", troubles(status.warnings, status.errors))
    }

    fn failure_reason(&self) -> Option<&str> {
        self.status.as_ref()?.failure_reason.as_deref()
    }
}

/// Where a backup stands.
pub fn phase(backup: &Backup) -> BackupPhase {
    if backup.metadata.deletion_timestamp.is_some() {
        return BackupPhase::Deleting;
    }
    let phase = backup.status.as_ref().and_then(|status| status.phase);
    phase.unwrap_or(BackupPhase::New)
}

/// When a backup expires; never, when its time to live is 0.
pub fn expires(backup: &Backup) -> Option<Timestamp> {
    let status = backup.status.as_ref();
    if let Some(Time(at)) = status.and_then(|status| status.expiration.as_ref()) {
        return Some(*at);
    }
    let ttl = match &backup.spec.ttl {
        Some(text) => parse_duration(text).ok()?,
        None => DEFAULT_TTL,
    };
    let from = created(
        backup,
        status.and_then(|status| status.start_timestamp.as_ref()),
    )?;
    (!ttl.is_zero())
        .then(|| from.checked_add(ttl).ok())
        .flatten()
}

impl Record for Restore {
    const NOUN: Noun = Noun::Restore;

    const FIT: Fit = Fit {
        leave_out: &[
            "SKIPPED",
            "UNCHANGED",
            "UPDATED",
            "WARNINGS",
            "CREATED",
            "FAILED",
            "ERRORS",
            "BACKUP",
        ],
        cut: &["STATUS"],
    };

    fn header(wide: bool) -> &'static [&'static str] {
        const WIDE: [&str; 11] = [
            "NAME",
            "BACKUP",
            "STATUS",
            "ERRORS",
            "WARNINGS",
            "AGE",
            "CREATED",
            "UPDATED",
            "UNCHANGED",
            "SKIPPED",
            "FAILED",
        ];
        if wide { &WIDE } else { &WIDE[..6] }
    }

    fn row(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let status = self.status.clone().unwrap_or_default();
        let mut row = vec![
            name(self).to_owned(),
            self.spec.backup_name.clone(),
            restore_phase(self).to_string(),
            status.errors.to_string(),
            status.warnings.to_string(),
            age_of(self, status.start_timestamp.as_ref(), now),
        ];
        if wide {
            let counts = [
                status.created,
                status.updated,
                status.unchanged,
                status.skipped,
                status.failed,
            ];
            row.extend(counts.map(|count| count.to_string()));
        }
        row
    }

    fn planned(command: &Command, planned: Planned, why: Option<String>) -> Option<Self> {
        let Command::Restore(arguments) = command else {
            return None;
        };
        // Our own Jobs have been checked when they were rendered.
        let spec = restore::Options::resolve(arguments).ok()?.spec().clone();
        let status = RestoreStatus {
            phase: Some(match planned {
                Planned::New => RestorePhase::New,
                Planned::Failed => RestorePhase::Failed,
            }),
            failure_reason: why,
            ..RestoreStatus::default()
        };
        let mut record = Restore::new(arguments.name.as_deref()?, spec);
        record.status = Some(status);
        Some(record)
    }

    fn progress(&self) -> Option<Progress> {
        let RestoreProgress {
            total_items,
            items_restored,
        } = self.status.as_ref()?.progress?;
        Some(Progress {
            items: items_restored,
            total: Some(total_items),
            bytes: 0,
        })
    }

    fn end(&self) -> Option<Exit> {
        match restore_phase(self) {
            RestorePhase::New | RestorePhase::InProgress => None,
            RestorePhase::Completed => Some(Exit::Done),
            RestorePhase::PartiallyFailed => Some(Exit::PartiallyFailed),
            RestorePhase::Failed => Some(Exit::Failed),
        }
    }

    fn summary(&self) -> String {
        let status = self.status.clone().unwrap_or_default();
        let counts = [
            (status.created, "created"),
            (status.updated, "updated"),
            (status.unchanged, "unchanged"),
            (status.skipped, "skipped"),
            (status.failed, "failed"),
        ];
        let counted = |count: &(u64, &str)| count.0 > 0 || count.1 == "created";
        let texts: Vec<String> = counts
            .iter()
            .filter(|count| counted(count))
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        format!(
            "{}{}",
            texts.join(", "),
            troubles(status.warnings, status.errors)
        )
    }

    fn failure_reason(&self) -> Option<&str> {
        self.status.as_ref()?.failure_reason.as_deref()
    }
}

/// Where a restore stands.
pub fn restore_phase(restore: &Restore) -> RestorePhase {
    let phase = restore.status.as_ref().and_then(|status| status.phase);
    phase.unwrap_or(RestorePhase::New)
}

/// Records, and Jobs that have none yet, as one list.
pub fn joined<R: Record>(records: Vec<R>, jobs: &[Job]) -> Vec<R> {
    let mut all = records;
    for job in jobs {
        if let Some(record) = of_job::<R>(job)
            && !all.iter().any(|one| name(one) == name(&record))
        {
            all.push(record);
        }
    }
    sort(&mut all);
    all
}

/// Metadata of a record in tests and examples.
pub fn metadata(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    }
}
