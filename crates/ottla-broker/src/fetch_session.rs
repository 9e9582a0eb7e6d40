//! Incremental fetch sessions (KIP-227): a client names its partitions once, later only what changed.
//!
//! Pure: requests and answers come in as method calls with the time of the event.
//!
//! Who gets a slot when all are taken is decided as in Kafka: a session that was idle for two minutes gives way to
//! anybody, one that is two minutes old to a larger one, and one of a consumer to a follower's, which is *privileged*.
//!
//! Invariants: `sessions.len() <= slots`; all sessions together have at most [`PARTITIONS_MAX`] partitions; a session's epoch is the one that its next request must
//! carry, and is never 0 or −1; a session that forgot its last partition is gone.

use std::collections::{BTreeMap, HashMap};

use ottla_base::{ErrorCode, TopicId};

/// What a sessionless request, or one that ends a session, carries as its epoch.
pub(crate) const FINAL_EPOCH: i32 = -1;
/// What a request carries that asks for a new session.
pub(crate) const INITIAL_EPOCH: i32 = 0;
/// The session id of an answer that made no session.
pub(crate) const NO_SESSION: i32 = 0;

/// A session that was not used for so long gives way to a new one, and one that is in use for so long to a larger one (Kafka's
/// `min.incremental.fetch.session.eviction.ms`).
const EVICTION_MS: i64 = 120_000;

/// How many partitions all sessions may remember together, some 200 bytes each. Apache Kafka bounds the sessions alone: a
/// thousand of ten thousand partitions would be gigabytes. Whoever gets no session names its partitions every time.
const PARTITIONS_MAX: usize = 1_000_000;

/// How a fetch names a partition: by topic id from version 13 on, by name before.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PartitionKey {
    pub topic_id: TopicId,
    pub topic: bytestring::ByteString,
    pub partition: i32,
}

/// What a fetch asks of one partition. Units: offsets, epochs, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionRequest {
    pub key: PartitionKey,
    pub fetch_offset: i64,
    pub partition_max_bytes: i32,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
    pub log_start_offset: i64,
    /// The high watermark that the session has told last; [`NOBODY_COMPARES`] where it tells all of them each time.
    pub told_high_watermark: i64,
}

/// The high watermark that is told to whoever has no session.
pub(crate) const NOBODY_COMPARES: i64 = i64::MAX;

/// What decides whether an incremental answer must carry a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionAnswer {
    pub error: ErrorCode,
    pub high_watermark: i64,
    pub log_start_offset: i64,
    pub has_records: bool,
    /// A diverging epoch or a preferred read replica was found: always told.
    pub has_news: bool,
}

/// The head of a fetch request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestHead {
    pub session_id: i32,
    pub session_epoch: i32,
    pub uses_topic_ids: bool,
    /// A follower asks.
    pub is_privileged: bool,
}

/// How a fetch is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With all partitions; there is no session.
    Sessionless,
    /// With all partitions; `session_id` is new.
    Full { session_id: i32 },
    /// With those that [`Sessions::must_answer`].
    Incremental { session_id: i32 },
}

impl Kind {
    /// The session that the answer names.
    #[must_use]
    pub(crate) const fn session_id(self) -> i32 {
        match self {
            Self::Sessionless => NO_SESSION,
            Self::Full { session_id } | Self::Incremental { session_id } => session_id,
        }
    }
}

/// How to answer, and what to fetch.
pub(crate) type Begun = (Kind, Vec<PartitionRequest>);

#[derive(Debug)]
struct Cached {
    request: PartitionRequest,
    answered_high_watermark: i64,
    answered_log_start_offset: i64,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    uses_topic_ids: bool,
    is_privileged: bool,
    created_ms: i64,
    last_used_ms: i64,
    /// In the order in which they are fetched; one that returned records goes to the end, so that
    /// no partition starves behind a busy one.
    partitions: BTreeMap<u64, Cached>,
    order: HashMap<PartitionKey, u64>,
    next_position: u64,
}

/// All sessions of a broker.
#[derive(Debug)]
pub(crate) struct Sessions {
    sessions: HashMap<i32, Session>,
    slots: usize,
    partitions_max: usize,
}

