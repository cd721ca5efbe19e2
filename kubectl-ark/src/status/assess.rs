//! Whether what was seen is well, and what to do if not. Pure: [`Seen`] → [`Health`].
//!
//! [`Health`] is what `status -o json` prints: docs/status.md lists every field and every reason. Names stay; fields may be
//! added.

use super::collect::Seen;
use super::{housekeeping, operations, schedules};
use crate::age::{age, duration};
use crate::{restore_only, wait};
use ark_job::api::{
    AccessMode, BackupStorageLocation, CONFIG_NAME, CONTRACT_ANNOTATION, CONTRACT_VERSION,
    MODE_KEY, NORMAL, OPERATION_LABEL, PLAN_OPERATION, RESTORE_ONLY, namespace_flag,
    restore_binding,
};
use ark_job::mode::refuse_by;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;

/// Hourly work that was last done before this has missed two turns.
pub const HOURLY_WITHIN: SignedDuration = SignedDuration::from_hours(3);
/// Time in which what is made in several steps may be half made.
const SETTLED_AFTER: SignedDuration = SignedDuration::from_mins(2);

/// Why something needs attention, or is worth a note; the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Reason {
    /// There is no storage location.
    NoLocation,
    /// The pod settings are missing: no Job can be made.
    SettingsMissing,
    /// Storage could not be reached when it was last tried.
    LocationUnreachable,
    /// A schedule's last complete backup is older than two of its periods.
    BackupOverdue,
    /// What a backup's hooks have frozen may be frozen still.
    PodsMayBeFrozen,
    /// The last backup of a schedule has failed.
    BackupFailed,
    /// Something is missing from the last backup of a schedule.
    BackupPartiallyFailed,
    /// A schedule is suspended by restore-only mode, which is off.
    ScheduleSuspended,
    /// Restore-only mode is on, and a schedule is not suspended.
    ScheduleNotSuspended,
    /// The mode says something that is none: nothing is backed up.
    ModeUnknown,
    /// The image does not understand what this plugin would tell it.
    ImageOutdated,
    /// The pod of an operation does not start.
    OperationStuck,
    /// An operation is over, and a container that is not ours keeps its Job from ending.
    JobHeldOpen,
    /// An operation runs, and gives no sign of life.
    HeartbeatStale,
    /// A record says that something runs, and nothing does.
    RecordStale,
    /// A location has not been synchronised for three hours.
    LocationNotSynced,
    /// The last expiry of a location has failed, or there was none for three hours.
    ExpiryFailing,
    /// The last sync of a location has failed.
    SyncFailing,
    /// Restores have cluster-admin, and none runs.
    RestoreRightsLeft,
    /// Note: restore-only mode is on.
    RestoreOnlyMode,
    /// Note: a person has paused a schedule.
    SchedulePaused,
    /// Note: backups are made by nobody but by hand.
    NoSchedule,
    /// Note: expiry of a location is suspended, though the mode is Normal.
    ExpirySuspended,
    /// Note: a deletion has begun and does not go on.
    DeletionUnfinished,
    /// Note: the image is newer than this plugin.
    PluginOutdated,
}

/// Something that needs attention, or is worth a note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// Why, for programs.
    pub reason: Reason,
    /// About what: `schedule/nightly`.
    pub object: String,
    /// Why, for people.
    pub message: String,
    /// What to run.
    pub command: String,
    /// What else helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Item {
    /// One without a hint.
    pub fn new(reason: Reason, object: String, message: String, command: String) -> Item {
        Item {
            reason,
            object,
            message,
            command,
            hint: None,
        }
    }
}

/// What `status` says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Whether nothing needs attention.
    pub healthy: bool,
    /// Ark's namespace.
    pub namespace: String,
    /// When this was seen.
    pub checked_at: Time,
    /// What needs attention, the most urgent first.
    pub attention: Vec<Item>,
    /// What is worth knowing, and as somebody wants it.
    pub notes: Vec<Item>,
    /// Plugin and image.
    pub versions: Versions,
    /// Whether backups are made.
    pub mode: Mode,
    /// Where backups are.
    pub locations: Vec<LocationHealth>,
    /// Who makes backups.
    pub schedules: Vec<ScheduleHealth>,
    /// What runs.
    pub operations: Vec<OperationHealth>,
    /// What could not be looked at.
    pub not_seen: Vec<String>,
}

/// Plugin and image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// Of this plugin.
    pub plugin: String,
    /// The command line that it speaks.
    pub plugin_contract: String,
    /// What Jobs run.
    pub image: Option<String>,
    /// The command line that it understands.
    pub image_contract: Option<String>,
    /// Whether the image understands the plugin.
    pub agree: bool,
}

