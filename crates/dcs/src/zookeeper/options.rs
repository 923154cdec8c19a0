//! Where an ensemble is, how it is spoken to and who we are to it: the section `zookeeper` of a member's file or of the command line's,
//! as Patroni and its client library read it.
//!
//! `sasl` is ours: Patroni has no option for it. Tested against real servers in `tests/it/store/zookeeper.rs`.

use std::path::PathBuf;

use pgherd_tls::{Check, ClientOptions, Identity, TlsError};
use rustls::ClientConfig;
use serde_json::{Map, Value};

use super::wire::Acl;
use crate::section::{SectionError, StoreSecret, is_true, text};

const DEFAULT_PORT: u16 = 2181;

/// The words of `set_acls`, with ZooKeeper's bits.
const PERMISSIONS: [(&str, i32); 6] =
    [("READ", 1), ("WRITE", 2), ("CREATE", 4), ("DELETE", 8), ("ADMIN", 16), ("ALL", 31)];

/// An ensemble and how it is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZooKeeperOptions {
    /// `host:port` each; `host` and `[address]` are good, too.
    pub hosts: Vec<String>,
    /// The path that stands for the root; created if it does not exist.
    pub chroot: Option<String>,
    /// `None`: in the clear.
    pub tls: Option<ZooKeeperTls>,
    /// Who may do what with the keys that we create; empty: everybody everything.
    pub acl: Vec<Acl>,
    /// What we show on every connection, in this order.
    pub auth: Vec<ZooKeeperAuth>,
    pub sasl: Option<ZooKeeperSasl>,
}

/// The files are read anew for each connection, so that a certificate can be renewed under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZooKeeperTls {
    /// The servers' certificates are not checked.
    pub unchecked: bool,
    /// `None`: the authorities of the system.
    pub cacert: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    /// The key of `cert`, where it is not in the same file.
    pub key: Option<PathBuf>,
    pub key_password: Option<StoreSecret>,
}

/// A credential of one of ZooKeeper's schemes: `digest` with `user:password`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperAuth {
    pub scheme: String,
    pub credential: StoreSecret,
}

/// A user of SASL's mechanism DIGEST-MD5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperSasl {
    pub username: String,
    pub password: StoreSecret,
}

impl ZooKeeperOptions {
    /// Reads the section.
    pub fn from_section(section: &Map<String, Value>) -> Result<ZooKeeperOptions, SectionError> {
        let (hosts, chroot) = hosts(section.get("hosts").unwrap_or(&Value::Null))?;
        let file = |key: &str| text(section, key).map(PathBuf::from);
        let tls = section.get("use_ssl").is_some_and(is_true).then(|| ZooKeeperTls {
            unchecked: section.get("verify").is_some_and(|verify| !verify.is_null() && !is_true(verify)),
            cacert: file("cacert"),
            cert: file("cert"),
            key: file("key"),
            key_password: text(section, "key_password").map(StoreSecret),
        });
        let acl = map(section, "set_acls")?.into_iter().map(|(principal, permissions)| entry(&principal, &permissions));
        let auth = map(section, "auth_data")?.into_iter().map(|(scheme, credential)| match credential {
            Value::String(credential) => Ok(ZooKeeperAuth { scheme, credential: StoreSecret(credential) }),
            _ => Err(SectionError::new(
                format!("auth_data.{scheme}"),
                "expected a text, as `user:password` for `digest`",
            )),
        });
        Ok(ZooKeeperOptions {
            hosts,
            chroot,
            tls,
            acl: acl.collect::<Result<_, _>>()?,
            auth: auth.collect::<Result<_, _>>()?,
            sasl: sasl(&map(section, "sasl")?)?,
        })
    }
}

impl ZooKeeperTls {
    /// What the files say now. As with Patroni, a server's certificate need not be for the name that it is reached by.
    pub(super) fn read(&self) -> Result<ClientConfig, TlsError> {
        let identity = self.cert.as_deref().map(|certificate| Identity {
            certificate,
            key: self.key.as_deref(),
            key_password: self.key_password.as_ref().map(|password| password.0.as_str()),
        });
        let check = if self.unchecked { Check::Nothing } else { Check::Authority };
        pgherd_tls::client(&ClientOptions { check, authorities: self.cacert.as_deref(), identity, revoked: &[] })
    }
}

