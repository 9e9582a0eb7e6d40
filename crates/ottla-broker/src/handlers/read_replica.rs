//! Whom a consumer should read from instead of the leader: a follower in its own rack (KIP-392).

use std::sync::Arc;

use bytestring::ByteString;
use ottla_base::{BrokerId, Offset};
use ottla_config::ReplicaSelector;
use ottla_metadata::Image;

use super::Context;
use crate::replica::Replica;

/// A consumer that says which rack it is in, of a broker that heeds it (`replica.selector.class`).
pub(super) struct NearbyReader {
    rack: ByteString,
    image: Arc<Image>,
    /// What the consumer has come by: it can only go where there is such a one.
    listener: ByteString,
}

impl NearbyReader {
    /// `None` where it makes no difference which rack the consumer is in.
    pub(super) fn of(context: &Context, rack: &ByteString) -> Option<Self> {
        let heeds_racks = match context.broker.settings.replica_selector {
            ReplicaSelector::Leader => false,
            ReplicaSelector::RackAware => !rack.is_empty(),
        };
        heeds_racks.then(|| Self {
            rack: rack.clone(),
            image: context.broker.image(),
            listener: context.endpoint_name().into(),
        })
    }

    /// The follower to go to, if this broker leads and one is nearer.
    pub(super) fn preferred(&self, replica: &Replica, offset: Offset) -> Option<BrokerId> {
        replica.nearest_follower(&self.rack, offset, |id| {
            let broker = self.image.broker(id).filter(|broker| !broker.fenced)?;
            broker.endpoint(&self.listener)?;
            broker.rack.as_deref()
        })
    }
}
