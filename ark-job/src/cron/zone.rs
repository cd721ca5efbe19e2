//! Time zones of schedules, by the API server's rules for `spec.timeZone` of a CronJob.

use jiff::tz::{self, TimeZone};

/// Longest part of a zone's name between slashes.
const PART_MAX: usize = 14;

/// The time zone with that name in the IANA database, spelled exactly so.
///
/// # Errors
/// A sentence that says what is wrong with the name; also when this machine has no database of time zones.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    let unknown =
        || format!("{name:?} is not a time zone; they are called like Europe/Berlin or UTC");
    if name.is_empty() {
        return Err("the name of a time zone must not be empty".into());
    }
    // The API server takes no zone of its own surroundings.
    if name.eq_ignore_ascii_case("local") {
        return Err(format!(
            "{name:?} is a different time zone on each machine; name one such as Europe/Berlin or UTC"
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    let good = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.len() <= PART_MAX
            && !part.starts_with('-')
            && part.chars().all(allowed)
    };
    if !name.split('/').all(good) {
        return Err(unknown());
    }
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    if tz::db().is_definitively_empty() {
        return Err(format!(
            "{name:?} cannot be looked up: this machine has no time zones (package tzdata, /usr/share/zoneinfo, TZDIR)"
        ));
    }
    let zone = tz::db().get(name).map_err(|_| unknown())?;
    match zone.iana_name() {
        Some(known) if known == name => Ok(zone),
        // jiff does not mind the case of letters; the API server does.
        Some(known) if known.eq_ignore_ascii_case(name) => {
            Err(format!("{name:?} is not a time zone, but {known:?} is"))
        }
        _ => Err(unknown()),
    }
}
