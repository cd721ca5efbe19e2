//! Delete and undelete: backups go, or come back, by name.

use crate::args::{DeleteArgs, UndeleteArgs};
use crate::context::{Context, Outcome};
use crate::error::Failure;
use crate::exit::Exit;
use crate::removal::{self, Removed, Seen};
use crate::report::plural;
use crate::tombstone::Cause;
use std::collections::BTreeSet;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    names: Vec<String>,
}

impl Options {
    /// Checks what was typed.
    ///
    /// # Errors
    /// [`Exit::Usage`], with what is wrong.
    pub fn resolve(arguments: &DeleteArgs) -> Result<Options, Failure> {
        let DeleteArgs { names, storage: _ } = arguments;
        Ok(Options::of(names))
    }

    /// Checks what was typed.
    ///
    /// # Errors
    /// [`Exit::Usage`], with what is wrong.
    pub fn of_undelete(arguments: &UndeleteArgs) -> Result<Options, Failure> {
        let UndeleteArgs { names, storage: _ } = arguments;
        Ok(Options::of(names))
    }

    /// Each name once, in the order in which they were given.
    fn of(names: &[String]) -> Options {
        let mut seen = BTreeSet::new();
        let names = names.iter().filter(|name| seen.insert(name.as_str()));
        Options {
            names: names.cloned().collect(),
        }
    }
}

/// Deletes backups, one after the other.
///
/// # Errors
/// When none could be deleted; if only some could, that is an [`Outcome`].
pub async fn delete(context: &Context, options: &Options) -> Result<Outcome, Failure> {
    let mut tally = Tally::new(options);
    for name in &options.names {
        let removed = removal::remove(context, name, Cause::Delete, Seen::default()).await;
        tally.add(context, removed.map(|removed| tell(name, removed)));
    }
    tally.outcome("deleted")
}

fn tell(name: &str, removed: Removed) -> String {
    let Removed {
        objects,
        bytes,
        restores,
        record,
    } = removed;
    let restores = match restores {
        0 => String::new(),
        n => format!(", {}", plural(n, "restore")),
    };
    let (objects, bytes) = (plural(objects, "object"), plural(bytes, "byte"));
    let record = if record { ", its record" } else { "" };
    format!("backup {name} is deleted: {objects} of {bytes}{restores}{record}")
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// Takes deletions back, one after the other.
///
/// # Errors
/// When none could be taken back; if only some could, that is an [`Outcome`].
pub async fn undelete(context: &Context, options: &Options) -> Result<Outcome, Failure> {
    let mut tally = Tally::new(options);
    for name in &options.names {
        let undeleted = removal::undelete(context, name).await;
        let told = undeleted.map(|was_deleted| match was_deleted {
            true => format!("backup {name} is there again"),
            false => format!("backup {name} is not being deleted; it is whole"),
        });
        tally.add(context, told);
    }
    tally.outcome("there")
}

/// How it went with each name.
#[derive(Debug, Default)]
struct Tally {
    /// What becomes of each is told when it is known; of a single one, the outcome tells.
    several: bool,
    done: Vec<String>,
    failed: Vec<Failure>,
}

impl Tally {
    fn new(options: &Options) -> Tally {
        Tally {
            several: options.names.len() > 1,
            ..Tally::default()
        }
    }

    fn add(&mut self, context: &Context, result: Result<String, removal::RemovalError>) {
        match result {
            Ok(text) => {
                if self.several {
                    context.log.info(&text);
                }
                self.done.push(text);
            }
            Err(error) => {
                let failure = Failure::from(error);
                if self.several {
                    context.log.error(failure.message());
                }
                self.failed.push(failure);
            }
        }
    }

    /// One of one is told as such; of several, the numbers.
    fn outcome(mut self, done: &str) -> Result<Outcome, Failure> {
        let (good, bad) = (self.done.len(), self.failed.len());
        if bad == 0 {
            let message = match &self.done[..] {
                [one] => one.clone(),
                all => format!("{} backups are {done}", all.len()),
            };
            return Ok(Outcome {
                exit: Exit::Done,
                message,
                hint: None,
            });
        }
        if good == 0 && bad == 1 {
            return Err(self.failed.remove(0));
        }
        let first = &self.failed[0];
        let same = self.failed.iter().all(|other| other.exit() == first.exit());
        let exit = match (good, same) {
            (0, true) => first.exit(),
            // Some are worth another attempt.
            (0, false) => Exit::Failed,
            _ => Exit::PartiallyFailed,
        };
        let text = format!(
            "{} {} {done}, {bad} {} not: {}",
            plural(good as u64, "backup"),
            are(good),
            are(bad),
            first.message()
        );
        let hint = first.next_step().map(str::to_owned);
        Err(Failure::new(exit, text).maybe_hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(done: usize, failed: &[Exit]) -> (Exit, String) {
        let tally = Tally {
            several: done + failed.len() > 1,
            done: (0..done).map(|n| format!("b{n} is gone")).collect(),
            failed: failed
                .iter()
                .map(|exit| Failure::new(*exit, format!("why {exit}")))
                .collect(),
        };
        match tally.outcome("deleted") {
            Ok(outcome) => (outcome.exit, outcome.message),
            Err(failure) => (failure.exit(), failure.message().to_owned()),
        }
    }

    #[test]
    fn the_exit_code_says_whether_all_some_or_none_went_and_why() {
        use Exit::{Conflict, Done, Failed, NotFound, PartiallyFailed, Refused};
        assert_eq!(outcome(1, &[]), (Done, "b0 is gone".to_owned()));
        assert_eq!(outcome(2, &[]), (Done, "2 backups are deleted".to_owned()));
        assert_eq!(outcome(0, &[NotFound]).0, NotFound);
        assert_eq!(outcome(0, &[Refused, Refused]).0, Refused);
        assert_eq!(outcome(0, &[Conflict, NotFound]).0, Failed);
        let (exit, text) = outcome(2, &[Conflict]);
        assert_eq!(exit, PartiallyFailed);
        assert_eq!(text, "2 backups are deleted, 1 is not: why name taken");
    }

    #[test]
    fn a_name_given_twice_is_one() {
        let names = ["b", "a", "b"].map(str::to_owned);
        assert_eq!(Options::of(&names).names, ["b", "a"]);
    }
}
