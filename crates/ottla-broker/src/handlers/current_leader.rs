//! Whom a client should ask instead, told beside the error that it asked in vain (KIP-951).

use bytestring::ByteString;

use super::Context;
use crate::replicas::Replica;

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
    pub(super) fn of(context: &Context, replica: &Replica) -> Self {
        let id = context.broker.node_id;
        let image = context.broker.image();
        let endpoint = image.broker(id).filter(|broker| !broker.fenced).and_then(|broker| {
            let endpoint = broker.endpoint(context.endpoint_name())?;
            Some(Endpoint {
                node_id: id.0,
                host: (&*endpoint.host).into(),
                port: endpoint.port.into(),
                rack: broker.rack.as_deref().map(Into::into),
            })
        });
        Self { id: id.0, epoch: replica.leader_epoch().0, endpoint }
    }
}
