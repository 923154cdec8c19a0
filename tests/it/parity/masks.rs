//! What may differ between the answers of the two, each with the reason. Whatever is not here must be the same.

use super::compare::Mask::{self, Either, Moment, Nullable, Order, Ours, Value};

/// Places in JSON: keys with dots between them, `[]` for every element. Names of metrics and of headers are places, too.
pub const MASKS: &[(&str, Mask, &str)] = &[
    // Two clusters are two clusters.
    ("postmaster_start_time", Value, "two servers"),
    ("xlog.location", Value, "two logs"),
    ("xlog.received_location", Value, "two logs"),
    ("xlog.replayed_location", Value, "two logs"),
    ("xlog.replayed_timestamp", Nullable, "two logs, in which there may be nothing yet"),
    ("dcs_last_seen", Value, "the moment of a load"),
    ("members[].lag", Value, "two logs"),
    ("members[].lsn", Value, "two logs"),
    ("members[].receive_lag", Value, "two logs"),
    ("members[].receive_lsn", Value, "two logs"),
    ("members[].replay_lag", Value, "two logs"),
    ("members[].replay_lsn", Value, "two logs"),
    ("members[].scheduled_restart.postmaster_start_time", Value, "two servers"),
    ("history[]", Value, "two logs; and Patroni forgets the moment and the leader of a line when another follows soon"),
    ("patroni_postmaster_start_time", Value, "two servers"),
    ("patroni_xlog_location", Value, "two logs"),
    ("patroni_xlog_received_location", Value, "two logs"),
    ("patroni_xlog_replayed_location", Value, "two logs"),
    ("patroni_xlog_replayed_timestamp", Value, "two logs"),
    ("patroni_dcs_last_seen", Value, "the moment of a load"),
    // Said otherwise.
    ("failsafe", Order, "an object; Patroni keeps the order of the members in the store, pgherd that of their names"),
    ("scheduled_switchover.at", Moment, "pgherd writes moments in universal time"),
    ("scheduled_restart.restart_pending", Value, "only the presence of the key counts; pgherd shows what counts"),
    ("members[].scheduled_restart.restart_pending", Value, "the same"),
    // What each is.
    (
        "patroni.version",
        Value,
        "the level of the interface that pgherd speaks; a Patroni of the same level may have a later patch",
    ),
    ("patroni_version", Value, "the same"),
    ("pgherd", Ours, "the version of pgherd"),
    ("settled", Ours, "an extension: a standby whose position is final"),
    ("left_out", Ours, "an extension: what is configured and not in force"),
    ("logger_queue_size", Either, "how many lines wait at that moment"),
    ("logger_records_lost", Either, "the same: none, as a rule"),
    ("patroni_failsafe_mode_enabled", Ours, "a metric of later Patronis"),
    ("patroni_failsafe_member", Ours, "a metric of later Patronis"),
    ("patroni_failover_priority", Ours, "a metric of later Patronis"),
];
