//! What is typed after `kubectl ark location`.

use super::{DescribeArgs, GetArgs};
use clap::Subcommand;

/// `kubectl ark location …`
#[derive(Clone, Debug, Subcommand)]
pub enum LocationCommand {
    /// List storage locations
    #[command(alias = "list")]
    Get(GetArgs),
    /// Show storage locations in full
    Describe(DescribeArgs),
}
