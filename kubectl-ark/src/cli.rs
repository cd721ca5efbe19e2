//! The command line of `kubectl ark`: what was typed, and nothing else.
//!
//! Flags that `ark-job` has too are its own types, flattened; [`crate::options`] turns everything into typed values.

use ark_job::api::{AccessMode, DEFAULT_NAMESPACE};
use ark_job::args::{
    BackupFlags, ExitFlags, ExpireFlags, PlanFormat, RestoreFlags, SelectFlags, ShowFormat,
    StorageFlags,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Disaster recovery and migration for Kubernetes, with nothing running between operations.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kubectl-ark",
    bin_name = "kubectl ark",
    version,
    about,
    max_term_width = 120,
    infer_subcommands = false,
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
}

/// The commands; each noun's verbs may also be written verb first, as in Ark: `kubectl ark get backups`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Install or upgrade Ark in the cluster: resource types, rights, pod settings, storage location
    Install(Box<InstallArgs>),
    /// Create and look at backups
    #[command(subcommand, alias = "backups")]
    Backup(BackupCommand),
    /// Create and look at restores
    #[command(subcommand, alias = "restores")]
    Restore(RestoreCommand),
    /// Create and look at schedules: backups again and again
    #[command(subcommand, alias = "schedules")]
    Schedule(ScheduleCommand),
    /// Create a backup, a restore or a schedule
    #[command(subcommand)]
    Create(CreateCommand),
    /// List backups, restores or schedules
    #[command(subcommand)]
    Get(GetCommand),
    /// Show backups, restores or schedules in full
    #[command(subcommand)]
    Describe(DescribeCommand),
    /// Delete backups or schedules
    #[command(subcommand)]
    Delete(DeleteCommand),
    /// Show the log of a backup or a restore
    #[command(subcommand)]
    Logs(LogsCommand),
    /// Compare a backup with the cluster or with another backup
    Diff(Box<DiffArgs>),
    /// Delete now what has expired, as the hourly sweep does
    Expire(Box<ExpireArgs>),
    /// Make Backup resources agree now with what is in storage, as the hourly sync does
    Sync(SyncArgs),
    /// List the snapshots of volumes that backups record, their state now, and those that no backup records
    Volumes(VolumesArgs),
    /// Switch restore-only mode on or off: in it nothing is backed up, deleted or expired
    #[command(subcommand)]
    RestoreOnly(RestoreOnlyCommand),
    /// Show the versions of the plugin and of what is installed
    Version(VersionArgs),
}

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
}

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
    /// Make a backup of the schedule now
    Run(ScheduleRunArgs),
}

/// `kubectl ark delete …`
#[derive(Clone, Debug, Subcommand)]
pub enum DeleteCommand {
    /// Delete backups: their snapshots, files, restores and resources
    #[command(alias = "backups")]
    Backup(Box<BackupDeleteArgs>),
    /// Delete schedules; their backups stay
    #[command(alias = "schedules")]
    Schedule(SomeSchedules),
}

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

/// `kubectl ark create …`
#[derive(Clone, Debug, Subcommand)]
pub enum CreateCommand {
    /// Back up the cluster's objects, by a Job
    Backup(Box<BackupCreateArgs>),
    /// Restore objects from a backup, by a Job
    Restore(Box<RestoreCreateArgs>),
    /// Back up again and again, by a CronJob; the first time at once
    Schedule(Box<ScheduleCreateArgs>),
}

/// `kubectl ark get …`
#[derive(Clone, Debug, Subcommand)]
pub enum GetCommand {
    /// List backups
    #[command(alias = "backup")]
    Backups(BackupGetArgs),
    /// List restores
    #[command(alias = "restore")]
    Restores(GetArgs),
    /// List schedules
    #[command(alias = "schedule")]
    Schedules(GetArgs),
}

