//! How fast to write: as fast as the API server likes it, never faster.
//!
//! The number of writes under way adapts, as TCP does it: more while all goes well, half when the API server throttles,
//! fails, or takes twice as long. What "twice as long" means is the point. A server that has all it can do takes longer
//! with every request more that waits, and is well: on two cores 16 writes take 9 ms each, 32 take 15 ms, and more get
//! done. A plain limit on latency would forbid that. So a round trip is compared with what it should be at this
//! concurrency, after Little's law (under way = rate × latency) as TCP Vegas does: the larger of the shortest one seen
//! and what the best rate seen would give. Latency counts as doubled when both are exceeded twice, that is when the
//! server also gets less than half as much done.
//!
//! [`Controller`] decides, and is told the time; [`Pace`] is the door that requests go through.

use super::ClusterError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Writes under way at the start: what a small API server is well with (docs/benchmarks.md).
const START: usize = 16;
/// Kubernetes' objective for a write: beyond it a server has enough to do (its scalability SLOs: 99 % within 1 s).
const SLOW: Duration = Duration::from_secs(1);
/// Answers that make a round, at least: fewer say nothing about latency.
const ROUND: u32 = 16;
/// By how much of the difference what was best is forgotten each round: objects and clusters change.
const FORGET: f64 = 1.0 / 64.0;
/// The pause of a server that throttles and does not say for how long; API servers say 1 s.
const PAUSE: Duration = Duration::from_secs(1);
/// What part of the writes under way when a server throttled it is taken to be well with.
const KNEE: f64 = 0.75;
/// Between asking a server that throttled for one more and for another.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How much of a pause in writing is made up for, with a maximum rate: timers are not exact.
const CATCH_UP: Duration = Duration::from_millis(100);

/// What a write's answer tells about the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Good,
    /// It is refused for what it is, or by somebody else than the API server: nothing to do with pace.
    Refused,
    /// Too many requests.
    Throttled {
        /// For how long to leave the server alone, if it says.
        retry_after: Option<Duration>,
    },
    /// The server fails, or does not answer.
    Failing {
        /// For how long to leave the server alone, if it says.
        retry_after: Option<Duration>,
    },
}

/// May a write be sent?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes; it counts as under way from now on.
    Go,
    /// When one of those under way has ended.
    Full,
    /// Not before this time.
    At(Instant),
}

/// Decides how many writes may be under way. Pure: the time is told.
#[derive(Debug)]
pub struct Controller {
    max: usize,
    /// How many may be under way; whole ones count.
    limit: f64,
    under_way: usize,
    /// Doubling each round trip, until it was too much for the first time.
    doubling: bool,
    /// Whether latency held in the last round.
    holds: bool,
    /// What was sent before this says nothing about how it is since.
    cut_at: Option<Instant>,
    /// The server wants to be left alone until then.
    paused_until: Option<Instant>,
    /// About how many the server takes without throttling, and when that was found or one more was allowed.
    knee: Option<(f64, Instant)>,
    /// Between two writes.
    interval: Duration,
    /// When the next write is due at the maximum rate.
    due: Option<Instant>,
    round: Round,
    best: Option<Best>,
}

/// Sums over the answers of a round.
#[derive(Debug, Default)]
struct Round {
    answers: u32,
    latency: Duration,
    under_way: u64,
}

/// The best that was seen, slowly forgotten.
#[derive(Clone, Copy, Debug)]
struct Best {
    /// Shortest latency, seconds.
    latency: f64,
    /// Highest rate, writes a second.
    rate: f64,
}

