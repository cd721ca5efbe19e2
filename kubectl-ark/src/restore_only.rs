//! `restore-only`: switches the mode of the installation, and suspends what would write in it.

use crate::cli::ClusterFlags;
use crate::options::restore_only::Options;
use ark_job::error::Failure;
use ark_job::exit::Exit;

/// Does it.
pub async fn run(_cluster: &ClusterFlags, _options: &Options) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Failed, "restore-only: not there yet"))
}
