//! `schedule …`: what was typed, checked.

use crate::Surroundings;
use crate::cli::ScheduleCommand;
use ark_job::error::Failure;
use ark_job::exit::Exit;

/// What to do with schedules.
#[derive(Clone, Debug)]
pub struct Options {}

/// Checks what was typed.
///
/// # Errors
/// [`Exit::Usage`], with what is wrong.
pub fn resolve(
    _namespace: &str,
    _command: ScheduleCommand,
    _surroundings: &Surroundings,
) -> Result<Options, Failure> {
    Err(Failure::new(Exit::Failed, "schedule: not there yet"))
}
