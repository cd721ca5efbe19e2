//! What is shown while waiting: a line for each operation that is redrawn on a terminal, plain lines now and then elsewhere.
//! All of it goes to standard error.
//!
//! [`line`] lays out what is known of an operation in the width that there is, and [`Pace`] knows how fast it is; both are pure.

use crate::age::{bytes, duration};
use crate::records::Progress;
use console::{measure_text_width, truncate_str};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a line is printed where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// How long nothing new may be said there: some take a silent program for one that hangs.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
const SPIN_INTERVAL: Duration = Duration::from_millis(100);
/// Over how long the rate is taken: records are written every two seconds, and what is done in that time varies.
const WINDOW: Duration = Duration::from_secs(20);
/// What was done in less time says nothing about how long the rest takes.
const LEAST_WINDOW: Duration = Duration::from_secs(3);
/// Characters of a bar, without its brackets.
const BAR: std::ops::RangeInclusive<usize> = 8..=24;

/// Shows several operations at a time.
pub struct Group(Option<MultiProgress>);

impl Group {
    /// On a terminal that can redraw lines, or elsewhere.
    pub fn new(terminal: bool) -> Group {
        Group(terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr())))
    }

    /// For the `word` called `name`.
    pub fn display(&self, word: &str, name: &str) -> Display {
        let shown = Arc::new(Mutex::new(Shown::new(format!("{word} {name}"))));
        let bar = self.0.as_ref().map(|all| {
            let bar = all.add(ProgressBar::no_length());
            bar.set_style(style(shown.clone()));
            bar.enable_steady_tick(SPIN_INTERVAL);
            (all.clone(), bar)
        });
        Display {
            shown,
            bar,
            printed: Mutex::default(),
        }
    }
}

/// Shows how far an operation is.
pub struct Display {
    shown: Arc<Mutex<Shown>>,
    bar: Option<(MultiProgress, ProgressBar)>,
    printed: Mutex<Printed>,
}

/// What has been printed where there is no terminal.
#[derive(Default)]
struct Printed {
    line: String,
    at: Option<Instant>,
    /// When the last line about how far it is was due.
    progress: Option<Instant>,
}

impl Display {
    /// For the `word` called `name`, the only one that is shown.
    pub fn new(word: &str, name: &str, terminal: bool) -> Display {
        Group::new(terminal).display(word, name)
    }

    /// Says what is going on, once.
    pub fn note(&self, note: &str) {
        let note: String = note
            .chars()
            .map(|one| if one.is_control() { ' ' } else { one })
            .collect();
        let mut shown = self.shown();
        shown.doing = Doing::Note(note.clone());
        let (what, elapsed) = (shown.what.clone(), shown.since.elapsed());
        drop(shown);
        if self.bar.is_some() {
            return;
        }
        let mut printed = self.printed();
        let silent = printed.at.is_none_or(|at| at.elapsed() >= LONGEST_SILENCE);
        if printed.line != note {
            eprintln!("{what}: {note}");
            printed.line = note;
        } else if silent {
            eprintln!("{what}: {note} ({})", seconds(elapsed));
        } else {
            return;
        }
        printed.at = Some(Instant::now());
    }

    /// Prints a line that stays, to standard error.
    pub fn line(&self, line: &str) {
        self.aside(|| eprintln!("{line}"));
    }

    /// Does what prints something else, without being in its way.
    pub fn aside(&self, print: impl FnOnce()) {
        match &self.bar {
            Some((all, _)) => all.suspend(print),
            None => print(),
        }
    }

    /// Shows how far it is.
    pub fn progress(&self, progress: Option<Progress>) {
        let Some(Progress {
            items,
            total,
            bytes,
        }) = progress
        else {
            return self.note("running");
        };
        self.count(Count {
            doing: String::new(),
            unit: Unit::Objects,
            done: items,
            total: total.filter(|&total| total > 0),
            bytes,
        });
    }

