//! Jobs and the rights of a restore, from what was asked for. Pure: the same request gives the same objects.
//!
//! A Job is complete and readable: it can be kept in Git and applied with kubectl. Pod settings come from PodTemplate
//! `ark`; what a pod must have to work, and to be allowed in a namespace that enforces the restricted Pod Security level,
//! wins over them.

use crate::manifest::Manifest;
use crate::merge::merge;
use crate::names;
use crate::pod_template::{CONTAINER, Installation, TMP_VOLUME, restricted, tmp_volume};
use crate::rights;
use ark_job::api::{
    BACKUP_LABEL, BackupStorageLocationSpec, CREDENTIALS_KEY, OPERATION_LABEL, REQUEST_ANNOTATION,
    RESTORE_NAME_LABEL, SCHEDULE_LABEL, environment, service_account,
};
use ark_job::args::{
    Args, Command, DeleteArgs, DeleteRestoreArgs, DoctorArgs, ExpireArgs, ListArgs, NO_HOOKS,
    StorageFlags, SyncArgs, UndeleteArgs, VolumesArgs,
};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::hooks::HookSpecs;
use ark_job::identity::label_value;
use ark_job::store::Location;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Attempts after the first that a retry may cure.
const BACKOFF_LIMIT: i32 = 3;
/// Where a location's Secret is in the pod.
const CREDENTIALS_DIR: &str = "/credentials";
const CREDENTIALS_VOLUME: &str = "credentials";
/// The only directory that a pod can write to.
const TMP: &str = "/tmp";

/// What Kubernetes gives a pod to end, seconds: enough to say that the run was interrupted.
const GRACE: u64 = 30;
/// What is added for post hooks of annotations, seconds: nobody knows them when a Job is rendered. It is enough for two
/// with the default timeout.
const THAW: u64 = 60;
/// No more is added for those of a ConfigMap: nodes do not wait longer to be drained. What is still frozen then, the next
/// attempt thaws.
const LONGEST_THAW: u64 = 600;

/// How the Job behaves, beside what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobOptions {
    /// Seconds that the finished Job is kept; `None` for ever.
    pub ttl_after_finished: Option<i32>,
    /// Seconds after which the Job is ended; `None` never.
    pub deadline: Option<i64>,
}

/// The Job that does what `args` say.
///
/// `location` is the BackupStorageLocation they name, if they name one; `hooks` those of the ConfigMap they name.
///
/// # Errors
/// When the pod could not work: a directory as storage that no volume provides, or pod settings that make no pod.
pub fn job(
    args: &Args,
    installation: &Installation,
    location: Option<&BackupStorageLocationSpec>,
    hooks: Option<&HookSpecs>,
    options: &JobOptions,
) -> Result<Job, Failure> {
    let secret = location.and_then(|location| location.credential_secret.as_deref());
    let mut template = installation.template.clone();
    if !has_volume(&template, TMP_VOLUME) {
        merge(&mut template, json!({"spec": {"volumes": [tmp_volume()]}}));
    }
    merge(&mut template, restricted());
    merge(&mut template, required(args, secret));
    if let Some(seconds) = grace_period(args, installation, hooks)
        && template.pointer(GRACE_PERIOD).and_then(Value::as_u64) < Some(seconds)
    {
        merge(
            &mut template,
            json!({"spec": {"terminationGracePeriodSeconds": seconds}}),
        );
    }
    check_directory(args, location, &template)?;
    let template = serde_json::from_value(template).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("PodTemplate ark cannot be used: {error}"),
        )
        .hint("`kubectl ark install --reset-pod-template` starts afresh")
    })?;
    Ok(Job {
        metadata: ObjectMeta {
            name: Some(job_name(&args.command)),
            namespace: Some(args.namespace.clone()),
            labels: Some(labels(&args.command)),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(match &args.command {
                Command::Backup(_)
                | Command::Restore(_)
                | Command::Delete(_)
                | Command::Undelete(_)
                | Command::DeleteRestore(_)
                | Command::Expire(_)
                | Command::Sync(_) => BACKOFF_LIMIT,
                // Whoever asked for it sees it fail, and asks again.
                Command::Diff(_)
                | Command::Show(_)
                | Command::Fetch(_)
                | Command::List(_)
                | Command::Doctor(_)
                | Command::Volumes(_) => 0,
            }),
            active_deadline_seconds: options.deadline,
            ttl_seconds_after_finished: options.ttl_after_finished,
            pod_failure_policy: Some(failure_policy()),
            // A second pod only when the first has ended: two would do the same work.
            pod_replacement_policy: Some("Failed".into()),
            template,
            ..JobSpec::default()
        }),
        status: None,
    })
}

