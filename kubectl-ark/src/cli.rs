//! The command line of `kubectl ark`: what was typed, and nothing else.
//!
//! Flags that `ark-job` has too are its own types, flattened; [`crate::options`] turns everything into typed values. The
//! commands are here, what each is told is in a file for each noun.

mod backup;
mod completion;
mod connection;
mod doctor;
pub mod examples;
mod flags;
mod install;
mod location;
mod operations;
mod restore;
mod schedule;
mod status;
mod uninstall;

pub use backup::*;
pub use completion::*;
pub use connection::*;
pub use doctor::*;
pub use examples::{command, parse};
pub use flags::*;
pub use install::*;
pub use location::*;
pub use operations::*;
pub use restore::*;
pub use schedule::*;
pub use status::*;
pub use uninstall::*;

use ark_job::api::DEFAULT_NAMESPACE;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Disaster recovery and migration for Kubernetes, with nothing running between operations.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kubectl-ark",
    bin_name = "kubectl ark",
    version,
    about,
    max_term_width = 120,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 partially failed, 4 refused (restore-only), 5 integrity, \
                  10 not found, 11 name taken, 130 interrupted."
)]
pub struct Cli {
    /// Flags of every command
    #[command(flatten)]
    pub cluster: ClusterFlags,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster, and where Ark is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterFlags {
    /// Ark's own namespace (not that of what is backed up)
    #[arg(long, short = 'n', global = true, env = "ARK_NAMESPACE",
        hide_env_values = true, default_value = DEFAULT_NAMESPACE, value_name = "NAMESPACE")]
    pub namespace: String,
    /// Context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Path of the kubeconfig file to use
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// How it is reached, and as whom
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

/// The commands; each noun's verbs may also be written verb first, as in Ark: `kubectl ark get backups`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Install or upgrade Ark in the cluster
    Install(Box<InstallArgs>),
    /// Create and look at backups
    #[command(subcommand, visible_alias = "bk", alias = "backups")]
    Backup(BackupCommand),
    /// Create and look at restores
    #[command(subcommand, visible_alias = "rs", alias = "restores")]
    Restore(RestoreCommand),
    /// Create and look at schedules: backups again and again
    #[command(subcommand, visible_alias = "sc", alias = "schedules")]
    Schedule(ScheduleCommand),
    /// Create a backup, a restore, a schedule or a storage location
    #[command(subcommand)]
    Create(CreateCommand),
    /// List backups, restores, schedules, storage locations, or all of them
    #[command(subcommand, alias = "list")]
    Get(GetCommand),
    /// Show backups, restores, schedules or storage locations in full
    #[command(subcommand)]
    Describe(DescribeCommand),
    /// Delete backups, restores, schedules or storage locations
    #[command(subcommand)]
    Delete(DeleteCommand),
    /// Show the log of a backup or a restore
    #[command(subcommand)]
    Logs(LogsCommand),
    /// Compare a backup with the cluster or with another backup
    Diff(Box<DiffArgs>),
    /// Delete now what has expired, as the hourly sweep does
    Expire(Box<ExpireArgs>),
    /// Make Backup resources agree now with what is in storage
    Sync(SyncArgs),
    /// List the snapshots of volumes, their state, and orphans
    Volumes(VolumesArgs),
    /// Switch the mode in which nothing is backed up or deleted
    #[command(subcommand)]
    RestoreOnly(RestoreOnlyCommand),
    /// Create and look at places for backups
    #[command(
        subcommand,
        visible_alias = "loc",
        aliases = ["locations", "bsl", "backup-location", "backup-locations", "backupstoragelocation", "backupstoragelocations"]
    )]
    Location(LocationCommand),
    /// Show whether all is well, and what to do if not
    Status(StatusArgs),
    /// Check what backups and restores need, with fixes
    Doctor(Box<DoctorArgs>),
    /// Remove Ark from the cluster; backups stay
    Uninstall(UninstallArgs),
    /// Print what completes commands and names in a shell
    Completion(CompletionArgs),
    /// Show the versions of the plugin and of what is installed
    Version(VersionArgs),
}

/// `kubectl ark delete …`
#[derive(Clone, Debug, Subcommand)]
pub enum DeleteCommand {
    /// Delete backups: their snapshots, files, restores and resources
    #[command(visible_alias = "bk", alias = "backups")]
    Backup(Box<BackupDeleteArgs>),
    /// Delete what is kept of restores in the cluster; what they restored stays
    #[command(visible_alias = "rs", alias = "restores")]
    Restore(Box<SomeRestores>),
    /// Delete schedules; their backups stay
    #[command(visible_alias = "sc", alias = "schedules")]
    Schedule(SomeSchedules),
    /// Forget storage locations; what is stored stays
    #[command(visible_alias = "loc", aliases = ["locations", "bsl", "backup-location", "backup-locations", "backupstoragelocation", "backupstoragelocations"])]
    Location(SomeLocations),
}

/// `kubectl ark create …`
#[derive(Clone, Debug, Subcommand)]
pub enum CreateCommand {
    /// Back up the cluster's objects, by a Job
    #[command(visible_alias = "bk", alias = "backups")]
    Backup(Box<BackupCreateArgs>),
    /// Restore objects from a backup, by a Job
    #[command(visible_alias = "rs", alias = "restores")]
    Restore(Box<RestoreCreateArgs>),
    /// Back up again and again, by a CronJob; the first time at once
    #[command(visible_alias = "sc", alias = "schedules")]
    Schedule(Box<ScheduleCreateArgs>),
    /// Say where backups can be: a storage location, synced and expired hourly
    #[command(visible_alias = "loc", aliases = ["locations", "bsl", "backup-location", "backup-locations", "backupstoragelocation", "backupstoragelocations"])]
    Location(Box<LocationCreateArgs>),
}

/// `kubectl ark get …`
#[derive(Clone, Debug, Subcommand)]
pub enum GetCommand {
    /// List backups
    #[command(visible_alias = "bk", alias = "backup")]
    Backups(BackupGetArgs),
    /// List restores
    #[command(visible_alias = "rs", alias = "restore")]
    Restores(GetArgs),
    /// List schedules
    #[command(visible_alias = "sc", alias = "schedule")]
    Schedules(GetArgs),
    /// List storage locations
    #[command(visible_alias = "loc", aliases = ["location", "bsl", "backup-location", "backup-locations", "backupstoragelocation", "backupstoragelocations"])]
    Locations(GetArgs),
    /// List backups, restores, schedules and storage locations
    All(GetArgs),
}

/// `kubectl ark describe …`
#[derive(Clone, Debug, Subcommand)]
pub enum DescribeCommand {
    /// Show backups in full
    #[command(visible_alias = "bk", alias = "backups")]
    Backup(BackupDescribeArgs),
    /// Show restores in full
    #[command(visible_alias = "rs", alias = "restores")]
    Restore(DescribeArgs),
    /// Show schedules in full: last, next and last good backup
    #[command(visible_alias = "sc", alias = "schedules")]
    Schedule(DescribeArgs),
    /// Show storage locations in full
    #[command(visible_alias = "loc", aliases = ["locations", "bsl", "backup-location", "backup-locations", "backupstoragelocation", "backupstoragelocations"])]
    Location(DescribeArgs),
}

/// `kubectl ark logs …`
#[derive(Clone, Debug, Subcommand)]
pub enum LogsCommand {
    /// Show the log of a backup, also when its pod is gone
    #[command(visible_alias = "bk", alias = "backups")]
    Backup(BackupLogsArgs),
    /// Show the log of a restore
    #[command(visible_alias = "rs", alias = "restores")]
    Restore(LogsArgs),
}
