//! This broker's life as the controller sees it: registered, fenced, serving, leaving (KIP-631). Shell.
//!
//! A heartbeat every `broker.heartbeat.interval.ms` keeps the broker's session. The active controller needs none from the
//! broker in its own process: where one dies, so does the other. So a single node sends none at all while it is idle.
//!
//! While no controller answers, others are asked who leads meanwhile ([`crate::hearsay`]).
//!
//! Invariant: the broker serves clients only after the controller has let it (unfenced), and that only after its own
//! metadata includes its registration.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use ottla_base::ErrorCode;
use ottla_client::{Address, ClientError};
use ottla_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
};
use ottla_quorum::Quorum;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::broker::Registration;
use crate::controller_channel::{ControllerChannel, Unanswered};
use crate::listener::stopped;
use crate::peers::Purpose;

/// How often a broker asks that waits for the controller to let it serve or leave.
const IMPATIENCE: Duration = Duration::from_millis(50);
/// How long a broker waits to be taken before it says what it waits for, as somebody may be watching.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long a leaving broker waits for others to take over; then it goes nevertheless.
const LEAVING_MAX: Duration = Duration::from_secs(30);
/// How often it is said that the controller takes no heartbeats, while it goes on.
const SAYING_PAUSE: Duration = Duration::from_secs(60);
/// How long it waits for a controller that answers: another one is elected sooner, if there is to be one. Where all nodes stop
/// at once, there is none.
const FORSAKEN_AFTER: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Intervals {
    /// `broker.heartbeat.interval.ms`
    pub heartbeat: Duration,
    /// `initial.broker.registration.timeout.ms`
    pub registration_max: Duration,
}

#[derive(Debug)]
pub(crate) struct Lifecycle {
    registration: Registration,
    channel: Arc<ControllerChannel>,
    quorum: Arc<Quorum>,
    intervals: Intervals,
    leaving: Notify,
    /// Whether the latest heartbeat was not answered by any controller.
    is_unheard: watch::Sender<bool>,
    /// What heartbeats are refused with, and when that was last said.
    refused: Mutex<Option<(ErrorCode, Instant)>>,
}

/// How this broker stands with the controller, by the last heartbeat that one has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Serving,
    Fenced,
    Refused,
}

impl Standing {
    fn of(response: &BrokerHeartbeatResponse) -> Self {
        match response {
            it if it.error_code.is_error() => Self::Refused,
            it if it.is_fenced => Self::Fenced,
            _ => Self::Serving,
        }
    }

    /// What is heard now, if that is worth a line: it was fenced, or serves again. That nobody answers for a while, as when
    /// the controller moves, changes nothing.
    fn note(&mut self, heard: Option<Self>) -> Option<Self> {
        let before = std::mem::replace(self, heard.unwrap_or(*self));
        match (before, heard) {
            (Self::Serving, Some(Self::Fenced))
            | (Self::Fenced | Self::Refused, Some(Self::Serving)) => heard,
            _ => None,
        }
    }
}

/// Whether a refusal is to be said: another one than before, or the same for a minute.
fn is_due(said: Option<(ErrorCode, Instant)>, code: ErrorCode, now: Instant) -> bool {
    said.is_none_or(|(before, at)| before != code || now.duration_since(at) >= SAYING_PAUSE)
}

/// How a broker has left.
#[derive(Debug)]
enum Left {
    TakenOver,
    Forsaken(String),
}

/// What a heartbeat says that this broker wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Serve,
    Leave,
}

/// Makes this broker known to the controller, fenced.
///
/// # Errors
/// When the controller does not take a broker like this, or no controller answers in time.
pub(crate) async fn register(
    channel: &ControllerChannel,
    request: BrokerRegistrationRequest,
    intervals: Intervals,
) -> anyhow::Result<Registration> {
    let id = ottla_base::BrokerId(request.broker_id);
    let (refuse, refused) = watch::channel(None);
    let work = async {
        loop {
            let response = channel.ask_until_answered(Purpose::Heartbeats, request.clone()).await;
            match response.error_code {
                ErrorCode::NONE => return Ok(response.broker_epoch),
                code if is_hopeless(code) => return Err(code),
                // The session of the process before this one has still to end, for example; or a node of another cluster
                // is where the controller was, and the one that leads by now is elsewhere.
                code => {
                    debug!(%code, "not registered yet");
                    refuse.send_replace(Some(code));
                }
            }
            tokio::time::sleep(intervals.heartbeat.min(Duration::from_millis(500))).await;
        }
    };
    let mut work = std::pin::pin!(tokio::time::timeout(intervals.registration_max, work));
    let taken = match tokio::time::timeout(SILENCE_MAX, work.as_mut()).await {
        Ok(taken) => taken,
        Err(_) => {
            info!("still waiting: {}", why_not_taken(&request, refused_with(&refused, channel)));
            work.await
        }
    };
    match taken {
        Ok(Ok(epoch)) => Ok(Registration { id, epoch }),
        Ok(Err(code)) => bail!("the controller does not take this broker: {code}"),
        Err(_) => bail!(
            "not taken within {} s: {}",
            intervals.registration_max.as_secs(),
            why_not_taken(&request, refused_with(&refused, channel))
        ),
    }
}

