//! What is typed after `kubectl ark completion`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `kubectl ark completion`
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "For 'kubectl ark', kubectl itself must be set up (kubectl completion --help) and find a program called \
                  kubectl_complete-ark, which 'kubectl ark completion install' makes. The code for a shell is for those who call the plugin \
                  by its file's name."
)]
pub struct CompletionArgs {
    /// Which shell, or what to make
    #[command(subcommand)]
    pub what: CompletionCommand,
}

/// The shells that can complete, and kubectl.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum CompletionCommand {
    /// Print the code for bash
    Bash,
    /// Print the code for zsh
    Zsh,
    /// Print the code for fish
    Fish,
    /// Print the code for PowerShell
    #[command(name = "powershell")]
    PowerShell,
    /// Put kubectl_complete-ark on the PATH, so that kubectl completes 'kubectl ark'
    Install(CompletionInstallArgs),
}

/// `kubectl ark completion install`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CompletionInstallArgs {
    /// Directory of the PATH to put it into; the plugin's own if not given
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: Option<PathBuf>,
}
