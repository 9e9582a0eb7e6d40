//! A node: opens the data, starts the controller and the broker, listens, and stops in the opposite order.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ottla_base::{BrokerId, Uuid};
use ottla_config::{BrokerConfig, Listener as ListenerConfig, Settings as ConfigSettings};
use ottla_env::{Clock, SystemClock};
use ottla_log::{DirectoryOptions, LogDirectory};
use ottla_quorum::Quorum;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::broker::{Broker, Settings};
use crate::http;
use crate::listener::{Listener, Role, accept};
use crate::replicas::Replicas;
use crate::topic_config;
use crate::topics::Topics;

/// What a node is started with.
#[derive(Debug)]
pub struct NodeOptions {
    /// The formatted data directory.
    pub directory: PathBuf,
    pub cluster_id: String,
    pub directory_id: Uuid,
    pub config: BrokerConfig,
    /// What was set and where: the controller shows it in answers.
    pub settings: ConfigSettings,
}

/// A listener's name and where it is bound, shown as `PLAINTEXT://127.0.0.1:9092`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub name: String,
    pub socket: SocketAddr,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.socket)
    }
}
