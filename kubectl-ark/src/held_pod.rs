//! A pod in which `ark-job` is run for what it prints, where only the cluster can reach the bucket: stored files of a backup,
//! one of its objects, what differs from it, the plan of a restore, the state of its snapshots.
//!
//! Its container does nothing (`ark-job fetch --hold`); everything is printed by another `ark-job` that is executed in it,
//! and comes over that connection. What a container itself prints would end up in the node's logs and with whoever collects
//! them, and backups hold Secrets; what is executed in it does not.
//!
//! For the plan of a restore the pod has a restore's rights, which are bound and given up as a restore's are (see
//! `ark_job::restore::rights`); for the plan of expiry, and to look at snapshots, it has those of housekeeping.

use crate::client::{self, Connection};
use crate::manifest::Manifest;
use crate::pod_template::{CONTAINER, Installation};
use crate::progress::Display;
use crate::render::JobOptions;
use crate::wait::{self, Followed};
use crate::{create, log_line, names, render};
use ark_job::api::{
    BACKUP_LABEL, BackupStorageLocationSpec, OPERATION_LABEL, PLAN_OPERATION, service_account,
};
use ark_job::args::{Args, Command, FetchArgs, FetchFile, StorageFlags};
use ark_job::cluster::Cluster;
use ark_job::error::{Failure, chain};
use ark_job::exit::Exit;
use ark_job::identity::{Origin, RunId};
use ark_job::restore::rights;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams};
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The Job removes itself, should we not come to it. The deadline ends a pod that cannot start; one that has started ends
/// by itself when nothing is read.
const JOB: JobOptions = JobOptions {
    ttl_after_finished: Some(60),
    deadline: Some(6 * 3600),
};
/// What tells this pod's name from that of another reader, in digits of the nonce.
const SUFFIX: usize = 5;
/// The program of the container, whatever image it is from.
const PROGRAM: &str = "/proc/1/exe";
/// Bytes on their way between connection and file.
const BUFFER: usize = 256 * 1024;
/// What matters of what a program says, bytes: its end.
const SAID_MAX: usize = 64 * 1024;
/// Longer than storage is tried for without a byte; a connection that is lost is not always told.
const SILENT: Duration = Duration::from_secs(300);
/// Longer than rights are waited for, and then every byte of a large backup is read before the first line of its plan.
pub const SILENT_PLANNING: Duration = Duration::from_secs(1800);
/// The operation of a pod that makes the plan of expiry, as its label has it.
pub const EXPIRE_PLAN_OPERATION: &str = "expire-plan";
/// The operation of a pod that looks at snapshots, as its label has it.
pub const VOLUMES_OPERATION: &str = "volumes";
/// The operation of a pod in which doctor looks, as its label has it.
pub const DOCTOR_OPERATION: &str = "doctor";
/// Longer than the API server takes; a person who has pressed Ctrl-C waits for this.
const REQUEST_WITHIN: Duration = Duration::from_secs(15);

/// What a pod is held for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// To read, with the rights of a backup: to list everything.
    Read,
    /// To make the plan of a restore, which these arguments ask for, with the rights of a restore.
    Plan(&'a Args),
    /// To make the plan of expiry, with the rights of housekeeping.
    ExpirePlan,
    /// To look at snapshots, with the rights of housekeeping: whoever sweeps them up may ask for them. It reads stored files, too.
    Volumes,
    /// To check what a backup needs, with its rights.
    Doctor,
}

impl Purpose<'_> {
    fn word(self) -> &'static str {
        match self {
            Purpose::Read => "fetch",
            Purpose::Plan(_) => PLAN_OPERATION,
            Purpose::ExpirePlan => EXPIRE_PLAN_OPERATION,
            Purpose::Volumes => VOLUMES_OPERATION,
            Purpose::Doctor => DOCTOR_OPERATION,
        }
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// The backup of this name.
    Backup(&'a str),
    /// All that is stored in the location of this name.
    Location(&'a str),
}

impl<'a> About<'a> {
    /// Its kind, as messages have it.
    pub fn kind(self) -> &'static str {
        match self {
            About::Backup(_) => "backup",
            About::Location(_) => "location",
        }
    }

    /// Its name.
    pub fn name(self) -> &'a str {
        match self {
            About::Backup(name) | About::Location(name) => name,
        }
    }
}

