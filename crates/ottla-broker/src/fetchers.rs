//! Fetch what other brokers lead and this one follows: a task for each leader, over a connection of its own (KIP-227
//! sessions, so that a request names only what has changed since the one before). Shell.
//!
//! What to ask of each partition, and what becomes of the answer, is `ottla-replication`'s to say. When the set of
//! partitions changes, the session begins anew over another connection: the leader may hold the answer to the old one back
//! for half a second, and a new follower must not wait for that.
//!
//! Invariant: a partition is asked for by the task of its leader only, and one question at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId};
use ottla_client::{ClientError, Connection, Limits};
use ottla_env::Clock;
use ottla_protocol::Records;
use ottla_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use ottla_protocol::messages::fetch_response::PartitionData;
use ottla_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla_protocol::messages::{FetchRequest, FetchResponse, ListOffsetsRequest};
use ottla_replication::follower::{EpochEnd, Fetch, LeaderOffsets};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::broker::Registration;
use crate::hang_ups::HangUps;
use crate::peers::{BrokerAddresses, PeerError};
use crate::replica::{Errand, Fetched, Replica};

type Key = (TopicId, PartitionIndex);

/// How much and how long a fetch may be (`replica.fetch.*`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchSettings {
    pub wait_max_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub response_max_bytes: i32,
    pub backoff: Duration,
}

/// The partitions that are followed here, by their leaders.
#[derive(Debug)]
pub(crate) struct Fetchers {
    clock: Arc<dyn Clock>,
    settings: FetchSettings,
    hang_ups: Arc<HangUps>,
    leaders: Mutex<HashMap<BrokerId, Arc<Followed>>>,
    /// Set once this broker is registered.
    sender: std::sync::OnceLock<(Registration, Arc<BrokerAddresses>)>,
}

/// What is followed of one leader.
#[derive(Debug, Default)]
struct Followed {
    replicas: Mutex<HashMap<Key, (Arc<Replica>, LeaderEpoch)>>,
    changed: Notify,
}

impl Fetchers {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        settings: FetchSettings,
        hang_ups: Arc<HangUps>,
    ) -> Self {
        let (leaders, sender) = (Mutex::default(), std::sync::OnceLock::new());
        Self { clock, settings, hang_ups, leaders, sender }
    }

    /// From now on leaders are asked. Said once.
    pub(crate) fn begin(&self, registration: Registration, addresses: Arc<BrokerAddresses>) {
        let leaders = self.leaders.lock();
        let _ = self.sender.set((registration, addresses));
        for (leader, followed) in &*leaders {
            self.start(*leader, followed);
        }
    }

    /// A replica follows this leader from now on, or, with none, nobody.
    pub(crate) fn follow(&self, replica: &Arc<Replica>, leader: Option<BrokerId>) {
        let key = (replica.topic_id, replica.partition.partition);
        let mut leaders = self.leaders.lock();
        for (other, followed) in &*leaders {
            if Some(*other) != leader && followed.replicas.lock().remove(&key).is_some() {
                followed.changed.notify_one();
            }
        }
        let Some(leader) = leader else { return };
        let followed = leaders.entry(leader).or_insert_with(|| {
            let followed = Arc::<Followed>::default();
            self.start(leader, &followed);
            followed
        });
        let epoch = replica.leader_epoch();
        let before = followed.replicas.lock().insert(key, (Arc::clone(replica), epoch));
        if before.is_none_or(|(it, before)| before != epoch || !Arc::ptr_eq(&it, replica)) {
            followed.changed.notify_one();
        }
    }

    fn start(&self, leader: BrokerId, followed: &Arc<Followed>) {
        let Some((registration, addresses)) = self.sender.get() else { return };
        let fetcher = Fetcher {
            leader,
            registration: *registration,
            addresses: Arc::clone(addresses),
            clock: Arc::clone(&self.clock),
            settings: self.settings,
            hang_ups: Arc::clone(&self.hang_ups),
            followed: Arc::clone(followed),
        };
        addresses.spawn(fetcher.run());
    }
}

/// The task of one leader.
struct Fetcher {
    leader: BrokerId,
    registration: Registration,
    addresses: Arc<BrokerAddresses>,
    clock: Arc<dyn Clock>,
    settings: FetchSettings,
    hang_ups: Arc<HangUps>,
    followed: Arc<Followed>,
}

/// What the leader was asked last, and knows of this session.
#[derive(Debug, Default)]
struct Session {
    id: i32,
    epoch: i32,
    asked: HashMap<Key, Fetch>,
}

