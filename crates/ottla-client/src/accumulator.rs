//! Records on their way to a cluster, gathered into batches. Pure: time comes in as an argument.
//!
//! Invariants: a partition has at most one batch in flight, so that a batch sent again never
//! overtakes a later one; batches leave a partition in the order in which their first records
//! came; `buffered_bytes` is the sum of the sizes of all batches here and in flight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ottla_base::{Timestamp, TopicPartition};
use ottla_records::{BatchBuilder, Compression, HeaderSlice, increment_sequence};
use tokio::time::Instant;

use crate::partitioner::partition_for_key;

#[derive(Debug)]
pub(crate) struct Accumulator {
    compression: Compression,
    batch_bytes: usize,
    queues: BTreeMap<TopicPartition, Queue>,
    /// By topic, the partition that records without a key go to for now.
    sticky: BTreeMap<Arc<str>, i32>,
    first_sticky: u32,
    buffered_bytes: usize,
}

/// What waits for one partition.
#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<PendingBatch>,
    in_flight: bool,
    not_before: Option<Instant>,
    next_sequence: i32,
}

/// A batch that is being filled, waiting or in flight.
#[derive(Debug)]
pub(crate) struct PendingBatch {
    pub(crate) builder: BatchBuilder,
    /// Which of the producer's records it holds, in the order of the builder's.
    pub(crate) numbers: Vec<u64>,
    /// When its first record came: the delivery timeout counts from here.
    pub(crate) since: Instant,
    /// No record may join it: it is full, or it was sent before.
    sealed: bool,
    /// The sequence number of its first record, from the first attempt on.
    base_sequence: Option<i32>,
    /// Failed attempts so far.
    pub(crate) attempts: u32,
}

/// A record, borrowed for the moment in which it is copied into a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordSlices<'a> {
    /// Which of the producer's records this is, to name it by if no broker takes it.
    pub(crate) number: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [HeaderSlice<'a>],
}

impl Accumulator {
    /// `first_sticky`, any number, decides where the first record without a key goes: drawn by
    /// chance, it spreads the records of many short-lived producers.
    pub(crate) fn new(compression: Compression, batch_bytes: usize, first_sticky: u32) -> Self {
        Self {
            compression,
            batch_bytes,
            queues: BTreeMap::new(),
            sticky: BTreeMap::new(),
            first_sticky,
            buffered_bytes: 0,
        }
    }

