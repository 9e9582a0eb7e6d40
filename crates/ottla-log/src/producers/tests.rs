//! Each rule of sequence numbers and epochs as one sentence: a state, one batch, the exact decision.

use ottla_base::LeaderEpoch;
use ottla_records::{BatchBuilder, Compression, crc32c};

use super::snapshot::{SnapshotError, decode, encode};
use super::*;

const ID: i64 = 4000;

/// A batch of a producer: `records` of them from a sequence number on, at an offset.
struct Draft {
    id: i64,
    epoch: i16,
    sequence: i32,
    records: i32,
    offset: i64,
    timestamp: i64,
    transactional: bool,
}

impl Draft {
    const fn new(sequence: i32, records: i32, offset: i64) -> Self {
        let (id, epoch, timestamp, transactional) = (ID, 0, 1_000, false);
        Self { id, epoch, sequence, records, offset, timestamp, transactional }
    }

    fn in_epoch(self, epoch: i16) -> Self {
        Self { epoch, ..self }
    }

    fn transactional(self) -> Self {
        Self { transactional: true, ..self }
    }

    fn build(&self) -> ValidBatch {
        let mut builder = BatchBuilder::new(Compression::None)
            .at(Offset(self.offset), LeaderEpoch(0))
            .producer(self.id, self.epoch, self.sequence);
        builder.transactional = self.transactional;
        for _ in 0..self.records {
            builder.append(Timestamp(self.timestamp), None, Some(b"value"), &[]);
        }
        builder.build()
    }
}

fn marker(control: ControlType, coordinator_epoch: i32, epoch: i16, offset: i64) -> ValidBatch {
    let marker = EndTransactionMarker { coordinator_epoch };
    BatchBuilder::end_of_transaction((ID, epoch), control, marker, Timestamp(5_000))
        .at(Offset(offset), LeaderEpoch(0))
        .build()
}

fn after(drafts: &[Draft]) -> Producers {
    let mut producers = Producers::default();
    for draft in drafts {
        producers.append(&Written::of(&draft.build()));
    }
    producers
}

/// Five batches of ten records each, the first with sequence number 100 at offset 1000.
fn five() -> Producers {
    let batch = |n: i32| Draft::new(100 + n * 10, 10, 1_000 + i64::from(n) * 10);
    after(&[0, 1, 2, 3, 4].map(batch))
}

fn decide(producers: &Producers, draft: &Draft) -> Decision {
    producers.check(&Written::of(&draft.build()), Sender::Client)
}

fn out_of_order(found: i32, last: i32) -> Decision {
    let producer_id = ProducerId(ID);
    Decision::Refuse(ProducerRefusal::OutOfOrderSequence { producer_id, found, last })
}

fn old_epoch(found: i16, current: i16) -> Decision {
    let producer_id = ProducerId(ID);
    Decision::Refuse(ProducerRefusal::OldEpoch { producer_id, found, current })
}

#[test]
fn a_batch_without_producer_id_is_none_of_our_business() {
    let mut producers = five();
    let before = producers.clone();
    for id in [-1, -2, i64::MIN] {
        let batch = Draft { id, epoch: -1, ..Draft::new(7, 3, 2_000) };
        assert_eq!(decide(&producers, &batch), Decision::Append);
        producers.append(&Written::of(&batch.build()));
    }
    assert_eq!(producers, before);
}

#[test]
fn an_unknown_producer_begins_with_any_sequence_number_and_in_any_epoch() {
    for (sequence, epoch) in [(0, 0), (17, 0), (i32::MAX, 5), (1, i16::MAX), (3, -1)] {
        let batch = Draft::new(sequence, 1, 0).in_epoch(epoch);
        assert_eq!(decide(&five(), &Draft { id: 1, ..batch }), Decision::Append, "{sequence}");
    }
}

#[test]
fn an_epoch_below_none_is_too_old_even_for_an_unknown_producer() {
    let batch = Draft::new(0, 1, 0).in_epoch(-2);
    assert_eq!(decide(&Producers::default(), &batch), old_epoch(-2, -1));
}

#[test]
fn the_next_sequence_number_is_appended_and_a_gap_is_not() {
    assert_eq!(decide(&five(), &Draft::new(150, 1, 0)), Decision::Append);
    for found in [151, 149, 1000, i32::MAX] {
        assert_eq!(decide(&five(), &Draft::new(found, 1, 0)), out_of_order(found, 149));
    }
}

