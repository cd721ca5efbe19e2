//! `--local`: the operation in this process, with the user's own rights. The same code as in a Job, the same format.

use crate::Surroundings;
use crate::client;
use ark_job::args::Args;
use ark_job::context::{Environment, Outcome};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::run::run as run_operation;
use kube::Client;
use std::path::Path;

/// Runs it to its end, or until `interrupt`; `directory` is made before, if it is given and not there.
pub async fn run(
    client: Client,
    args: Args,
    directory: Option<&Path>,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    if let Some(directory) = directory {
        make_private(directory).map_err(|error| {
            let directory = directory.display();
            Failure::new(Exit::Failed, format!("making {directory}: {error}"))
                .hint("say where backups go with --storage file:///DIRECTORY")
        })?;
    }
    ask(&client).await?;
    let environment = environment(surroundings);
    let Outcome {
        exit,
        message,
        hint,
    } = run_operation(args, environment, client, interrupt).await;
    match exit {
        Exit::Done => {
            println!("{message}");
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
            Ok(Exit::Done)
        }
        exit => Err(Failure::new(exit, message).maybe_hint(hint)),
    }
}

/// Whether the cluster answers: an operation tries again for a while, as a Job should; a person wants to know at once.
///
/// # Errors
/// When it does not.
pub async fn ask(client: &Client) -> Result<(), Failure> {
    let version = client.apiserver_version().await;
    version
        .map(drop)
        .map_err(|error| client::failure(&error, "asking for the cluster's version"))
}

/// What `ark-job` is told of this process.
pub fn environment(surroundings: &Surroundings) -> Environment {
    Environment {
        job_uid: None,
        job_name: None,
        pod_uid: None,
        nonce: surroundings.nonce.clone(),
        temporary: surroundings.temporary.clone(),
        connect_disks: None,
        disks_cluster_name: None,
    }
}

/// Makes a directory that nobody else can read: backups hold Secrets.
pub(crate) fn make_private(directory: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}
