//! `schedule create` and `schedule run`: a CronJob, and Jobs that are made at once.

use super::{api, find, of_cron_job, reference};
use crate::manifest;
use crate::manifest::Manifest;
use crate::options::schedule::{CreateOptions, RunOptions};
use crate::pod_template::{CONTAINER, Installation};
use crate::wait::{self, Followed};
use crate::{Surroundings, client, create, cron_job, mode, names, records, render};
use ark_job::api::namespace_flag;
use ark_job::api::{BACKUP_LABEL, Backup, BackupStorageLocationSpec};
use ark_job::args::Command;
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::hooks::HookSpecs;
use ark_job::identity::label_value;
use jiff::{SignedDuration, Timestamp, Zoned};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;

/// The objects of a schedule, in the order in which they are created.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The schedule.
    pub cron_job: Manifest,
    /// The first backup, unless it is paused.
    pub first: Option<Manifest>,
}

/// Renders what `options` ask for.
///
/// # Errors
/// When the pods could not work.
pub fn plan(
    options: &CreateOptions,
    installation: &Installation,
    location: Option<&BackupStorageLocationSpec>,
    hooks: Option<&HookSpecs>,
) -> Result<Plan, Failure> {
    let job = |args| render::job(args, installation, location, hooks, &options.job);
    let repeated = cron_job::cron_job(&options.name, job(&options.repeated)?, &options.timing);
    let first = match options.timing.suspend {
        true => None,
        false => Some(Manifest::of(&job(&options.first)?)),
    };
    Ok(Plan {
        cron_job: Manifest::of(&repeated),
        first,
    })
}

/// Prints or creates the objects, and follows the first backup if asked to.
pub async fn run(
    client: &Client,
    options: CreateOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let namespace = &options.repeated.namespace;
    let name = &options.name;
    let storage = options.repeated.command.storage();
    let (installation, location) = create::read(client, namespace, storage).await?;
    let hooks = create::read_hooks(client, &options.repeated).await?;
    create::check_config_maps(client, &options.repeated).await?;
    let plan = plan(&options, &installation, location.as_ref(), hooks.as_ref())?;
    let mut objects = vec![plan.cron_job.clone()];
    if options.dry_run {
        objects.extend(plan.first);
        manifest::print(&objects, options.output, " (dry run)");
        return Ok(Exit::Done);
    }
    mode::refuse_unless_writable(client, namespace, Some(storage)).await?;
    if let Err(error) = plan.cron_job.create(client).await {
        return Err(match client::is_already_exists(&error) {
            true => taken(client, namespace, name).await,
            false => client::failure(&error, &format!("creating {}", plan.cron_job.reference())),
        });
    }
    let first = match &plan.first {
        Some(first) => Some(first.create(client).await.map_err(|error| {
            manifest::print(&objects, options.output, "");
            let why = client::failure(&error, &format!("creating {}", first.reference()));
            Failure::new(
                why.exit(),
                format!(
                    "schedule {name} is there, but its first backup was not begun: {}",
                    why.message()
                ),
            )
            .hint(format!(
                "`kubectl ark schedule run {name}{}` makes one now; the next is made {}",
                namespace_flag(namespace),
                options.next.first().map_or("in time".to_owned(), moment),
            ))
        })?),
        None => None,
    };
    objects.extend(plan.first.clone());
    manifest::print(&objects, options.output, "");
    eprintln!("{}", next(&options));
    let (Some(first), Some(job), true) = (first, &plan.first, options.wait) else {
        return Ok(Exit::Done);
    };
    let followed = Followed {
        namespace,
        name: &options.first_backup(),
        job: job.name(),
        uid: &first.metadata.uid.unwrap_or_default(),
        done_before: None,
    };
    wait::follow::<Backup>(client, &followed, surroundings.terminal, interrupt).await
}

/// What comes next, for a person.
fn next(options: &CreateOptions) -> String {
    let CreateOptions { name, timing, .. } = options;
    let flag = namespace_flag(&options.repeated.namespace);
    if timing.suspend {
        return format!("next: it is paused: `kubectl ark schedule unpause {name}{flag}` begins");
    }
    let times: Vec<String> = options.next.iter().map(moment).collect();
    let zone = match &timing.time_zone {
        Some(_) => "",
        None => " (if the cluster's controller manager is in UTC: --time-zone would say so)",
    };
    format!("next: {}{zone}", times.join(", "))
}

/// A time with its zone.
pub fn moment(at: &Zoned) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// Why a schedule cannot have the name.
async fn taken(client: &Client, namespace: &str, name: &str) -> Failure {
    let flag = namespace_flag(namespace);
    let there = api(client, namespace).get_opt(name).await;
    match there {
        Ok(Some(cron_job)) if of_cron_job(&cron_job).is_none() => Failure::new(
            Exit::Conflict,
            format!("the name {name} is taken: {} in namespace {namespace} is no schedule", reference(&cron_job)),
        )
        .hint("choose another name"),
        _ => Failure::new(
            Exit::Conflict,
            format!("there is a schedule {name} already in namespace {namespace}"),
        )
        .hint(format!(
            "choose another name; `kubectl ark schedule describe {name}{flag}` shows it, `kubectl ark schedule delete \
             {name}{flag}` deletes it and keeps its backups"
        )),
    }
}

/// How many seconds further a backup is put whose second is taken.
const SECONDS_FURTHER: i64 = 5;

