//! Numbers, times and addresses in HAProxy's spelling.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// HAProxy keeps times in 31 bits of milliseconds.
pub const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

/// A time: a number with `us`, `ms`, `s`, `m`, `h` or `d`; a bare number counts milliseconds.
pub fn time(word: &str) -> Result<Duration, String> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = word.split_at(digits);
    let nanos_per_unit: u64 = match unit {
        "us" => 1_000,
        "" | "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return Err("expected a time: a number with us, ms, s, m, h or d (milliseconds without one)".into()),
    };
    let too_long = || format!("a time may be {} days at most", LONGEST.as_secs() / 86_400);
    let number: u64 = number.parse().map_err(|_| "expected a time, such as 3s or 500ms".to_owned())?;
    let time = number.checked_mul(nanos_per_unit).map(Duration::from_nanos).ok_or_else(too_long)?;
    if time > LONGEST { Err(too_long()) } else { Ok(time) }
}

/// A whole number between `low` and `high`.
pub fn number(word: &str, low: u32, high: u32) -> Result<u32, String> {
    match word.parse::<u32>() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(format!("expected a whole number from {low} to {high}")),
    }
}

/// A TCP port.
pub fn port(word: &str) -> Result<u16, String> {
    number(word, 1, 65_535).map(|port| port as u16)
}

/// The addresses of a `bind`: `*:5432`, `:5432`, `127.0.0.1:5432`, `[::1]:5432`, `:::5432`, several with commas.
pub fn bind_addresses(word: &str) -> Result<Vec<SocketAddr>, String> {
    word.split(',').map(bind_address).collect()
}

fn bind_address(text: &str) -> Result<SocketAddr, String> {
    const EXPECTED: &str = "expected ADDRESS:PORT to listen on, such as *:5432, 127.0.0.1:5432 or [::1]:5432";
    if text.starts_with('/') || text.starts_with("unix@") || text.starts_with("abns@") {
        return Err("unix sockets are not served; expected ADDRESS:PORT".into());
    }
    let v6 = text.starts_with("ipv6@");
    let text = text.strip_prefix("ipv4@").or_else(|| text.strip_prefix("ipv6@")).unwrap_or(text);
    let (host, port_text) = text.rsplit_once(':').ok_or(EXPECTED)?;
    // Port 0 is for tests: the kernel chooses.
    let port: u16 = port_text.parse().map_err(|_| EXPECTED.to_owned())?;
    let ip: IpAddr = match host {
        "" | "*" if v6 => Ipv6Addr::UNSPECIFIED.into(),
        "" | "*" => Ipv4Addr::UNSPECIFIED.into(),
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            host.parse().map_err(|_| format!("`{host}` is not an IP address of this machine; {EXPECTED}"))?
        }
    };
    Ok(SocketAddr::new(ip, port))
}

/// The address of a server: host (without brackets) and port.
pub fn server_address(word: &str) -> Result<(String, u16), String> {
    const EXPECTED: &str = "expected the server's HOST:PORT, such as pg-master:5432";
    if word.starts_with('/') || word.starts_with("unix@") || word.starts_with("abns@") {
        return Err(format!("unix sockets are not dialled; {EXPECTED}"));
    }
    let word = word.strip_prefix("ipv4@").or_else(|| word.strip_prefix("ipv6@")).unwrap_or(word);
    let (host, port_text) = word.rsplit_once(':').ok_or(EXPECTED)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '[' | ']' | '*');
    if host.is_empty() || host.len() > 255 || host.contains(odd) {
        return Err(EXPECTED.into());
    }
    Ok((host.to_owned(), port(port_text).map_err(|_| EXPECTED.to_owned())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_haproxys_units() {
        let ms = |n| Some(Duration::from_millis(n));
        for (word, expected) in [
            ("3s", ms(3_000)),
            ("5000", ms(5_000)),
            ("30m", ms(1_800_000)),
            ("1h", ms(3_600_000)),
            ("24d", ms(2_073_600_000)),
            ("500us", Some(Duration::from_micros(500))),
            ("0", ms(0)),
            ("25d", None),
            ("", None),
            ("s", None),
            ("3x", None),
            ("-3s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615d", None),
        ] {
            assert_eq!(time(word).ok(), expected, "{word}");
        }
    }

    #[test]
    fn addresses() {
        let bind = |word: &str| bind_addresses(word).ok().map(|all| format!("{all:?}"));
        for (word, expected) in [
            ("*:5432", Some("[0.0.0.0:5432]")),
            (":7000", Some("[0.0.0.0:7000]")),
            ("127.0.0.1:1,[::1]:2", Some("[127.0.0.1:1, [::1]:2]")),
            (":::5432", Some("[[::]:5432]")),
            ("ipv6@*:5", Some("[[::]:5]")),
            ("*", None),
            ("*:99999", None),
            ("example.org:5432", None),
            ("/run/x.sock", None),
        ] {
            assert_eq!(bind(word).as_deref(), expected, "{word}");
        }
        let server = |word: &str| server_address(word).ok().map(|(host, port)| format!("{host} {port}"));
        for (word, expected) in [
            ("pg-master:5432", Some("pg-master 5432")),
            ("[fd00::1]:5432", Some("fd00::1 5432")),
            ("ipv4@10.0.0.1:5", Some("10.0.0.1 5")),
            ("pg-master", None),
            (":5432", None),
            ("a:0", None),
            ("*:5432", None),
        ] {
            assert_eq!(server(word).as_deref(), expected, "{word}");
        }
    }
}