    pub(crate) fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffered_bytes == 0
    }

    /// Where a record without an explicit partition goes: by its key as Kafka's Java client
    /// does; without a key to one partition for as long as a batch of it is open (KIP-480).
    pub(crate) fn choose_partition(
        &mut self,
        topic: &Arc<str>,
        key: Option<&[u8]>,
        partitions: u32,
    ) -> i32 {
        if let Some(key) = key {
            return partition_for_key(key, partitions);
        }
        let partitions = partitions.max(1);
        let count = i32::try_from(partitions).unwrap_or(i32::MAX);
        let Some(sticky) = self.sticky.get_mut(topic) else {
            let first = i32::try_from(self.first_sticky % partitions).unwrap_or(0);
            self.sticky.insert(Arc::clone(topic), first);
            return first;
        };
        let current = TopicPartition::new(Arc::clone(topic), *sticky);
        if !self.queues.get(&current).is_some_and(Queue::has_open_batch) {
            *sticky = (*sticky + 1) % count;
        }
        *sticky
    }

    pub(crate) fn append(
        &mut self,
        partition: &TopicPartition,
        record: RecordSlices<'_>,
        now: Instant,
    ) {
        if !self.queues.contains_key(partition) {
            self.queues.insert(partition.clone(), Queue::default());
        }
        let queue = self.queues.get_mut(partition).expect("it was put there if it was missing");
        let batch = queue.open_batch(self.compression, now);
        let before = batch.builder.size_in_bytes();
        batch.builder.append(record.timestamp, record.key, record.value, record.headers);
        batch.numbers.push(record.number);
        let after = batch.builder.size_in_bytes();
        batch.sealed = after >= self.batch_bytes;
        let was_new = batch.builder.record_count() == 1;
        self.buffered_bytes += if was_new { after } else { after - before };
    }

    /// The head batch of each partition that has none in flight, marked as in flight; and when to look again.
    pub(crate) fn take_ready(&mut self, now: Instant) -> (Vec<Draft>, Option<Instant>) {
        let mut ready = Vec::new();
        let mut wake: Option<Instant> = None;
        for (partition, queue) in &mut self.queues {
            if queue.in_flight || queue.batches.is_empty() {
                continue;
            }
            if let Some(not_before) = queue.not_before.filter(|not_before| now < *not_before) {
                wake = Some(wake.map_or(not_before, |wake| wake.min(not_before)));
                continue;
            }
            if let Some(batch) = queue.take_head() {
                ready.push(Draft { partition: partition.clone(), batch });
            }
        }
        (ready, wake)
    }

    /// The batch has been stored, or given up: its partition may send the next one.
    pub(crate) fn finish(&mut self, draft: Draft) {
        self.buffered_bytes -= draft.batch.builder.size_in_bytes();
        if let Some(queue) = self.queues.get_mut(&draft.partition) {
            queue.in_flight = false;
            queue.not_before = None;
        }
    }

    /// The batch is to be sent again, ahead of all others of its partition, but not before then.
    pub(crate) fn put_back(&mut self, mut draft: Draft, not_before: Instant) {
        draft.batch.attempts += 1;
        if let Some(queue) = self.queues.get_mut(&draft.partition) {
            queue.in_flight = false;
            queue.not_before = Some(not_before);
            queue.batches.push_front(draft.batch);
        }
    }

    /// The batch is too large for the broker: smaller ones with the same records take its place, or none.
    pub(crate) fn replace(&mut self, draft: Draft, parts: Vec<BatchBuilder>) {
        let Draft { partition, batch } = draft;
        self.buffered_bytes -= batch.builder.size_in_bytes();
        let Some(queue) = self.queues.get_mut(&partition) else { return };
        queue.in_flight = false;
        // The refused batch was the last that was given a number, and the broker did not take it.
        if let Some(base_sequence) = batch.base_sequence {
            queue.next_sequence = base_sequence;
        }
        let mut numbers = batch.numbers;
        for builder in parts.into_iter().rev() {
            self.buffered_bytes += builder.size_in_bytes();
            let count = usize::try_from(builder.record_count()).unwrap_or(0);
            queue.batches.push_front(PendingBatch {
                builder,
                numbers: numbers.split_off(numbers.len().saturating_sub(count)),
                since: batch.since,
                sealed: true,
                base_sequence: None,
                attempts: 0,
            });
        }
    }
}

/// A batch on its way.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) partition: TopicPartition,
    pub(crate) batch: PendingBatch,
}

impl Queue {
    fn has_open_batch(&self) -> bool {
        self.batches.back().is_some_and(|batch| !batch.sealed)
    }

    fn open_batch(&mut self, compression: Compression, now: Instant) -> &mut PendingBatch {
        if !self.has_open_batch() {
            self.batches.push_back(PendingBatch {
                builder: BatchBuilder::new(compression),
                numbers: Vec::new(),
                since: now,
                sealed: false,
                base_sequence: None,
                attempts: 0,
            });
        }
        self.batches.back_mut().expect("one was pushed if there was none")
    }

    fn take_head(&mut self) -> Option<PendingBatch> {
        let mut batch = self.batches.pop_front()?;
        self.in_flight = true;
        batch.sealed = true;
        if batch.base_sequence.is_none() {
            batch.base_sequence = Some(self.next_sequence);
            self.next_sequence =
                increment_sequence(self.next_sequence, batch.builder.record_count());
        }
        Some(batch)
    }
}

impl PendingBatch {
    /// The sequence number of the first record; 0 before the first attempt.
    pub(crate) fn base_sequence(&self) -> i32 {
        self.base_sequence.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn slices(value: &[u8]) -> RecordSlices<'_> {
        numbered(0, value)
    }