/// Whether backups are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mode {
    /// `Normal` or `RestoreOnly`, which is what any other value means.
    pub mode: String,
    /// CronJobs that the mode has suspended.
    pub suspended: Vec<String>,
    /// Schedules and expiry that people have suspended.
    pub paused: Vec<String>,
}

/// A location, as sync and expiry have left it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocationHealth {
    /// Its name.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// `ReadWrite` or `ReadOnly`.
    pub access_mode: String,
    /// When it was last synchronised.
    pub last_sync_time: Option<Time>,
    /// Whether it could be reached then; null when it was never tried.
    pub reachable: Option<bool>,
    /// Why it could not be reached.
    pub unreachable: Option<String>,
    /// The hourly sync.
    pub sync: Housekeeping,
    /// The hourly expiry.
    pub expiry: Housekeeping,
}

/// Hourly work on a location.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Housekeeping {
    /// Its CronJob; null when there is none.
    pub cron_job: Option<String>,
    /// Whether that is suspended.
    pub suspended: bool,
    /// When it was last done.
    pub last_success_time: Option<Time>,
    /// The last Job that has ended, whoever made it.
    pub last_job: Option<String>,
    /// Whether that has failed.
    pub failed: bool,
    /// What that said.
    pub message: Option<String>,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleHealth {
    /// Its name.
    pub name: String,
    /// `Enabled`, `Paused` by a person, or `Suspended` by restore-only mode.
    pub status: String,
    /// The cron expression.
    pub schedule: String,
    /// Its time zone, if it names one.
    pub time_zone: Option<String>,
    /// When the next backup is due.
    pub next_time: Option<Time>,
    /// The newest backup.
    pub last_backup: Option<BackupSeen>,
    /// The newest one that is complete.
    pub last_good_backup: Option<BackupSeen>,
    /// How many have ended since that.
    pub failures_in_row: u64,
    /// Whether a complete backup should be there by now.
    pub overdue: bool,
}

/// A backup of a schedule.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupSeen {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: String,
    /// When it began.
    pub start_time: Option<Time>,
    /// Its age.
    pub age_seconds: Option<i64>,
    /// Length of its archive.
    pub size_bytes: Option<i64>,
}

/// Something that runs, or should.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationHealth {
    /// `backup`, `restore`, `expire` …
    pub operation: String,
    /// Of which backup, restore or location.
    pub name: String,
    /// Its Job; null when it runs in somebody's own process.
    pub job: Option<String>,
    /// `Pending`, `Running` or `Stuck`; `Unknown` when pods may not be read.
    pub state: String,
    /// What it waits for.
    pub waiting_for: Option<String>,
    /// When it was asked for.
    pub start_time: Option<Time>,
    /// Its last sign of life.
    pub heartbeat: Option<Time>,
    /// Objects done.
    pub items: Option<u64>,
    /// Objects in all, when known.
    pub total_items: Option<u64>,
}

/// What was found to say, while it is gathered.
#[derive(Default)]
pub struct Findings {
    /// What needs attention.
    pub attention: Vec<Item>,
    /// What is worth a note.
    pub notes: Vec<Item>,
}

/// Judges.
pub fn assess(seen: &Seen) -> Health {
    let mut findings = Findings::default();
    let versions = versions(seen, &mut findings);
    let mode = mode(seen, &mut findings);
    let locations = locations(seen, &mode, &mut findings);
    let schedules = schedules::assess(seen, &mode, &mut findings);
    let operations = operations::assess(seen, &mut findings);
    rights(seen, &mut findings);
    let Findings {
        mut attention,
        mut notes,
    } = findings;
    // Stable: what is equally urgent stays in the order of names.
    attention.sort_by_key(|item| item.reason);
    notes.sort_by_key(|item| item.reason);
    Health {
        healthy: attention.is_empty(),
        namespace: seen.namespace.clone(),
        checked_at: Time(seen.now),
        attention,
        notes,
        versions,
        mode,
        locations,
        schedules,
        operations,
        not_seen: seen.not_seen.clone(),
    }
}

/// A command in this installation: the flag that it needs to find it at its end.
pub fn command(seen: &Seen, words: &str) -> String {
    command_in(&seen.namespace, words)
}

/// A command in the installation in this namespace.
pub fn command_in(namespace: &str, words: &str) -> String {
    format!("kubectl ark {words}{}", namespace_flag(namespace))
}

