//! `backup create` and `restore create`: one Job (of a restore, then its rights), printed or created, and followed.

use crate::Surroundings;
use crate::cli::CreateFormat;
use crate::manifest;
use crate::manifest::Manifest;
use crate::options::{CreateOptions, wait_for_rights};
use crate::pod_template::Installation;
use crate::records::{self, End, Record, ended};
use crate::wait::{self, Followed};
use crate::{client, location, render};
use ark_job::api::namespace_flag;
use ark_job::api::{
    Backup, BackupPhase, BackupStorageLocation, BackupStorageLocationSpec, CONFIG_NAME, Restore,
};
use ark_job::args::{Args, Command, IfExists, NO_HOOKS, StorageFlags};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::hooks::HookSpecs;
use ark_job::modifiers::Modifiers;
use ark_job::volumes::policy;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplate};
use kube::Client;
use kube::api::{Api, DeleteParams, Preconditions};

/// The objects of an operation, in the order in which they are created.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The Job.
    pub job: Manifest,
    /// The rights of a restore, unless it has them already.
    pub binding: Option<Manifest>,
}

/// Renders what `options` ask for.
///
/// # Errors
/// When the pod could not work.
pub fn plan(
    mut options: CreateOptions,
    installation: &Installation,
    location: Option<&BackupStorageLocationSpec>,
    hooks: Option<&HookSpecs>,
) -> Result<Plan, Failure> {
    let on_demand =
        matches!(options.args.command, Command::Restore(_)) && !installation.standing_rights;
    if on_demand {
        wait_for_rights(&mut options.args);
    }
    let job = render::job(&options.args, installation, location, hooks, &options.job)?;
    Ok(Plan {
        job: Manifest::of(&job),
        binding: on_demand.then(|| render::restore_binding(&options.args)),
    })
}

/// Prints or creates the objects, and follows the Job if asked to.
pub async fn run(
    client: &Client,
    options: CreateOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let namespace = options.args.namespace.clone();
    let storage = options.args.command.storage();
    let (installation, location) = read(client, &namespace, storage).await?;
    if crate::mode::writes(&options.args.command) && !options.dry_run {
        crate::mode::refuse_unless_writable(client, &namespace, Some(storage)).await?;
    }
    let hooks = read_hooks(client, &options.args).await?;
    check_config_maps(client, &options.args).await?;
    let plan = plan(
        options.clone(),
        &installation,
        location.as_ref(),
        hooks.as_ref(),
    )?;
    let objects: Vec<Manifest> = std::iter::once(plan.job.clone())
        .chain(plan.binding.clone())
        .collect();
    if options.dry_run {
        manifest::print(&objects, options.output, " (dry run)");
        return Ok(Exit::Done);
    }
    let word = render::operation(&options.args.command);
    let name = render::subject(&options.args.command);
    let job = plan.job.name().to_owned();
    let done_before = done_before(client, &options).await;
    let uid = match create(client, &options, &plan).await? {
        Outcome::Created(uid) => {
            manifest::print(&objects, options.output, "");
            uid
        }
        Outcome::Kept(uid) => {
            match options.output {
                None => println!("{} unchanged", plan.job.reference()),
                format => manifest::print(&objects, format, ""),
            }
            uid
        }
    };
    let flag = namespace_flag(&namespace);
    if done_before.is_some() && !options.wait {
        eprintln!("warning: restore {name} has completed before: it is not done again");
        eprintln!("hint: {}", wait::AGAIN);
    }
    if !options.wait {
        if options.output != Some(CreateFormat::Name) {
            eprintln!(
                "next: kubectl ark {word} describe {name}{flag}, or kubectl ark {word} logs {name} -f{flag}"
            );
        }
        return Ok(Exit::Done);
    }
    let followed = Followed {
        namespace: &namespace,
        name: &name,
        job: &job,
        uid: &uid,
        done_before: done_before.as_deref(),
    };
    match options.args.command {
        Command::Backup(_) => {
            wait::follow::<Backup>(client, &followed, surroundings.terminal, interrupt).await
        }
        Command::Restore(_) => {
            wait::follow::<Restore>(client, &followed, surroundings.terminal, interrupt).await
        }
        // There is no record to follow: whoever starts one reads from it, or see crate::housekeeping.
        Command::Fetch(_)
        | Command::Diff(_)
        | Command::Show(_)
        | Command::List(_)
        | Command::Delete(_)
        | Command::Undelete(_)
        | Command::DeleteRestore(_)
        | Command::Expire(_)
        | Command::Sync(_)
        | Command::Doctor(_)
        | Command::Volumes(_) => Ok(Exit::Done),
    }
}

