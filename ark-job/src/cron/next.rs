//! `Next` of robfig/cron v3: the first time after another that an expression names.
//!
//! Its steps are followed one by one, with Go's rules for local times that a change of the clocks skips or repeats, so
//! that what is shown is what the CronJob controller will do.

use super::Calendar;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ToSpan, Zoned};

/// Years in which a time must be found.
const YEARS: i16 = 5;
const HOUR: i64 = 3600;
/// More steps than five years take, hour by hour. robfig's loop never ends where a zone has skipped a day.
const STEPS: usize = 100_000;

/// So many seconds later, on the second.
pub fn plus(after: &Zoned, seconds: i64) -> Option<Zoned> {
    let second = whole_second(after).checked_add(seconds)?;
    Some(Local::at(after.time_zone(), second)?.zoned())
}

impl Calendar {
    /// The first time after `after`, in its zone; `None` when there is none in five years.
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        // A list of nothing but commas names nothing.
        if self.minutes == 0 {
            return None;
        }
        let mut local = Local::at(after.time_zone(), whole_second(after).checked_add(1)?)?;
        let last_year = local.civil.year().checked_add(YEARS)?;
        let mut steps = 0..STEPS;
        // Whether `local` has moved since; until then, what is smaller than the field that moves is not yet 0.
        let mut moved = false;
        'again: loop {
            if local.civil.year() > last_year {
                return None;
            }
            while !has(self.months, local.civil.month()) {
                if !moved {
                    moved = true;
                    local = local.with(local.civil.date().first_of_month(), Time::midnight())?;
                }
                local = local.with(month_later(local.civil.date())?, local.civil.time())?;
                steps.next()?;
                if local.civil.month() == 1 {
                    continue 'again;
                }
            }
            while !self.has_day(local.civil.date()) {
                if !moved {
                    moved = true;
                    local = local.with(local.civil.date(), Time::midnight())?;
                }
                let tomorrow = local.civil.date().tomorrow().ok()?;
                local = local.with(tomorrow, local.civil.time())?;
                // The clocks change at midnight: back to it, or on to the next.
                let hour = i64::from(local.civil.hour());
                if hour > 12 {
                    local = local.plus((24 - hour) * HOUR)?;
                } else if hour > 0 {
                    local = local.plus(-hour * HOUR)?;
                }
                steps.next()?;
                if local.civil.day() == 1 {
                    continue 'again;
                }
            }
            while !has(self.hours, local.civil.hour()) {
                if !moved {
                    moved = true;
                    let hour = Time::new(local.civil.hour(), 0, 0, 0).ok()?;
                    local = local.with(local.civil.date(), hour)?;
                }
                local = local.plus(HOUR)?;
                steps.next()?;
                if local.civil.hour() == 0 {
                    continue 'again;
                }
            }
            while !has(self.minutes, local.civil.minute()) {
                if !moved {
                    moved = true;
                    local = local.plus(-local.second.rem_euclid(60))?;
                }
                local = local.plus(60)?;
                steps.next()?;
                if local.civil.minute() == 0 {
                    continue 'again;
                }
            }
            match local.civil.second() {
                0 => return Some(local.zoned()),
                second => {
                    moved = true;
                    local = local.plus(60 - i64::from(second))?;
                }
            }
        }
    }

    /// Whether the fields for days name this one: both of them, but one is enough when neither says "any".
    fn has_day(&self, date: Date) -> bool {
        let (of_month, of_week) = (&self.days_of_month, &self.days_of_week);
        let in_month = has(of_month.bits, date.day());
        let in_week = has(of_week.bits, date.weekday().to_sunday_zero_offset());
        if of_month.any || of_week.any {
            in_month && in_week
        } else {
            in_month || in_week
        }
    }
}

/// A time in a zone, to the second.
#[derive(Clone, Copy)]
struct Local<'a> {
    zone: &'a TimeZone,
    /// Since the epoch.
    second: i64,
    civil: DateTime,
}

impl<'a> Local<'a> {
    /// `None` when it is out of jiff's years.
    fn at(zone: &'a TimeZone, second: i64) -> Option<Local<'a>> {
        let at = Timestamp::from_second(second).ok()?;
        let civil = zone.to_offset(at).to_datetime(at);
        Some(Local {
            zone,
            second,
            civil,
        })
    }

    /// Another date and time of the same zone, by Go's `Date`: one that is skipped is taken in one of the two offsets
    /// around it, and comes out before or after the gap.
    fn with(self, date: Date, time: Time) -> Option<Local<'a>> {
        let offset = |second: i64| {
            let at = Timestamp::from_second(second).ok()?;
            Some(i64::from(self.zone.to_offset(at).seconds()))
        };
        let utc = Offset::UTC
            .to_timestamp(date.to_datetime(time))
            .ok()?
            .as_second();
        let guess = utc - offset(utc)?;
        Local::at(self.zone, utc - offset(guess)?)
    }

    fn plus(self, seconds: i64) -> Option<Local<'a>> {
        Local::at(self.zone, self.second.checked_add(seconds)?)
    }

    fn zoned(self) -> Zoned {
        Timestamp::from_second(self.second)
            .expect("it was made of one")
            .to_zoned(self.zone.clone())
    }
}

/// The second that a time is in.
fn whole_second(at: &Zoned) -> i64 {
    at.timestamp().as_nanosecond().div_euclid(1_000_000_000) as i64
}

/// The same day of the next month; where there is none, so many days into the one after, as Go counts.
fn month_later(date: Date) -> Option<Date> {
    let first = date.first_of_month().checked_add(1.month()).ok()?;
    first.checked_add((date.day() - 1).days()).ok()
}

fn has(bits: u64, number: i8) -> bool {
    bits >> number & 1 == 1
}