/// The servers, and the path that may stand after the last of them.
fn hosts(value: &Value) -> Result<(Vec<String>, Option<String>), SectionError> {
    let items: Option<Vec<&str>> = match value {
        Value::String(text) => Some(text.split(',').collect()),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        Value::Null => Some(Vec::new()),
        _ => None,
    };
    let expected = "expected a list of HOST:PORT, or one text with commas between them";
    let items = items.ok_or_else(|| SectionError::new("hosts", format!("it is `{value}`; {expected}")))?;
    let (mut hosts, mut chroot) = (Vec::new(), None);
    for (index, item) in items.iter().map(|item| item.trim()).enumerate() {
        let refused = |cause: String| SectionError::new(format!("hosts.{index}"), cause);
        let host = match item.split_once('/') {
            None => item,
            Some((host, path)) if index + 1 == items.len() => {
                chroot = path_of(path).map_err(refused)?;
                host
            }
            Some(_) => {
                let cause = "a path stands after the last server only, and counts for all of them";
                return Err(refused(format!("`{item}` has a path; {cause}")));
            }
        };
        // The path may be an item of its own.
        if !host.is_empty() || item.is_empty() && items.len() == 1 {
            hosts.push(with_port(host).map_err(refused)?);
        }
    }
    if hosts.is_empty() {
        return Err(SectionError::new("hosts", "required, but missing; expected a list of HOST:PORT"));
    }
    Ok((hosts, chroot))
}

/// `/a/b` of `a//b/`; `None` if it is the root.
fn path_of(text: &str) -> Result<Option<String>, String> {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    match parts.iter().find(|part| matches!(**part, "." | "..") || part.chars().any(char::is_control)) {
        Some(part) => Err(format!("`{part}` cannot be a step of a path in ZooKeeper")),
        None => Ok((!parts.is_empty()).then(|| parts.iter().map(|part| format!("/{part}")).collect())),
    }
}

/// `host:port` of a host as it is configured.
pub(super) fn with_port(host: &str) -> Result<String, String> {
    let refused = || format!("`{host}` is not HOST:PORT");
    let host = host.trim();
    if host.is_empty() || host.contains(|c: char| c.is_control() || ['/', ' ', ',', '@'].contains(&c)) {
        return Err(refused());
    }
    let after_address = host.rfind(']').map_or(host, |end| &host[end..]);
    match after_address.rsplit_once(':') {
        // Bare, the last colon of an address of IPv6 is the port's.
        Some((_, port)) => {
            let port = port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(refused)?;
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            let bare = name.contains(':') && !name.starts_with('[');
            Ok(if bare { format!("[{name}]:{port}") } else { format!("{name}:{port}") })
        }
        None => Ok(format!("{host}:{DEFAULT_PORT}")),
    }
}

