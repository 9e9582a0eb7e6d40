//! What nodes say to each other, and which of it arrives, when and how often.
//!
//! tokio wakes those who wait for the same thing in an order that it draws by a lot of its own. So what becomes of a message
//! is drawn from what it says, and from how often it was said before, and not from a stream that all of them share.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use ottla_base::BrokerId;
use ottla_metadata::Endpoint;
use ottla_quorum::{Called, Lane, Quorum, Standstill, Transport, vote_given};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Bug;
use super::world::Shared;
use crate::Random;
use crate::links::{Links, Weather};

#[derive(Debug)]
pub(super) struct Network {
    seed: u64,
    /// How often each message was sent, by sender, receiver and what it says.
    said: BTreeMap<(usize, usize, u64), u64>,
    nodes: BTreeMap<usize, There>,
    pub(super) links: Links,
    /// Until when a node neither sends, hears nor writes anything.
    held_up: Vec<Option<Instant>>,
    pub(super) weather: Weather,
    /// What was answered last to each message, if that is given again where it should not (a planted bug).
    remembered: Option<BTreeMap<(usize, usize, Bytes), Bytes>>,
}

/// Somebody who is there, in one of its lives.
#[derive(Debug, Clone)]
pub(super) struct There {
    life: u64,
    pub(super) quorum: Arc<Quorum>,
    pub(super) standstill: Arc<Standstill>,
}

impl There {
    /// Whether it is the process of this quorum.
    pub(super) fn is_of(&self, quorum: &Weak<Quorum>) -> bool {
        Weak::as_ptr(quorum) == Arc::as_ptr(&self.quorum)
    }

    /// What this process does; it stands still as a whole.
    pub(super) fn cover<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        Arc::clone(&self.standstill).cover(future)
    }
}

/// What becomes of a message.
struct Fate {
    delay: Duration,
    is_doubled: bool,
}

impl Network {
    pub(super) fn new(seed: u64, nodes: usize, bug: Option<Bug>) -> Self {
        Self {
            seed,
            said: BTreeMap::new(),
            nodes: BTreeMap::new(),
            links: Links::new(nodes),
            held_up: vec![None; nodes],
            weather: Weather::default(),
            remembered: (bug == Some(Bug::AnswersRemembered)).then(BTreeMap::new),
        }
    }

    pub(super) fn join(
        &mut self,
        node: usize,
        life: u64,
        (quorum, standstill): (Arc<Quorum>, Arc<Standstill>),
    ) {
        self.nodes.insert(node, There { life, quorum, standstill });
    }

    /// A process that is over stands still no longer.
    pub(super) fn leave(&mut self, node: usize) {
        let left = self.nodes.remove(&node);
        if left.is_some_and(|there| there.standstill.is_on()) {
            self.held_up[node] = None;
        }
    }

    pub(super) fn others(&self, node: usize) -> impl Iterator<Item = &There> {
        self.nodes.iter().filter(move |(id, _)| **id != node).map(|(_, there)| there)
    }

    /// The world is over: its nodes hold the network, and the network must not hold them.
    pub(super) fn end(&mut self) {
        self.nodes.clear();
    }

    pub(super) fn hold_up(&mut self, node: usize, until: Instant) {
        self.held_up[node] = self.held_up[node].max(Some(until));
    }

    pub(super) fn held_up(&self, node: usize) -> Option<Instant> {
        self.held_up[node].filter(|until| *until > Instant::now())
    }

    fn is_there(&self, node: usize, life: u64) -> bool {
        self.nodes.get(&node).is_some_and(|there| there.life == life)
    }

    /// What its sender takes for the answer to a message: what has come, if nobody remembers anything else.
    fn remember(
        &mut self,
        message: (usize, usize, Bytes),
        answer: Option<io::Result<Bytes>>,
    ) -> Option<io::Result<Bytes>> {
        let Some(remembered) = &mut self.remembered else { return answer };
        if let Some(Ok(answer)) = &answer {
            remembered.insert(message, answer.clone());
            return Some(Ok(answer.clone()));
        }
        remembered.get(&message).cloned().map(Ok).or(answer)
    }

