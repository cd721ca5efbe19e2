//! What may be typed where a backup is named: its name, `latest`, `SCHEDULE/latest`. Which one that is, [`crate::lookup`] finds out.

use super::Newest;
use ark_job::identity::check_name;

/// What names the newest backup.
pub const LATEST: &str = "latest";
/// The newest backup, if that is what is meant.
pub fn newest_of(typed: &str) -> Option<Newest> {
    let schedule = match typed.rsplit_once('/') {
        Some((schedule, LATEST)) => Some(schedule.to_owned()),
        None if typed == LATEST => None,
        _ => return None,
    };
    Some(Newest {
        schedule,
        allow_partially_failed: false,
    })
}

/// Checks what is to name a backup.
///
/// # Errors
/// A sentence on what is wrong.
pub fn check(typed: &str) -> Result<(), String> {
    match newest_of(typed) {
        Some(Newest { schedule, .. }) => schedule.as_deref().map_or(Ok(()), check_name),
        None if typed.contains('/') => Err(format!(
            "{typed:?} names no backup: it is NAME, {LATEST}, or SCHEDULE/{LATEST}"
        )),
        None => check_name(typed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_backup_is_a_name_or_latest() {
        for good in ["a", "a.b-1", "latest", "nightly/latest"] {
            check(good).unwrap();
        }
        for bad in ["A", "", "a/b", "/latest", "a/b/latest", "a/", "latest/"] {
            check(bad).unwrap_err();
        }
        let newest = |schedule: Option<&str>| Newest {
            schedule: schedule.map(str::to_owned),
            allow_partially_failed: false,
        };
        assert_eq!(newest_of("latest"), Some(newest(None)));
        assert_eq!(newest_of("nightly/latest"), Some(newest(Some("nightly"))));
        assert_eq!(newest_of("nightly"), None);
    }
}
