//! What is typed after `kubectl ark doctor`.

use super::{GetFormat, SourceFlags};
use clap::Args;
use std::path::PathBuf;

/// `kubectl ark doctor`
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Also write an archive for whoever helps: versions, settings, states and logs, without secrets
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub bundle: Option<Option<PathBuf>>,
    /// How to print the checks
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub output: GetFormat,
    /// Where backups are
    #[command(flatten)]
    pub source: SourceFlags,
}
