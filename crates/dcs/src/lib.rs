//! The stores behind one trait: the cluster's keys, compare-and-set, keys under a lease, watches.
//!
//! Not here: what to write and when (`crates/ha` decides). The key layout and the JSON of each value are in `layout`;
//! every store passes the suite in `tests/it/store/`.

mod built_in;
mod clock;
mod error;
mod etcd;
#[doc(hidden)]
pub mod fuzz;
mod home;
pub mod layout;
mod member_key;
mod open;
mod operation;
mod section;
mod session_cell;
mod session_file;
mod snapshot;
mod store;
mod zookeeper;

pub use built_in::{BuiltIn, BuiltInAccess, BuiltInMember, BuiltInOptions, MemberError};
pub use clock::{boot_now, now};
pub use error::{Outcome, StoreError};
pub use etcd::{Etcd, EtcdOptions, EtcdSrv};
pub use open::{Servers, StoreOptions, open};
pub use section::{SectionError, StoreSecret};
pub use store::{Acquired, Expect, Key, Store, Written};
pub use zookeeper::{ZooKeeper, ZooKeeperAcl, ZooKeeperAuth, ZooKeeperOptions, ZooKeeperSasl, ZooKeeperTls};
