//! Whom a client should ask instead, told beside the error that it asked in vain (KIP-951).

use std::sync::Arc;

use bytestring::ByteString;
use ottla_base::{PartitionIndex, TopicId};
use ottla_metadata::Image;
use ottla_protocol::messages::{fetch_response, produce_response};

use super::Context;

/// The leaders that an answer names, and where they are reached.
pub(super) struct Leaders<'a> {
    /// The endpoints are those of the listener that the client came by.
    context: &'a Context,
    image: Arc<Image>,
    endpoints: Vec<Endpoint>,
}

/// The leader of a partition as this broker knows it.
pub(super) struct CurrentLeader {
    id: i32,
    epoch: i32,
}

/// A broker's address, in the fields that Produce and Fetch answer with.
pub(super) struct Endpoint {
    node_id: i32,
    host: ByteString,
    port: i32,
    rack: Option<ByteString>,
}

impl<'a> Leaders<'a> {
    pub(super) fn known_to(context: &'a Context) -> Self {
        Self { context, image: context.broker.image(), endpoints: Vec::new() }
    }

    /// Who leads a partition, whose topic is named by its id or, where that is zero, by its name.
    pub(super) fn of(
        &mut self,
        (topic_id, topic): (TopicId, &str),
        partition: i32,
    ) -> Option<CurrentLeader> {
        let topic = match topic_id {
            TopicId::ZERO => self.image.topic_by_name(topic),
            id => self.image.topic(id),
        };
        let (topic, index) = (topic?, partition);
        let partition = topic.partition(PartitionIndex(index))?;
        // A replica here hears of another leader before everybody sees it.
        let replica = self.context.broker.replicas.find(topic.id, index);
        let news = replica.map(|replica| replica.leader());
        let (leader, epoch) = news
            .filter(|(_, epoch)| *epoch > partition.leader_epoch)
            .unwrap_or((partition.leader, partition.leader_epoch));
        let id = leader.0;
        if !self.endpoints.iter().any(|it| it.node_id == id) {
            let broker = self.image.broker(leader).filter(|broker| !broker.fenced);
            self.endpoints.extend(broker.and_then(|broker| {
                let endpoint = broker.endpoint(self.context.endpoint_name())?;
                Some(Endpoint {
                    node_id: id,
                    host: (&*endpoint.host).into(),
                    port: endpoint.port.into(),
                    rack: broker.rack.as_deref().map(Into::into),
                })
            }));
        }
        Some(CurrentLeader { id, epoch: epoch.0 })
    }

    /// Where those are that were asked for, each once.
    pub(super) fn endpoints<E: From<Endpoint>>(self) -> Vec<E> {
        self.endpoints.into_iter().map(E::from).collect()
    }
}

impl From<CurrentLeader> for produce_response::LeaderIdAndEpoch {
    fn from(CurrentLeader { id, epoch }: CurrentLeader) -> Self {
        Self { leader_id: id, leader_epoch: epoch }
    }
}

impl From<CurrentLeader> for fetch_response::LeaderIdAndEpoch {
    fn from(CurrentLeader { id, epoch }: CurrentLeader) -> Self {
        Self { leader_id: id, leader_epoch: epoch }
    }
}

impl From<Endpoint> for produce_response::NodeEndpoint {
    fn from(Endpoint { node_id, host, port, rack }: Endpoint) -> Self {
        Self { node_id, host, port, rack }
    }
}

impl From<Endpoint> for fetch_response::NodeEndpoint {
    fn from(Endpoint { node_id, host, port, rack }: Endpoint) -> Self {
        Self { node_id, host, port, rack }
    }
}
