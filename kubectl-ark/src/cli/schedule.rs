//! What is typed after `kubectl ark schedule`.

use super::{
    CreateFormat, DEFAULT_DEADLINE, DEFAULT_TTL_AFTER_FINISHED, DescribeArgs, DryRun, GetArgs,
};
use ark_job::args::{BackupFlags, ExitFlags, StorageFlags};
use clap::{Args, Subcommand};

/// `kubectl ark schedule …`
#[derive(Clone, Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Back up again and again, by a CronJob; the first time at once
    Create(Box<ScheduleCreateArgs>),
    /// List schedules
    #[command(alias = "list")]
    Get(GetArgs),
    /// Show schedules in full: last, next and last good backup
    Describe(DescribeArgs),
    /// Make no backups until unpaused
    Pause(SomeSchedules),
    /// Go on making backups
    Unpause(SomeSchedules),
    /// Delete schedules; their backups stay
    Delete(SomeSchedules),
    /// Make backups of schedules now
    Run(ScheduleRunArgs),
}

/// `kubectl ark schedule create`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A CronJob of that name makes the backups, called NAME-<YYYYMMDDhhmmss> in UTC; a Job makes the first one at once, \
                  unless --paused. Both are printed by --dry-run=client -o yaml, for Git; a CronJob applied without the Job makes its \
                  first backup at the next time."
)]
pub struct ScheduleCreateArgs {
    /// Name of the schedule, at most 48 characters
    #[arg(value_name = "NAME")]
    pub name: String,
    /// When: minute hour day-of-month month day-of-week, as CronJobs have it, or @hourly, @daily, @weekly, @every 6h
    #[arg(long, value_name = "CRON", help_heading = "Schedule")]
    pub schedule: String,
    /// Time zone of it, such as Europe/Berlin; that of the cluster's controller manager (mostly UTC) if not given
    #[arg(long, value_name = "ZONE", help_heading = "Schedule")]
    pub time_zone: Option<String>,
    /// How many of the newest Completed backups never expire
    #[arg(long, value_name = "N", default_value_t = ark_job::schedule::DEFAULT_KEEP_LAST, help_heading = "Schedule")]
    pub keep_last: u32,
    /// Make no backups until unpaused, not even the first
    #[arg(long, help_heading = "Schedule")]
    pub paused: bool,
    /// How late a backup may start; later, it is left out
    #[arg(long, value_name = "DURATION", default_value = DEFAULT_STARTING_DEADLINE, help_heading = "Schedule")]
    pub starting_deadline: String,
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
        default_missing_value = "client", hide_possible_values = true, help_heading = "Job")]
    pub dry_run: DryRun,
    /// Wait until the first backup is done, showing progress; the exit code is the backup's
    #[arg(long, short = 'w', help_heading = "Job")]
    pub wait: bool,
    /// Print the created objects
    #[arg(
        long,
        short = 'o',
        value_enum,
        value_name = "FORMAT",
        help_heading = "Job"
    )]
    pub output: Option<CreateFormat>,
    /// Keep a finished Job this long, or 'never' delete it
    #[arg(long, value_name = "DURATION|never", default_value = DEFAULT_TTL_AFTER_FINISHED, help_heading = "Job")]
    pub ttl_after_finished: String,
    /// End a Job after this time, all retries included; 0 is no limit
    #[arg(long, value_name = "DURATION", default_value = DEFAULT_DEADLINE, help_heading = "Job")]
    pub deadline: String,
}

/// Long enough for a cluster that was down over breakfast; a nightly backup is not made at noon.
pub const DEFAULT_STARTING_DEADLINE: &str = "1h";

/// Schedules, by name or label, or all.
#[derive(Clone, Debug, Args)]
pub struct SomeSchedules {
    /// Names
    #[arg(value_name = "NAME", required_unless_present_any = ["selector", "all"])]
    pub names: Vec<String>,
    /// Those whose labels match
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "names")]
    pub selector: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["names", "selector"])]
    pub all: bool,
    /// Taken for scripts that give it to every delete: nothing is asked here
    #[arg(long, short = 'y', hide = true)]
    pub yes: bool,
}

/// `kubectl ark schedule run`
#[derive(Clone, Debug, Args)]
pub struct ScheduleRunArgs {
    /// Names
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Wait until all are done, showing progress of each; the exit code is the worst one's
    #[arg(long, short = 'w')]
    pub wait: bool,
    /// Print the created Jobs
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT")]
    pub output: Option<CreateFormat>,
}
