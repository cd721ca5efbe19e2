//! When a schedule's backups are due, as the CronJob controller reckons. Pure.

use ark_job::cron::{self, Cron};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use k8s_openapi::api::batch::v1::CronJob;

/// How many of the next times are shown.
pub const SHOWN: usize = 3;

/// The next times after `after`, at most `count`.
pub fn following(cron: &Cron, after: Zoned, count: usize) -> Vec<Zoned> {
    let later = |at: &Zoned| cron.next(at);
    std::iter::successors(later(&after), later)
        .take(count)
        .collect()
}

/// Seconds between the times of an `@every`; 0 of any other expression.
///
/// The controller counts an interval from the last Job, but from no earlier than the starting deadline before now: an
/// interval that is longer than the deadline would never be due. So it is added to the deadline.
pub fn distance(text: &str, cron: &Cron, from: &Zoned) -> i64 {
    if !is_interval(text) {
        return 0;
    }
    let next = cron.next(from).map(|next| next.timestamp().as_second());
    next.map_or(0, |next| next - from.timestamp().as_second())
}

fn is_interval(text: &str) -> bool {
    text.trim_start().starts_with("@every")
}

/// The times of a CronJob after `from`, counted from there if it is an interval, at most `count`; none when its expression or
/// zone cannot be read here.
pub fn after(cron_job: &CronJob, from: Timestamp, count: usize) -> Vec<Zoned> {
    match read(cron_job) {
        Some((cron, zone)) => following(&cron, from.to_zoned(zone), count),
        None => Vec::new(),
    }
}

fn read(cron_job: &CronJob) -> Option<(Cron, TimeZone)> {
    let spec = cron_job.spec.as_ref()?;
    let zone = match &spec.time_zone {
        Some(name) => cron::time_zone(name).ok()?,
        None => TimeZone::UTC,
    };
    Some((spec.schedule.parse().ok()?, zone))
}

/// The next times of a CronJob, at most `count`; none when its expression or zone cannot be read here.
pub fn of_cron_job(cron_job: &CronJob, now: Timestamp, count: usize) -> Vec<Zoned> {
    let (Some(spec), Some((cron, zone))) = (&cron_job.spec, read(cron_job)) else {
        return Vec::new();
    };
    let last = cron_job
        .status
        .as_ref()
        .and_then(|status| status.last_schedule_time.as_ref())
        .or(cron_job.metadata.creation_timestamp.as_ref());
    let from = match last {
        Some(last) if is_interval(&spec.schedule) => {
            let distance = distance(&spec.schedule, &cron, &last.0.to_zoned(zone.clone()));
            latest(last.0, distance, now)
        }
        _ => now,
    };
    following(&cron, from.to_zoned(zone), count)
}

/// The latest of `start`, `start` + `distance`, … that is not after `now`.
fn latest(start: Timestamp, distance: i64, now: Timestamp) -> Timestamp {
    let past = now.as_second() - start.as_second();
    if distance <= 0 || past <= 0 {
        return start;
    }
    let whole = past / distance * distance;
    start
        .checked_add(SignedDuration::from_secs(whole))
        .unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn next(schedule: &str, zone: Option<&str>, last: Option<&str>) -> Vec<String> {
        let cron_job: CronJob = serde_json::from_value(json!({
            "metadata": {"creationTimestamp": "2026-11-01T00:00:30Z"},
            "spec": {"schedule": schedule, "timeZone": zone, "jobTemplate": {}},
            "status": {"lastScheduleTime": last},
        }))
        .unwrap();
        let now = "2026-11-23T20:15:01Z".parse().unwrap();
        let times = of_cron_job(&cron_job, now, 2);
        times
            .iter()
            .map(|at| at.strftime("%d %T %Z").to_string())
            .collect()
    }

    #[test]
    fn times_are_those_of_the_controller() {
        assert_eq!(
            next("30 20 * * *", None, None),
            ["23 20:30:00 UTC", "24 20:30:00 UTC"]
        );
        assert_eq!(
            next("30 20 * * *", Some("Europe/Berlin"), None),
            ["24 20:30:00 CET", "25 20:30:00 CET"]
        );
        // An interval is counted from the last Job, or from the creation.
        assert_eq!(
            next("@every 6h", None, Some("2026-11-23T19:00:00Z")),
            ["24 01:00:00 UTC", "24 07:00:00 UTC"]
        );
        assert_eq!(
            next("@every 6h", None, None),
            ["24 00:00:30 UTC", "24 06:00:30 UTC"]
        );
        assert_eq!(next("nonsense", None, None), [""; 0]);
        assert_eq!(next("@daily", Some("Nowhere"), None), [""; 0]);
    }
}
