//! Writes records to topics: batched, in order, sent again until stored or out of time.
//!
//! One task sends. While a partition's batch is in flight, the records behind it gather into the
//! next one: batches grow with the load, and nobody waits for one to fill up.

mod send;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ottla_base::{Timestamp, TopicPartition};
use ottla_records::{Compression, HeaderSlice};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::accumulator::{Accumulator, RecordSlices};
use crate::client::Client;
use crate::error::ClientError;

/// Whose confirmation a batch waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// Nobody's: records may be lost without a word.
    None,
    Leader,
    /// Every in-sync replica's.
    #[default]
    All,
}

impl Acks {
    pub(crate) fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

#[derive(Debug, Clone)]
pub struct ProducerOptions {
    pub acks: Acks,
    pub compression: Compression,
    /// Size before compression at which a batch is closed. A single record may be larger.
    pub batch_bytes: usize,
    /// Records that may wait; beyond it [`Producer::send`] waits.
    pub buffer_bytes: usize,
    /// How long a record may wait to be stored, with all attempts.
    pub delivery_timeout: Duration,
    /// Number the batches, so that one which is sent again is not stored twice. Needs [`Acks::All`].
    pub idempotent: bool,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            compression: Compression::None,
            batch_bytes: 512 << 10,
            buffer_bytes: 32 << 20,
            delivery_timeout: Duration::from_secs(120),
            idempotent: true,
        }
    }
}

/// A record to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    /// Chosen by key, or spread, when `None`.
    pub partition: Option<i32>,
    /// The time of [`Producer::send`] when `None`.
    pub timestamp: Option<Timestamp>,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// What became of the records so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    pub records: u64,
    /// Of the batches as they were built, before compression.
    pub bytes: u64,
}

/// A record that is too large for its topic, which was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// Of the calls of [`Producer::send`], which one; 0 is the first.
    pub number: u64,
    /// Of a batch with this record alone, before compression.
    pub bytes: usize,
}

/// A record that is too large for its topic is left out, and [`Producer::too_large`] tells of it. After the first record
/// that could not be stored for another reason, everything fails with that record's error.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    shared: Arc<Shared>,
    topics: Mutex<HashMap<Arc<str>, u32>>,
    sender: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    options: ProducerOptions,
    state: Mutex<State>,
    /// Records have come.
    work: Notify,
    /// Batches were stored, or the first one failed.
    progress: Notify,
}

#[derive(Debug)]
struct State {
    accumulator: Accumulator,
    /// How many records were taken over.
    sent: u64,
    delivered: Delivered,
    too_large: Vec<TooLarge>,
    failure: Option<ClientError>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Producer {
    #[must_use]
    pub fn new(client: Client, options: ProducerOptions) -> Self {
        let accumulator = Accumulator::new(options.compression, options.batch_bytes, any_number());
        let state = State {
            accumulator,
            sent: 0,
            delivered: Delivered::default(),
            too_large: Vec::new(),
            failure: None,
        };
        let shared = Arc::new(Shared {
            options,
            state: Mutex::new(state),
            work: Notify::new(),
            progress: Notify::new(),
        });
        let sender = tokio::spawn(send::run(client.clone(), Arc::clone(&shared)));
        Self { client, shared, topics: Mutex::default(), sender }
    }

    /// Takes a record over. It is stored some time later: [`Producer::flush`] tells.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTopic`], [`ClientError::NoSuchPartition`], what has kept a broker from telling of the
    /// topic, or the error of an earlier record that could not be stored: this one is not taken over then.
    pub async fn send(&self, topic: &Arc<str>, record: &ProducerRecord) -> Result<(), ClientError> {
        let partitions = self.partitions(topic).await?;
        if let Some(partition) = record.partition
            && !u32::try_from(partition).is_ok_and(|partition| partition < partitions)
        {
            let partition = TopicPartition::new(Arc::clone(topic), partition);
            return Err(ClientError::NoSuchPartition(partition));
        }
        self.wait_for_room().await?;
        self.append(topic, record, partitions);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Waits until every record taken over so far is stored, or left out as too large.
    ///
    /// # Errors
    /// The error of the first record that could not be stored. How many are, [`Producer::delivered`] tells.
    pub async fn flush(&self) -> Result<Delivered, ClientError> {
        self.wait_until(Accumulator::is_empty).await?;
        Ok(self.shared.state().delivered)
    }

    /// What is stored by now.
    #[must_use]
    pub fn delivered(&self) -> Delivered {
        self.shared.state().delivered
    }

    /// The records that were left out so far, in the order in which that was found.
    #[must_use]
    pub fn too_large(&self) -> Vec<TooLarge> {
        self.shared.state().too_large.clone()
    }

    async fn wait_for_room(&self) -> Result<(), ClientError> {
        let limit = self.shared.options.buffer_bytes;
        self.wait_until(|accumulator| accumulator.buffered_bytes() < limit).await
    }

    async fn wait_until(
        &self,
        condition: impl Fn(&Accumulator) -> bool,
    ) -> Result<(), ClientError> {
        loop {
            // Registered before looking, so that no progress in between is missed.
            let progress = self.shared.progress.notified();
            {
                let state = self.shared.state();
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                if condition(&state.accumulator) {
                    return Ok(());
                }
            }
            progress.await;
        }
    }

    fn append(&self, topic: &Arc<str>, record: &ProducerRecord, partitions: u32) {
        let headers: Vec<HeaderSlice<'_>> =
            record.headers.iter().map(|(name, value)| (&**name, value.as_deref())).collect();
        let mut state = self.shared.state();
        let slices = RecordSlices {
            number: state.sent,
            timestamp: record.timestamp.unwrap_or_else(now),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        state.sent += 1;
        let accumulator = &mut state.accumulator;
        let partition = record
            .partition
            .unwrap_or_else(|| accumulator.choose_partition(topic, slices.key, partitions));
        let partition = TopicPartition::new(Arc::clone(topic), partition);
        accumulator.append(&partition, slices, Instant::now());
    }

    /// The topic's partition count, asked for once.
    async fn partitions(&self, topic: &Arc<str>) -> Result<u32, ClientError> {
        let known = || self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = known().get(topic) {
            return Ok(*count);
        }
        let found = self.client.topic_or_create(topic).await?;
        let count = u32::try_from(found.partitions.len()).unwrap_or(u32::MAX);
        known().insert(Arc::clone(topic), count);
        Ok(count)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.sender.abort();
    }
}

/// The standard library keys its hash maps with fresh randomness: enough for spreading load.
fn any_number() -> u32 {
    let hash = RandomState::new().hash_one(0_u8);
    u32::try_from(hash >> 32).expect("32 bits are left")
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
