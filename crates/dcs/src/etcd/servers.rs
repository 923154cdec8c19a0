//! Where an etcd is and who we are to it: the section `etcd3` of a member's file or of the command line's, as Patroni reads it.

use std::path::PathBuf;

use pgherd_tls::{Check, ClientOptions, Identity, TlsError};
use reqwest::Url;
use rustls::ClientConfig;
use serde_json::{Map, Value};

use super::srv::EtcdSrv;
use crate::section::{SectionError, StoreSecret, is_true, text, words};

const DEFAULT_PORT: u16 = 2379;

/// An etcd and how it is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdOptions {
    /// `http://host:port` each, in the order in which they are tried. With `srv`, those that count while its records name nobody.
    pub urls: Vec<String>,
    pub srv: Option<EtcdSrv>,
    /// They are proxies, which are not to be asked for the servers behind them.
    pub proxies: bool,
    pub username: Option<String>,
    pub password: Option<StoreSecret>,
    /// The authorities that the servers' certificates are checked against; the system's if it is left out.
    pub cacert: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    /// The key of `cert`, where it is not in the same file.
    pub key: Option<PathBuf>,
}

impl EtcdOptions {
    /// Reads the section. Of several ways to name servers one counts: `proxy`, `url`, `srv`, `hosts`, `host`.
    pub fn from_section(section: &Map<String, Value>) -> Result<EtcdOptions, SectionError> {
        let protocol = text(section, "protocol").unwrap_or_else(|| "http".into());
        let protocol = protocol.to_ascii_lowercase();
        if !["http", "https"].contains(&protocol.as_str()) {
            return Err(SectionError::new("protocol", format!("`{protocol}` is neither http nor https")));
        }
        let mut options = EtcdOptions {
            urls: Vec::new(),
            srv: None,
            proxies: text(section, "proxy").is_some() || section.get("use_proxies").is_some_and(is_true),
            username: text(section, "username"),
            password: text(section, "password").map(StoreSecret),
            cacert: text(section, "cacert").map(PathBuf::from),
            cert: text(section, "cert").map(PathBuf::from),
            key: text(section, "key").map(PathBuf::from),
        };
        let port = text(section, "port").map(|port| port.parse::<u16>());
        let port = port.transpose().map_err(|_| SectionError::new("port", "it is no port"))?;
        let url = |key: &'static str| text(section, key).map(|url| (key, url));
        if let Some((key, url)) = url("proxy").or_else(|| url("url")) {
            options.take_url(key, &url)?;
        } else if let Some(hosts) = section.get("hosts").filter(|hosts| !hosts.is_null()) {
            for host in words(hosts) {
                options.urls.push(server(&protocol, &host, port, "hosts")?);
            }
        } else if let Some(host) = text(section, "host") {
            options.urls.push(server(&protocol, &host, port, "host")?);
        }
        // A URL is one server, whatever else is named.
        if let Some(domain) = text(section, "srv")
            && url("proxy").or_else(|| url("url")).is_none()
        {
            if domain.contains(|c: char| c.is_whitespace() || c == '/' || c == ':') {
                return Err(SectionError::new("srv", format!("`{domain}` is not a domain")));
            }
            let suffix = text(section, "srv_suffix");
            options.srv = Some(EtcdSrv { domain, suffix, name_servers: Vec::new() });
        }
        if options.urls.is_empty() && options.srv.is_none() {
            let cause = "no server is named; expected `hosts`, a list of HOST:PORT (or `host`, `url`, `srv`, `proxy`)";
            return Err(SectionError::new("", cause));
        }
        Ok(options)
    }

    /// A URL says protocol, host, port and, if it likes, the user.
    fn take_url(&mut self, key: &'static str, text: &str) -> Result<(), SectionError> {
        let refused = |cause: &str| SectionError::new(key, format!("{cause}; expected http://HOST:PORT"));
        let url: Url = text.parse().map_err(|_| refused("it is no URL"))?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(refused("it is neither http nor https"));
        }
        let host = url.host_str().ok_or_else(|| refused("it names no host"))?;
        // A URL without a port means etcd's, not the web's; and the parser hides a port that is the web's.
        let written = text.split("://").nth(1).unwrap_or_default();
        let written = written.split(['/', '?', '#']).next().unwrap_or_default();
        let default = if written.ends_with(":80") || written.ends_with(":443") {
            url.port_or_known_default().unwrap_or(DEFAULT_PORT)
        } else {
            DEFAULT_PORT
        };
        self.urls.push(format!("{}://{host}:{}", url.scheme(), url.port().unwrap_or(default)));
        if !url.username().is_empty() {
            self.username = Some(url.username().to_owned());
            self.password = url.password().map(|password| StoreSecret(password.to_owned()));
        }
        Ok(())
    }

    /// How the servers are spoken to with TLS; files that are not needed are not read. `None`: not at all.
    pub(super) fn tls(&self) -> Result<Option<ClientConfig>, TlsError> {
        let named = self.urls.iter().any(|url| url.starts_with("https:"));
        // Whether it is needed is for the records to say; a machine without authorities may do without it.
        let perhaps = self.srv.is_some();
        if !named && !perhaps {
            return Ok(None);
        }
        let identity = self.cert.as_deref().map(|certificate| Identity {
            certificate,
            key: self.key.as_deref(),
            key_password: None,
        });
        let authorities = self.cacert.as_deref();
        match pgherd_tls::client(&ClientOptions { check: Check::Name, authorities, identity, revoked: &[] }) {
            Err(TlsError::SystemAuthorities { .. }) if !named => Ok(None),
            read => read.map(Some),
        }
    }
}

