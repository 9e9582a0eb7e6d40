//! Fetch sessions: partitions named once, later only what changed (KIP-227).

use anyhow::{Context, Result};
use ottla_protocol::messages::FetchRequest;
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};

use super::super::both::Both;
use super::super::subject::Subject;
use super::batches::three;
use super::{topic_id, topic_name, write};

const TOPIC: &str = "sessions";
const OTHER: &str = "sessions-other";
const SESSIONS_SINCE: i16 = 7;
const IDS_SINCE: i16 = 13;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create(TOPIC, 4, &[])?;
    both.create(OTHER, 1, &[])?;
    write(both, TOPIC, 0, &three())?;
    for version in super::versions::<FetchRequest>().filter(|version| *version >= SESSIONS_SINCE) {
        life(both, version)?;
        refusals(both, version)?;
        errors_inside(both, version)?;
        appearing(both, version)?;
    }
    namings(both)
}

/// The session of each broker.
type Ids = [i32; 2];

/// The epochs of a session, as its client counts them.
struct Session {
    version: i16,
    ids: Ids,
    epoch: i32,
}

fn request(id: i32, epoch: i32, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest {
        replica_id: -1,
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 1_000_000,
        session_id: id,
        session_epoch: epoch,
        topics,
        ..Default::default()
    }
}

fn topic(subject: &Subject, version: i16, name: &str, partitions: &[(i32, i64)]) -> FetchTopic {
    let partition = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        current_leader_epoch: -1,
        partition_max_bytes: 100_000,
        ..Default::default()
    };
    FetchTopic {
        topic: topic_name(version, name),
        topic_id: topic_id(subject, version, name),
        partitions: partitions.iter().map(partition).collect(),
    }
}

impl Session {
    fn open(both: &mut Both, version: i16, what: &str, partitions: &[(i32, i64)]) -> Result<Self> {
        let answers = both.ask(version, what, |subject| {
            request(0, 0, vec![topic(subject, version, TOPIC, partitions)])
        })?;
        let ids = answers.map(|answer| answer.map(|answer| answer.session_id));
        let [Some(kafka), Some(ottla)] = ids else {
            anyhow::bail!("a fetch that opens a session is answered")
        };
        Ok(Self { version, ids: [kafka, ottla], epoch: 1 })
    }

    fn ask(&mut self, both: &mut Both, what: &str, partitions: &[(i32, i64)]) -> Result<()> {
        let version = self.version;
        self.ask_with(both, what, |subject, plain| {
            let topics = vec![topic(subject, version, TOPIC, partitions)];
            FetchRequest {
                topics: if partitions.is_empty() { Vec::new() } else { topics },
                ..plain
            }
        })
    }

    fn ask_with(
        &mut self,
        both: &mut Both,
        what: &str,
        change: impl Fn(&Subject, FetchRequest) -> FetchRequest,
    ) -> Result<()> {
        both.ask_each(self.version, what, |subject, index| {
            let id = self.ids.get(index).copied().unwrap_or_default();
            change(subject, request(id, self.epoch, Vec::new()))
        })?;
        self.epoch += 1;
        Ok(())
    }

    /// Asks in another epoch or session, which does not count.
    fn ask_wrongly(
        &self,
        both: &mut Both,
        what: &str,
        version: i16,
        id: i32,
        epoch: i32,
    ) -> Result<()> {
        both.ask_each(version, what, |_, index| {
            let own = self.ids.get(index).copied().unwrap_or_default();
            // 0 more is the session itself; few sessions are neighbours.
            request(own.wrapping_add(id).max(1), epoch, Vec::new())
        })?;
        Ok(())
    }

    fn close(self, both: &mut Both) -> Result<()> {
        self.ask_wrongly(both, "closed", self.version, 0, -1)?;
        self.ask_wrongly(both, "after it was closed", self.version, 0, self.epoch)
    }
}

fn life(both: &mut Both, version: i16) -> Result<()> {
    let mut session = Session::open(both, version, "a session", &[(0, 0), (1, 0), (2, 0)])?;
    session.ask(both, "a session: again, as the records were not asked for anew", &[])?;
    let end = end_of(both, 0)?;
    session.ask(both, "a session: at the end", &[(0, end)])?;
    session.ask(both, "a session: nothing new", &[])?;
    write(both, TOPIC, 1, &three())?;
    session.ask(both, "a session: one partition has news", &[])?;
    session.ask(both, "a session: the news were read", &[(1, i64::MAX >> 20)])?;
    session.ask(both, "a session: an offset that is out of range stays so", &[])?;
    let end = end_of(both, 1)?;
    session.ask(both, "a session: the offset is put right", &[(1, end)])?;
    session.ask_with(
        both,
        "a session: another partition, and one forgotten",
        |subject, plain| FetchRequest {
            topics: vec![topic(subject, version, TOPIC, &[(3, 0)])],
            forgotten_topics_data: vec![forgotten(subject, version, TOPIC, 1)],
            ..plain
        },
    )?;
    write(both, TOPIC, 1, &three())?;
    session.ask(both, "a session: news of a partition that was forgotten", &[])?;
    session.ask_with(
        both,
        "a session: another topic, and what was never asked for forgotten",
        |subject, plain| FetchRequest {
            topics: vec![topic(subject, version, OTHER, &[(0, 0)])],
            forgotten_topics_data: vec![forgotten(subject, version, TOPIC, 77)],
            ..plain
        },
    )?;
    session.ask_with(both, "a session: all forgotten", |subject, plain| {
        let mut all = forgotten(subject, version, TOPIC, 0);
        all.partitions = vec![0, 2, 3];
        FetchRequest {
            forgotten_topics_data: vec![all, forgotten(subject, version, OTHER, 0)],
            ..plain
        }
    })?;
    session.ask(both, "a session: after all was forgotten", &[])
}

