//! What a batch must be to be taken, and how it is stored (shell).

use anyhow::{Result, ensure};
use bytes::Bytes;
use ottla_base::{ErrorCode, SplitMix64, Timestamp};
use ottla_records::{BatchBuilder, Codec, Compression, TimestampType};

use super::super::session::now_ms;
use super::cleaning::retention_has_run;
use super::topic::Topic;
use super::{Bench, Case};
use crate::broker::Target;

pub(super) const CASES: &[Case] = &[
    Case { property: "max.message.bytes", shows: max_message_bytes },
    Case { property: "message.timestamp.type", shows: timestamp_type },
    Case { property: "message.timestamp.before.max.ms", shows: timestamp_before },
    Case { property: "message.timestamp.after.max.ms", shows: timestamp_after },
    Case { property: "compression.type", shows: compression_type },
    Case { property: "compression.gzip.level", shows: gzip_level },
    Case { property: "compression.lz4.level", shows: lz4_level },
    Case { property: "compression.zstd.level", shows: zstd_level },
    Case { property: "remote.storage.enable", shows: remote_storage },
    Case { property: "remote.log.copy.disable", shows: remote_copy },
    Case { property: "remote.log.delete.on.disable", shows: remote_delete },
    Case { property: "local.retention.bytes", shows: local_retention_bytes },
    Case { property: "local.retention.ms", shows: local_retention_ms },
];

const HOUR_MS: i64 = 3_600_000;

fn batch(codec: impl Into<Codec>, time_ms: i64, value: &[u8]) -> Bytes {
    let mut batch = BatchBuilder::new(codec);
    batch.append(Timestamp(time_ms), None, Some(value), &[]);
    batch.build_bytes()
}

/// What the topic says to a batch, before the first change and after each.
fn answers(
    topic: &Topic<'_>,
    property: &str,
    batch: &Bytes,
    before: ErrorCode,
    changes: &[(&str, ErrorCode)],
) -> Result<()> {
    let code = topic.produce(batch.clone())?.error_code;
    ensure!(code == before, "before any change: {code}");
    for (value, expected) in changes {
        topic.set(property, value)?;
        topic.until(&format!("with {value} the answer is not {expected}"), || {
            Ok(topic.produce(batch.clone())?.error_code == *expected)
        })?;
    }
    Ok(())
}

fn max_message_bytes(bench: &Bench) -> Result<()> {
    const NAME: &str = "max.message.bytes";
    let topic = Topic::create(bench, NAME, &[])?;
    let batch = batch(Compression::None, now_ms(), &[b'x'; 2_000]);
    let size = batch.len().to_string();
    let too_small = (batch.len() - 1).to_string();
    let changes = [(&*too_small, ErrorCode::MESSAGE_TOO_LARGE), (&*size, ErrorCode::NONE)];
    answers(&topic, NAME, &batch, ErrorCode::NONE, &changes)
}

fn timestamp_before(bench: &Bench) -> Result<()> {
    const NAME: &str = "message.timestamp.before.max.ms";
    let topic = Topic::create(bench, NAME, &[])?;
    let batch = batch(Compression::None, now_ms() - HOUR_MS, b"an hour ago");
    let changes = [("1800000", ErrorCode::INVALID_TIMESTAMP), ("7200000", ErrorCode::NONE)];
    answers(&topic, NAME, &batch, ErrorCode::NONE, &changes)
}

fn timestamp_after(bench: &Bench) -> Result<()> {
    const NAME: &str = "message.timestamp.after.max.ms";
    let topic = Topic::create(bench, NAME, &[])?;
    let batch = batch(Compression::None, now_ms() + 2 * HOUR_MS, b"in two hours");
    let changes = [("10800000", ErrorCode::NONE), ("1800000", ErrorCode::INVALID_TIMESTAMP)];
    answers(&topic, NAME, &batch, ErrorCode::INVALID_TIMESTAMP, &changes)
}

fn timestamp_type(bench: &Bench) -> Result<()> {
    const NAME: &str = "message.timestamp.type";
    let topic = Topic::create(bench, NAME, &[])?;
    let written_ms = now_ms() - HOUR_MS;
    let shows = |expected: TimestampType| -> Result<bool> {
        let answer = topic.produce(batch(Compression::None, written_ms, b"v"))?;
        ensure!(answer.error_code == ErrorCode::NONE, "{}", answer.error_code);
        let stored = topic.last_stored()?;
        let (told, kept) = (answer.log_append_time_ms, stored.max_timestamp);
        let fits = match stored.attributes.timestamp_type() {
            TimestampType::CreateTime => told == -1 && kept == written_ms,
            TimestampType::LogAppendTime => told == kept && kept > written_ms,
        };
        ensure!(fits, "{told} was answered, {kept} is stored: {stored:?}");
        Ok(stored.attributes.timestamp_type() == expected)
    };
    ensure!(shows(TimestampType::CreateTime)?, "before any change: the broker's time");
    for (value, expected) in
        [("LogAppendTime", TimestampType::LogAppendTime), ("CreateTime", TimestampType::CreateTime)]
    {
        topic.set(NAME, value)?;
        topic.until(&format!("{value} does not show"), || shows(expected))?;
    }
    Ok(())
}

