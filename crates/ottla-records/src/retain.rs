//! What compaction makes of a batch: the same batch with some of its records, or with none. Pure.
//!
//! Offsets, producer, sequence numbers, leader epoch and the last offset stay, whatever is left of the records: a
//! producer's next batch follows its last sequence number, not its last record.

use bytes::{Bytes, BytesMut};
use ottla_base::Timestamp;

use crate::NO_TIMESTAMP;
use crate::batch::ValidBatch;
use crate::builder::{int, write_record};
use crate::compression::{Codec, Compression, compress};
use crate::header::{BatchHeader, TimestampType};
use crate::record::Record;

impl ValidBatch {
    /// This batch with only these of its records, compressed as it was. With a delete horizon, readers of the log
    /// know from when on its tombstones may go (KIP-534).
    ///
    /// # Panics
    /// Without a record; see [`ValidBatch::emptied`].
    #[must_use]
    pub fn retaining(&self, records: &[Record], delete_horizon: Option<Timestamp>) -> Self {
        let header = self.header();
        let first = records.first().expect("a batch without records has another form");
        let base_timestamp = delete_horizon.unwrap_or(first.timestamp).0;
        let max_timestamp = match header.attributes.timestamp_type() {
            TimestampType::LogAppendTime => header.max_timestamp,
            TimestampType::CreateTime => {
                records.iter().map(|record| record.timestamp.0).fold(NO_TIMESTAMP, i64::max)
            }
        };
        let mut body = BytesMut::new();
        for record in records {
            let timestamp_delta = record.timestamp.0.wrapping_sub(base_timestamp);
            let offset_delta = i32::try_from(record.offset.0.wrapping_sub(header.base_offset))
                .expect("a record that was read from a batch lies within 2³¹ of its base");
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let headers = record.headers.iter().map(|it| (&*it.key, it.value.as_deref()));
            write_record(timestamp_delta, offset_delta, key, value, headers, &mut body);
        }
        let compression = header.attributes.compression().unwrap_or_default();
        let body: Bytes = if compression == Compression::None {
            body.freeze()
        } else {
            compress(Codec::from(compression), &body).into()
        };
        let attributes = header.attributes.known().with_delete_horizon(delete_horizon.is_some());
        Self::with_new_crc(
            BatchHeader {
                attributes,
                base_timestamp,
                max_timestamp,
                record_count: int(records.len()),
                ..*header
            },
            body,
        )
    }

    /// This batch without records: it still tells its producer's last sequence number, and where the log ended.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let header = self.header();
        let attributes = header.attributes.known().with_compression(Compression::None);
        Self::with_new_crc(
            BatchHeader {
                attributes: attributes.with_delete_horizon(false),
                base_timestamp: NO_TIMESTAMP,
                record_count: 0,
                ..*header
            },
            Bytes::new(),
        )
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::{LeaderEpoch, Offset};

    use super::*;
    use crate::{BatchBuilder, HEADER_LEN, RawBatch};

    fn batch(compression: Compression) -> ValidBatch {
        let mut builder = BatchBuilder::new(compression)
            .at(Offset(100), LeaderEpoch(7))
            .producer(5, 2, 40)
            .transactional();
        for n in 0..4_i64 {
            let key = [b'k', b'0' + u8::try_from(n).unwrap()];
            let headers = [("h", Some(&b"x"[..])), ("null", None)];
            let value = (n != 2).then_some(&b"value"[..]);
            builder.append(Timestamp(1_000 + n), Some(&key), value, &headers);
        }
        builder.build()
    }

    fn records(batch: &ValidBatch) -> Vec<Record> {
        // Through the bytes, as the next reader gets it.
        let raw = RawBatch::parse(batch.to_bytes()).unwrap();
        let valid = raw.verify_crc().unwrap();
        valid.records().unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn the_records_that_are_kept_are_the_same_records_at_the_same_offsets() {
        for compression in Compression::ALL {
            let all = batch(compression);
            let kept: Vec<Record> = records(&all).into_iter().skip(1).step_by(2).collect();
            for horizon in [None, Some(Timestamp(77_000))] {
                let retained = all.retaining(&kept, horizon);
                assert_eq!(records(&retained), kept);
                let (before, after) = (all.header(), retained.header());
                assert_eq!(after.base_offset, 100);
                assert_eq!(after.last_offset(), before.last_offset());
                assert_eq!(after.last_sequence(), before.last_sequence());
                assert_eq!(after.partition_leader_epoch, 7);
                assert_eq!(after.attributes.compression().unwrap(), compression);
                assert!(after.attributes.is_transactional());
                assert_eq!(after.max_timestamp, 1_003);
                assert_eq!(after.delete_horizon_ms(), horizon.map(|horizon| horizon.0));
                assert_eq!(after.record_count, 2);
            }
        }
    }

    #[test]
    fn the_largest_timestamp_is_that_of_what_is_left_or_the_brokers() {
        let all = batch(Compression::None);
        let kept: Vec<Record> = records(&all).into_iter().take(2).collect();
        assert_eq!(all.retaining(&kept, None).header().max_timestamp, 1_001);
        let mut builder = BatchBuilder::new(Compression::None).log_append_time(Timestamp(9_000));
        builder.append(Timestamp(1), Some(b"a"), None, &[]);
        builder.append(Timestamp(2), Some(b"b"), None, &[]);
        let broker_time = builder.build();
        let kept: Vec<Record> = records(&broker_time).into_iter().take(1).collect();
        let retained = broker_time.retaining(&kept, None);
        assert_eq!(retained.header().max_timestamp, 9_000);
        assert_eq!(records(&retained), kept);
    }

    #[test]
    fn an_emptied_batch_keeps_its_place_and_its_producer() {
        let all = batch(Compression::Zstd);
        let emptied = all.emptied();
        assert_eq!(emptied.size_in_bytes(), HEADER_LEN);
        assert_eq!(records(&emptied), []);
        let (before, after) = (all.header(), emptied.header());
        assert_eq!((after.base_offset, after.last_offset()), (100, before.last_offset()));
        assert_eq!(after.last_sequence(), before.last_sequence());
        assert_eq!(after.max_timestamp, before.max_timestamp);
        assert_eq!(after.base_timestamp, NO_TIMESTAMP);
        assert_eq!(after.attributes.compression().unwrap(), Compression::None);
        assert!(after.attributes.is_transactional());
    }
}