impl Fetcher {
    async fn run(self) {
        loop {
            let replicas: HashMap<Key, Arc<Replica>> = {
                let followed = self.followed.replicas.lock();
                followed.iter().map(|(key, (replica, _))| (*key, Arc::clone(replica))).collect()
            };
            if replicas.is_empty() {
                self.followed.changed.notified().await;
                continue;
            }
            let mut fetching = std::pin::pin!(self.fetch_on(&replicas));
            let ended = tokio::select! {
                ended = &mut fetching => ended,
                () = self.followed.changed.notified() => {
                    // An answer that is on its way may still come.
                    let _ = tokio::time::timeout(LAST_ANSWER, fetching).await;
                    continue;
                }
            };
            if let Err(error) = ended {
                self.hang_ups.hung_up(self.leader, self.clock.monotonic());
                debug!(leader = %self.leader, %error, "nothing is fetched");
            }
            tokio::select! {
                () = tokio::time::sleep(RECONNECT_PAUSE) => {}
                () = self.followed.changed.notified() => {}
            }
        }
    }

    /// Fetches until the connection fails.
    async fn fetch_on(&self, replicas: &HashMap<Key, Arc<Replica>>) -> Result<(), PeerError> {
        let connection = self.addresses.open(self.leader).await?;
        self.hang_ups.is_back(self.leader);
        // Questions that went down with the connection before this one.
        let now = self.clock.monotonic();
        for replica in replicas.values() {
            replica.on_leader_offsets(self.leader, Err(ErrorCode::NETWORK_EXCEPTION), now);
            // A leader that was started anew knows nothing of what was reported.
            replica.report_flushed_again();
        }
        let mut session = Session::default();
        loop {
            let Some(request) = self.request(replicas, &mut session) else {
                tokio::time::sleep(self.until_next(replicas)).await;
                continue;
            };
            let response = connection.send(&request, self.limits()).await?;
            if response.error_code.is_error() {
                debug!(leader = %self.leader, code = %response.error_code, "the session is over");
                session = Session::default();
                tokio::time::sleep(RECONNECT_PAUSE).await;
                continue;
            }
            session.answered(&response);
            let errands = self.take(replicas, &session, response);
            for replica in errands {
                self.ask_offsets(&connection, &replica).await?;
            }
        }
    }

    fn limits(&self) -> Limits {
        let wait = u64::try_from(self.settings.wait_max_ms).unwrap_or(0);
        Limits::within(Duration::from_millis(wait) + ANSWER_MAX)
    }

    /// Until some partition's pause is over.
    fn until_next(&self, replicas: &HashMap<Key, Arc<Replica>>) -> Duration {
        let now = self.clock.monotonic();
        let next = replicas.values().filter_map(|replica| replica.fetch_deadline()).min();
        next.map_or(self.settings.backoff, |next| next.saturating_sub(now)).max(PAUSE_MIN)
    }

    /// The next request of a session; `None` while there is nothing to ask for.
    fn request(
        &self,
        replicas: &HashMap<Key, Arc<Replica>>,
        session: &mut Session,
    ) -> Option<FetchRequest> {
        let now = self.clock.monotonic();
        let wanted: HashMap<Key, Fetch> = replicas
            .iter()
            .filter_map(|(key, replica)| Some((*key, replica.next_fetch(self.leader, now)?)))
            .collect();
        if wanted.is_empty() {
            return None;
        }
        if session.epoch == 0 {
            // A session begins, or there is none: all is named.
            session.asked.clear();
        }
        let mut topics: HashMap<TopicId, Vec<FetchPartition>> = HashMap::new();
        for ((topic, partition), fetch) in &wanted {
            if session.asked.get(&(*topic, *partition)) != Some(fetch) {
                let asked = self.partition(*partition, fetch);
                topics.entry(*topic).or_default().push(asked);
            }
        }
        let mut forgotten: HashMap<TopicId, Vec<i32>> = HashMap::new();
        for (topic, partition) in session.asked.keys().filter(|key| !wanted.contains_key(key)) {
            forgotten.entry(*topic).or_default().push(partition.0);
        }
        session.asked = wanted;
        let topic =
            |(topic_id, partitions)| FetchTopic { topic_id, partitions, ..FetchTopic::default() };
        let forget = |(topic_id, partitions)| ForgottenTopic {
            topic_id,
            partitions,
            ..ForgottenTopic::default()
        };
        Some(FetchRequest {
            replica_state: ReplicaState {
                replica_id: self.registration.id.0,
                replica_epoch: self.registration.epoch,
            },
            max_wait_ms: self.settings.wait_max_ms,
            min_bytes: self.settings.min_bytes,
            max_bytes: self.settings.response_max_bytes,
            session_id: session.id,
            session_epoch: session.epoch,
            topics: topics.into_iter().map(topic).collect(),
            forgotten_topics_data: forgotten.into_iter().map(forget).collect(),
            ..FetchRequest::default()
        })
    }

