//! What is typed after `kubectl ark doctor`.

use super::SourceFlags;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `kubectl ark doctor`
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Also write an archive for whoever helps: versions, settings, states and logs, without secrets
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub bundle: Option<Option<PathBuf>>,
    /// Check the permissions of EC2 also when no volume of the cluster is one of EBS
    #[arg(long)]
    pub ec2: bool,
    /// How to print the checks
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub output: DoctorFormat,
    /// Where backups are
    #[command(flatten)]
    pub source: SourceFlags,
}

/// How checks are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    /// A line each, and what to do below it
    #[default]
    Table,
    /// As JSON
    Json,
    /// As YAML
    Yaml,
}
