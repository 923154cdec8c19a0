//! A name server on loopback that knows what a test tells it: SRV records, over UDP and TCP.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SRV: u16 = 33;
/// Between two looks at whether the test is over.
const LOOK: Duration = Duration::from_millis(50);

/// Priority and port of a record; its host is always `localhost`.
pub type Record = (u16, u16);

/// Ends when it is dropped.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<BTreeMap<String, Vec<Record>>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl NameServer {
    /// `truncates`: over UDP it says only that the answer is too long.
    pub fn start(truncates: bool) -> NameServer {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().expect("a bound socket");
        udp.set_read_timeout(Some(LOOK)).expect("a socket");
        tcp.set_nonblocking(true).expect("a socket");
        let mut server = NameServer { address, zone: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        let (zone, stop) = (server.zone.clone(), server.stop.clone());
        server.threads.push(std::thread::spawn(move || {
            let mut question = [0; 512];
            while !stop.load(Ordering::SeqCst) {
                if let Ok((length, asker)) = udp.recv_from(&mut question) {
                    let answer = answer(&question[..length], &zone.lock().expect("no panic"), truncates);
                    let _ = udp.send_to(&answer, asker);
                }
            }
        }));
        let (zone, stop) = (server.zone.clone(), server.stop.clone());
        server.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                match tcp.accept() {
                    Ok((stream, _)) => serve(stream, &zone),
                    Err(_) => std::thread::sleep(LOOK),
                }
            }
        }));
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a name is from now on; nothing: it does not exist.
    pub fn set(&self, name: &str, records: &[Record]) {
        let mut zone = self.zone.lock().expect("no panic");
        match records {
            [] => zone.remove(name),
            records => zone.insert(name.to_owned(), records.to_vec()),
        };
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One port of both kinds.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = udp.local_addr().expect("a bound socket");
        if let Ok(tcp) = TcpListener::bind(address) {
            return (udp, tcp);
        }
    }
}

/// Questions of one client, as long as it asks.
fn serve(mut stream: TcpStream, zone: &Mutex<BTreeMap<String, Vec<Record>>>) {
    let _ = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(Duration::from_secs(1))));
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut question).is_err() {
            return;
        }
        let answer = answer(&question, &zone.lock().expect("no panic"), false);
        let length = u16::try_from(answer.len()).expect("a short answer").to_be_bytes();
        if stream.write_all(&[&length[..], &answer].concat()).is_err() {
            return;
        }
    }
}

fn answer(question: &[u8], zone: &BTreeMap<String, Vec<Record>>, truncates: bool) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
        at = end;
    }
    // The name, its type and its class.
    let end = at + 5;
    let found = zone.get(&labels.join(".")).filter(|_| question[at + 1..at + 3] == SRV.to_be_bytes());
    let records = found.filter(|_| !truncates).map(Vec::as_slice).unwrap_or_default();
    let mut out = question[..2].to_vec();
    // An answer; recursion was asked for and is there; truncated; no such name.
    let flags = 0x8180 | if truncates { 0x0200 } else { 0 } | if found.is_none() { 3 } else { 0 };
    for number in [flags, 1, u16::try_from(records.len()).expect("a few"), 0, 0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&question[12..end]);
    for (priority, port) in records {
        let host = b"\x09localhost\0";
        // The name of the question, the Internet's class, a second to live.
        out.extend_from_slice(&[0xc0, 12]);
        for number in [SRV, 1, 0, 1, 6 + u16::try_from(host.len()).expect("short"), *priority, 0, *port] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(host);
    }
    out
}