    fn partition(&self, partition: PartitionIndex, fetch: &Fetch) -> FetchPartition {
        FetchPartition {
            partition: partition.0,
            current_leader_epoch: fetch.current_leader_epoch.0,
            fetch_offset: fetch.fetch_offset.0,
            last_fetched_epoch: fetch.last_fetched_epoch.map_or(-1, |epoch| epoch.0),
            log_start_offset: fetch.log_start_offset.0,
            partition_max_bytes: self.settings.max_bytes,
            ..FetchPartition::default()
        }
    }

    /// Appends what has come. Returns those about whose leader more must be asked.
    fn take(
        &self,
        replicas: &HashMap<Key, Arc<Replica>>,
        session: &Session,
        response: FetchResponse,
    ) -> Vec<Arc<Replica>> {
        let now = self.clock.monotonic();
        let mut errands = Vec::new();
        for topic in response.responses {
            for data in topic.partitions {
                let key = (topic.topic_id, PartitionIndex(data.partition_index));
                let (Some(replica), Some(asked)) = (replicas.get(&key), session.asked.get(&key))
                else {
                    continue;
                };
                let errand = replica.on_fetched(self.leader, asked, fetched(data), now);
                if errand == Errand::AskLeaderOffsets {
                    errands.push(Arc::clone(replica));
                }
            }
        }
        errands
    }

    /// Asks where the leader's log begins and ends.
    async fn ask_offsets(
        &self,
        connection: &Connection,
        replica: &Replica,
    ) -> Result<(), ClientError> {
        let start = self.list_offset(connection, replica, EARLIEST).await?;
        let end = self.list_offset(connection, replica, LATEST).await?;
        let found = start.and_then(|log_start| Ok(LeaderOffsets { log_start, log_end: end? }));
        if let Err(code) = found {
            warn!(partition = %replica.partition, %code, "the leader does not say where its log begins and ends");
        }
        replica.on_leader_offsets(self.leader, found, self.clock.monotonic());
        Ok(())
    }

    async fn list_offset(
        &self,
        connection: &Connection,
        replica: &Replica,
        timestamp: i64,
    ) -> Result<Result<Offset, ErrorCode>, ClientError> {
        let partition = ListOffsetsPartition {
            partition_index: replica.partition.partition.0,
            current_leader_epoch: replica.leader_epoch().0,
            timestamp,
        };
        let request = ListOffsetsRequest {
            replica_id: self.registration.id.0,
            topics: vec![ListOffsetsTopic {
                name: (&*replica.partition.topic).into(),
                partitions: vec![partition],
            }],
            ..ListOffsetsRequest::default()
        };
        let response = connection.send(&request, self.limits()).await?;
        let found = response.topics.first().and_then(|topic| topic.partitions.first());
        Ok(match found {
            Some(found) if !found.error_code.is_error() => Ok(Offset(found.offset)),
            Some(found) => Err(found.error_code),
            None => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
        })
    }
}

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// How long an answer may take beyond the time that the leader may wait for records (`replica.socket.timeout.ms`).
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a leader is left alone that could not be reached.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long a fetch goes on once the set of partitions has changed.
const LAST_ANSWER: Duration = Duration::from_millis(20);
const PAUSE_MIN: Duration = Duration::from_millis(1);

impl Session {
    /// A session that the leader did not take up names everything each time.
    fn answered(&mut self, response: &FetchResponse) {
        self.id = response.session_id;
        self.epoch = match response.session_id {
            0 => 0,
            _ => self.epoch.checked_add(1).unwrap_or(1),
        };
    }
}

fn fetched(data: PartitionData) -> Fetched {
    if data.error_code.is_error() {
        return Fetched::Refused(data.error_code);
    }
    if data.diverging_epoch.end_offset >= 0 {
        return Fetched::Diverged(EpochEnd {
            epoch: LeaderEpoch(data.diverging_epoch.epoch),
            end_offset: Offset(data.diverging_epoch.end_offset),
        });
    }
    let records = match data.records {
        Some(Records::Bytes(records)) => records,
        Some(Records::Deferred { .. }) | None => Bytes::new(),
    };
    Fetched::Records {
        records,
        high_watermark: Offset(data.high_watermark),
        log_start: Offset(data.log_start_offset),
    }
}
