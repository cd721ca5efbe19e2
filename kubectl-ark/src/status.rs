//! `kubectl ark status`: whether all is well, on one screen.

use crate::Surroundings;
use crate::cli::{ClusterFlags, StatusArgs};
use ark_job::error::Failure;
use ark_job::exit::Exit;

/// `kubectl ark status`
pub async fn run(
    cluster: &ClusterFlags,
    args: StatusArgs,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let _ = (cluster, args, surroundings, interrupt);
    Err(Failure::new(Exit::Usage, "not there yet"))
}
