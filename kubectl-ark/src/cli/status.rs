//! What is typed after `kubectl ark status`.

use super::VersionFormat;
use clap::Args;

/// `kubectl ark status`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "It reads what sync, expiry and backups have left in the cluster, starts nothing and changes nothing; 'kubectl ark \
                  doctor' tries storage and rights out.\n\n\
                  Exit codes: 0 healthy, 1 something needs attention, 10 not installed.\n\n\
                  Examples:\n  kubectl ark status\n  kubectl ark status -o json"
)]
pub struct StatusArgs {
    /// Print it for programs, with all fields
    #[arg(
        long,
        short = 'o',
        value_enum,
        value_name = "json|yaml",
        hide_possible_values = true
    )]
    pub output: Option<VersionFormat>,
}
