//! Delete and undelete: backups go, or come back, by name; and restores go.

use crate::args::{DeleteArgs, DeleteRestoreArgs, UndeleteArgs};
use crate::context::{Context, Outcome};
use crate::error::Failure;
use crate::exit::Exit;
use crate::removal::{self, Removed, RemovedRestore, Seen, Undeleted};
use crate::report::plural;
use crate::store::StoreError;
use crate::tombstone::Cause;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long an interrupted run looks what it has begun: whoever has interrupted it waits.
const LAST_LOOK: Duration = Duration::from_secs(5);

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

    /// Checks what was typed.
    ///
    /// # Errors
    /// [`Exit::Usage`], with what is wrong.
    pub fn of_restores(arguments: &DeleteRestoreArgs) -> Result<Options, Failure> {
        let DeleteRestoreArgs { names, storage: _ } = arguments;
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
    let mut tally = Tally::new("backup", options);
    for name in &options.names {
        let removed = removal::remove(context, name, Cause::Delete, Seen::default()).await;
        tally.add(context, removed.map(|removed| tell(name, removed)));
    }
    tally.outcome("deleted")
}

/// Deletes restores, one after the other. Of one that was interrupted, the resource is left, by which the next finds it.
///
/// # Errors
/// When none could be deleted; if only some could, that is an [`Outcome`].
pub async fn delete_restores(context: &Context, options: &Options) -> Result<Outcome, Failure> {
    let mut tally = Tally::new("restore", options);
    for name in &options.names {
        let removed = removal::remove_restore(context, name).await;
        let told = removed.map(|RemovedRestore { objects, bytes }| {
            let (objects, bytes) = (plural(objects, "object"), plural(bytes, "byte"));
            format!("restore {name} is deleted: {objects} of {bytes}, its record")
        });
        tally.add(context, told);
    }
    tally.outcome("deleted")
}

/// What can be done about deletions that were begun and interrupted.
pub async fn interrupted(context: &Context, options: &Options) -> Option<String> {
    let asking = async {
        for name in &options.names {
            // They are deleted one after the other, so there is one at most.
            if removal::has_begun(context, name).await? {
                return Ok(Some(removal::next_step(context, name)));
            }
        }
        Ok::<_, StoreError>(None)
    };
    match tokio::time::timeout(LAST_LOOK, asking).await {
        Ok(Ok(next)) => next,
        // It may have, then.
        Ok(Err(_)) | Err(_) => Some(format!(
            "whether a deletion has begun could not be found out: if one has, `kubectl ark backup delete {0}` goes on with \
             it, and `kubectl ark backup undelete {0}` takes it back",
            options.names.join(" ")
        )),
    }
}

fn tell(name: &str, removed: Removed) -> String {
    let Removed {
        objects,
        bytes,
        snapshots,
        restores,
        record,
        begun: _,
        ended: _,
    } = removed;
    let snapshots = match snapshots {
        0 => String::new(),
        n => format!(", {}", plural(n, "snapshot")),
    };
    let restores = match restores {
        0 => String::new(),
        n => format!(", {}", plural(n, "restore")),
    };
    let (objects, bytes) = (plural(objects, "object"), plural(bytes, "byte"));
    let record = if record { ", its record" } else { "" };
    format!("backup {name} is deleted: {objects} of {bytes}{snapshots}{restores}{record}")
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// Takes deletions back, one after the other.
///
/// # Errors
/// When none could be taken back; if only some could, that is an [`Outcome`].
pub async fn undelete(context: &Context, options: &Options) -> Result<Outcome, Failure> {
    let mut tally = Tally::new("backup", options);
    for name in &options.names {
        let undeleted = removal::undelete(context, name).await;
        if let Ok(undeleted) = &undeleted {
            tally.hint = tally.hint.or(expired(name, undeleted, Timestamp::now()));
        }
        let told = undeleted.map(|undeleted| match undeleted.was_deleted {
            true => format!("backup {name} is there again"),
            false => format!("backup {name} is not being deleted"),
        });
        tally.add(context, told);
    }
    tally.outcome("there")
}

/// That the next expiry may delete a backup again.
fn expired(name: &str, undeleted: &Undeleted, now: Timestamp) -> Option<String> {
    let expiration = undeleted.expiration.filter(|at| *at <= now)?;
    Some(format!(
        "{name} has expired, at {expiration}, and the next expiry may delete it again: download it (`kubectl ark backup \
         download {name}`), or suspend expiry with `kubectl ark restore-only on`"
    ))
}

/// How it went with each name.
#[derive(Debug, Default)]
struct Tally {
    /// What they are, in the singular.
    noun: &'static str,
    /// What becomes of each is told when it is known; of a single one, the outcome tells.
    several: bool,
    done: Vec<String>,
    failed: Vec<Failure>,
    /// What to do next although it went well.
    hint: Option<String>,
}

impl Tally {
    fn new(noun: &'static str, options: &Options) -> Tally {
        Tally {
            noun,
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
                all => format!("{} {}s are {done}", all.len(), self.noun),
            };
            return Ok(Outcome {
                exit: Exit::Done,
                message,
                hint: self.hint,
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
            plural(good as u64, self.noun),
            are(good),
            are(bad),
            first.message()
        );
        let hint = first.next_step().map(str::to_owned).or(self.hint.take());
        Err(Failure::new(exit, text).maybe_hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(done: usize, failed: &[Exit]) -> (Exit, String) {
        let tally = Tally {
            noun: "backup",
            several: done + failed.len() > 1,
            done: (0..done).map(|n| format!("b{n} is gone")).collect(),
            failed: failed
                .iter()
                .map(|exit| Failure::new(*exit, format!("why {exit}")))
                .collect(),
            hint: None,
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
    fn who_undeletes_what_has_expired_is_told() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-23T20:15:01Z");
        let hint = |expiration: Option<&str>| {
            let undeleted = Undeleted {
                was_deleted: true,
                expiration: expiration.map(at),
            };
            expired("b", &undeleted, now)
        };
        assert_eq!(hint(None), None);
        assert_eq!(hint(Some("2026-11-23T20:15:02Z")), None);
        let told = hint(Some("2026-11-23T20:15:01Z")).unwrap();
        for text in ["backup download b", "restore-only on"] {
            assert!(told.contains(text), "{told}");
        }
    }

    #[test]
    fn a_name_given_twice_is_one() {
        let names = ["b", "a", "b"].map(str::to_owned);
        assert_eq!(Options::of(&names).names, ["b", "a"]);
    }
}
