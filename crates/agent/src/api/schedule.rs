//! Moments of a schedule, read from requests and written to answers.
//!
//! Not here: waiting for them (`pgherd_ha` decides when one is due).

use axum::http::StatusCode;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use pgherd_ha::Wall;

/// Why a `schedule` or `scheduled_at` was refused; the texts are the interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("Timezone information is mandatory for the scheduled {0}")]
    NoTimeZone(&'static str),
    #[error("Cannot schedule {0} in the past")]
    Past(&'static str),
    #[error("Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601")]
    Unreadable,
}

impl ScheduleError {
    pub fn status(&self) -> StatusCode {
        match self {
            ScheduleError::NoTimeZone(_) => StatusCode::BAD_REQUEST,
            ScheduleError::Past(_) | ScheduleError::Unreadable => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

/// Reads an ISO 8601 moment with its offset, in the future, for `action` (`restart` or `switchover`). Instead of the offset there may be the name of
/// universal time, as people write it.
pub fn parse(text: &str, action: &'static str, now: Wall) -> Result<Wall, ScheduleError> {
    let text = text.trim();
    let named =
        ["UTC", "GMT"].iter().find_map(|name| text.strip_suffix(name)).map(|text| format!("{}Z", text.trim_end()));
    let text = named.as_deref().unwrap_or(text);
    match text.parse::<Wall>() {
        Ok(at) if at < now => Err(ScheduleError::Past(action)),
        Ok(at) => Ok(at),
        Err(_) if text.parse::<DateTime>().is_ok() => Err(ScheduleError::NoTimeZone(action)),
        Err(_) => Err(ScheduleError::Unreadable),
    }
}

/// `2026-11-23T08:00:00+00:00`, with six digits of a fraction if there is one: Python's isoformat.
pub fn iso(at: Wall) -> String {
    let format = if at.subsec_nanosecond() == 0 { "%Y-%m-%dT%H:%M:%S+00:00" } else { "%Y-%m-%dT%H:%M:%S.%6f+00:00" };
    at.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

/// `2026-11-23 08:00:00.123456+00:00`: how the status shows the server's own times.
pub fn with_fraction(at: Wall) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S.%6f+00:00").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_an_unambiguous_moment_in_the_future_is_taken() {
        let now: Wall = "2026-11-23T08:00:00Z".parse().expect("a moment");
        let cases = [
            ("2026-11-23T08:00:01Z", Ok("2026-11-23T08:00:01+00:00")),
            ("2026-11-23T10:30:00+02:00", Ok("2026-11-23T08:30:00+00:00")),
            ("2026-11-23 08:30:00.250000+00:00", Ok("2026-11-23T08:30:00.250000+00:00")),
            ("2026-11-23 10:30 UTC", Ok("2026-11-23T10:30:00+00:00")),
            ("2026-11-23T10:30:00GMT", Ok("2026-11-23T10:30:00+00:00")),
            ("UTC", Err(ScheduleError::Unreadable)),
            ("2026-11-23T07:59:59Z", Err(ScheduleError::Past("restart"))),
            ("2026-11-23T09:00:00", Err(ScheduleError::NoTimeZone("restart"))),
            ("2026-11-23T09:00", Err(ScheduleError::NoTimeZone("restart"))),
            ("tomorrow", Err(ScheduleError::Unreadable)),
            ("", Err(ScheduleError::Unreadable)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text, "restart", now).map(iso), expected.map(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn times_of_the_server_keep_their_fraction() {
        let at: Wall = "2026-11-23T08:00:00Z".parse().expect("a moment");
        assert_eq!(with_fraction(at), "2026-11-23 08:00:00.000000+00:00");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse(&text, "restart", Wall::UNIX_EPOCH).map(iso);
        }
    }
}
