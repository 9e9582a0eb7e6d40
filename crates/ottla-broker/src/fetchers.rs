//! Fetch what other brokers lead and this one follows: some tasks for each leader (`num.replica.fetchers`), each over a
//! connection of its own. Shell.
//!
//! What to ask of each partition, and what becomes of the answer, is `ottla-replication`'s to say; what a request names is
//! the conversation's (`fetchers/conversation.rs`). When the set of partitions changes, the session begins anew over another
//! connection: the leader may hold the answer to the old one back for half a second, and a new follower must not wait for
//! that.
//!
//! Invariants: a partition is asked for by one task, of its leader, and one question at a time; which of the leader's tasks
//! that is follows from the partition's name, as in Kafka.

mod conversation;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use ottla_base::{
    BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId, java_hash_code,
};
use ottla_client::{ClientError, Connection, Limits};
use ottla_env::Clock;
use ottla_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla_protocol::messages::{FetchResponse, ListOffsetsRequest};
use ottla_replication::follower::LeaderOffsets;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::blocking::beside_the_others;
use crate::broker::Registration;
use crate::fetch_session::NO_SESSION;
use crate::hang_ups::HangUps;
use crate::log_directories::LogDirectories;
use crate::peers::{BrokerAddresses, PeerError};
use crate::replica::Replica;
use crate::throttles::{Throttle, Throttles};
use conversation::Conversation;

type Key = (TopicId, PartitionIndex);

/// How much and how long a fetch may be (`replica.fetch.*`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct FetchSettings {
    pub wait_max_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub response_max_bytes: i32,
    /// `num.replica.fetchers`, which may change.
    pub fetchers: usize,
}

/// A leader, and which of the tasks that fetch from it.
type Place = (BrokerId, usize);

/// The partitions that are followed here, by who fetches them.
#[derive(Debug)]
pub(crate) struct Fetchers {
    directories: Arc<LogDirectories>,
    clock: Arc<dyn Clock>,
    settings: FetchSettings,
    throttles: Arc<Throttles>,
    hang_ups: Arc<HangUps>,
    places: Mutex<Places>,
    /// Set once this broker is registered.
    sender: std::sync::OnceLock<(Registration, Arc<BrokerAddresses>)>,
}

#[derive(Debug)]
struct Places {
    /// For each leader.
    count: usize,
    followed: HashMap<Place, Arc<Followed>>,
    of: HashMap<Key, Place>,
}

/// What one task fetches.
#[derive(Debug, Default)]
struct Followed {
    replicas: Mutex<HashMap<Key, (Arc<Replica>, LeaderEpoch)>>,
    changed: Notify,
    news: Arc<FetchNews>,
}

/// Replicas that would ask something else than they did, for a reason that their leader has not told.
#[derive(Debug, Default)]
pub(crate) struct FetchNews(Mutex<Vec<Key>>);

impl FetchNews {
    pub(crate) fn tell(&self, topic: TopicId, partition: PartitionIndex) {
        self.0.lock().push((topic, partition));
    }

    fn take(&self) -> Vec<Key> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Fetchers {
    pub(crate) fn new(
        directories: Arc<LogDirectories>,
        clock: Arc<dyn Clock>,
        settings: FetchSettings,
        throttles: Arc<Throttles>,
        hang_ups: Arc<HangUps>,
    ) -> Self {
        let count = settings.fetchers.max(1);
        let places = Places { count, followed: HashMap::new(), of: HashMap::new() };
        let (places, sender) = (Mutex::new(places), std::sync::OnceLock::new());
        Self { directories, clock, settings, throttles, hang_ups, places, sender }
    }

    /// From now on leaders are asked. Said once.
    pub(crate) fn begin(&self, registration: Registration, addresses: Arc<BrokerAddresses>) {
        let places = self.places.lock();
        let _ = self.sender.set((registration, addresses));
        for ((leader, _), followed) in &places.followed {
            self.start(*leader, followed);
        }
    }

    /// A replica follows this leader from now on, or, with none, nobody.
    pub(crate) fn follow(&self, replica: &Arc<Replica>, leader: Option<BrokerId>) {
        self.place(&mut self.places.lock(), replica, leader);
    }

    /// So many tasks fetch from each leader from now on.
    pub(crate) fn resize(&self, count: usize) {
        let mut places = self.places.lock();
        if std::mem::replace(&mut places.count, count.max(1)) == count.max(1) {
            return;
        }
        let all: Vec<_> = places
            .followed
            .iter()
            .flat_map(|((leader, _), followed)| {
                let replicas = followed.replicas.lock();
                replicas.values().map(|(it, _)| (*leader, Arc::clone(it))).collect::<Vec<_>>()
            })
            .collect();
        for (leader, replica) in all {
            self.place(&mut places, &replica, Some(leader));
        }
    }

    fn place(&self, places: &mut Places, replica: &Arc<Replica>, leader: Option<BrokerId>) {
        let key = (replica.topic_id, replica.partition.partition);
        let name = (&*replica.partition.topic, key.1);
        let to = leader.map(|leader| (leader, fetcher_of(name, places.count)));
        if let Some(from) = places.of.get(&key).copied().filter(|from| Some(*from) != to) {
            places.of.remove(&key);
            replica.set_fetch_news(None);
            if let Some(followed) = places.followed.get(&from) {
                followed.replicas.lock().remove(&key);
                followed.changed.notify_one();
            }
        }
        let Some(to) = to else { return };
        places.of.insert(key, to);
        let followed = places.followed.entry(to).or_insert_with(|| {
            let followed = Arc::<Followed>::default();
            self.start(to.0, &followed);
            followed
        });
        replica.set_fetch_news(Some(Arc::clone(&followed.news)));
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
            directories: Arc::clone(&self.directories),
            clock: Arc::clone(&self.clock),
            settings: self.settings,
            throttles: Arc::clone(&self.throttles),
            hang_ups: Arc::clone(&self.hang_ups),
            followed: Arc::clone(followed),
            session_id: AtomicI32::new(NO_SESSION),
        };
        addresses.spawn(fetcher.run());
    }
}