fn versions(seen: &Seen, findings: &mut Findings) -> Versions {
    let annotations = seen
        .template
        .as_ref()
        .and_then(|template| template.metadata.annotations.as_ref());
    let image_contract = annotations.and_then(|all| all.get(CONTRACT_ANNOTATION).cloned());
    let number = |text: &str| text.parse::<u32>().ok();
    let (understood, spoken) = (
        image_contract.as_deref().and_then(number),
        number(CONTRACT_VERSION),
    );
    let image = seen.template.as_ref().and_then(crate::version::image);
    let object = format!("podtemplate/{CONFIG_NAME}");
    let install = || command(seen, "install");
    if seen.template.is_none() {
        findings.attention.push(Item::new(
            Reason::SettingsMissing,
            object,
            format!("there is no PodTemplate {CONFIG_NAME}: the plugin can make no Job"),
            install(),
        ));
    } else if understood < spoken {
        findings.attention.push(Item::new(
            Reason::ImageOutdated,
            object,
            format!(
                "image {} understands contract version {}, this plugin speaks {CONTRACT_VERSION}: it would refuse",
                image.as_deref().unwrap_or("none"),
                image_contract.as_deref().unwrap_or("none"),
            ),
            install(),
        ));
    } else if understood > spoken {
        findings.notes.push(Item::new(
            Reason::PluginOutdated,
            object,
            format!(
                "image {} understands contract version {}, this plugin speaks {CONTRACT_VERSION}: a newer plugin can do more",
                image.as_deref().unwrap_or("none"),
                image_contract.as_deref().unwrap_or("none"),
            ),
            "kubectl ark version".into(),
        ));
    }
    Versions {
        plugin: concat!("v", env!("CARGO_PKG_VERSION")).into(),
        plugin_contract: CONTRACT_VERSION.into(),
        image,
        agree: seen.template.is_some() && understood >= spoken,
        image_contract,
    }
}

fn mode(seen: &Seen, findings: &mut Findings) -> Mode {
    let config = seen.config.as_ref();
    let said = config.and_then(|config| config.data.as_ref()?.get(MODE_KEY));
    let normal = refuse_by(config, &seen.namespace).is_ok();
    let object = format!("configmap/{CONFIG_NAME}");
    match said.map(String::as_str) {
        _ if normal => {}
        Some(RESTORE_ONLY) => findings.notes.push(Item::new(
            Reason::RestoreOnlyMode,
            object,
            "restore-only mode is on: nothing is backed up, deleted or expired".into(),
            command(seen, "restore-only off"),
        )),
        other => findings.attention.push(Item::new(
            Reason::ModeUnknown,
            object,
            format!(
                "the mode is {:?}, which is none: nothing is backed up, deleted or expired until it is set",
                other.unwrap_or_default()
            ),
            command(seen, "restore-only off"),
        )),
    }
    Mode {
        mode: if normal { NORMAL } else { RESTORE_ONLY }.into(),
        suspended: restore_only::suspended(&seen.cron_jobs, true),
        paused: restore_only::suspended(&seen.cron_jobs, false),
    }
}

/// Whether somebody has switched restore-only mode on; a mode that is none has another remedy.
pub fn is_restore_only(seen: &Seen) -> bool {
    let data = seen.config.as_ref().and_then(|config| config.data.as_ref());
    data.and_then(|data| data.get(MODE_KEY))
        .is_some_and(|mode| mode == RESTORE_ONLY)
}

fn locations(seen: &Seen, mode: &Mode, findings: &mut Findings) -> Vec<LocationHealth> {
    if seen.locations.is_empty() {
        findings.attention.push(Item::new(
            Reason::NoLocation,
            "backupstoragelocation".into(),
            "there is no storage location: nothing can be backed up or restored by Jobs".into(),
            command(seen, "install --storage s3://BUCKET/PREFIX"),
        ));
    }
    seen.locations
        .iter()
        .map(|one| location(one, seen, mode, findings))
        .collect()
}

fn location(
    location: &BackupStorageLocation,
    seen: &Seen,
    mode: &Mode,
    findings: &mut Findings,
) -> LocationHealth {
    let name = location.metadata.name.clone().unwrap_or_default();
    let status = location.status.clone().unwrap_or_default();
    let object = format!("backupstoragelocation/{name}");
    let sync = housekeeping::seen(seen, crate::hourly::SYNC, &name);
    let expiry = housekeeping::seen(seen, crate::hourly::EXPIRE, &name);
    let last_sync = status.last_sync_time.as_ref().map(|time| time.0);
    let since = last_sync.or(location
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0));
    let again = || command(seen, &format!("sync --location {name}"));
    if let Some(why) = &status.unreachable {
        let last = match last_sync {
            Some(at) => format!("last synchronised {} ago", age(at, seen.now)),
            None => "never synchronised".to_owned(),
        };
        findings.attention.push(Item::new(
            Reason::LocationUnreachable,
            object,
            format!("location {name} cannot be reached ({last}): {why}"),
            command(seen, &format!("doctor --location {name}")),
        ));
    } else if since.is_some_and(|since| is_before(since, HOURLY_WITHIN, seen.now)) {
        let last = match last_sync {
            Some(at) => format!(
                "location {name} was last synchronised {} ago",
                age(at, seen.now)
            ),
            None => format!("location {name} was never synchronised"),
        };
        let why = match &sync {
            Housekeeping { cron_job: None, .. } => {
                ": there is no CronJob that does it hourly; `kubectl ark install` makes it".into()
            }
            Housekeeping {
                suspended: true,
                cron_job: Some(cron_job),
                ..
            } => format!(": CronJob {cron_job} is suspended"),
            Housekeeping {
                failed: true,
                message: Some(message),
                ..
            } => format!(": {message}"),
            _ => String::new(),
        };
        findings.attention.push(Item::new(
            Reason::LocationNotSynced,
            object,
            format!("{last}{why}"),
            again(),
        ));
    } else if sync.failed {
        findings.attention.push(Item::new(
            Reason::SyncFailing,
            object,
            format!("the last sync of location {name} failed{}", said(&sync)),
            again(),
        ));
    }
    if location.spec.access_mode == AccessMode::ReadWrite {
        expiring(&name, &expiry, seen, mode, findings);
    }
    LocationHealth {
        url: location.spec.url.clone(),
        access_mode: format!("{:?}", location.spec.access_mode),
        reachable: match (&status.unreachable, last_sync) {
            (Some(_), _) => Some(false),
            (None, Some(_)) => Some(true),
            (None, None) => None,
        },
        last_sync_time: status.last_sync_time,
        unreachable: status.unreachable,
        sync,
        expiry,
        name,
    }
}