/// The version of the record of a restore that has ended well under this name, and for which the same was asked: the Job will
/// do nothing. Best effort: `ark-job` decides.
async fn done_before(client: &Client, options: &CreateOptions) -> Option<String> {
    let Command::Restore(restore) = &options.args.command else {
        return None;
    };
    if restore.restore.again {
        return None;
    }
    let records: Api<Restore> = Api::namespaced(client.clone(), &options.args.namespace);
    let record = records.get_opt(restore.name.as_deref()?).await.ok()??;
    let asked = ark_job::restore::Options::resolve(restore).ok()?;
    (record.end() == Some(Exit::Done) && record.spec == *asked.spec())
        .then_some(record.metadata.resource_version)
        .flatten()
}

/// The pod settings, and the location if the operation names one.
pub async fn read(
    client: &Client,
    namespace: &str,
    storage: &StorageFlags,
) -> Result<(Installation, Option<BackupStorageLocationSpec>), Failure> {
    let templates: Api<PodTemplate> = Api::namespaced(client.clone(), namespace);
    let (template, location) = futures::join!(
        templates.get(CONFIG_NAME),
        read_location(client, namespace, storage)
    );
    let template = match template {
        Ok(template) => template,
        Err(error) if client::is_not_found(&error) => {
            let what = format!("there is no PodTemplate {CONFIG_NAME} in namespace {namespace}");
            return Err(client::not_here(client, namespace, &what).await);
        }
        Err(error) => {
            let doing = format!("reading PodTemplate {CONFIG_NAME} in namespace {namespace}");
            return Err(client::failure(&error, &doing));
        }
    };
    Ok((Installation::of(&template)?, location?))
}

/// The location, if the operation names one.
pub async fn read_location(
    client: &Client,
    namespace: &str,
    storage: &StorageFlags,
) -> Result<Option<BackupStorageLocationSpec>, Failure> {
    let Some(name) = &storage.location else {
        return Ok(None);
    };
    let locations: Api<BackupStorageLocation> = Api::namespaced(client.clone(), namespace);
    match locations.get(name).await {
        Ok(location) => Ok(Some(location.spec)),
        Err(error) if client::is_not_found(&error) => {
            let there = location::list(client, namespace, None).await;
            Err(location::not_there(
                name,
                namespace,
                &there.unwrap_or_default(),
            ))
        }
        Err(error) => {
            let doing = format!("reading BackupStorageLocation {name} in namespace {namespace}");
            Err(client::failure(&error, &doing))
        }
    }
}

/// The hooks of the ConfigMap that a backup names: a mistake in them is told here, and the pod is given time to thaw.
pub async fn read_hooks(client: &Client, args: &Args) -> Result<Option<HookSpecs>, Failure> {
    let namespace = &args.namespace;
    let name = match &args.command {
        Command::Backup(backup) => backup.backup.hooks.as_deref(),
        _ => None,
    };
    let Some(name) = name.filter(|name| *name != NO_HOOKS) else {
        return Ok(None);
    };
    let map = config_map(client, namespace, name)
        .await
        .map_err(|error| unreadable(&error, namespace, name, &HOOKS))?;
    ark_job::backup::parse_hooks(&map, name).map(Some)
}

