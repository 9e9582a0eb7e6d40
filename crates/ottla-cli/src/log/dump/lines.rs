//! The line of each entry, and of each record of a batch. Pure.

use std::ops::ControlFlow;

use ottla_log::dump::Entry;
use ottla_log::producers::{Producer, WrittenBatch};
use ottla_records::{BatchHeader, NO_SEQUENCE, RawBatch, Record, increment_sequence};

use super::internal::{self, Internal};
use super::line::{Line, Value};

pub(super) fn of_entry(entry: &Entry<'_>) -> Line {
    match *entry {
        Entry::Batch { position, batch, is_valid } => of_batch(position, batch.header(), is_valid),
        Entry::Damage { damage, is_unfinished } => {
            let line = if is_unfinished { Line::new("unfinished") } else { Line::damage("damage") };
            // Where the log ends is not known.
            let end_offset = Some(damage.end_offset.0).filter(|end| *end != i64::MAX);
            line.with("position", damage.position)
                .with("endPosition", damage.end_position)
                .with("firstOffset", damage.first_offset.0)
                .with("endOffset", end_offset)
                .with("what", damage.what.clone())
        }
        Entry::Wrong { position, what } => {
            let position = position.map_or(Value::None, Value::from);
            Line::damage("damage").with("position", position).with("what", what.to_owned())
        }
        Entry::Offset { offset, position } => {
            Line::new("offset").with("offset", offset.0).with("position", position)
        }
        Entry::Time { timestamp, offset } => {
            Line::new("timestamp").with("timestamp", timestamp).with("offset", offset.0)
        }
        Entry::Aborted { version, producer_id, first_offset, last_offset, last_stable_offset } => {
            Line::new("aborted_transaction")
                .with("version", version)
                .with("producerId", producer_id.0)
                .with("firstOffset", first_offset.0)
                .with("lastOffset", last_offset.0)
                .with("lastStableOffset", last_stable_offset.0)
        }
        Entry::Unused { entries } => Line::new("unused").with("entries", entries),
        Entry::Producer { id, producer, batch } => of_producer(id.0, producer, batch),
        Entry::LeaderEpoch { epoch, start_offset } => {
            Line::new("leader_epoch").with("epoch", epoch.0).with("startOffset", start_offset.0)
        }
        Entry::PartitionOffset { partition, offset } => Line::new("partition_offset")
            .with("topic", partition.topic.to_string())
            .with("partition", partition.partition.0)
            .with("offset", offset.0),
        Entry::PartitionMetadata { version, topic_id } => Line::new("partition_metadata")
            .with("version", version.to_owned())
            .with("topicId", topic_id.to_string()),
        Entry::Line(line) => Line::new("line").with("line", line.to_owned()),
    }
}

fn of_batch(position: u64, header: &BatchHeader, is_valid: bool) -> Line {
    let attributes = header.attributes;
    let compression = attributes.compression().map_or("unknown", |compression| compression.name());
    Line::new("batch")
        .with("baseOffset", header.base_offset)
        .with("lastOffset", header.last_offset())
        .with("count", header.record_count)
        .with("baseSequence", header.base_sequence)
        .with("lastSequence", header.last_sequence())
        .with("producerId", header.producer_id)
        .with("producerEpoch", header.producer_epoch)
        .with("partitionLeaderEpoch", header.partition_leader_epoch)
        .with("isTransactional", attributes.is_transactional())
        .with("isControl", attributes.is_control())
        .with("deleteHorizonMs", header.delete_horizon_ms())
        .with("position", position)
        .with("maxTimestamp", Value::Time(attributes.timestamp_type(), header.max_timestamp))
        .with("size", header.size_in_bytes())
        .with("magic", header.magic)
        .with("compresscodec", compression)
        .with("crc", header.crc)
        .with("isvalid", is_valid)
}

fn of_producer(id: i64, producer: &Producer, batch: Option<WrittenBatch>) -> Line {
    let line = Line::new("producer")
        .with("producerId", id)
        .with("producerEpoch", producer.epoch)
        .with("coordinatorEpoch", producer.coordinator_epoch)
        .with("currentTxnFirstOffset", producer.transaction_first_offset.map(|offset| offset.0))
        .with("lastTimestamp", producer.last_timestamp.0);
    let Some(batch) = batch else { return line };
    line.with("firstSequence", batch.first_sequence())
        .with("lastSequence", batch.last_sequence)
        .with("lastOffset", batch.last_offset.0)
        .with("offsetDelta", batch.offset_delta)
        .with("timestamp", batch.timestamp.0)
}

/// Shows the records of a batch, as far as they can be read.
pub(super) fn of_records(
    batch: &RawBatch,
    is_valid: bool,
    internal: Option<Internal>,
    show: &mut dyn FnMut(Line) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let unreadable = |error: &dyn std::fmt::Display| {
        // Of bytes whose checksum is wrong nothing else is to be expected, and they are counted already.
        let line = if is_valid { Line::damage("damage") } else { Line::new("damage") };
        line.with("what", format!("records can't be read: {error}"))
    };
    let records = match batch.records() {
        Ok(records) => records,
        Err(error) => return show(unreadable(&error)),
    };
    for record in records {
        match record {
            Ok(record) => show(of_record(batch.header(), &record, internal))?,
            Err(error) => show(unreadable(&error))?,
        }
    }
    ControlFlow::Continue(())
}

fn of_record(header: &BatchHeader, record: &Record, internal: Option<Internal>) -> Line {
    let attributes = header.attributes;
    let size = |bytes: Option<&bytes::Bytes>| bytes.map_or(Value::Number(-1), |it| it.len().into());
    let line = Line::new("record")
        .with("offset", record.offset.0)
        .with("timestamp", Value::Time(attributes.timestamp_type(), record.timestamp.0))
        .with("keySize", size(record.key.as_ref()))
        .with("valueSize", size(record.value.as_ref()))
        .with("sequence", sequence(header, record))
        .with("headers", Value::Headers(record.headers.clone()));
    if attributes.is_control() {
        return internal::control(line, record);
    }
    let bytes = |line: Line| {
        line.with("key", Value::Bytes(record.key.clone()))
            .with("payload", Value::Bytes(record.value.clone()))
    };
    match internal.map(|internal| internal.decode(record)) {
        None => bytes(line),
        Some(Ok(decoded)) => line.with("record", decoded),
        Some(Err(error)) => bytes(line.with("undecodable", error.to_string())),
    }
}

fn sequence(header: &BatchHeader, record: &Record) -> i32 {
    let delta = record.offset.0.wrapping_sub(header.base_offset);
    match i32::try_from(delta) {
        Ok(delta) if header.base_sequence != NO_SEQUENCE => {
            increment_sequence(header.base_sequence, delta)
        }
        _ => NO_SEQUENCE,
    }
}