/// One entry of `set_acls`. The principal is `scheme:id`; without a scheme it is the subject of a client certificate.
fn entry(principal: &str, permissions: &Value) -> Result<Acl, SectionError> {
    // What stands after a user may be a password, by mistake.
    let shown = match principal.split(':').collect::<Vec<_>>()[..] {
        ["digest", user, ..] => format!("digest:{user}:..."),
        _ => principal.to_owned(),
    };
    let refused = |cause: String| SectionError::new("set_acls", format!("`{shown}`: {cause}"));
    let words: Vec<&str> = match permissions {
        Value::String(text) => text.split(',').map(str::trim).collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let mut bits = 0;
    for word in words {
        let known = PERMISSIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        bits |= known.ok_or_else(|| refused(format!("`{word}` is no permission; {}", permission_words())))?.1;
    }
    if bits == 0 {
        return Err(refused(format!("no permission is named; {}", permission_words())));
    }
    // A subject (`CN=a,O=b:c`) has an equals sign before any colon.
    let is_scheme = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let (scheme, id) = match principal.split_once(':') {
        Some((scheme, id)) if is_scheme(scheme) => (scheme, id),
        _ => ("x509", principal),
    };
    // 20 bytes of SHA-1 in base64. A password would be an identity that nobody can have.
    if scheme == "digest" && id.rsplit_once(':').is_none_or(|(_, hash)| hash.len() != 28 || !hash.ends_with('=')) {
        return Err(refused("expected `digest:USER:HASH`, HASH being base64(sha1(USER:PASSWORD))".into()));
    }
    Ok(Acl { permissions: bits, scheme: scheme.to_owned(), id: id.to_owned() })
}

fn permission_words() -> String {
    format!("expected some of {}", PERMISSIONS.map(|(name, _)| name).join(", "))
}

fn sasl(section: &Map<String, Value>) -> Result<Option<ZooKeeperSasl>, SectionError> {
    if section.is_empty() {
        return Ok(None);
    }
    let mechanism = text(section, "mechanism").unwrap_or_else(|| "DIGEST-MD5".into());
    if !mechanism.eq_ignore_ascii_case("DIGEST-MD5") {
        let cause = format!("`{mechanism}` is not spoken; expected DIGEST-MD5");
        return Err(SectionError::new("sasl.mechanism", cause));
    }
    let needed =
        |key: &str| text(section, key).ok_or_else(|| SectionError::new(format!("sasl.{key}"), "it is missing"));
    Ok(Some(ZooKeeperSasl { username: needed("username")?, password: StoreSecret(needed("password")?) }))
}

fn map(section: &Map<String, Value>, key: &str) -> Result<Map<String, Value>, SectionError> {
    match section.get(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map.clone()),
        Some(_) => Err(SectionError::new(key, "expected a mapping")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(section: Value) -> Result<ZooKeeperOptions, SectionError> {
        ZooKeeperOptions::from_section(section.as_object().expect("an object"))
    }

    #[test]
    fn servers_and_the_path_after_them() {
        for (hosts, expected, chroot) in [
            (json!(["zoo:1"]), &["zoo:1"][..], None),
            (json!(["zoo", " [::1] ", "[::1]:3"]), &["zoo:2181", "[::1]:2181", "[::1]:3"], None),
            (json!("a:1, b:2"), &["a:1", "b:2"], None),
            (json!("a:1,b:2/"), &["a:1", "b:2"], None),
            (json!("a:1,b:2/x//y/"), &["a:1", "b:2"], Some("/x/y")),
            (json!(["a:1", "b/x"]), &["a:1", "b:2181"], Some("/x")),
            (json!(["a:1", "/x"]), &["a:1"], Some("/x")),
            (json!(["fd00::3:2182"]), &["[fd00::3]:2182"], None),
        ] {
            let options = read(json!({"hosts": hosts})).unwrap_or_else(|error| panic!("{hosts}: {error}"));
            assert_eq!(
                (options.hosts, options.chroot.as_deref()),
                (expected.iter().map(ToString::to_string).collect(), chroot)
            );
        }
    }

    #[test]
    fn protection() {
        let plain = read(json!({"hosts": "a", "cacert": "/ca", "use_ssl": "off"})).expect("good");
        assert_eq!((plain.tls, plain.acl, plain.auth, plain.sasl), (None, vec![], vec![], None));
        let options = read(json!({
            "hosts": "a", "use_ssl": true, "verify": "no", "cacert": "/ca", "cert": "/c", "key": "/k", "key_password": "secret1",
            "auth_data": {"digest": "u:secret2"},
            "sasl": {"username": "u", "password": "secret3"},
            "set_acls": {
                "CN=client,O=x:y": ["all"],
                "digest:u:dqWpLcCXdpFgHVmWVtsVDHf3Bcc=": ["READ", "write"],
                "world:anyone": "READ",
            },
        }));
        let options = options.unwrap_or_else(|error| panic!("{error}"));
        let tls = options.tls.clone().expect("asked for");
        assert_eq!((tls.unchecked, tls.cacert, tls.key), (true, Some("/ca".into()), Some("/k".into())));
        let acl: Vec<_> =
            options.acl.iter().map(|acl| (acl.permissions, acl.scheme.as_str(), acl.id.as_str())).collect();
        let hashed = "u:dqWpLcCXdpFgHVmWVtsVDHf3Bcc=";
        assert_eq!(acl, [(31, "x509", "CN=client,O=x:y"), (3, "digest", hashed), (1, "world", "anyone")]);
        assert_eq!(options.auth[0].credential.0, "u:secret2");
        assert!(!format!("{options:?}").contains("secret"));
        let unless_told = read(json!({"hosts": "a", "use_ssl": 1, "verify": null})).expect("good").tls;
        assert!(!unless_told.expect("asked for").unchecked, "certificates are checked unless told otherwise");
    }

    #[test]
    fn what_cannot_be_used_is_said_with_its_key() {
        for (section, key) in [
            (json!({}), "hosts"),
            (json!({"hosts": []}), "hosts"),
            (json!({"hosts": 5}), "hosts"),
            (json!({"hosts": [[]]}), "hosts"),
            (json!({"hosts": "/x"}), "hosts"),
            (json!({"hosts": ""}), "hosts.0"),
            (json!({"hosts": ["a", "zoo:x"]}), "hosts.1"),
            (json!({"hosts": ["zoo:0"]}), "hosts.0"),
            (json!({"hosts": ["a/x", "b/x"]}), "hosts.0"),
            (json!({"hosts": "a/x/../y"}), "hosts.0"),
            (json!({"hosts": "a", "set_acls": ["x"]}), "set_acls"),
            (json!({"hosts": "a", "set_acls": {"CN=x": ["OWN"]}}), "set_acls"),
            (json!({"hosts": "a", "set_acls": {"CN=x": []}}), "set_acls"),
            (json!({"hosts": "a", "set_acls": {"digest:u:password": ["ALL"]}}), "set_acls"),
            (json!({"hosts": "a", "auth_data": {"digest": 5}}), "auth_data.digest"),
            (json!({"hosts": "a", "sasl": {"username": "u"}}), "sasl.password"),
            (json!({"hosts": "a", "sasl": {"mechanism": "GSSAPI"}}), "sasl.mechanism"),
        ] {
            let error = read(section.clone()).expect_err("nonsense");
            assert_eq!(error.key, key, "{section}");
            assert!(!error.cause.contains("u:password"), "{section}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gets_an_answer(text in ".{0,20}") {
            let _ = read(json!({"hosts": text, "set_acls": {"x": text}}));
            let _ = read(json!({"hosts": [text], "set_acls": {text: ["ALL"]}}));
        }
    }
}
