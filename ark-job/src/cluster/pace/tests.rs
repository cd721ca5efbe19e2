use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const MS: Duration = Duration::from_millis(1);

/// A server that works on a few writes at once; the others wait their turn.
struct Server {
    workers: usize,
    /// What one write takes it, by when it arrives after the start.
    takes: fn(Duration) -> Duration,
    /// More than these at once are throttled.
    room: usize,
}

/// What a simulated run came to.
#[derive(Debug, Default)]
struct Run {
    good: u32,
    throttled: u32,
    cuts: u32,
    /// The limit at the end, and the lowest and highest on the way.
    limit: usize,
    lowest: usize,
    highest: usize,
}

/// Sends writes as fast as the controller lets, for so long.
fn run(controller: &mut Controller, server: &Server, how_long: Duration) -> Run {
    let start = Instant::now();
    let mut now = start;
    let mut free: Vec<Instant> = vec![start; server.workers];
    let mut answers: BinaryHeap<Reverse<(Instant, Instant, bool)>> = BinaryHeap::new();
    let mut came = Run {
        lowest: usize::MAX,
        ..Run::default()
    };
    while now < start + how_long {
        let wake = loop {
            match controller.admit(now) {
                Admission::Go if answers.len() >= server.room => {
                    answers.push(Reverse((now + MS, now, false)));
                }
                Admission::Go => {
                    let worker = free.iter_mut().min().unwrap();
                    let begins = (*worker).max(now);
                    *worker = begins + (server.takes)(begins - start);
                    answers.push(Reverse((*worker + MS, now, true)));
                }
                Admission::Full => break None,
                Admission::At(time) => break Some(time),
            }
        };
        let answered = answers.peek().map(|Reverse((at, ..))| *at);
        now = match (answered, wake) {
            (Some(at), Some(wake)) => at.min(wake),
            (Some(time), None) | (None, Some(time)) => time,
            (None, None) => panic!("nothing is under way, and nothing may be"),
        };
        if answered == Some(now) {
            let Some(Reverse((_, sent, good))) = answers.pop() else {
                continue;
            };
            let before = controller.limit;
            let outcome = if good {
                came.good += 1;
                Outcome::Good
            } else {
                came.throttled += 1;
                Outcome::Throttled {
                    retry_after: Some(Duration::from_secs(1)),
                }
            };
            controller.answered(outcome, sent, now);
            came.cuts += u32::from(controller.limit < before);
            came.lowest = came.lowest.min(controller.limit());
            came.highest = came.highest.max(controller.limit());
        }
    }
    answers.iter().for_each(|_| controller.give_up());
    came.limit = controller.limit();
    came
}

#[test]
fn a_busy_but_healthy_server_gets_all_the_writes_it_is_allowed() {
    // As measured on two cores: 16 under way take 9 ms, 32 take 15 ms.
    let server = Server {
        workers: 4,
        takes: |_| 2 * MS,
        room: usize::MAX,
    };
    let mut controller = Controller::new(32, None);
    let came = run(&mut controller, &server, 100 * MS);
    assert_eq!(
        (came.limit, came.lowest >= 16, came.cuts),
        (32, true, 0),
        "{came:?}"
    );
    let came = run(&mut controller, &server, Duration::from_secs(10));
    assert_eq!((came.lowest, came.cuts), (32, 0), "{came:?}");
    // Two a millisecond.
    assert!(came.good > 19_900, "{came:?}");
}

#[test]
fn a_server_that_suddenly_takes_four_times_as_long_is_given_half_once() {
    let server = Server {
        workers: 4,
        takes: |since| {
            if since < Duration::from_secs(1) {
                2 * MS
            } else {
                8 * MS
            }
        },
        room: usize::MAX,
    };
    let mut controller = Controller::new(32, None);
    let came = run(&mut controller, &server, Duration::from_secs(3));
    assert_eq!((came.cuts, came.lowest), (1, 16), "{came:?}");
    // It stays slow, and is used well all the same.
    assert_eq!(came.limit, 32, "{came:?}");
}

#[test]
fn a_slow_server_recovers() {
    let server = Server {
        workers: 4,
        takes: |since| {
            if since.as_millis() / 500 % 2 == 1 {
                50 * MS
            } else {
                2 * MS
            }
        },
        room: usize::MAX,
    };
    let mut controller = Controller::new(32, None);
    let came = run(&mut controller, &server, Duration::from_millis(4_500));
    assert!(came.cuts >= 3 && came.lowest < 32, "{came:?}");
    assert_eq!(came.limit, 32, "{came:?}");
}

#[test]
fn a_server_that_throttles_is_left_alone_and_then_given_less() {
    let server = Server {
        workers: 4,
        takes: |_| 2 * MS,
        room: 12,
    };
    let mut controller = Controller::new(32, None);
    let came = run(&mut controller, &server, Duration::from_secs(20));
    // It takes twelve: it is asked for one more every few seconds, not every few milliseconds.
    assert!(came.throttled <= 4 + 20, "{came:?}");
    assert!(came.good > 20 * 1_300, "{came:?}");
}

