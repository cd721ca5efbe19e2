//! What is typed after `kubectl ark restore`.

use super::{DescribeArgs, GetArgs, JobFlags, LogsArgs, PlaceFlags, RunFlags, SourceFlags};
use ark_job::args::{ExitFlags, PlanFormat, RestoreFlags, StorageFlags};
use clap::{Args, Subcommand, ValueEnum};

/// `kubectl ark restore …`
#[derive(Clone, Debug, Subcommand)]
pub enum RestoreCommand {
    /// Restore objects from a backup, by a Job
    Create(Box<RestoreCreateArgs>),
    /// Print what a restore would do, and change nothing
    Plan(Box<RestorePlanArgs>),
    /// List restores
    #[command(alias = "list")]
    Get(GetArgs),
    /// Show restores in full
    Describe(DescribeArgs),
    /// Show the log of a restore
    Logs(LogsArgs),
    /// Delete restores: their logs, results and resources; what they restored stays
    Delete(Box<SomeRestores>),
}

/// `kubectl ark restore delete`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A Job deletes its log and results in storage, and then its Restore resource; this command shows how it goes, and ends with it. \
                  One that is at work is not deleted."
)]
pub struct SomeRestores {
    /// Names
    #[arg(value_name = "NAME", required_unless_present_any = ["selector", "all"])]
    pub names: Vec<String>,
    /// Those whose labels match
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "names")]
    pub selector: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["names", "selector"])]
    pub all: bool,
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

/// Which backup is restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct BackupFlag {
    /// The backup, latest, or SCHEDULE/latest; with --from-…: name of the restore
    ///
    /// The backup to restore: its name, the unique beginning of it, latest, or SCHEDULE/latest. With --from-backup or
    /// --from-schedule: the name of the restore, <BACKUP>-<YYYYMMDDhhmmss> by default.
    #[arg(value_name = "BACKUP | NAME")]
    pub name: Option<String>,
    /// The backup to restore
    #[arg(long, value_name = "BACKUP", conflicts_with = "from_schedule")]
    pub from_backup: Option<String>,
    /// Restore the newest complete backup of this schedule
    #[arg(long, value_name = "SCHEDULE")]
    pub from_schedule: Option<String>,
    /// Also one from which something is missing, with --from-schedule or latest
    #[arg(long)]
    pub allow_partially_failed: bool,
}

/// `kubectl ark restore create`
#[derive(Clone, Debug, Args)]
#[command(
    override_usage = "kubectl ark restore create BACKUP [OPTIONS]\n       kubectl ark restore create [NAME] --from-backup BACKUP [OPTIONS]\n       \
                      kubectl ark restore create [NAME] --from-schedule SCHEDULE [OPTIONS]",
    after_help = "A Job named restore-NAME does the work; this command returns when it is created, unless --wait is given."
)]
pub struct RestoreCreateArgs {
    /// Which backup
    #[command(flatten)]
    pub backup: BackupFlag,
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// What comes back
    #[command(flatten)]
    pub restore: RestoreFlags,
    /// Exit code
    #[command(flatten)]
    pub exit: ExitFlags,
    /// client: print the Job, and create nothing; server: print what would be restored, as 'restore plan' does
    #[arg(long, value_enum, value_name = "none|client|server", default_value_t, num_args = 0..=1, require_equals = true,
        default_missing_value = "client", hide_possible_values = true, help_heading = "Job")]
    pub dry_run: RestoreDryRun,
    /// The Job
    #[command(flatten)]
    pub job: JobFlags,
}

/// `kubectl ark restore plan`
#[derive(Clone, Debug, Args)]
#[command(
    mut_arg("yes", |arg| arg.hide(true)),
    mut_arg("again", |arg| arg.hide(true)),
    override_usage = "kubectl ark restore plan BACKUP [OPTIONS]\n       kubectl ark restore plan --from-schedule SCHEDULE [OPTIONS]",
    after_help = "A short-lived pod makes the plan, with the rights of a restore: you need to be able to give them, and pods/exec in \
                  Ark's namespace. Exit codes: 0 the restore would be complete, 3 something would be refused."
)]
pub struct RestorePlanArgs {
    /// Which backup
    #[command(flatten)]
    pub backup: BackupFlag,
    /// What would come back
    #[command(flatten)]
    pub restore: RestoreFlags,
    /// How to print it
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub output: PlanFormat,
    /// Where backups are
    #[command(flatten)]
    pub source: SourceFlags,
}

/// Whether a restore is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RestoreDryRun {
    /// It is
    #[default]
    None,
    /// Only its Job is printed
    Client,
    /// Only its plan is printed
    Server,
}
