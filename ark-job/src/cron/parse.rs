//! The grammar of robfig/cron v3's `ParseStandard`, as the API server applies it.

use super::{Calendar, CronError, Days, Field, When};

/// Reads an expression.
pub fn parse(text: &str) -> Result<When, CronError> {
    let expression = || text.to_owned();
    if text.is_empty() {
        return Err(CronError::Empty);
    }
    // The API server refuses these letters anywhere.
    if text.contains("TZ") {
        return Err(CronError::TimeZone {
            expression: expression(),
        });
    }
    if text.starts_with('@') {
        return word(text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day_of_month, month, day_of_week] = fields[..] else {
        return Err(CronError::Count {
            expression: expression(),
            found: fields.len(),
        });
    };
    let read = |field: Field, list: &str| {
        read_list(field, list).map_err(|(part, why)| CronError::Field {
            expression: expression(),
            field,
            part,
            why,
        })
    };
    Ok(When::Calendar(Calendar {
        minutes: read(Field::Minute, minute)?.bits,
        hours: read(Field::Hour, hour)?.bits,
        days_of_month: read(Field::DayOfMonth, day_of_month)?,
        months: read(Field::Month, month)?.bits,
        days_of_week: read(Field::DayOfWeek, day_of_week)?,
    }))
}

/// Reads an expression that is one word, and `@every DURATION`.
fn word(text: &str) -> Result<When, CronError> {
    if let Some(duration) = text.strip_prefix("@every ") {
        let nanoseconds = go_duration(duration).map_err(|why| CronError::Every {
            expression: text.to_owned(),
            duration: duration.to_owned(),
            why,
        })?;
        return Ok(When::Every {
            seconds: (nanoseconds / 1_000_000_000).max(1),
        });
    }
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            return Err(CronError::Word {
                expression: text.to_owned(),
            });
        }
    };
    parse(fields)
}

/// Reads a field: ranges with commas between them, where nothing between two commas is nothing. An error is the range and
/// what is wrong with it.
fn read_list(field: Field, list: &str) -> Result<Days, (String, String)> {
    let mut days = Days {
        bits: 0,
        any: false,
    };
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let one = read_range(field, part).map_err(|why| (part.to_owned(), why))?;
        days.bits |= one.bits;
        days.any |= one.any;
    }
    Ok(days)
}

/// Reads `*`, `n` or `n-m`, each with or without `/step`.
fn read_range(field: Field, part: &str) -> Result<Days, String> {
    let (lowest, highest) = field.bounds();
    let (range, step) = match part.split('/').collect::<Vec<_>>()[..] {
        [range] => (range, None),
        [range, step] => (range, Some(number(step)?)),
        _ => return Err("there is more than one '/'".into()),
    };
    let ends: Vec<&str> = range.split('-').collect();
    let any = matches!(ends[0], "*" | "?");
    let (start, end) = match ends[..] {
        // Whatever follows a star and a hyphen is not looked at.
        _ if any => (lowest, highest),
        [one] => {
            let start = field.value(one)?;
            // `n/step` goes on to the end.
            (start, if step.is_some() { highest } else { start })
        }
        [start, end] => (field.value(start)?, field.value(end)?),
        _ => return Err("there is more than one '-'".into()),
    };
    let sunday = match field {
        Field::DayOfWeek if start.max(end) == 7 => "; Sunday is 0",
        _ => "",
    };
    if start < lowest {
        return Err(format!("{start} is below {lowest}, the lowest"));
    }
    if let Some(high) = [start, end].into_iter().find(|&one| one > highest) {
        return Err(format!("{high} is above {highest}, the highest{sunday}"));
    }
    if start > end {
        return Err(format!(
            "the range begins at {start} and ends at {end}; one that wraps around is two: {start}-{highest},{lowest}-{end}"
        ));
    }
    let step = step.unwrap_or(1);
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    if step == 0 {
        return Err("the step is 0".into());
    }
    let bits = (start..=end)
        .step_by(step)
        .fold(0, |bits, one| bits | 1 << one);
    Ok(Days {
        bits,
        any: any && step == 1,
    })
}

/// A number as Go's `Atoi` reads it, not negative.
fn number(text: &str) -> Result<u64, String> {
    // The largest that Go's int holds.
    match text.parse::<i64>() {
        Ok(number) => u64::try_from(number).map_err(|_| format!("{number} is negative")),
        Err(_) if text.is_empty() => Err("a number is missing".into()),
        Err(_) => Err(format!("{text:?} is not a number")),
    }
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS_OF_WEEK: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Field {
    /// Its lowest and highest number.
    fn bounds(self) -> (u64, u64) {
        match self {
            Field::Minute => (0, 59),
            Field::Hour => (0, 23),
            Field::DayOfMonth => (1, 31),
            Field::Month => (1, 12),
            Field::DayOfWeek => (0, 6),
        }
    }

    /// The names of its numbers, from the lowest on.
    fn names(self) -> &'static [&'static str] {
        match self {
            Field::Month => &MONTHS,
            Field::DayOfWeek => &DAYS_OF_WEEK,
            _ => &[],
        }
    }

    /// The number that `text` says or names.
    fn value(self, text: &str) -> Result<u64, String> {
        // The first character of each lower-case form, as Go's ToLower.
        let lower: String = text
            .chars()
            .filter_map(|c| c.to_lowercase().next())
            .collect();
        let lowest = self.bounds().0;
        if let Some((value, _)) = (lowest..)
            .zip(self.names())
            .find(|(_, name)| **name == lower)
        {
            return Ok(value);
        }
        number(text).map_err(|why| {
            let names = match self.names() {
                [first, .., last] if !text.is_empty() => format!(" or a name, {first} to {last}"),
                _ => String::new(),
            };
            let special = match text.contains(['L', 'W', '#']) {
                true => "; Kubernetes does not know L, W and #",
                false => "",
            };
            format!("{why}{names}{special}")
        })
    }
}

/// A duration in nanoseconds as Go's `ParseDuration` reads it: `1h30m`, `1.5h`, `-5s`, `0`.
fn go_duration(text: &str) -> Result<i64, &'static str> {
    const TOO_LONG: &str = "it is too long";
    /// Go holds 2⁶³ ns while it adds up, for the sake of the lowest negative one.
    const MOST: u64 = 1 << 63;
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err("it is empty");
    }
    let digits =
        |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = rest.split_at(digits(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err("a number is missing");
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err("a unit is missing"),
            _ => return Err("the units are ns, us, ms, s, m and h"),
        };
        let whole: u64 = match whole {
            "" => 0,
            whole => whole.parse().map_err(|_| TOO_LONG)?,
        };
        let mut part = whole
            .checked_mul(unit)
            .filter(|part| *part <= MOST)
            .ok_or(TOO_LONG)?;
        if !fraction.is_empty() {
            // Less than a unit, and what is below a second does not count.
            let share: f64 = format!("0.{fraction}").parse().unwrap_or_default();
            part += (share * unit as f64) as u64;
        }
        total = total
            .checked_add(part)
            .filter(|total| *total <= MOST)
            .ok_or(TOO_LONG)?;
        rest = after;
    }
    match negative {
        true => Ok(0_i64.wrapping_sub_unsigned(total)),
        false => i64::try_from(total).map_err(|_| TOO_LONG),
    }
}
