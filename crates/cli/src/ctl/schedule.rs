//! The time that an operator gives for a switchover or a restart: `now`, or a date and time, with an offset or local.
//!
//! Not here: whether the time may be in the past; the daemon judges that by its own clock.

use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "Unable to parse scheduled timestamp ({text}). It should be in an unambiguous format (e.g. ISO 8601): \
     2030-12-31T23:59, 2030-12-31T23:59+01:00, 23:59 or now"
)]
pub struct ScheduleError {
    text: String,
}

/// `None` means now. Without an offset the time is one of `local` (`TimeZone::system()`); a time without a date is today.
/// What falls into a gap of a clock change is moved forward.
pub fn parse(text: &str, local: &TimeZone, today: Date) -> Result<Option<Zoned>, ScheduleError> {
    let text = text.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("now") {
        return Ok(None);
    }
    let compact = join_offset(text);
    let in_local_time = |at: DateTime| at.to_zoned(local.clone()).ok();
    let error = || ScheduleError { text: text.to_owned() };
    // A number alone could be anything: an hour, a day, a year.
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(error());
    }
    let parsed = compact
        .parse::<Zoned>()
        .ok()
        .or_else(|| with_offset(&compact))
        .or_else(|| if compact.ends_with(['Z', 'z']) { None } else { compact.parse().ok().and_then(in_local_time) })
        .or_else(|| compact.parse::<Time>().ok().and_then(|time| in_local_time(today.to_datetime(time))));
    parsed.map(Some).ok_or_else(error)
}

/// A time in an hour, to show how one is written.
pub fn example(now: &Zoned) -> String {
    let later = now.checked_add(Duration::from_secs(3600)).unwrap_or_else(|_| now.clone());
    later.strftime("%Y-%m-%dT%H:%M").to_string()
}

/// As the REST API takes it: `2030-05-05T10:00:00+02:00`, with microseconds only if there are any.
pub fn iso(at: &Zoned) -> String {
    let format = if at.subsec_nanosecond() / 1_000 == 0 { "%Y-%m-%dT%H:%M:%S%:z" } else { "%Y-%m-%dT%H:%M:%S.%6f%:z" };
    at.strftime(format).to_string()
}

/// The offset is kept, so that the operator reads back what was typed.
fn with_offset(text: &str) -> Option<Zoned> {
    let instant: Timestamp = text.parse().ok()?;
    let pieces = jiff::fmt::temporal::DateTimeParser::new().parse_pieces(text).ok()?;
    let zone = pieces.to_numeric_offset().map_or(TimeZone::UTC, TimeZone::fixed);
    Some(instant.to_zoned(zone))
}

/// `10:00 +02:00` and `10:00 UTC` as `10:00+02:00` and `10:00Z`.
fn join_offset(text: &str) -> String {
    let text = match text.rsplit_once(' ') {
        Some((time, zone)) if zone.eq_ignore_ascii_case("utc") || zone.eq_ignore_ascii_case("gmt") => {
            format!("{time}Z")
        }
        _ => text.to_owned(),
    };
    match text.rsplit_once(' ') {
        Some((time, offset)) if offset.starts_with(['+', '-', 'Z', 'z']) => format!("{time}{offset}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn berlin(text: &str) -> Option<String> {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a POSIX time zone");
        parse(text, &zone, Date::constant(2030, 5, 5)).expect(text).as_ref().map(iso)
    }

    #[test]
    fn times_with_and_without_an_offset() {
        for (text, expected) in [
            ("2030-01-01T10:00", "2030-01-01T10:00:00+01:00"),
            ("2030-07-01 10:00:30", "2030-07-01T10:00:30+02:00"),
            ("2030-07-01 10:00:30.25", "2030-07-01T10:00:30.250000+02:00"),
            ("2030-07-01", "2030-07-01T00:00:00+02:00"),
            ("2030-05-05T10:00+03:00", "2030-05-05T10:00:00+03:00"),
            ("2030-05-05T10:00 +0300", "2030-05-05T10:00:00+03:00"),
            ("2030-05-05 10:00-05", "2030-05-05T10:00:00-05:00"),
            ("2030-05-05T10:00Z", "2030-05-05T10:00:00+00:00"),
            ("2030-05-05 10:00 UTC", "2030-05-05T10:00:00+00:00"),
            ("23:30", "2030-05-05T23:30:00+02:00"),
            // Skipped by the change of the clocks.
            ("2030-03-31T02:30", "2030-03-31T03:30:00+02:00"),
        ] {
            assert_eq!(berlin(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["now", "NOW", "", "  "] {
            assert_eq!(berlin(text), None);
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_its_text() {
        for text in [
            "zz",
            "5",
            "20300101",
            "2030-13-01T00:00",
            "tomorrow",
            "2030-01-01T25:00",
            "10:00+99:00",
            "2030-01-01T10:00+2",
        ] {
            let error = parse(text, &TimeZone::UTC, Date::constant(2030, 5, 5)).expect_err(text).to_string();
            assert!(error.contains(&format!("({text})")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer(text in ".{0,40}") {
            let _ = parse(&text, &TimeZone::UTC, Date::constant(2030, 5, 5));
        }

        #[test]
        fn anything_like_a_time_gets_an_answer(text in "[0-9+:TZ .\\-\\[\\]]{0,30}") {
            let _ = parse(&text, &TimeZone::UTC, Date::constant(2030, 5, 5));
        }
    }
}
