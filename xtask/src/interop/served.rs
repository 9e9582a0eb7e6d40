//! Whom the tests of a session talk to: one broker, or three nodes that come and go together (shell).

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::broker::{Broker, Target};
#[cfg(feature = "cluster")]
use crate::cluster::nodes::Cluster;

pub(super) enum Served {
    One(Broker),
    #[cfg(feature = "cluster")]
    Three(Cluster),
}

impl Served {
    pub(super) fn target(&self) -> Target {
        match self {
            Self::One(broker) => broker.target(),
            #[cfg(feature = "cluster")]
            Self::Three(cluster) => cluster.target(),
        }
    }

    pub(super) fn is_one(&self) -> bool {
        matches!(self, Self::One(_))
    }

    /// Where clients begin: the broker, or the first of the nodes, which tells them of the others.
    pub(super) fn address(&self) -> String {
        match self {
            Self::One(broker) => broker.address().to_owned(),
            #[cfg(feature = "cluster")]
            Self::Three(cluster) => cluster.addresses().into_iter().next().unwrap_or_default(),
        }
    }

    /// All nodes, where there are several.
    pub(super) fn nodes(&self) -> Vec<String> {
        match self {
            Self::One(_) => Vec::new(),
            #[cfg(feature = "cluster")]
            Self::Three(cluster) => cluster.addresses(),
        }
    }

    /// All of it.
    pub(super) fn is_running(&mut self) -> bool {
        match self {
            Self::One(broker) => broker.is_running(),
            #[cfg(feature = "cluster")]
            Self::Three(cluster) => cluster.is_running(),
        }
    }

    /// SIGKILL, to all nodes.
    pub(super) fn kill9(&mut self) -> Result<()> {
        match self {
            Self::One(broker) => broker.kill9(),
            #[cfg(feature = "cluster")]
            Self::Three(cluster) => cluster.ids().into_iter().try_for_each(|id| cluster.kill9(id)),
        }
    }

    /// Starts what is away, on the same directories and ports, and waits until all of it is there.
    pub(super) fn restart(&mut self) -> Result<()> {
        match self {
            Self::One(broker) => broker.restart(),
            #[cfg(feature = "cluster")]
            Self::Three(cluster) => {
                cluster.away().into_iter().try_for_each(|id| cluster.restart(id))?;
                cluster.await_led()
            }
        }
    }

    /// SIGTERM; only one broker stops like this.
    pub(super) fn stop(&mut self) -> Result<()> {
        match self {
            Self::One(broker) => broker.stop(),
            #[cfg(feature = "cluster")]
            Self::Three(_) => {
                bail!("three nodes do not stop together: the last has nobody to take over")
            }
        }
    }

    /// The log directory of the one broker.
    pub(super) fn data_directory(&self) -> Result<PathBuf> {
        match self {
            Self::One(broker) => Ok(broker.data_directory()),
            #[cfg(feature = "cluster")]
            Self::Three(_) => bail!("three nodes have a directory each"),
        }
    }

    /// The end of what it has written.
    pub(super) fn last_lines(&self) -> String {
        match self {
            Self::One(broker) => crate::process::tail(&broker.log(), 30),
            #[cfg(feature = "cluster")]
            Self::Three(cluster) => cluster.failure("").to_string(),
        }
    }
}