/// The binding by which the restore of `args` gets its rights.
///
/// There is one for all restores of an installation, so that its service accounts can be allowed to delete just it. The request is written
/// into it, so that each restore changes it: whoever is about to delete it for an earlier one then loses the race.
pub fn restore_binding(args: &Args) -> Manifest {
    let mut binding = rights::cluster_binding(
        &ark_job::api::restore_binding(&args.namespace),
        "cluster-admin",
        &args.namespace,
        service_account::RESTORE,
    );
    binding.metadata.annotations =
        Some([(REQUEST_ANNOTATION.to_owned(), args.to_argv().join(" "))].into());
    Manifest::of(&binding)
}

/// The name of the Job for a command.
pub fn job_name(command: &Command) -> String {
    names::job(operation(command), &subject(command))
}

/// The kind of operation, as labels have it.
pub fn operation(command: &Command) -> &'static str {
    match command {
        Command::Backup(_) => "backup",
        Command::Restore(_) => "restore",
        Command::Diff(_) => "diff",
        Command::Show(_) => "show",
        Command::Fetch(_) => "fetch",
        Command::Delete(_) => "delete",
        Command::Undelete(_) => "undelete",
        Command::DeleteRestore(_) => "delete-restore",
        Command::Expire(_) => "expire",
        Command::Sync(_) => "sync",
        Command::List(_) => "list",
        Command::Volumes(_) => "volumes",
        Command::Doctor(_) => "doctor",
    }
}

/// Name of the backup or restore that a command makes, of the backup that it is about, or of the location.
pub fn subject(command: &Command) -> String {
    let location = |storage: &StorageFlags| storage.location.clone().unwrap_or("storage".into());
    match command {
        Command::Restore(restore) => restore.name.as_ref().unwrap_or(&restore.backup).clone(),
        Command::Backup(backup) => backup
            .known_name()
            .or_else(|| backup.tick.schedule.clone())
            .unwrap_or_default(),
        Command::Delete(DeleteArgs { names, .. })
        | Command::Undelete(UndeleteArgs { names, .. })
        | Command::DeleteRestore(DeleteRestoreArgs { names, .. }) => names.join("-"),
        Command::Expire(ExpireArgs { storage, .. })
        | Command::Sync(SyncArgs { storage, .. })
        | Command::List(ListArgs { storage, .. })
        | Command::Doctor(DoctorArgs { storage, .. })
        | Command::Volumes(VolumesArgs { storage, .. }) => location(storage),
        Command::Diff(_) | Command::Show(_) | Command::Fetch(_) => {
            command.backup().unwrap_or_default().to_owned()
        }
    }
}

fn labels(command: &Command) -> BTreeMap<String, String> {
    let mut labels = rights::labels();
    labels.insert(OPERATION_LABEL.into(), operation(command).into());
    match command {
        Command::Backup(backup) => {
            if let Some(schedule) = &backup.tick.schedule {
                labels.insert(SCHEDULE_LABEL.into(), schedule.clone());
            }
            if let Some(name) = backup.known_name() {
                labels.insert(BACKUP_LABEL.into(), label_value(&name));
            }
        }
        command => {
            if let Some(backup) = command.backup() {
                labels.insert(BACKUP_LABEL.into(), label_value(backup));
            }
        }
    }
    if let Command::Restore(_) = command {
        labels.insert(RESTORE_NAME_LABEL.into(), label_value(&subject(command)));
    }
    labels
}