#[test]
fn each_of_the_last_five_batches_is_a_duplicate_with_its_own_offsets() {
    for n in 0..5 {
        let (first, offset) = (100 + n * 10, Offset(1_000 + i64::from(n) * 10));
        let Decision::Duplicate(batch) = decide(&five(), &Draft::new(first, 10, 9_999)) else {
            panic!("batch {n} is not recognised");
        };
        assert_eq!((batch.first_offset(), batch.last_offset), (offset, offset + 9));
        assert_eq!((batch.first_sequence(), batch.last_sequence), (first, first + 9));
        assert_eq!(batch.timestamp, Timestamp(1_000));
    }
}

#[test]
fn a_batch_older_than_the_last_five_is_out_of_order() {
    let mut producers = five();
    producers.append(&Written::of(&Draft::new(150, 10, 1_050).build()));
    assert_eq!(decide(&producers, &Draft::new(100, 10, 0)), out_of_order(100, 159));
    assert!(matches!(decide(&producers, &Draft::new(110, 10, 0)), Decision::Duplicate(_)));
}

#[test]
fn a_part_of_a_batch_or_more_than_it_is_no_duplicate() {
    for (first, records) in [(100, 9), (101, 9), (100, 20), (140, 11), (140, 9)] {
        let found = decide(&five(), &Draft::new(first, records, 0));
        assert_eq!(found, out_of_order(first, 149), "{records} from {first}");
    }
}

#[test]
fn an_older_epoch_is_refused_even_where_the_sequence_number_would_fit() {
    let producers = after(&[Draft::new(0, 1, 0).in_epoch(3)]);
    for sequence in [0, 1, 7] {
        let batch = Draft::new(sequence, 1, 1).in_epoch(2);
        assert_eq!(decide(&producers, &batch), old_epoch(2, 3));
    }
}

#[test]
fn a_newer_epoch_begins_at_zero() {
    assert_eq!(decide(&five(), &Draft::new(0, 1, 0).in_epoch(1)), Decision::Append);
    for found in [1, 150] {
        let batch = Draft::new(found, 1, 0).in_epoch(1);
        assert_eq!(decide(&five(), &batch), out_of_order(found, 149));
    }
}

#[test]
fn a_newer_epoch_makes_the_batches_of_the_older_one_forgotten() {
    let mut producers = five();
    producers.append(&Written::of(&Draft::new(0, 10, 1_050).in_epoch(1).build()));
    assert_eq!(decide(&producers, &Draft::new(140, 10, 0)), old_epoch(0, 1));
    let same_range = Draft::new(140, 10, 0).in_epoch(1);
    assert_eq!(decide(&producers, &same_range), out_of_order(140, 9));
    assert!(matches!(
        decide(&producers, &Draft::new(0, 10, 0).in_epoch(1)),
        Decision::Duplicate(batch) if batch.first_offset() == Offset(1_050)
    ));
}

#[test]
fn after_the_largest_sequence_number_comes_zero() {
    let producers = after(&[Draft::new(i32::MAX - 4, 5, 100)]);
    assert_eq!(decide(&producers, &Draft::new(0, 3, 105)), Decision::Append);
    assert_eq!(decide(&producers, &Draft::new(1, 3, 105)), out_of_order(1, i32::MAX));
}

#[test]
fn a_batch_across_the_wrap_is_recognised_and_continued() {
    let producers = after(&[Draft::new(i32::MAX - 1, 5, 100)]);
    assert_eq!(producers.get(ProducerId(ID)).map(Producer::last_sequence), Some(2));
    assert_eq!(decide(&producers, &Draft::new(3, 1, 105)), Decision::Append);
    let Decision::Duplicate(batch) = decide(&producers, &Draft::new(i32::MAX - 1, 5, 0)) else {
        panic!("it is not recognised");
    };
    assert_eq!((batch.first_offset(), batch.last_offset), (Offset(100), Offset(104)));
}

#[test]
fn producers_do_not_disturb_one_another() {
    let other = |sequence| Draft { id: 1, ..Draft::new(sequence, 1, 2_000) };
    let mut producers = five();
    producers.append(&Written::of(&other(0).build()));
    assert_eq!(decide(&producers, &other(1)), Decision::Append);
    assert_eq!(decide(&producers, &Draft::new(150, 1, 0)), Decision::Append);
    assert_eq!(producers.len(), 2);
}

#[test]
fn a_coordinator_is_held_to_epochs_and_not_to_sequence_numbers() {
    let producers = after(&[Draft::new(0, 1, 0).in_epoch(3)]);
    let check = |draft: Draft| producers.check(&Written::of(&draft.build()), Sender::Coordinator);
    assert_eq!(check(Draft::new(NO_SEQUENCE, 1, 1).in_epoch(3)), Decision::Append);
    assert_eq!(check(Draft::new(0, 1, 1).in_epoch(3)), Decision::Append, "no duplicate either");
    assert_eq!(check(Draft::new(NO_SEQUENCE, 1, 1).in_epoch(2)), old_epoch(2, 3));
}