    /// Shows how many of how many bytes are there, and what is done with them.
    pub fn bytes(&self, doing: &str, done: u64, total: u64) {
        self.count(Count {
            doing: doing.to_owned(),
            unit: Unit::Bytes,
            done,
            total: (total > 0).then_some(total),
            bytes: 0,
        });
    }

    fn count(&self, count: Count) {
        let mut shown = self.shown();
        let at = shown.since.elapsed();
        shown.pace.add(at, count.done, count.bytes);
        shown.doing = Doing::Counted(count);
        let text = match &shown.doing {
            Doing::Counted(count) => plain(count, &shown.pace),
            Doing::Note(note) => note.clone(),
        };
        let what = shown.what.clone();
        drop(shown);
        if self.bar.is_some() {
            return;
        }
        let mut printed = self.printed();
        if printed
            .progress
            .is_none_or(|at| at.elapsed() >= LINE_INTERVAL)
        {
            eprintln!("{what}: {text}");
            let now = Some(Instant::now());
            *printed = Printed {
                line: text,
                at: now,
                progress: now,
            };
        }
    }

    /// Removes the line.
    pub fn end(&self) {
        if let Some((all, bar)) = &self.bar {
            bar.finish_and_clear();
            all.remove(bar);
        }
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn printed(&self) -> std::sync::MutexGuard<'_, Printed> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of an operation.
struct Shown {
    what: String,
    since: Instant,
    pace: Pace,
    doing: Doing,
}

impl Shown {
    fn new(what: String) -> Shown {
        Shown {
            what,
            since: Instant::now(),
            pace: Pace::default(),
            doing: Doing::Note(String::new()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Doing {
    Note(String),
    Counted(Count),
}

/// How much of how much.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Count {
    /// What is done with it, if that is to be said: `downloaded`.
    doing: String,
    unit: Unit,
    done: u64,
    total: Option<u64>,
    /// Bytes that were read for it.
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Objects,
    Bytes,
}

/// How fast something gets on: what was done lately.
#[derive(Clone, Debug, Default)]
struct Pace(VecDeque<(Duration, u64, u64)>);

impl Pace {
    /// So much was done, and so many bytes read, after this time.
    fn add(&mut self, at: Duration, done: u64, bytes: u64) {
        // Another attempt begins anew.
        if self.0.back().is_some_and(|(_, before, _)| done < *before) {
            self.0.clear();
        }
        self.0.push_back((at, done, bytes));
        let old = |samples: &VecDeque<(Duration, u64, u64)>| {
            samples.len() > 2
                && samples
                    .get(1)
                    .is_some_and(|(then, ..)| at - *then >= WINDOW)
        };
        while old(&self.0) {
            self.0.pop_front();
        }
    }

    /// How much a second, and how many bytes; `None` as long as that is a guess.
    fn rate(&self) -> Option<(f64, f64)> {
        let ((from, done, bytes), (to, done_now, bytes_now)) = (self.0.front()?, self.0.back()?);
        let took = to.checked_sub(*from)?;
        if took < LEAST_WINDOW {
            return None;
        }
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / took.as_secs_f64();
        Some((rate(*done, *done_now), rate(*bytes, *bytes_now)))
    }

    /// How long the rest takes, if it goes on like this.
    fn remaining(&self, done: u64, total: u64) -> Option<Duration> {
        let (rate, _) = self.rate()?;
        let rest = total.checked_sub(done).filter(|rest| *rest > 0)?;
        // What stands still may take for ever.
        let left = (rate > 0.0).then(|| rest as f64 / rate)?;
        Duration::try_from_secs_f64(left.ceil()).ok()
    }
}

/// The parts of what is said about how far something is, and which of them goes first when there is no room.
fn parts(count: &Count, pace: &Pace) -> Vec<(u8, String)> {
    let Count {
        doing,
        unit,
        done,
        total,
        bytes: read,
    } = count;
    let amount = |count: u64| match unit {
        Unit::Objects => count.to_string(),
        Unit::Bytes => size(count),
    };
    let mut counted = String::new();
    if !doing.is_empty() {
        counted.push_str(&format!("{doing} "));
    }
    counted.push_str(&amount(*done));
    if let Some(total) = total {
        counted.push_str(&format!(" of {}", amount(*total)));
    }
    if *unit == Unit::Objects {
        counted.push_str(" objects");
    }
    let mut parts = vec![(2, counted)];
    let rate = pace.rate();
    if let Some((rate, _)) = rate.filter(|(rate, _)| *rate > 0.0) {
        parts.push((
            3,
            match unit {
                Unit::Objects if rate < 10.0 => format!("{rate:.1}/s"),
                Unit::Objects => format!("{rate:.0}/s"),
                Unit::Bytes => format!("{}/s", size(rate as u64)),
            },
        ));
    }
    if *read > 0 {
        parts.push((4, format!("{} read", size(*read))));
        if let Some((_, rate)) = rate.filter(|(_, rate)| *rate > 0.0) {
            parts.push((5, format!("{}/s", size(rate as u64))));
        }
    }
    if let Some(left) = total.and_then(|total| pace.remaining(*done, total)) {
        parts.push((1, format!("{} left", seconds(left))));
    }
    parts
}

/// All of it, for where there is room.
fn plain(count: &Count, pace: &Pace) -> String {
    let mut parts = parts(count, pace);
    if let (Some(percent), Some((_, counted))) = (percent(count), parts.first_mut()) {
        counted.push_str(&format!(" ({percent}%)"));
    }
    let texts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
    texts.join(", ")
}

fn percent(count: &Count) -> Option<u64> {
    let total = count.total?;
    Some(count.done.min(total) * 100 / total.max(1))
}

/// What is known of an operation in a line of `width` columns.
fn line(what: &str, doing: &Doing, pace: &Pace, elapsed: Duration, width: usize) -> String {
    let elapsed = seconds(elapsed);
    let cut = |text: &str, width: usize| truncate_str(text, width, "…").into_owned();
    let count = match doing {
        Doing::Note(note) => {
            let text = match note.as_str() {
                "" => what.to_owned(),
                note => format!("{what}: {note}"),
            };
            let room = width.saturating_sub(elapsed.len() + 1);
            return match measure_text_width(&text) <= room || room > 40 {
                true => format!("{} {elapsed}", cut(&text, room)),
                false => cut(&text, width),
            };
        }
        Doing::Counted(count) => count,
    };
    let percent = percent(count);
    let start = match percent {
        Some(percent) => format!("{what} {percent}%"),
        None => format!("{what}:"),
    };
    let mut parts = parts(count, pace);
    // The time that it has taken is the first to go.
    parts.push((9, elapsed));
    let text = |parts: &[(u8, String)]| {
        let texts: Vec<&str> = parts.iter().map(|(_, text)| text.as_str()).collect();
        texts.join(", ")
    };
    while !parts.is_empty() && measure_text_width(&start) + 1 + text(&parts).len() > width {
        let least = parts.iter().map(|(rank, _)| *rank).max();
        parts.retain(|(rank, _)| Some(*rank) != least);
    }
    let rest = text(&parts);
    let used = measure_text_width(&start) + 1 + rest.len();
    let room = width.saturating_sub(used + 3);
    match percent {
        Some(percent) if room >= *BAR.start() => {
            let length = room.min(*BAR.end());
            let filled = length * usize::try_from(percent).unwrap_or(0) / 100;
            let mut bar = "=".repeat(filled);
            if filled < length {
                bar.push('>');
            }
            format!("{what} [{bar:length$}] {percent}% {rest}")
        }
        _ => cut(format!("{start} {rest}").trim_end(), width),
    }
}

fn size(count: u64) -> String {
    bytes(i64::try_from(count).unwrap_or(i64::MAX))
}

fn seconds(time: Duration) -> String {
    duration(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// A spinner and [`line`], as wide as the terminal is at the time.
fn style(shown: Arc<Mutex<Shown>>) -> ProgressStyle {
    let line = move |_: &ProgressState, writer: &mut dyn std::fmt::Write| {
        let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, columns) = console::Term::stderr().size();
        // The spinner, its blank, and the last column, in which some terminals wrap.
        let width = usize::from(columns).saturating_sub(3);
        let Shown {
            what,
            since,
            pace,
            doing,
        } = &*shown;
        let _infallible = writer.write_str(&line(what, doing, pace, since.elapsed(), width));
    };
    ProgressStyle::with_template("{spinner} {line}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .with_key("line", line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_can_be_read() {
        ProgressStyle::with_template("{spinner} {line}").unwrap();
    }

    fn count(done: u64, total: Option<u64>, bytes: u64) -> Count {
        Count {
            doing: String::new(),
            unit: Unit::Objects,
            done,
            total,
            bytes,
        }
    }

    /// A hundred objects and a KiB a second.
    fn steady(seconds: u64) -> Pace {
        let mut pace = Pace::default();
        for second in 0..=seconds {
            pace.add(Duration::from_secs(second), second * 100, second * 1024);
        }
        pace
    }

    #[test]
    fn what_is_known_is_said() {
        assert_eq!(
            plain(&count(3, Some(9), 2048), &Pace::default()),
            "3 of 9 objects (33%), 2.00 KiB read"
        );
        assert_eq!(plain(&count(3, None, 0), &Pace::default()), "3 objects");
        assert_eq!(
            plain(&count(1000, Some(4000), 10240), &steady(10)),
            "1000 of 4000 objects (25%), 100/s, 10.0 KiB read, 1.00 KiB/s, 30s left"
        );
    }

    #[test]
    fn the_remaining_time_is_told_only_when_it_is_no_guess() {
        assert_eq!(steady(2).remaining(200, 400), None);
        assert_eq!(
            steady(10).remaining(1000, 1500),
            Some(Duration::from_secs(5))
        );
        assert_eq!(steady(10).remaining(1000, 1000), None);
        let mut stands = Pace::default();
        for second in 0..9 {
            stands.add(Duration::from_secs(second), 7, 0);
        }
        assert_eq!(stands.remaining(7, 9), None);
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds_and_of_this_attempt() {
        let mut pace = steady(100);
        // It has become twice as fast for long enough.
        for second in 101..=130 {
            pace.add(
                Duration::from_secs(second),
                10_000 + (second - 100) * 200,
                0,
            );
        }
        let (rate, _) = pace.rate().unwrap();
        assert!((rate - 200.0).abs() < 1.0, "{rate}");
        // One sudden step changes it by a part.
        pace.add(Duration::from_secs(131), 16_400, 0);
        let (rate, _) = pace.rate().unwrap();
        assert!((200.0..230.0).contains(&rate), "{rate}");
        pace.add(Duration::from_secs(132), 5, 0);
        assert_eq!(pace.rate(), None);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let what = "backup nightly-20261126120000";
        for width in 1..130 {
            for doing in [
                Doing::Note("waiting: pod/x: image cannot be pulled: ImagePullBackOff: …".into()),
                Doing::Counted(count(1000, Some(4000), 10240)),
                Doing::Counted(count(1000, None, 10240)),
            ] {
                let text = line(what, &doing, &steady(10), Duration::from_secs(75), width);
                assert!(measure_text_width(&text) <= width, "{width}: {text}");
            }
        }
        let at = |width| {
            let doing = Doing::Counted(count(1000, Some(4000), 10240));
            line(what, &doing, &steady(10), Duration::from_secs(75), width)
        };
        assert_eq!(
            at(57),
            "backup nightly-20261126120000 [===>        ] 25% 30s left"
        );
        assert_eq!(
            at(140),
            "backup nightly-20261126120000 [======>                 ] 25% 1000 of 4000 objects, 100/s, 10.0 KiB read, \
             1.00 KiB/s, 30s left, 75s"
        );
    }
}
