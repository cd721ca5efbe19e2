//! `kubectl ark completion`: code that completes commands and names in a shell.

use crate::Surroundings;
use crate::cli::{ClusterFlags, CompletionArgs};
use ark_job::error::Failure;
use ark_job::exit::Exit;

/// `kubectl ark completion`
pub async fn run(
    cluster: &ClusterFlags,
    args: CompletionArgs,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let _ = (cluster, args, surroundings, interrupt);
    Err(Failure::new(Exit::Usage, "not there yet"))
}
