//! Batches of idempotent producers: in order, again, too early, too late, in other epochs; and what is known of them.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use ottla_base::Timestamp;
use ottla_protocol::messages::describe_producers_request::TopicRequest;
use ottla_protocol::messages::{
    DeleteTopicsRequest, DescribeProducersRequest, ProduceRequest, ProduceResponse,
};
use ottla_records::{BatchBuilder, Compression};

use super::super::both::{Both, Pair};
use super::super::value::Value;
use super::batches::{LONG_AGO, at, changed};
use super::produce::whole;
use super::{invalid_names, produce_request, versions};

const APPEND_TIME: &str = "idempotence-append-time";
const COMPACTED: &str = "idempotence-compacted";
const PASSING: &str = "idempotence-passing";

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create(APPEND_TIME, 1, &[("message.timestamp.type", "LogAppendTime")])?;
    both.create(COMPACTED, 1, &[("cleanup.policy", "compact")])?;
    for version in versions::<ProduceRequest>() {
        let topic = format!("idempotence-{version}");
        both.create(&topic, 2, &[])?;
        let mut script = Script { both, version, topic };
        script.order()?;
        script.retries()?;
        script.epochs()?;
        script.wrap()?;
        script.beginnings()?;
        script.odd_fields()?;
        script.several()?;
        script.acknowledgements()?;
        script.append_time()?;
        script.known()?;
        script.stored()?;
    }
    passing_topic(both)
}

/// A batch to be.
#[derive(Debug, Clone, Copy)]
struct Draft {
    id: i64,
    epoch: i16,
    sequence: i32,
    records: i64,
}

impl Draft {
    const fn new(id: i64, epoch: i16, sequence: i32, records: i64) -> Self {
        Self { id, epoch, sequence, records }
    }

    fn build(self) -> Bytes {
        self.compressed(Compression::None)
    }

    fn compressed(self, compression: Compression) -> Bytes {
        let mut builder =
            BatchBuilder::new(compression).producer(self.id, self.epoch, self.sequence);
        for n in 0..self.records {
            let time = Timestamp(LONG_AGO + i64::from(self.sequence % 1000) + n);
            builder.append(time, Some(b"key"), Some(b"value of a record"), &[]);
        }
        builder.build_bytes()
    }
}

/// One version's requests to a topic of its own.
struct Script<'a> {
    both: &'a mut Both,
    version: i16,
    topic: String,
}

