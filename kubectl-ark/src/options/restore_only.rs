//! `restore-only …`: what was typed.

use crate::cli::{RestoreOnlyCommand, RestoreOnlyOffArgs};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Ark's namespace.
    pub namespace: String,
    /// What becomes of the mode.
    pub wanted: Wanted,
}

/// What becomes of the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is switched on.
    On,
    /// It is switched off.
    Off {
        /// Expiry goes on, too.
        resume_expiry: bool,
    },
    /// It is told.
    Status,
}

/// As typed values.
pub fn resolve(namespace: &str, command: RestoreOnlyCommand) -> Options {
    Options {
        namespace: namespace.to_owned(),
        wanted: match command {
            RestoreOnlyCommand::On => Wanted::On,
            RestoreOnlyCommand::Off(RestoreOnlyOffArgs { resume_expiry }) => {
                Wanted::Off { resume_expiry }
            }
            RestoreOnlyCommand::Status => Wanted::Status,
        },
    }
}