/// `kubectl ark describe …`
#[derive(Clone, Debug, Subcommand)]
pub enum DescribeCommand {
    /// Show backups in full
    #[command(alias = "backups")]
    Backup(BackupDescribeArgs),
    /// Show restores in full
    #[command(alias = "restores")]
    Restore(DescribeArgs),
    /// Show schedules in full: last, next and last good backup
    #[command(alias = "schedules")]
    Schedule(DescribeArgs),
}

/// `kubectl ark logs …`
#[derive(Clone, Debug, Subcommand)]
pub enum LogsCommand {
    /// Show the log of a backup, also when its pod is gone
    Backup(BackupLogsArgs),
    /// Show the log of a restore
    Restore(LogsArgs),
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
}

/// `kubectl ark schedule run`
#[derive(Clone, Debug, Args)]
pub struct ScheduleRunArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Wait until it is done, showing progress; the exit code is the backup's
    #[arg(long, short = 'w')]
    pub wait: bool,
    /// Print the created Job
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT")]
    pub output: Option<CreateFormat>,
}

/// `kubectl ark backup delete`
#[derive(Clone, Debug, Args)]
#[command(
    override_usage = "kubectl ark backup delete NAME... [OPTIONS]\n       kubectl ark backup delete [--selector SELECTOR] \
                      [--older-than DURATION] [OPTIONS]\n       kubectl ark backup delete --all [OPTIONS]",
    after_help = "A Job deletes them; this command shows how it goes, and ends with it. Backups that Velero, original Ark or another \
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
    /// Those begun longer ago than this (a Go duration, such as 720h)
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

/// Where something is done, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Storage")]
pub struct PlaceFlags {
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// Do it in this process with your own rights, without a Job; storage is ~/.kubectl-ark/backups unless given
    #[arg(long, conflicts_with_all = ["ttl_after_finished", "deadline"])]
    pub local: bool,
}

/// How a Job of housekeeping is run.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(next_help_heading = "Job")]
pub struct RunFlags {
    /// Wait until it is done, showing its log; the exit code is the operation's
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true",
        action = clap::ArgAction::Set)]
    pub wait: bool,
    /// client: print the Job, and create nothing
    #[arg(long, value_enum, value_name = "none|client", default_value_t, num_args = 0..=1, require_equals = true,
        default_missing_value = "client", hide_possible_values = true, conflicts_with = "local")]
    pub dry_run: DryRun,
    /// Print the created Job
    #[arg(
        long,
        short = 'o',
        value_enum,
        value_name = "FORMAT",
        conflicts_with = "local"
    )]
    pub output: Option<CreateFormat>,
    /// How long it may take, and is kept
    #[command(flatten)]
    pub life: LifeFlags,
}

/// How long a Job may take, and is kept.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(next_help_heading = "Job")]
pub struct LifeFlags {
    /// Keep the finished Job this long, or 'never' delete it
    #[arg(
        long,
        value_name = "DURATION|never",
        default_value = DEFAULT_TTL_AFTER_FINISHED
    )]
    pub ttl_after_finished: String,
    /// End the Job after this time, all retries included; 0 is no limit
    #[arg(long, value_name = "DURATION", default_value = DEFAULT_DEADLINE)]
    pub deadline: String,
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

/// Which backup is restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct BackupFlag {
    /// The backup to restore; with --from-backup or --from-schedule: the name of the restore, <BACKUP>-<YYYYMMDDhhmmss> by
    /// default
    #[arg(value_name = "BACKUP | NAME")]
    pub name: Option<String>,
    /// The backup to restore
    #[arg(long, value_name = "BACKUP", conflicts_with = "from_schedule")]
    pub from_backup: Option<String>,
    /// Restore the newest complete backup of this schedule
    #[arg(long, value_name = "SCHEDULE")]
    pub from_schedule: Option<String>,
    /// Also one from which something is missing
    #[arg(long, requires = "from_schedule")]
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

