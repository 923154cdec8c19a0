//! A store under test: one server of either kind, with what the suite does to it.

use std::time::Duration;

use pgherd_dcs::StoreOptions;

use super::{Client, built_in_options, etcd_options, options};
use crate::harness::built_in::BuiltInServer;
use crate::harness::certificates::Certificates;
use crate::harness::etcd::EtcdServer;
use crate::harness::zookeeper::ZooKeeperServer;

/// A server of its own, ready for clients when it is made.
pub trait Subject: Sized {
    /// How its operator is told to look after it.
    const CHECK: &'static str;
    /// What it grants at least, whatever is asked for.
    const LEAST: Duration;

    fn start() -> Self;
    fn address(&self) -> String;
    fn stop(&mut self);
    fn kill(&mut self);
    fn restart(&mut self);
    fn sigstop(&self);
    fn sigcont(&self);
    fn options(&self, name: &str) -> StoreOptions;

    async fn client(&self, name: &str) -> Client {
        Client::start(self.options(name)).await
    }
}

/// A ZooKeeper that is spoken to with TLS, whose keys are nobody else's.
pub struct SecuredZooKeeper {
    server: ZooKeeperServer,
    certificates: Certificates,
}

impl Subject for SecuredZooKeeper {
    const CHECK: &'static str = ZooKeeperServer::CHECK;
    const LEAST: Duration = ZooKeeperServer::LEAST;

    fn start() -> Self {
        let certificates = Certificates::make();
        SecuredZooKeeper { server: ZooKeeperServer::start_secured(&certificates), certificates }
    }
    fn address(&self) -> String {
        self.server.secure_address()
    }
    fn stop(&mut self) {
        self.server.stop();
    }
    fn kill(&mut self) {
        self.server.kill();
    }
    fn restart(&mut self) {
        self.server.restart();
    }
    fn sigstop(&self) {
        self.server.sigstop();
    }
    fn sigcont(&self) {
        self.server.sigcont();
    }
    fn options(&self, name: &str) -> StoreOptions {
        let section = serde_json::json!({
            "hosts": format!("{}/below/here", self.address()),
            "use_ssl": true,
            "cacert": self.certificates.shown("ca.crt"),
            "cert": self.certificates.shown("client.pem"),
            "auth_data": {"digest": "pgherd:secret"},
            "set_acls": {"CN=client": ["ALL"]},
        });
        super::zookeeper::section(name, &section)
    }
}

macro_rules! subject {
    ($server:ty, $options:ident, $check:literal, $least:literal) => {
        impl Subject for $server {
            const CHECK: &'static str = $check;
            const LEAST: Duration = Duration::from_secs($least);

            fn start() -> Self {
                <$server>::start()
            }
            fn address(&self) -> String {
                <$server>::address(self)
            }
            fn stop(&mut self) {
                <$server>::stop(self);
            }
            fn kill(&mut self) {
                <$server>::kill(self);
            }
            fn restart(&mut self) {
                <$server>::restart(self);
            }
            fn sigstop(&self) {
                <$server>::sigstop(self);
            }
            fn sigcont(&self) {
                <$server>::sigcont(self);
            }
            fn options(&self, name: &str) -> StoreOptions {
                $options(name, &[self.address()])
            }
        }
    };
}

subject!(ZooKeeperServer, options, "check that ZooKeeper runs", 4);
subject!(EtcdServer, etcd_options, "check that etcd runs", 2);
subject!(BuiltInServer, built_in_options, "check that a majority of the store's members run", 1);
