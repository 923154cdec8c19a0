//! Members in one process, over real sockets: who leads, what is kept, and how long leases last.

use std::sync::Arc;
use std::time::Duration;

use pgherd_store::client::Client;
use pgherd_store::kv::{Answer, Bytes, Change, Command, Condition, LeaseId, Revision};
use pgherd_store::log::OpenError;
use pgherd_store::member::{MemberOptions, RunError, Running};
use pgherd_store::network::Dialer;
use pgherd_store::node::StartError;
use pgherd_store::wire::Renewal;
use tokio::time::{Instant, sleep};

const LEASE: LeaseId = LeaseId(7);

/// A member that can be stopped and started again at its address.
struct Site {
    options: MemberOptions,
    running: Option<Running>,
    _directory: tempfile::TempDir,
}

struct Store {
    sites: Vec<Site>,
    dialer: Dialer,
}

impl Site {
    /// Without starting it.
    fn new(address: String, members: &[String], name: String) -> Site {
        let (server, client) = pgherd_tls::of_secret("a secret of a test", "store").expect("TLS");
        let directory = tempfile::tempdir().expect("a directory");
        let dialer = Dialer { cluster: "demo".into(), tls: Arc::new(client), patience: Duration::from_millis(500) };
        let options = MemberOptions {
            name,
            directory: directory.path().to_owned(),
            listen: address.clone(),
            address,
            members: members.to_vec(),
            server: Arc::new(server),
            dialer,
        };
        Site { options, running: None, _directory: directory }
    }

    async fn start(&mut self) {
        // The port is free again a moment after its listener was dropped.
        self.running = loop {
            match Running::start(self.options.clone()).await {
                Ok(running) => break Some(running),
                Err(RunError::Listen { .. } | RunError::Start(StartError::Open(OpenError::Locked(_)))) => {
                    sleep(Duration::from_millis(5)).await
                }
                Err(error) => panic!("{error}"),
            }
        };
    }

    /// As by kill -9, but for what is on its way to the disk: nobody is told.
    async fn kill(&mut self) {
        self.running.take().expect("it runs").stop().await;
    }

    fn lose_everything(&self) {
        for file in std::fs::read_dir(&self.options.directory).expect("its directory") {
            std::fs::remove_file(file.expect("an entry").path()).expect("removed");
        }
    }
}

fn free_address() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("its address").to_string()
}

impl Store {
    async fn start(members: usize) -> Store {
        let addresses: Vec<String> = (0..members).map(|_| free_address()).collect();
        let site = |(number, address): (usize, &String)| Site::new(address.clone(), &addresses, format!("n{number}"));
        let mut sites: Vec<Site> = addresses.iter().enumerate().map(site).collect();
        for site in &mut sites {
            site.start().await;
        }
        let store = Store { dialer: sites[0].options.dialer.clone(), sites };
        store.client().read("", soon()).await.expect("a new store");
        store
    }

    fn client(&self) -> Client {
        Client::new(self.dialer.clone(), &self.sites[0].options.members)
    }

