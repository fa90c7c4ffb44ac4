//! Dates, times and intervals as PostgreSQL counts them: from 2000-01-01, in days or microseconds.

use std::time::{Duration, SystemTime};

/// Seconds from 1970-01-01 to 2000-01-01.
const TO_2000: u64 = 946_684_800;

/// `date`: days since 2000-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date(pub i32);

/// `time`: microseconds since midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Time(pub i64);

/// `timetz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeTz {
    /// Microseconds since midnight.
    pub micros: i64,
    /// Seconds east of UTC.
    pub offset_secs: i32,
}

/// `timestamp`: microseconds since 2000-01-01 00:00, in no time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// `timestamptz`: microseconds since 2000-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimestampTz(pub i64);

/// `interval`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Interval {
    /// Months.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

impl Date {
    /// Later than every other date.
    pub const INFINITY: Self = Self(i32::MAX);
    /// Earlier than every other date.
    pub const NEG_INFINITY: Self = Self(i32::MIN);

    /// The date of a year (1 BC is 0), a month and a day of the Gregorian calendar. `None` = there
    /// is no such day.
    pub fn from_ymd(year: i32, month: u32, day: u32) -> Option<Self> {
        let days = i32::try_from(days_of(i64::from(year), month, day)).ok()?;
        (Self(days).ymd() == (i64::from(year), month, day)).then_some(Self(days))
    }

    /// Year (1 BC is 0), month and day.
    pub fn ymd(self) -> (i64, u32, u32) {
        ymd(i64::from(self.0))
    }
}

impl Timestamp {
    /// Later than every other one.
    pub const INFINITY: Self = Self(i64::MAX);
    /// Earlier than every other one.
    pub const NEG_INFINITY: Self = Self(i64::MIN);
}

impl TimestampTz {
    /// Later than every other one.
    pub const INFINITY: Self = Self(i64::MAX);
    /// Earlier than every other one.
    pub const NEG_INFINITY: Self = Self(i64::MIN);

    /// The same moment for the operating system; `None` = infinite, or beyond what it can tell.
    pub fn to_system_time(self) -> Option<SystemTime> {
        if [i64::MIN, i64::MAX].contains(&self.0) {
            return None;
        }
        let zero = SystemTime::UNIX_EPOCH + Duration::from_secs(TO_2000);
        let distance = Duration::from_micros(self.0.unsigned_abs());
        if self.0 < 0 { zero.checked_sub(distance) } else { zero.checked_add(distance) }
    }

    /// A moment of the operating system's clock, cut to microseconds; `None` = beyond what
    /// PostgreSQL can tell.
    pub fn from_system_time(time: SystemTime) -> Option<Self> {
        let zero = SystemTime::UNIX_EPOCH + Duration::from_secs(TO_2000);
        let micros = match time.duration_since(zero) {
            Ok(after) => i64::try_from(after.as_micros()).ok()?,
            Err(before) => {
                let nanos = before.duration().as_nanos();
                i64::try_from(nanos.div_ceil(1000)).ok()?.checked_neg()?
            }
        };
        Some(Self(micros))
    }
}

impl Interval {
    /// Longer than every other one (PostgreSQL 17).
    pub const INFINITY: Self = Self { months: i32::MAX, days: i32::MAX, micros: i64::MAX };
    /// Shorter than every other one (PostgreSQL 17).
    pub const NEG_INFINITY: Self = Self { months: i32::MIN, days: i32::MIN, micros: i64::MIN };
}

// The Gregorian calendar repeats after 400 years of 146,097 days. Years are counted from March, so
// that the leap day is the last one; 2000-03-01 is day 60.

/// Days since 2000-01-01 of a day of the calendar.
fn days_of(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    (era - 5) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year + 60
}

/// Year, month and day of a number of days since 2000-01-01.
pub(crate) fn ymd(days: i64) -> (i64, u32, u32) {
    let days = days - 60;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + (era + 5) * 400 + i64::from(month <= 2);
    (year, month as u32, day as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_gregorian_calendar() {
        for (date, days) in [
            ((2000, 1, 1), 0),
            ((2000, 2, 29), 59),
            ((2000, 3, 1), 60),
            ((1999, 12, 31), -1),
            ((2026, 1, 1), 9497),
            ((1970, 1, 1), -10_957),
            ((1900, 3, 1), -36_465),
            ((0, 2, 29), -730_426),
            ((-4713, 11, 24), -2_451_545),
            ((5_874_897, 12, 31), 2_145_031_948),
        ] {
            let (year, month, day) = date;
            assert_eq!(Date::from_ymd(year, month, day), Some(Date(days)), "{date:?}");
            assert_eq!(Date(days).ymd(), (i64::from(year), month, day));
        }
        for day in -800_000..800_000 {
            let (year, month, of_month) = ymd(day);
            assert_eq!(days_of(year, month, of_month), day);
        }
        assert_eq!(Date::from_ymd(2001, 2, 29), None);
        assert_eq!(Date::from_ymd(2001, 13, 1), None);
    }

    #[test]
    fn moments_survive_the_way_to_the_operating_system_and_back() {
        for micros in [0, 1, -1, 820_540_800_000_000, -946_684_800_000_001] {
            let time = TimestampTz(micros).to_system_time().unwrap();
            assert_eq!(TimestampTz::from_system_time(time), Some(TimestampTz(micros)));
        }
        assert_eq!(TimestampTz::INFINITY.to_system_time(), None);
        let epoch = TimestampTz::from_system_time(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(epoch, TimestampTz(-946_684_800_000_000));
    }
}
