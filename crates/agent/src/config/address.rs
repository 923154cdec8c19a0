//! Addresses as the configuration writes them: `HOST:PORT`, and `HOST,HOST:PORT` to listen on.
//!
//! Not here: resolving names (each binding and dialling does that anew). IPv6 stands in brackets, or bare where the last
//! colon can only be the port's.

use std::fmt;
use std::str::FromStr;

/// The text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not HOST:PORT")]
pub struct AddressError(String);

/// Where something can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        Address::with_default_port(text, None)
    }
}

impl Address {
    /// Reads `HOST:PORT`; without a port, `default` counts.
    pub fn with_default_port(text: &str, default: Option<u16>) -> Result<Address, AddressError> {
        let (hosts, port) = split(text, default).ok_or_else(|| AddressError(text.to_owned()))?;
        let host = unbracketed(hosts).ok_or_else(|| AddressError(text.to_owned()))?;
        Ok(Address { host: host.to_owned(), port })
    }
}

/// Where a server listens: one port on several hosts; `*` stands for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Never empty.
    pub hosts: Vec<String>,
    pub port: u16,
}

impl FromStr for Listen {
    type Err = AddressError;

    /// PostgreSQL's port is the default one.
    fn from_str(text: &str) -> Result<Listen, AddressError> {
        let error = || AddressError(text.to_owned());
        let (hosts, port) = split(text, Some(5432)).ok_or_else(error)?;
        let hosts: Option<Vec<String>> =
            hosts.split(',').map(|host| unbracketed(host.trim()).map(str::to_owned)).collect();
        Ok(Listen { hosts: hosts.ok_or_else(error)?, port })
    }
}

impl Listen {
    /// Whether a client on this machine reaches it as `localhost`.
    pub fn includes_localhost(&self) -> bool {
        self.hosts.iter().any(|host| matches!(host.as_str(), "*" | "0.0.0.0" | "localhost" | "127.0.0.1"))
    }

    /// Where a member on this machine connects, if nothing else is configured.
    pub fn default_address(&self) -> Address {
        let first = self.hosts.first().map_or("localhost", String::as_str);
        let host = if self.includes_localhost() { "localhost" } else { first };
        Address { host: host.to_owned(), port: self.port }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.hosts.join(","), self.port)
    }
}

/// The text before the port, and the port.
fn split(text: &str, default: Option<u16>) -> Option<(&str, u16)> {
    let text = text.trim();
    let (hosts, port) = match text.rsplit_once(':') {
        // `[::1]` and the like: the colon is the address's own.
        Some((_, after)) if after.contains(']') => (text, default),
        Some((hosts, port)) => {
            let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            (hosts, Some(digits.then(|| port.parse().ok()).flatten()?))
        }
        None => (text, default),
    };
    let is_url = hosts.contains(|c: char| c.is_control() || c == '/' || c == '@');
    (!hosts.is_empty() && !is_url).then_some(())?;
    Some((hosts, port.filter(|port| *port > 0)?))
}

fn unbracketed(host: &str) -> Option<&str> {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => host,
    };
    (!bare.is_empty() && !bare.contains(['[', ']', ' ', ','])).then_some(bare)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses() {
        let cases = [
            ("pg-slave:8008", Some(("pg-slave", 8008))),
            ("[::1]:5432", Some(("::1", 5432))),
            ("::1:5432", Some(("::1", 5432))),
            ("host", None),
            ("host:", None),
            ("host:0", None),
            ("host:65536", None),
            ("host:+1", None),
            (":5432", None),
            ("a,b:5432", None),
            ("postgres://a:5432", None),
            ("[::1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let read = text.parse::<Address>().ok().map(|address| (address.host, address.port));
            assert_eq!(read, expected.map(|(host, port)| (host.to_owned(), port)), "{text:?}");
        }
        assert_eq!("[::1]:5432".parse::<Address>().expect("valid").to_string(), "[::1]:5432");
    }

    #[test]
    fn listening() {
        let cases = [
            ("0.0.0.0:5432", "localhost:5432"),
            ("*", "localhost:5432"),
            ("10.0.0.1,127.0.0.1:5433", "localhost:5433"),
            ("10.0.0.1, 10.0.0.2:5433", "10.0.0.1:5433"),
            ("[fd00::1]:5433", "[fd00::1]:5433"),
        ];
        for (text, connect) in cases {
            let listen: Listen = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(listen.default_address().to_string(), connect, "{text}");
        }
        for text in ["", ":1", "a,:1", "a b:1", "a:x"] {
            assert!(text.parse::<Listen>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z0-9:,.\\[\\]* ]{0,24}|.{0,24}") {
            let _ = (text.parse::<Address>(), text.parse::<Listen>());
        }
    }
}
