//! `restore-only`: switches the mode of the installation, and suspends what would write in it.
//!
//! The mode is what forbids; suspending only keeps Jobs from being made that would be refused. So the mode is switched on
//! first, and off first, too. What is suspended is marked in the same write, and exactly what is marked is resumed: every
//! step may be cut off and done again. A backup that runs is left alone: it is refused before its marker.

use crate::Surroundings;
use crate::cli::ClusterFlags;
use crate::client;
use crate::hourly::{EXPIRE, is_marked, is_suspended, operation};
use crate::manifest::{FIELD_MANAGER, Manifest};
use crate::options::PrintOptions;
use crate::options::restore_only::{Options, Wanted};
use crate::printed;
use crate::rights;
use crate::wait;
use ark_job::api::namespace_flag;
use ark_job::api::{
    AccessMode, BackupStorageLocation, CONFIG_NAME, MODE_KEY, NORMAL, OPERATION_LABEL,
    RESTORE_ONLY, RESTORE_ONLY_SUSPENDED, SCHEDULE_LABEL, SUSPENDED_BY_ANNOTATION,
};
use ark_job::args::{Args, Command};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::mode::refuse_by;
use clap::Parser;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::pin::Pin;

/// Somebody else changes the same object at the same time: not for ever.
const ATTEMPTS: usize = 10;

/// Does it.
pub async fn run(
    cluster: &ClusterFlags,
    options: &Options,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let connection = client::connect(cluster).await?;
    let (client, namespace) = (&connection.kube, options.namespace.as_str());
    match options.wanted {
        Wanted::On => on(client, namespace).await?,
        Wanted::Off { resume_expiry } => {
            let waiting = off(client, namespace, resume_expiry).await?;
            if !waiting.is_empty() {
                let interrupt = std::pin::pin!(interrupt);
                show_plans(cluster, namespace, &waiting, surroundings, interrupt).await?;
            }
        }
        Wanted::Status => print!("{}", status(client, namespace).await?),
    }
    Ok(Exit::Done)
}

/// Switches the mode on, and suspends schedules and expiry.
///
/// # Errors
/// When the mode cannot be written, or not all can be suspended; doing it again goes on.
pub async fn on(client: &Client, namespace: &str) -> Result<(), Failure> {
    set_mode(client, namespace, RESTORE_ONLY).await?;
    println!("configmap/{CONFIG_NAME}: restore-only mode is on");
    for cron_job in cron_jobs(client, namespace).await? {
        match change(client, cron_job, suspension).await? {
            Changed::To(Step::Suspend, cron_job) => println!("{} suspended", reference(&cron_job)),
            Changed::No(cron_job) if stops(&cron_job) && !is_marked(&cron_job) => {
                println!("{} was suspended before: it stays so", reference(&cron_job));
            }
            _ => {}
        }
    }
    for job in running(client, namespace).await? {
        eprintln!("warning: job.batch/{job} is running: it will be refused before it is complete");
    }
    Ok(())
}

/// Switches the mode off, and resumes what it has suspended; of expiry only if that is asked for. Returns the CronJobs of
/// expiry that stay suspended.
async fn off(
    client: &Client,
    namespace: &str,
    resume_expiry: bool,
) -> Result<Vec<CronJob>, Failure> {
    set_mode(client, namespace, NORMAL).await?;
    println!("configmap/{CONFIG_NAME}: restore-only mode is off");
    let mut waiting = Vec::new();
    for cron_job in cron_jobs(client, namespace).await? {
        let decide = |cron_job: &CronJob| resumption(cron_job, resume_expiry);
        match change(client, cron_job, decide).await? {
            Changed::To(Step::Resume, cron_job) => println!("{} resumed", reference(&cron_job)),
            Changed::No(cron_job) if is_suspended(&cron_job) && stops(&cron_job) => {
                println!("{} stays suspended", reference(&cron_job));
                if is_marked(&cron_job) {
                    waiting.push(cron_job);
                }
            }
            _ => {}
        }
    }
    Ok(waiting)
}

/// What to do with a CronJob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is suspended, and marked.
    Suspend,
    /// It is resumed, and no longer marked.
    Resume,
    /// It is no longer marked: somebody has resumed it.
    Forget,
}

/// Whether the mode stops what a CronJob does.
fn stops(cron_job: &CronJob) -> bool {
    is_schedule(cron_job) || operation(cron_job) == Some(EXPIRE)
}

fn is_schedule(cron_job: &CronJob) -> bool {
    let labels = cron_job.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(SCHEDULE_LABEL))
}

/// What switching on does with a CronJob. One that is suspended already stays as it is: with its mark, if it has one.
fn suspension(cron_job: &CronJob) -> Option<Step> {
    (stops(cron_job) && !is_suspended(cron_job)).then_some(Step::Suspend)
}