impl std::fmt::Display for About<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// What is looked at, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Ark's namespace.
    pub namespace: &'a str,
    /// A backup, or all of a location.
    pub about: About<'a>,
    /// Where it is.
    pub storage: &'a StorageFlags,
}

/// The Job whose pod is held: `fetch-NAME-`, `plan-NAME-` or another word for what it is held for, and some digits of `nonce`.
///
/// # Errors
/// When the pod could not work.
pub fn plan(
    subject: Subject<'_>,
    purpose: Purpose<'_>,
    nonce: &str,
    installation: &Installation,
    location: Option<&BackupStorageLocationSpec>,
) -> Result<Job, Failure> {
    let Subject {
        namespace,
        about,
        storage,
    } = subject;
    let args = arguments(namespace, about.name(), storage, FetchFile::default(), true);
    let mut job = render::job(&args, installation, location, None, &JOB)?;
    let suffix: String = nonce.chars().take(SUFFIX).collect();
    let name = names::job(purpose.word(), &format!("{}-{suffix}", about.name()));
    job.metadata.name = Some(name);
    if let Some(spec) = &mut job.spec {
        for metadata in [&mut job.metadata]
            .into_iter()
            .chain(&mut spec.template.metadata)
        {
            let labels = metadata.labels.get_or_insert_default();
            // Of restores' plans: restores that end see by the label that somebody else needs the rights.
            labels.insert(OPERATION_LABEL.into(), purpose.word().into());
            if let About::Location(_) = about {
                labels.remove(BACKUP_LABEL);
            }
        }
        let account = match purpose {
            Purpose::Read | Purpose::Doctor => None,
            Purpose::Plan(_) => Some(service_account::RESTORE),
            Purpose::ExpirePlan | Purpose::Volumes => Some(service_account::HOUSEKEEPING),
        };
        if let (Some(account), Some(pod)) = (account, &mut spec.template.spec) {
            pod.service_account_name = Some(account.into());
        }
    }
    Ok(job)
}

fn arguments(
    namespace: &str,
    backup: &str,
    storage: &StorageFlags,
    file: FetchFile,
    hold: bool,
) -> Args {
    Args {
        namespace: namespace.to_owned(),
        command: Command::Fetch(FetchArgs {
            backup: backup.to_owned(),
            storage: storage.clone(),
            file,
            hold,
        }),
    }
}

/// A Job that was created, and that somebody must [`remove`](HeldPod::remove).
pub struct HeldPod {
    connection: Connection,
    namespace: String,
    /// Name of the backup or location.
    name: String,
    /// What is looked at, in words.
    about: String,
    storage: StorageFlags,
    job: Manifest,
    uid: String,
    /// Rights were bound for it.
    rights: bool,
}

/// A pod that runs.
pub struct Started<'a> {
    held: &'a HeldPod,
    pod: String,
}

/// How a program ended that was executed.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, if it has one.
    pub code: Option<i32>,
    /// What that means, unless it ended well.
    pub failure: Option<Failure>,
    /// What its log warned of.
    pub warnings: Vec<String>,
}