impl Script<'_> {
    fn send(&mut self, what: &str, draft: Draft) -> Result<Pair<ProduceResponse>> {
        let topic = self.topic.clone();
        self.send_to(&topic, 0, what, &draft.build())
    }

    fn send_to(
        &mut self,
        topic: &str,
        partition: i32,
        what: &str,
        batch: &Bytes,
    ) -> Result<Pair<ProduceResponse>> {
        let version = self.version;
        let what = format!("{what} (to {topic}-{partition})");
        self.both.ask(version, &what, |subject| {
            produce_request(subject, version, topic, partition, Some(batch.clone()))
        })
    }

    fn order(&mut self) -> Result<()> {
        for (sequence, records) in [(0, 3), (3, 1), (4, 100)] {
            self.send(
                &format!("{records} from {sequence}"),
                Draft::new(1000, 0, sequence, records),
            )?;
        }
        for sequence in [105, 103, 204, 5, i32::MAX] {
            self.send(&format!("a gap before {sequence}"), Draft::new(1000, 0, sequence, 1))?;
        }
        self.send("on after gaps", Draft::new(1000, 0, 104, 1))?;
        Ok(())
    }

    fn retries(&mut self) -> Result<()> {
        let batch = |n: i32| Draft::new(2000, 3, n * 10, 10);
        for n in 0..5 {
            self.send(&format!("batch {n}"), batch(n))?;
            self.send(&format!("batch {n} at once again"), batch(n))?;
        }
        for n in [0, 4, 2, 1, 3] {
            self.send(&format!("batch {n} of five again"), batch(n))?;
        }
        for (what, sequence, records) in [
            ("the beginning of a batch", 20, 9),
            ("the end of a batch", 21, 9),
            ("two batches in one", 20, 20),
            ("the last batch and more", 40, 11),
            ("the last batch without its end", 40, 9),
        ] {
            self.send(what, Draft::new(2000, 3, sequence, records))?;
        }
        self.send("a sixth batch", batch(5))?;
        for n in 0..6 {
            self.send(&format!("batch {n} of six again"), batch(n))?;
        }
        for compression in
            [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            let topic = self.topic.clone();
            // Before v7 zstd is refused, and nothing of it may be remembered.
            let what = format!("batch 6 in {compression:?}");
            self.send_to(&topic, 0, &what, &batch(6).compressed(compression))?;
        }
        self.send("batch 6 uncompressed", batch(6))?;
        Ok(())
    }

    fn epochs(&mut self) -> Result<()> {
        let batch = |epoch, sequence| Draft::new(3000, epoch, sequence, 2);
        for (what, epoch, sequence) in [
            ("the first epoch", 5, 0),
            ("on in it", 5, 2),
            ("an older epoch, where it would go on", 4, 4),
            ("an older epoch from 0", 4, 0),
            ("a batch that is known in an older epoch", 4, 2),
            ("no epoch", -1, 4),
            ("a newer epoch, where the older one would go on", 6, 4),
            ("a newer epoch from 1", 6, 1),
            ("the same epoch after that", 5, 4),
            ("a newer epoch from 0", 9, 0),
            ("that again", 9, 0),
            ("the older epoch's last batch again", 5, 4),
            ("the older epoch's last numbers in the newer one", 9, 4),
            ("on in the newer epoch", 9, 2),
            ("the largest epoch", i16::MAX, 0),
            ("an overflown epoch", i16::MIN, 0),
        ] {
            self.send(what, batch(epoch, sequence))?;
        }
        Ok(())
    }

    fn wrap(&mut self) -> Result<()> {
        for (what, id, sequence, records) in [
            ("across the wrap", 4000, i32::MAX - 1, 5),
            ("across the wrap again", 4000, i32::MAX - 1, 5),
            ("after the wrap, too far", 4000, 4, 1),
            ("after the wrap, from 0", 4000, 0, 3),
            ("after the wrap", 4000, 3, 2),
            ("across the wrap once more", 4000, i32::MAX - 1, 5),
            ("up to the wrap", 4001, i32::MAX - 2, 3),
            ("up to the wrap again", 4001, i32::MAX - 2, 3),
            ("after it from 1", 4001, 1, 1),
            ("after it from 0", 4001, 0, 1),
            ("the last number alone", 4002, i32::MAX, 1),
            ("the last number alone again", 4002, i32::MAX, 1),
            ("0 after it", 4002, 0, 1),
        ] {
            self.send(what, Draft::new(id, 0, sequence, records))?;
        }
        Ok(())
    }

    fn beginnings(&mut self) -> Result<()> {
        for (n, (epoch, sequence)) in
            (0..).zip([(0, 1), (0, 77), (1, 0), (7, 12), (i16::MAX, i32::MAX), (0, i32::MAX - 1)])
        {
            let first = Draft::new(5000 + n, epoch, sequence, 2);
            self.send(&format!("beginning at {sequence} in epoch {epoch}"), first)?;
            self.send("that again", first)?;
            self.send("0 after it", Draft { sequence: 0, ..first })?;
        }
        Ok(())
    }

    fn odd_fields(&mut self) -> Result<()> {
        for id in [0, i64::MAX, -1, -2, i64::MIN] {
            for sequence in [0, 2, 2, 9] {
                let what = format!("producer id {id}, sequence number {sequence}");
                self.send(&what, Draft::new(id, 0, sequence, 2))?;
            }
        }
        for epoch in [-1, -2, i16::MIN] {
            for sequence in [0, 2, 2, 9] {
                let what = format!("an unknown producer in epoch {epoch}, number {sequence}");
                self.send(&what, Draft::new(6000, epoch, sequence, 2))?;
            }
        }
        for sequence in [-1, -2, i32::MIN] {
            for id in [6001, 1000] {
                let what = format!("producer {id} with sequence number {sequence}");
                self.send(&what, Draft::new(id, 0, sequence, 1))?;
            }
        }
        self.send("a producer that was refused so far", Draft::new(6001, 0, 3, 1))?;
        // Two faults: which one counts?
        let topic = self.topic.clone();
        let gap = Draft::new(6001, 0, 99, 1).build();
        let wrong = changed(&gap, at::RECORD_COUNT, &2_i32.to_be_bytes());
        self.send_to(&topic, 0, "a gap and a wrong count", &wrong)?;
        let mut keyless = BatchBuilder::new(Compression::None).producer(1, 0, 5);
        keyless.append(Timestamp(LONG_AGO), None, Some(b"v"), &[]);
        self.send_to(COMPACTED, 0, "a record without key", &keyless.build_bytes())?;
        let keyed = Draft::new(1, self.version, 0, 1);
        self.send_to(COMPACTED, 0, "a record with key", &keyed.build())?;
        Ok(())
    }

    fn several(&mut self) -> Result<()> {
        let topic = self.topic.clone();
        for round in 0..4 {
            for id in [7000, 7001, 7002] {
                let draft = Draft::new(id, 0, round * 2, 2);
                self.send(&format!("round {round} of producer {id}"), draft)?;
            }
            let other = Draft::new(7000, 0, round * 3, 3);
            self.send_to(&topic, 1, &format!("round {round}"), &other.build())?;
        }
        let elsewhere = Draft::new(7000, 0, 8, 2).build();
        self.send_to(&topic, 1, "numbers of another partition", &elsewhere)?;
        Ok(())
    }

    fn acknowledgements(&mut self) -> Result<()> {
        let (version, topic) = (self.version, self.topic.clone());
        for acks in [1, -1] {
            for (what, sequence) in [("next", 0), ("again", 0), ("a gap", 50)] {
                let draft = Draft::new(8000 + i64::from(acks), 0, sequence, 1);
                self.both.ask(version, &format!("{what} with acks={acks}"), |subject| {
                    let request = produce_request(subject, version, &topic, 0, Some(draft.build()));
                    ProduceRequest { acks, ..request }
                })?;
            }
        }
        let step = format!("Produce v{version}: acks=0 with a gap closes the connection");
        self.both.talk(&step, |subject, connection| {
            let batch = Draft::new(1000, 0, 999, 1).build();
            let request = produce_request(subject, version, &topic, 0, Some(batch));
            let request = ProduceRequest { acks: 0, ..request };
            let frame = ottla_protocol::frame::encode_request(version, 1, None, &request)?;
            connection.send(&frame.bytes);
            Ok(vec![connection.receive()?])
        })
    }

    /// A retry is told the time that the broker gave the first copy.
    fn append_time(&mut self) -> Result<()> {
        let batch = Draft::new(9000, self.version, 0, 3).build();
        let first = self.send_to(APPEND_TIME, 0, "the broker's time", &batch)?;
        let again = self.send_to(APPEND_TIME, 0, "the broker's time again", &batch)?;
        let same = first.iter().zip(&again).map(|(first, again)| {
            let time = |answer: &Option<ProduceResponse>| {
                let partition = answer.as_ref()?.responses.first()?.partition_responses.first()?;
                Some(partition.log_append_time_ms)
            };
            Value::leaf(time(first) == time(again))
        });
        let [kafka, ottla] = &same.collect::<Vec<_>>()[..] else { return Ok(()) };
        let step = format!("Produce v{}: a retry is told the first copy's time", self.version);
        self.both.compare(&step, kafka, ottla);
        Ok(())
    }

    fn stored(&mut self) -> Result<()> {
        for partition in [0, 1] {
            let what = format!("what is stored in {}-{partition}", self.topic);
            self.both.ask(17, &what, |subject| whole(subject, &self.topic, partition))?;
        }
        Ok(())
    }

    fn known(&mut self) -> Result<()> {
        let topic = self.topic.clone();
        for partitions in [&[0][..], &[1], &[0, 1], &[0, 0]] {
            let what = format!("partitions {partitions:?} of {topic}");
            self.both.ask(0, &what, |_| describe(&[(&topic, partitions)]))?;
        }
        self.both.ask(0, &format!("several topics after v{}", self.version), |_| {
            describe(&[(&topic, &[0]), (APPEND_TIME, &[0]), (COMPACTED, &[0])])
        })?;
        Ok(())
    }
}

