//! Cron expressions with Kubernetes' meaning: the grammar and `Next` of robfig/cron v3, which the API server and the
//! CronJob controller use, down to their oddities.
//!
//! No crate reads them as Kubernetes does (croner and cron were tried).

mod next;
mod parse;
#[cfg(test)]
mod tests;
mod zone;

pub use self::zone::time_zone;
use jiff::Zoned;
use std::fmt;
use std::str::FromStr;

/// A cron expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron(When);

#[derive(Clone, Debug, PartialEq, Eq)]
enum When {
    /// Five fields, or a word such as `@daily` that stands for them.
    Calendar(Calendar),
    /// `@every`: so many seconds after the last time, at least one.
    Every { seconds: i64 },
}

/// What the five fields name; bit n stands for n.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Calendar {
    minutes: u64,
    hours: u64,
    days_of_month: Days,
    months: u64,
    days_of_week: Days,
}

/// The days that one of the two fields for days names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Days {
    bits: u64,
    /// Whether the field says "any" (`*`, `?`, or one of them in a list; not `*/2`): then both fields must match,
    /// otherwise one is enough.
    any: bool,
}

/// One of the five fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// 0-59
    Minute,
    /// 0-23
    Hour,
    /// 1-31
    DayOfMonth,
    /// 1-12 or jan-dec
    Month,
    /// 0-6 or sun-sat
    DayOfWeek,
}

impl Field {
    /// All of them, in the order in which they are written.
    pub const ALL: [Field; 5] = [
        Field::Minute,
        Field::Hour,
        Field::DayOfMonth,
        Field::Month,
        Field::DayOfWeek,
    ];

    /// Its place, from 1.
    fn number(self) -> usize {
        self as usize + 1
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::Minute => "minute",
            Field::Hour => "hour",
            Field::DayOfMonth => "day of month",
            Field::Month => "month",
            Field::DayOfWeek => "day of week",
        })
    }
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// There is no expression.
    #[error("a cron expression must not be empty")]
    Empty,
    /// It names a time zone, which the API server refuses in a CronJob.
    #[error("{expression:?} names a time zone, which a cron expression of Kubernetes cannot")]
    TimeZone {
        /// The whole expression.
        expression: String,
    },
    /// It has not five fields.
    #[error(
        "{expression:?} has {found} {}, not five: minute, hour, day of month, month, day of week",
        if *.found == 1 { "field" } else { "fields" }
    )]
    Count {
        /// The whole expression.
        expression: String,
        /// How many there are.
        found: usize,
    },
    /// A field is wrong.
    #[error("{expression:?}: {field} (field {} of 5), {part:?}: {why}", .field.number())]
    Field {
        /// The whole expression.
        expression: String,
        /// The field.
        field: Field,
        /// The part of it that is wrong: one item of its list.
        part: String,
        /// What is wrong with that.
        why: String,
    },
    /// It begins with `@` and is none of the words that there are.
    #[error(
        "{expression:?} is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly and \"@every DURATION\""
    )]
    Word {
        /// The whole expression.
        expression: String,
    },
    /// `@every` with something that is not a duration.
    #[error("{expression:?}: {duration:?} is not a duration such as 90m or 1h30m: {why}")]
    Every {
        /// The whole expression.
        expression: String,
        /// What stands for the duration.
        duration: String,
        /// What is wrong with that.
        why: &'static str,
    },
}

impl CronError {
    /// What to do next, where that is not plain.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            CronError::TimeZone { .. } => {
                Some("leave TZ=… out, and name the zone with --time-zone")
            }
            CronError::Count { found: 6 | 7, .. } => Some(
                "Kubernetes' expressions have no seconds and no years: the first field is the minute",
            ),
            _ => None,
        }
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Cron, CronError> {
        parse::parse(text).map(Cron)
    }
}

impl Cron {
    /// The first time after `after` that it names, in the zone of `after`; `None` when there is none in five years.
    ///
    /// A time of day that a change of the clocks skips is skipped; one that comes twice is named twice, as by Kubernetes.
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        match &self.0 {
            When::Calendar(calendar) => calendar.next(after),
            When::Every { seconds } => next::plus(after, *seconds),
        }
    }
}