/// What switching off does with a CronJob.
fn resumption(cron_job: &CronJob, resume_expiry: bool) -> Option<Step> {
    if !is_marked(cron_job) || !stops(cron_job) {
        return None;
    }
    match is_suspended(cron_job) {
        false => Some(Step::Forget),
        true => (is_schedule(cron_job) || resume_expiry).then_some(Step::Resume),
    }
}

impl Step {
    /// The whole step is one write: it is done or not.
    fn patch(self, cron_job: &CronJob) -> Value {
        let (mark, suspend) = match self {
            Step::Suspend => (Some(RESTORE_ONLY_SUSPENDED), true),
            Step::Resume | Step::Forget => (None, false),
        };
        json!({
            "metadata": {
                // What was decided is true of this version only.
                "resourceVersion": cron_job.metadata.resource_version,
                "annotations": {SUSPENDED_BY_ANNOTATION: mark},
            },
            "spec": {"suspend": suspend},
        })
    }
}

/// What became of a CronJob.
enum Changed {
    /// This was done.
    To(Step, CronJob),
    /// Nothing had to be done.
    No(CronJob),
    /// It has been deleted.
    Gone,
}

/// Decides and does; decides anew when somebody else has changed the CronJob.
async fn change(
    client: &Client,
    mut cron_job: CronJob,
    decide: impl Fn(&CronJob) -> Option<Step>,
) -> Result<Changed, Failure> {
    let name = cron_job.metadata.name.clone().unwrap_or_default();
    let namespace = cron_job.metadata.namespace.clone().unwrap_or_default();
    let api: Api<CronJob> = Api::namespaced(client.clone(), &namespace);
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let doing = format!("changing cronjob.batch/{name} in namespace {namespace}");
    for _ in 0..ATTEMPTS {
        let Some(step) = decide(&cron_job) else {
            return Ok(Changed::No(cron_job));
        };
        let patch = Patch::Merge(step.patch(&cron_job));
        match api.patch(&name, &params, &patch).await {
            Ok(changed) => return Ok(Changed::To(step, changed)),
            Err(error) if client::is_not_found(&error) => return Ok(Changed::Gone),
            Err(error) if client::is_conflict(&error) => {}
            Err(error) => return Err(client::failure(&error, &doing)),
        }
        match api.get_opt(&name).await {
            Ok(Some(changed)) => cron_job = changed,
            Ok(None) => return Ok(Changed::Gone),
            Err(error) => return Err(client::failure(&error, &doing)),
        }
    }
    Err(contended(&doing))
}

fn contended(doing: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("{doing}: somebody else changes it all the time"),
    )
    .hint("the same command again goes on")
}

/// Writes the mode into ConfigMap `ark`, which keeps what else it says.
async fn set_mode(client: &Client, namespace: &str, mode: &str) -> Result<(), Failure> {
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let doing = format!("writing the mode into ConfigMap {CONFIG_NAME} in namespace {namespace}");
    for _ in 0..ATTEMPTS {
        let existing = configs
            .get_opt(CONFIG_NAME)
            .await
            .map_err(|error| client::failure(&error, &doing))?;
        let mut data = existing
            .as_ref()
            .and_then(|config| config.data.clone())
            .unwrap_or_default();
        if data.insert(MODE_KEY.into(), mode.into()).as_deref() == Some(mode) {
            return Ok(());
        }
        // As `install` applies it: one owner of all of it, or the next `install` would meet a conflict with ourselves.
        let config = Manifest::of(&ConfigMap {
            metadata: ObjectMeta {
                name: Some(CONFIG_NAME.into()),
                namespace: Some(namespace.into()),
                labels: Some(rights::labels()),
                resource_version: existing.and_then(|config| config.metadata.resource_version),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        });
        match config.apply(client, true, false).await {
            Ok(_) => return Ok(()),
            Err(error) if client::is_not_found(&error) => {
                return Err(client::not_installed(&format!(
                    "there is no namespace {namespace}"
                )));
            }
            Err(error) if client::is_conflict(&error) => {}
            Err(error) => return Err(client::failure(&error, &doing)),
        }
    }
    Err(contended(&doing))
}

async fn cron_jobs(client: &Client, namespace: &str) -> Result<Vec<CronJob>, Failure> {
    let api: Api<CronJob> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default()).await;
    let doing = format!("listing the CronJobs in namespace {namespace}");
    Ok(list.map_err(|error| client::failure(&error, &doing))?.items)
}

fn reference(cron_job: &CronJob) -> String {
    let name = cron_job.metadata.name.as_deref().unwrap_or_default();
    format!("cronjob.batch/{name}")
}