impl Sessions {
    /// `slots` is Kafka's `max.incremental.fetch.session.cache.slots`.
    #[must_use]
    pub(crate) fn new(slots: usize) -> Self {
        Self { sessions: HashMap::new(), slots, partitions_max: PARTITIONS_MAX }
    }

    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Begins a fetch: how to answer it, and what to fetch. `random_id` proposes the id of a new session, if there is one; it is made positive and free.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH or FETCH_SESSION_TOPIC_ID_ERROR for
    /// the whole request.
    pub(crate) fn begin(
        &mut self,
        now_ms: i64,
        head: RequestHead,
        partitions: Vec<PartitionRequest>,
        forgotten: &[PartitionKey],
        random_id: impl FnOnce() -> i32,
    ) -> Result<Begun, ErrorCode> {
        match head.session_epoch {
            FINAL_EPOCH => {
                self.sessions.remove(&head.session_id);
                Ok((Kind::Sessionless, partitions))
            }
            INITIAL_EPOCH => {
                self.sessions.remove(&head.session_id);
                Ok(self.open(now_ms, head, partitions, random_id()))
            }
            _ => self.resume(now_ms, head, partitions, forgotten),
        }
    }

    /// Remembers what the first answer of a session says of a partition.
    pub(crate) fn answered(
        &mut self,
        session_id: i32,
        key: &PartitionKey,
        answer: PartitionAnswer,
    ) {
        if let Some(session) = self.sessions.get_mut(&session_id) {
            session.answered(key, answer);
        }
    }

