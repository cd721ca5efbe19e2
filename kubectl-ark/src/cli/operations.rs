//! What is typed after `kubectl ark diff`, `expire`, `sync`, `volumes` and `restore-only`.

use super::{LifeFlags, PlaceFlags, RestoreDryRun, RunFlags, SourceFlags};
use ark_job::args::{ExitFlags, ExpireFlags, PlanFormat, SelectFlags};
use clap::{Args, Subcommand};

/// `kubectl ark restore-only …`
#[derive(Clone, Debug, Subcommand)]
pub enum RestoreOnlyCommand {
    /// Back up, delete and expire nothing: suspends schedules and expiry
    On,
    /// Go on: resumes the schedules that 'on' suspended, and shows what would expire
    Off(RestoreOnlyOffArgs),
    /// Say which mode it is, and what is suspended
    Status,
}

/// `kubectl ark expire`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A Job deletes what has expired; this command shows how it goes, and ends with it. Backups that Velero, original Ark or \
                  another cluster made stay unless asked for."
)]
pub struct ExpireArgs {
    /// What expires
    #[command(flatten)]
    pub expire: ExpireFlags,
    /// Exit code
    #[command(flatten)]
    pub exit: ExitFlags,
    /// server: print what would be deleted and kept, and why; client: print the Job; either way, delete nothing
    #[arg(long, value_enum, value_name = "none|client|server", default_value_t, num_args = 0..=1, require_equals = true,
        default_missing_value = "server", hide_possible_values = true)]
    pub dry_run: RestoreDryRun,
    /// Print the plan (text, json) or the created Job (yaml, json, name)
    #[arg(long, short = 'o', value_name = "FORMAT", value_parser = ["text", "yaml", "json", "name"])]
    pub output: Option<String>,
    /// Wait until it is done, showing its log; the exit code is the operation's
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true",
        action = clap::ArgAction::Set, help_heading = "Job")]
    pub wait: bool,
    /// How long it may take, and is kept
    #[command(flatten)]
    pub life: LifeFlags,
    /// Where
    #[command(flatten)]
    pub place: PlaceFlags,
}

/// `kubectl ark sync`
#[derive(Clone, Debug, Args)]
pub struct SyncArgs {
    /// Remove resources though storage lists no backup at all
    #[arg(long)]
    pub force: bool,
    /// Exit code
    #[command(flatten)]
    pub exit: ExitFlags,
    /// Where
    #[command(flatten)]
    pub place: PlaceFlags,
    /// How it is run
    #[command(flatten)]
    pub run: RunFlags,
}

/// `kubectl ark volumes`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A short-lived pod asks the cloud and the cluster, with the rights of housekeeping: you need pods/exec in Ark's \
                  namespace. With --local nothing is asked of the cloud: the state of its snapshots is unknown then. Orphans are \
                  deleted by 'kubectl ark expire', when they are old enough (--grace)."
)]
pub struct VolumesArgs {
    /// Only those of these backups
    #[arg(value_name = "BACKUP")]
    pub backups: Vec<String>,
    /// Only those that no backup records
    #[arg(long, conflicts_with = "backups")]
    pub orphans: bool,
    /// How to print them
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub output: PlanFormat,
    /// Where from
    #[command(flatten)]
    pub source: SourceFlags,
}

/// `kubectl ark restore-only off`
#[derive(Clone, Debug, Args)]
pub struct RestoreOnlyOffArgs {
    /// Let expiry go on, too: everything that 'kubectl ark expire --dry-run' names may be deleted within the hour
    #[arg(long)]
    pub resume_expiry: bool,
}

/// `kubectl ark diff`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A short-lived pod compares, with the rights of a backup. Exit codes: 0 the same, 1 different, above 1 failed."
)]
pub struct DiffArgs {
    /// Name of the backup, unique beginning of it, latest, or SCHEDULE/latest
    #[arg(value_name = "BACKUP")]
    pub name: String,
    /// Another backup to compare with, in the same place; the cluster if not given
    #[arg(value_name = "BACKUP2")]
    pub other: Option<String>,
    /// Which objects
    #[command(flatten)]
    pub select: SelectFlags,
    /// Also compare what the API server and controllers write
    #[arg(long)]
    pub all_fields: bool,
    /// Where from
    #[command(flatten)]
    pub source: SourceFlags,
}