fn compression_type(bench: &Bench) -> Result<()> {
    const NAME: &str = "compression.type";
    let topic = Topic::create(bench, NAME, &[])?;
    let shows = |expected: Compression| -> Result<bool> {
        let answer = topic.produce(batch(Compression::Snappy, now_ms(), &[b'x'; 1_000]))?;
        ensure!(answer.error_code == ErrorCode::NONE, "{}", answer.error_code);
        Ok(topic.last_stored()?.attributes.compression()? == expected)
    };
    ensure!(shows(Compression::Snappy)?, "before any change: not what the producer chose");
    for (value, expected) in [
        ("gzip", Compression::Gzip),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
        ("uncompressed", Compression::None),
        ("snappy", Compression::Snappy),
        ("uncompressed", Compression::None),
        ("producer", Compression::Snappy),
    ] {
        topic.set(NAME, value)?;
        topic.until(&format!("{value} does not show"), || shows(expected))?;
    }
    Ok(())
}

/// Words in a random order, which more effort makes smaller.
fn prose() -> Vec<u8> {
    let words = ["broker ", "segment ", "offset ", "of ", "a ", "log ", "is ", "read ", "again "];
    let mut random = SplitMix64::new(7);
    let mut prose = Vec::new();
    while prose.len() < 30_000 {
        prose.extend(words.get(random.below(words.len())).copied().unwrap_or_default().bytes());
    }
    prose
}

/// Whether a stored batch gets smaller when the level of its codec is raised from `low` to `high`.
fn shrinks(bench: &Bench, property: &str, codec: &str, [low, high]: [&str; 2]) -> Result<bool> {
    let topic = Topic::create(bench, property, &[("compression.type", codec), (property, low)])?;
    let batch = batch(Compression::None, now_ms(), &prose());
    let stored = || -> Result<usize> {
        let answer = topic.produce(batch.clone())?;
        ensure!(answer.error_code == ErrorCode::NONE, "{}", answer.error_code);
        Ok(topic.last_stored()?.size_in_bytes())
    };
    let before = stored()?;
    ensure!(before * 2 < batch.len(), "it is not compressed");
    ensure!(stored()? == before, "the same batch has another size");
    topic.set(property, high)?;
    // Enough for Apache Kafka to apply it.
    for _ in 0..50 {
        if stored()? < before {
            return Ok(true);
        }
    }
    Ok(false)
}

fn gzip_level(bench: &Bench) -> Result<()> {
    let shrinks = shrinks(bench, "compression.gzip.level", "gzip", ["1", "9"])?;
    ensure!(shrinks, "the highest level does not show");
    Ok(())
}

fn zstd_level(bench: &Bench) -> Result<()> {
    let shrinks = shrinks(bench, "compression.zstd.level", "zstd", ["-50", "19"])?;
    ensure!(shrinks, "the highest level does not show");
    Ok(())
}

/// The lz4 here has one level: the property is taken, and records stay what they are.
fn lz4_level(bench: &Bench) -> Result<()> {
    let shrinks = shrinks(bench, "compression.lz4.level", "lz4", ["1", "17"])?;
    ensure!(shrinks == (bench.target == Target::Kafka), "docs/configuration.md says otherwise");
    Ok(())
}

/// Without remote storage in the broker no topic has any.
fn remote_storage(bench: &Bench) -> Result<()> {
    let topic = Topic::create(bench, "remote.storage.enable", &[])?;
    for (value, expected) in [("true", ErrorCode::INVALID_CONFIG), ("false", ErrorCode::NONE)] {
        let code = topic.alter("remote.storage.enable", value)?;
        ensure!(code == expected, "{value}: {code}");
    }
    Ok(())
}

/// Without remote storage, what is said of it is taken, and nothing comes of it.
fn nothing_comes_of(bench: &Bench, property: &str, value: &str) -> Result<()> {
    let topic = Topic::create(bench, property, &[])?;
    topic.write(&[b'x'; 1_000])?;
    topic.roll()?;
    topic.set(property, value)?;
    retention_has_run(bench, property)?;
    ensure!(topic.start()? == 0 && topic.segments()? == 2, "records are gone");
    Ok(())
}

fn remote_copy(bench: &Bench) -> Result<()> {
    nothing_comes_of(bench, "remote.log.copy.disable", "true")
}

fn remote_delete(bench: &Bench) -> Result<()> {
    nothing_comes_of(bench, "remote.log.delete.on.disable", "true")
}

fn local_retention_bytes(bench: &Bench) -> Result<()> {
    nothing_comes_of(bench, "local.retention.bytes", "1")
}

fn local_retention_ms(bench: &Bench) -> Result<()> {
    nothing_comes_of(bench, "local.retention.ms", "1")
}