/// Checks the ConfigMaps that a backup or restore names: a mistake in them is told here, before there is a Job.
pub async fn check_config_maps(client: &Client, args: &Args) -> Result<(), Failure> {
    let namespace = &args.namespace;
    let restore = match &args.command {
        Command::Restore(restore) => restore,
        Command::Backup(backup) => {
            if let Some(name) = &backup.backup.resource_policies_configmap
                && let Some(map) = readable(client, namespace, name, &POLICIES).await?
            {
                policy::of_config_map(&map, name)?;
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    let flags = &restore.restore;
    let hooks = flags.hooks.as_deref().filter(|name| *name != NO_HOOKS);
    if let Some(name) = hooks
        && let Some(map) = readable(client, namespace, name, &HOOKS).await?
    {
        ark_job::restore::hooks::parse(&map, name)?;
    }
    if let Some(name) = &flags.resource_modifier_configmap
        && let Some(map) = readable(client, namespace, name, &MODIFIERS).await?
    {
        Modifiers::parse(name, &map.data.unwrap_or_default())
            .map_err(|error| Failure::from_error(Exit::Usage, &error))?;
    }
    Ok(())
}

/// What a ConfigMap is for.
struct Purpose {
    content: &'static str,
    /// The flag of `kubectl create configmap`.
    from_file: &'static str,
}

const HOOKS: Purpose = Purpose {
    content: "hooks",
    from_file: "hooks.yaml=FILE",
};
const POLICIES: Purpose = Purpose {
    content: "resource policies",
    from_file: "FILE",
};
const MODIFIERS: Purpose = Purpose {
    content: "resource modifiers",
    from_file: "FILE",
};

/// The ConfigMap, unless one may not read it: then the Job alone checks it.
async fn readable(
    client: &Client,
    namespace: &str,
    name: &str,
    purpose: &Purpose,
) -> Result<Option<ConfigMap>, Failure> {
    match config_map(client, namespace, name).await {
        Ok(map) => Ok(Some(map)),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => Err(unreadable(&error, namespace, name, purpose)),
    }
}

async fn config_map(client: &Client, namespace: &str, name: &str) -> kube::Result<ConfigMap> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    maps.get(name).await
}

fn unreadable(error: &kube::Error, namespace: &str, name: &str, purpose: &Purpose) -> Failure {
    let Purpose { content, from_file } = purpose;
    if client::is_not_found(error) {
        Failure::new(
            Exit::NotFound,
            format!("there is no ConfigMap {name} with {content} in namespace {namespace}"),
        )
        .hint(format!(
            "`kubectl create configmap {name} -n {namespace} --from-file {from_file}` makes one"
        ))
    } else {
        let doing = format!("reading {content} from ConfigMap {name} in namespace {namespace}");
        client::failure(error, &doing)
    }
}

/// The Job of an operation, by its UID.
enum Outcome {
    /// It is new.
    Created(String),
    /// It was there, as asked for.
    Kept(String),
}

/// Creates the Job, then writes the rights.
async fn create(client: &Client, options: &CreateOptions, plan: &Plan) -> Result<Outcome, Failure> {
    let doing = |object: &Manifest| format!("creating {}", object.reference());
    if !keeps(&options.args.command) {
        refuse_taken_name(client, options).await?;
    }
    // Whoever may not give the rights learns it before a Job waits for them in vain.
    if let Some(binding) = &plan.binding {
        bind(client, binding, true).await?;
    }
    let created = match plan.job.create(client).await {
        Ok(created) => created.metadata.uid.unwrap_or_default(),
        Err(error) if client::is_already_exists(&error) => {
            return taken(client, options, plan.job.name()).await;
        }
        Err(error) => return Err(client::failure(&error, &doing(&plan.job))),
    };
    if let Some(binding) = &plan.binding
        && let Err(failure) = bind(client, binding, false).await
    {
        withdraw(client, &options.args.namespace, plan.job.name(), &created).await;
        return Err(failure);
    }
    Ok(Outcome::Created(created))
}

/// Writes the rights of a restore, or only tries whether one may.
///
/// # Errors
/// When one may not, or the cluster does not answer.
pub async fn bind(client: &Client, binding: &Manifest, dry_run: bool) -> Result<(), Failure> {
    let applied = binding.apply(client, true, dry_run).await;
    applied
        .map(drop)
        .map_err(|error| no_rights(&error, binding))
}

fn no_rights(error: &kube::Error, binding: &Manifest) -> Failure {
    let forbidden = matches!(error, kube::Error::Api(status) if status.code == 403);
    let failure = client::failure(
        error,
        &format!("giving the restore its rights ({})", binding.reference()),
    );
    if forbidden {
        failure.hint(
            "a restore needs cluster-admin, and only a cluster-admin can give it; an administrator may do so for good \
             with `kubectl ark install --restore-rights standing`",
        )
    } else {
        failure
    }
}

/// Deletes a Job that would wait in vain. Best effort: it also ends by itself.
async fn withdraw(client: &Client, namespace: &str, job: &str, uid: &str) {
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let params = DeleteParams::background().preconditions(Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    });
    let _ends_by_itself = jobs.delete(job, &params).await;
}

fn keeps(command: &Command) -> bool {
    match command {
        Command::Backup(backup) => backup.backup.if_exists == IfExists::Keep,
        // A restore that has ended well with the same request exits at once, says ark-job.
        _ => true,
    }
}

/// Says at once what `ark-job` would say after its pod has started. Storage decides; this only saves time.
async fn refuse_taken_name(client: &Client, options: &CreateOptions) -> Result<(), Failure> {
    let name = render::subject(&options.args.command);
    let records: Api<Backup> = Api::namespaced(client.clone(), &options.args.namespace);
    match records.get_opt(&name).await {
        Ok(Some(backup)) if records::phase(&backup) == BackupPhase::Deleting => Err(Failure::new(
            Exit::Conflict,
            format!("backup {name} is being deleted, and its name is not free before all of it is gone"),
        )
        .hint(format!(
            "choose another name; `kubectl ark backup delete {name}` goes on with the deletion, `kubectl ark backup undelete \
             {name}` takes it back"
        ))),
        Ok(Some(backup)) if backup.end() != Some(Exit::Failed) => Err(Failure::new(
            Exit::Conflict,
            format!("there is a backup {name} already"),
        )
        .hint(match &backup.spec.storage_location {
            Some(_) => "choose another name, or keep the one that is there with --if-exists keep".to_owned(),
            // It is no backup that a Job could keep, and perhaps nobody but one person has it.
            None => format!(
                "it was made with --local or --storage{}: choose another name; `kubectl ark backup delete {name} --local` (or \
                 --storage URL) where it was made deletes it; `kubectl delete backups.ark.heptio.com {name} -n {}` gives the name \
                 free, and leaves its files",
                records::place(&backup).map_or(String::new(), |url| format!(" ({url})")),
                options.args.namespace
            ),
        })),
        _ => Ok(()),
    }
}

/// There is a Job of that name: the same one, when what is there shall be kept, else the name is taken.
async fn taken(client: &Client, options: &CreateOptions, job: &str) -> Result<Outcome, Failure> {
    let namespace = &options.args.namespace;
    let word = render::operation(&options.args.command);
    let name = render::subject(&options.args.command);
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let existing = jobs
        .get(job)
        .await
        .map_err(|error| client::failure(&error, &format!("reading job.batch/{job}")))?;
    let failed = matches!(ended(&existing), Some(End::Failed { .. }));
    let keep = matches!(&options.args.command, Command::Backup(backup) if backup.backup.if_exists == IfExists::Keep);
    if keep && !failed {
        return Ok(Outcome::Kept(existing.metadata.uid.unwrap_or_default()));
    }
    let state = match ended(&existing) {
        Some(End::Complete) => "has completed",
        Some(End::Failed { .. }) => "has failed",
        None => "is under way",
    };
    let failure = Failure::new(
        Exit::Conflict,
        format!("the name {name} is taken: job.batch/{job} in namespace {namespace} {state}"),
    );
    Err(if failed {
        failure.hint(format!(
            "`kubectl delete job {job} -n {namespace}` frees the name; `kubectl ark {word} logs {name}{}` shows why it failed",
            namespace_flag(namespace)
        ))
    } else {
        failure.hint("choose another name")
    })
}