/// What the controller has refused this broker with last. One that does not get the metadata has not found it.
fn refused_with(
    refused: &watch::Receiver<Option<ErrorCode>>,
    channel: &ControllerChannel,
) -> Option<ErrorCode> {
    let taken = channel.is_id_taken().then_some(ErrorCode::DUPLICATE_BROKER_REGISTRATION);
    refused.borrow().or(taken)
}

/// By what the controller has refused this broker with last, if it did.
fn why_not_taken(request: &BrokerRegistrationRequest, refused: Option<ErrorCode>) -> String {
    let id = request.broker_id;
    match refused {
        Some(ErrorCode::DUPLICATE_BROKER_REGISTRATION) => format!(
            "the controller does not take this broker (DUPLICATE_BROKER_REGISTRATION), as another process is registered as \
             node {id}, and is alive: every node needs a node.id of its own. If that process has just died, this one is \
             taken when its session ends"
        ),
        Some(code @ ErrorCode::INCONSISTENT_CLUSTER_ID) => format!(
            "the controller does not take this broker: {code}; a node of another cluster is at its address"
        ),
        _ => format!(
            "no controller has taken this broker: are the controllers up, and do they reach this node at {}?",
            addresses(request)
        ),
    }
}

fn addresses(request: &BrokerRegistrationRequest) -> String {
    let listeners = request.listeners.iter();
    let shown =
        listeners.map(|it| Address { host: it.host.to_string(), port: it.port }.to_string());
    shown.collect::<Vec<_>>().join(", ")
}

/// Whether a refusal will be the same tomorrow.
fn is_hopeless(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::INVALID_REGISTRATION | ErrorCode::UNSUPPORTED_VERSION)
}

/// Whether the controller knows this registration no more.
fn is_no_more(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::STALE_BROKER_EPOCH | ErrorCode::BROKER_ID_NOT_REGISTERED)
}

impl Lifecycle {
    pub(crate) fn new(
        registration: Registration,
        channel: Arc<ControllerChannel>,
        quorum: Arc<Quorum>,
        intervals: Intervals,
    ) -> Self {
        let (leaving, is_unheard) = (Notify::new(), watch::Sender::new(false));
        let refused = Mutex::default();
        Self { registration, channel, quorum, intervals, leaving, is_unheard, refused }
    }

    /// Whether the latest heartbeat was not answered by any controller: this broker may have been fenced then, and not know
    /// of it.
    pub(crate) fn is_unheard(&self) -> watch::Receiver<bool> {
        self.is_unheard.subscribe()
    }

    /// The epoch of this broker's registration.
    pub(crate) const fn epoch(&self) -> i64 {
        self.registration.epoch
    }

    /// Returns once the controller lets this broker serve.
    pub(crate) async fn unfenced(&self) {
        loop {
            match self.beat(Wish::Serve).await {
                // As Apache Kafka, it goes on asking, though an epoch that is not the present one never will be.
                Ok(response) if response.error_code.is_error() => {
                    tokio::time::sleep(self.intervals.heartbeat).await;
                }
                Ok(response) if !response.is_fenced => return,
                Ok(_) => tokio::time::sleep(IMPATIENCE).await,
                Err(error) => {
                    debug!(%error, "no heartbeat");
                    self.channel.pause().await;
                }
            }
        }
    }

    /// Keeps the session alive until the node stops.
    pub(crate) async fn keep_alive(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        let mut leader = self.quorum.leader();
        let mut wait = self.intervals.heartbeat;
        let mut serves = true;
        let mut standing = Standing::Serving;
        loop {
            leader.mark_unchanged();
            let is_needed = !serves || !self.channel.is_here();
            tokio::select! {
                () = tokio::time::sleep(wait), if is_needed => {}
                // The controller takes it for our death, unless it hears of us soon.
                () = self.channel.broken(Purpose::Heartbeats), if is_needed => {}
                changed = leader.changed() => if changed.is_err() { return },
                () = self.leaving.notified() => return,
                () = stopped(&mut stopping) => return,
            }
            let heard = match self.beat(Wish::Serve).await {
                Ok(response) => Some(Standing::of(&response)),
                Err(error) => {
                    debug!(%error, "no heartbeat");
                    None
                }
            };
            match standing.note(heard) {
                Some(Standing::Serving) => info!("the controller lets this broker serve"),
                Some(Standing::Fenced) => warn!("the controller has fenced this broker"),
                Some(Standing::Refused) | None => {}
            }
            serves = heard == Some(Standing::Serving);
            wait = match heard {
                Some(Standing::Serving | Standing::Refused) => self.intervals.heartbeat,
                Some(Standing::Fenced) | None => IMPATIENCE,
            };
        }
    }

