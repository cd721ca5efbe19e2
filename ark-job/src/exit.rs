//! The exit codes of `ark-job`, and of `kubectl ark` when it waits for a Job.
//!
//! The numbers are a contract with scripts, with the `podFailurePolicy` of rendered Jobs, and with the plugin, which
//! reads them back from a finished pod. They never change meaning.

use std::fmt;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Done, nothing missing.
    Done,
    /// Failed; a retry may help.
    Failed,
    /// A comparison was made, and found a difference: 1, as diff's. Only of comparisons, whose failures are 2
    /// ([`Exit::code_of_comparison`]), so it is not among [`Exit::ALL`].
    Different,
    /// The command line is wrong.
    Usage,
    /// Finished, with errors: something is missing and is named in the results.
    PartiallyFailed,
    /// Refused, because the installation or the location is restore-only.
    Refused,
    /// What is stored does not have the recorded digest, or is not what it claims to be.
    Integrity,
    /// The backup, restore, location or bucket does not exist.
    NotFound,
    /// The name is taken by another run.
    Conflict,
    /// Ended by SIGINT or SIGTERM.
    Interrupted,
}

impl Exit {
    /// Every exit code, in numeric order.
    pub const ALL: [Exit; 9] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::PartiallyFailed,
        Exit::Refused,
        Exit::Integrity,
        Exit::NotFound,
        Exit::Conflict,
        Exit::Interrupted,
    ];

    /// Codes after which a Job must not be retried: another attempt would end the same way.
    pub const FINAL: [Exit; 6] = [
        Exit::Usage,
        Exit::PartiallyFailed,
        Exit::Refused,
        Exit::Integrity,
        Exit::NotFound,
        Exit::Conflict,
    ];

    /// The process exit code.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed | Exit::Different => 1,
            Exit::Usage => 2,
            Exit::PartiallyFailed => 3,
            Exit::Refused => 4,
            Exit::Integrity => 5,
            Exit::NotFound => 10,
            Exit::Conflict => 11,
            Exit::Interrupted => 130,
        }
    }

    /// What it means, in a line of the reference.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done, nothing missing",
            Exit::Failed => "failed",
            Exit::Different => "of a comparison: different",
            Exit::Usage => "wrong command line",
            Exit::PartiallyFailed => {
                "partially failed: finished, but something is missing and is named (`--partial-exit-code 0` makes it 0)"
            }
            Exit::Refused => {
                "refused: restore-only mode, a ReadOnly location, or a deletion of what the bucket has locked"
            }
            Exit::Integrity => {
                "integrity: what is stored does not have its recorded digest, or is not what it must be"
            }
            Exit::NotFound => {
                "the backup, restore, schedule, location, bucket or ConfigMap does not exist, or the object to show"
            }
            Exit::Conflict => {
                "the name is taken by another run (`backup create --if-exists keep` makes it 0), or what is to be deleted is in use"
            }
            Exit::Interrupted => "interrupted",
        }
    }

    /// The exit code of a process that compares: 0 same, 1 different, above 1 failed, as `kubectl diff`.
    pub const fn code_of_comparison(self) -> u8 {
        match self {
            Exit::Failed => 2,
            other => other.code(),
        }
    }

    /// The meaning of a process exit code, if it is one of ours.
    pub fn from_code(code: i32) -> Option<Exit> {
        Exit::ALL
            .into_iter()
            .find(|exit| i32::from(exit.code()) == code)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Exit::Done => "done",
            Exit::Failed => "failed",
            Exit::Different => "different",
            Exit::Usage => "usage",
            Exit::PartiallyFailed => "partially failed",
            Exit::Refused => "refused: restore-only",
            Exit::Integrity => "integrity check failed",
            Exit::NotFound => "not found",
            Exit::Conflict => "name taken",
            Exit::Interrupted => "interrupted",
        })
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_maps_back_to_its_meaning() {
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(i32::from(exit.code())), Some(exit));
        }
        assert_eq!(Exit::from_code(77), None);
    }

    #[test]
    fn of_a_comparison_only_a_difference_is_1() {
        assert_eq!(Exit::Done.code_of_comparison(), 0);
        assert_eq!(Exit::Different.code_of_comparison(), 1);
        for exit in Exit::ALL.into_iter().filter(|exit| *exit != Exit::Done) {
            assert!(exit.code_of_comparison() > 1, "{exit}");
        }
    }
}
