//! What is typed after `kubectl ark uninstall`.

use super::ServerDryRun;
use clap::Args;

/// `kubectl ark uninstall`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Backups in storage and snapshots always stay. Locations, their credentials and the records of backups and restores stay \
                  unless --crds is given; `kubectl ark install` goes on with them. Schedules go, and are named."
)]
pub struct UninstallArgs {
    /// Remove the resource types, too, and with them all Backup, Restore and BackupStorageLocation resources
    #[arg(long)]
    pub crds: bool,
    /// Remove without being asked
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// client: show what would be removed, and remove nothing; server: let the API server check that it may be
    #[arg(long, value_enum, value_name = "none|client|server", default_value_t, num_args = 0..=1, require_equals = true, default_missing_value = "client", hide_possible_values = true)]
    pub dry_run: ServerDryRun,
}