/// How an operation is run, and what is printed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Job")]
pub struct JobFlags {
    /// Wait until it is done, showing progress; the exit code is the operation's
    #[arg(long, short = 'w')]
    pub wait: bool,
    /// Print the created objects
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT")]
    pub output: Option<CreateFormat>,
    /// Do it in this process with your own rights, without a Job; storage is ~/.kubectl-ark/backups unless given
    #[arg(long, conflicts_with_all = ["output", "ttl_after_finished", "deadline"])]
    pub local: bool,
    /// How long it may take, and is kept
    #[command(flatten)]
    pub life: LifeFlags,
}

/// A day: long enough to look at what happened, short enough that Jobs do not pile up.
pub const DEFAULT_TTL_AFTER_FINISHED: &str = "24h";
/// Far longer than any operation takes; ends a Job that hangs before the next night's one starts.
pub const DEFAULT_DEADLINE: &str = "6h";

/// Whether anything is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Create
    #[default]
    None,
    /// Only print
    Client,
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

/// How created objects are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CreateFormat {
    /// As YAML
    Yaml,
    /// As JSON
    Json,
    /// type/name
    Name,
}

/// How listed objects are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GetFormat {
    /// A table
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// As JSON
    Json,
    /// As YAML
    Yaml,
    /// type/name
    Name,
}

/// `… get`
#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// Names; all without
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Only those whose labels match
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "names")]
    pub selector: Option<String>,
    /// How to print them
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub output: GetFormat,
    /// Leave out the table's header
    #[arg(long)]
    pub no_headers: bool,
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

/// `… describe`
#[derive(Clone, Debug, Args)]
pub struct DescribeArgs {
    /// Names
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// Where a backup is read from, when it is read.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Storage")]
pub struct SourceFlags {
    /// Where backups are
    #[command(flatten)]
    pub storage: StorageFlags,
    /// Read in this process with your own access to storage, without a pod; from ~/.kubectl-ark/backups unless given
    #[arg(long)]
    pub local: bool,
}

/// `backup describe`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "With --location, --storage or --local what is stored is described, else the Backup resource."
)]
pub struct BackupDescribeArgs {
    /// Names
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Also list the objects inside, by type, and the state of its snapshots; a short-lived pod reads their names from storage
    #[arg(long)]
    pub details: bool,
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
    /// Name
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
    /// Name of the backup
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
    /// Name of the backup
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

/// `kubectl ark diff`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "A short-lived pod compares, with the rights of a backup. Exit codes: 0 the same, 1 different, above 1 failed."
)]
pub struct DiffArgs {
    /// Name of the backup
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

/// `… logs`
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Keep printing as it is written
    #[arg(long, short = 'f')]
    pub follow: bool,
}

/// `kubectl ark version`
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// Only the plugin's own version; asks no cluster
    #[arg(long)]
    pub client: bool,
    /// How to print it
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT")]
    pub output: Option<VersionFormat>,
}

/// How versions are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VersionFormat {
    /// As YAML
    Yaml,
    /// As JSON
    Json,
}

/// How restores get their rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RestoreRights {
    /// cluster-admin is bound by `restore create`, with the rights of whoever runs it, and unbound after the restore
    OnDemand,
    /// cluster-admin is bound by `install` and stays; for restores that GitOps creates
    Standing,
}

/// What `install` may do with a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LocationAccess {
    /// Write and delete backups
    #[value(name = "read-write", alias = "ReadWrite")]
    ReadWrite,
    /// Only restore from it
    #[value(name = "read-only", alias = "ReadOnly")]
    ReadOnly,
}

impl From<LocationAccess> for AccessMode {
    fn from(access: LocationAccess) -> AccessMode {
        match access {
            LocationAccess::ReadWrite => AccessMode::ReadWrite,
            LocationAccess::ReadOnly => AccessMode::ReadOnly,
        }
    }
}