    /// Lets others take over what this broker leads, and returns once they have. A broker without others just goes, and so does
    /// one whose quorum has stopped: it hears no more who leads, and who could let it go. Others hear at once that it is gone.
    pub(crate) async fn leave(&self) {
        self.leaving.notify_one();
        let id = self.registration.id;
        let has_others = self.quorum.image().brokers().any(|it| it.id != id && !it.fenced);
        if !has_others {
            return;
        }
        tokio::select! {
            reason = self.quorum.stopped() => warn!(reason, "leaves without a word"),
            left = tokio::time::timeout(LEAVING_MAX, self.left()) => match left {
                Ok(Left::TakenOver) => info!("others have taken over"),
                Ok(Left::Forsaken(why)) => warn!("nobody takes over: {why}"),
                Err(_) => warn!("nobody took over in time"),
            }
        }
    }

    /// Asks to leave until that is granted, or nobody can grant it.
    async fn left(&self) -> Left {
        let mut heard = Instant::now();
        loop {
            match self.beat(Wish::Leave).await {
                Ok(response) if response.should_shut_down => return Left::TakenOver,
                // It was unregistered, or another process is registered in its place.
                Ok(BrokerHeartbeatResponse { error_code: code, .. }) if is_no_more(code) => {
                    return Left::Forsaken(code.to_string());
                }
                Ok(_) => heard = Instant::now(),
                // A controller that leads and is slow may yet answer.
                Err(Unanswered::Unreachable(ClientError::TimedOut { .. })) => {
                    heard = Instant::now();
                }
                Err(error) if heard.elapsed() >= FORSAKEN_AFTER => {
                    return Left::Forsaken(error.to_string());
                }
                Err(error) => debug!(%error, "no heartbeat"),
            }
            tokio::time::sleep(IMPATIENCE).await;
        }
    }

    async fn beat(&self, wish: Wish) -> Result<BrokerHeartbeatResponse, Unanswered> {
        let request = BrokerHeartbeatRequest {
            broker_id: self.registration.id.0,
            broker_epoch: self.registration.epoch,
            current_metadata_offset: self.quorum.image().offset.0,
            want_fence: false,
            want_shut_down: wish == Wish::Leave,
            ..BrokerHeartbeatRequest::default()
        };
        let answer = self.channel.ask(Purpose::Heartbeats, request).await;
        let is_unheard = answer.is_err();
        self.is_unheard
            .send_if_modified(|before| std::mem::replace(before, is_unheard) != is_unheard);
        let response = answer?;
        self.note_refusal(response.error_code);
        Ok(response)
    }

    fn note_refusal(&self, code: ErrorCode) {
        let (mut said, now) = (self.refused.lock(), Instant::now());
        if !code.is_error() {
            *said = None;
        } else if is_due(*said, code, now) {
            *said = Some((code, now));
            warn!(%code, "the controller takes no heartbeats of this broker");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_does_not_answer_for_a_while_is_not_worth_a_line() {
        use Standing::{Fenced, Refused, Serving};
        let mut standing = Serving;
        let heard = [None, Some(Serving), Some(Fenced), None, Some(Fenced), Some(Serving)];
        let said = heard.map(|it| standing.note(it));
        assert_eq!(said, [None, None, Some(Fenced), None, None, Some(Serving)]);
        let heard = [Some(Refused), None, Some(Refused), Some(Fenced), Some(Serving)];
        let said = heard.map(|it| standing.note(it));
        assert_eq!(said, [None, None, None, None, Some(Serving)]);
    }

    #[test]
    fn a_heartbeat_that_is_refused_again_and_again_is_said_once_a_minute() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let code = ErrorCode::STALE_BROKER_EPOCH;
        assert!(is_due(None, code, begin));
        for (seconds, due) in [(2, false), (59, false), (60, true)] {
            assert_eq!(is_due(Some((code, begin)), code, after(seconds)), due, "{seconds}");
        }
        let other = ErrorCode::BROKER_ID_NOT_REGISTERED;
        assert!(is_due(Some((code, begin)), other, after(2)));
    }
}
