//! What every client library can rely on: what it wrote is what everybody reads (shell).

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::adapter::{Library, Writing};
use super::record::{Record, noise, shapes};
use super::session::{Session, eventually, now_ms};
use super::{Length, Test};

const MIB: usize = 1024 * 1024;
/// Records carry times of their own, so that a broker that replaces them is found out.
const HOUR_MS: i64 = 3_600_000;

pub(super) fn tests(length: Length) -> Vec<Test> {
    let mut tests = Vec::new();
    let libraries = length.libraries();
    for &library in &libraries {
        tests.extend(tests_of(library));
    }
    for &library in &libraries {
        tests.push(of(library, "what every client wrote is read byte for byte", read_all));
    }
    tests.push(Test::new(
        "all clients: a broker that is killed comes back on its port",
        &[],
        kill_and_restart,
    ));
    let sentence = "everything acknowledged before kill -9 is there, byte for byte";
    tests.push(of(Library::Java, sentence, read_all));
    for library in libraries {
        tests.push(of(
            library,
            "batches of every codec share a partition after kill -9",
            every_codec,
        ));
    }
    tests
}

fn of(library: Library, sentence: &str, run: fn(&mut Session, Library) -> Result<()>) -> Test {
    let name = format!("{}: {sentence}", library.name());
    let test = Test::new(name, library.needs(), move |session| run(session, library));
    reading(library, test)
}

/// Waits for what the library needs for reading.
fn reading(library: Library, test: Test) -> Test {
    match library.reads_with() {
        Some(api) => test.once_served(api),
        None => test,
    }
}

fn tests_of(library: Library) -> Vec<Test> {
    let mut tests = vec![of(library, "topics are created, listed and deleted", topic_life)];
    for &codec in library.codecs() {
        let name = format!("{}: records of every shape come back, codec {codec}", library.name());
        let test = Test::new(name, library.needs(), move |session| {
            let writing = Writing { codec, ..Writing::default() };
            round_trip(session, library, writing)
        });
        tests.push(reading(library, test));
    }
    tests.extend([
        of(library, "records of 1 MiB come back whole", records_of_1_mib),
        of(library, "a record above max.message.bytes is refused, the next one is not", too_large),
        of(library, "acks 0, 1 and all each deliver", every_acks),
        of(library, "an idempotent producer's records come back", idempotent),
        of(library, "partitions keep their records apart", partitions),
        of(library, "offsets are found by timestamp", offsets_by_time),
        of(library, "watermarks follow what is written", watermarks),
        of(library, "LogAppendTime replaces the producer's time", log_append_time),
    ]);
    tests
}

fn round_trip(session: &mut Session, library: Library, writing: Writing<'_>) -> Result<()> {
    let topic = session.new_topic(&format!("{}-{}", library.name(), writing.codec));
    let records = shapes_of(library, now_ms() - HOUR_MS);
    session.adapter(library).create(&topic, 1, &[])?;
    let offsets = session.write(library, &topic, &records, writing)?;
    let expected: Vec<i64> = (0..).take(records.len()).collect();
    ensure!(offsets == expected, "acknowledged offsets are {offsets:?}");
    reads(session, library, &topic, &records)
}

fn shapes_of(library: Library, start: i64) -> Vec<Record> {
    shapes(start).into_iter().filter(|record| library.can_write(record)).collect()
}

/// The topic's first partition holds exactly these records.
fn reads(session: &mut Session, library: Library, topic: &str, records: &[Record]) -> Result<()> {
    let read = session.adapter(library).consume(topic, 0, 0, records.len())?;
    ensure!(read.len() == records.len(), "{} of {} records came", read.len(), records.len());
    for ((expected, (offset, record)), at) in records.iter().zip(&read).zip(0_i64..) {
        ensure!(*offset == at, "record {at} has offset {offset}");
        if let Some(difference) = expected.difference(record) {
            anyhow::bail!("offset {offset}: {difference}");
        }
    }
    Ok(())
}

/// Every record by Apache Kafka's own client; by the others, what has every shape and codec.
fn read_all(session: &mut Session, library: Library) -> Result<()> {
    match library {
        Library::Java => session.check_ledger(library),
        // It joins a group for each partition that it reads.
        Library::KafkaJs => session.check_topics(library, |topic| topic.starts_with("kafkajs")),
        _ => session.check_topics(library, has_every_shape),
    }
}

/// Whether [`round_trip`] wrote it.
fn has_every_shape(topic: &str) -> bool {
    let codecs = Library::Java.codecs().iter();
    codecs.map(|codec| format!("-{codec}-")).any(|part| topic.contains(&part))
}

fn every_codec(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-mixed", library.name()));
    session.adapter(library).create(&topic, 1, &[])?;
    for (&codec, hour) in library.codecs().iter().zip(1_i64..) {
        let records = shapes_of(library, now_ms() - hour * HOUR_MS);
        let writing = Writing { codec, ..Writing::default() };
        session.write(library, &topic, &records, writing).context(codec)?;
    }
    session.check_topic(library, &topic)
}

fn records_of_1_mib(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-large", library.name()));
    // Room for all of them in one batch, if the library makes one of them.
    session.adapter(library).create(&topic, 1, &[("max.message.bytes", "4194304")])?;
    let start = now_ms() - HOUR_MS;
    let records: Vec<Record> =
        (0..3).map(|i| Record::new(0, start, Some(b"large"), Some(&noise(MIB, i + 1)))).collect();
    session.write(library, &topic, &records, Writing::default())?;
    reads(session, library, &topic, &records)
}