#[test]
fn all_wait_for_as_long_as_the_server_says() {
    let start = Instant::now();
    let mut controller = Controller::new(4, None);
    for _ in 0..2 {
        assert_eq!(controller.admit(start), Admission::Go);
    }
    let retry_after = Some(Duration::from_secs(7));
    controller.answered(Outcome::Throttled { retry_after }, start, start + MS);
    // A shorter pause that is asked for later does not end the longer one.
    let retry_after = Some(Duration::from_secs(1));
    controller.answered(Outcome::Failing { retry_after }, start, start + 2 * MS);
    let end = start + MS + Duration::from_secs(7);
    assert_eq!(controller.admit(start + 2 * MS), Admission::At(end));
    assert_eq!(controller.admit(end - MS), Admission::At(end));
    assert_eq!(controller.admit(end), Admission::Go);
}

#[test]
fn refusals_change_nothing() {
    let start = Instant::now();
    let mut controller = Controller::new(8, None);
    for n in 0..100 {
        assert_eq!(controller.admit(start + n * MS), Admission::Go);
        controller.answered(Outcome::Refused, start + n * MS, start + 10 * n * MS);
    }
    assert_eq!((controller.limit(), controller.under_way()), (8, 0));
}

#[test]
fn no_more_are_sent_a_second_than_allowed() {
    let server = Server {
        workers: 4,
        takes: |_| MS,
        room: usize::MAX,
    };
    for rate in [1, 7, 250, 1500] {
        let mut controller = Controller::new(32, Some(rate));
        let came = run(&mut controller, &server, Duration::from_secs(10));
        let allowed = 10 * rate + rate / 10 + 1;
        assert!(
            (allowed * 97 / 100..=allowed).contains(&came.good),
            "{rate} {came:?}"
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask,
    Answer(usize, Outcome),
    GiveUp,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let retry_after = proptest::option::of((0u64..3_000).prop_map(Duration::from_millis));
    let outcome = prop_oneof![
        6 => Just(Outcome::Good),
        1 => Just(Outcome::Refused),
        1 => retry_after.clone().prop_map(|retry_after| Outcome::Throttled { retry_after }),
        1 => retry_after.prop_map(|retry_after| Outcome::Failing { retry_after }),
    ];
    prop_oneof![
        8 => Just(Step::Ask),
        6 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::Answer(which, outcome)),
        1 => Just(Step::GiveUp),
        3 => (0u64..500).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn bounds_hold_whatever_happens(
        max in 1usize..100,
        rate in proptest::option::of(1u32..2_000),
        steps in proptest::collection::vec(step(), 0..400),
    ) {
        let mut now = Instant::now();
        let mut controller = Controller::new(max, rate);
        let mut under_way: VecDeque<Instant> = VecDeque::new();
        let (mut last_cut, mut quiet_until) = (None, now);
        for step in steps {
            match step {
                Step::Ask => match controller.admit(now) {
                    Admission::Go => {
                        prop_assert!(now >= quiet_until);
                        under_way.push_back(now);
                        prop_assert!(under_way.len() <= controller.limit());
                    }
                    // There is always something to wait for.
                    Admission::Full => prop_assert!(!under_way.is_empty()),
                    Admission::At(time) => prop_assert!(time > now),
                },
                Step::Answer(which, outcome) if !under_way.is_empty() => {
                    let sent = under_way.remove(which % under_way.len()).unwrap();
                    let before = controller.limit;
                    controller.answered(outcome, sent, now);
                    match outcome {
                        Outcome::Throttled { retry_after } =>
                            quiet_until = quiet_until.max(now + retry_after.unwrap_or(PAUSE)),
                        Outcome::Failing { retry_after: Some(pause) } =>
                            quiet_until = quiet_until.max(now + pause),
                        _ => {}
                    }
                    if controller.limit < before {
                        // Once a round trip: what led to this was sent after the last time.
                        prop_assert!(last_cut.is_none_or(|at| sent > at));
                        prop_assert!(controller.limit >= before / 2.0 || controller.limit == 1.0);
                        last_cut = Some(now);
                    }
                }
                Step::GiveUp if !under_way.is_empty() => {
                    under_way.pop_front();
                    controller.give_up();
                }
                Step::Wait(ms) => now += Duration::from_millis(ms),
                Step::Answer(..) | Step::GiveUp => {}
            }
            prop_assert!((1..=max).contains(&controller.limit()));
            prop_assert_eq!(controller.under_way(), under_way.len());
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn who_waits_is_let_in_when_another_is_done_or_gives_up() {
    block_on(async {
        let pace = Pace::new(2, None);
        let (first, second) = (pace.permit().await, pace.permit().await);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let pace = pace.clone();
                tokio::spawn(async move { pace.permit().await.done(Outcome::Good) })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|task| !task.is_finished()));
        // Giving up a place in the queue holds nobody up either.
        waiting[0].abort();
        first.done(Outcome::Good);
        drop(second);
        for task in waiting.into_iter().skip(1) {
            task.await.unwrap();
        }
        assert_eq!(pace.shared.controller().under_way(), 0);
    });
}

#[test]
fn a_pause_that_the_server_asks_for_is_kept_by_all() {
    block_on(async {
        let pace = Pace::new(32, None);
        let pause = 150 * MS;
        let retry_after = Some(pause);
        pace.permit().await.done(Outcome::Throttled { retry_after });
        let start = Instant::now();
        let waiting = (0..8).map(|_| pace.permit());
        futures::future::join_all(waiting).await;
        assert!(start.elapsed() >= pause - MS);
        assert_eq!(pace.limit(), 8);
    });
}