/// The Jobs under way that the mode does not stop at once.
async fn running(client: &Client, namespace: &str) -> Result<Vec<String>, Failure> {
    let api: Api<Job> = Api::namespaced(client.clone(), namespace);
    let writers = ListParams::default().labels(&format!(
        "{OPERATION_LABEL} in (backup,delete,undelete,expire)"
    ));
    let jobs = api.list(&writers).await;
    let doing = format!("listing the Jobs in namespace {namespace}");
    let jobs = jobs.map_err(|error| client::failure(&error, &doing))?.items;
    Ok(wait::at_work(client, namespace, jobs)
        .await
        .into_iter()
        .filter_map(|job| job.metadata.name)
        .collect())
}

/// Prints what the suspended expiry would delete, and how it is resumed.
async fn show_plans(
    cluster: &ClusterFlags,
    namespace: &str,
    waiting: &[CronJob],
    surroundings: &Surroundings,
    mut interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), Failure> {
    let flag = namespace_flag(namespace);
    for cron_job in waiting {
        let Some(args) = planned(cron_job) else {
            eprintln!(
                "warning: {} has no arguments of ark-job expire",
                reference(cron_job)
            );
            continue;
        };
        let location = args.command.storage().location.clone().unwrap_or_default();
        println!("\nwhat would expire in location {location}:");
        let options = PrintOptions {
            args,
            schedule: None,
            placed: true,
            local: false,
        };
        match printed::run(cluster, options, surroundings, interrupt.as_mut()).await {
            Ok(Exit::Interrupted) => {
                return Err(Failure::new(
                    Exit::Interrupted,
                    "interrupted: the mode is off, and expiry stays suspended",
                ));
            }
            Ok(_) => {}
            // The mode is off, which was asked for; nothing expires unseen.
            Err(failure) => {
                eprintln!("warning: {}", failure.message());
                eprintln!(
                    "hint: `kubectl ark expire --location {location} --dry-run{flag}` shows it"
                );
            }
        }
    }
    eprintln!("next: kubectl ark restore-only off --resume-expiry{flag} lets expiry go on");
    Ok(())
}

/// What the CronJob would have `ark-job` do, as a dry run.
fn planned(cron_job: &CronJob) -> Option<Args> {
    let pod = cron_job.spec.as_ref()?.job_template.spec.as_ref()?;
    let container = pod.template.spec.as_ref()?.containers.first()?;
    let argv = std::iter::once("ark-job".to_owned()).chain(container.args.clone()?);
    let mut args = Args::try_parse_from(argv).ok()?;
    // The namespace comes to the pod by its environment.
    args.namespace = cron_job.metadata.namespace.clone()?;
    match &mut args.command {
        Command::Expire(expire) => expire.dry_run = true,
        _ => return None,
    }
    Some(args)
}

/// The mode, and what follows from it.
async fn status(client: &Client, namespace: &str) -> Result<String, Failure> {
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let locations: Api<BackupStorageLocation> = Api::namespaced(client.clone(), namespace);
    let config = configs.get_opt(CONFIG_NAME).await.map_err(|error| {
        client::failure(
            &error,
            &format!("reading ConfigMap {CONFIG_NAME} in namespace {namespace}"),
        )
    })?;
    let locations = match locations.list(&ListParams::default()).await {
        Ok(list) => list.items,
        // Not even the resource type is there.
        Err(error) if client::is_not_found(&error) => Vec::new(),
        Err(error) => {
            let doing = format!("listing the storage locations in namespace {namespace}");
            return Err(client::failure(&error, &doing));
        }
    };
    let cron_jobs = cron_jobs(client, namespace).await?;
    Ok(describe(config.as_ref(), &cron_jobs, &locations, namespace))
}

/// The CronJobs among these that would write and are suspended: by the mode, or by others.
pub fn suspended(cron_jobs: &[CronJob], by_the_mode: bool) -> Vec<String> {
    cron_jobs
        .iter()
        .filter(|one| stops(one) && is_suspended(one) && is_marked(one) == by_the_mode)
        .map(reference)
        .collect()
}