    /// Whether the answer of an incremental fetch must carry this partition; remembers that it did.
    pub(crate) fn must_answer(
        &mut self,
        session_id: i32,
        key: &PartitionKey,
        answer: PartitionAnswer,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&session_id) else { return true };
        let is_news = session.answered(key, answer);
        if answer.has_records {
            session.move_to_end(key);
        }
        is_news
    }

    fn open(
        &mut self,
        now_ms: i64,
        head: RequestHead,
        partitions: Vec<PartitionRequest>,
        random_id: i32,
    ) -> Begun {
        let size = partitions.len();
        let is_privileged = head.is_privileged;
        if !self.make_room_for(now_ms, size, is_privileged)
            || !self.free_slot(now_ms, is_privileged, size)
        {
            return (Kind::Sessionless, partitions);
        }
        let mut session_id = random_id.checked_abs().unwrap_or(1).max(1);
        while self.sessions.contains_key(&session_id) {
            session_id = session_id.checked_add(1).unwrap_or(1);
        }
        let mut session = Session::new(now_ms, head);
        partitions.iter().cloned().for_each(|request| session.upsert(request));
        let partitions = session.requests();
        self.sessions.insert(session_id, session);
        (Kind::Full { session_id }, partitions)
    }

    fn resume(
        &mut self,
        now_ms: i64,
        head: RequestHead,
        partitions: Vec<PartitionRequest>,
        forgotten: &[PartitionKey],
    ) -> Result<Begun, ErrorCode> {
        let session =
            self.sessions.get_mut(&head.session_id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != head.session_epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.uses_topic_ids != head.uses_topic_ids {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        session.last_used_ms = now_ms;
        let is_new = |it: &&PartitionRequest| !session.order.contains_key(&it.key);
        let added = partitions.iter().filter(is_new).count();
        if added > 0 && !self.make_room_for(now_ms, added, head.is_privileged) {
            self.sessions.remove(&head.session_id);
        }
        // It may also be one that has given way.
        let session =
            self.sessions.get_mut(&head.session_id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        partitions.into_iter().for_each(|request| session.upsert(request));
        forgotten.iter().for_each(|key| session.forget(key));
        if session.partitions.is_empty() {
            self.sessions.remove(&head.session_id);
            return Ok((Kind::Sessionless, Vec::new()));
        }
        session.epoch = session.epoch.checked_add(1).unwrap_or(1);
        Ok((Kind::Incremental { session_id: head.session_id }, session.requests()))
    }

    /// Whether so many partitions more can be remembered. What nobody has used for long is given up for that, and for a
    /// follower's sake consumers' sessions, too, the smallest first: a broker with ten thousand partitions should not have to
    /// name them all twice a second. Where that is not enough, nobody gives way.
    fn make_room_for(&mut self, now_ms: i64, partitions: usize, is_privileged: bool) -> bool {
        let held: usize = self.sessions.values().map(|session| session.partitions.len()).sum();
        let mut missing = (held + partitions).saturating_sub(self.partitions_max);
        if missing == 0 {
            return true;
        }
        let may_go = |(_, session): &(&i32, &Session)| {
            session.is_idle(now_ms) || is_privileged && !session.is_privileged
        };
        let sessions = self.sessions.iter().filter(may_go);
        let mut least: Vec<_> =
            sessions.map(|(id, session)| (!session.is_idle(now_ms), session.worth(*id))).collect();
        if least.iter().map(|(_, (_, size, _))| size).sum::<usize>() < missing {
            return false;
        }
        least.sort_unstable();
        for (_, (_, size, id)) in least {
            self.sessions.remove(&id);
            missing = missing.saturating_sub(size);
            if missing == 0 {
                break;
            }
        }
        true
    }

    /// Whether there is a free slot, after letting go of a session that is worth less than the new one.
    fn free_slot(&mut self, now_ms: i64, is_privileged: bool, size: usize) -> bool {
        if self.sessions.len() < self.slots {
            return true;
        }
        let least = self.idle_for_longest(now_ms).or_else(|| {
            let may_go = |(_, session): &(&i32, &Session)| {
                session.is_old() || is_privileged && !session.is_privileged
            };
            let sessions = self.sessions.iter().filter(may_go);
            let least = sessions.map(|(id, session)| session.worth(*id)).min()?;
            ((is_privileged, size, 0) >= least).then_some(least.2)
        });
        least.is_some_and(|id| self.sessions.remove(&id).is_some())
    }

    /// The session that was not used for longest, if that is too long.
    fn idle_for_longest(&self, now_ms: i64) -> Option<i32> {
        let oldest = self.sessions.iter().min_by_key(|(id, it)| (it.last_used_ms, **id));
        oldest.filter(|(_, it)| it.is_idle(now_ms)).map(|(id, _)| *id)
    }
}

impl Session {
    fn new(now_ms: i64, head: RequestHead) -> Self {
        Self {
            epoch: 1,
            uses_topic_ids: head.uses_topic_ids,
            is_privileged: head.is_privileged,
            created_ms: now_ms,
            last_used_ms: now_ms,
            partitions: BTreeMap::new(),
            order: HashMap::new(),
            next_position: 0,
        }
    }

    const fn is_idle(&self, now_ms: i64) -> bool {
        now_ms - self.last_used_ms > EVICTION_MS
    }

    /// Whether it was still used two minutes after it began: sessions that came later should have a chance.
    const fn is_old(&self) -> bool {
        self.last_used_ms - self.created_ms > EVICTION_MS
    }

    /// What gives way first is what is worth least; among equals, Kafka goes by the id.
    fn worth(&self, id: i32) -> (bool, usize, i32) {
        (self.is_privileged, self.partitions.len(), id)
    }

    fn upsert(&mut self, request: PartitionRequest) {
        if let Some(cached) =
            self.order.get(&request.key).and_then(|position| self.partitions.get_mut(position))
        {
            cached.request = request;
            return;
        }
        // A copy: a slice would keep the whole frame that the session began with.
        let topic = bytestring::ByteString::from(&*request.key.topic);
        let key = PartitionKey { topic, ..request.key };
        let request = PartitionRequest { key: key.clone(), ..request };
        self.push(
            key,
            Cached { request, answered_high_watermark: -1, answered_log_start_offset: -1 },
        );
    }

    fn push(&mut self, key: PartitionKey, cached: Cached) {
        self.order.insert(key, self.next_position);
        self.partitions.insert(self.next_position, cached);
        self.next_position += 1;
    }

    /// In the order in which they are fetched.
    fn requests(&self) -> Vec<PartitionRequest> {
        let request = |cached: &Cached| PartitionRequest {
            told_high_watermark: cached.answered_high_watermark,
            ..cached.request.clone()
        };
        self.partitions.values().map(request).collect()
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(position) = self.order.remove(key) {
            self.partitions.remove(&position);
        }
    }

    /// Remembers what a client is told; whether it says anything new.
    fn answered(&mut self, key: &PartitionKey, answer: PartitionAnswer) -> bool {
        let Some(cached) =
            self.order.get(key).and_then(|position| self.partitions.get_mut(position))
        else {
            return true;
        };
        let is_error = answer.error.is_error();
        let changed = cached.answered_high_watermark != answer.high_watermark
            || cached.answered_log_start_offset != answer.log_start_offset;
        // The first answer after an error must come through, even if nothing else changed.
        cached.answered_high_watermark = if is_error { -1 } else { answer.high_watermark };
        cached.answered_log_start_offset = answer.log_start_offset;
        changed || is_error || answer.has_records || answer.has_news
    }

    fn move_to_end(&mut self, key: &PartitionKey) {
        let cached = self.order.get(key).and_then(|position| self.partitions.remove(position));
        if let Some(cached) = cached {
            self.push(key.clone(), cached);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_at_most(partitions: usize) -> Sessions {
        Sessions { partitions_max: partitions, ..Sessions::new(10) }
    }

    #[test]
    fn sessions_remember_no_more_partitions_together_than_allowed() {
        let mut sessions = of_at_most(3);
        let mut begin = |id, epoch, partitions: std::ops::Range<i32>| {
            let head = RequestHead {
                session_id: id,
                session_epoch: epoch,
                uses_topic_ids: true,
                is_privileged: false,
            };
            sessions.begin(0, head, some(partitions), &[], || 7)
        };
        let Ok((Kind::Full { session_id }, _)) = begin(0, INITIAL_EPOCH, 0..2) else {
            panic!("there is room for two");
        };
        assert!(
            matches!(begin(0, INITIAL_EPOCH, 0..2), Ok((Kind::Sessionless, all)) if all.len() == 2)
        );
        assert!(matches!(begin(session_id, 1, 2..3), Ok((Kind::Incremental { .. }, _))));
        assert_eq!(begin(session_id, 2, 3..4), Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert!(matches!(begin(0, INITIAL_EPOCH, 0..2), Ok((Kind::Full { .. }, _))));
    }

    fn some(partitions: std::ops::Range<i32>) -> Vec<PartitionRequest> {
        partitions.map(|partition| request(partition, 0)).collect()
    }

    fn whole(id: i32, is_privileged: bool) -> RequestHead {
        RequestHead { session_id: id, is_privileged, ..head(id, INITIAL_EPOCH) }
    }

    fn is_full(begun: Result<Begun, ErrorCode>) -> bool {
        matches!(begun, Ok((Kind::Full { .. }, _)))
    }

    #[test]
    fn a_session_that_nobody_uses_keeps_no_room_from_others() {
        let mut sessions = of_at_most(3);
        assert!(is_full(sessions.begin(0, whole(0, true), some(0..3), &[], || 7)));
        let later = |sessions: &mut Sessions, now_ms, is_privileged| {
            is_full(sessions.begin(now_ms, whole(0, is_privileged), some(0..3), &[], || 8))
        };
        assert!(!later(&mut sessions, EVICTION_MS, true));
        assert!(later(&mut sessions, EVICTION_MS + 1, false));
        assert!(later(&mut sessions, EVICTION_MS + 2, true), "a consumer's gives way");
    }

    #[test]
    fn nobody_gives_way_to_a_session_that_has_no_room_all_the_same() {
        let mut sessions = of_at_most(4);
        assert!(is_full(sessions.begin(0, whole(0, false), some(0..1), &[], || 7)));
        assert!(is_full(sessions.begin(0, whole(0, true), some(0..2), &[], || 8)));
        assert!(!is_full(sessions.begin(0, whole(0, true), some(0..3), &[], || 9)));
        assert!(sessions.begin(0, head(7, 1), Vec::new(), &[], || 7).is_ok());
    }

    #[test]
    fn a_late_request_of_an_epoch_that_is_over_ends_no_session() {
        let mut sessions = of_at_most(3);
        assert!(is_full(sessions.begin(0, whole(0, false), some(0..2), &[], || 7)));
        assert!(sessions.begin(0, head(7, 1), Vec::new(), &[], || 7).is_ok());
        let late = sessions.begin(0, head(7, 1), some(2..9), &[], || 7);
        assert_eq!(late, Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        assert!(sessions.begin(0, head(7, 2), Vec::new(), &[], || 7).is_ok());
    }

    fn request(partition: i32, fetch_offset: i64) -> PartitionRequest {
        PartitionRequest {
            key: key(partition),
            fetch_offset,
            partition_max_bytes: 1024,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            told_high_watermark: NOBODY_COMPARES,
        }
    }

    fn key(partition: i32) -> PartitionKey {
        PartitionKey { topic_id: TopicId::from_u128(7), topic: "".into(), partition }
    }

    fn head(session_id: i32, session_epoch: i32) -> RequestHead {
        RequestHead { session_id, session_epoch, uses_topic_ids: true, is_privileged: false }
    }

    fn answer(high_watermark: i64, has_records: bool) -> PartitionAnswer {
        PartitionAnswer {
            error: ErrorCode::NONE,
            high_watermark,
            log_start_offset: 0,
            has_records,
            has_news: false,
        }
    }

    fn open(sessions: &mut Sessions, partitions: &[i32]) -> i32 {
        let partitions = partitions.iter().map(|&p| request(p, 0)).collect();
        match sessions.begin(0, head(0, INITIAL_EPOCH), partitions, &[], || 42) {
            Ok((Kind::Full { session_id }, _)) => session_id,
            other => panic!("no new session: {other:?}"),
        }
    }

    fn fetched(begun: Result<Begun, ErrorCode>) -> Vec<(i32, i64)> {
        match begun {
            Ok((Kind::Incremental { .. }, partitions)) => {
                partitions.iter().map(|p| (p.key.partition, p.fetch_offset)).collect()
            }
            other => panic!("not incremental: {other:?}"),
        }
    }

    #[test]
    fn a_session_remembers_what_was_asked_and_takes_changes() {
        let mut sessions = Sessions::new(10);
        let id = open(&mut sessions, &[0, 1, 2]);
        let begun = sessions.begin(1, head(id, 1), vec![request(1, 9)], &[key(2)], || 0);
        assert_eq!(fetched(begun), [(0, 0), (1, 9)]);
        assert_eq!(fetched(sessions.begin(1, head(id, 2), vec![], &[], || 0)), [(0, 0), (1, 9)]);
    }

    #[test]
    fn a_partition_that_returned_records_goes_to_the_end_but_not_at_first() {
        let mut sessions = Sessions::new(10);
        let id = open(&mut sessions, &[0, 1]);
        sessions.answered(id, &key(0), answer(3, true));
        assert_eq!(fetched(sessions.begin(1, head(id, 1), vec![], &[], || 0)), [(0, 0), (1, 0)]);
        assert!(sessions.must_answer(id, &key(0), answer(5, true)));
        assert_eq!(fetched(sessions.begin(1, head(id, 2), vec![], &[], || 0)), [(1, 0), (0, 0)]);
    }

    #[test]
    fn an_incremental_answer_carries_only_what_changed() {
        let mut sessions = Sessions::new(10);
        let id = open(&mut sessions, &[0]);
        assert!(
            sessions.must_answer(id, &key(0), answer(5, false)),
            "first word on this partition"
        );
        assert!(!sessions.must_answer(id, &key(0), answer(5, false)));
        assert!(sessions.must_answer(id, &key(0), answer(6, false)), "the high watermark moved");
        let failed = PartitionAnswer { error: ErrorCode::CORRUPT_MESSAGE, ..answer(6, false) };
        assert!(sessions.must_answer(id, &key(0), failed));
        assert!(sessions.must_answer(id, &key(0), answer(6, false)), "the error is over");
        assert!(!sessions.must_answer(id, &key(0), answer(6, false)));
    }

    #[test]
    fn a_session_knows_the_high_watermarks_that_it_has_told() {
        let mut sessions = Sessions::new(10);
        let id = open(&mut sessions, &[0]);
        sessions.answered(id, &key(0), answer(3, false));
        let told = |sessions: &mut Sessions, epoch| match sessions.begin(
            1,
            head(id, epoch),
            vec![request(0, 7)],
            &[],
            || 0,
        ) {
            Ok((Kind::Incremental { .. }, partitions)) => partitions[0].told_high_watermark,
            other => panic!("not incremental: {other:?}"),
        };
        assert_eq!(told(&mut sessions, 1), 3);
        sessions.must_answer(id, &key(0), answer(5, false));
        assert_eq!(told(&mut sessions, 2), 5);
    }

    #[test]
    fn wrong_ids_epochs_and_namings_are_told_apart() {
        let mut sessions = Sessions::new(10);
        let id = open(&mut sessions, &[0]);
        let mut begin = |head| sessions.begin(1, head, vec![], &[], || 0);
        assert_eq!(begin(head(id + 1, 1)), Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
        assert_eq!(begin(head(id, 2)), Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        let by_name = RequestHead { uses_topic_ids: false, ..head(id, 1) };
        assert_eq!(begin(by_name), Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR));
    }

    #[test]
    fn a_full_cache_answers_without_a_session_until_one_is_idle_for_two_minutes() {
        let mut sessions = Sessions::new(1);
        open(&mut sessions, &[0]);
        let mut begin =
            |now| sessions.begin(now, head(0, INITIAL_EPOCH), vec![request(0, 0)], &[], || 7);
        assert!(matches!(begin(EVICTION_MS), Ok((Kind::Sessionless, _))));
        assert!(matches!(begin(EVICTION_MS + 1), Ok((Kind::Full { .. }, _))));
        assert_eq!(sessions.len(), 1);
    }

    /// Opens a session of so many partitions; the sessions' ids are those that are asked for.
    fn try_open(
        sessions: &mut Sessions,
        now_ms: i64,
        is_privileged: bool,
        size: i32,
        id: i32,
    ) -> bool {
        let head = RequestHead { is_privileged, ..head(0, INITIAL_EPOCH) };
        let partitions = (0..size).map(|p| request(p, 0)).collect();
        let begun = sessions.begin(now_ms, head, partitions, &[], || id);
        matches!(begun, Ok((Kind::Full { session_id }, _)) if session_id == id)
    }

    fn ids(sessions: &Sessions) -> Vec<i32> {
        let mut ids: Vec<_> = sessions.sessions.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_follower_takes_the_slot_of_the_smallest_consumer_at_once_but_of_no_follower() {
        let mut sessions = Sessions::new(3);
        assert!(try_open(&mut sessions, 0, false, 5, 1));
        assert!(try_open(&mut sessions, 0, false, 4, 2));
        assert!(try_open(&mut sessions, 0, true, 1, 3));
        assert!(!try_open(&mut sessions, 1, false, 9, 4), "a consumer must wait");
        assert!(try_open(&mut sessions, 1, true, 1, 5));
        assert_eq!(ids(&sessions), [1, 3, 5]);
        assert!(try_open(&mut sessions, 1, true, 1, 6));
        assert!(!try_open(&mut sessions, 1, true, 9, 7), "only followers are left");
        assert_eq!(ids(&sessions), [3, 5, 6]);
    }

    #[test]
    fn after_two_minutes_of_use_a_session_gives_way_to_a_larger_one() {
        let mut sessions = Sessions::new(2);
        assert!(try_open(&mut sessions, 0, false, 2, 1));
        assert!(try_open(&mut sessions, 0, true, 1, 2));
        for id in [1, 2] {
            sessions.begin(EVICTION_MS, head(id, 1), vec![], &[], || 0).unwrap();
        }
        assert!(!try_open(&mut sessions, EVICTION_MS, false, 9, 3), "not for longer than that");
        for id in [1, 2] {
            sessions.begin(EVICTION_MS + 1, head(id, 2), vec![], &[], || 0).unwrap();
        }
        assert!(!try_open(&mut sessions, EVICTION_MS + 1, false, 2, 3), "it is no larger");
        assert!(try_open(&mut sessions, EVICTION_MS + 1, false, 3, 3));
        assert_eq!(ids(&sessions), [2, 3]);
        assert!(!try_open(&mut sessions, EVICTION_MS + 1, false, 9, 4), "a follower is worth more");
        assert!(try_open(&mut sessions, EVICTION_MS + 1, true, 1, 4), "than a consumer");
        assert!(
            !try_open(&mut sessions, EVICTION_MS + 1, true, 1, 5),
            "as large as the old follower"
        );
        assert!(try_open(&mut sessions, EVICTION_MS + 1, true, 2, 5));
        assert_eq!(ids(&sessions), [4, 5]);
    }

    #[test]
    fn a_followers_partitions_come_before_those_of_consumers() {
        let mut sessions = of_at_most(6);
        assert!(try_open(&mut sessions, 0, false, 2, 1));
        assert!(try_open(&mut sessions, 0, false, 3, 2));
        assert!(try_open(&mut sessions, 0, true, 2, 3));
        assert_eq!(ids(&sessions), [2, 3]);
        let head = RequestHead { is_privileged: true, ..head(3, 1) };
        let more = (2..4).map(|p| request(p, 0)).collect();
        assert!(matches!(
            sessions.begin(0, head, more, &[], || 0),
            Ok((Kind::Incremental { .. }, _))
        ));
        assert_eq!(ids(&sessions), [3]);
        assert!(!try_open(&mut sessions, 0, true, 7, 4), "no more than there may be");
    }

    #[test]
    fn the_final_epoch_ends_a_session() {
        let mut sessions = Sessions::new(10);
        let id = open(&mut sessions, &[0]);
        let begun = sessions.begin(1, head(id, FINAL_EPOCH), vec![request(3, 0)], &[], || 0);
        assert!(matches!(begun, Ok((Kind::Sessionless, partitions)) if partitions.len() == 1));
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn a_session_that_forgot_all_its_partitions_is_gone() {
        let mut sessions = Sessions::new(10);
        let id = open(&mut sessions, &[0]);
        let begun = sessions.begin(1, head(id, 1), vec![], &[key(0)], || 0);
        assert_eq!(begun, Ok((Kind::Sessionless, vec![])));
        assert_eq!(sessions.len(), 0);
    }
}
