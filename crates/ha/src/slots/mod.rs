//! Replication slots: which ones this server is to have, what is to be done about those that it has, and what others are told of them.
//!
//! Every node keeps a slot for every other member, and each permanent one (`slots` in the dynamic configuration). Where nobody uses it, it is
//! moved along with the leader's, whose positions are in the `status` key; so after a failover the new primary has them all, and nobody
//! lacks log. A logical slot is never moved past what its consumer has confirmed: what a consumer gets twice it can tell, what it never
//! gets it cannot.
//!
//! Nothing is done here: the answer is a list of [`SlotChange`]s, made afresh from what is seen in each round. The page is
//! `docs/slots.md`; the cases are in `tests/rules/slots.rs`.

mod changes;
mod logical;
mod memory;
mod name;
mod published;
mod ready;
mod slot;
mod wanted;
mod without_store;

pub(crate) use changes::{on_leader, on_standby};
pub use logical::needs_feedback;
pub(crate) use logical::{advances_before_promotion, capped_status, copies};
pub(crate) use memory::Memory;
pub use name::{clashes, slot_name};
pub(crate) use published::{is_news, status};
pub(crate) use ready::{ask_leader, unproven};
pub use slot::{LeaderSlots, Slot, SlotChange, SlotFilter, SlotKind};
pub(crate) use without_store::move_along;
