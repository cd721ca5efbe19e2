//! `--local`: the operation in this process, with the user's own rights. The same code as in a Job, the same format.

use crate::Surroundings;
use crate::options::CreateOptions;
use ark_job::error::Failure;
use ark_job::exit::Exit;
use ark_job::run::{Environment, Outcome, run as run_operation};
use kube::Client;

/// Runs it to its end, or until `interrupt`.
pub async fn run(
    client: Client,
    options: CreateOptions,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let environment = Environment {
        job_uid: None,
        pod_uid: None,
        nonce: surroundings.nonce.clone(),
        temporary: surroundings.temporary.clone(),
    };
    let Outcome {
        exit,
        message,
        hint,
    } = run_operation(options.args, environment, client, interrupt).await;
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
