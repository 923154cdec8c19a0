//! The one integration-test binary: real PostgreSQL, real ZooKeeper, real patronictl and HAProxy.
//!
//! Every test has its own temporary directory and free ports and leaves no process behind; nothing sleeps for a fixed
//! time. `make test` installs what it needs.

mod cluster;
mod ctl;
mod demo;
mod docker;
mod edges;
mod effective;
mod generate;
mod guard;
mod harness;
mod lab;
mod logging;
mod parity;
mod postgres;
mod privileges;
mod proxy;
mod store;
mod trouble;
mod validate;
