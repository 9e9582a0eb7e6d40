//! Whom a client should ask instead, told beside the error that it asked in vain (KIP-951).

use bytestring::ByteString;
use ottla_base::{PartitionIndex, TopicId};
use ottla_metadata::Image;

use super::Context;

/// The leader of a partition as this broker knows it.
pub(super) struct CurrentLeader {
    pub id: i32,
    pub epoch: i32,
    /// Where it is reached through the listener that the client came by.
    pub endpoint: Option<Endpoint>,
}

/// A broker's address, in the fields that Produce and Fetch answer with.
pub(super) struct Endpoint {
    pub node_id: i32,
    pub host: ByteString,
    pub port: i32,
    pub rack: Option<ByteString>,
}

impl CurrentLeader {
    /// Of a partition whose topic is named by its id or, where that is zero, by its name.
    pub(super) fn of(
        context: &Context,
        image: &Image,
        (topic_id, topic): (TopicId, &str),
        partition: i32,
    ) -> Option<Self> {
        let topic = match topic_id {
            TopicId::ZERO => image.topic_by_name(topic),
            id => image.topic(id),
        };
        let partition = topic?.partition(PartitionIndex(partition))?;
        let broker = image.broker(partition.leader).filter(|broker| !broker.fenced);
        let endpoint = broker.and_then(|broker| {
            let endpoint = broker.endpoint(context.endpoint_name())?;
            Some(Endpoint {
                node_id: broker.id.0,
                host: (&*endpoint.host).into(),
                port: endpoint.port.into(),
                rack: broker.rack.as_deref().map(Into::into),
            })
        });
        Some(Self { id: partition.leader.0, epoch: partition.leader_epoch.0, endpoint })
    }
}
