//! What the active controller knows of the brokers' signs of life, and what follows from them. Pure.
//!
//! Not in the log: whoever becomes the active controller begins with [`Liveness::new`], which gives every broker that
//! may lead a whole session to report in. The methods change this state as if their records were sure to be
//! committed; where a proposal fails, all of it is dropped with the leadership.
//!
//! Every broker that was heard from has a session, be it fenced or not; it ends `broker.session.timeout.ms` after the last
//! heartbeat, or with the answer that it may end. Then it is fenced, and meanwhile no other process gets its id. Kafka stops there, and takes nine seconds to notice that a process was killed. A killed process
//! closes its connections at once, so here a cut connection shortens the session to [`RECONNECT_GRACE`].
//!
//! Invariants:
//! - an unfenced broker has a session, but for the one in the active controller's own process, which has none ever
//! - `shutdown_offset` is set only while its broker is unfenced

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use ottla_base::{BrokerId, ErrorCode, Offset};
use ottla_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
};

use super::brokers::{BrokerEpoch, check_cluster, check_epoch, register_broker};
use super::directories::{cordon, take_offline};
use super::draft::Draft;
use super::fencing::{begin_shutdown, fence, partitions, unfence};
use super::{Outcome, Policy, Rejection};
use crate::image::{Broker, Image};

/// How long a broker whose connection was cut has to come back. Connecting anew on a network that works takes a few
/// milliseconds, so a broker that lives makes it many times over, also when it is told of another controller first.
/// A killed broker's partitions have another leader after this time, well below a second.
pub const RECONNECT_GRACE: Duration = Duration::from_millis(300);

/// What is decided with about brokers.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The cluster with every record that was appended so far, committed or not.
    pub image: &'a Image,
    pub policy: &'a Policy,
    /// The offset that the first record of the decision will have; where it gets another one, [`Liveness::on_shifted`] is to
    /// be told.
    pub next_offset: Offset,
    /// Since some moment that stays the same while this controller is active: never set back.
    pub now: Duration,
}

/// The brokers' sessions, while this node is the active controller.
#[derive(Debug)]
pub struct Liveness {
    brokers: BTreeMap<BrokerId, Presence>,
}

/// What is known of one registration.
#[derive(Debug)]
struct Presence {
    /// Of the registration that this is about.
    epoch: i64,
    /// When the broker is taken for dead, and fenced, unless it reports in before.
    expires_at: Option<Duration>,
    /// How far it has followed the metadata; −1 until it says so to this controller.
    metadata_offset: Offset,
    /// How far it must follow the metadata to know of its own registration.
    registered_at: Offset,
    /// A broker that shuts down may go once all others know, at this offset, that it leads nothing.
    shutdown_offset: Option<Offset>,
}

impl Presence {
    /// The epoch of a registration is the offset of the record that began it.
    const fn of(epoch: i64) -> Self {
        Self {
            epoch,
            expires_at: None,
            metadata_offset: Offset(-1),
            registered_at: Offset(epoch),
            shutdown_offset: None,
        }
    }
}

/// Where a broker stands with the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Fenced,
    Unfenced,
    ShuttingDown,
    /// Fenced, and told to end.
    Dismissed,
}

impl Standing {
    const fn is_fenced(self) -> bool {
        matches!(self, Self::Fenced | Self::Dismissed)
    }
}

impl Liveness {
    /// A controller that has just become active has heard from nobody, and so holds nobody's silence against them.
    #[must_use]
    pub fn new(image: &Image, policy: &Policy, now: Duration) -> Self {
        let session = |broker: &Broker| {
            let expires_at = (!broker.fenced).then(|| session_end(policy, broker.id, now));
            let expires_at = expires_at.flatten();
            (broker.id, Presence { expires_at, ..Presence::of(broker.epoch) })
        };
        Self { brokers: image.brokers().map(session).collect() }
    }

