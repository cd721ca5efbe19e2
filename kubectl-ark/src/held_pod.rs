//! A pod through which stored files of a backup are read, where only the cluster can reach the bucket.
//!
//! Its container does nothing (`ark-job fetch --hold`); each file is written by another `ark-job fetch` that is executed in
//! it, and comes over that connection. What a container itself prints would end up in the node's logs and with whoever
//! collects them, and backups hold Secrets; what is executed in it does not.

use crate::manifest::Manifest;
use crate::pod_template::{CONTAINER, Installation};
use crate::progress::Display;
use crate::render::JobOptions;
use crate::wait::{self, Followed};
use crate::{client, create, names, render};
use ark_job::api::BackupStorageLocationSpec;
use ark_job::args::{Args, Command, FetchArgs, FetchFile, StorageFlags};
use ark_job::error::{Failure, chain};
use ark_job::exit::Exit;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Client;
use kube::api::{Api, AttachParams};
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

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
/// What a failed fetch says is a line or two.
const SAID_MAX: u64 = 64 * 1024;
/// Longer than storage is tried for without a byte; a connection that is lost is not always told.
const SILENT: Duration = Duration::from_secs(300);
/// Longer than the API server takes; a person who has pressed Ctrl-C waits for this.
const REQUEST_WITHIN: Duration = Duration::from_secs(15);

/// The Job whose pod is held: `fetch-NAME-` and some digits of `nonce`.
///
/// # Errors
/// When the pod could not work.
pub fn plan(
    namespace: &str,
    backup: &str,
    storage: &StorageFlags,
    nonce: &str,
    installation: &Installation,
    location: Option<&BackupStorageLocationSpec>,
) -> Result<Job, Failure> {
    let args = arguments(namespace, backup, storage, FetchFile::default(), true);
    let mut job = render::job(&args, installation, location, None, &JOB)?;
    let suffix: String = nonce.chars().take(SUFFIX).collect();
    job.metadata.name = Some(names::job("fetch", &format!("{backup}-{suffix}")));
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
    client: Client,
    namespace: String,
    backup: String,
    storage: StorageFlags,
    job: Manifest,
    uid: String,
}

/// A pod that runs.
pub struct Started<'a> {
    held: &'a HeldPod,
    pod: String,
}

impl HeldPod {
    /// Creates the Job, as the PodTemplate and the location say.
    ///
    /// To be awaited to its end: an answer that nobody takes may leave a Job.
    pub async fn create(
        client: &Client,
        namespace: &str,
        backup: &str,
        storage: &StorageFlags,
        nonce: &str,
    ) -> Result<HeldPod, Failure> {
        let (installation, location) = create::read(client, namespace, storage).await?;
        let job = plan(
            namespace,
            backup,
            storage,
            nonce,
            &installation,
            location.as_ref(),
        )?;
        let job = Manifest::of(&job);
        let doing = format!("creating {}, to read backup {backup}", job.reference());
        let created = tokio::time::timeout(REQUEST_WITHIN, job.create(client))
            .await
            .map_err(|elapsed| Failure::new(Exit::Failed, format!("{doing}: {elapsed}")))?
            .map_err(|error| client::failure(&error, &doing))?;
        Ok(HeldPod {
            client: client.clone(),
            namespace: namespace.to_owned(),
            backup: backup.to_owned(),
            storage: storage.clone(),
            job,
            uid: created.metadata.uid.unwrap_or_default(),
        })
    }

    /// Waits until the pod runs.
    ///
    /// # Errors
    /// When it does not; as soon as the cluster knows why.
    pub async fn started(&self, display: &Display) -> Result<Started<'_>, Failure> {
        let followed = Followed {
            namespace: &self.namespace,
            name: &self.backup,
            job: self.job.name(),
            uid: &self.uid,
        };
        let pod = wait::started(&self.client, &followed, display).await?;
        Ok(Started { held: self, pod })
    }

    /// Removes Job and pod. What goes wrong is told, and is no failure of what was read.
    pub async fn remove(&self) {
        let said = match tokio::time::timeout(REQUEST_WITHIN, self.job.delete(&self.client)).await {
            Ok(Ok(_)) => return,
            Ok(Err(failure)) => failure.message().to_owned(),
            Err(elapsed) => format!("deleting {}: {elapsed}", self.job.reference()),
        };
        let (job, namespace) = (self.job.name(), &self.namespace);
        eprintln!("warning: {said}");
        eprintln!("hint: `kubectl delete job {job} -n {namespace}` removes it; it ends by itself");
    }
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
            client,
            namespace,
            backup,
            storage,
            ..
        } = self.held;
        let doing = format!("reading backup {backup} in pod/{}", self.pod);
        let broken = |why: String| {
            Failure::new(
                Exit::Failed,
                format!("{doing}: the connection broke: {why}"),
            )
            .hint("try again; nothing is kept of what came")
        };
        let args = arguments(namespace, backup, storage, file, false);
        let command = std::iter::once(PROGRAM.to_owned()).chain(args.to_argv());
        let params = AttachParams::default()
            .container(CONTAINER)
            .stdin(false)
            .stdout(true)
            .stderr(true)
            .max_stdout_buf_size(BUFFER);
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
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
        let ((), said) = futures::try_join!(copy(stdout, to, &mut passed), said)
            .map_err(|error| Failure::new(Exit::Failed, format!("{doing}: {error}")))?;
        match status.await {
            Some(status) => ended(&status, &said).map_or(Ok(()), Err),
            None => Err(broken(match process.join().await {
                Ok(()) => "it was closed in the middle".into(),
                Err(error) => chain(&error),
            })),
        }
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: &mut tokio::fs::File,
    passed: &mut impl FnMut(u64),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        let count = tokio::time::timeout(SILENT, from.read(&mut buffer))
            .await
            .map_err(|_| {
                let text = format!("nothing has come for {} minutes", SILENT.as_secs() / 60);
                io::Error::new(ErrorKind::TimedOut, text)
            })??;
        if count == 0 {
            return to.flush().await;
        }
        to.write_all(&buffer[..count]).await?;
        total += count as u64;
        passed(total);
    }
}

/// What the program said, as far as it matters.
async fn said(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut first = (&mut from).take(SAID_MAX);
    // What broke shows in the program's status.
    let _incomplete = first.read_to_end(&mut kept).await;
    let _rest = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

/// How a program ended that was executed: a failure, unless well.
fn ended(status: &Status, said: &str) -> Option<Failure> {
    if status.status.as_deref() == Some("Success") {
        return None;
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let code = causes
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
    Some(Failure::new(exit, message).maybe_hint(line("hint: ")))
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
        assert!(ended(&status(json!({"status": "Success"})), "").is_none());
        let failed = status(json!({
            "status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with exit code 5",
            "details": {"causes": [{"reason": "ExitCode", "message": "5"}]},
        }));
        let failure = ended(&failed, "note\nerror: it is damaged\nhint: take another\n").unwrap();
        assert_eq!(failure.exit(), Exit::Integrity);
        assert_eq!(failure.message(), "it is damaged");
        assert_eq!(failure.next_step(), Some("take another"));
        let killed = status(
            json!({"status": "Failure", "message": "command terminated with exit code 137",
            "details": {"causes": [{"reason": "ExitCode", "message": "137"}]}}),
        );
        let failure = ended(&killed, "").unwrap();
        assert_eq!(failure.exit(), Exit::Failed);
        assert_eq!(failure.message(), "command terminated with exit code 137");
    }
}
