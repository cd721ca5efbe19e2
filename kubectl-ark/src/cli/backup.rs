//! What is typed after `kubectl ark backup`.

use super::{DryRun, GetArgs, JobFlags, PlaceFlags, RunFlags, SourceFlags};
use ark_job::args::{BackupFlags, ExitFlags, ShowFormat, StorageFlags};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `kubectl ark backup …`
#[derive(Clone, Debug, Subcommand)]
pub enum BackupCommand {
    /// Back up the cluster's objects, by a Job
    Create(Box<BackupCreateArgs>),
    /// List backups
    #[command(alias = "list")]
    Get(BackupGetArgs),
    /// Show backups in full
    Describe(BackupDescribeArgs),
    /// Delete backups: their snapshots, files, restores and resources
    Delete(Box<BackupDeleteArgs>),
    /// Take back a deletion that was cut off before anything was lost
    Undelete(BackupUndeleteArgs),
    /// Show the log of a backup, also when its pod is gone
    Logs(BackupLogsArgs),
    /// Save a backup as a tar.gz, and check it
    Download(DownloadArgs),
    /// Print one object of a backup, ready for kubectl apply
    Show(ShowArgs),
}

/// `kubectl ark backup create`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A Job named backup-NAME does the work; this command returns when it is created, unless --wait is given."
)]
pub struct BackupCreateArgs {
    /// Name of the backup
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// What goes in
    #[command(flatten)]
    pub backup: BackupFlags,
    /// Exit code
    #[command(flatten)]
    pub exit: ExitFlags,
    /// client: print what would be created, and create nothing
    #[arg(long, value_enum, value_name = "none|client", default_value_t, num_args = 0..=1, require_equals = true,
        default_missing_value = "client", hide_possible_values = true, conflicts_with = "local", help_heading = "Job")]
    pub dry_run: DryRun,
    /// The Job
    #[command(flatten)]
    pub job: JobFlags,
}

/// `kubectl ark backup delete`
#[derive(Clone, Debug, Args)]
#[command(
    override_usage = "kubectl ark backup delete NAME... [OPTIONS]\n       kubectl ark backup delete [-l SELECTOR] [--older-than DURATION] \
                      [OPTIONS]\n       kubectl ark backup delete --all [OPTIONS]",
    after_help = "A Job deletes them; this command shows how it goes, and ends with it. Names are whole names here. Backups that Velero, original Ark or another \
                  cluster made are deleted by name only."
)]
pub struct BackupDeleteArgs {
    /// Names
    #[arg(value_name = "NAME", required_unless_present_any = ["selector", "all", "older_than"])]
    pub names: Vec<String>,
    /// Those whose labels match
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "names")]
    pub selector: Option<String>,
    /// All of this cluster's
    #[arg(long, conflicts_with_all = ["names", "selector"])]
    pub all: bool,
    /// Those begun longer ago than this, such as 7d or 720h
    #[arg(long, value_name = "DURATION", conflicts_with = "names")]
    pub older_than: Option<String>,
    /// Delete without being asked
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Where from
    #[command(flatten)]
    pub place: PlaceFlags,
    /// How it is run
    #[command(flatten)]
    pub run: RunFlags,
}

/// `kubectl ark backup undelete`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "'kubectl ark backup get --show-deleted' lists the backups whose deletion has begun, and whether it can be taken back."
)]
pub struct BackupUndeleteArgs {
    /// Names
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Where from
    #[command(flatten)]
    pub place: PlaceFlags,
    /// How it is run
    #[command(flatten)]
    pub run: RunFlags,
}

/// `backup get`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "With --location, --storage or --local what is stored is listed, else Backup resources."
)]
pub struct BackupGetArgs {
    /// What every noun's get has
    #[command(flatten)]
    pub get: GetArgs,
    /// Those whose deletion has begun, and whether 'backup undelete' can take it back; a short-lived pod reads storage
    #[arg(long, conflicts_with_all = ["names", "selector"])]
    pub show_deleted: bool,
    /// Where from
    #[command(flatten)]
    pub source: SourceFlags,
}

/// `backup describe`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "With --location, --storage or --local what is stored is described, else the Backup resource."
)]
pub struct BackupDescribeArgs {
    /// Names, unique beginnings of names, latest, or SCHEDULE/latest
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Also list the objects inside, by type, and the state of its snapshots; a short-lived pod reads their names from storage
    #[arg(long)]
    pub details: bool,
    /// Also say whether this cluster can take it: types, storage classes, drivers of snapshots; a short-lived pod reads storage
    #[arg(long)]
    pub check: bool,
    /// Where from
    #[command(flatten)]
    pub source: SourceFlags,
}

/// `backup logs`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "When the pod is gone: of a backup that is stored, the log comes from storage by a short-lived pod; of one that \
                  failed, from what was kept in the cluster."
)]
pub struct BackupLogsArgs {
    /// Name, unique beginning of it, latest, or SCHEDULE/latest
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Keep printing as it is written
    #[arg(long, short = 'f', conflicts_with_all = ["location", "storage", "local"])]
    pub follow: bool,
    /// Where from
    #[command(flatten)]
    pub source: SourceFlags,
}

/// `backup download`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A short-lived pod reads the archive, so only the cluster needs access to the bucket. Every byte is compared with its \
                  SHA-256 before the file gets its name, or before the first byte is printed."
)]
pub struct DownloadArgs {
    /// Name of the backup, unique beginning of it, latest, or SCHEDULE/latest
    #[arg(value_name = "NAME")]
    pub name: String,
    /// File to write, <NAME>.tar.gz if not given; '-' is standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Overwrite the file if it exists
    #[arg(long)]
    pub force: bool,
    /// Where from
    #[command(flatten)]
    pub source: SourceFlags,
}

/// `backup show`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A short-lived pod reads just this object, checked like everything that is restored."
)]
pub struct ShowArgs {
    /// Name of the backup, unique beginning of it, latest, or SCHEDULE/latest
    #[arg(value_name = "BACKUP")]
    pub name: String,
    /// The object: NAMESPACE/TYPE/NAME, or TYPE/NAME of a cluster-scoped one
    #[arg(value_name = "NAMESPACE/TYPE/NAME")]
    pub object: String,
    /// As it was stored, with what the API server and controllers wrote
    #[arg(long)]
    pub all_fields: bool,
    /// How to print it
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub output: ShowFormat,
    /// Where from
    #[command(flatten)]
    pub source: SourceFlags,
}