    /// The error says why a message is lost.
    fn fate(&mut self, from: usize, to: usize, message: &[u8]) -> Result<Fate, &'static str> {
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        let message = hasher.finish();
        let times = self.said.entry((from, to, message)).or_default();
        *times += 1;
        let stream = (from as u64) << 56 | (to as u64) << 48 | *times;
        let mut random = Random::new(self.seed ^ message, stream);
        if self.links.is_cut(from, to) {
            return Err("message on a cut link");
        }
        let Weather { lost, doubled, late } = self.weather;
        if random.happens(lost) {
            return Err("message lost");
        }
        let mut delay = Duration::from_millis(1 + random.below(3) as u64);
        if random.happens(late) {
            delay += Duration::from_millis(random.below(3_000) as u64);
        }
        Ok(Fate { delay, is_doubled: random.happens(doubled) })
    }
}

/// A node's access to the network, in one of its lives.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) node: usize,
    pub(super) life: u64,
    pub(super) shared: Arc<Shared>,
}

impl Transport for Access {
    /// What is on its way arrives, whether anybody still waits for the answer or not.
    fn call(&self, to: BrokerId, endpoints: &[Endpoint], _: Lane, request: Bytes) -> Called {
        let host = || endpoints.first()?.host.strip_prefix("node")?.parse().ok();
        let to: Option<usize> = if to.0 < 0 { host() } else { usize::try_from(to.0).ok() };
        let (shared, from, life) = (Arc::clone(&self.shared), self.node, self.life);
        Box::pin(async move {
            let Some(to) = to else { return Err(io::ErrorKind::NotFound.into()) };
            let (sender, answer) = oneshot::channel();
            let way = Arc::clone(&shared);
            tokio::spawn(async move {
                let message = (from, to, request.clone());
                let answer = call(&way, from, to, request).await;
                let answer = way.network.lock().remember(message, answer);
                if let Some(answer) = answer
                    && sender.send(answer).is_err()
                {
                    way.count("answer that nobody waits for any more");
                }
            });
            match answer.await {
                Ok(answer) if shared.network.lock().is_there(from, life) => answer,
                _ => std::future::pending().await,
            }
        })
    }
}

/// The answer, unless something is lost.
async fn call(
    shared: &Arc<Shared>,
    from: usize,
    to: usize,
    request: Bytes,
) -> Option<io::Result<Bytes>> {
    let is_doubled = travel(shared, from, to, &request).await?;
    let Some(there) = there(&shared.network, to) else {
        return Some(Err(io::ErrorKind::ConnectionRefused.into()));
    };
    if is_doubled {
        shared.count("message doubled");
        let (copy, there) = (request.clone(), there.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            // Nobody waits for this answer.
            drop(there.cover(there.quorum.serve(copy)).await);
        });
    }
    let asked = request.clone();
    let answer = there.cover(there.quorum.serve(request)).await.map_err(io::Error::other);
    let life = there.life;
    drop(there);
    if !shared.network.lock().is_there(to, life) {
        return Some(Err(io::ErrorKind::ConnectionReset.into()));
    }
    if let Ok(answer) = &answer
        && let Some(epoch) = vote_given(&asked, answer)
    {
        shared.history.lock().give_vote(to, epoch);
    }
    travel(shared, to, from, answer.as_deref().unwrap_or_default()).await?;
    Some(answer)
}

/// Ends when a message has arrived; returns whether it arrives once more. `None` if it is lost.
async fn travel(shared: &Shared, from: usize, to: usize, message: &[u8]) -> Option<bool> {
    shared.held_up(from).await;
    let fate = shared.network.lock().fate(from, to, message);
    let fate = match fate {
        Ok(fate) => fate,
        Err(why) => {
            shared.count(why);
            return None;
        }
    };
    if fate.delay > Duration::from_millis(100) {
        shared.count("message late");
    }
    tokio::time::sleep(fate.delay).await;
    shared.held_up(to).await;
    if from != to && shared.network.lock().links.is_cut(from, to) {
        return None;
    }
    Some(fate.is_doubled)
}

/// Who is there, for whoever asks them something or does something there.
pub(super) fn there(network: &Mutex<Network>, node: usize) -> Option<There> {
    network.lock().nodes.get(&node).cloned()
}
