use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::{CheckKind, CheckTls, Role};

const LAB: &str = include_str!("../../tests/lab.cfg");

/// Debian's own file, in short, with a frontend and a backend below.
const DEBIAN: &str = "
global
    log /dev/log local0
    chroot /var/lib/haproxy
    stats socket /run/haproxy/admin.sock mode 660 level admin
    user haproxy
    daemon
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
    nbthread 2
defaults
    log global
    mode http
    option httplog
    timeout connect 5000
    timeout client  50000
    timeout server  50000
    errorfile 400 /etc/haproxy/errors/400.http
frontend rw
    mode tcp
    bind 127.0.0.1:5000,[::1]:5000 name rw
    default_backend primary
backend primary
    mode tcp
    timeout queue 8s
    option httpchk GET /primary HTTP/1.1
    http-check send hdr Host 'the agent'
    http-check expect status 200-299,301
    server n1 10.0.0.1:5432 check port 8008 inter 1s fastinter 200 downinter 5s rise 1 fall 2 weight 10
    server n2 [fd00::2]:5432 backup maxconn 0
";

fn read(text: &str) -> Result<Parsed, Problems> {
    parse("haproxy.cfg", text, &|_| None)
}

#[test]
fn the_labs_file() {
    let Parsed { config, warnings } = read(LAB).expect("the lab's file is served unchanged");
    assert_eq!(config.maxconn, 100);
    assert_eq!(warnings.to_string(), "haproxy.cfg:5: `log`: ignored: it does not change what clients see here");
    let stats = &config.stats[0];
    assert_eq!((stats.uri.as_str(), stats.binds[0].address.to_string().as_str()), ("/", "0.0.0.0:7000"));
    let [postgres] = &config.listeners[..] else { panic!("one listener") };
    assert_eq!((&postgres.role, postgres.binds[0].address.port()), (&Role::ReadWrite, 5432));
    assert_eq!(postgres.timeouts.connect(), Duration::from_secs(4));
    assert_eq!(postgres.timeouts.idle(), Some(Duration::from_secs(1800)));
    assert_eq!(postgres.timeouts.hold(), Duration::from_secs(30));
    let CheckKind::Http(http) = &postgres.check else { panic!("an HTTP check") };
    assert_eq!((http.method.as_str(), http.uri.as_str(), http.version.as_str()), ("OPTIONS", "/", "HTTP/1.0"));
    assert!(http.expect.passes(200) && !http.expect.passes(204));
    let addresses: Vec<_> = postgres.servers.iter().map(|server| server.address()).collect();
    assert_eq!(addresses, ["pg-master:5432", "pg-slave:5432"]);
    for server in &postgres.servers {
        let check = server.check.as_ref().expect("checked");
        assert_eq!((check.port, check.inter, check.rise, check.fall), (8008, Duration::from_secs(3), 2, 3));
        assert_eq!((server.maxconn, server.shutdown_sessions), (Some(100), true));
    }
}

#[test]
fn frontends_find_their_backends() {
    let Parsed { config, warnings } = read(DEBIAN).expect("a file as Debian ships it");
    assert_eq!(config.threads, Some(2));
    assert_eq!(warnings.problems.len(), 9, "{warnings}");
    let [rw] = &config.listeners[..] else { panic!("one listener") };
    assert_eq!((rw.name.as_str(), rw.binds.len(), &rw.role), ("rw", 2, &Role::ReadWrite));
    assert_eq!(rw.timeouts.hold(), Duration::from_secs(8));
    let CheckKind::Http(http) = &rw.check else { panic!("an HTTP check") };
    assert_eq!(http.headers, [("Host".to_owned(), "the agent".to_owned())]);
    assert!(http.expect.passes(301) && !http.expect.passes(302));
    let check = rw.servers[0].check.as_ref().expect("checked");
    assert_eq!((check.fastinter, check.downinter), (Some(Duration::from_millis(200)), Some(Duration::from_secs(5))));
    assert_eq!(rw.servers[0].weight, 10);
    assert!(rw.servers[1].check.is_none() && rw.servers[1].backup && rw.servers[1].maxconn.is_none());
}