impl HeldPod {
    /// Creates the Job, as the PodTemplate and the location say, and then binds its rights if it needs any.
    ///
    /// To be awaited to its end: an answer that nobody takes may leave a Job.
    pub async fn create(
        connection: &Connection,
        subject: Subject<'_>,
        purpose: Purpose<'_>,
        nonce: &str,
    ) -> Result<HeldPod, Failure> {
        let Subject {
            namespace,
            about,
            storage,
        } = subject;
        let client = &connection.kube;
        let (installation, location) = create::read(client, namespace, storage).await?;
        let job = plan(subject, purpose, nonce, &installation, location.as_ref())?;
        let job = Manifest::of(&job);
        let binding = match purpose {
            Purpose::Plan(args) if !installation.standing_rights => {
                Some(render::restore_binding(args))
            }
            Purpose::Plan(_)
            | Purpose::Read
            | Purpose::ExpirePlan
            | Purpose::Volumes
            | Purpose::Doctor => None,
        };
        let doing = format!("creating {}, to read {about}", job.reference());
        if let Some(binding) = &binding {
            create::bind(client, binding, true).await?;
        }
        let created = tokio::time::timeout(REQUEST_WITHIN, job.create(client))
            .await
            .map_err(|elapsed| Failure::new(Exit::Failed, format!("{doing}: {elapsed}")))?
            .map_err(|error| client::failure(&error, &doing))?;
        let held = HeldPod {
            connection: connection.clone(),
            namespace: namespace.to_owned(),
            name: about.name().to_owned(),
            about: about.to_string(),
            storage: storage.clone(),
            job,
            uid: created.metadata.uid.unwrap_or_default(),
            rights: binding.is_some(),
        };
        if let Some(binding) = &binding
            && let Err(failure) = create::bind(client, binding, false).await
        {
            held.remove().await;
            return Err(failure);
        }
        Ok(held)
    }

    /// Waits until the pod runs.
    ///
    /// # Errors
    /// When it does not; as soon as the cluster knows why.
    pub async fn started(&self, display: &Display) -> Result<Started<'_>, Failure> {
        let followed = Followed {
            namespace: &self.namespace,
            name: &self.name,
            job: self.job.name(),
            uid: &self.uid,
            done_before: None,
        };
        let pod = wait::started(&self.connection.kube, &followed, &self.about, display).await?;
        Ok(Started { held: self, pod })
    }

    /// Removes Job and pod, and gives up the rights that were bound for it. What goes wrong is told, and is no failure of
    /// what was read.
    pub async fn remove(&self) {
        let deleting = self.job.delete(&self.connection.kube);
        let said = match tokio::time::timeout(REQUEST_WITHIN, deleting).await {
            Ok(Ok(_)) => None,
            Ok(Err(failure)) => Some(failure.message().to_owned()),
            Err(elapsed) => Some(format!("deleting {}: {elapsed}", self.job.reference())),
        };
        if let Some(said) = said {
            let (job, namespace) = (self.job.name(), &self.namespace);
            eprintln!("warning: {said}");
            eprintln!(
                "hint: `kubectl delete job {job} -n {namespace}` removes it; it ends by itself"
            );
        }
        if self.rights {
            self.give_up_rights().await;
        }
    }

    /// Deletes the binding unless a restore or another plan needs it. The Job has been deleted before, so that of two that
    /// end at the same time, one sees that it is the last.
    async fn give_up_rights(&self) {
        let cluster = Cluster::new(self.connection.operation.clone());
        let giving_up = async {
            let cluster_uid = cluster.uid().await?;
            let origin = Origin::Job {
                uid: self.uid.clone(),
            };
            let own = RunId::new(&cluster_uid, &self.namespace, &origin);
            rights::give_up_after(&cluster, &self.namespace, &cluster_uid, Some(&own)).await
        };
        match tokio::time::timeout(REQUEST_WITHIN, giving_up).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                eprintln!("warning: {}", rights::not_given_up(&self.namespace, &error))
            }
            Err(elapsed) => eprintln!(
                "warning: the rights to restore could not be given up: {elapsed}; the next restore gives them up"
            ),
        }
    }
}

/// Why copying stopped before the end.
enum Stopped {
    /// Whoever read has seen enough (`| head`).
    NobodyReads,
    Failed(io::Error),
}