/// Which of a leader's tasks fetches a partition: Kafka's choice, by Java's hash of the topic's name.
fn fetcher_of((topic, partition): (&str, PartitionIndex), count: usize) -> usize {
    let mixed = java_hash_code(topic).wrapping_mul(31).wrapping_add(partition.0);
    // Java has no absolute value of the smallest number either, and Kafka takes 0.
    usize::try_from(mixed.checked_abs().unwrap_or(0)).unwrap_or(0) % count.max(1)
}

/// A task that fetches from one leader.
struct Fetcher {
    leader: BrokerId,
    registration: Registration,
    addresses: Arc<BrokerAddresses>,
    directories: Arc<LogDirectories>,
    clock: Arc<dyn Clock>,
    settings: FetchSettings,
    throttles: Arc<Throttles>,
    hang_ups: Arc<HangUps>,
    followed: Arc<Followed>,
    /// The session that the leader may still hold for us, of this conversation or the one before.
    session_id: AtomicI32,
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
            let mut fetching = std::pin::pin!(self.fetch_on(replicas));
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
    async fn fetch_on(&self, replicas: HashMap<Key, Arc<Replica>>) -> Result<(), PeerError> {
        let connection = self.addresses.open(self.leader).await?;
        self.hang_ups.is_back(self.leader);
        // Questions that went down with the connection before this one.
        let now = self.clock.monotonic();
        for replica in replicas.values() {
            replica.on_leader_offsets(self.leader, Err(ErrorCode::NETWORK_EXCEPTION), now);
            // A leader that was started anew knows nothing of what was reported.
            replica.report_flushed_again();
        }
        let left = self.session_id.load(Ordering::Relaxed);
        let mut conversation = Conversation::new(self.leader, replicas, left);
        loop {
            conversation.hear(self.followed.news.take());
            let now = self.clock.monotonic();
            let Some(request) = conversation.ask(now, &self.throttles.follower) else {
                match conversation.pause(now) {
                    Some(pause) => tokio::time::sleep(pause.max(PAUSE_MIN)).await,
                    // Until the metadata says something new, and this conversation is over.
                    None => std::future::pending().await,
                }
                continue;
            };
            let request = request.into_message(self.registration, &self.settings);
            let response = connection.send(&request, self.limits()).await?;
            if response.error_code.is_error() {
                debug!(leader = %self.leader, code = %response.error_code, "the session is over");
                conversation.begin_anew(response.error_code);
                tokio::time::sleep(RECONNECT_PAUSE).await;
                continue;
            }
            let now = self.clock.monotonic();
            self.session_id.store(response.session_id, Ordering::Relaxed);
            let errands = take(&mut conversation, response, now, &self.throttles.follower);
            self.directories.begin_flush();
            for replica in errands {
                self.ask_offsets(&connection, &replica).await?;
            }
        }
    }