impl Controller {
    /// At most `max_in_flight` (at least 1) under way, and at most so many sent a second.
    pub fn new(max_in_flight: usize, max_writes_per_second: Option<u32>) -> Controller {
        let max = max_in_flight.max(1);
        Controller {
            max,
            limit: START.min(max) as f64,
            under_way: 0,
            doubling: true,
            holds: true,
            cut_at: None,
            paused_until: None,
            knee: None,
            interval: max_writes_per_second
                .map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1)),
            due: None,
            round: Round::default(),
            best: None,
        }
    }

    /// How many may be under way.
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// How many are.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether a write may be sent now.
    pub fn admit(&mut self, now: Instant) -> Admission {
        if let Some(until) = self.paused_until.filter(|until| now < *until) {
            return Admission::At(until);
        }
        if self.under_way >= self.limit() {
            return Admission::Full;
        }
        if !self.interval.is_zero() {
            let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
            let due = self.due.unwrap_or(now);
            if due > now {
                return Admission::At(due);
            }
            self.due = Some(due.max(earliest) + self.interval);
        }
        self.under_way += 1;
        Admission::Go
    }

    /// A write ended without telling anything: it was given up.
    pub fn give_up(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A write that was sent at `sent` has been answered.
    pub fn answered(&mut self, outcome: Outcome, sent: Instant, now: Instant) {
        let busy = self.under_way * 2 >= self.limit();
        let under_way = self.under_way;
        self.under_way = self.under_way.saturating_sub(1);
        let pause = match outcome {
            Outcome::Throttled { retry_after } => Some(retry_after.unwrap_or(PAUSE)),
            Outcome::Failing { retry_after } => retry_after,
            Outcome::Good | Outcome::Refused => None,
        };
        if let Some(pause) = pause {
            let until = now + pause;
            self.paused_until = Some(self.paused_until.map_or(until, |other| other.max(until)));
        }
        if self.cut_at.is_some_and(|at| sent <= at) {
            return;
        }
        match outcome {
            Outcome::Throttled { .. } => {
                self.knee = Some((under_way as f64 * KNEE, now));
                self.cut(now);
            }
            Outcome::Failing { .. } => self.cut(now),
            Outcome::Good => {
                self.round
                    .add(now.saturating_duration_since(sent), under_way);
                self.grow(busy, now);
                self.end_round(now);
            }
            Outcome::Refused => {}
        }
    }

    /// One more each round trip; twice as many as long as it never was too much. From near where it was too much for
    /// the server on, one more each second: or it would be too much again a few round trips later.
    fn grow(&mut self, busy: bool, now: Instant) {
        // What is not used proves nothing.
        if !busy || !self.holds {
            return;
        }
        let step = if self.doubling { 1.0 } else { 1.0 / self.limit };
        let mut wanted = self.limit + step;
        if let Some((knee, since)) = &mut self.knee
            && wanted > *knee
        {
            if now.saturating_duration_since(*since) >= PROBE_EVERY {
                (*knee, *since) = (*knee + 1.0, now);
            }
            wanted = wanted.min(knee.max(self.limit));
        }
        self.limit = wanted.min(self.max as f64);
    }

    fn cut(&mut self, now: Instant) {
        self.limit = (self.limit / 2.0).max(1.0);
        self.doubling = false;
        self.holds = true;
        self.cut_at = Some(now);
        self.round = Round::default();
        // How it is from now on is what is compared with, or a server that stays slow would be left with one write.
        self.best = None;
    }

    fn end_round(&mut self, now: Instant) {
        if self.round.answers < ROUND.max(self.limit() as u32) {
            return;
        }
        let round = std::mem::take(&mut self.round);
        let answers = f64::from(round.answers);
        let latency = (round.latency.as_secs_f64() / answers).max(1e-6);
        let under_way = round.under_way as f64 / answers;
        let rate = under_way / latency;
        let Some(best) = &mut self.best else {
            self.best = Some(Best { latency, rate });
            return;
        };
        best.latency = latency.min(best.latency + (latency - best.latency) * FORGET);
        best.rate = rate.max(best.rate + (rate - best.rate) * FORGET);
        let should_be = best.latency.max(under_way / best.rate);
        self.holds = latency <= 1.5 * should_be && latency < SLOW.as_secs_f64();
        if latency > 2.0 * should_be {
            self.cut(now);
        }
    }
}

impl Round {
    fn add(&mut self, latency: Duration, under_way: usize) {
        self.answers += 1;
        self.latency += latency;
        self.under_way += under_way as u64;
    }
}

/// The door that every write of a run goes through; clones are the same door.
#[derive(Clone, Debug)]
pub struct Pace {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    controller: Mutex<Controller>,
    /// Something has ended: whoever is first in the queue looks again.
    ended: Notify,
    /// The queue. Tokio's mutex is fair: who came first is let in first, a request that is tried again too.
    queue: tokio::sync::Mutex<()>,
}

/// A write under way. Dropped, it ends without telling anything.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    sent: Instant,
    over: bool,
}

impl Pace {
    /// At most `max_in_flight` (at least 1) writes under way, and at most so many sent a second.
    pub fn new(max_in_flight: usize, max_writes_per_second: Option<u32>) -> Pace {
        let controller = Controller::new(max_in_flight, max_writes_per_second);
        Pace {
            shared: Arc::new(Shared {
                controller: Mutex::new(controller),
                ended: Notify::new(),
                queue: tokio::sync::Mutex::new(()),
            }),
        }
    }

    /// Waits until a write may be sent. Send it at once: its latency is counted from here.
    pub async fn permit(&self) -> Permit {
        let _first = self.shared.queue.lock().await;
        loop {
            let now = Instant::now();
            let admission = self.shared.controller().admit(now);
            match admission {
                Admission::Go => {
                    return Permit {
                        shared: Arc::clone(&self.shared),
                        sent: now,
                        over: false,
                    };
                }
                Admission::Full => self.shared.ended.notified().await,
                Admission::At(time) => tokio::time::sleep_until(time).await,
            }
        }
    }

    /// How many writes may be under way at the moment.
    pub fn limit(&self) -> usize {
        self.shared.controller().limit()
    }
}

impl Shared {
    fn controller(&self) -> MutexGuard<'_, Controller> {
        self.controller
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The write has been answered.
    pub fn done(mut self, outcome: Outcome) {
        self.over = true;
        let mut controller = self.shared.controller();
        controller.answered(outcome, self.sent, Instant::now());
        drop(controller);
        self.shared.ended.notify_one();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.over {
            self.shared.controller().give_up();
            self.shared.ended.notify_one();
        }
    }
}

impl Outcome {
    /// What an answer tells.
    pub fn of<T>(answer: &Result<T, ClusterError>) -> Outcome {
        match answer {
            Ok(_) => Outcome::Good,
            Err(error) => Outcome::of_error(error),
        }
    }

    fn of_error(error: &ClusterError) -> Outcome {
        let retry_after = error.retry_after();
        match error {
            ClusterError::Unreachable { .. } => Outcome::Failing { retry_after },
            _ if error.is_throttling() => Outcome::Throttled { retry_after },
            // The API server is well, the webhook's is not.
            _ if error.is_of_webhook() => Outcome::Refused,
            _ if error.is_transient() => Outcome::Failing { retry_after },
            _ => Outcome::Refused,
        }
    }
}

#[cfg(test)]
mod tests;
