//! Cron expressions: what we accept is what the API server accepts.

use anyhow::{Result, bail, ensure};
use ark_job::cron::{Cron, time_zone};
use futures::stream::{self, StreamExt};
use k8s_openapi::api::batch::v1::CronJob;
use kube::Api;
use kube::api::PostParams;
use libtest_mimic::Trial;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::world::{control_plane, scenario};

/// Expressions that are tried.
const CASES: usize = 600;
/// Requests at a time.
const AT_ONCE: usize = 24;

pub fn trials() -> Vec<Trial> {
    vec![
        scenario(
            "cron::what_is_accepted_is_what_the_api_server_accepts",
            expressions,
        ),
        scenario("cron::zones_are_those_of_the_api_server", zones),
    ]
}

/// What the API server says to a CronJob, without making it: `None` when it accepts.
async fn refusal(api: &Api<CronJob>, schedule: &str, zone: Option<&str>) -> Result<Option<String>> {
    let cron_job: CronJob = serde_json::from_value(json!({
        "metadata": {"name": "asked"},
        "spec": {
            "schedule": schedule,
            "timeZone": zone,
            "jobTemplate": {"spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
            }}}},
        },
    }))?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match api.create(&dry_run, &cron_job).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(Some(status.message.clone())),
        Err(error) => bail!("{schedule:?} in zone {zone:?}: {error}"),
    }
}

async fn expressions() -> Result<()> {
    let seed = match std::env::var("ARK_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64,
    };
    let mut random = Random(seed | 1);
    let made: Vec<String> = (0..CASES).map(|_| expression(&mut random)).collect();
    let odd = ODD.iter().map(|&text| text.to_owned());
    let api: Api<CronJob> = Api::namespaced(control_plane().await?.client().await?, "default");
    let answers = stream::iter(made.iter().cloned().chain(odd))
        .map(|text| async {
            let theirs = refusal(&api, &text, None).await?;
            anyhow::Ok((text, theirs))
        })
        .buffered(AT_ONCE);
    let mut answers = std::pin::pin!(answers);
    let mut wrong = Vec::new();
    let mut accepted = 0;
    while let Some(answer) = answers.next().await {
        let (text, theirs) = answer?;
        let ours = text.parse::<Cron>();
        accepted += usize::from(theirs.is_none());
        if ours.is_ok() != theirs.is_none() {
            wrong.push(format!("{text:?}: ours {ours:?}, theirs {theirs:?}"));
        }
    }
    ensure!(
        wrong.is_empty(),
        "with ARK_SEED={seed}:\n{}",
        wrong.join("\n")
    );
    ensure!(
        accepted * 10 >= CASES * 3 && accepted * 10 <= CASES * 8,
        "{accepted} of {CASES} expressions are accepted: the generator is lopsided (ARK_SEED={seed})"
    );
    Ok(())
}

/// What a generator seldom finds.
const ODD: [&str; 24] = [
    " ",
    "@daily",
    "@Daily",
    "@daily ",
    " @daily",
    "@every 1h30m",
    "@every  1h",
    "@every -1s",
    "@every 0",
    "@every 1d",
    "@every .5s1.h",
    "@every 9223372036854775808ns",
    "TZ=UTC 0 7 * * *",
    "CRON_TZ=UTC 0 7 * * *",
    "0 7 * * TZ",
    "*-5 * * * *",
    ", * * * *",
    "0 0 * * 7",
    "0 0 L * *",
    "0 0 * * mon#1",
    "0\u{a0}7 * * *",
    "0 0 * * fr\u{130}",
    "5/9223372036854775808 * * * *",
    "0 0 7 * * *",
];

/// Numbers as chance would have them, the same for the same seed (xorshift).
struct Random(u64);

impl Random {
    /// Less than `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Five fields, more or less.
fn expression(random: &mut Random) -> String {
    let bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
    let mut fields: Vec<String> = bounds
        .into_iter()
        .enumerate()
        .map(|(place, bounds)| field(random, place, bounds))
        .collect();
    if random.percent(2) {
        fields.pop();
    }
    if random.percent(2) {
        fields.push("*".into());
    }
    let gap = if random.percent(5) { " \t " } else { " " };
    fields.join(gap)
}

fn field(random: &mut Random, place: usize, bounds: (u64, u64)) -> String {
    let parts = if random.percent(75) { 1 } else { 2 };
    let parts: Vec<String> = (0..parts).map(|_| part(random, place, bounds)).collect();
    parts.join(if random.percent(3) { ",," } else { "," })
}

fn part(random: &mut Random, place: usize, bounds: (u64, u64)) -> String {
    let mut text = match random.below(10) {
        0..4 => random.one(&["*", "*", "*", "?"]).to_owned(),
        4..8 => value(random, place, bounds),
        _ => {
            let (low, high) = bounds;
            let start = low + random.below(high - low + 1);
            let end = start + random.below(high - start + 1);
            match random.percent(85) {
                true => format!("{start}-{end}"),
                false => format!(
                    "{}-{}",
                    value(random, place, bounds),
                    value(random, place, bounds)
                ),
            }
        }
    };
    if random.percent(20) {
        text.push('/');
        text.push_str(random.one(&["1", "2", "5", "15", "100", "02", "2", "3", "0", "", "-1"]));
    }
    text
}

fn value(random: &mut Random, place: usize, (low, high): (u64, u64)) -> String {
    if random.percent(6) {
        let odd = [
            "", "0", "7", "13", "24", "32", "60", "L", "W", "+3", "x", "mon", "Jan", "-1",
        ];
        return random.one(&odd).to_owned();
    }
    if random.percent(30) && place == 3 {
        return random.one(&["jan", "FEB", "Mar", "dec"]).to_owned();
    }
    if random.percent(30) && place == 4 {
        return random.one(&["sun", "MON", "Fri", "sat"]).to_owned();
    }
    (low + random.below(high - low + 1)).to_string()
}

async fn zones() -> Result<()> {
    let api: Api<CronJob> = Api::namespaced(control_plane().await?.client().await?, "default");
    for zone in [
        "UTC",
        "Europe/Berlin",
        "America/Argentina/ComodRivadavia",
        "Etc/GMT+5",
        "Asia/Kolkata",
        "",
        "Local",
        "local",
        "utc+1:00",
        "Europe/Atlantis",
        "Europe//Berlin",
        "../UTC",
        "/UTC",
        "Etc/-x",
        "europe/berlin",
    ] {
        let (ours, theirs) = (time_zone(zone), refusal(&api, "@daily", Some(zone)).await?);
        ensure!(
            ours.is_ok() == theirs.is_none(),
            "{zone:?}: ours {ours:?}, theirs {theirs:?}"
        );
    }
    Ok(())
}