/// What a pod must have to do its work, whatever the settings say.
fn required(args: &Args, credentials_secret: Option<&str>) -> Value {
    let account = match args.command {
        // Reading from storage needs what a backup has: the location, and the identity that may use the bucket.
        Command::Backup(_)
        | Command::Diff(_)
        | Command::Show(_)
        | Command::Fetch(_)
        | Command::List(_)
        | Command::Doctor(_) => service_account::BACKUP,
        Command::Restore(_) => service_account::RESTORE,
        // Snapshots are listed by who sweeps them up.
        Command::Delete(_)
        | Command::Undelete(_)
        | Command::DeleteRestore(_)
        | Command::Expire(_)
        | Command::Sync(_)
        | Command::Volumes(_) => service_account::HOUSEKEEPING,
    };
    // As the API server would complete it: two who apply the same text must not be in conflict.
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
    let mut env = vec![
        field(environment::NAMESPACE, "metadata.namespace"),
        field(
            environment::JOB_NAME,
            "metadata.labels['batch.kubernetes.io/job-name']",
        ),
        field(
            environment::JOB_UID,
            "metadata.labels['batch.kubernetes.io/controller-uid']",
        ),
        field(environment::POD_NAME, "metadata.name"),
        field(environment::POD_UID, "metadata.uid"),
        json!({"name": "HOME", "value": TMP}),
        json!({"name": "TMPDIR", "value": TMP}),
    ];
    let mut mounts = vec![json!({"name": TMP_VOLUME, "mountPath": TMP})];
    let mut volumes = Vec::new();
    if let Some(secret) = credentials_secret {
        env.push(json!({
            "name": "AWS_SHARED_CREDENTIALS_FILE",
            "value": format!("{CREDENTIALS_DIR}/{CREDENTIALS_KEY}"),
        }));
        mounts.push(
            json!({"name": CREDENTIALS_VOLUME, "mountPath": CREDENTIALS_DIR, "readOnly": true}),
        );
        volumes.push(json!({"name": CREDENTIALS_VOLUME, "secret": {"secretName": secret}}));
    }
    let mut pod = json!({
        "metadata": {"labels": labels(&args.command)},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": account,
            "containers": [{
                "name": CONTAINER,
                "args": args.to_argv(),
                "env": env,
                // The last lines of a failed run are in the pod's status, for whoever waits.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": mounts,
            }],
            "volumes": volumes,
        },
    });
    if let Command::Fetch(_) = args.command {
        // What is run in a held pod is found as its process 1.
        pod["spec"]["shareProcessNamespace"] = false.into();
    }
    pod
}

const GRACE_PERIOD: &str = "/spec/terminationGracePeriodSeconds";

/// How long the pod of a backup that may run hooks needs between SIGTERM and SIGKILL: frozen pods are thawed then, all at
/// once, each by one post hook after the other.
fn grace_period(
    args: &Args,
    installation: &Installation,
    hooks: Option<&HookSpecs>,
) -> Option<u64> {
    let Command::Backup(backup) = &args.command else {
        return None;
    };
    let runs = match backup.backup.hooks.as_deref() {
        Some(NO_HOOKS) => false,
        Some(_) => true,
        None => installation.hooks,
    };
    let longest = hooks.map_or(0, |hooks| hooks.longest_thaw().as_secs());
    runs.then(|| GRACE + longest.clamp(THAW, LONGEST_THAW))
}

/// Retries only what a retry can cure.
fn failure_policy() -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "FailJob".into(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(CONTAINER.into()),
                    operator: "In".into(),
                    values: Exit::FINAL.iter().map(|exit| exit.code().into()).collect(),
                }),
                ..PodFailurePolicyRule::default()
            },
            PodFailurePolicyRule {
                action: "Ignore".into(),
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".into(),
                    status: "True".into(),
                }]),
                ..PodFailurePolicyRule::default()
            },
        ],
    }
}

fn list<'a>(template: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    template
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn has_volume(template: &Value, name: &str) -> bool {
    list(template, "/spec/volumes").any(|volume| volume["name"] == name)
}

/// A backup in the pod's own directory would be gone with the pod.
fn check_directory(
    args: &Args,
    location: Option<&BackupStorageLocationSpec>,
    template: &Value,
) -> Result<(), Failure> {
    let storage = args.command.storage();
    let url = location
        .map(|location| location.url.as_str())
        .or(storage.storage.as_deref());
    let Some(Ok(Location::File { dir })) = url.map(str::parse) else {
        return Ok(());
    };
    let provided = list(template, "/spec/containers")
        .filter(|container| container["name"] == CONTAINER)
        .flat_map(|container| list(container, "/volumeMounts"))
        .filter(|mount| mount["name"] != TMP_VOLUME)
        .filter_map(|mount| mount["mountPath"].as_str())
        .any(|path| dir.starts_with(Path::new(path)));
    if provided {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        format!("{} is a directory in a pod that no volume provides", dir.display()),
    )
    .hint("mount a volume there with `kubectl ark install --pod-template FILE`, use s3://, or run with --local"))
}