#[test]
fn what_is_replicated_is_believed_although_it_would_be_refused() {
    let mut producers = five();
    producers.append(&Written::of(&Draft::new(700, 2, 3_000).build()));
    assert_eq!(producers.get(ProducerId(ID)).map(Producer::last_sequence), Some(701));
    let older = Draft::new(5, 1, 3_002).in_epoch(-1);
    producers.append(&Written::of(&older.build()));
    let producer = producers.get(ProducerId(ID)).unwrap();
    assert_eq!((producer.epoch, producer.last_sequence(), producer.batches().len()), (-1, 5, 1));
}

#[test]
fn a_transaction_begins_with_its_first_batch_and_ends_with_its_marker() {
    let mut producers =
        after(&[Draft::new(0, 2, 10).transactional(), Draft::new(2, 2, 12).transactional()]);
    let producer = producers.get(ProducerId(ID)).unwrap();
    assert_eq!(producer.transaction_first_offset, Some(Offset(10)));
    assert_eq!((producer.coordinator_epoch, producer.last_timestamp), (-1, Timestamp(1_000)));
    let outside =
        Decision::Refuse(ProducerRefusal::OutsideTransaction { producer_id: ProducerId(ID) });
    assert_eq!(decide(&producers, &Draft::new(4, 1, 14)), outside);
    assert_eq!(decide(&producers, &Draft::new(4, 1, 14).transactional()), Decision::Append);
    producers.append(&Written::of(&marker(ControlType::Commit, 7, 0, 14)));
    let producer = producers.get(ProducerId(ID)).unwrap();
    assert_eq!(producer.transaction_first_offset, None);
    assert_eq!((producer.coordinator_epoch, producer.last_timestamp), (7, Timestamp(5_000)));
    assert_eq!(producer.last_sequence(), 3, "the marker has no sequence number");
    assert_eq!(decide(&producers, &Draft::new(4, 1, 15)), Decision::Append);
}

#[test]
fn a_marker_in_a_newer_epoch_makes_its_producer_begin_at_zero() {
    let mut producers = after(&[Draft::new(0, 2, 10).transactional()]);
    producers.append(&Written::of(&marker(ControlType::Abort, 7, 1, 12)));
    let producer = producers.get(ProducerId(ID)).unwrap();
    assert_eq!((producer.epoch, producer.batches()), (1, [].as_slice()));
    assert_eq!(decide(&producers, &Draft::new(0, 1, 13).in_epoch(1)), Decision::Append);
    assert_eq!(decide(&producers, &Draft::new(2, 1, 13).in_epoch(1)), out_of_order(2, NO_SEQUENCE));
}

#[test]
fn a_marker_of_an_older_coordinator_is_refused() {
    let mut producers = after(&[Draft::new(0, 2, 10).transactional()]);
    producers.append(&Written::of(&marker(ControlType::Commit, 7, 0, 12)));
    let late = marker(ControlType::Commit, 6, 0, 13);
    let (producer_id, found, current) = (ProducerId(ID), 6, 7);
    assert_eq!(
        producers.check(&Written::of(&late), Sender::Coordinator),
        Decision::Refuse(ProducerRefusal::OldCoordinatorEpoch { producer_id, found, current })
    );
    let again = marker(ControlType::Commit, 7, 0, 13);
    assert_eq!(producers.check(&Written::of(&again), Sender::Coordinator), Decision::Append);
}

#[test]
fn control_records_that_are_no_markers_leave_no_trace() {
    let mut producers = five();
    let before = producers.clone();
    producers.append(&Written::of(&marker(ControlType::LeaderChange, 7, 9, 1_050)));
    assert_eq!(producers, before);
}

#[test]
fn the_idle_are_forgotten_unless_a_transaction_is_open() {
    let mut producers = after(&[
        Draft { id: 1, timestamp: 100, ..Draft::new(0, 1, 0) },
        Draft { id: 2, timestamp: 101, ..Draft::new(0, 1, 1) },
        Draft { id: 3, timestamp: 5, ..Draft::new(0, 1, 2) }.transactional(),
    ]);
    producers.expire(1_100, 1_000);
    let left: Vec<i64> = producers.iter().map(|(id, _)| id.0).collect();
    assert_eq!(left, [2, 3]);
    assert_eq!(decide(&producers, &Draft { id: 1, ..Draft::new(77, 1, 3) }), Decision::Append);
}