impl Started<'_> {
    /// Copies a stored file; `passed` is told how many bytes have come.
    ///
    /// # Errors
    /// When it is not there, not as it was stored, or does not come completely.
    pub async fn fetch(
        &self,
        file: FetchFile,
        to: &mut tokio::fs::File,
        mut passed: impl FnMut(u64),
    ) -> Result<(), Failure> {
        let HeldPod {
            namespace,
            name,
            storage,
            ..
        } = self.held;
        let args = arguments(namespace, name, storage, file, false);
        let ended = self.execute(&args, to, SILENT, &mut passed).await?;
        match ended.and_then(|ended| ended.failure) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// All that `ark-job` prints with these arguments, about the same subject, and how it ended.
    ///
    /// # Errors
    /// As [`Started::execute`].
    pub async fn printed(&self, args: &Args) -> Result<(Vec<u8>, Ended), Failure> {
        let mut printed = Vec::new();
        let ended = self
            .execute(args, &mut printed, SILENT, &mut |_| {})
            .await?;
        let unread = || Failure::new(Exit::Failed, "what it printed could not be kept");
        Ok((printed, ended.ok_or_else(unread)?))
    }

    /// Runs `ark-job` with these arguments, and passes on what it prints, as it comes; `None` when nobody reads that any more.
    ///
    /// # Errors
    /// When it could not be run, or the connection broke, or nothing came for a `silent` time. That it failed is none.
    pub async fn execute(
        &self,
        args: &Args,
        to: &mut (impl AsyncWrite + Unpin),
        silent: Duration,
        passed: &mut impl FnMut(u64),
    ) -> Result<Option<Ended>, Failure> {
        let HeldPod {
            connection,
            namespace,
            about,
            ..
        } = self.held;
        let doing = format!("reading {about} in pod/{}", self.pod);
        let broken = |why: String| {
            Failure::new(
                Exit::Failed,
                format!("{doing}: the connection broke: {why}"),
            )
            .hint("try again; nothing is kept of what came")
        };
        let command = std::iter::once(PROGRAM.to_owned()).chain(args.to_argv());
        let params = AttachParams::default()
            .container(CONTAINER)
            .stdin(false)
            .stdout(true)
            .stderr(true)
            .max_stdout_buf_size(BUFFER);
        let pods: Api<Pod> = Api::namespaced(connection.kube.clone(), namespace);
        let mut process = pods
            .exec(&self.pod, command, &params)
            .await
            .map_err(|error| not_executed(&error, &doing, namespace))?;
        let (stdout, stderr) = (process.stdout(), process.stderr());
        let (Some(stdout), Some(stderr), Some(status)) = (stdout, stderr, process.take_status())
        else {
            return Err(broken("it has no streams".into()));
        };
        // The first that fails ends both: a connection that is silent does not end by itself.
        let said = async { Ok(said(stderr).await) };
        let said = match futures::try_join!(copy(stdout, to, silent, passed), said) {
            Ok(((), said)) => said,
            Err(Stopped::NobodyReads) => return Ok(None),
            Err(Stopped::Failed(error)) => {
                return Err(Failure::new(Exit::Failed, format!("{doing}: {error}")));
            }
        };
        match status.await {
            Some(status) => Ok(Some(ended(&status, &said))),
            None => Err(broken(match process.join().await {
                Ok(()) => "it was closed in the middle".into(),
                Err(error) => chain(&error),
            })),
        }
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
    silent: Duration,
    passed: &mut impl FnMut(u64),
) -> Result<(), Stopped> {
    let not_written = |error: io::Error| match error.kind() {
        ErrorKind::BrokenPipe => Stopped::NobodyReads,
        _ => Stopped::Failed(error),
    };
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        let count = tokio::time::timeout(silent, from.read(&mut buffer))
            .await
            .map_err(|_| {
                let text = format!("nothing has come for {} minutes", silent.as_secs() / 60);
                Stopped::Failed(io::Error::new(ErrorKind::TimedOut, text))
            })?
            .map_err(Stopped::Failed)?;
        if count == 0 {
            return to.flush().await.map_err(not_written);
        }
        to.write_all(&buffer[..count]).await.map_err(not_written)?;
        // A person reads along.
        to.flush().await.map_err(not_written)?;
        total += count as u64;
        passed(total);
    }
}

