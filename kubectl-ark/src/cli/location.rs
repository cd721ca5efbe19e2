//! What is typed after `kubectl ark location`.

use super::{CreateFormat, DescribeArgs, DryRun, GetArgs, LocationAccess};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `kubectl ark location …`
#[derive(Clone, Debug, Subcommand)]
pub enum LocationCommand {
    /// Say where backups can be: a storage location, synced and expired hourly
    Create(Box<LocationCreateArgs>),
    /// List storage locations
    #[command(alias = "list")]
    Get(GetArgs),
    /// Show storage locations in full
    Describe(DescribeArgs),
    /// Forget storage locations; what is stored stays
    Delete(SomeLocations),
}

/// `kubectl ark location create`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "'kubectl ark install --location-name NAME' with the same flags changes one that is there."
)]
pub struct LocationCreateArgs {
    /// Name of the location, for --location
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where it is: s3://bucket/prefix?region=…&endpoint=…&path-style=true
    #[arg(long, value_name = "URL")]
    pub storage: String,
    /// What may be done with it
    #[arg(long, value_enum, value_name = "MODE", default_value = "read-write")]
    pub access_mode: LocationAccess,
    /// AWS shared-credentials file, put into a Secret; without, the pod's own identity
    #[arg(long, value_name = "FILE")]
    pub credentials_file: Option<PathBuf>,
    /// Secret in Ark's namespace that has such a file under the key 'cloud', if you make it yourself
    #[arg(long, value_name = "NAME", conflicts_with = "credentials_file")]
    pub credentials_secret: Option<String>,
    /// client: print what would be created, and create nothing
    #[arg(long, value_enum, value_name = "none|client", default_value_t, num_args = 0..=1, require_equals = true,
        default_missing_value = "client", hide_possible_values = true)]
    pub dry_run: DryRun,
    /// Print the created objects
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT")]
    pub output: Option<CreateFormat>,
}

/// `kubectl ark location delete`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "One that a schedule or another CronJob uses is not deleted. Its backups stay in storage, and its Backup resources \
                  in the cluster."
)]
pub struct SomeLocations {
    /// Names
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Taken for scripts that give it to every delete: nothing is asked here
    #[arg(long, short = 'y', hide = true)]
    pub yes: bool,
}
