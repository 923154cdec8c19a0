//! The servers that a domain's SRV records name: `_etcd-client-ssl._tcp.DOMAIN` and its kin, in Patroni's order.
//!
//! Not here: when they are asked for (`gateway`). Tested against a name server of the test in `tests/it/store/srv.rs`.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::{Name, Rtype};
use domain::rdata::Srv;
use domain::resolv::StubResolver;
use domain::resolv::stub::conf::{ResolvConf, ServerConf, Transport};
use futures::future::join_all;
use pgherd_tls::ClientOptions;
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A name server that has not answered by then is left alone until the next time.
const LIMIT: Duration = Duration::from_secs(3);

/// Records of one name that are taken at most: a cluster of etcd has seven servers, perhaps, and each may have two addresses.
const MOST_RECORDS: usize = 16;

/// A cluster's servers take some hundred bytes each.
const LONGEST_ANSWER: usize = 64 << 10;

/// The groups of records; the first that names a server counts. Those of servers are about the port where servers meet each other,
/// which knows the addresses for clients.
const GROUPS: [&str; 6] = ["-client-ssl", "-client", "-ssl", "", "-server-ssl", "-server"];

/// Where the servers are to be looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSrv {
    pub domain: String,
    /// `_etcd-client-SUFFIX`: one cluster of several in the domain.
    pub suffix: Option<String>,
    /// The name servers; empty: those of the system.
    pub name_servers: Vec<SocketAddr>,
}

/// A group's name, and whether its servers are spoken to with TLS.
fn group_names(srv: &EtcdSrv) -> impl Iterator<Item = (String, bool, &'static str)> {
    GROUPS.iter().map(|group| {
        let named = srv.suffix.as_ref().map_or_else(|| (*group).to_owned(), |suffix| format!("{group}-{suffix}"));
        let secured = named.contains("-ssl");
        (format!("_etcd{named}._tcp.{}", srv.domain.trim_end_matches('.')), secured, *group)
    })
}

/// `http://host:port` each, or why nobody is known.
pub async fn servers(srv: &EtcdSrv) -> Result<Vec<String>, String> {
    let mut conf = ResolvConf::default();
    if !srv.name_servers.is_empty() {
        conf.servers = srv.name_servers.iter().map(|at| ServerConf::new(*at, Transport::UdpTcp)).collect();
        conf.finalize();
    }
    let resolver = StubResolver::from_conf(conf);
    // All at once: a domain without a group answers as fast as one with it.
    let asked = group_names(srv).map(|(name, secured, group)| {
        let resolver = &resolver;
        async move { (records(resolver, &name).await, secured, group) }
    });
    let mut failure = None;
    for (found, secured, group) in join_all(asked).await {
        let records = match found {
            Ok(records) => records,
            Err(why) => {
                failure.get_or_insert(why);
                continue;
            }
        };
        let protocol = if secured { "https" } else { "http" };
        let urls: Vec<String> = records.into_iter().map(|(host, port)| format!("{protocol}://{host}:{port}")).collect();
        let urls = if group.contains("-server") { client_urls(&urls, protocol).await } else { urls };
        if !urls.is_empty() {
            return Ok(urls);
        }
    }
    let why = failure.unwrap_or_else(|| "there are no such records".to_owned());
    Err(format!("no SRV record of the domain `{}` names a server of etcd: {why}", srv.domain))
}

/// Hosts and ports, the preferred first; none if the name has no such record.
async fn records(resolver: &StubResolver, name: &str) -> Result<Vec<(String, u16)>, String> {
    let question = Name::<Vec<u8>>::from_str(name).map_err(|error| format!("`{name}` is no name: {error}"))?;
    let answer = timeout(LIMIT, resolver.query((question, Rtype::SRV))).await;
    let answer = answer.map_err(|_| format!("no name server answered for {name}"))?;
    let answer = answer.map_err(|error| format!("{name}: {error}"))?;
    match answer.header().rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => return Ok(Vec::new()),
        code => return Err(format!("{name}: the name server answers {code}")),
    }
    let section = answer.answer().map_err(|error| format!("{name}: {error}"))?;
    let readable = section.limit_to_in::<Srv<_>>().filter_map(Result::ok).take(MOST_RECORDS);
    let mut found: Vec<(u16, String, u16)> = readable
        .map(|record| {
            let data = record.data();
            (data.priority(), data.target().to_string(), data.port())
        })
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, host, port)| (host.trim_end_matches('.').to_owned(), port)).collect())
}

/// A member as the port between servers shows it.
#[derive(Deserialize)]
struct Peer {
    #[serde(rename = "clientURLs", default)]
    client_urls: Vec<String>,
}

/// What the first of these servers that answers says of all of them. It is not checked who answers, as with Patroni: what is found is, before
/// it is told anything. So an address of another protocol than the record's does not count.
async fn client_urls(peers: &[String], protocol: &str) -> Vec<String> {
    let Ok(tls) = pgherd_tls::client(&ClientOptions::UNCHECKED) else { return Vec::new() };
    let builder = Client::builder().no_proxy().timeout(LIMIT).tls_backend_preconfigured(tls);
    let Ok(client) = builder.build() else { return Vec::new() };
    let mut asked = JoinSet::new();
    for peer in peers {
        let question = client.get(format!("{peer}/members"));
        asked.spawn(async move { members(question).await });
    }
    while let Some(answer) = asked.join_next().await {
        let urls = answer.ok().flatten().into_iter().flatten().flat_map(|member| member.client_urls);
        let alike = urls.filter(|url| url.split_once("://").is_some_and(|(scheme, _)| scheme == protocol));
        let urls: Vec<String> = alike.map(|url| url.trim_end_matches('/').to_owned()).take(MOST_RECORDS).collect();
        if !urls.is_empty() {
            return urls;
        }
    }
    Vec::new()
}

/// The answer, if it is one and no longer than one may be.
async fn members(question: RequestBuilder) -> Option<Vec<Peer>> {
    let mut answer = question.send().await.ok()?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_ANSWER {
            return None;
        }
    }
    serde_json::from_slice(&body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_records() {
        let names = |suffix: Option<&str>| {
            let srv =
                EtcdSrv { domain: "example.org.".into(), suffix: suffix.map(str::to_owned), name_servers: Vec::new() };
            group_names(&srv).map(|(name, secured, _)| (name, secured)).collect::<Vec<_>>()
        };
        let expected = [
            ("_etcd-client-ssl._tcp.example.org", true),
            ("_etcd-client._tcp.example.org", false),
            ("_etcd-ssl._tcp.example.org", true),
            ("_etcd._tcp.example.org", false),
            ("_etcd-server-ssl._tcp.example.org", true),
            ("_etcd-server._tcp.example.org", false),
        ];
        assert_eq!(names(None), expected.map(|(name, secured)| (name.to_owned(), secured)));
        assert_eq!(names(Some("blue"))[0], ("_etcd-client-ssl-blue._tcp.example.org".to_owned(), true));
        assert_eq!(names(Some("blue"))[3], ("_etcd-blue._tcp.example.org".to_owned(), false));
    }
}