/// `(the lines of a listener, the start of what is said)`
#[test]
fn what_is_not_understood_is_named_with_its_line() {
    for (body, expected) in [
        ("frobnicate 3", "f:3: `frobnicate`: not known; accepted here: mode, bind"),
        ("mode udp", "f:3: `udp`: accepted: mode tcp"),
        ("bind 5432", "f:3: `5432`: expected ADDRESS:PORT"),
        ("bind *:5433 ssl crt /x.pem", "f:3: `ssl`: not known on a bind line"),
        ("timeout client soon", "f:3: `soon`: expected a time"),
        ("timeout 3s", "f:3: `timeout`: expected timeout client|"),
        ("server a b", "f:3: `b`: expected the server's HOST:PORT"),
        ("server a b:1 check port 0", "f:3: `0`: expected a whole number from 1 to 65535"),
        ("server a b:1 check ssl verify none", "f:3: `ssl`: not known on a server"),
        (
            "server a b:1 check check-ssl",
            "f:3: `check-ssl`: the agents' certificates are to be verified, and there is no ca-file",
        ),
        ("server a b:1 check check-ssl verify maybe", "f:3: `maybe`: accepted after verify: none, required"),
        ("server a b:1 maxconn", "f:3: `maxconn`: not known, or its value is missing"),
        ("server a b:1 on-marked-down nothing", "f:3: `nothing`: accepted after on-marked-down"),
        ("server one b:1", "f:3: `one`: another server"),
        ("option pgsql-check user x", "f:3: `pgsql-check`: not known; accepted after option: httpchk"),
        ("option httpchk get /", "f:3: `get`: expected a method in capitals"),
        ("http-check expect string ok", "f:3: `string`: accepted: http-check expect"),
        ("http-check expect status 700", "f:3: `700`: expected status codes"),
        ("balance source", "f:3: `source`: accepted: leastconn, first"),
        ("stats auth a:b", "f:3: `auth`: accepted after stats"),
        ("bind 'open", "f:3: `bind 'open`: a quote is opened"),
    ] {
        let text = format!("listen a\n bind *:5432\n {body}\n server one h:1\n");
        // The second of two servers of one name is the one that is refused.
        let text = if body.starts_with("server one") {
            format!("listen a\n server one h:1\n {body}\n bind *:1")
        } else {
            text
        };
        let error = parse("f", &text, &|_| None).expect_err(body).to_string();
        assert!(error.starts_with(expected), "{body}: {error}");
    }
}