/// `schedule run`: a backup of each of the schedules, for this second.
pub async fn run_now(
    client: &Client,
    options: &RunOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let RunOptions {
        namespace,
        names,
        wait,
        output,
    } = options;
    let mut wanted = Vec::new();
    for name in names {
        let cron_job = find(client, namespace, name).await?;
        check_place(client, namespace, &cron_job).await?;
        wanted_now(&cron_job, surroundings.now)?;
        wanted.push(cron_job);
    }
    let mut created = Vec::new();
    for cron_job in &wanted {
        match create_now(client, cron_job, surroundings.now).await {
            Ok(one) => created.push(one),
            Err(failure) => {
                let begun: Vec<Manifest> = created.iter().map(|(_, job, _)| job).cloned().collect();
                if !begun.is_empty() {
                    manifest::print(&begun, *output, "");
                }
                return Err(failure);
            }
        }
    }
    let begun: Vec<Manifest> = created.iter().map(|(_, job, _)| job).cloned().collect();
    manifest::print(&begun, *output, "");
    if !wait {
        let flag = namespace_flag(namespace);
        for (backup, ..) in &created {
            eprintln!(
                "next: kubectl ark backup describe {backup}{flag}, or kubectl ark backup logs {backup} -f{flag}"
            );
        }
        return Ok(Exit::Done);
    }
    let followed: Vec<Followed<'_>> = created
        .iter()
        .map(|(name, job, uid)| Followed {
            namespace,
            name,
            job: job.name(),
            uid,
            done_before: None,
        })
        .collect();
    wait::follow_all::<Backup>(client, &followed, surroundings.terminal, interrupt).await
}

/// The backup that a schedule makes of a second, and its Job.
fn wanted_now(cron_job: &CronJob, at: Timestamp) -> Result<(String, Job), Failure> {
    job_now(cron_job, at).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            format!("{} does not say what to back up: its container {CONTAINER} has no arguments of a schedule's", reference(cron_job)),
        )
        .hint(format!(
            "render it again: `kubectl ark schedule create {} … --dry-run=client -o yaml`",
            super::name(cron_job)
        ))
    })
}

/// Creates the Job of a backup for this second, or for one of the next: another may have been made this second, as the first of
/// a new schedule. Gives the backup's name, the Job and its UID.
async fn create_now(
    client: &Client,
    cron_job: &CronJob,
    now: Timestamp,
) -> Result<(String, Manifest, String), Failure> {
    let mut later = 0;
    loop {
        let at = now
            .checked_add(SignedDuration::from_secs(later))
            .unwrap_or(now);
        let (backup, job) = wanted_now(cron_job, at)?;
        let manifest = Manifest::of(&job);
        match manifest.create(client).await {
            Ok(made) => return Ok((backup, manifest, made.metadata.uid.unwrap_or_default())),
            Err(error) if client::is_already_exists(&error) && later < SECONDS_FURTHER => {
                later += 1
            }
            Err(error) => return Err(not_created(&error, &manifest)),
        }
    }
}

fn not_created(error: &kube::Error, manifest: &Manifest) -> Failure {
    if client::is_already_exists(error) {
        let why = format!(
            "{} is there already: a backup of this second",
            manifest.reference()
        );
        return Failure::new(Exit::Conflict, why).hint("try again");
    }
    client::failure(error, &format!("creating {}", manifest.reference()))
}

/// Refuses what would make backups that cannot be written: as when the schedule was made, its location must be there, and
/// nothing may be restore-only.
///
/// # Errors
/// [`Exit::NotFound`] or [`Exit::Refused`], as `ark-job` would end.
pub async fn check_place(
    client: &Client,
    namespace: &str,
    cron_job: &CronJob,
) -> Result<(), Failure> {
    let template = cron_job
        .spec
        .as_ref()
        .and_then(|spec| spec.job_template.spec.as_ref());
    let args = template.and_then(|job| records::args(&job.template));
    let storage = args.as_ref().map(|args| args.command.storage());
    mode::refuse_unless_writable(client, namespace, storage).await?;
    match storage {
        Some(storage) => create::read(client, namespace, storage).await.map(drop),
        None => Ok(()),
    }
}

/// The name of a backup that a CronJob makes for `now`, to the second, and its Job; `None` if it makes none.
pub fn job_now(cron_job: &CronJob, now: Timestamp) -> Option<(String, Job)> {
    let template = &cron_job.spec.as_ref()?.job_template;
    let mut spec = template.spec.clone()?;
    let mut args = records::args(&spec.template)?;
    let Command::Backup(backup) = &mut args.command else {
        return None;
    };
    backup.tick.schedule.as_ref()?;
    backup.tick.scheduled = Some(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let name = backup.known_name()?;
    let pod = &mut spec.template;
    for container in &mut pod.spec.as_mut()?.containers {
        if container.name == CONTAINER {
            container.args = Some(args.to_argv());
        }
    }
    let label = (BACKUP_LABEL.to_owned(), label_value(&name));
    let labels = &mut pod.metadata.get_or_insert_default().labels;
    labels.get_or_insert_default().extend([label.clone()]);
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut labels = metadata.labels.unwrap_or_default();
    labels.extend([label]);
    let job = Job {
        metadata: ObjectMeta {
            name: Some(names::job("backup", &name)),
            namespace: cron_job.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: metadata.annotations,
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    };
    Some((name, job))
}
