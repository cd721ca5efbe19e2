//! `ark-job volumes`: the snapshots that backups record, their state now, and those that no backup records.

use crate::args::{PlanFormat, VolumesArgs};
use crate::context::{Context, Outcome};
use crate::error::Failure;
use crate::exit::Exit;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only those of these backups; all when empty.
    pub backups: Vec<String>,
    /// Only those that no backup records.
    pub orphans: bool,
    /// How they are printed.
    pub output: PlanFormat,
}

impl Options {
    /// Checks what was typed.
    ///
    /// # Errors
    /// [`Exit::Usage`], with what is wrong.
    pub fn resolve(arguments: &VolumesArgs) -> Result<Options, Failure> {
        let VolumesArgs {
            backups,
            storage: _,
            orphans,
            output,
        } = arguments;
        Ok(Options {
            backups: backups.clone(),
            orphans: *orphans,
            output: *output,
        })
    }
}

/// Lists them.
///
/// # Errors
/// When not everything could be read.
pub async fn list(_context: &Context, _options: &Options) -> Result<Outcome, Failure> {
    Err(Failure::new(Exit::Failed, "volumes cannot be listed yet"))
}