fn too_large(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-too-large", library.name()));
    session.adapter(library).create(&topic, 1, &[("max.message.bytes", "1000")])?;
    let start = now_ms() - HOUR_MS;
    let large = [Record::new(0, start, None, Some(&noise(2_000, 1)))];
    let refused = session.write(library, &topic, &large, Writing::default());
    let reason = refused.err().context("it was accepted")?.to_string().to_lowercase();
    let named = ["too large", "too_large", "toolarge", "msg_size", "size"];
    ensure!(named.iter().any(|word| reason.contains(word)), "refused for another reason: {reason}");
    let small = [Record::new(0, start, None, Some(b"small"))];
    session.write(library, &topic, &small, Writing::default())?;
    reads(session, library, &topic, &small)
}

fn every_acks(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-acks", library.name()));
    session.adapter(library).create(&topic, 1, &[])?;
    let start = now_ms() - HOUR_MS;
    let mut all = Vec::new();
    for acks in ["0", "1", "all"] {
        let value = format!("acks {acks}");
        let records = vec![Record::new(0, start, Some(b"k"), Some(value.as_bytes())); 20];
        session
            .write(library, &topic, &records, Writing { acks, ..Writing::default() })
            .with_context(|| format!("acks {acks}"))?;
        all.extend(records);
        // Acks 0 promises no order against the connections that follow it.
        reads(session, library, &topic, &all).with_context(|| format!("acks {acks}"))?;
    }
    Ok(())
}

fn idempotent(session: &mut Session, library: Library) -> Result<()> {
    let codec = if library.codecs().contains(&"lz4") { "lz4" } else { "zstd" };
    round_trip(session, library, Writing { idempotence: true, codec, acks: "all" })
}

fn partitions(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-partitions", library.name()));
    session.adapter(library).create(&topic, 3, &[])?;
    let start = now_ms() - HOUR_MS;
    let records: Vec<Record> = (0..30)
        .map(|i| Record::new(i % 3, start, None, Some(format!("record {i}").as_bytes())))
        .collect();
    let offsets = session.write(library, &topic, &records, Writing::default())?;
    let expected: Vec<i64> = (0..10).flat_map(|offset| [offset; 3]).collect();
    ensure!(offsets == expected, "acknowledged offsets are {offsets:?}");
    session.check_topic(library, &topic)
}

fn offsets_by_time(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-times", library.name()));
    session.adapter(library).create(&topic, 1, &[])?;
    let start = now_ms() - HOUR_MS;
    let records: Vec<Record> =
        (0..100).map(|i| Record::new(0, start + i * 10, None, Some(b"tick"))).collect();
    session.write(library, &topic, &records, Writing { codec: "gzip", ..Writing::default() })?;
    let times = [start - 1, start, start + 1, start + 500, start + 505, start + 990, start + 991];
    let offsets = session.adapter(library).offsets(&topic, 0, &times)?;
    ensure!(offsets == [0, 0, 1, 50, 51, 99, library.no_offset(100)], "found offsets {offsets:?}");
    Ok(())
}

fn watermarks(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-watermarks", library.name()));
    session.adapter(library).create(&topic, 1, &[])?;
    let records = vec![Record::new(0, now_ms() - HOUR_MS, None, Some(b"one")); 7];
    for high in [0, 7, 14] {
        let seen = session.adapter(library).watermarks(&topic, 0)?;
        ensure!(seen == (0, high), "watermarks are {seen:?}, not (0, {high})");
        session.write(library, &topic, &records, Writing::default())?;
    }
    Ok(())
}

fn log_append_time(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-append-time", library.name()));
    let configs = [("message.timestamp.type", "LogAppendTime")];
    session.adapter(library).create(&topic, 1, &configs)?;
    let before = now_ms();
    let records = vec![Record::new(0, before - HOUR_MS, None, Some(b"old")); 3];
    // Not through the ledger: what is read differs from what was written, by design.
    session.adapter(library).produce(&topic, &records, Writing::default())?;
    let after = now_ms();
    let read = session.adapter(library).consume(&topic, 0, 0, 3)?;
    ensure!(read.len() == 3, "{} of 3 records came", read.len());
    for (_, record) in read {
        let time = record.timestamp;
        ensure!((before..=after).contains(&time), "time {time} is not in {before}..={after}");
    }
    Ok(())
}

fn topic_life(session: &mut Session, library: Library) -> Result<()> {
    let topic = session.new_topic(&format!("{}-life", library.name()));
    session.adapter(library).create(&topic, 2, &[])?;
    let listed = |session: &mut Session| -> Result<bool> {
        Ok(session.adapter(library).topics()?.contains(&topic))
    };
    eventually(Duration::from_secs(10), || Ok(listed(session)?.then_some(())))
        .context("a created topic is not listed")?;
    let again = session.adapter(library).create(&topic, 2, &[]);
    ensure!(again.is_err(), "the same topic was created twice");
    session.write(
        library,
        &topic,
        &[Record::new(1, now_ms(), None, Some(b"to be deleted"))],
        Writing::default(),
    )?;
    session.adapter(library).delete(&topic)?;
    session.forget(&topic);
    eventually(Duration::from_secs(10), || Ok((!listed(session)?).then_some(())))
        .context("a deleted topic is still listed")
}

fn kill_and_restart(session: &mut Session) -> Result<()> {
    let address = session.bootstrap();
    session.broker.kill9()?;
    session.broker.restart()?;
    ensure!(session.bootstrap() == address, "the broker came back at {}", session.bootstrap());
    Ok(())
}
