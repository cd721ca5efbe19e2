//! `schedule …`: CronJobs that back up, and what came of them.

use crate::cli::ClusterFlags;
use crate::{Surroundings, options};
use ark_job::error::Failure;
use ark_job::exit::Exit;

/// Does it.
pub async fn run(
    _cluster: &ClusterFlags,
    _options: options::schedule::Options,
    _surroundings: &Surroundings,
    _interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "schedule: not there yet"))
}
