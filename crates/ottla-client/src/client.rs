//! A client of a whole cluster: finds its brokers, and brings each request to the one that serves it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode};
use ottla_protocol::messages::MetadataRequest;
use ottla_protocol::messages::metadata_request::MetadataRequestTopic;
use ottla_protocol::{ApiKey, Request};

use crate::address::Address;
use crate::connection::{Connection, Limits};
use crate::error::ClientError;
use crate::metadata::{Metadata, Topic, TopicErrors};
use crate::pool::Pool;
use crate::retry::Patience;
use crate::versions::BrokerVersions;

/// Topic ids came with this version of Metadata; without them, requests name topics instead.
const METADATA_WITHOUT_TOPIC_IDS: i16 = 9;

#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The name under which brokers log and meter this client.
    pub client_id: String,
    /// How long opening a connection may take, the exchange of versions included.
    pub connect_timeout: Duration,
    /// How long a broker may take to answer one request.
    pub request_timeout: Duration,
    /// How long an operation may take with all of its attempts.
    pub timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            client_id: "ottla".to_owned(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            timeout: Duration::from_secs(60),
        }
    }
}

/// A cheap handle; all clones share connections and metadata.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: ClientOptions,
    client_id: Arc<str>,
    bootstrap: Vec<Address>,
    connections: Pool<Address>,
    metadata: Mutex<Arc<Metadata>>,
}

/// Which broker a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Any,
    /// The active controller, or with KRaft a broker that forwards to it.
    Controller,
    Broker(BrokerId),
}

/// Which topics to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicFilter<'a> {
    All,
    None,
    Named(&'a [&'a str]),
    /// As a producer asks: a topic that is not there is created, where the cluster's configuration allows it.
    OrCreate(&'a [&'a str]),
}

impl Client {
    /// Connects to the first of the addresses that answers, and learns the cluster's brokers from it.
    ///
    /// # Errors
    /// [`ClientError::Address`] for what is no address, [`ClientError::Unreachable`] where no broker is at any, or what
    /// has kept the first that is from answering.
    pub async fn connect(
        bootstrap: &[impl AsRef<str>],
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        let bootstrap = bootstrap
            .iter()
            .map(|address| address.as_ref().parse())
            .collect::<Result<Vec<Address>, _>>()?;
        let client = Self {
            shared: Arc::new(Shared {
                client_id: options.client_id.as_str().into(),
                options,
                bootstrap,
                connections: Pool::default(),
                metadata: Mutex::default(),
            }),
        };
        client.refresh(TopicFilter::None).await?;
        Ok(client)
    }

    /// A client of the same cluster with connections of its own: a broker that answers a connection's
    /// requests one after another would hold them up behind one that waits on purpose.
    #[must_use]
    pub(crate) fn with_own_connections(&self) -> Self {
        Self {
            shared: Arc::new(Shared {
                options: self.shared.options.clone(),
                client_id: Arc::clone(&self.shared.client_id),
                bootstrap: self.shared.bootstrap.clone(),
                connections: Pool::default(),
                metadata: Mutex::new(self.metadata()),
            }),
        }
    }

