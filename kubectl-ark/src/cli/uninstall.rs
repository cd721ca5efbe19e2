//! What is typed after `kubectl ark uninstall`.

use clap::Args;

/// `kubectl ark uninstall`
#[derive(Clone, Debug, Args)]
pub struct UninstallArgs {
    /// Remove the resource types, too, and with them all Backup, Restore and BackupStorageLocation resources
    #[arg(long)]
    pub crds: bool,
    /// Remove without being asked
    #[arg(long, short = 'y')]
    pub yes: bool,
}
