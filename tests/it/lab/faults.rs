//! The lab's primary is taken away by every means, with writers through both entries and one on its own host.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use tokio_postgres::Error;

use super::cluster::{Lab, SOON, login};
use crate::harness::notes::note;
use crate::harness::writers::{Record, TABLE, Writers};

/// Through pgherd's entrypoint.
const ENTRY: [i32; 3] = [1, 2, 3];
/// Through Debian's HAProxy.
const HAPROXY: [i32; 1] = [4];
/// On the primary's own host, to that server only.
const DIRECT: [i32; 1] = [5];

/// What the store grants by default.
const LEASE: Duration = Duration::from_secs(8);
/// HAProxy notices after three checks that time out (5 s each, 3 s apart), and takes the new one after two good ones.
const HAPROXY_LIMIT: Duration = Duration::from_secs(60);
/// A test on a busy machine does not fail for an answer that is late.
const SLACK: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SIGTERM to the agent.
    Stop,
    /// SIGKILL to everything on the host, at once.
    KillHost,
    /// The host's cable is pulled: the old primary lives on, and its own clients with it.
    Unplug,
}

impl Fault {
    fn cause(self, lab: &mut Lab, node: usize) {
        match self {
            Fault::Stop => lab.nodes[node].stop(),
            Fault::KillHost => lab.nodes[node].kill(),
            Fault::Unplug => lab.network.unplug(&lab.nodes[node].host),
        }
    }

    fn heal(self, lab: &mut Lab, node: usize) {
        match self {
            Fault::Stop => lab.nodes[node].start(),
            Fault::KillHost => lab.nodes[node].boot(),
            Fault::Unplug => lab.network.plug_in(&lab.nodes[node].host),
        }
    }
}

#[test]
fn every_way_to_lose_the_primary() {
    let Some(mut lab) = Lab::deploy() else { return };
    let primary = lab.nodes[lab.primary().expect("a primary")].host.address;
    lab.session(&lab.client, primary, async |client| client.batch_execute(TABLE).await).expect("a table");
    let mut report = String::from(
        "the lab, 2 nodes, defaults (ttl 8): longest time between two acknowledged rows\n\
         fault      pgherd proxy  errors  HAProxy 2.6  errors  rows     lost  old primary's last row before the new one's first\n",
    );
    for (round, fault) in [Fault::Stop, Fault::KillHost, Fault::Unplug].into_iter().enumerate() {
        report += &lose_the_primary(&mut lab, fault, round as i64 * 10_000_000);
    }
    note(&report);
}

/// One fault with its healing; a line of the report.
fn lose_the_primary(lab: &mut Lab, fault: Fault, first: i64) -> String {
    let old = lab.primary().expect("a primary");
    let new = 1 - old;
    let [old_address, new_address] = [old, new].map(|node| lab.nodes[node].host.address);
    let writers = start_writers(lab, old, first);
    let begun = Instant::now();
    fault.cause(lab, old);
    let through_entries = [&ENTRY[..], &HAPROXY].concat();
    lab.wait("the new primary acknowledges rows of everybody who comes through an entry", HAPROXY_LIMIT, |_| {
        let unserved =
            |record: &Record| record.unserved(&through_entries, |row| row.term.server.ip() == IpAddr::V4(new_address));
        writers.look(unserved).is_empty()
    });
    let record = writers.finish();
    let (first_new, _) = record.span_of(new_address).expect("rows of the new primary");
    let (_, last_old) = record.span_of(old_address).expect("rows of the old primary");
    // Nobody, by any way, is told of a row by the old primary once the new one has acknowledged one.
    assert!(last_old < first_new, "{fault:?}: two writers for {:?}\n{}", last_old - first_new, lab.logs());
    if fault == Fault::Unplug {
        check_isolated(lab, &record, old_address, begun);
    }
    let found = rows(lab, new_address);
    let lost = record.lost(&ENTRY, &found) + record.lost(&HAPROXY, &found);
    if fault == Fault::Stop {
        assert_eq!(lost + record.lost(&DIRECT, &found), 0, "an orderly stop loses nothing\n{}", lab.logs());
    }
    let outage = record.outage(&ENTRY);
    let limit = if fault == Fault::Stop { SLACK } else { LEASE + SLACK };
    assert!(outage < limit, "{fault:?}: an outage of {outage:?}; {:?}\n{}", record.errors, lab.logs());

    fault.heal(lab, old);
    // A standby that has gone another way streams for a moment, until its history is compared and its data replaced.
    lab.wait("the former primary follows, with the same rows", SOON, |lab| {
        lab.streams(old) && rows_now(lab, old_address).is_ok_and(|found| found == rows(lab, new_address))
    });
    assert_eq!(lab.primary(), Some(new), "{}", lab.logs());

    let mut line = String::new();
    let _ = writeln!(
        line,
        "{:<10} {:>9.2} s {:>9} {:>9.2} s {:>7} {:>7} {:>6}  {:.2} s; {:.2} s after the fault",
        format!("{fault:?}"),
        outage.as_secs_f64(),
        record.errors_of(&ENTRY),
        record.outage(&HAPROXY).as_secs_f64(),
        record.errors_of(&HAPROXY),
        record.rows.len(),
        lost,
        (first_new - last_old).as_secs_f64(),
        last_old.saturating_duration_since(begun).as_secs_f64(),
    );
    line
}

/// All write.
fn start_writers(lab: &Lab, old: usize, first: i64) -> Writers {
    let primary = &lab.nodes[old].host;
    let mut writers = Writers::default();
    for (group, host, address) in [
        (&ENTRY[..], &lab.client, lab.entry.address),
        (&HAPROXY, &lab.client, lab.haproxy.address),
        (&DIRECT, primary, primary.address),
    ] {
        for writer in group {
            let place = host.place();
            writers.add(*writer, first, login(address), move || place.enter());
        }
    }
    lab.wait("all writers write", SOON, |_| {
        let all = [&ENTRY[..], &HAPROXY, &DIRECT].concat();
        all.iter().all(|writer| writers.look(|record| record.of(&[*writer]).count() > 50))
    });
    writers
}

/// The old primary went on alone for a while, as it may, and was gone before its lease was.
fn check_isolated(lab: &Lab, record: &Record, old: Ipv4Addr, begun: Instant) {
    let alone =
        record.of(&DIRECT).filter(|row| row.term.server.ip() == IpAddr::V4(old) && row.acknowledged > begun).count();
    assert!(alone > 0, "the old primary was cut off from its own clients too\n{}", lab.logs());
    let last = record.span_of(old).expect("rows").1 - begun;
    assert!(last < LEASE, "the isolated primary acknowledged a row after {last:?}\n{}", lab.logs());
}

fn rows(lab: &Lab, address: Ipv4Addr) -> BTreeSet<(i32, i64)> {
    rows_now(lab, address).expect("the rows")
}

fn rows_now(lab: &Lab, address: Ipv4Addr) -> Result<BTreeSet<(i32, i64)>, Error> {
    let rows = lab.session(&lab.client, address, async |client| {
        client.query("SELECT writer, sequence FROM acknowledged", &[]).await
    })?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