    /// Registers a broker, fenced. Its session begins with its first heartbeat.
    ///
    /// # Errors
    /// DUPLICATE_BROKER_REGISTRATION while another process under the same id has a session, and whatever speaks
    /// against the registration itself.
    pub fn on_registration(
        &mut self,
        situation: Situation<'_>,
        request: &BrokerRegistrationRequest,
    ) -> Result<Outcome<BrokerEpoch>, Rejection> {
        let Situation { image, policy, next_offset, now } = situation;
        check_cluster(image, &request.cluster_id)?;
        let id = BrokerId(request.broker_id);
        let existing = image.broker(id);
        let is_amended = existing.is_some_and(|it| it.incarnation_id == request.incarnation_id);
        // Whoever has this controller's own id is this process: the one before it cannot be there any more.
        if !is_amended && !policy.is_own_broker(id) && self.has_session(image, id, now) {
            return Err(Rejection::new(
                ErrorCode::DUPLICATE_BROKER_REGISTRATION,
                format!("Another process is registered as broker {id}, and was heard from lately"),
            ));
        }
        let outcome = register_broker(image, policy, request, next_offset.0)?;
        let BrokerEpoch(epoch) = outcome.reply;
        // The registration is the first record.
        match self.brokers.get_mut(&id).filter(|presence| presence.epoch == epoch) {
            Some(presence) => presence.registered_at = next_offset,
            None => {
                self.brokers.insert(id, Presence::of(epoch));
            }
        }
        Ok(outcome)
    }

    /// Whether a broker was heard from recently enough to be taken for alive. One that is fenced has no less of a process: two
    /// under one id would take the registration from each other for as long as both start.
    fn has_session(&self, image: &Image, id: BrokerId, now: Duration) -> bool {
        let Some(broker) = image.broker(id) else { return false };
        let presence = self.brokers.get(&id).filter(|it| it.epoch == broker.epoch);
        presence.and_then(|it| it.expires_at).is_some_and(|expires_at| now < expires_at)
    }

    /// A broker says that it is there, and what it wants.
    ///
    /// # Errors
    /// STALE_BROKER_EPOCH
    pub fn on_heartbeat(
        &mut self,
        situation: Situation<'_>,
        request: &BrokerHeartbeatRequest,
    ) -> Result<Outcome<BrokerHeartbeatResponse>, Rejection> {
        let Situation { image, policy, next_offset, now } = situation;
        let id = BrokerId(request.broker_id);
        let broker = check_epoch(image, id, request.broker_epoch)?;
        let was_shutting_down = self.presence(broker).shutdown_offset.is_some();
        let standing = self.next_standing(situation, broker, request);

        let mut draft = Draft::on(image);
        match standing {
            Standing::Unfenced => unfence(&mut draft, policy, id),
            Standing::ShuttingDown if was_shutting_down => {}
            Standing::ShuttingDown => begin_shutdown(&mut draft, policy, id),
            // Of what a fenced broker was in, it has been taken out already.
            Standing::Fenced | Standing::Dismissed if broker.fenced => {}
            Standing::Fenced | Standing::Dismissed => fence(&mut draft, policy, &[id]),
        }
        take_offline(&mut draft, policy, id, &request.offline_log_dirs);
        cordon(&mut draft, id, request.cordoned_log_dirs.as_deref());

        let presence = self.presence(broker);
        presence.metadata_offset = Offset(request.current_metadata_offset);
        let is_dismissed = standing == Standing::Dismissed;
        presence.expires_at = session_end(policy, id, now).filter(|_| !is_dismissed);
        presence.shutdown_offset = (standing == Standing::ShuttingDown).then(|| {
            let last = next_offset + count(draft.records.len()) + -1;
            presence.shutdown_offset.unwrap_or(last)
        });
        let reply = BrokerHeartbeatResponse {
            is_caught_up: presence.registered_at <= presence.metadata_offset,
            is_fenced: standing.is_fenced(),
            should_shut_down: is_dismissed,
            ..Default::default()
        };
        Ok(Outcome { records: draft.records, reply })
    }

    /// The state of the broker's present registration.
    fn presence(&mut self, broker: &Broker) -> &mut Presence {
        let presence = self.brokers.entry(broker.id).or_insert_with(|| Presence::of(broker.epoch));
        if presence.epoch != broker.epoch {
            *presence = Presence::of(broker.epoch);
        }
        presence
    }

