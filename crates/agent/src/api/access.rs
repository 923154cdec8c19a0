//! Who may change something: the list of allowed addresses, then the client certificate, then the password. Reading is open to all.
//!
//! Not here: whether a certificate is right, which the handshake has found out (`server`). Tested below and in `router_tests`.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use pgherd_ha::View;
use subtle::ConstantTimeEq;

use super::reply;

/// How long names of members are looked up before they count as unknown; longer and the caller would have given up.
const LOOKUP: Duration = Duration::from_secs(2);

/// The expected `Authorization` header. Neither shown nor logged.
#[derive(Clone)]
pub struct BasicAuth(Vec<u8>);

impl BasicAuth {
    pub fn new(username: &str, password: &str) -> BasicAuth {
        BasicAuth(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))).into_bytes())
    }

    /// The header's value, for calls to other members.
    pub(super) fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::from_bytes(&self.0).expect("Base64 is made of visible ASCII");
        value.set_sensitive(true);
        value
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let given = headers.get(AUTHORIZATION).ok_or("no auth header received")?;
        if bool::from(given.as_bytes().ct_eq(&self.0)) { Ok(()) } else { Err("not authenticated") }
    }
}

impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BasicAuth(..)")
    }
}

/// An address, or all that share a prefix of its bits: `10.0.0.0/8`, `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address or a network (expected something like 10.0.0.0/8 or ::1)")]
pub struct NetworkError(String);

impl Network {
    /// The networks that the entries of `restapi.allowlist` stand for: addresses, networks, and names of hosts. A name
    /// that cannot be resolved now lets nobody in, and is told in the log.
    pub async fn resolve(entries: &[String]) -> Vec<Network> {
        let resolved = entries.iter().map(async |entry| match entry.parse() {
            Ok(network) => vec![network],
            Err(_) => {
                let found = lookup((entry.clone(), 0)).await;
                if found.is_empty() {
                    tracing::warn!(
                        entry,
                        "restapi.allowlist: neither an address, nor a network, nor a name that resolves"
                    );
                }
                found.into_iter().map(Network::from).collect()
            }
        });
        join_all(resolved).await.into_iter().flatten().collect()
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let shared = |a: u128, b: u128, bits: u8| self.prefix == 0 || (a ^ b) >> (bits - self.prefix) == 0;
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                shared(network.to_bits().into(), address.to_bits().into(), 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => shared(network.to_bits(), address.to_bits(), 128),
            _ => false,
        }
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Network {
        let address = address.to_canonical();
        Network { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let wrong = || NetworkError(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), |text| text.parse().map_err(|_| wrong()))?;
        if prefix > most { Err(wrong()) } else { Ok(Network { address, prefix }) }
    }
}

/// The rules for calls that change something.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// `restapi.authentication`
    pub auth: Option<BasicAuth>,
    /// `restapi.allowlist`, resolved; `None` if there is none. An empty one lets nobody in.
    pub allowlist: Option<Vec<Network>>,
    /// `restapi.allowlist_include_members`
    pub include_members: bool,
    /// `restapi.verify_client` asks for a certificate at least here.
    pub certificate: bool,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub address: IpAddr,
    /// It has shown a certificate, which is right.
    pub certified: bool,
}

impl Access {
    /// Refuses with the answer to give. `with_members`: the members' own addresses count as allowed, if configured.
    pub(super) async fn check(
        &self,
        client: Option<Client>,
        headers: &HeaderMap,
        with_members: bool,
        view: Option<&View>,
    ) -> Result<(), Response> {
        let with_members = with_members && self.include_members;
        if (with_members || self.allowlist.is_some())
            && !self.allows(client.map(|client| client.address), with_members, view).await
        {
            return Err(reply::text(StatusCode::FORBIDDEN, "Access is denied"));
        }
        if self.certificate && !client.is_some_and(|client| client.certified) {
            return Err(reply::text(StatusCode::FORBIDDEN, "client certificate required"));
        }
        let Some(auth) = &self.auth else { return Ok(()) };
        auth.check(headers).map_err(|reason| {
            let mut refused = reply::text(StatusCode::UNAUTHORIZED, reason);
            let realm = HeaderValue::from_static("Basic realm=\"Patroni\"");
            refused.headers_mut().insert(WWW_AUTHENTICATE, realm);
            refused
        })
    }

    async fn allows(&self, client: Option<IpAddr>, with_members: bool, view: Option<&View>) -> bool {
        let Some(client) = client else { return false };
        if self.allowlist.iter().flatten().any(|network| network.contains(client)) {
            return true;
        }
        let members = view.filter(|_| with_members).map_or(&[][..], |view| &view.members);
        let lookups = members.iter().filter_map(|member| host_and_port(&member.api_url)).map(lookup);
        join_all(lookups).await.into_iter().flatten().any(|address| address.to_canonical() == client.to_canonical())
    }
}

async fn lookup((host, port): (String, u16)) -> Vec<IpAddr> {
    match tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host.as_str(), port))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// Of a URL of a member: the host without brackets, and the port.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some((host, url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn networks_contain_what_shares_their_prefix() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("fe80::/10", "fe80::1", true),
            ("fe80::/10", "fc00::1", false),
        ];
        for (network, address, expected) in cases {
            let network: Network = network.parse().expect("a network");
            assert_eq!(network.contains(address.parse().expect("an address")), expected, "{network:?} {address}");
        }
        for text in ["", "10.0.0.0/33", "::/129", "host", "1.2.3.4/x", "1.2.3.4/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text:?} was accepted");
        }
    }

    #[tokio::test]
    async fn an_allowlist_may_name_hosts() {
        let entries = ["10.0.0.0/8", "localhost", "no such host"].map(str::to_owned);
        let networks = Network::resolve(&entries).await;
        let allows = |text: &str| {
            let address: IpAddr = text.parse().expect("an address");
            networks.iter().any(|network| network.contains(address))
        };
        assert!(allows("10.1.2.3") && allows("127.0.0.1") && !allows("127.0.0.2") && !allows("11.0.0.1"));
    }

    #[test]
    fn the_password_is_not_shown() {
        assert!(!format!("{:?}", BasicAuth::new("admin", "secret")).contains("c2Vj"));
    }

    proptest! {
        #[test]
        fn no_network_panics(text in ".*|[0-9a-f:.]*/[0-9]*", bits: u128) {
            if let Ok(network) = text.parse::<Network>() {
                network.contains(std::net::Ipv6Addr::from(bits).into());
            }
        }
    }
}
