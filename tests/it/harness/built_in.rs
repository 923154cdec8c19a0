//! Members of the built-in store as processes of their own (`pgherd store`).

use std::process::Command;

use pgherd_dcs::{BuiltInAccess, BuiltInOptions, StoreSecret};
use rustix::process::Signal;

use super::binary;
use super::ports::free_port;
use super::store_process::StoreProcess;

const SECRET: &str = "a secret of the tests";

/// A store of one member.
#[derive(Debug)]
pub struct BuiltInServer {
    process: StoreProcess,
    port: u16,
}

impl BuiltInServer {
    /// Ready for clients.
    pub fn start() -> BuiltInServer {
        let (process, port) = (StoreProcess::new("store"), free_port());
        let directory = process.directory().display();
        let file = format!(
            "scope: demo\nname: one\nstore:\n  listen: 127.0.0.1:{port}\n  members: [127.0.0.1:{port}]\n  data_dir: {directory}/data\n  secret: {SECRET}\n"
        );
        std::fs::write(process.directory().join("one.yml"), file).expect("a writable temporary directory");
        let mut server = BuiltInServer { process, port };
        server.launch();
        server
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops it as its service would.
    pub fn stop(&mut self) {
        self.process.end(Signal::TERM);
    }

    pub fn kill(&mut self) {
        self.process.end(Signal::KILL);
    }

    /// Starts it again on the same data and port, after [`stop`](Self::stop) or [`kill`](Self::kill).
    pub fn restart(&mut self) {
        assert!(!self.process.runs(), "restart after a stop or a kill");
        self.launch();
    }

    /// Freezes it: connections stay open and nothing answers. Returns when the last of its threads stands still.
    pub fn sigstop(&self) {
        self.process.sigstop();
    }

    pub fn sigcont(&self) {
        self.process.sigcont();
    }

    fn launch(&mut self) {
        let file = self.process.directory().join("one.yml");
        self.process.launch(Command::new(binary::pgherd()).arg("store").arg(&file));
        let leads = |file: &std::path::Path| {
            let mut command = Command::new(binary::pgherd());
            let output = command.args(["store", "status", "-f", "tsv", "-c"]).arg(file).output().expect("pgherd runs");
            String::from_utf8_lossy(&output.stdout).contains("\tLeader\t")
        };
        self.process.wait_until(|| leads(&file));
    }
}

/// What a client is told of such a store.
pub fn options(members: &[String]) -> BuiltInOptions {
    BuiltInOptions {
        name: "demo".into(),
        members: members.to_vec(),
        access: BuiltInAccess::Secret(StoreSecret(SECRET.into())),
        member: None,
    }
}