/// Whether backups of a location that have expired go.
fn expiring(name: &str, expiry: &Housekeeping, seen: &Seen, mode: &Mode, findings: &mut Findings) {
    let Some(cron_job) = &expiry.cron_job else {
        return;
    };
    let object = format!("cronjob/{cron_job}");
    if expiry.suspended {
        if mode.mode == NORMAL {
            findings.notes.push(Item::new(
                Reason::ExpirySuspended,
                object,
                format!("expiry of location {name} is suspended: nothing that has expired goes"),
                match mode.suspended.iter().any(|one| one.ends_with(cron_job)) {
                    true => command(seen, "restore-only off --resume-expiry"),
                    false => format!(
                        "kubectl patch cronjob {cron_job} -n {} -p '{{\"spec\":{{\"suspend\":false}}}}'",
                        seen.namespace
                    ),
                },
            ));
        }
        return;
    }
    if mode.mode != NORMAL {
        return;
    }
    let again = command(seen, &format!("expire --location {name}"));
    if expiry.failed {
        findings.attention.push(Item::new(
            Reason::ExpiryFailing,
            object,
            format!("the last expiry of location {name} failed{}", said(expiry)),
            again,
        ));
        return;
    }
    let made = seen
        .cron_jobs
        .iter()
        .find(|one| one.metadata.name.as_ref() == Some(cron_job))
        .and_then(|one| one.metadata.creation_timestamp.as_ref());
    let since = expiry.last_success_time.as_ref().or(made);
    if let Some(since) = since.filter(|since| is_before(since.0, HOURLY_WITHIN, seen.now)) {
        findings.attention.push(Item::new(
            Reason::ExpiryFailing,
            object,
            format!(
                "location {name} has had no expiry for {}, which is done hourly",
                duration(seen.now.as_second() - since.0.as_second())
            ),
            again,
        ));
    }
}

fn said(done: &Housekeeping) -> String {
    match &done.message {
        Some(message) => format!(": {message}"),
        None => String::new(),
    }
}

/// Rights that the last restore should have given up.
fn rights(seen: &Seen, findings: &mut Findings) {
    let Some(binding) = &seen.binding else {
        return;
    };
    let here = binding.subjects.iter().flatten();
    let mut here = here.filter(|one| one.namespace.as_ref() == Some(&seen.namespace));
    let needs = |operation: &str| ["restore", PLAN_OPERATION].contains(&operation);
    let in_use = seen.jobs.iter().any(|job| {
        let labels = job.metadata.labels.as_ref();
        let operation = labels.and_then(|labels| labels.get(OPERATION_LABEL));
        !wait::is_over(job, seen.pods.as_deref().unwrap_or_default())
            && operation.is_some_and(|operation| needs(operation))
    });
    let made = binding.metadata.creation_timestamp.as_ref();
    let settled = made.is_none_or(|made| is_before(made.0, SETTLED_AFTER, seen.now));
    if here.next().is_some() && !in_use && settled {
        let name = restore_binding(&seen.namespace);
        let age = made.map(|made| format!(" for {}", age(made.0, seen.now)));
        findings.attention.push(Item::new(
            Reason::RestoreRightsLeft,
            format!("clusterrolebinding/{name}"),
            format!(
                "restores have had cluster-admin{}, and none is running",
                age.unwrap_or_default()
            ),
            format!("kubectl delete clusterrolebinding {name}"),
        ));
    }
}

/// Whether `at` is longer ago than that.
pub fn is_before(at: Timestamp, within: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(at) > within
}
