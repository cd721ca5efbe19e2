//! `uninstall …`: what was typed.

use super::usage;
use crate::Surroundings;
use crate::cli::{ServerDryRun, UninstallArgs};
use ark_job::error::Failure;

/// What to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Ark's namespace.
    pub namespace: String,
    /// The resource types as well, and with them all records.
    pub crds: bool,
    /// Show what goes, and ask.
    pub ask: bool,
    /// Whether it is done.
    pub dry_run: ServerDryRun,
}

/// Checks what was typed.
///
/// # Errors
/// [`ark_job::exit::Exit::Usage`] when nobody can be asked.
pub fn resolve(
    namespace: &str,
    args: UninstallArgs,
    surroundings: &Surroundings,
) -> Result<Options, Failure> {
    let UninstallArgs { crds, yes, dry_run } = args;
    let ask = !yes && dry_run == ServerDryRun::None;
    if ask && !surroundings.input {
        let why = "uninstalling needs consent, and there is no terminal to ask on";
        return Err(usage(why.into()).hint(
            "--yes removes without being asked; --dry-run=client shows what would be removed",
        ));
    }
    Ok(Options {
        namespace: namespace.to_owned(),
        crds,
        ask,
        dry_run,
    })
}
