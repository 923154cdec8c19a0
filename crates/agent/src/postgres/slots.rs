//! Replication slots. The list of slots is in the [`Observation`](super::Observation); copying them from another server is in `slot_copy`.

use std::collections::BTreeMap;
use std::time::Duration;

use pgherd_ha::{Lsn, Xid};
use tokio_postgres::error::SqlState;

use super::connection::query_remote;
use super::sql::literal;
use super::{Connection, Error, Server, Upstream, execute_in_database};

/// Creates a physical slot that keeps WAL from now on; nothing happens if there is one of that name.
pub async fn create(connection: &mut Connection, name: &str) -> Result<(), Error> {
    let name_literal = literal(name);
    let sql = format!(
        "SELECT pg_create_physical_replication_slot({name_literal}, true) \
         WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {name_literal})"
    );
    connection.execute(&format!("creating the slot {name}"), &sql).await
}

/// Drops a slot; nothing happens if there is none or it is in use.
pub async fn remove(connection: &mut Connection, name: &str) -> Result<(), Error> {
    let sql = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {} AND NOT active",
        literal(name)
    );
    connection.execute(&format!("dropping the slot {name}"), &sql).await
}

/// Log before `to` is not kept for it any more; nothing happens if it is there already, or in use.
pub async fn advance(connection: &mut Connection, name: &str, to: Lsn) -> Result<(), Error> {
    connection.execute(&format!("moving the slot {name} to {to}"), &advance_sql(name, to, "restart_lsn")).await
}

/// Creates a logical slot in its database. It has to wait for the end of every transaction that runs.
pub async fn create_logical(
    server: &Server,
    database: &str,
    name: &str,
    plugin: &str,
    limit: Duration,
) -> Result<(), Error> {
    let (name_literal, plugin) = (literal(name), literal(plugin));
    let sql = format!(
        "SELECT pg_create_logical_replication_slot({name_literal}, {plugin}) \
         WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {name_literal})"
    );
    execute_in_database(server, database, &format!("creating the logical slot {name}"), &sql, limit).await
}

/// As [`advance`], of a logical slot. PostgreSQL reads all the log in between.
pub async fn advance_logical(
    server: &Server,
    database: &str,
    name: &str,
    to: Lsn,
    limit: Duration,
) -> Result<(), Error> {
    let sql = advance_sql(name, to, "confirmed_flush_lsn");
    execute_in_database(server, database, &format!("moving the logical slot {name} to {to}"), &sql, limit).await
}

/// From which transaction on the leader keeps rows of its catalogs for these slots of its own; without those for which it keeps none.
pub async fn catalog_xmins(
    server: &Server,
    leader: &Upstream,
    names: &[String],
) -> Result<BTreeMap<String, Xid>, Error> {
    let names = names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT coalesce(json_object_agg(slot_name, catalog_xmin::text::bigint), '{{}}')::text FROM pg_get_replication_slots() \
         WHERE NOT pg_is_in_recovery() AND slot_name IN ({names}) AND catalog_xmin IS NOT NULL"
    );
    let what = "asking the leader which rows of its catalogs it keeps for slots";
    let text = query_remote(server, leader, what, &sql).await?.unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| Error::answer("the leader", format!("{error} for its slots")))
}

/// The log that the slot needs is gone, or the slot is invalid: trying again does not help.
pub fn is_broken(error: &Error) -> bool {
    matches!(error.sql_state(), Some(state) if *state == SqlState::UNDEFINED_FILE || *state == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE)
}

fn advance_sql(name: &str, to: Lsn, position: &str) -> String {
    format!(
        "SELECT pg_replication_slot_advance(slot_name, '{to}') FROM pg_replication_slots \
         WHERE slot_name = {} AND NOT active AND {position} < '{to}'",
        literal(name)
    )
}
