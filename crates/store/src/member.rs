//! A member as a program runs it: its server, and how it comes to be one of a store.
//!
//! A store is made once, by the first of its configured members, when all of them are there and new. A new member of a store that is there already
//! waits until it is added: whoever has lost its directory must not make a second store, nor vote as who it was.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::network::Dialer;
use crate::node::{Keeper, Node, StartError};
use crate::server::Server;
use crate::types::Member;

/// Between two looks whether the others are there.
const LOOK: Duration = Duration::from_millis(200);
/// For the status of one of them.
const ANSWER: Duration = Duration::from_secs(1);
/// Before a member that has ended is started again.
const AGAIN: Duration = Duration::from_secs(1);
/// What keeps a member from being one is said this often.
const SAY_AGAIN: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub struct MemberOptions {
    pub name: String,
    /// Made if it is not there.
    pub directory: PathBuf,
    /// `HOST:PORT`
    pub listen: String,
    /// `HOST:PORT`, as the others reach it.
    pub address: String,
    /// The addresses of all members that the store is to be made of, this one among them.
    pub members: Vec<String>,
    pub server: Arc<ServerConfig>,
    pub dialer: Dialer,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the store cannot listen on {address} (`store.listen`): {source}")]
    Listen { address: String, source: io::Error },
}

/// A running member. Dropped, it is gone as after a kill.
#[derive(Debug)]
pub struct Running {
    node: Node,
    _keeper: Keeper,
    _server: Server,
    joins: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.joins.abort();
    }
}

impl Running {
    pub async fn start(options: MemberOptions) -> Result<Running, RunError> {
        let listen = |source| RunError::Listen { address: options.listen.clone(), source };
        // First: who cannot be reached should not vote.
        let listener = TcpListener::bind(&options.listen).await.map_err(listen)?;
        let (node, keeper) = Node::start(&options.directory, &options.name, options.dialer.clone()).await?;
        let cluster = options.dialer.cluster.clone();
        let server = Server::start(listener, options.server.clone(), cluster, node.clone());
        let joins = tokio::spawn(join(node.clone(), options));
        Ok(Running { node, _keeper: keeper, _server: server, joins })
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    /// In order: what is on its way to the disk gets there.
    pub async fn stop(self) {
        self.node.stop().await;
    }
}

/// Runs a member until it is told to stop. What keeps it from starting is an error; what ends it later (a full disk, say) is logged, and it is started
/// again, from what is on its disk. `started` is called once it runs.
pub async fn serve(
    options: MemberOptions,
    stop: impl Future<Output = ()>,
    started: impl FnOnce(),
) -> Result<(), RunError> {
    let mut stop = std::pin::pin!(stop);
    let mut running = Some(Running::start(options.clone()).await?);
    started();
    let mut said: Option<Instant> = None;
    loop {
        let why = match running.take() {
            Some(now) => {
                let why = tokio::select! {
                    why = now.node.ended() => why,
                    () = &mut stop => {
                        now.stop().await;
                        return Ok(());
                    }
                };
                now.stop().await;
                why
            }
            None => match Running::start(options.clone()).await {
                Ok(now) => {
                    tracing::info!("the store's member {} runs again", options.name);
                    said = None;
                    running = Some(now);
                    continue;
                }
                Err(error) => error.to_string(),
            },
        };
        if said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            said = Some(Instant::now());
            tracing::error!("the store's member {} does not run: {why}; trying again", options.name);
        }
        tokio::select! {
            () = sleep(AGAIN) => {}
            () = &mut stop => return Ok(()),
        }
    }
}

async fn join(node: Node, options: MemberOptions) {
    let client = Client::new(options.dialer.clone(), &options.members);
    let mut said: Option<Instant> = None;
    loop {
        if node.status().await.initialized {
            return;
        }
        let hindrance = match make(&node, &client, &options).await {
            Ok(()) => continue,
            Err(hindrance) => hindrance,
        };
        if said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            said = Some(Instant::now());
            tracing::info!("the store has no member {} yet: {hindrance}", options.name);
        }
        sleep(LOOK).await;
    }
}

/// What is in the way of making the store, if it is not made now.
async fn make(node: &Node, client: &Client, options: &MemberOptions) -> Result<(), String> {
    let mut found = BTreeMap::new();
    let until = Instant::now() + ANSWER;
    let others = options.members.iter().filter(|address| **address != options.address);
    let own = Member { name: options.name.clone(), address: options.address.clone() };
    found.insert(node.id(), own);
    for address in others {
        let status = client.status(address, until.max(Instant::now() + ANSWER / 2)).await;
        let status = status.map_err(|error| format!("waiting for all of its members to be there once ({error})"))?;
        if status.initialized {
            return Err(format!(
                "it was made before, as {address} says, and this member is new: add it by `pgherd store add {}`",
                options.address
            ));
        }
        found.insert(status.id, Member { name: status.name, address: address.clone() });
    }
    if options.members.first() != Some(&options.address) {
        return Err(format!(
            "{} makes it, as the first in the list",
            options.members.first().map_or("nobody", |first| first)
        ));
    }
    if found.len() != options.members.len() {
        return Err("two of the addresses lead to the same member".into());
    }
    let names: Vec<String> = found.values().map(|member| member.name.clone()).collect();
    node.initialize(found).await?;
    tracing::info!("made the store, of {}", names.join(", "));
    Ok(())
}
