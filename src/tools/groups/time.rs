//! Points and spans of time as the reset of offsets takes them: ISO 8601, in UTC unless a zone is named (pure).

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// `2026-11-21T14:30:00.000`, and after it nothing, `Z`, `+01`, `+0100` or `+01:00`: milliseconds since the epoch.
pub(super) fn datetime(text: &str) -> Result<i64, String> {
    let Some((date, clock)) = text.split_once('T') else {
        return Err(
            "Error parsing timestamp. It does not contain a 'T' according to ISO8601 format"
                .to_owned(),
        );
    };
    let parsed = || {
        let (clock, zone_ms) = zone(clock)?;
        Some(day(date)? * DAY_MS + time_of_day(clock)? - zone_ms)
    };
    parsed().ok_or_else(|| {
        format!("Unparseable date: \"{text}\" (YYYY-MM-DDThh:mm:ss.sss is expected)")
    })
}

/// Splits the zone off the end of a time.
fn zone(clock: &str) -> Option<(&str, i64)> {
    if let Some(clock) = clock.strip_suffix('Z') {
        return Some((clock, 0));
    }
    let Some(at) = clock.find(['+', '-']) else {
        return Some((clock, 0));
    };
    let (clock, zone) = clock.split_at(at);
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let digits = zone[1..].replace(':', "");
    let (hours, minutes) = match digits.len() {
        2 => (number(&digits, 0..=18)?, 0),
        4 => (number(&digits[..2], 0..=18)?, number(&digits[2..], 0..=59)?),
        _ => return None,
    };
    Some((clock, sign * (hours * 60 + minutes) * 60_000))
}

/// Days since the epoch, by counting the days of the years before in the Gregorian calendar.
fn day(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let year = number(parts.next()?, 1..=9999)?;
    let month = number(parts.next()?, 1..=12)?;
    let day = number(parts.next()?, 1..=days_of(year, month))?;
    if parts.next().is_some() {
        return None;
    }
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let before_year = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    let before_month: i64 = (1..month).map(|month| days_of(year, month)).sum();
    Some(before_year + before_month + day - 1)
}

fn days_of(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn time_of_day(clock: &str) -> Option<i64> {
    let mut parts = clock.split(':');
    let hours = number(parts.next()?, 0..=23)?;
    let minutes = number(parts.next()?, 0..=59)?;
    let (seconds, fraction) = match parts.next()?.split_once('.') {
        Some((seconds, fraction)) => (seconds.to_owned(), fraction.to_owned()),
        None if clock.matches(':').count() == 2 => {
            (clock.rsplit(':').next()?.to_owned(), String::new())
        }
        None => return None,
    };
    if parts.next().is_some() || 3 < fraction.len() {
        return None;
    }
    let seconds = number(&seconds, 0..=59)?;
    let ms = number(&format!("{fraction:0<3}"), 0..=999)?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + ms)
}

fn number(text: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits)?;
    range.contains(&number).then_some(number)
}

/// `P1DT2H3M4.5S`, any part of it, in milliseconds.
pub(super) fn duration(text: &str) -> Result<i64, String> {
    parse_duration(text).ok_or_else(|| {
        format!(
            "Text cannot be parsed to a Duration: {text} (PnDTnHnMnS is expected, as in PT1H30M)"
        )
    })
}

fn parse_duration(text: &str) -> Option<i64> {
    let rest = text.strip_prefix(['P', 'p'])?;
    let (days, clock) = match rest.split_once(['T', 't']) {
        Some((days, clock)) if !clock.is_empty() => (days, clock),
        Some(_) => return None,
        None => (rest, ""),
    };
    if days.is_empty() && clock.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    let mut units = [('D', DAY_MS), ('H', 3_600_000), ('M', 60_000), ('S', 1000)].into_iter();
    for (part, date_part) in [(days, true), (clock, false)] {
        let mut rest = part;
        while !rest.is_empty() {
            let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
            let unit = rest[end..].chars().next()?.to_ascii_uppercase();
            // Units come in their order, so each is looked for after the last.
            let (name, ms) = units.find(|(name, _)| *name == unit)?;
            if (name == 'D') != date_part {
                return None;
            }
            let amount = match rest[..end].split_once('.') {
                Some((whole, fraction)) if name == 'S' && (1..=3).contains(&fraction.len()) => {
                    let whole: i64 = whole.parse().ok()?;
                    whole
                        .checked_mul(1000)?
                        .checked_add(number(&format!("{fraction:0<3}"), 0..=999)?)?
                }
                Some(_) => return None,
                None => rest[..end].parse::<i64>().ok()?.checked_mul(ms)?,
            };
            total = total.checked_add(amount)?;
            rest = &rest[end + 1..];
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_utc_unless_they_name_a_zone() {
        assert_eq!(datetime("1970-01-01T00:00:00.000"), Ok(0));
        assert_eq!(datetime("2020-01-01T00:00:00.000"), Ok(1_577_836_800_000));
        assert_eq!(datetime("2020-01-01T00:00:00"), Ok(1_577_836_800_000));
        assert_eq!(
            datetime("2020-01-01T02:00:00.000+0200"),
            Ok(1_577_836_800_000)
        );
        assert_eq!(
            datetime("2019-12-31T23:00:00.000-01:00"),
            Ok(1_577_836_800_000)
        );
        assert_eq!(datetime("2024-02-29T12:34:56.789Z"), Ok(1_709_210_096_789));
        assert_eq!(datetime("1969-12-31T23:59:59.999"), Ok(-1));
        for wrong in [
            "2023-02-29T00:00:00.000",
            "2020-13-01T00:00:00.000",
            "2020-01-01T24:00:00.000",
            "2020-01-01T00:00",
            "2020-01-01T00:00:00.000+1",
            "2020-01-01T+1:00:00",
        ] {
            assert!(datetime(wrong).is_err(), "{wrong}");
        }
        assert!(
            datetime("soon")
                .unwrap_err()
                .contains("does not contain a 'T'")
        );
    }

    #[test]
    fn spans_are_days_hours_minutes_and_seconds_in_that_order() {
        assert_eq!(duration("PT0S"), Ok(0));
        assert_eq!(duration("P1DT2H3M4.5S"), Ok(93_784_500));
        assert_eq!(duration("P7D"), Ok(7 * DAY_MS));
        assert_eq!(duration("pt90m"), Ok(5_400_000));
        for wrong in [
            "", "P", "PT", "1H", "P1H", "PT1D", "PT1S1M", "PTxS", "PT1", "P1DT",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
