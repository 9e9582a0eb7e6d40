use ottla_base::Timestamp;
use ottla_records::{BatchBuilder, Compression};

use super::*;
use crate::epochs::EpochCache;

/// Batches of one, two and three records from an offset on, as a log holds them.
fn batches(first: i64, count: i64) -> Vec<Vec<u8>> {
    let mut offset = first;
    let batch = |n: i64| {
        let mut builder = BatchBuilder::new(Compression::None);
        (0..=n % 3).for_each(|at| {
            builder.append(Timestamp(1_000 + at), None, Some(b"some value"), &[]);
        });
        let mut batch = builder.build();
        batch.assign(Offset(offset), LeaderEpoch(3));
        offset = batch.next_offset().0;
        batch.to_bytes().to_vec()
    };
    (0..count).map(batch).collect()
}

fn epochs() -> EpochCache {
    let mut epochs = EpochCache::default();
    epochs.assign(LeaderEpoch(3), Offset(0));
    epochs
}

fn stretch(end: u64, end_offset: i64, epochs: &EpochCache) -> Stretch<'_> {
    let (epochs, epochs_end) = (Some(epochs), i64::MAX);
    Stretch { position: 0, end, first_offset: 0, end_offset, epochs, epochs_end }
}

fn look(bytes: &[u8], end_offset: i64) -> Audit {
    let epochs = epochs();
    let end = bytes.len() as u64;
    let stretch = stretch(end, end_offset, &epochs);
    audit(&mut &*bytes, &stretch, &mut |_, _| {}).unwrap()
}

/// Where each batch begins, in bytes and offsets, and where the last one ends.
fn marks(batches: &[Vec<u8>]) -> Vec<(u64, i64)> {
    let (mut position, mut offset) = (0, 0);
    let mut marks = vec![(0, 0)];
    for batch in batches {
        position += batch.len() as u64;
        offset = BatchHeader::parse(batch).unwrap().next_offset().max(offset);
        marks.push((position, offset));
    }
    marks
}

#[test]
fn sound_batches_are_shown_one_by_one() {
    let batches = batches(0, 7);
    let (bytes, marks) = (batches.concat(), marks(&batches));
    let mut seen = Vec::new();
    let end_offset = marks[7].1;
    let epochs = epochs();
    let end = bytes.len() as u64;
    let stretch = stretch(end, end_offset, &epochs);
    let found = audit(&mut &*bytes, &stretch, &mut |position, batch| {
        seen.push((position, batch.header().base_offset));
    })
    .unwrap();
    assert_eq!(found.damage, []);
    assert_eq!((found.batches, found.next_offset), (7, end_offset));
    assert_eq!(seen, marks[..7]);
}

#[test]
fn whatever_bit_of_whatever_batch_is_flipped_that_batch_is_found_and_no_other() {
    let batches = batches(0, 5);
    let (bytes, marks) = (batches.concat(), marks(&batches));
    for at in 0..bytes.len() {
        let number = marks.partition_point(|(position, _)| *position <= at as u64) - 1;
        let (this, next) = (marks[number], marks[number + 1]);
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let found = look(&flipped, marks[5].1);
            let ranges: Vec<_> = found
                .damage
                .iter()
                .map(|it| (it.position, it.end_position, it.first_offset.0, it.end_offset.0))
                .collect();
            assert_eq!(ranges, [(this.0, next.0, this.1, next.1)], "byte {at} bit {bit}");
            assert_eq!(found.batches, 4);
        }
    }
}

#[test]
fn damage_over_several_batches_is_one_range() {
    let batches = batches(0, 6);
    let (mut bytes, marks) = (batches.concat(), marks(&batches));
    let hole = usize::try_from(marks[2].0 + 5).unwrap()..usize::try_from(marks[3].0 + 70).unwrap();
    bytes[hole].fill(0);
    let found = look(&bytes, marks[6].1);
    let [damage] = &found.damage[..] else { panic!("{found:?}") };
    assert_eq!((damage.position, damage.end_position), (marks[2].0, marks[4].0));
    assert_eq!((damage.first_offset.0, damage.end_offset.0), (marks[2].1, marks[4].1));
}

#[test]
fn two_that_are_apart_are_two() {
    let batches = batches(0, 6);
    let (mut bytes, marks) = (batches.concat(), marks(&batches));
    for mark in [&marks[1], &marks[4]] {
        bytes[usize::try_from(mark.0).unwrap() + 30] ^= 1;
    }
    let found = look(&bytes, marks[6].1);
    let positions: Vec<_> = found.damage.iter().map(|damage| damage.position).collect();
    assert_eq!(positions, [marks[1].0, marks[4].0]);
}

#[test]
fn gaps_are_no_damage() {
    let mut all = batches(0, 2);
    all.extend(batches(90, 3));
    let found = look(&all.concat(), 1_000);
    assert_eq!(found.damage, []);
    assert_eq!(found.batches, 5);
}

#[test]
fn a_torn_end_reaches_to_the_end() {
    let batches = batches(0, 3);
    let (mut bytes, marks) = (batches.concat(), marks(&batches));
    bytes.truncate(bytes.len() - 3);
    let found = look(&bytes, i64::MAX);
    let [damage] = &found.damage[..] else { panic!("{found:?}") };
    assert_eq!((damage.position, damage.end_position), (marks[2].0, bytes.len() as u64));
    assert_eq!(found.next_offset, marks[2].1);
    assert_eq!(damage.fault, Fault::NotABatch);
}

#[test]
fn a_length_that_lies_does_not_hide_the_batches_behind_it() {
    let batches = batches(0, 4);
    let (mut bytes, marks) = (batches.concat(), marks(&batches));
    let at = usize::try_from(marks[1].0).unwrap();
    bytes[at + 8..at + 12].copy_from_slice(&i32::MAX.to_be_bytes());
    let found = look(&bytes, marks[4].1);
    let [damage] = &found.damage[..] else { panic!("{found:?}") };
    assert_eq!((damage.position, damage.end_position), (marks[1].0, marks[2].0));
    assert_eq!(found.batches, 3);
}
