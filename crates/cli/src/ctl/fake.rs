//! For tests: a store in memory whose keys hold the bytes of the interface, a member's REST API that gives prepared
//! answers, and a context over both.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pgherd_dcs::{Acquired, Expect, Key, Store, StoreError, Written, layout};
use pgherd_ha::{Epoch, Leader, LeaderOwner, Lease, Member, Versioned, View};
use serde_json::Value;
use tokio::sync::watch;

use super::context::Context;
use super::settings::{RestSettings, Settings, SettingsError};
use super::terminal::Terminal;

/// Keys as in the store: `leader`, `members/n1`, ...
pub fn view(keys: &Value) -> View {
    let text = |key: &str| keys.get(key).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let bytes = |key: &str| text(key).map(String::into_bytes);
    let members =
        keys.as_object().into_iter().flatten().filter_map(|(key, value)| {
            layout::decode_member(key.strip_prefix("members/")?, value.to_string().as_bytes())
        });
    let mut members: Vec<Member> = members.collect();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    View {
        initialize: text("initialize").map(versioned),
        config: bytes("config").and_then(|bytes| layout::decode_config(&bytes)).map(versioned),
        leader: text("leader").map(|name| Leader { name, epoch: Epoch(1), owner: LeaderOwner::Other }),
        members,
        status: bytes("status").map(|bytes| layout::decode_status(&bytes)).unwrap_or_default(),
        history: bytes("history").map(|bytes| layout::decode_history(&bytes)).unwrap_or_default(),
        sync: bytes("sync").map(|bytes| versioned(layout::decode_sync(&bytes))),
        failover: bytes("failover").map(|bytes| versioned(layout::decode_failover(&bytes))),
        ..View::default()
    }
}

fn versioned<T>(value: T) -> Versioned<T> {
    Versioned { value, version: 0 }
}

/// Only what the commands use works; the rest says so.
#[derive(Debug)]
pub struct MemoryStore {
    view: Mutex<View>,
    changes: watch::Sender<u64>,
}

impl MemoryStore {
    pub fn new(view: View) -> Arc<MemoryStore> {
        Arc::new(MemoryStore { view: Mutex::new(view), changes: watch::Sender::new(0) })
    }

    pub fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock().expect("no test panics while it holds the view"));
        self.changes.send_modify(|count| *count += 1);
    }

    pub fn view(&self) -> View {
        self.view.lock().expect("no test panics while it holds the view").clone()
    }
}

fn unused<T>(operation: &str) -> Result<T, StoreError> {
    panic!("a command of the operator called {operation}")
}