fn describe(topics: &[(&str, &[i32])]) -> DescribeProducersRequest {
    let topic = |(name, partitions): &(&str, &[i32])| TopicRequest {
        name: (*name).into(),
        partition_indexes: partitions.to_vec(),
    };
    DescribeProducersRequest { topics: topics.iter().map(topic).collect() }
}

/// What was known goes with the topic. And who is asked about that is not there.
fn passing_topic(both: &mut Both) -> Result<()> {
    for round in 0..2 {
        both.create(PASSING, 1, &[])?;
        for (sequence, records) in [(3, 2), (3, 2), (5, 1), (5, 1), (9, 1)] {
            let what = format!("{records} from {sequence} in life {round}");
            both.ask(12, &what, |subject| {
                let batch = Draft::new(1, 0, sequence, records).build();
                produce_request(subject, 12, PASSING, 0, Some(batch))
            })?;
        }
        both.ask(0, &format!("life {round}"), |_| describe(&[(PASSING, &[0])]))?;
        both.set_up(|subject| {
            let request = DeleteTopicsRequest {
                topic_names: vec![PASSING.into()],
                timeout_ms: 10_000,
                ..Default::default()
            };
            subject.expect(5, &request).context("a deletion")?;
            subject.wait_until_gone(PASSING)
        })?;
        both.ask(0, &format!("after life {round}"), |_| describe(&[(PASSING, &[0])]))?;
    }
    both.ask(0, "no topics", |_| describe(&[]))?;
    both.ask(0, "no partitions", |_| describe(&[(COMPACTED, &[])]))?;
    both.ask(0, "no partitions of nothing", |_| describe(&[("idempotence-unknown", &[])]))?;
    both.ask(0, "a topic twice", |_| describe(&[(COMPACTED, &[0]), (COMPACTED, &[0, 7])]))?;
    for partition in [1, -1, i32::MAX] {
        both.ask(0, &format!("the unknown partition {partition}"), |_| {
            describe(&[(COMPACTED, &[partition, 0])])
        })?;
    }
    for name in invalid_names().into_iter().chain(["idempotence-unknown".to_owned()]) {
        let short: String = name.chars().take(16).collect();
        both.ask(0, &format!("the unknown topic {short:?}"), |_| describe(&[(&name, &[0, 1])]))?;
    }
    Ok(())
}