/// What the program said, as far as it matters: the end.
async fn said(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut buffer = vec![0; SAID_MAX];
    // What broke shows in the program's status.
    while let Ok(count) = from.read(&mut buffer).await
        && count > 0
    {
        kept.extend_from_slice(&buffer[..count]);
        kept.drain(..kept.len().saturating_sub(SAID_MAX));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The messages of a log's warnings.
fn warnings(said: &str) -> Vec<String> {
    said.lines()
        .filter_map(log_line::parse)
        .filter(|line| line.level == "warning")
        .map(|line| line.message)
        .collect()
}

/// How a program ended that was executed.
fn ended(status: &Status, said: &str) -> Ended {
    if status.status.as_deref() == Some("Success") {
        return Ended {
            code: Some(0),
            failure: None,
            warnings: warnings(said),
        };
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let code: Option<i32> = causes
        .flatten()
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_deref()?.parse().ok());
    let exit = code
        .and_then(Exit::from_code)
        .filter(|exit| *exit != Exit::Done)
        .unwrap_or(Exit::Failed);
    let line = |prefix: &str| {
        let found = said
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(prefix));
        found.map(str::to_owned)
    };
    let message = line("error: ")
        .or_else(|| status.message.clone())
        .unwrap_or_else(|| "it does not say why".into());
    Ended {
        code,
        failure: Some(Failure::new(exit, message).maybe_hint(line("hint: "))),
        warnings: warnings(said),
    }
}

/// Why nothing can be executed in the pod.
fn not_executed(error: &kube::Error, doing: &str, namespace: &str) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 403 => Failure::new(
            Exit::Failed,
            format!(
                "{doing}: {} (the right to create and get pods/exec in namespace {namespace} is missing)",
                status.message
            ),
        )
        .hint("ask for that right, or read storage yourself: --local --storage URL"),
        error => client::failure(error, doing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_exit_code_of_the_program_is_ours() {
        let status = |value| serde_json::from_value::<Status>(value).unwrap();
        let well = ended(&status(json!({"status": "Success"})), "");
        assert!(well.failure.is_none() && well.code == Some(0));
        let failed = status(json!({
            "status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with exit code 5",
            "details": {"causes": [{"reason": "ExitCode", "message": "5"}]},
        }));
        let said = "note\nerror: it is damaged\nhint: take another\n";
        let failure = ended(&failed, said).failure.unwrap();
        assert_eq!(failure.exit(), Exit::Integrity);
        assert_eq!(failure.message(), "it is damaged");
        assert_eq!(failure.next_step(), Some("take another"));
        let killed = status(
            json!({"status": "Failure", "message": "command terminated with exit code 137",
            "details": {"causes": [{"reason": "ExitCode", "message": "137"}]}}),
        );
        let failure = ended(&killed, "").failure.unwrap();
        assert_eq!(failure.exit(), Exit::Failed);
        assert_eq!(failure.message(), "command terminated with exit code 137");
    }

    #[test]
    fn warnings_of_the_log_are_passed_on_without_its_form() {
        let said = "time=\"2026-11-23T20:15:01Z\" level=info msg=\"reading\"\n\
                    time=\"2026-11-23T20:15:02Z\" level=warning msg=\"a \\\"b\\\" is gone\"\nerror: x\n";
        assert_eq!(warnings(said), ["a \"b\" is gone"]);
    }

    #[tokio::test]
    async fn of_what_a_program_says_the_end_is_kept() {
        let long = format!("{}error: late\n", "x".repeat(3 * SAID_MAX));
        let kept = said(long.as_bytes()).await;
        assert_eq!(kept.len(), SAID_MAX);
        assert!(kept.ends_with("error: late\n"));
    }
}
