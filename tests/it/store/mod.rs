//! The stores, on real servers. Each client lives as in the agent: on a thread of its own, used from another runtime.

mod conformance;
mod etcd;
mod sessions;
mod srv;
mod subject;
mod zookeeper;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgherd_dcs::{Acquired, EtcdOptions, Servers, Store, StoreOptions, ZooKeeperOptions, open};
use pgherd_ha::{Epoch, Lease, View};
use tokio::sync::oneshot;

const LIMIT: Duration = Duration::from_secs(60);

/// A client on its own thread. Dropped, it is gone as after a kill: its socket closes, its session stays.
struct Client {
    store: Arc<dyn Store>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    async fn start(options: StoreOptions) -> Client {
        let client = Client::start_unconnected(options);
        client.store.ready(LIMIT).await.expect("the server runs");
        client
    }

    fn start_unconnected(options: StoreOptions) -> Client {
        let (stop, stopped) = oneshot::channel::<()>();
        let (hand_over, taken) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let store = open(&options).expect("good options");
                hand_over.send(store).expect("the test waits for it");
                let _ = stopped.await;
            });
        });
        let store = taken.recv().expect("the thread hands it over");
        Client { store, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

/// On an ensemble of ZooKeeper.
fn options(name: &str, hosts: &[String]) -> StoreOptions {
    options_on(Servers::ZooKeeper(ZooKeeperOptions { hosts: hosts.to_vec(), ..ZooKeeperOptions::default() }), name)
}

/// On an etcd.
fn etcd_options(name: &str, hosts: &[String]) -> StoreOptions {
    let urls = hosts.iter().map(|host| format!("http://{host}")).collect();
    options_on(Servers::Etcd(EtcdOptions { urls, ..EtcdOptions::default() }), name)
}

/// On a built-in store.
fn built_in_options(name: &str, hosts: &[String]) -> StoreOptions {
    options_on(Servers::BuiltIn(crate::harness::built_in::options(hosts)), name)
}

fn options_on(servers: Servers, name: &str) -> StoreOptions {
    StoreOptions {
        servers,
        namespace: "/service/".into(),
        scope: "my_cluster".into(),
        name: Some(name.into()),
        ttl: Duration::from_secs(8),
        // Much more than a call takes, so that a busy machine makes none fail.
        retry_timeout: Duration::from_secs(10),
        session_file: None,
    }
}

/// A member key as an agent would write it; what it says is of no matter here.
const MEMBER: &[u8] = br#"{"conn_url":"postgres://h:5432/postgres","state":"running","role":"replica"}"#;

/// Waits until `condition` answers.
async fn until<T>(what: &str, limit: Duration, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = condition().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "no {what} within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn load(client: &Client) -> View {
    until("answer", LIMIT, async || client.store.load().await.ok()).await
}

/// Writes the member key and takes the lead.
async fn lead(client: &Client) -> Lease {
    // A very busy server may need several times for it.
    until("answer", LIMIT, async || client.store.write_member(MEMBER).await.ok()).await;
    match until("answer", LIMIT, async || client.store.acquire().await.ok()).await {
        Acquired::Ours(lease) => lease,
        Acquired::Taken => panic!("the leader key is free"),
    }
}

async fn renew(client: &Client, epoch: Epoch) -> Option<Lease> {
    until("answer", LIMIT, async || client.store.renew(epoch).await.ok()).await
}