    fn next_standing(
        &mut self,
        situation: Situation<'_>,
        broker: &Broker,
        request: &BrokerHeartbeatRequest,
    ) -> Standing {
        let Situation { image, policy, .. } = situation;
        let BrokerHeartbeatRequest { want_fence, want_shut_down, .. } = *request;
        let presence = self.presence(broker);
        if broker.fenced {
            let is_caught_up = presence.registered_at.0 <= request.current_metadata_offset;
            return match (want_shut_down, want_fence) {
                (true, _) => Standing::Dismissed,
                (false, false) if is_caught_up => Standing::Unfenced,
                (false, _) => Standing::Fenced,
            };
        }
        if let Some(shutdown_offset) = presence.shutdown_offset {
            let others_know = shutdown_offset <= self.lowest_active_offset(image, policy);
            let may_go = others_know && !leads(image, broker.id);
            return if may_go { Standing::Dismissed } else { Standing::ShuttingDown };
        }
        match (want_shut_down, want_fence) {
            (true, true) => Standing::Dismissed,
            (false, true) => Standing::Fenced,
            (true, false) if leads(image, broker.id) => Standing::ShuttingDown,
            (true, false) => Standing::Dismissed,
            (false, false) => Standing::Unfenced,
        }
    }

    /// What all brokers know that may lead. The one in this controller's own process sends no heartbeats that would say
    /// so, and knows what is committed before anybody else.
    fn lowest_active_offset(&self, image: &Image, policy: &Policy) -> Offset {
        let offset = |broker: &Broker| {
            let presence = self.brokers.get(&broker.id).filter(|it| it.epoch == broker.epoch);
            presence.map_or(Offset(-1), |presence| presence.metadata_offset)
        };
        let others = image.brokers().filter(|it| it.is_active() && !policy.is_own_broker(it.id));
        others.map(offset).min().unwrap_or(Offset(i64::MAX))
    }

    /// The connection on which this registration's last heartbeat came was closed by the other side, or cut. The
    /// broker has [`RECONNECT_GRACE`] at most to be heard from again; a heartbeat restores its whole session.
    ///
    /// Also right for the broker of the process that led the quorum before: an election was necessary mostly because
    /// that process is gone, and if not, its broker learns at once where its heartbeats must go.
    pub fn on_connection_lost(&mut self, id: BrokerId, epoch: BrokerEpoch, now: Duration) {
        let presence = self.brokers.get_mut(&id).filter(|presence| presence.epoch == epoch.0);
        if let Some(expires_at) = presence.and_then(|presence| presence.expires_at.as_mut()) {
            *expires_at = (now + RECONNECT_GRACE).min(*expires_at);
        }
    }

    /// The records that were to be at these offsets are `by` further on in the log: what is no decision of this controller's
    /// was appended before them. Whoever waits for them to be known waits for them where they are.
    pub fn on_shifted(&mut self, expected: &Range<Offset>, by: i64) {
        for presence in self.brokers.values_mut() {
            let awaited = [Some(&mut presence.registered_at), presence.shutdown_offset.as_mut()];
            let awaited = awaited.into_iter().flatten().filter(|it| expected.contains(it));
            awaited.for_each(|offset| *offset = *offset + by);
        }
    }

    /// When [`Liveness::on_deadline`] is to be called; requests that arrived before it come first.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.brokers.values().filter_map(|presence| presence.expires_at).min()
    }

    /// Fences who has been silent for too long; the reply names them.
    pub fn on_deadline(&mut self, situation: Situation<'_>) -> Outcome<Vec<BrokerId>> {
        let Situation { image, policy, now, .. } = situation;
        let mut silent = Vec::new();
        for (id, presence) in &mut self.brokers {
            if presence.expires_at.is_none_or(|expires_at| now < expires_at) {
                continue;
            }
            presence.expires_at = None;
            presence.shutdown_offset = None;
            let is_meant = |broker: &Broker| broker.epoch == presence.epoch && !broker.fenced;
            if image.broker(*id).is_some_and(is_meant) {
                silent.push(*id);
            }
        }
        let mut draft = Draft::on(image);
        fence(&mut draft, policy, &silent);
        Outcome { records: draft.records, reply: silent }
    }
}

/// When a broker that was heard from now is taken for dead. The one in the active controller's own process lives as long
/// as this state does, and need not say so: a lone node sends no heartbeats.
fn session_end(policy: &Policy, id: BrokerId, now: Duration) -> Option<Duration> {
    (!policy.is_own_broker(id)).then(|| now + policy.broker_session_timeout)
}

fn leads(image: &Image, id: BrokerId) -> bool {
    partitions(image).any(|(_, _, partition)| partition.leader == id)
}

fn count(records: usize) -> i64 {
    i64::try_from(records).expect("fewer records than bytes of memory")
}

#[cfg(test)]
mod tests;
