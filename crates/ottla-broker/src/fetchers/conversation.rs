//! What is asked of one leader over one connection: a KIP-227 session, so that a request names only what has changed since
//! the one before, and looks only at what may have. Shell, without I/O.
//!
//! A partition is looked at again when the leader has answered for it, when its pause is over, and when its replica says so;
//! a thousand that are idle cost nothing. One that is throttled and lags is looked at each time, while it may be asked for.
//!
//! Invariants: `asked` is what the leader's session holds once the request that was made last is there; who pauses is not in
//! it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId};
use ottla_protocol::Records;
use ottla_protocol::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use ottla_protocol::messages::fetch_response::PartitionData;
use ottla_protocol::messages::{FetchRequest, FetchResponse};
use ottla_replication::follower::{EpochEnd, Fetch};

use super::{FetchSettings, Key};
use crate::broker::Registration;
use crate::fetch_session::{INITIAL_EPOCH, NO_SESSION};
use crate::replica::{Errand, Fetched, Replica};
use crate::throttles::Throttle;

/// How long a throttled partition waits at most before its rate, which may have been raised, is looked at again.
const THROTTLED_MAX: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Conversation {
    leader: BrokerId,
    replicas: HashMap<Key, Arc<Replica>>,
    session_id: i32,
    session_epoch: i32,
    asked: HashMap<Key, Fetch>,
    /// What the leader's session holds and the next request takes out of it.
    forgotten: HashSet<Key>,
    /// Whose question may have changed.
    due: HashSet<Key>,
    /// When those are due that pause.
    pauses: BTreeSet<(Duration, Key)>,
    /// Throttled and not in sync: whether they are asked for depends on what others have fetched.
    lagging: HashSet<Key>,
}

/// What a request is to name.
#[derive(Debug)]
pub(super) struct Asked {
    session_id: i32,
    session_epoch: i32,
    named: HashMap<Key, Fetch>,
    forgotten: HashSet<Key>,
}

impl Conversation {
    /// `left` is the session that the leader may hold for a conversation before this one: it ends as this one begins.
    pub(super) fn new(leader: BrokerId, replicas: HashMap<Key, Arc<Replica>>, left: i32) -> Self {
        let due = replicas.keys().copied().collect();
        Self {
            leader,
            replicas,
            session_id: left,
            session_epoch: INITIAL_EPOCH,
            asked: HashMap::new(),
            forgotten: HashSet::new(),
            due,
            pauses: BTreeSet::new(),
            lagging: HashSet::new(),
        }
    }

    /// These have news of their own.
    pub(super) fn hear(&mut self, news: Vec<Key>) {
        self.due.extend(news.into_iter().filter(|key| self.replicas.contains_key(key)));
    }

    /// The leader goes on with this session no more, if it has it.
    pub(super) fn begin_anew(&mut self, why: ErrorCode) {
        if why == ErrorCode::FETCH_SESSION_ID_NOT_FOUND {
            self.session_id = NO_SESSION;
        }
        self.session_epoch = INITIAL_EPOCH;
        self.forgotten.clear();
    }

    /// How long there is nothing to ask for, as far as that is a matter of time.
    pub(super) fn pause(&self, now: Duration) -> Option<Duration> {
        self.pauses.first().map(|(until, _)| until.saturating_sub(now))
    }

    /// The next request; `None` while there is nothing to ask for.
    pub(super) fn ask(&mut self, now: Duration, throttle: &Throttle) -> Option<Asked> {
        while let Some((until, key)) = self.pauses.pop_first() {
            if until > now {
                self.pauses.insert((until, key));
                break;
            }
            self.due.insert(key);
        }
        self.due.extend(&self.lagging);
        let mut named = HashMap::new();
        for key in std::mem::take(&mut self.due) {
            match self.look_at(key, now, throttle) {
                Some(fetch) if self.asked.insert(key, fetch) == Some(fetch) => {}
                Some(fetch) => {
                    self.forgotten.remove(&key);
                    named.insert(key, fetch);
                }
                None if self.asked.remove(&key).is_some() => {
                    self.forgotten.insert(key);
                }
                None => {}
            }
        }
        if self.asked.is_empty() {
            return None;
        }
        let is_whole = self.session_epoch == INITIAL_EPOCH;
        let forgotten = std::mem::take(&mut self.forgotten);
        Some(Asked {
            session_id: self.session_id,
            session_epoch: self.session_epoch,
            // A session begins, or there is none: all is named.
            named: if is_whole { self.asked.clone() } else { named },
            forgotten: if is_whole { HashSet::new() } else { forgotten },
        })
    }