/// `kubectl ark install`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Installing again upgrades. Pod settings, rights, mode, cluster name, and a location's mode and credentials that are there stay as they are where \
                  no flag says otherwise (--reset-pod-template starts afresh)."
)]
pub struct InstallArgs {
    /// Where backups are: s3://bucket/prefix?region=…&endpoint=…&path-style=true
    #[arg(long, value_name = "URL", help_heading = "Storage")]
    pub storage: Option<String>,
    /// Name of the BackupStorageLocation that --storage makes, or --access-mode changes; 'default' if not given
    #[arg(long, value_name = "NAME", help_heading = "Storage")]
    pub location_name: Option<String>,
    /// What may be done with the location; read-write if it is new
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Storage")]
    pub access_mode: Option<LocationAccess>,
    /// AWS shared-credentials file for the location, put into a Secret; without, of a new one: the pod's own identity
    #[arg(
        long,
        value_name = "FILE",
        requires = "storage",
        help_heading = "Storage"
    )]
    pub credentials_file: Option<PathBuf>,
    /// Secret in Ark's namespace that has such a file under the key 'cloud', if you make it yourself
    #[arg(
        long,
        value_name = "NAME",
        requires = "storage",
        conflicts_with = "credentials_file",
        help_heading = "Storage"
    )]
    pub credentials_secret: Option<String>,
    /// Image with ark-job
    #[arg(long, value_name = "IMAGE", help_heading = "Pods")]
    pub image: Option<String>,
    /// When to pull the image: Always, IfNotPresent, Never
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"], help_heading = "Pods")]
    pub image_pull_policy: Option<String>,
    /// Secret to pull the image with (repeatable)
    #[arg(long, value_name = "NAME", help_heading = "Pods")]
    pub image_pull_secret: Vec<String>,
    /// Taint that pods tolerate: KEY[=VALUE][:EFFECT] (repeatable)
    #[arg(long, value_name = "TAINT", help_heading = "Pods")]
    pub toleration: Vec<String>,
    /// Label of the nodes to run on: KEY=VALUE (repeatable)
    #[arg(long, value_name = "LABEL", help_heading = "Pods")]
    pub node_selector: Vec<String>,
    /// Environment variable of the pods, such as a proxy's: NAME=VALUE (repeatable)
    #[arg(long, value_name = "VARIABLE", help_heading = "Pods")]
    pub env: Vec<String>,
    /// YAML file with a PodTemplate (or its template) to merge into the pod settings
    #[arg(long, value_name = "FILE", help_heading = "Pods")]
    pub pod_template: Option<PathBuf>,
    /// Start from the default pod settings, not from those that are there
    #[arg(long, help_heading = "Pods")]
    pub reset_pod_template: bool,
    /// Annotation of the service accounts, such as a cloud role: KEY=VALUE (repeatable)
    #[arg(long, value_name = "ANNOTATION", help_heading = "Rights")]
    pub service_account_annotation: Vec<String>,
    /// How restores get their rights
    #[arg(long, value_enum, value_name = "WHEN", help_heading = "Rights")]
    pub restore_rights: Option<RestoreRights>,
    /// Let backups run hooks: the right to run commands in every pod; 'false' takes it away
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Rights")]
    pub hooks: Option<bool>,
    /// Back up, delete and expire nothing in this cluster: to restore what another cluster backs up
    #[arg(long)]
    pub restore_only: bool,
    /// Name of this cluster, recorded in its backups; by default the kubeconfig's
    #[arg(long, value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// client: print what would be applied, and apply nothing
    #[arg(long, value_enum, value_name = "none|client", default_value_t, num_args = 0..=1, require_equals = true, default_missing_value = "client", hide_possible_values = true)]
    pub dry_run: DryRun,
    /// Print the applied objects
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT")]
    pub output: Option<CreateFormat>,
    /// Take over fields that someone else has changed
    #[arg(long)]
    pub force_conflicts: bool,
}