fn forgotten(subject: &Subject, version: i16, name: &str, partition: i32) -> ForgottenTopic {
    ForgottenTopic {
        topic: topic_name(version, name),
        topic_id: topic_id(subject, version, name),
        partitions: vec![partition],
    }
}

fn refusals(both: &mut Both, version: i16) -> Result<()> {
    let mut session = Session::open(both, version, "a session", &[(0, 0)])?;
    session.ask_wrongly(both, "a session: an unknown id", version, 12_345, 1)?;
    session.ask_wrongly(both, "a session: an epoch too early", version, 0, 2)?;
    session.ask_wrongly(both, "a session: a negative epoch", version, 0, -2)?;
    session.ask(both, "a session: goes on", &[])?;
    session.ask_wrongly(both, "a session: an epoch again", version, 0, 1)?;
    let again =
        both.ask_each(version, "a session: opened anew over the old one", |subject, index| {
            let id = session.ids.get(index).copied().unwrap_or_default();
            request(id, 0, vec![topic(subject, version, TOPIC, &[(0, 0)])])
        })?;
    session.ask_wrongly(both, "a session: the old one", version, 0, session.epoch)?;
    let ids = again.map(|answer| answer.map_or(0, |answer| answer.session_id));
    Session { version, ids, epoch: 1 }.close(both)?;
    both.ask(version, "a session of no partitions", |_| request(0, 0, Vec::new()))?;
    both.ask(version, "no session, but an epoch", |_| request(0, 1, Vec::new()))?;
    both.ask(version, "an unknown session closed", |_| request(99, -1, Vec::new()))?;
    Ok(())
}

fn errors_inside(both: &mut Both, version: i16) -> Result<()> {
    let partitions = [(0, 0), (9, 0), (2, 55)];
    let mut session = Session::open(both, version, "a session with errors inside", &partitions)?;
    session.ask(both, "a session with errors inside: again", &[])?;
    session.ask(both, "a session with errors inside: one put right", &[(2, 0)])?;
    session.ask(both, "a session with errors inside: after one was put right", &[])?;
    session.close(both)
}

/// A topic that a session asks for before it is there.
fn appearing(both: &mut Both, version: i16) -> Result<()> {
    let name = format!("sessions-late-{version}");
    let mut session = Session::open(both, version, "a session", &[(2, 0)])?;
    let unknown = |subject: &Subject| {
        let known = topic(subject, version, TOPIC, &[(0, 0)]);
        if version < IDS_SINCE {
            FetchTopic { topic: name.as_str().into(), ..known }
        } else {
            FetchTopic { topic_id: super::NOBODYS_ID, ..known }
        }
    };
    session.ask_with(both, "a session: an unknown topic", |subject, plain| FetchRequest {
        topics: vec![unknown(subject)],
        ..plain
    })?;
    session.ask(both, "a session: the topic is still unknown", &[])?;
    both.create(&name, 1, &[])?;
    session.ask(both, "a session: the topic is there", &[])?;
    both.set_up(|subject| delete(subject, &name))?;
    session.ask(both, "a session: the topic is gone again", &[])?;
    session.close(both)
}

fn delete(subject: &mut Subject, name: &str) -> Result<()> {
    let request = ottla_protocol::messages::DeleteTopicsRequest {
        topic_names: vec![name.into()],
        timeout_ms: 30_000,
        ..Default::default()
    };
    subject.expect(5, &request)?;
    subject.wait_until_gone(name)
}

/// A session is by names or by ids, and stays so.
fn namings(both: &mut Both) -> Result<()> {
    let by_name = Session::open(both, 12, "a session by names", &[(0, 0)])?;
    by_name.ask_wrongly(both, "a session by names, with ids", 13, 0, 1)?;
    by_name.ask_wrongly(both, "a session by names, after that", 12, 0, 1)?;
    let by_id = Session::open(both, 13, "a session by ids", &[(0, 0)])?;
    by_id.ask_wrongly(both, "a session by ids, with names", 12, 0, 1)?;
    by_id.ask_wrongly(both, "a session by ids, after that", 13, 0, 1)
}

/// The log end of a partition, which is the same on both.
fn end_of(both: &mut Both, partition: i32) -> Result<i64> {
    let end = std::cell::Cell::new(None);
    both.set_up(|subject| {
        let partition = ottla_protocol::messages::list_offsets_request::ListOffsetsPartition {
            partition_index: partition,
            current_leader_epoch: -1,
            timestamp: -1,
        };
        let topics = vec![ottla_protocol::messages::list_offsets_request::ListOffsetsTopic {
            name: TOPIC.into(),
            partitions: vec![partition],
        }];
        let request = ottla_protocol::messages::ListOffsetsRequest {
            replica_id: -1,
            topics,
            ..Default::default()
        };
        let response = subject.expect(7, &request)?;
        let found = response.topics.iter().flat_map(|topic| &topic.partitions).next();
        end.set(found.map(|partition| partition.offset));
        Ok(())
    })?;
    end.get().context("the answer names no partition")
}