#[test]
fn whole_files_that_cannot_be_served() {
    for (text, expected) in [
        ("", "f:1: `listen`: no service"),
        ("bind *:1", "f:1: `bind`: expected a section first"),
        ("listen", "f:1: `listen`: expected a name"),
        ("listen a\n bind *:1", "f:1: `a`: it has no `server`"),
        ("listen a\n server b c:1", "f:1: `a`: it has no `bind`"),
        ("listen a\n mode http\n bind *:1\n server b c:1", "f:1: `a`: `mode http` serves only"),
        ("frontend a\n bind *:1\n default_backend b", "f:3: `b`: there is no `backend`"),
        ("global\n wonder 1", "f:2: `wonder`: not known in `global`"),
        ("listen a\n bind *:1\n server b c:1\nlisten a\n bind *:2\n server b c:1", "f:4: `a`: another section"),
        (
            "listen a\n bind *:1\n server b c:1\nlisten d\n bind 0.0.0.0:1\n server b c:1",
            "f:4: `d`: another `bind` has the address 0.0.0.0:1",
        ),
    ] {
        let error = parse("f", text, &|_| None).expect_err(text).to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn checks_over_tls_as_in_haproxy() {
    let tls = |verify, authorities: Option<&str>, certificate: Option<&str>| {
        let (authorities, certificate) = (authorities.map(Into::into), certificate.map(Into::into));
        Some(CheckTls { verify, authorities, certificate })
    };
    for (defaults, keywords, expected) in [
        ("", "check", None),
        ("", "check check-ssl verify none", tls(false, None, None)),
        ("", "check check-ssl ca-file /ca crt /c", tls(true, Some("/ca"), Some("/c"))),
        ("check-ssl verify required ca-file @system-ca", "check", tls(true, None, None)),
        ("check-ssl ca-file /ca", "check no-check-ssl", None),
    ] {
        let text = format!("listen a\n bind *:1\n default-server inter 1s {defaults}\n server b c:1 {keywords}\n");
        let config = read(&text).expect(keywords).config;
        let check = config.listeners[0].servers[0].check.as_ref().expect("checked");
        assert_eq!(check.tls, expected, "{defaults} {keywords}");
    }
}

#[test]
fn a_line_may_go_on_and_defaults_reach_what_follows() {
    let text = "\u{feff}defaults\n timeout connect 1s\ndefaults\n timeout queue 2s\nlisten a\r\n bind *:1\r\n \
                server b c:1 \\\n   check\r\n";
    let config = read(text).expect("served").config;
    let timeouts = &config.listeners[0].timeouts;
    assert_eq!((timeouts.connect, timeouts.queue), (None, Some(Duration::from_secs(2))));
    assert_eq!(config.listeners[0].servers[0].check.as_ref().map(|check| check.port), Some(1));
}

#[test]
fn an_ipv6_address_is_for_ipv4_too_unless_it_is_told() {
    for (bind, v6_only) in
        [(":::1", None), (":::1 v4v6", Some(false)), ("[::]:1 v6only", Some(true)), (":::1 v6only v4v6", Some(true))]
    {
        let Parsed { config, warnings } = read(&format!("listen a\n bind {bind}\n server b c:1\n")).expect("served");
        assert_eq!(config.listeners[0].binds[0].v6_only, v6_only, "{bind}");
        assert!(warnings.problems.is_empty(), "{warnings}");
    }
}

#[test]
fn times_stand_for_one_another_as_in_haproxy() {
    let seconds = |n| Some(Duration::from_secs(n));
    // (lines, how long a session may be idle, how long a client is held)
    for (lines, idle, hold) in [
        ("", None, seconds(30)),
        ("timeout client 5s\n timeout server 4s", seconds(4), seconds(30)),
        ("timeout client 5s\n timeout server 0", seconds(5), seconds(30)),
        ("timeout client 5s\n timeout server 4s\n timeout tunnel 1h", seconds(3_600), seconds(30)),
        ("timeout client 5s\n timeout server 4s\n timeout tunnel 1s", seconds(1), seconds(30)),
        ("timeout client 5s\n timeout tunnel 0", seconds(5), seconds(30)),
        ("timeout queue 3s", None, seconds(3)),
        ("timeout queue 0", None, Some(units::LONGEST)),
    ] {
        let text = format!("listen a\n bind *:1\n {lines}\n server b c:1\n");
        let Parsed { config, warnings } = read(&text).expect("served");
        let timeouts = &config.listeners[0].timeouts;
        assert_eq!((timeouts.idle(), Some(timeouts.hold())), (idle, hold), "{lines}");
        assert!(warnings.problems.is_empty(), "{warnings}");
    }
}

/// Words that mean something, so that random files reach deep into the parser.
const WORDS: &[&str] = &[
    "global",
    "defaults",
    "listen",
    "frontend",
    "backend",
    "mode",
    "tcp",
    "http",
    "bind",
    "*:1",
    "[::1]:2",
    "option",
    "httpchk",
    "http-check",
    "expect",
    "send",
    "hdr",
    "status",
    "200",
    "!",
    "200-300,",
    "server",
    "default-server",
    "a",
    "h:1",
    "check",
    "port",
    "inter",
    "3s",
    "rise",
    "fall",
    "maxconn",
    "0",
    "99999999999",
    "timeout",
    "client",
    "30m",
    "stats",
    "uri",
    "/",
    "refresh",
    "no",
    "balance",
    "#",
    "'",
    "\"",
    "\\",
    "${A}",
    "\n",
    "\n",
    "\n",
    "default_backend",
    "weight",
    "я",
];

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*(\n\\PC*){0,8}") {
        let _ = read(&text);
    }

    #[test]
    fn no_heap_of_words_panics(words in prop::collection::vec(prop::sample::select(WORDS), 0..80)) {
        let _ = read(&words.join(" "));
    }

    #[test]
    fn the_labs_file_with_a_changed_byte_never_panics(at in 0..LAB.len(), byte: u8) {
        let mut bytes = LAB.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = read(&String::from_utf8_lossy(&bytes));
    }
}
