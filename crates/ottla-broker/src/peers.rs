//! Connections to the other nodes of the cluster: opened when first needed, and again when one has failed. Shell.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::BrokerId;
use ottla_client::{Address, ClientError, Connection, Pool, Speaker};
use ottla_metadata::Endpoint;
use ottla_protocol::peer::PeerKey;
use ottla_quorum::{Lane, Quorum};

/// What a connection is for. A node answers the requests of one connection in turn, so that what must not wait for each
/// other has connections of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// The metadata log among its voters and observers.
    Quorum,
    /// Who leads them: what would depose a healthy leader if it waited for a disk.
    Leadership,
    /// Registration and heartbeats, which tell the controller that this broker lives.
    Heartbeats,
    /// Proposals of ISRs, of which one is on its way at a time.
    IsrChanges,
    /// What else this broker asks of the controller.
    Controller,
    /// What clients ask of the controller through this broker.
    Forwarding,
    /// How far this broker has the partitions of a leader on disk.
    Flushed,
    /// What other brokers know of the leaders here, while the controller does not answer.
    Hearsay,
}

/// How long it may take to connect, the exchange of versions included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The connections of this node, one for each address and purpose.
#[derive(Debug)]
pub(crate) struct Peers {
    client_id: Arc<str>,
    pool: Pool<(Purpose, Address)>,
}

impl Peers {
    pub(crate) fn new(node_id: BrokerId) -> Self {
        Self { client_id: format!("ottla-node-{node_id}").into(), pool: Pool::of(Speaker::Node) }
    }

    /// A connection that has not failed yet.
    ///
    /// # Errors
    /// When nobody answers there.
    pub(crate) async fn connection(
        &self,
        purpose: Purpose,
        address: &Address,
    ) -> Result<Arc<Connection>, ClientError> {
        let key = (purpose, address.clone());
        self.pool.connection(key, address, &self.client_id, CONNECT_TIMEOUT).await
    }

    /// Until the connection of this purpose breaks; for ever if there is none.
    pub(crate) async fn broken(&self, purpose: Purpose, address: &Address) {
        match self.pool.standing((purpose, address.clone())).await {
            Some(connection) => connection.broken().await,
            None => std::future::pending().await,
        }
    }

    /// A connection that nobody else uses.
    ///
    /// # Errors
    /// When nobody answers there.
    pub(crate) async fn open(&self, address: &Address) -> Result<Connection, ClientError> {
        Connection::open(address, Arc::clone(&self.client_id), Speaker::Node, CONNECT_TIMEOUT).await
    }
}

/// Carries the quorum's messages among its voters.
#[derive(Debug)]
pub(crate) struct QuorumTransport {
    peers: Arc<Peers>,
}

impl QuorumTransport {
    pub(crate) const fn new(peers: Arc<Peers>) -> Self {
        Self { peers }
    }
}

/// `controller.quorum.request.timeout.ms`
const QUORUM_TIMEOUT: Duration = Duration::from_secs(2);

impl ottla_quorum::Transport for QuorumTransport {
    fn call(
        &self,
        _to: BrokerId,
        endpoints: &[Endpoint],
        lane: Lane,
        request: Bytes,
    ) -> ottla_quorum::Called {
        let purpose = match lane {
            Lane::Leadership => Purpose::Leadership,
            Lane::Log => Purpose::Quorum,
        };
        let address = endpoints.first().map(address_of);
        let peers = Arc::clone(&self.peers);
        Box::pin(async move {
            let address = address.ok_or(io::ErrorKind::AddrNotAvailable)?;
            let exchange = async {
                let connection = peers.connection(purpose, &address).await?;
                connection.ask_peer(PeerKey::Quorum, request, QUORUM_TIMEOUT).await
            };
            exchange.await.map_err(io::Error::other)
        })
    }
}

/// Where an endpoint of the metadata is.
pub(crate) fn address_of(endpoint: &Endpoint) -> Address {
    Address { host: endpoint.host.to_string(), port: endpoint.port }
}

/// Why another broker can't be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("broker {0} is not registered")]
    Unknown(BrokerId),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Where other brokers are, by the newest metadata.
#[derive(Debug)]
pub(crate) struct BrokerAddresses {
    peers: Arc<Peers>,
    quorum: Arc<Quorum>,
    /// `inter.broker.listener.name`
    listener: String,
    runtime: tokio::runtime::Handle,
}

impl BrokerAddresses {
    /// Remembers the runtime that it is called on.
    pub(crate) fn new(peers: Arc<Peers>, quorum: Arc<Quorum>, listener: String) -> Self {
        Self { peers, quorum, listener, runtime: tokio::runtime::Handle::current() }
    }

    /// Starts a task, from any thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    fn address(&self, broker: BrokerId) -> Result<Address, PeerError> {
        let image = self.quorum.image();
        let endpoint = image.broker(broker).and_then(|it| it.endpoint(&self.listener));
        endpoint.map(address_of).ok_or(PeerError::Unknown(broker))
    }

    /// A connection to a broker.
    ///
    /// # Errors
    /// When it is not known, or not there.
    pub(crate) async fn connection(
        &self,
        purpose: Purpose,
        broker: BrokerId,
    ) -> Result<Arc<Connection>, PeerError> {
        Ok(self.peers.connection(purpose, &self.address(broker)?).await?)
    }

    /// A connection to a broker that nobody else uses.
    ///
    /// # Errors
    /// When it is not known, or not there.
    pub(crate) async fn open(&self, broker: BrokerId) -> Result<Connection, PeerError> {
        Ok(self.peers.open(&self.address(broker)?).await?)
    }
}
