//! What is typed after `kubectl ark status`.

use super::GetFormat;
use clap::Args;

/// `kubectl ark status`
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// How to print it
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t)]
    pub output: GetFormat,
}
