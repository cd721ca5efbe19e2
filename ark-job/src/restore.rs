//! Restore (placeholder until the branch lands).
use crate::args::RestoreArgs;
use crate::error::Failure;
use crate::run::{Context, Outcome};
/// Options.
pub struct Options;
impl Options {
    /// resolve
    pub fn resolve(_: &RestoreArgs) -> Result<Options, Failure> {
        Ok(Options)
    }
}
/// restore
pub async fn restore(_: &Context, _: &Options) -> Result<Outcome, Failure> {
    Err(Failure::new(
        crate::exit::Exit::Failed,
        "restore is not merged yet",
    ))
}
/// interrupted
pub async fn interrupted(_: &Context, _: &Options) {}
