//! The lab's walk, step by step, as its text tells it.

use std::net::Ipv4Addr;

use tokio_postgres::error::SqlState;

use super::cluster::{Lab, SOON};

#[test]
fn the_lab_as_its_text_tells_it() {
    let Some(mut lab) = Lab::deploy() else { return };
    // 3. One node has become the primary, the other one follows.
    let primary = lab.primary().expect("a primary");
    let replica = 1 - primary;
    let [first, second] = [primary, replica].map(|node| lab.nodes[node].host.address);

    // 4 to 6. A table and rows, seen on both; the replica refuses a change.
    let text = "CREATE TABLE student (id int PRIMARY KEY, name text); INSERT INTO student VALUES (1, 'a'), (2, 'b')";
    lab.session(&lab.client, first, async |client| client.batch_execute(text).await).expect("a table with rows");
    assert_eq!(names(&lab, first), ["a", "b"]);
    lab.wait("the replica has the rows", SOON, |lab| names(lab, second) == ["a", "b"]);
    let refused = lab.session(&lab.client, second, async |client| {
        client.batch_execute("UPDATE student SET name = 'x' WHERE id = 1").await
    });
    assert_eq!(refused.expect_err("read-only").code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));

    // 7 to 9. Both entries, with the lab's one file; their page.
    let entries = [lab.entry.address, lab.haproxy.address];
    for (entry, name) in entries.into_iter().zip(["c", "d"]) {
        rename_and_look(&lab, entry, name);
        let (status, page) = lab.fetch(entry, 7000, "/").expect("the page of statistics");
        assert_eq!(status, 200);
        for server in ["postgresql_pg_master_5432", "postgresql_pg_slave_5432"] {
            assert!(page.contains(server), "{server} is missing in\n{page}");
        }
    }

    // The task: the primary is taken away; after a little, reading and writing go on.
    lab.nodes[primary].stop();
    assert_eq!(lab.nodes[primary].host.processes(), 0, "a stop leaves nothing running");
    for (entry, name) in entries.into_iter().zip(["e", "f"]) {
        rename_and_look(&lab, entry, name);
    }
    assert_eq!(lab.primary(), Some(replica), "{}", lab.logs());

    // It comes back as a replica by itself.
    lab.nodes[primary].start();
    lab.wait("the former primary follows", SOON, |lab| lab.streams(primary));
    lab.wait("it has the rows", SOON, |lab| names(lab, first) == ["f", "b"]);
    assert_eq!(lab.primary(), Some(replica), "{}", lab.logs());
}

/// Ours serves at once, and holds who comes too early. HAProxy needs two good checks, 3 s apart, before it lets anybody in, and three bad ones
/// before it leaves a server; in between it closes one connection or the other.
fn rename_and_look(lab: &Lab, entry: Ipv4Addr, name: &'static str) {
    let change = |lab: &Lab| {
        let changed = lab.session(&lab.client, entry, async move |client| {
            client.execute("UPDATE student SET name = $1 WHERE id = 1", &[&name]).await
        });
        changed.is_ok_and(|rows| rows == 1)
    };
    if entry == lab.entry.address {
        lab.wait("the entry is open", SOON, |lab| lab.can_write(entry));
        assert!(change(lab), "a change through the entry\n{}", lab.logs());
        assert_eq!(names(lab, entry), [name, "b"]);
    } else {
        lab.wait("a change through HAProxy", SOON, change);
        lab.wait("the change is seen through HAProxy", SOON, |lab| names(lab, entry) == [name, "b"]);
    }
}

/// Nothing if the question fails.
fn names(lab: &Lab, address: Ipv4Addr) -> Vec<String> {
    let rows = lab
        .session(&lab.client, address, async |client| client.query("SELECT name FROM student ORDER BY id", &[]).await);
    rows.unwrap_or_default().iter().map(|row| row.get(0)).collect()
}
