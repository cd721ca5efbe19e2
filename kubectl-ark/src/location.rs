//! `kubectl ark location`: storage locations.

use crate::Surroundings;
use crate::cli::{ClusterFlags, LocationCommand};
use ark_job::error::Failure;
use ark_job::exit::Exit;

/// `kubectl ark location`
pub async fn run(
    cluster: &ClusterFlags,
    args: LocationCommand,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let _ = (cluster, args, surroundings, interrupt);
    Err(Failure::new(Exit::Usage, "not there yet"))
}