fn describe(
    config: Option<&ConfigMap>,
    cron_jobs: &[CronJob],
    locations: &[BackupStorageLocation],
    namespace: &str,
) -> String {
    let said = config
        .and_then(|config| config.data.as_ref()?.get(MODE_KEY))
        .map_or(NORMAL, String::as_str);
    let mode = match (refuse_by(config, namespace), said) {
        (Ok(()), _) => NORMAL.to_owned(),
        (Err(_), RESTORE_ONLY) => RESTORE_ONLY.to_owned(),
        (Err(_), said) => {
            format!("{RESTORE_ONLY} (ConfigMap {CONFIG_NAME} says {said:?}, which is no mode)")
        }
    };
    let listed = |found: Vec<String>| match found.is_empty() {
        true => "<none>".to_owned(),
        false => found.join(", "),
    };
    let suspended = |marked: bool| listed(suspended(cron_jobs, marked));
    let read_only = locations
        .iter()
        .filter(|location| location.spec.access_mode == AccessMode::ReadOnly)
        .filter_map(|location| location.metadata.name.clone());
    format!(
        "Mode:                 {mode}\nSuspended by it:      {}\nSuspended by others:  {}\nReadOnly locations:   {}\n",
        suspended(true),
        suspended(false),
        listed(read_only.collect()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_job::api::BackupStorageLocationSpec;

    fn cron_job(name: &str, labels: &Value, suspend: Option<bool>, by: Option<&str>) -> CronJob {
        let annotations = by.map(|by| json!({SUSPENDED_BY_ANNOTATION: by}));
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ark", "labels": labels, "annotations": annotations},
            "spec": {"schedule": "* * * * *", "suspend": suspend, "jobTemplate": {}},
        }))
        .unwrap()
    }

    fn schedule(suspend: Option<bool>, by: Option<&str>) -> CronJob {
        cron_job("nightly", &json!({SCHEDULE_LABEL: "nightly"}), suspend, by)
    }

    fn house(operation: &str, suspend: Option<bool>, by: Option<&str>) -> CronJob {
        let mut labels = json!(rights::labels());
        labels[OPERATION_LABEL] = operation.into();
        cron_job(&format!("ark-{operation}-default"), &labels, suspend, by)
    }

    const US: Option<&str> = Some(RESTORE_ONLY_SUSPENDED);

    #[test]
    fn schedules_and_expiry_are_suspended_unless_they_are_and_nothing_else() {
        for cron_job in [
            schedule(None, None),
            schedule(Some(false), None),
            // Resumed by hand while the mode was on.
            schedule(Some(false), US),
            house(EXPIRE, Some(false), None),
        ] {
            assert_eq!(suspension(&cron_job), Some(Step::Suspend), "{cron_job:?}");
        }
        for cron_job in [
            schedule(Some(true), None),
            schedule(Some(true), US),
            house(EXPIRE, Some(true), None),
            house("sync", None, None),
            cron_job("users", &json!({}), None, None),
        ] {
            assert_eq!(suspension(&cron_job), None, "{cron_job:?}");
        }
    }

    #[test]
    fn exactly_what_the_mode_has_suspended_is_resumed_and_expiry_only_when_asked() {
        let resumed = |cron_job: CronJob| [false, true].map(|expiry| resumption(&cron_job, expiry));
        assert_eq!(resumed(schedule(Some(true), US)), [Some(Step::Resume); 2]);
        assert_eq!(resumed(schedule(Some(false), US)), [Some(Step::Forget); 2]);
        assert_eq!(resumed(schedule(Some(true), None)), [None; 2]);
        assert_eq!(resumed(schedule(Some(true), Some("somebody"))), [None; 2]);
        assert_eq!(
            resumed(house(EXPIRE, Some(true), US)),
            [None, Some(Step::Resume)]
        );
        assert_eq!(resumed(house(EXPIRE, Some(true), None)), [None; 2]);
        assert_eq!(resumed(house(EXPIRE, None, US)), [Some(Step::Forget); 2]);
        assert_eq!(
            resumed(cron_job("users", &json!({}), Some(true), US)),
            [None; 2]
        );
    }

    #[test]
    fn the_status_says_what_is_suspended_and_by_whom() {
        let config: ConfigMap =
            serde_json::from_value(json!({"data": {"mode": "RestoreOnly"}})).unwrap();
        let old = BackupStorageLocation::new(
            "old",
            BackupStorageLocationSpec {
                access_mode: AccessMode::ReadOnly,
                ..BackupStorageLocationSpec::default()
            },
        );
        let cron_jobs = [
            schedule(Some(true), None),
            house(EXPIRE, Some(true), US),
            house("sync", None, None),
        ];
        assert_eq!(
            describe(Some(&config), &cron_jobs, &[old], "ark"),
            "Mode:                 RestoreOnly\n\
             Suspended by it:      cronjob.batch/ark-expire-default\n\
             Suspended by others:  cronjob.batch/nightly\n\
             ReadOnly locations:   old\n"
        );
        assert!(
            describe(None, &[], &[], "ark")
                .starts_with("Mode:                 Normal\nSuspended by it:      <none>\n")
        );
        let bad: ConfigMap = serde_json::from_value(json!({"data": {"mode": "off"}})).unwrap();
        assert!(
            describe(Some(&bad), &[], &[], "ark")
                .contains("RestoreOnly (ConfigMap ark says \"off\"")
        );
    }
}