    /// The number of the member that leads.
    async fn leader(&self) -> usize {
        loop {
            for (number, site) in self.sites.iter().enumerate() {
                let Some(running) = &site.running else { continue };
                let status = running.node().status().await;
                if status.leader.as_ref().is_some_and(|leader| leader.name == site.options.name) {
                    return number;
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Change {
    Change::Put { key: key.into(), value: Bytes(value.as_bytes().to_vec()), lease }
}

async fn write(client: &Client, expect: Vec<Condition>, change: Change) -> Answer {
    client.write(Command::Write { expect, then: vec![change] }, soon()).await.expect("a verdict")
}

async fn keys(client: &Client) -> Vec<String> {
    let (_, keys) = client.read("", soon()).await.expect("an answer");
    keys.into_iter().map(|(key, _)| key).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_one_and_of_three_keeps_what_is_written_over_restarts() {
    for members in [1, 3] {
        let mut store = Store::start(members).await;
        let client = store.client();
        for number in 0..20 {
            let answer = write(&client, vec![], put(&format!("/key/{number}"), "x", None)).await;
            assert_eq!(answer, Answer::Done { revision: Revision(number + 1) });
        }
        let before = term(&store).await;
        for site in &mut store.sites {
            site.kill().await;
        }
        for site in &mut store.sites {
            site.start().await;
        }
        // Whoever led is elected anew, so that what is read now is what was written last.
        assert_eq!(keys(&client).await.len(), 20);
        assert!(term(&store).await > before, "a leader has gone on in its term");
        let absent = Condition::Absent { key: "/key/1".into() };
        assert_eq!(write(&client, vec![absent], put("/key/1", "y", None)).await, Answer::Refused);
        for site in &mut store.sites {
            site.kill().await;
        }
    }
}

async fn term(store: &Store) -> u64 {
    let leader = store.leader().await;
    store.sites[leader].running.as_ref().expect("it runs").node().status().await.term
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_leads_within_half_a_second_and_nothing_is_lost() {
    let mut store = Store::start(3).await;
    let client = store.client();
    let mut longest = Duration::ZERO;
    for turn in 0..5 {
        write(&client, vec![], put(&format!("/before/{turn}"), "x", None)).await;
        let leader = store.leader().await;
        let begun = Instant::now();
        store.sites[leader].kill().await;
        // Whether it was done is unknown where the leader was just asked; then it is asked again.
        let change = || Command::Write { expect: vec![], then: vec![put(&format!("/after/{turn}"), "x", None)] };
        while client.write(change(), soon()).await.is_err() {}
        longest = longest.max(begun.elapsed());
        store.sites[leader].start().await;
        assert_eq!(keys(&client).await.len(), 2 * (turn + 1));
    }
    println!("longest time without a leader: {} ms", longest.as_millis());
    // 0.3 s on a machine that has nothing else to do.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_lasts_as_long_as_it_is_renewed_also_under_another_leader() {
    let mut store = Store::start(3).await;
    let client = store.client();
    let ttl = Duration::from_secs(1);
    client.write(Command::Grant { lease: LEASE, ttl_ms: 1000 }, soon()).await.expect("granted");
    let absent = Condition::Absent { key: "/leader".into() };
    let Answer::Done { revision } = write(&client, vec![absent], put("/leader", "a", Some(LEASE))).await else {
        panic!("the key was there")
    };
    let held = Some(("/leader".to_owned(), revision));
    let begun = Instant::now();
    let mut killed = false;
    let mut last = Instant::now();
    while begun.elapsed() < 3 * ttl {
        let asked = Instant::now();
        if client.renew(LEASE, held.clone(), soon()).await.expect("an answer")
            != (Renewal::Done { ttl_ms: 1000, holds: true })
        {
            panic!("lost {:?} after the last renewal", last.elapsed());
        }
        last = asked;
        if !killed && begun.elapsed() > ttl {
            let leader = store.leader().await;
            store.sites[leader].kill().await;
            killed = true;
        }
        sleep(Duration::from_millis(100)).await;
    }
    while !keys(&client).await.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    // No earlier than its holder counts.
    assert!(last.elapsed() >= ttl, "{:?}", last.elapsed());
    assert!(last.elapsed() < 3 * ttl, "{:?}", last.elapsed());
    assert_eq!(client.renew(LEASE, held, soon()).await.expect("an answer"), Renewal::NoLease);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_answers_nothing_and_strangers_are_not_let_in() {
    let mut store = Store::start(3).await;
    let client = store.client();
    client.write(Command::Grant { lease: LEASE, ttl_ms: 60_000 }, soon()).await.expect("granted");
    let leader = store.leader().await;
    for number in (0..3).filter(|number| *number != leader) {
        store.sites[number].kill().await;
    }
    let until = || Instant::now() + Duration::from_secs(1);
    client.read("", until()).await.expect_err("no quorum, no linearizable read");
    client.renew(LEASE, None, until()).await.expect_err("no quorum, no renewal");
    let grant = Command::Grant { lease: LeaseId(8), ttl_ms: 1000 };
    let error = client.write(grant, until()).await.expect_err("no quorum, no write");
    // A leader that has been without its quorum for a while takes nothing any more, and says so.
    assert!(error.may_be_done || error.to_string().contains("nothing was done"), "{error}");

    let address = store.sites[leader].options.address.clone();
    let other = Dialer { cluster: "another".into(), ..store.dialer.clone() };
    let error =
        Client::new(other, std::slice::from_ref(&address)).status(&address, until()).await.expect_err("another store");
    assert!(error.to_string().contains("a member of the store \"demo\", not of \"another\""), "{error}");
    let (_, tls) = pgherd_tls::of_secret("guessed", "store").expect("TLS");
    let stranger = Dialer { tls: Arc::new(tls), ..store.dialer.clone() };
    Client::new(stranger, std::slice::from_ref(&address))
        .status(&address, until())
        .await
        .expect_err("it lacks the secret");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_of_changes_under_its_prefix() {
    let store = Store::start(1).await;
    let client = store.client();
    let Answer::Done { revision } = write(&client, vec![], put("/a/x", "1", None)).await else {
        panic!("no condition")
    };
    let watching = tokio::spawn({
        let client = client.clone();
        async move { client.watch("/a/", revision).await }
    });
    write(&client, vec![], put("/b/x", "1", None)).await;
    write(&client, vec![], put("/a/x", "2", None)).await;
    let (seen, keys) = watching.await.expect("no panic").expect("a change");
    assert!(seen > revision, "{seen:?}");
    assert_eq!(keys, Some(vec!["/a/x".to_owned()]));
    // What was missed is told at once; what is too long ago is not known.
    assert_eq!(client.watch("/a/", revision).await.expect("a change").1, Some(vec!["/a/x".to_owned()]));
    assert_eq!(client.watch("/a/", Revision(99)).await.expect("an answer").1, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_directory_waits_until_it_is_added_and_does_not_vote_as_before() {
    let mut store = Store::start(3).await;
    let client = store.client();
    write(&client, vec![], put("/a", "1", None)).await;
    let leader = store.leader().await;
    let lost = (leader + 1) % 3;
    store.sites[lost].kill().await;
    store.sites[lost].lose_everything();
    store.sites[lost].start().await;
    let before = store.sites[lost].options.clone();
    let status = async || client.status(&before.address, soon()).await.expect("it answers");
    // It has looked for the others several times by then.
    for number in 0..30 {
        write(&client, vec![], put(&format!("/more/{number}"), "1", None)).await;
        sleep(Duration::from_millis(20)).await;
    }
    let now = status().await;
    assert!(!now.initialized && now.applied.is_none(), "{now:?}");

    let error = client.add(&before.address, soon()).await.expect_err("its name is that of the member that is gone");
    assert!(error.to_string().contains("remove it first"), "{error}");
    let voters = client.remove(&before.name, soon()).await.expect("a quorum is there");
    assert!(voters.iter().all(|member| member.name != before.name), "{voters:?}");
    let voters = client.add(&before.address, soon()).await.expect("it is new");
    assert_eq!(voters.len(), 3, "{voters:?}");
    while status().await.revision < Revision(31) {
        sleep(Duration::from_millis(10)).await;
    }
    // It counts: without another one there is a quorum.
    let other = (0..3).find(|number| *number != leader && *number != lost).expect("the third");
    store.sites[other].kill().await;
    write(&client, vec![], put("/b", "1", None)).await;
}