/// What a test of snapshots has to bring back: several batches, a marker after the last one, and none at all.
fn various() -> Producers {
    let mut producers = five();
    for draft in [
        Draft { id: 1, timestamp: 2_000, ..Draft::new(i32::MAX - 1, 4, 1_050) }.in_epoch(6),
        Draft { id: 1, timestamp: 1_500, ..Draft::new(2, 1, 1_054) }.in_epoch(6),
        Draft { id: 2, ..Draft::new(0, 1, 1_055) }.transactional(),
        Draft { id: i64::MAX, ..Draft::new(0, 1, 1_056) }.in_epoch(i16::MAX),
    ] {
        producers.append(&Written::of(&draft.build()));
    }
    producers.append(&Written::of(&marker(ControlType::Commit, 3, 0, 1_057)));
    producers
}

#[test]
fn a_snapshot_brings_everything_back() {
    let mut producers = various();
    for _ in 0..2 {
        assert_eq!(decode(&encode(&producers), Offset(1_059)), Ok(producers.clone()));
        producers.append(&Written::of(&marker(ControlType::Abort, 4, 1, 1_058)));
    }
    let none = Producers::default();
    assert_eq!(decode(&encode(&none), Offset(0)), Ok(none));
}

/// `00000000000000000140.snapshot` of Apache Kafka 4.3.1, after three producers: head, then an entry a line.
const KAFKAS: [&str; 4] = [
    "000193a388f100000003",
    "000000000000000000000000003b000000000000003b00000000000001a214080936ffffffffffffffffffffffff",
    "000000000000000100000000003b000000000000007700000000000001a214080d1effffffffffffffffffffffff",
    "0000000000000002000000000013000000000000008b00000000000001a2140810deffffffffffffffffffffffff",
];

#[test]
fn kafkas_own_snapshot_is_read_and_written_again_byte_by_byte() {
    let hex = KAFKAS.concat();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    let producers = decode(&bytes, Offset(140)).unwrap();
    let known: Vec<_> = producers
        .iter()
        .map(|(id, it)| (id.0, it.last_sequence(), it.batches()[0].last_offset.0))
        .collect();
    assert_eq!(known, [(0, 59, 59), (1, 59, 119), (2, 19, 139)]);
    assert_eq!(encode(&producers), bytes);
}

#[test]
fn the_last_entry_of_a_producer_is_the_one_that_kafka_would_have_written() {
    let bytes = encode(&five());
    assert_eq!(bytes.len(), 10 + 5 * 46);
    let mut last: Vec<u8> = ID.to_be_bytes().to_vec();
    last.extend(0_i16.to_be_bytes());
    last.extend(149_i32.to_be_bytes());
    last.extend(1_049_i64.to_be_bytes());
    last.extend(9_i32.to_be_bytes());
    last.extend(1_000_i64.to_be_bytes());
    last.extend((-1_i32).to_be_bytes());
    last.extend((-1_i64).to_be_bytes());
    assert!(bytes.ends_with(&last));
}

#[test]
fn a_snapshot_that_was_harmed_anywhere_is_not_believed() {
    let bytes = encode(&various());
    for at in 0..bytes.len() {
        for change in [0x01, 0x80] {
            let mut harmed = bytes.clone();
            harmed[at] ^= change;
            assert!(decode(&harmed, Offset(1_058)).is_err(), "byte {at}");
        }
        assert!(decode(&bytes[..at], Offset(1_058)).is_err(), "cut to {at} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(decode(&longer, Offset(1_058)), Err(SnapshotError::Checksum));
}

/// The bytes with a version, and a checksum that fits.
fn sealed(version: i16, checked: &[u8]) -> Vec<u8> {
    let crc = crc32c(checked);
    [&version.to_be_bytes()[..], &crc.to_be_bytes(), checked].concat()
}

#[test]
fn a_snapshot_that_says_what_cannot_be_is_not_believed_although_its_checksum_is_right() {
    let entries = encode(&five()).split_off(6);
    let at = Offset(1_050);
    assert_eq!(decode(&sealed(1, &entries), at), Ok(five()));
    assert_eq!(decode(&sealed(2, &entries), at), Err(SnapshotError::Version(2)));
    assert_eq!(decode(&sealed(1, &[&entries[..], &[0]].concat()), at), Err(SnapshotError::Length));
    for count in [4_i32, 6, -1, i32::MAX] {
        let mut wrong = entries.clone();
        wrong[..4].copy_from_slice(&count.to_be_bytes());
        assert_eq!(decode(&sealed(1, &wrong), at), Err(SnapshotError::Length), "{count}");
    }
    let (snapshot, found) = (Offset(1_049), Offset(1_049));
    let early = Err(SnapshotError::Offset { snapshot, found });
    assert_eq!(decode(&sealed(1, &entries), Offset(1_049)), early, "it is named too low");
}
