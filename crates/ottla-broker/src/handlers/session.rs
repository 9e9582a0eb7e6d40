//! A connection as handlers see it: who is at its other end, and who may have died once it breaks. Shell.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use ottla_base::BrokerId;
use ottla_metadata::controller::BrokerEpoch;
use ottla_quorum::SubmitError;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::listener::Listener;

/// What a connection's requests have in common.
#[derive(Debug)]
pub(crate) struct Session {
    pub listener: Arc<Listener>,
    pub(super) peer: IpAddr,
    pub(super) client_id: Option<ByteString>,
    /// The request comes from a broker that carries it for a client.
    pub(super) carried: Option<Arc<Carried>>,
    /// The voter that has spoken through this connection: when it breaks, that one may be gone.
    pub(super) voter: Option<BrokerId>,
    is_closed_by_us: bool,
    /// Of this connection alone.
    pub(super) id: u64,
}

/// A request that a broker carries here for a client.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Its answer is that this node is not the active controller, which is the broker's business.
    found_no_controller: AtomicBool,
}

impl Carried {
    pub(super) fn note_no_controller(&self) {
        self.found_no_controller.store(true, Ordering::Release);
    }

    pub(super) fn found_no_controller(&self) -> bool {
        self.found_no_controller.load(Ordering::Acquire)
    }
}

/// The connection that each broker's last heartbeat came through: only when that one breaks, its broker may be gone.
///
/// Only those count that the controller has accepted: anybody can send one in another's name. So there are as many entries as brokers
/// that are registered, and each goes with its connection.
#[derive(Debug, Default)]
pub(crate) struct HeartbeatConnections(Mutex<HashMap<BrokerId, (u64, BrokerEpoch)>>);

impl HeartbeatConnections {
    pub(super) fn note(&self, broker: BrokerId, epoch: BrokerEpoch, session: u64) {
        self.0.lock().insert(broker, (session, epoch));
    }

    /// Whether one was heard from since through a connection that is there.
    fn has(&self, broker: BrokerId) -> bool {
        self.0.lock().contains_key(&broker)
    }

    /// The brokers whose last heartbeats came through this connection, which has ended.
    fn ended(&self, session: u64) -> Vec<(BrokerId, BrokerEpoch)> {
        let its_own = |_: &BrokerId, (last, _): &mut (u64, BrokerEpoch)| *last == session;
        self.0.lock().extract_if(its_own).map(|(id, (_, epoch))| (id, epoch)).collect()
    }
}

static NEXT_SESSION: AtomicU64 = AtomicU64::new(0);

impl Session {
    #[must_use]
    pub(crate) fn new(listener: Arc<Listener>, peer: IpAddr) -> Self {
        Self {
            listener,
            peer,
            client_id: None,
            carried: None,
            voter: None,
            is_closed_by_us: false,
            id: NEXT_SESSION.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// For a request that a broker carries here for a client.
    #[must_use]
    pub(crate) fn forwarded(listener: &Listener, client: IpAddr) -> Self {
        let listener = Arc::new(listener.of_the_controller());
        Self { carried: Some(Arc::default()), ..Self::new(listener, client) }
    }

    /// The connection ends because this node has closed it, which says nothing about those who spoke through it: where
    /// nothing happens, voters have nothing to say about the log for hours.
    pub(crate) const fn closed_by_us(&mut self) {
        self.is_closed_by_us = true;
    }

    /// The connection has ended: those who spoke through it may have died.
    pub(crate) fn ended(&self, broker: &Arc<Broker>) {
        let (voter, heartbeats_of) =
            (self.voter, broker.state.heartbeat_connections.ended(self.id));
        if self.is_closed_by_us || (voter.is_none() && heartbeats_of.is_empty()) {
            return;
        }
        let broker = Arc::clone(broker);
        tokio::spawn(async move {
            for (id, epoch) in heartbeats_of {
                let broker = Arc::clone(&broker);
                tokio::spawn(async move {
                    let tell = || broker.quorum.connection_lost(id, epoch);
                    tell_of_loss(tell, || broker.state.heartbeat_connections.has(id)).await;
                });
            }
            if let Some(voter) = voter {
                broker.quorum.peer_lost(voter).await;
            }
        });
    }

    /// Copies the client id when it is another one: a slice would keep the request's whole frame.
    pub(super) fn remember(&mut self, client_id: Option<&str>) {
        if self.client_id.as_deref() != client_id {
            self.client_id = client_id.map(ByteString::from);
        }
    }

    /// The client id of the latest request, for the log.
    #[must_use]
    pub(crate) fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }
}

/// How long it is worth telling that a broker's connection has ended. Later, its silence tells as much.
const NEWS_LAST: Duration = Duration::from_secs(3);
const NEWS_PAUSE: Duration = Duration::from_millis(50);

/// A controller that hears too little of the other voters decides nothing for a moment, or is elected anew, and would give
/// a whole session to a broker that is gone.
async fn tell_of_loss<T: Future<Output = Result<(), SubmitError>>>(
    tell: impl Fn() -> T,
    is_back: impl Fn() -> bool,
) {
    let until = Instant::now() + NEWS_LAST;
    while let Err(SubmitError::NotController) = tell().await {
        tokio::time::sleep(NEWS_PAUSE).await;
        if Instant::now() > until || is_back() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// How often it is told that a connection has ended, if these are the answers, and the broker is back after so many.
    async fn told(answers: &[Result<(), SubmitError>], back_after: usize) -> usize {
        let (left, told) = (RefCell::new(answers.iter()), Cell::new(0));
        let tell = || {
            told.set(told.get() + 1);
            std::future::ready(*left.borrow_mut().next().unwrap())
        };
        tell_of_loss(tell, || told.get() >= back_after).await;
        told.get()
    }

    #[tokio::test]
    async fn the_news_that_a_connection_has_ended_is_told_again_while_nobody_decides() {
        let nobody = Err(SubmitError::NotController);
        let answers = [nobody, nobody, Ok(()), nobody];
        assert_eq!(told(&answers, usize::MAX).await, 3);
        assert_eq!(told(&answers, 1).await, 1, "it is back");
        assert_eq!(told(&answers[2..], usize::MAX).await, 1);
        assert_eq!(told(&[Err(SubmitError::Stopped)], usize::MAX).await, 1);
    }

    #[test]
    fn a_connection_ends_for_the_brokers_that_have_come_through_it_last_and_is_forgotten() {
        let connections = HeartbeatConnections::default();
        let [one, two, three] = [1, 2, 3].map(BrokerId);
        connections.note(one, BrokerEpoch(1), 7);
        connections.note(two, BrokerEpoch(2), 7);
        connections.note(three, BrokerEpoch(3), 7);
        // One broker has connected anew, another has restarted.
        connections.note(one, BrokerEpoch(1), 8);
        connections.note(two, BrokerEpoch(5), 7);
        let mut ended = connections.ended(7);
        ended.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!([one, two, three].map(|id| connections.has(id)), [true, false, false]);
        assert_eq!(ended, [(two, BrokerEpoch(5)), (three, BrokerEpoch(3))]);
        assert_eq!(connections.ended(7), []);
        assert_eq!(connections.ended(8), [(one, BrokerEpoch(1))]);
        assert!(connections.0.lock().is_empty());
    }
}