    /// What to ask for a partition. One that can't be asked for and knows until when is put among those that pause.
    fn look_at(&mut self, key: Key, now: Duration, throttle: &Throttle) -> Option<Fetch> {
        let replica = self.replicas.get(&key)?;
        let wanted = replica.next_fetch(self.leader, now);
        let lags = wanted.is_some() && replica.is_throttled_and_lags(self.leader);
        let held_back = if lags { throttle.wait(now) } else { None };
        let fetch = wanted.filter(|_| held_back.is_none());
        if lags && fetch.is_some() {
            self.lagging.insert(key);
        } else {
            self.lagging.remove(&key);
        }
        if fetch.is_none() {
            let pause = held_back.map(|wait| now + wait.min(THROTTLED_MAX));
            if let Some(until) = pause.or_else(|| replica.fetch_deadline()) {
                self.pauses.insert((until, key));
            }
        }
        fetch
    }

    /// Appends what has come. Returns those about whose leader more must be asked.
    pub(super) fn take(
        &mut self,
        response: FetchResponse,
        now: Duration,
        throttle: &Throttle,
    ) -> Vec<Arc<Replica>> {
        self.answered(response.session_id);
        let mut errands = Vec::new();
        for topic in response.responses {
            for data in topic.partitions {
                let key = (topic.topic_id, PartitionIndex(data.partition_index));
                let (Some(replica), Some(asked)) = (self.replicas.get(&key), self.asked.get(&key))
                else {
                    continue;
                };
                self.due.insert(key);
                let fetched = fetched(data);
                if replica.is_throttled_as_follower() {
                    throttle.note(fetched.len(), now);
                }
                let errand = replica.on_fetched(self.leader, asked, fetched, now);
                if errand == Errand::AskLeaderOffsets {
                    errands.push(Arc::clone(replica));
                }
            }
        }
        errands
    }

    /// A session that the leader did not take up names everything each time.
    fn answered(&mut self, session_id: i32) {
        self.session_id = session_id;
        self.session_epoch = match session_id {
            0 => 0,
            _ => self.session_epoch.checked_add(1).unwrap_or(1),
        };
    }
}

impl Asked {
    pub(super) fn into_message(
        self,
        registration: Registration,
        settings: &FetchSettings,
    ) -> FetchRequest {
        let mut topics: BTreeMap<TopicId, Vec<FetchPartition>> = BTreeMap::new();
        for ((topic, partition), fetch) in self.named {
            topics.entry(topic).or_default().push(partition_of(partition, &fetch, settings));
        }
        let mut forgotten: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in self.forgotten {
            forgotten.entry(topic).or_default().push(partition.0);
        }
        let topic =
            |(topic_id, partitions)| FetchTopic { topic_id, partitions, ..FetchTopic::default() };
        let forget = |(topic_id, partitions)| ForgottenTopic {
            topic_id,
            partitions,
            ..ForgottenTopic::default()
        };
        FetchRequest {
            replica_state: ReplicaState {
                replica_id: registration.id.0,
                replica_epoch: registration.epoch,
            },
            max_wait_ms: settings.wait_max_ms,
            min_bytes: settings.min_bytes,
            max_bytes: settings.response_max_bytes,
            session_id: self.session_id,
            session_epoch: self.session_epoch,
            topics: topics.into_iter().map(topic).collect(),
            forgotten_topics_data: forgotten.into_iter().map(forget).collect(),
            ..FetchRequest::default()
        }
    }
}