    #[must_use]
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    /// What was last learned of the cluster.
    #[must_use]
    pub fn metadata(&self) -> Arc<Metadata> {
        Arc::clone(&self.shared.metadata.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks a broker for the cluster's brokers and the given topics. Topics that do not exist are
    /// missing from [`Client::metadata`] afterwards; that is no error.
    ///
    /// # Errors
    /// When no broker answers in time, or it refuses: what was known stays.
    pub async fn refresh(&self, topics: TopicFilter<'_>) -> Result<(), ClientError> {
        self.refresh_reporting(topics).await.map(|_| ())
    }

    pub(crate) async fn refresh_reporting(
        &self,
        topics: TopicFilter<'_>,
    ) -> Result<TopicErrors, ClientError> {
        let (all, names, create) = match topics {
            TopicFilter::All => (true, None, false),
            TopicFilter::None => (false, Some(&[][..]), false),
            TopicFilter::Named(names) => (false, Some(names), false),
            TopicFilter::OrCreate(names) => (false, Some(names), true),
        };
        let topic = |name: &&str| MetadataRequestTopic {
            name: Some((*name).into()),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: names.map(|names| names.iter().map(topic).collect()),
            allow_auto_topic_creation: create,
            ..MetadataRequest::default()
        };
        let response = self.send(Target::Any, &request).await?;
        if response.error_code != ErrorCode::NONE {
            return Err(ClientError::refused("asking for metadata", response.error_code));
        }
        let mut metadata = self.shared.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::make_mut(&mut metadata).apply(response, all))
    }

    /// One topic as it is now. Waits out the moment in which its partitions have no leaders yet.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTopic`]; [`ClientError::Refused`] where it has no leaders by the client's timeout; at once,
    /// what has kept a broker from being asked.
    pub async fn topic(&self, name: &str) -> Result<Topic, ClientError> {
        self.find_topic(name, TopicFilter::Named(&[name]), Duration::ZERO).await
    }

    /// One topic as it is now, created first when the cluster creates topics on demand.
    ///
    /// # Errors
    /// As [`Client::topic`]; [`ClientError::NoSuchTopic`] where nobody has created it within three seconds.
    pub async fn topic_or_create(&self, name: &str) -> Result<Topic, ClientError> {
        // The answer does not tell "being created" from "there is none": only time does.
        const CREATION_MAX: Duration = Duration::from_secs(3);
        self.find_topic(name, TopicFilter::OrCreate(&[name]), CREATION_MAX).await
    }

    async fn find_topic(
        &self,
        name: &str,
        filter: TopicFilter<'_>,
        appears_within: Duration,
    ) -> Result<Topic, ClientError> {
        let mut patience = Patience::new(self.shared.options.timeout);
        let mut appearance = Patience::new(appears_within.min(self.shared.options.timeout));
        loop {
            let errors = self.refresh_reporting(filter).await?;
            if let Some(topic) = self.metadata().topics.get(name) {
                return Ok(topic.clone());
            }
            let code = errors.get(name).copied().unwrap_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            if code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
                if !appearance.pause().await {
                    return Err(ClientError::NoSuchTopic(name.into()));
                }
            } else if !code.is_retriable() || !patience.pause().await {
                return Err(ClientError::refused(format!("topic \"{name}\""), code));
            }
        }
    }

    /// Sends one request to one broker, in the highest version that both sides speak. No second attempt.
    ///
    /// # Errors
    /// When the broker is not known or cannot be reached, serves no version of the request that this client speaks, or
    /// gives no answer in time. That it refuses is said in the response only.
    pub async fn send<R: Request>(
        &self,
        target: Target,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        self.send_within(target, request, self.shared.options.request_timeout).await
    }

    /// Like [`Client::send`], for requests that the broker may hold for long on purpose.
    pub(crate) async fn send_within<R: Request>(
        &self,
        target: Target,
        request: &R,
        time: Duration,
    ) -> Result<R::Response, ClientError> {
        let connection = self.connection(target).await?;
        connection.send(request, Self::limits::<R>(&connection, time)).await
    }

    /// Like [`Client::send`], in a version no higher than this one: where an old form of a request says the same.
    pub(crate) async fn send_at_most<R: Request>(
        &self,
        target: Target,
        request: &R,
        version_max: i16,
    ) -> Result<R::Response, ClientError> {
        let connection = self.connection(target).await?;
        let limits = Limits { time: self.shared.options.request_timeout, version_max };
        connection.send(request, limits).await
    }