#[async_trait]
impl Store for MemoryStore {
    async fn ready(&self, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    async fn load(&self) -> Result<View, StoreError> {
        Ok(self.view())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn acquire(&self) -> Result<Acquired, StoreError> {
        unused("acquire")
    }

    async fn renew(&self, _: Epoch) -> Result<Option<Lease>, StoreError> {
        unused("renew")
    }

    async fn release(&self, _: Epoch) -> Result<bool, StoreError> {
        unused("release")
    }

    async fn write_member(&self, _: &[u8]) -> Result<(), StoreError> {
        unused("write_member")
    }

    async fn write(&self, key: Key, value: &[u8], expect: Expect) -> Result<Written, StoreError> {
        let view = self.view();
        let present = match key {
            Key::Failover => view.failover.map(|key| key.version),
            Key::Config => view.config.map(|key| key.version),
            key => panic!("a command of the operator wrote {key:?}"),
        };
        let fits = match expect {
            Expect::Any => true,
            Expect::Absent => present.is_none(),
            Expect::Version(version) => present == Some(version),
        };
        if !fits {
            return Ok(Written::Conflict);
        }
        let version = present.map_or(0, |version| version + 1);
        self.change(|view| match key {
            Key::Failover => view.failover = Some(Versioned { value: layout::decode_failover(value), version }),
            _ => view.config = layout::decode_config(value).map(|value| Versioned { value, version }),
        });
        Ok(Written::Done { version })
    }

    async fn delete(&self, _: Key, _: Expect) -> Result<bool, StoreError> {
        unused("delete")
    }

    async fn delete_cluster(&self) -> Result<(), StoreError> {
        self.change(|view| *view = View::default());
        Ok(())
    }

    async fn clusters(&self) -> Result<Vec<String>, StoreError> {
        unused("clusters")
    }

    fn reconfigure(&self, _: &pgherd_dcs::Servers) {
        panic!("a command of the operator called reconfigure")
    }

    fn set_ttl(&self, _: Duration) {
        panic!("a command of the operator called set_ttl")
    }

    fn suspend(&self) {
        panic!("a command of the operator called suspend")
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A member's REST API: prepared answers by method and path, everything else is 404; it keeps what it was asked.
pub struct FakeMember {
    pub url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeMember {
    /// `answers`: `("POST /switchover", 200, "done")`.
    pub fn start(answers: &[(&str, u16, &str)]) -> FakeMember {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/patroni", listener.local_addr().expect("its own address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answers: BTreeMap<String, (u16, String)> = answers
            .iter()
            .map(|(request, status, body)| ((*request).to_owned(), (*status, (*body).to_owned())))
            .collect();
        let seen = requests.clone();
        // Ends with the test's process; a connection at a time is enough for a command.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &answers, &seen);
            }
        });
        FakeMember { url, requests }
    }

    /// `POST /switchover {"leader":"n1"}`, with ` as user:password` in base64 where it was sent.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("the fake member does not panic").clone()
    }
}

fn answer(
    stream: TcpStream,
    answers: &BTreeMap<String, (u16, String)>,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let request = line.rsplit_once(' ').map(|(request, _)| request.to_owned()).unwrap_or_default();
    let (mut length, mut credentials) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap_or(0),
                "authorization" => credentials = format!(" as {value}"),
                _ => {}
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body);
    let space = if body.is_empty() { "" } else { " " };
    seen.lock().expect("a list").push(format!("{request}{space}{body}{credentials}"));
    let missing = (404, "nothing here".to_owned());
    let (status, text) = answers.get(&request).unwrap_or(&missing);
    // As Patroni answers: HTTP/1.0, no length, the end of the connection ends the body.
    write!(reader.get_mut(), "HTTP/1.0 {status} Text\r\nServer: fake\r\n\r\n{text}")
}

/// A command's world: a cluster `demo`, what the operator answers, and what he sees.
pub struct World {
    pub context: Context,
    pub store: Arc<MemoryStore>,
    output: Arc<Mutex<Vec<u8>>>,
}

impl World {
    pub fn new(keys: &Value, answers: &'static str) -> World {
        let store = MemoryStore::new(view(keys));
        let output = Arc::new(Mutex::new(Vec::new()));
        let terminal = Terminal::prepared(Box::new(Shared(output.clone())), answers.as_bytes());
        let settings = Settings {
            scope: Some("demo".into()),
            namespace: "service".into(),
            store: Err(SettingsError::NoStore),
            rest: RestSettings { credentials: Some(("admin".into(), "secret".into())), ..RestSettings::default() },
        };
        let opened = store.clone();
        let context = Context::new(settings, terminal, Box::new(move |_, _| Ok(opened.clone())));
        World { context, store, output }
    }

    /// From here on the operator answers so, after something has happened.
    pub fn answer_after(&mut self, happening: impl FnOnce() + 'static, answers: &'static str) {
        let answers = Happening { happening: Some(happening), answers: answers.as_bytes() };
        let terminal = Terminal::prepared(Box::new(Shared(self.output.clone())), BufReader::new(answers));
        self.context.terminal = terminal;
    }

    /// What was printed.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("an output")).into_owned()
    }

    /// The same without the tables.
    pub fn said(&self) -> String {
        self.output().split_inclusive('\n').filter(|line| !line.starts_with(['+', '|'])).collect()
    }

    pub fn tables(&self) -> usize {
        self.output().matches("+ Cluster: demo ").count()
    }
}

/// Runs a command on a runtime like the program's own.
pub fn block_on<T>(command: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(command)
}

struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("an output").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Happening<F> {
    happening: Option<F>,
    answers: &'static [u8],
}

impl<F: FnOnce()> Read for Happening<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let Some(happening) = self.happening.take() {
            happening();
        }
        self.answers.read(buffer)
    }
}