fn partition_of(
    partition: PartitionIndex,
    fetch: &Fetch,
    settings: &FetchSettings,
) -> FetchPartition {
    FetchPartition {
        partition: partition.0,
        current_leader_epoch: fetch.current_leader_epoch.0,
        fetch_offset: fetch.fetch_offset.0,
        last_fetched_epoch: fetch.last_fetched_epoch.map_or(-1, |epoch| epoch.0),
        log_start_offset: fetch.log_start_offset.0,
        partition_max_bytes: settings.max_bytes,
        ..FetchPartition::default()
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

#[cfg(test)]
mod tests {
    use ottla_base::{ErrorCode, Timestamp};
    use ottla_log::CleanableLogs as _;
    use ottla_protocol::messages::fetch_response::FetchableTopicResponse;
    use ottla_replication::Windows;

    use super::*;
    use crate::fetchers::FetchNews;
    use crate::replica::{Throttling, following, unflushed_log};
    use crate::replicas::Replicas;
    use crate::throttles::Throttles;

    const LEADER: BrokerId = BrokerId(2);

    fn key_of(replica: &Replica) -> Key {
        (replica.topic_id, replica.partition.partition)
    }

    struct Fixture {
        conversation: Conversation,
        replica: Arc<Replica>,
        throttles: Throttles,
        now: Duration,
        _directory: tempfile::TempDir,
    }

    impl Fixture {
        /// An empty log that follows [`LEADER`].
        fn new() -> Self {
            Self::with(&[])
        }

        /// A log with a record for each of these times.
        fn with(times: &[Timestamp]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let replica = Arc::new(following(unflushed_log(&directory, times), LEADER));
            let replicas = HashMap::from([(key_of(&replica), Arc::clone(&replica))]);
            let windows = Windows { count: 11, size: Duration::from_secs(1) };
            Self {
                conversation: Conversation::new(LEADER, replicas, NO_SESSION),
                replica,
                throttles: Throttles::new(windows),
                now: Duration::from_secs(100),
                _directory: directory,
            }
        }

        /// How many partitions are named and taken out, and in which epoch of the session.
        fn ask(&mut self) -> Option<(usize, usize, i32)> {
            let asked = self.conversation.ask(self.now, &self.throttles.follower)?;
            Some((asked.named.len(), asked.forgotten.len(), asked.session_epoch))
        }

        fn answer(&mut self, data: Option<PartitionData>) {
            let responses = data.map(|data| FetchableTopicResponse {
                topic_id: self.replica.topic_id,
                partitions: vec![data],
                ..FetchableTopicResponse::default()
            });
            let response = FetchResponse {
                session_id: 7,
                responses: responses.into_iter().collect(),
                ..FetchResponse::default()
            };
            let errands = self.conversation.take(response, self.now, &self.throttles.follower);
            assert!(errands.is_empty());
        }
    }

    fn nothing_below(high_watermark: i64) -> PartitionData {
        let none =
            ottla_protocol::messages::fetch_response::EpochEndOffset { epoch: -1, end_offset: -1 };
        PartitionData { high_watermark, diverging_epoch: none, ..PartitionData::default() }
    }

    #[test]
    fn only_what_has_changed_is_named_again() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.ask(), Some((1, 0, 0)));
        fixture.answer(Some(nothing_below(0)));
        assert_eq!(fixture.ask(), Some((0, 0, 1)), "the same question");
        fixture.answer(None);
        assert_eq!(fixture.ask(), Some((0, 0, 2)));
        fixture.conversation.begin_anew(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        assert_eq!(fixture.ask(), Some((1, 0, 0)), "the leader knows nothing any more");
    }

    #[test]
    fn a_session_is_ended_when_another_one_begins() {
        let mut fixture = Fixture::new();
        let asks = |fixture: &mut Fixture| {
            let asked = fixture.conversation.ask(fixture.now, &fixture.throttles.follower).unwrap();
            (asked.session_id, asked.session_epoch)
        };
        assert_eq!(asks(&mut fixture), (NO_SESSION, INITIAL_EPOCH));
        fixture.answer(Some(nothing_below(0)));
        assert_eq!(asks(&mut fixture), (7, 1));
        fixture.conversation.begin_anew(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        assert_eq!(asks(&mut fixture), (7, INITIAL_EPOCH));
        let replicas = std::mem::take(&mut fixture.conversation.replicas);
        fixture.conversation = Conversation::new(LEADER, replicas, 7);
        assert_eq!(asks(&mut fixture), (7, INITIAL_EPOCH), "over another connection, too");
        fixture.conversation.begin_anew(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        assert_eq!(asks(&mut fixture), (NO_SESSION, INITIAL_EPOCH));
    }

    #[test]
    fn a_partition_that_was_refused_pauses_outside_of_the_session() {
        let mut fixture = Fixture::new();
        fixture.ask();
        fixture.answer(Some(nothing_below(0)));
        fixture.ask();
        let error_code = ErrorCode::NOT_LEADER_OR_FOLLOWER;
        fixture.answer(Some(PartitionData { error_code, ..nothing_below(0) }));
        assert_eq!(fixture.ask(), None);
        let pause = fixture.conversation.pause(fixture.now).unwrap();
        fixture.now += pause;
        assert_eq!(fixture.ask(), Some((1, 0, 2)), "it comes back before it was taken out");
        assert_eq!(fixture.conversation.pause(fixture.now), None);
    }

    #[test]
    fn the_leader_is_told_where_the_log_begins_once_retention_has_cut_it() {
        let by_the_broker = |replica: &Arc<Replica>| {
            replica.enforce_retention(Timestamp(i64::MAX / 2));
        };
        let by_the_cleaner = |replica: &Arc<Replica>| {
            let (replicas, log) = (Replicas::default(), replica.log());
            replicas.insert(Arc::clone(replica));
            log.enforce_retention(i64::MAX / 2, replica.high_watermark()).unwrap();
            replicas.shortened(&log);
        };
        for enforce_retention in [by_the_broker, by_the_cleaner] {
            let mut fixture = Fixture::with(&[Timestamp(1_000); 3]);
            let news = Arc::<FetchNews>::default();
            fixture.replica.set_fetch_news(Some(Arc::clone(&news)));
            fixture.ask();
            fixture.answer(Some(nothing_below(3)));
            assert_eq!(fixture.ask(), Some((0, 0, 1)));
            enforce_retention(&fixture.replica);
            fixture.conversation.hear(news.take());
            let asked = fixture.conversation.ask(fixture.now, &fixture.throttles.follower).unwrap();
            let named = asked.named.get(&key_of(&fixture.replica));
            assert_eq!(named.map(|fetch| fetch.log_start_offset), Some(Offset(3)));
        }
    }

    #[test]
    fn a_replica_whose_disk_has_failed_is_taken_out_of_the_session() {
        let mut fixture = Fixture::new();
        let news = Arc::<FetchNews>::default();
        fixture.replica.set_fetch_news(Some(Arc::clone(&news)));
        fixture.ask();
        fixture.answer(Some(nothing_below(0)));
        assert_eq!(fixture.ask(), Some((0, 0, 1)));
        fixture.answer(None);
        fixture.replica.take_offline();
        fixture.conversation.hear(news.take());
        assert_eq!(fixture.ask(), None);
        assert_eq!(fixture.conversation.forgotten, HashSet::from([key_of(&fixture.replica)]));
    }

    #[test]
    fn a_replica_that_is_throttled_and_behind_waits_and_one_in_sync_does_not() {
        let mut fixture = Fixture::new();
        fixture.replica.set_throttled(Throttling { as_leader: false, as_follower: true });
        fixture.throttles.follower.allow(Some(1_000));
        fixture.ask();
        fixture.answer(Some(nothing_below(0)));
        fixture.throttles.follower.note(5_000, fixture.now);
        assert_eq!(fixture.ask(), Some((0, 0, 1)), "it has what is visible");
        fixture.answer(Some(nothing_below(9)));
        assert_eq!(fixture.ask(), None, "it lacks nine records, and others took too much");
        fixture.throttles.follower.allow(None);
        fixture.now += fixture.conversation.pause(fixture.now).unwrap();
        assert_eq!(fixture.ask(), Some((1, 0, 2)));
    }
}