/// `http://host:port` of a host as it is configured. A URL is taken as it is.
fn server(protocol: &str, host: &str, port: Option<u16>, key: &'static str) -> Result<String, SectionError> {
    // Before the host there may be a password, which is no message's.
    let shown = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let refused = || SectionError::new(key, format!("`{shown}` is not HOST:PORT"));
    let url = match host.contains("://") {
        true => host.to_owned(),
        false => {
            let after_address = host.rfind(']').map_or(host, |end| &host[end..]);
            let bare_ip6 = !host.starts_with('[') && host.matches(':').count() > 1;
            match after_address.contains(':') && !bare_ip6 {
                true => format!("{protocol}://{host}"),
                false if bare_ip6 => format!("{protocol}://[{host}]:{}", port.unwrap_or(DEFAULT_PORT)),
                false => format!("{protocol}://{host}:{}", port.unwrap_or(DEFAULT_PORT)),
            }
        }
    };
    let parsed: Url = url.parse().map_err(|_| refused())?;
    let plain = parsed.path() == "/" && parsed.query().is_none() && parsed.username().is_empty();
    let known = ["http", "https"].contains(&parsed.scheme()) && parsed.host_str().is_some() && parsed.port() != Some(0);
    if plain && known { Ok(url.trim_end_matches('/').to_owned()) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(section: Value) -> Result<EtcdOptions, SectionError> {
        EtcdOptions::from_section(section.as_object().expect("an object"))
    }

    #[test]
    fn servers_are_named_in_many_ways() {
        for (section, expected) in [
            (json!({"host": "e"}), &["http://e:2379"][..]),
            (json!({"host": "e:1", "port": 5}), &["http://e:1"]),
            (json!({"host": "e", "port": 5}), &["http://e:5"]),
            (json!({"hosts": "a:1, b"}), &["http://a:1", "http://b:2379"]),
            (
                json!({"hosts": ["a:1", "[::1]:2", "[::1]", "fe80::1"]}),
                &["http://a:1", "http://[::1]:2", "http://[::1]:2379", "http://[fe80::1]:2379"],
            ),
            (json!({"hosts": ["a"], "protocol": "https"}), &["https://a:2379"]),
            (json!({"hosts": ["https://a:1"]}), &["https://a:1"]),
            (json!({"url": "https://e", "hosts": ["a"]}), &["https://e:2379"]),
            (json!({"url": "http://e:80/"}), &["http://e:80"]),
            (json!({"proxy": "http://p:1", "url": "http://e:2"}), &["http://p:1"]),
        ] {
            assert_eq!(read(section.clone()).expect("servers").urls, expected, "{section}");
        }
    }

    #[test]
    fn records_name_servers_unless_a_url_does() {
        for (section, expected, urls) in [
            (json!({"srv": "example.org"}), Some(("example.org", None)), &[][..]),
            (json!({"srv": "o", "srv_suffix": "x", "hosts": ["a:1"]}), Some(("o", Some("x"))), &["http://a:1"]),
            (json!({"srv": "example.org", "url": "http://e:1"}), None, &["http://e:1"]),
            (json!({"srv": "", "host": "a"}), None, &["http://a:2379"]),
        ] {
            let options = read(section.clone()).unwrap_or_else(|error| panic!("{section}: {error}"));
            let srv = options.srv.as_ref().map(|srv| (srv.domain.as_str(), srv.suffix.as_deref()));
            assert_eq!((srv, options.urls), (expected, urls.iter().map(ToString::to_string).collect()), "{section}");
        }
    }

    #[test]
    fn proxies_are_not_asked_for_servers() {
        for (section, expected) in [
            (json!({"host": "e"}), false),
            (json!({"host": "e", "use_proxies": "on"}), true),
            (json!({"host": "e", "use_proxies": false}), false),
            (json!({"proxy": "http://p:1"}), true),
        ] {
            assert_eq!(read(section.clone()).expect("servers").proxies, expected, "{section}");
        }
    }

    #[test]
    fn what_cannot_be_a_server_is_said_with_its_key() {
        for (section, key) in [
            (json!({}), ""),
            (json!({"hosts": []}), ""),
            (json!({"srv": "http://example.org"}), "srv"),
            (json!({"hosts": ["a b"]}), "hosts"),
            (json!({"hosts": ["a:x"]}), "hosts"),
            (json!({"host": "a/b"}), "host"),
            (json!({"host": "a:0"}), "host"),
            (json!({"url": "e:1"}), "url"),
            (json!({"proxy": "ftp://e"}), "proxy"),
            (json!({"host": "a", "port": "x"}), "port"),
            (json!({"host": "a", "protocol": "gopher"}), "protocol"),
        ] {
            assert_eq!(read(section.clone()).expect_err("nonsense").key, key, "{section}");
        }
    }

    #[test]
    fn the_user_is_in_the_section_or_in_the_url_and_the_password_is_not_printed() {
        let options = read(json!({"url": "http://u:secret@e:1", "username": "x"})).expect("a server");
        assert_eq!((options.username.as_deref(), options.urls[0].as_str()), (Some("u"), "http://e:1"));
        assert_eq!(options.password, Some(StoreSecret("secret".into())));
        assert!(!format!("{options:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn any_host_gets_an_answer(host in ".{0,20}") {
            let _ = read(json!({"host": host, "url": null}));
            let _ = read(json!({"url": host}));
        }
    }
}
