//! `kubectl ark uninstall`: removes what `install` has made.

use crate::Surroundings;
use crate::cli::{ClusterFlags, UninstallArgs};
use ark_job::error::Failure;
use ark_job::exit::Exit;

/// `kubectl ark uninstall`
pub async fn run(
    cluster: &ClusterFlags,
    args: UninstallArgs,
    surroundings: &Surroundings,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let _ = (cluster, args, surroundings, interrupt);
    Err(Failure::new(Exit::Usage, "not there yet"))
}
