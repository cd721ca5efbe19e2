//! How an operation fails: what the user is told, what to do next, and the exit code.

use crate::exit::Exit;
use std::error::Error;
use std::fmt::Write;

/// Why an operation ended without a result.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure with the meaning `exit`; `message` says what failed on which object and why.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
            hint: None,
        }
    }

    /// A failure from an error and all its causes.
    pub fn from_error(exit: Exit, error: &dyn Error) -> Failure {
        Failure::new(exit, chain(error))
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what to do next, if anything is known.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Failure {
        self.hint = hint.or(self.hint);
        self
    }

    /// The exit code: the only mapping from failures to exit codes.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What failed.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next.
    pub fn next_step(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// An error and its causes as one line, each text once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Libraries often repeat the cause in their own text.
        if !text.ends_with(&cause_text) {
            let _infallible = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}
