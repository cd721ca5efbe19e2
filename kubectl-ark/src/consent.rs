//! Asking a person: before a restore changes or deletes objects in all namespaces, with the counts of its plan in sight, and
//! before backups are deleted (`crate::delete`).

use crate::Surroundings;
use crate::client::Connection;
use crate::options::CreateOptions;
use crate::printed::{self, Printed};
use ark_job::error::Failure;
use ark_job::exit::Exit;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// Longest last line that is shown, bytes.
const LINE_MAX: usize = 4096;

/// Makes the plan, prints what it comes to, and asks; `None` when it may be done, else how to end.
///
/// # Errors
/// When there is no plan.
pub async fn ask(
    connection: &Connection,
    options: &CreateOptions,
    surroundings: &Surroundings,
    mut interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<Exit>, Failure> {
    let preview = options.preview(surroundings.now);
    if preview.local {
        // This process prints the whole plan.
        let client = connection.operation.clone();
        let planned = printed::here(client, preview.args, surroundings, interrupt.as_mut()).await;
        match planned {
            Ok(_) => {}
            Err(failure) if failure.exit() == Exit::PartiallyFailed => warn(&failure),
            Err(failure) => return Err(failure),
        }
    } else {
        let mut last = LastLine::default();
        let planned = printed::by_pod(
            connection,
            &preview.args,
            surroundings,
            interrupt.as_mut(),
            &mut last,
        );
        match planned.await? {
            Printed::All(ended) => match ended.failure {
                Some(failure) if failure.exit() == Exit::PartiallyFailed => {
                    last.print();
                    warn(&failure);
                }
                Some(failure) => return Err(failure),
                None => last.print(),
            },
            Printed::Cut => {}
            Printed::Interrupted => return Ok(Some(not_done(Exit::Interrupted))),
        }
    }
    Ok(match answer("Continue?", interrupt).await {
        Answer::Yes => None,
        Answer::No => Some(not_done(Exit::Failed)),
        Answer::Interrupted => Some(not_done(Exit::Interrupted)),
    })
}

/// What a person said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Clearly yes.
    Yes,
    /// Anything else.
    No,
    /// Ctrl-C.
    Interrupted,
}

/// Asks a question, and waits for a line from standard input.
pub async fn answer(question: &str, mut interrupt: Pin<&mut impl Future<Output = ()>>) -> Answer {
    eprint!("{question} [y/N] ");
    // Read on a thread of its own, which the end of the process ends.
    let reading = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    tokio::select! {
        answer = reading => match answer {
            Ok(Ok(answer)) if is_yes(&answer) => Answer::Yes,
            _ => Answer::No,
        },
        () = interrupt.as_mut() => {
            eprintln!();
            Answer::Interrupted
        }
    }
}

fn warn(failure: &Failure) {
    eprintln!("warning: {}", failure.message());
}

fn not_done(exit: Exit) -> Exit {
    eprintln!(
        "nothing was restored; `kubectl ark restore plan` with the same flags shows all of the plan"
    );
    exit
}

/// Only what says so is consent.
fn is_yes(answer: &str) -> bool {
    let answer = answer.trim();
    answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes")
}

/// Takes text, and keeps its last line that is not empty.
#[derive(Debug, Default)]
struct LastLine {
    line: Vec<u8>,
    ended: bool,
}

impl LastLine {
    fn take(&mut self, text: &[u8]) {
        for &byte in text {
            if byte == b'\n' {
                self.ended = true;
                continue;
            }
            if std::mem::take(&mut self.ended) {
                self.line.clear();
            }
            if self.line.len() < LINE_MAX {
                self.line.push(byte);
            }
        }
    }

    fn print(&self) {
        let mut stderr = io::stderr().lock();
        // Who cannot be told cannot be asked.
        let _unread = stderr
            .write_all(&self.line)
            .and_then(|()| stderr.write_all(b"\n"));
    }
}

impl AsyncWrite for LastLine {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        text: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(text);
        Poll::Ready(Ok(text.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_consent() {
        for yes in ["y\n", "Y", " yes \n", "YES"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n", "yesterday", "j", "y y"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }

    #[test]
    fn the_last_line_is_kept_however_the_text_comes() {
        let text = b"create a\nupdate b\n\n1 created, 1 updated\n\n";
        for size in 1..=text.len() {
            let mut last = LastLine::default();
            text.chunks(size).for_each(|piece| last.take(piece));
            assert_eq!(last.line, b"1 created, 1 updated");
        }
    }
}