    fn numbered(number: u64, value: &[u8]) -> RecordSlices<'_> {
        RecordSlices {
            number,
            timestamp: Timestamp(7),
            key: None,
            value: Some(value),
            headers: &[],
        }
    }

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new("t", index)
    }

    fn counts(drafts: &[Draft]) -> Vec<(i32, i32)> {
        drafts
            .iter()
            .map(|draft| (draft.partition.partition.0, draft.batch.builder.record_count()))
            .collect()
    }

    #[test]
    fn a_partition_has_one_batch_in_flight_and_gathers_the_next_meanwhile() {
        let now = Instant::now();
        let mut accumulator = Accumulator::new(Compression::None, 1 << 20, 0);
        accumulator.append(&partition(0), slices(b"a"), now);
        let (first, _) = accumulator.take_ready(now);
        assert_eq!(counts(&first), [(0, 1)]);

        accumulator.append(&partition(0), slices(b"b"), now);
        accumulator.append(&partition(0), slices(b"c"), now);
        accumulator.append(&partition(1), slices(b"d"), now);
        assert_eq!(counts(&accumulator.take_ready(now).0), [(1, 1)]);

        first.into_iter().for_each(|draft| accumulator.finish(draft));
        let (second, _) = accumulator.take_ready(now);
        assert_eq!(counts(&second), [(0, 2)]);
        assert_eq!(second[0].batch.base_sequence(), 1);
    }

    #[test]
    fn a_batch_put_back_goes_first_and_keeps_its_sequence() {
        let now = Instant::now();
        let later = now + Duration::from_millis(5);
        let mut accumulator = Accumulator::new(Compression::None, 1 << 20, 0);
        accumulator.append(&partition(0), slices(b"a"), now);
        let (mut ready, _) = accumulator.take_ready(now);
        accumulator.append(&partition(0), slices(b"b"), now);
        accumulator.put_back(ready.remove(0), later);

        let (ready, wake) = accumulator.take_ready(now);
        assert!(ready.is_empty());
        assert_eq!(wake, Some(later));
        let (ready, _) = accumulator.take_ready(later);
        assert_eq!(counts(&ready), [(0, 1)]);
        assert_eq!((ready[0].batch.base_sequence(), ready[0].batch.attempts), (0, 1));
    }

    #[test]
    fn a_full_batch_is_followed_by_another() {
        let now = Instant::now();
        let mut accumulator = Accumulator::new(Compression::None, 200, 0);
        for _ in 0..3 {
            accumulator.append(&partition(0), slices(&[0; 100]), now);
        }
        let mut taken = Vec::new();
        while let Some(draft) = accumulator.take_ready(now).0.pop() {
            taken.push(draft.batch.builder.record_count());
            accumulator.finish(draft);
        }
        assert_eq!(taken, [2, 1]);
        assert!(accumulator.is_empty(), "all bytes are accounted for");
    }

    #[test]
    fn parts_of_a_batch_take_its_place_and_its_sequence() {
        let now = Instant::now();
        let mut accumulator = Accumulator::new(Compression::None, 1 << 20, 0);
        accumulator.append(&partition(0), numbered(4, b"a"), now);
        accumulator.append(&partition(0), numbered(7, b"b"), now);
        let (mut ready, _) = accumulator.take_ready(now);
        let parts = ["a", "b"].map(|value| {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.append(Timestamp(7), None, Some(value.as_bytes()), &[]);
            builder
        });
        accumulator.replace(ready.remove(0), parts.into());
        let mut sequences = Vec::new();
        while let Some(draft) = accumulator.take_ready(now).0.pop() {
            sequences.push((draft.batch.base_sequence(), draft.batch.numbers.clone()));
            accumulator.finish(draft);
        }
        assert_eq!(sequences, [(0, vec![4]), (1, vec![7])]);
        assert!(accumulator.is_empty());
    }

    #[test]
    fn what_is_sent_after_a_record_that_was_left_out_takes_its_sequence() {
        let now = Instant::now();
        let mut accumulator = Accumulator::new(Compression::None, 1 << 20, 0);
        accumulator.append(&partition(0), slices(b"too large"), now);
        let (mut refused, _) = accumulator.take_ready(now);
        accumulator.append(&partition(0), slices(b"b"), now);
        accumulator.replace(refused.remove(0), Vec::new());
        let (next, _) = accumulator.take_ready(now);
        assert_eq!(next[0].batch.base_sequence(), 0);
        next.into_iter().for_each(|draft| accumulator.finish(draft));
        assert!(accumulator.is_empty());
    }

    #[test]
    fn records_without_a_key_stay_with_a_partition_while_its_batch_is_open() {
        let now = Instant::now();
        let topic: Arc<str> = "t".into();
        let mut accumulator = Accumulator::new(Compression::None, 1 << 20, 0);
        let mut chosen = Vec::new();
        for round in 0..6 {
            let index = accumulator.choose_partition(&topic, None, 3);
            accumulator.append(&partition(index), slices(b"x"), now);
            chosen.push(index);
            if round % 2 == 1 {
                for draft in accumulator.take_ready(now).0 {
                    accumulator.finish(draft);
                }
            }
        }
        assert_eq!(chosen, [0, 0, 1, 1, 2, 2]);
    }
}
