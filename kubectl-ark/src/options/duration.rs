//! Durations as people type them: Go's (`720h`, `1h30m`), and days and weeks (`7d`, `2w`, `1d12h`), which Go does not know.
//!
//! `ark-job`, resources and what is stored keep to Go's, which others read.

use super::usage;
use ark_job::args::{BackupFlags, RestoreFlags, parse_duration};
use ark_job::error::Failure;
use std::time::Duration;

const HOURS_OF_A_DAY: u64 = 24;
const DAYS_OF_A_WEEK: u64 = 7;
/// Digits of a number that surely fits, whatever its unit; a century has fewer seconds than more digits say.
const LONGEST_NUMBER: usize = 10;

/// A duration that was given to a flag.
///
/// # Errors
/// [`ark_job::exit::Exit::Usage`], with the flag and what is expected.
pub fn parse(flag: &str, text: &str) -> Result<Duration, Failure> {
    parse_duration(&go(flag, text)?).map_err(|_| wrong(flag, text))
}

/// As Go writes it.
///
/// # Errors
/// As [`parse`].
pub fn in_go(flag: &str, text: String) -> Result<String, Failure> {
    let go = go(flag, &text)?;
    parse_duration(&go).map_err(|_| wrong(flag, &text))?;
    Ok(go)
}

/// Those of a backup, in Go's way.
///
/// # Errors
/// As [`parse`].
pub fn of_backup(mut flags: BackupFlags) -> Result<BackupFlags, Failure> {
    flags.ttl = optional("--ttl", flags.ttl)?;
    flags.csi_snapshot_timeout = optional("--csi-snapshot-timeout", flags.csi_snapshot_timeout)?;
    Ok(flags)
}

/// Those of a restore, in Go's way.
///
/// # Errors
/// As [`parse`].
pub fn of_restore(mut flags: RestoreFlags) -> Result<RestoreFlags, Failure> {
    flags.volume_timeout = optional("--volume-timeout", flags.volume_timeout)?;
    Ok(flags)
}

fn optional(flag: &str, text: Option<String>) -> Result<Option<String>, Failure> {
    text.map(|text| in_go(flag, text)).transpose()
}

fn wrong(flag: &str, text: &str) -> Failure {
    usage(format!(
        "{flag}: {text:?} is no duration; 30m, 12h, 1h30m, 7d and 2w are"
    ))
}

/// Weeks, days and the hours that follow them, as hours; the rest as it is.
fn go(flag: &str, text: &str) -> Result<String, Failure> {
    let long = |digits: &str| digits.len() > LONGEST_NUMBER;
    if text.is_empty() || text.split(|c: char| !c.is_ascii_digit()).any(long) {
        return Err(wrong(flag, text));
    }
    if !text.contains(['d', 'w']) {
        return Ok(text.to_owned());
    }
    let mut hours: u64 = 0;
    let mut rest = text;
    while let Some((count, unit, behind)) = leading(rest) {
        let of_unit = match unit {
            'w' => DAYS_OF_A_WEEK * HOURS_OF_A_DAY,
            'd' => HOURS_OF_A_DAY,
            'h' => 1,
            _ => break,
        };
        let more = count.checked_mul(of_unit);
        hours = more
            .and_then(|more| hours.checked_add(more))
            .ok_or_else(|| wrong(flag, text))?;
        rest = behind;
    }
    Ok(format!("{hours}h{rest}"))
}

/// The whole number at the beginning, its unit, and what follows.
fn leading(text: &str) -> Option<(u64, char, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, rest) = text.split_at(digits);
    let unit = rest.chars().next()?;
    Some((count.parse().ok()?, unit, rest.strip_prefix(unit)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_weeks_become_hours() {
        for (typed, go) in [
            ("7d", "168h"),
            ("2w", "336h"),
            ("1w1d", "192h"),
            ("1d12h", "36h"),
            ("1d12h30m", "36h30m"),
            ("1d30m", "24h30m"),
            ("0d", "0h"),
            ("720h", "720h"),
            ("1h30m", "1h30m"),
            ("0", "0"),
        ] {
            assert_eq!(in_go("--ttl", typed.to_owned()).unwrap(), go);
        }
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!(parse("--older-than", "7d").unwrap(), week);
    }

    #[test]
    fn what_is_no_duration_is_told_with_what_is() {
        for typed in [
            "abc",
            "d",
            "7",
            "",
            "7d7",
            "1.5d",
            "-1d",
            "d7",
            "7dd",
            "30 days",
            "99999999999999999999d",
            "99999999999999999999h",
        ] {
            let failure = parse("--volume-timeout", typed).unwrap_err();
            assert_eq!(
                failure.message(),
                format!(
                    "--volume-timeout: {typed:?} is no duration; 30m, 12h, 1h30m, 7d and 2w are"
                )
            );
        }
    }
}
