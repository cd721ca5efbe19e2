//! What is shown while waiting: a bar on a terminal, plain lines elsewhere. All of it goes to standard error.

use crate::age::bytes;
use crate::records::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// How often a line is printed where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
const SPIN_INTERVAL: Duration = Duration::from_millis(100);

/// Shows how far an operation is.
pub struct Display {
    what: String,
    bar: Option<ProgressBar>,
    last: RefCell<Last>,
}

#[derive(Default)]
struct Last {
    line: String,
    at: Option<Instant>,
}

impl Display {
    /// For the `word` called `name`.
    pub fn new(word: &str, name: &str, terminal: bool) -> Display {
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(spinner());
            bar.set_prefix(format!("{word} {name}"));
            bar.enable_steady_tick(SPIN_INTERVAL);
            bar
        });
        Display {
            what: format!("{word} {name}"),
            bar,
            last: RefCell::default(),
        }
    }

    /// Says what is going on, once.
    pub fn note(&self, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(note.to_owned());
            return;
        }
        let mut last = self.last.borrow_mut();
        if last.line != note {
            eprintln!("{}: {note}", self.what);
            last.line = note.to_owned();
        }
    }

    /// Prints a line that stays.
    pub fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Shows how far it is.
    pub fn progress(&self, progress: Option<Progress>) {
        let Some(progress) = progress else {
            return self.note("running");
        };
        let text = describe(&progress);
        if let Some(bar) = &self.bar {
            match progress.total.filter(|&total| total > 0) {
                Some(total) => {
                    bar.set_style(style());
                    bar.set_length(total);
                    bar.set_position(progress.items.min(total));
                }
                None => bar.set_style(spinner()),
            }
            bar.set_message(text);
            return;
        }
        self.sometimes(&text);
    }

    /// Shows how many of how many bytes are there, and what is done with them.
    pub fn bytes(&self, doing: &str, done: u64, total: u64) {
        let size = |count: u64| bytes(i64::try_from(count).unwrap_or(i64::MAX));
        let text = format!("{doing} {} of {}", size(done), size(total));
        if let Some(bar) = &self.bar {
            bar.set_style(style());
            bar.set_length(total);
            bar.set_position(done.min(total));
            bar.set_message(text);
            return;
        }
        self.sometimes(&text);
    }

    /// Prints a line where there is no terminal, not too often.
    fn sometimes(&self, text: &str) {
        let due = self
            .last
            .borrow()
            .at
            .is_none_or(|at| at.elapsed() >= LINE_INTERVAL);
        if due {
            self.note(text);
            self.last.borrow_mut().at = Some(Instant::now());
        }
    }

    /// Removes the bar.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn describe(progress: &Progress) -> String {
    let items = match progress.total {
        Some(total) => format!("{} of {total} objects", progress.items),
        None => format!("{} objects", progress.items),
    };
    match i64::try_from(progress.bytes) {
        Ok(count) if count > 0 => format!("{items}, {} read", bytes(count)),
        _ => items,
    }
}

fn spinner() -> ProgressStyle {
    template("{spinner} {prefix}: {wide_msg} {elapsed}")
}

fn style() -> ProgressStyle {
    template("{spinner} {prefix} [{bar:24}] {percent:>3}% {wide_msg} {elapsed}")
}

fn template(text: &str) -> ProgressStyle {
    ProgressStyle::with_template(text)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_can_be_read() {
        for text in [
            "{spinner} {prefix}: {wide_msg} {elapsed}",
            "{bar:24} {percent:>3}%",
        ] {
            ProgressStyle::with_template(text).unwrap();
        }
        let progress = Progress {
            items: 3,
            total: Some(9),
            bytes: 2048,
        };
        assert_eq!(describe(&progress), "3 of 9 objects, 2.00 KiB read");
        assert_eq!(
            describe(&Progress {
                items: 3,
                ..Progress::default()
            }),
            "3 objects"
        );
    }
}