    fn limits(&self) -> Limits {
        let wait = u64::try_from(self.settings.wait_max_ms).unwrap_or(0);
        Limits::within(Duration::from_millis(wait) + ANSWER_MAX)
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

/// Appends what has come, beside the others where that may take long. Returns those about whose leader more must be asked.
fn take(
    conversation: &mut Conversation,
    response: FetchResponse,
    now: Duration,
    throttle: &Throttle,
) -> Vec<Arc<Replica>> {
    let partitions: usize = response.responses.iter().map(|it| it.partitions.len()).sum();
    let take = || conversation.take(response, now, throttle);
    match partitions > TAKEN_AT_ONCE {
        true => beside_the_others(take),
        false => take(),
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
/// The records of so many partitions are appended where they came in, where nobody may look after the sockets meanwhile: logs
/// that get their first records get their files, too.
const TAKEN_AT_ONCE: usize = 32;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, IoSlice};

    use ottla_base::Timestamp;
    use ottla_env::{Disk, DiskLayer, OsDisk};
    use ottla_protocol::Records;
    use ottla_protocol::messages::fetch_response::{
        EpochEndOffset, FetchableTopicResponse, PartitionData,
    };
    use ottla_replication::Windows;
    use parking_lot::Condvar;

    use super::*;
    use crate::replica::{following, unflushed_log, unflushed_log_on};

    /// A disk that is slow to write: until somebody else has had a turn.
    #[derive(Debug, Default)]
    struct SlowDisk {
        turn: Mutex<Turn>,
        changed: Condvar,
    }

    #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
    enum Turn {
        #[default]
        Nobodys,
        Awaited,
        Had,
        MissedOut,
    }

    impl SlowDisk {
        fn give_turn(&self) {
            let mut turn = self.turn.lock();
            if *turn == Turn::Awaited {
                *turn = Turn::Had;
                self.changed.notify_all();
            }
        }
    }

    impl DiskLayer for SlowDisk {
        fn below(&self) -> &dyn Disk {
            &OsDisk
        }

        fn write_at(&self, file: &File, bytes: &mut [IoSlice<'_>], at: u64) -> io::Result<()> {
            let mut turn = self.turn.lock();
            let is_awaited = |turn: &mut Turn| *turn == Turn::Awaited;
            let limit = Duration::from_secs(5);
            if self.changed.wait_while_for(&mut turn, is_awaited, limit).timed_out() {
                *turn = Turn::MissedOut;
            }
            drop(turn);
            OsDisk.write_at(file, bytes, at)
        }
    }

    /// Of a broker with one thread: the others are those who look after its sockets.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn while_many_partitions_records_are_appended_the_others_have_their_turns() {
        let disk = Arc::new(SlowDisk::default());
        let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let leaders = unflushed_log(&directories[0], &[Timestamp(1_000)]);
        let records = leaders.read(Offset(0), 10_000, Offset(1), true).unwrap().source.unwrap();
        let leader = BrokerId(2);
        let log = unflushed_log_on(Arc::clone(&disk) as _, &directories[1], &[]);
        let replica = Arc::new(following(Arc::clone(&log), leader));
        let key = (replica.topic_id, replica.partition.partition);
        let partition = |partition_index| PartitionData {
            partition_index,
            high_watermark: 1,
            diverging_epoch: EpochEndOffset { epoch: -1, end_offset: -1 },
            records: Some(Records::Bytes(records.read().unwrap())),
            ..PartitionData::default()
        };
        // All but the first are followed no more.
        let count = i32::try_from(TAKEN_AT_ONCE).unwrap() + 1;
        let topic = FetchableTopicResponse {
            topic_id: replica.topic_id,
            partitions: (0..count).map(partition).collect(),
            ..FetchableTopicResponse::default()
        };
        let response = FetchResponse { responses: vec![topic], ..FetchResponse::default() };
        let throttles = Throttles::new(Windows { count: 11, size: Duration::from_secs(1) });
        let mut conversation = Conversation::new(leader, HashMap::from([(key, replica)]), 0);
        assert!(conversation.ask(Duration::ZERO, &throttles.follower).is_some());
        let slow = Arc::clone(&disk);
        let taken = tokio::spawn(async move {
            *slow.turn.lock() = Turn::Awaited;
            let other = tokio::spawn(async move { slow.give_turn() });
            take(&mut conversation, response, Duration::ZERO, &throttles.follower);
            other.await.unwrap();
        });
        taken.await.unwrap();
        assert_eq!(log.log_end_offset(), Offset(1));
        assert_eq!(*disk.turn.lock(), Turn::Had);
    }

    /// What `AbstractFetcherManager` of Kafka 4.3.1 chooses for the first five partitions of a topic.
    #[test]
    fn partitions_are_spread_as_in_kafka() {
        let kafka = [
            ("t", 2, [0, 1, 0, 1, 0]),
            ("t", 3, [2, 0, 1, 2, 0]),
            ("t", 7, [5, 6, 0, 1, 2]),
            ("orders", 2, [1, 0, 1, 0, 1]),
            ("orders", 3, [2, 1, 0, 2, 1]),
            ("orders", 7, [6, 5, 4, 3, 2]),
            ("__consumer_offsets", 2, [1, 0, 1, 0, 1]),
            ("__consumer_offsets", 3, [2, 1, 0, 2, 1]),
            ("__consumer_offsets", 7, [6, 5, 4, 3, 2]),
            ("a-rather-long.name_of_a_topic-0123456789", 2, [0, 1, 0, 1, 0]),
            ("a-rather-long.name_of_a_topic-0123456789", 3, [2, 1, 0, 2, 1]),
            ("a-rather-long.name_of_a_topic-0123456789", 7, [3, 2, 1, 0, 6]),
        ];
        for (topic, count, expected) in kafka {
            let found: Vec<_> =
                (0..5).map(|it| fetcher_of((topic, PartitionIndex(it)), count)).collect();
            assert_eq!(found, expected, "{topic} over {count}");
        }
        assert_eq!(fetcher_of(("any", PartitionIndex(7)), 1), 0);
    }
}
