//! Flags and formats that several commands share.

use ark_job::args::StorageFlags;
use clap::{Args, ValueEnum};

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

/// How an operation is run, and what is printed.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Job")]
pub struct JobFlags {
    /// Wait until it is done, showing progress; the exit code is the operation's (at 'get', -w is --watch)
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

/// Whether it is done, with the cluster's own word on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ServerDryRun {
    /// It is done
    #[default]
    None,
    /// Only what would be done is printed
    Client,
    /// The API server says what would come of it
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
    /// wide, json, yaml, name, jsonpath=TEMPLATE, jsonpath-file=FILE, custom-columns=NAME:PATH,…, as kubectl
    #[arg(long, short = 'o', value_name = "FORMAT")]
    pub output: Option<String>,
    /// Leave out the table's header
    #[arg(long)]
    pub no_headers: bool,
    /// Sort by the field at this path, such as .metadata.creationTimestamp
    #[arg(long, value_name = "PATH")]
    pub sort_by: Option<String>,
    /// Go on, and print what changes, until Ctrl-C (at 'create', -w is --wait)
    #[arg(long, short = 'w')]
    pub watch: bool,
    /// Print only what changes
    #[arg(long)]
    pub watch_only: bool,
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
