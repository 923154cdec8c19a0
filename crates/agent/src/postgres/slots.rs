//! Physical replication slots. The list of slots is in the [`Observation`](super::Observation).

use super::sql::literal;
use super::{Connection, Error};

/// Creates a slot that keeps WAL from now on; nothing happens if there is one of that name.
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
