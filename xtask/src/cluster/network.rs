//! A network of their own for the nodes, whose cables can be pulled: a bridge here, and for each node a network
//! namespace with one cable to it (shell).
//!
//! Needs rights that not every machine gives. What is made is removed again when it is dropped.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::run_ok;
use crate::workspace;

const LIMIT: Duration = Duration::from_secs(20);
/// The address of this end. Below is a byte drawn from our process number, so that two runs have two networks.
const US: u8 = 254;

#[derive(Debug)]
pub(super) struct Network {
    /// What all names begin with: at most 15 letters may name an interface.
    prefix: String,
    subnet: u8,
    nodes: Vec<i32>,
}

impl Network {
    /// # Errors
    /// Where this machine does not allow it, too.
    pub(super) fn start(nodes: &[i32]) -> Result<Self> {
        workspace::find_program("ip").context("there is no program `ip`")?;
        let number = std::process::id();
        let subnet = u8::try_from(number % 200)? + 1;
        // From now on it is removed, whatever of it was made.
        let network =
            Self { prefix: format!("ot{}", number % 100_000), subnet, nodes: nodes.to_vec() };
        let bridge = network.bridge();
        let ours = format!("{}/24", network.host(US));
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &ours, "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for id in nodes {
            network.connect(*id)?;
        }
        Ok(network)
    }

    /// Whether this machine lets us make a namespace.
    pub(super) fn is_possible() -> bool {
        let name = format!("otprobe{}", std::process::id() % 100_000);
        let made = ip(&["netns", "add", &name]).is_ok();
        ip(&["netns", "del", &name]).ok();
        made
    }

    fn connect(&self, id: i32) -> Result<()> {
        let (space, cable, bridge) = (self.space(id), self.cable(id), self.bridge());
        let address = format!("{}/24", self.address(id)?);
        ip(&["netns", "add", &space])?;
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
        ip(&["link", "set", &cable, "master", &bridge])?;
        ip(&["-n", &space, "addr", "add", &address, "dev", "eth0"])?;
        ip(&["-n", &space, "link", "set", "eth0", "up"])?;
        ip(&["-n", &space, "link", "set", "lo", "up"])?;
        self.plug(id)
    }

    fn bridge(&self) -> String {
        format!("{}br", self.prefix)
    }

    fn space(&self, id: i32) -> String {
        format!("{}n{id}", self.prefix)
    }

    fn cable(&self, id: i32) -> String {
        format!("{}v{id}", self.prefix)
    }

    fn host(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.subnet, last)
    }

    /// Where a node is.
    pub(super) fn address(&self, id: i32) -> Result<Ipv4Addr> {
        Ok(self.host(u8::try_from(id)?))
    }

    /// The same command, at the node's end of its cable.
    pub(super) fn enter(&self, id: i32, command: &Command) -> Command {
        let mut entered = Command::new("ip");
        entered.args(["netns", "exec", &self.space(id)]);
        entered.arg(command.get_program()).args(command.get_args());
        entered
    }

    /// Nothing goes in or out any more, and nobody is told.
    pub(super) fn pull(&self, id: i32) -> Result<()> {
        ip(&["link", "set", &self.cable(id), "down"])
    }

    pub(super) fn plug(&self, id: i32) -> Result<()> {
        ip(&["link", "set", &self.cable(id), "up"])
    }

    /// Two nodes do not reach each other, and are reached by all others.
    pub(super) fn part(&self, nodes: [i32; 2]) -> Result<()> {
        self.isolate(nodes, "on")
    }

    pub(super) fn join(&self, nodes: [i32; 2]) -> Result<()> {
        self.isolate(nodes, "off")
    }

    /// A bridge carries nothing from one isolated port to another.
    fn isolate(&self, nodes: [i32; 2], state: &str) -> Result<()> {
        nodes.iter().try_for_each(|id| {
            ip(&["link", "set", "dev", &self.cable(*id), "type", "bridge_slave", "isolated", state])
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for id in &self.nodes {
            // By itself: a space lives on while connections in it have not come to their end.
            ip(&["link", "del", &self.cable(*id)]).ok();
            ip(&["netns", "del", &self.space(*id)]).ok();
        }
        ip(&["link", "del", &self.bridge()]).ok();
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run_ok(command, b"", LIMIT).map(drop)
}
