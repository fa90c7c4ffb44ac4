//! PostgreSQL's texts of dates and times (DateStyle ISO) as numbers.

/// Days from 1970 in 400 years of the Gregorian calendar.
const DAYS_PER_ERA: i64 = 146_097;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Days since 1970-01-01; infinity is the largest number, -infinity the smallest, as in
/// PostgreSQL itself.
pub fn date(text: &[u8]) -> Option<i32> {
    match text {
        b"infinity" => return Some(i32::MAX),
        b"-infinity" => return Some(i32::MIN),
        _ => {}
    }
    let (text, is_bc) = era(text);
    let (days, rest) = day(text, is_bc)?;
    (rest.is_empty()).then(|| i32::try_from(days).ok())?
}

/// Microseconds since midnight.
pub fn time(text: &[u8]) -> Option<i64> {
    let (micros, rest) = clock(text)?;
    rest.is_empty().then_some(micros)
}

/// Microseconds since 1970-01-01 00:00:00; of a `timestamptz` in UTC. Infinity as for [`date`].
pub fn timestamp(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => return Some(i64::MAX),
        b"-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (text, is_bc) = era(text);
    let (days, rest) = day(text, is_bc)?;
    let (micros, rest) = clock(rest.strip_prefix(b" ")?)?;
    let east = if rest.is_empty() { 0 } else { offset(rest)? };
    days.checked_mul(DAY)?.checked_add(micros - east)
}

fn era(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

/// Reads digits: the number, how many there are, the rest.
fn digits(text: &[u8]) -> Option<(i64, usize, &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&length) {
        return None;
    }
    let (digits, rest) = text.split_at(length);
    let number = digits.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
    Some((number, length, rest))
}

fn two(text: &[u8]) -> Option<(i64, &[u8])> {
    let (number, length, rest) = digits(text)?;
    (length == 2).then_some((number, rest))
}

/// `YYYY-MM-DD`, the year with more digits where it must have them.
fn day(text: &[u8], is_bc: bool) -> Option<(i64, &[u8])> {
    let (year, _, rest) = digits(text)?;
    let (month, rest) = two(rest.strip_prefix(b"-")?)?;
    let (day, rest) = two(rest.strip_prefix(b"-")?)?;
    let year = if is_bc { 1 - year } else { year };
    // Years begin in March, so that the day that not all of them have is their last.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some((era * DAYS_PER_ERA + of_era - 719_468, rest))
}

/// `HH:MM:SS`, with up to six digits after a point.
fn clock(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hours, rest) = two(text)?;
    let (minutes, rest) = two(rest.strip_prefix(b":")?)?;
    let (seconds, rest) = two(rest.strip_prefix(b":")?)?;
    let micros = ((hours * 60 + minutes) * 60 + seconds) * SECOND;
    let Some(fraction) = rest.strip_prefix(b".") else { return Some((micros, rest)) };
    let (number, length, rest) = digits(fraction)?;
    let missing = u32::try_from(6usize.checked_sub(length)?).ok()?;
    Some((micros + number * 10i64.pow(missing), rest))
}

/// `+HH`, `+HH:MM` or `+HH:MM:SS` to the east, in microseconds.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, text) = match text.split_first()? {
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let (mut seconds, mut unit) = (0, 3600);
    let mut rest = text;
    loop {
        let (number, after) = two(rest)?;
        seconds += number * unit;
        match after.strip_prefix(b":") {
            Some(after) if unit > 1 => (rest, unit) = (after, unit / 60),
            Some(_) => return None,
            None if after.is_empty() => return Some(sign * seconds * SECOND),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("2000-02-29", Some(11_016)),
            ("1969-12-31", Some(-1)),
            ("0001-01-01", Some(-719_162)),
            ("0001-12-31 BC", Some(-719_163)),
            ("4714-11-24 BC", Some(-2_440_588)),
            ("5874897-12-31", Some(2_145_042_905)),
            ("infinity", Some(i32::MAX)),
            ("-infinity", Some(i32::MIN)),
            ("01/02/2000", None),
            ("2000-02-29x", None),
            ("", None),
        ] {
            assert_eq!(date(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn times_of_day() {
        for (text, expected) in [
            ("00:00:00", Some(0)),
            ("24:00:00", Some(DAY)),
            ("01:02:03.5", Some(3_723_500_000)),
            ("01:02:03.000001", Some(3_723_000_001)),
            ("01:02:03.", None),
            ("01:02", None),
            ("01:02:03.1234567", None),
        ] {
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn timestamps() {
        for (text, expected) in [
            ("1970-01-01 00:00:00", Some(0)),
            ("1970-01-01 00:00:00+00", Some(0)),
            ("1970-01-01 05:30:00.25+05:30", Some(250_000)),
            ("1969-12-31 16:00:00-08", Some(0)),
            ("1970-01-01 00:53:28+00:53:28", Some(0)),
            ("0001-12-31 00:00:00+00 BC", Some(-719_163 * DAY)),
            ("infinity", Some(i64::MAX)),
            ("294246-12-31 00:00:00+00", Some(106_751_981 * DAY)),
            // PostgreSQL counts from 2000, and comes thirty years farther.
            ("294276-12-31 23:59:59.999999+00", None),
            ("1970-01-01T00:00:00", None),
            ("1970-01-01 00:00:00 UTC", None),
            ("1970-01-01 00:00:00+00:00:00:00", None),
        ] {
            assert_eq!(timestamp(text.as_bytes()), expected, "{text}");
        }
    }
}
