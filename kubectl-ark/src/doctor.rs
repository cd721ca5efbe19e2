//! `kubectl ark doctor`: checks from inside the cluster of what backups and restores need.

use crate::Surroundings;
use crate::cli::{ClusterFlags, DoctorArgs};
use ark_job::error::Failure;
use ark_job::exit::Exit;

/// `kubectl ark doctor`
pub async fn run(
    cluster: &ClusterFlags,
    args: DoctorArgs,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let _ = (cluster, args, surroundings, interrupt);
    Err(Failure::new(Exit::Usage, "not there yet"))
}