    /// Sends a request that is not answered (Produce with acks=0); done when the socket has it.
    pub(crate) async fn send_unanswered<R: Request>(
        &self,
        target: Target,
        request: &R,
    ) -> Result<(), ClientError> {
        let connection = self.connection(target).await?;
        let limits = Self::limits::<R>(&connection, self.shared.options.request_timeout);
        connection.send_unanswered(request, limits).await
    }

    /// From some version on, these requests name a topic by its id alone: not before we can know it.
    fn limits<R: Request>(connection: &Connection, time: Duration) -> Limits {
        let metadata = connection.versions.apis.get(&ApiKey::Metadata.key());
        let knows_ids = metadata.is_some_and(|(_, highest)| *highest > METADATA_WITHOUT_TOPIC_IDS);
        let version_max = match R::KEY {
            ApiKey::Produce | ApiKey::Fetch if !knows_ids => 12,
            ApiKey::OffsetCommit if !knows_ids => 9,
            _ => i16::MAX,
        };
        Limits { time, version_max }
    }

    /// Does it again while it fails in a way that may pass, until the client's timeout.
    pub(crate) async fn persist<T, F>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let mut patience = Patience::new(self.shared.options.timeout);
        loop {
            match attempt().await {
                Err(error) if error.is_retriable() && patience.pause().await => {
                    // What went wrong may be that our picture of the cluster is old. If this
                    // fails, too, then the next attempt says so.
                    let _ = self.refresh(TopicFilter::None).await;
                }
                result => return result,
            }
        }
    }

    /// What a broker serves; connects to it if need be.
    ///
    /// # Errors
    /// When it is not known, or cannot be reached.
    pub async fn versions(&self, target: Target) -> Result<BrokerVersions, ClientError> {
        Ok(self.connection(target).await?.versions.clone())
    }

    /// Whether a broker knows this version of a request.
    pub(crate) async fn knows(
        &self,
        target: Target,
        api: ApiKey,
        version: i16,
    ) -> Result<bool, ClientError> {
        let connection = self.connection(target).await?;
        let served = connection.versions.apis.get(&api.key());
        Ok(served.is_some_and(|(_, highest)| version <= *highest))
    }

    async fn connection(&self, target: Target) -> Result<Arc<Connection>, ClientError> {
        let metadata = self.metadata();
        let broker = match target {
            Target::Any => None,
            Target::Controller => metadata.controller,
            Target::Broker(id) => Some(id),
        };
        match broker.and_then(|id| metadata.brokers.get(&id)) {
            Some(broker) => self.connection_to(&broker.address).await,
            None if matches!(target, Target::Broker(_)) => {
                Err(ClientError::refused("finding the broker", ErrorCode::BROKER_NOT_AVAILABLE))
            }
            None => self.any_connection(&metadata).await,
        }
    }

    /// An open connection if there is one, else the first broker that answers: those that the
    /// cluster named, then those that the user did.
    async fn any_connection(&self, metadata: &Metadata) -> Result<Arc<Connection>, ClientError> {
        if let Some(open) = self.shared.connections.any() {
            return Ok(open);
        }
        let mut attempts: Vec<(Address, String)> = Vec::new();
        for address in metadata.addresses().iter().chain(&self.shared.bootstrap) {
            if attempts.iter().any(|(tried, _)| tried == address) {
                continue;
            }
            match self.connection_to(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => attempts.push((address.clone(), reason(&error))),
            }
        }
        Err(ClientError::Unreachable(attempts))
    }

    async fn connection_to(&self, address: &Address) -> Result<Arc<Connection>, ClientError> {
        let (client_id, limit) = (&self.shared.client_id, self.shared.options.connect_timeout);
        self.shared.connections.connection(address.clone(), address, client_id, limit).await
    }
}

/// Why one of several brokers could not be used, without its address.
fn reason(error: &ClientError) -> String {
    match error {
        ClientError::Connection { source, .. } => source.to_string(),
        ClientError::TimedOut { after, .. } => format!("no answer within {after:?}"),
        other => other.to_string(),
    }
}
