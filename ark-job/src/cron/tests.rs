//! What robfig/cron's own tests say, and what it computes where the clocks change.

use super::*;
use jiff::tz::TimeZone;

fn cron(text: &str) -> Cron {
    text.parse()
        .unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn error(text: &str) -> CronError {
    match text.parse::<Cron>() {
        Ok(cron) => panic!("{text:?} is {cron:?}"),
        Err(error) => error,
    }
}

/// A civil time in UTC.
fn utc(text: &str) -> Zoned {
    let civil: jiff::civil::DateTime = text.parse().unwrap();
    civil.to_zoned(TimeZone::UTC).unwrap()
}

/// A time with an offset, in that zone.
fn local(text: &str, zone: &str) -> Zoned {
    let at: jiff::Timestamp = text.parse().unwrap();
    at.to_zoned(time_zone(zone).unwrap())
}

#[test]
fn the_next_time_is_robfigs() {
    for (after, expression, expected) in [
        ("2012-07-09T14:45", "0/15 * * * *", Some("2012-07-09T15:00")),
        ("2012-07-09T14:59", "0/15 * * * *", Some("2012-07-09T15:00")),
        (
            "2012-07-09T14:59:59",
            "0/15 * * * *",
            Some("2012-07-09T15:00"),
        ),
        // Around hours, days, months and years.
        (
            "2012-07-09T15:45",
            "20-35/15 * * * *",
            Some("2012-07-09T16:20"),
        ),
        ("2012-07-09T23:46", "*/15 * * * *", Some("2012-07-10T00:00")),
        (
            "2012-07-09T23:45",
            "20-35/15 * * * *",
            Some("2012-07-10T00:20"),
        ),
        (
            "2012-07-09T23:35:51",
            "20-35/15 1/2 * * *",
            Some("2012-07-10T01:20"),
        ),
        (
            "2012-07-09T23:35:51",
            "20-35/15 10-12 * * *",
            Some("2012-07-10T10:20"),
        ),
        (
            "2012-07-09T23:35:51",
            "20-35/15 1/2 */2 * *",
            Some("2012-07-11T01:20"),
        ),
        (
            "2012-07-09T23:35:51",
            "20-35/15 * 9-20 * *",
            Some("2012-07-10T00:20"),
        ),
        (
            "2012-07-09T23:35:51",
            "20-35/15 * 9-20 Jul *",
            Some("2012-07-10T00:20"),
        ),
        (
            "2012-07-09T23:35",
            "0 0 9 Apr-Oct ?",
            Some("2012-08-09T00:00"),
        ),
        (
            "2012-07-09T23:35",
            "0 0 */5 Apr,Aug,Oct Mon",
            Some("2012-08-01T00:00"),
        ),
        (
            "2012-07-09T23:35",
            "0 0 */5 Oct Mon",
            Some("2012-10-01T00:00"),
        ),
        (
            "2012-07-09T23:35",
            "0 0 * Feb Mon",
            Some("2013-02-04T00:00"),
        ),
        (
            "2012-07-09T23:35",
            "0 0 * Feb Mon/2",
            Some("2013-02-01T00:00"),
        ),
        ("2012-12-31T23:59:45", "* * * * *", Some("2013-01-01T00:00")),
        ("2012-07-09T23:35", "0 0 29 Feb ?", Some("2016-02-29T00:00")),
        // Never, or not in five years.
        ("2012-07-09T23:35", "0 0 30 Feb ?", None),
        ("2012-07-09T23:35", "0 0 31 Apr ?", None),
        ("2012-07-09T23:35", ", * * * *", None),
        ("2012-07-09T23:35", "* , * * *", None),
        ("2012-07-09T23:35", "* * , * *", None),
        ("1896-03-01T00:00", "0 0 29 Feb ?", None),
        // Both fields for days: one is enough, unless one says "any"; a star with a step does not.
        (
            "2012-07-14T23:59",
            "* * 1,15 * Sun",
            Some("2012-07-15T00:00"),
        ),
        (
            "2012-06-14T23:59",
            "* * 1,15 * Sun",
            Some("2012-06-15T00:00"),
        ),
        (
            "2012-07-31T23:59",
            "* * 1,15 * Sun",
            Some("2012-08-01T00:00"),
        ),
        ("2012-07-14T23:59", "0 0 * * Mon", Some("2012-07-16T00:00")),
        ("2012-07-08T00:00", "0 0 1,15 * *", Some("2012-07-15T00:00")),
        (
            "2012-07-14T23:59",
            "0 0 */10 * Sun",
            Some("2012-07-15T00:00"),
        ),
        (
            "2012-07-15T00:00",
            "0 0 */10 * Sun",
            Some("2012-07-21T00:00"),
        ),
        (
            "2012-07-15T00:00",
            "0 0 */1 * Sun",
            Some("2012-07-22T00:00"),
        ),
        (
            "2012-07-15T00:00",
            "0 0 3,* * Sun",
            Some("2012-07-22T00:00"),
        ),
        // Words.
        ("2012-07-09T14:59", "@hourly", Some("2012-07-09T15:00")),
        ("2012-07-09T15:00", "@daily", Some("2012-07-10T00:00")),
        ("2012-07-09T15:00", "@midnight", Some("2012-07-10T00:00")),
        ("2012-07-09T00:00", "@weekly", Some("2012-07-15T00:00")),
        ("2012-07-08T00:00", "@monthly", Some("2012-08-01T00:00")),
        ("2012-07-08T00:00", "@yearly", Some("2013-01-01T00:00")),
        ("2012-07-08T00:00", "@annually", Some("2013-01-01T00:00")),
        // Intervals: whole seconds, at least one.
        (
            "2012-07-09T14:45:00.9",
            "@every 5m",
            Some("2012-07-09T14:50"),
        ),
        (
            "2012-07-09T14:45",
            "@every 1h1m1.9s",
            Some("2012-07-09T15:46:01"),
        ),
        ("2012-07-09T14:45", "@every 1.5h", Some("2012-07-09T16:15")),
        (
            "2012-07-09T14:45",
            "@every 15ms",
            Some("2012-07-09T14:45:01"),
        ),
        (
            "2012-07-09T14:45",
            "@every -1h",
            Some("2012-07-09T14:45:01"),
        ),
        ("2012-07-09T14:45", "@every 0", Some("2012-07-09T14:45:01")),
    ] {
        let next = cron(expression).next(&utc(after));
        assert_eq!(next, expected.map(utc), "{expression:?} after {after}");
    }
}

#[test]
fn the_next_time_is_robfigs_where_the_clocks_change() {
    const NEW_YORK: &str = "America/New_York";
    const SAO_PAULO: &str = "America/Sao_Paulo";
    for (after, zone, expression, expected) in [
        // 2:00 EST is 3:00 EDT: what is skipped is skipped.
        (
            "2012-03-11T00:00-05",
            NEW_YORK,
            "30 2 11 Mar ?",
            "2013-03-11T02:30-04",
        ),
        (
            "2012-03-11T00:00-05",
            NEW_YORK,
            "0 2 * * ?",
            "2012-03-12T02:00-04",
        ),
        (
            "2012-03-11T00:00-05",
            NEW_YORK,
            "0 * * * ?",
            "2012-03-11T01:00-05",
        ),
        (
            "2012-03-11T01:00-05",
            NEW_YORK,
            "0 * * * ?",
            "2012-03-11T03:00-04",
        ),
        (
            "2012-03-11T03:00-04",
            NEW_YORK,
            "0 * * * ?",
            "2012-03-11T04:00-04",
        ),
        (
            "2012-03-11T00:00-05",
            NEW_YORK,
            "0 1 * * ?",
            "2012-03-11T01:00-05",
        ),
        (
            "2012-03-11T01:00-05",
            NEW_YORK,
            "0 1 * * ?",
            "2012-03-12T01:00-04",
        ),
        // 2:00 EDT is 1:00 EST: what comes twice comes twice.
        (
            "2012-11-04T00:00-04",
            NEW_YORK,
            "30 2 04 Nov ?",
            "2012-11-04T02:30-05",
        ),
        (
            "2012-11-04T01:45-04",
            NEW_YORK,
            "30 1 04 Nov ?",
            "2012-11-04T01:30-05",
        ),
        (
            "2012-11-04T00:00-04",
            NEW_YORK,
            "0 * * * ?",
            "2012-11-04T01:00-04",
        ),
        (
            "2012-11-04T01:00-04",
            NEW_YORK,
            "0 * * * ?",
            "2012-11-04T01:00-05",
        ),
        (
            "2012-11-04T01:00-05",
            NEW_YORK,
            "0 * * * ?",
            "2012-11-04T02:00-05",
        ),
        (
            "2012-11-04T01:00-04",
            NEW_YORK,
            "0 1 * * ?",
            "2012-11-04T01:00-05",
        ),
        (
            "2012-11-04T01:00-05",
            NEW_YORK,
            "0 1 * * ?",
            "2012-11-05T01:00-05",
        ),
        (
            "2012-11-04T02:00-05",
            NEW_YORK,
            "0 2 * * ?",
            "2012-11-05T02:00-05",
        ),
        (
            "2012-11-04T00:00-04",
            NEW_YORK,
            "0 3 3 * ?",
            "2012-12-03T03:00-05",
        ),
        // No midnight that day (robfig/cron issue 157).
        (
            "2018-10-17T05:00-04",
            SAO_PAULO,
            "0 9 10 * ?",
            "2018-11-10T06:00-05",
        ),
        (
            "2018-02-14T05:00-05",
            SAO_PAULO,
            "0 9 22 * ?",
            "2018-02-22T07:00-05",
        ),
    ] {
        let after_local = local(&full(after), zone);
        let next = cron(expression).next(&after_local);
        let expected = local(&full(expected), zone);
        assert_eq!(next, Some(expected), "{expression:?} after {after}");
    }
}

/// Samoa had no 30 December 2011. robfig's loop comes back to the 29th for ever.
#[test]
fn the_search_ends_where_a_zone_has_skipped_a_day() {
    let after = local("2011-12-28T09:15:00Z", "Pacific/Apia");
    assert_eq!(cron("59 1 22 * 0,6").next(&after), None);
}

/// `2012-03-11T00:00-05` with the minutes of the offset.
fn full(text: &str) -> String {
    format!("{text}:00")
}

#[test]
fn what_robfig_accepts_is_accepted() {
    for text in [
        "* * * * ?",
        " 0\t7  * * * ",
        "007 +5 1-1 JAN-dec Sun,sAt",
        "*-5 ?-x/2 * * *",
        "1,,2, * * * *",
        "5/100 * * * *",
        "*/9223372036854775807 * * * *",
        "@every 1h30m",
        "@every +.5s1.h1us1µs1μs1ns",
        "@every 9223372036854775807ns",
    ] {
        cron(text);
    }
}

#[test]
fn an_error_points_at_the_field() {
    for (text, expected) in [
        ("", "a cron expression must not be empty"),
        (
            " ",
            "\" \" has 0 fields, not five: minute, hour, day of month, month, day of week",
        ),
        (
            "7",
            "\"7\" has 1 field, not five: minute, hour, day of month, month, day of week",
        ),
        (
            "0 0 7 * * *",
            "\"0 0 7 * * *\" has 6 fields, not five: minute, hour, day of month, month, day of week",
        ),
        (
            "60 * * * *",
            "\"60 * * * *\": minute (field 1 of 5), \"60\": 60 is above 59, the highest",
        ),
        (
            "0 1,24 * * *",
            "\"0 1,24 * * *\": hour (field 2 of 5), \"24\": 24 is above 23, the highest",
        ),
        (
            "0 0 0 * *",
            "\"0 0 0 * *\": day of month (field 3 of 5), \"0\": 0 is below 1, the lowest",
        ),
        (
            "0 0 L * *",
            "\"0 0 L * *\": day of month (field 3 of 5), \"L\": \"L\" is not a number; Kubernetes does not know L, W and #",
        ),
        (
            "0 0 1 13 *",
            "\"0 0 1 13 *\": month (field 4 of 5), \"13\": 13 is above 12, the highest",
        ),
        (
            "0 0 1 june *",
            "\"0 0 1 june *\": month (field 4 of 5), \"june\": \"june\" is not a number or a name, jan to dec",
        ),
        (
            "0 0 * * 7",
            "\"0 0 * * 7\": day of week (field 5 of 5), \"7\": 7 is above 6, the highest; Sunday is 0",
        ),
        (
            "0 0 * * fri#2",
            "\"0 0 * * fri#2\": day of week (field 5 of 5), \"fri#2\": \"fri#2\" is not a number or a name, sun to sat; Kubernetes does not know L, W and #",
        ),
        (
            "0 0 * * fri-mon",
            "\"0 0 * * fri-mon\": day of week (field 5 of 5), \"fri-mon\": the range begins at 5 and ends at 1; one that wraps around is two: 5-6,0-1",
        ),
        (
            "1- * * * *",
            "\"1- * * * *\": minute (field 1 of 5), \"1-\": a number is missing",
        ),
        (
            "1-2-3 * * * *",
            "\"1-2-3 * * * *\": minute (field 1 of 5), \"1-2-3\": there is more than one '-'",
        ),
        (
            "*/2/3 * * * *",
            "\"*/2/3 * * * *\": minute (field 1 of 5), \"*/2/3\": there is more than one '/'",
        ),
        (
            "*/0 * * * *",
            "\"*/0 * * * *\": minute (field 1 of 5), \"*/0\": the step is 0",
        ),
        (
            "*/-1 * * * *",
            "\"*/-1 * * * *\": minute (field 1 of 5), \"*/-1\": -1 is negative",
        ),
        (
            "@Daily",
            "\"@Daily\" is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly and \"@every DURATION\"",
        ),
        (
            "@every 1d",
            "\"@every 1d\": \"1d\" is not a duration such as 90m or 1h30m: the units are ns, us, ms, s, m and h",
        ),
        (
            "@every 5",
            "\"@every 5\": \"5\" is not a duration such as 90m or 1h30m: a unit is missing",
        ),
        (
            "TZ=UTC 0 7 * * *",
            "\"TZ=UTC 0 7 * * *\" names a time zone, which a cron expression of Kubernetes cannot",
        ),
    ] {
        assert_eq!(error(text).to_string(), expected);
    }
}

#[test]
fn a_hint_says_where_the_zone_goes() {
    let hint = error("CRON_TZ=Europe/Berlin 0 7 * * *").hint();
    assert!(
        hint.is_some_and(|hint| hint.contains("--time-zone")),
        "{hint:?}"
    );
    assert!(
        error("0 0 7 * * *")
            .hint()
            .is_some_and(|hint| hint.contains("no seconds"))
    );
    assert_eq!(error("60 * * * *").hint(), None);
}

#[test]
fn durations_are_gos() {
    for bad in [
        "",
        " 1h",
        "1h ",
        "1",
        "-",
        "+",
        ".",
        ".s",
        "1..s",
        "1.s.",
        "h",
        "-+1h",
        "9223372036854775808ns",
        "1h-5m",
        "3000000h",
        "1H",
    ] {
        assert!(
            matches!(error(&format!("@every {bad}")), CronError::Every { .. }),
            "{bad:?}"
        );
    }
    for word in ["@every", "@every1h", "@", "@daily ", "@reboot"] {
        assert!(matches!(error(word), CronError::Word { .. }), "{word:?}");
    }
}

#[test]
fn zones_are_those_that_the_api_server_takes() {
    for good in [
        "UTC",
        "Europe/Berlin",
        "America/Argentina/ComodRivadavia",
        "Etc/GMT+5",
    ] {
        let zone = time_zone(good).unwrap();
        assert_eq!(zone.iana_name(), Some(good));
    }
    for bad in [
        "",
        "Local",
        "local",
        "Europe/Atlantis",
        "Europe//Berlin",
        "/UTC",
        "../UTC",
        "utc",
        "Etc/Unknown",
        "UTC+1:00",
    ] {
        assert!(time_zone(bad).is_err(), "{bad:?}");
    }
    assert_eq!(
        time_zone("europe/berlin"),
        Err("\"europe/berlin\" is not a time zone, but \"Europe/Berlin\" is".to_owned())
    );
}
