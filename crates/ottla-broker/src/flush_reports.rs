//! Tells leaders how far this broker has their partitions on disk, and understands what followers tell. Shell.
//!
//! A follower's fetch says what it has, not what it has on disk, and a parked fetch says nothing for half a second. So a
//! flush that is done is told at once, in a message of its own ([`PeerKey::Flushed`]), whose empty answer says that it has
//! arrived; what is flushed meanwhile goes with the next one:
//!
//! | field | type |
//! | --- | --- |
//! | the follower's broker id and broker epoch | int32, int64 |
//! | number of partitions | int32 |
//! | for each: topic id, partition, leader epoch, everything below this offset is on disk | uuid, int32, int32, int64 |
//!
//! Invariant: the latest word on each partition arrives, if the leader can be reached; what is said is never taken back
//! within a leader epoch, so that late and repeated messages do no harm.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId};
use ottla_protocol::peer::PeerKey;
use ottla_protocol::{Decoder, Encoder, Malformed};
use ottla_replication::FollowerFlushed;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::debug;

use crate::broker::Registration;
use crate::peers::{BrokerAddresses, PeerError, Purpose};

/// How long a leader may take to take note.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a leader is left alone that could not be reached.
const RETRY: Duration = Duration::from_millis(100);

type Words = HashMap<(TopicId, PartitionIndex), (LeaderEpoch, Offset)>;

/// What leaders are to be told.
#[derive(Debug, Default)]
pub struct FlushReports {
    outboxes: Mutex<HashMap<BrokerId, Arc<Outbox>>>,
    /// Set once this broker is registered.
    sender: std::sync::OnceLock<(Registration, Arc<BrokerAddresses>)>,
}

#[derive(Debug, Default)]
struct Outbox {
    words: Mutex<Words>,
    changed: Notify,
}

impl Outbox {
    /// What was said meanwhile is newer, and stays.
    fn put_back(&self, words: Words) {
        let mut waiting = self.words.lock();
        for (partition, word) in words {
            waiting.entry(partition).or_insert(word);
        }
    }
}

impl FlushReports {
    /// From now on leaders are told. Said once.
    pub(crate) fn begin(&self, registration: Registration, addresses: Arc<BrokerAddresses>) {
        let outboxes = self.outboxes.lock();
        for (leader, outbox) in &*outboxes {
            addresses.spawn(send(
                Arc::clone(outbox),
                *leader,
                registration,
                Arc::clone(&addresses),
            ));
        }
        let _ = self.sender.set((registration, addresses));
    }

    /// What a leader is to be told, for whoever carries it there instead of [`FlushReports::begin`].
    #[must_use]
    pub fn take(&self, leader: BrokerId, registration: Registration) -> Option<Bytes> {
        let outboxes = self.outboxes.lock();
        let words = std::mem::take(&mut *outboxes.get(&leader)?.words.lock());
        (!words.is_empty()).then(|| encode(registration, &words))
    }

    /// Everything below an offset is on disk here, in the log of a partition that another broker leads.
    pub(crate) fn flushed(
        &self,
        leader: BrokerId,
        topic: TopicId,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
        end: Offset,
    ) {
        let mut outboxes = self.outboxes.lock();
        let outbox = outboxes.entry(leader).or_insert_with(|| {
            let outbox = Arc::<Outbox>::default();
            if let Some((registration, addresses)) = self.sender.get() {
                let addresses = Arc::clone(addresses);
                let outbox = Arc::clone(&outbox);
                addresses.spawn(send(outbox, leader, *registration, Arc::clone(&addresses)));
            }
            outbox
        });
        outbox.words.lock().insert((topic, partition), (epoch, end));
        outbox.changed.notify_one();
    }
}

/// Sends to one leader for as long as the process runs.
async fn send(
    outbox: Arc<Outbox>,
    leader: BrokerId,
    registration: Registration,
    addresses: Arc<BrokerAddresses>,
) {
    loop {
        outbox.changed.notified().await;
        let words = std::mem::take(&mut *outbox.words.lock());
        if words.is_empty() {
            continue;
        }
        let body = encode(registration, &words);
        let sent = async {
            let connection = addresses.connection(Purpose::Flushed, leader).await?;
            Ok::<_, PeerError>(connection.ask_peer(PeerKey::Flushed, body, ANSWER_MAX).await?)
        };
        if let Err(error) = sent.await {
            debug!(%leader, %error, "what is flushed can't be told");
            outbox.put_back(words);
            tokio::time::sleep(RETRY).await;
            outbox.changed.notify_one();
        }
    }
}

fn encode(registration: Registration, words: &Words) -> Bytes {
    let mut output = Encoder::with_capacity(16 + 32 * words.len());
    output.i32(registration.id.0);
    output.i64(registration.epoch);
    output.i32(i32::try_from(words.len()).expect("a broker has fewer partitions than that"));
    for ((topic, partition), (epoch, end)) in words {
        output.uuid(*topic);
        output.i32(partition.0);
        output.i32(epoch.0);
        output.i64(end.0);
    }
    output.into_bytes()
}

/// What a follower says, partition by partition, until the message ends.
///
/// # Errors
/// When the message is shorter than it says.
pub fn decode(
    body: Bytes,
    mut each: impl FnMut(TopicId, PartitionIndex, FollowerFlushed),
) -> Result<(), Malformed> {
    let mut input = Decoder::new(body);
    let (replica, broker_epoch) = (BrokerId(input.i32()?), input.i64()?);
    for _ in 0..input.i32()? {
        let (topic, partition) = (input.uuid()?, PartitionIndex(input.i32()?));
        let leader_epoch = LeaderEpoch(input.i32()?);
        let flushed = Offset(input.i64()?);
        each(topic, partition, FollowerFlushed { replica, broker_epoch, leader_epoch, flushed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ottla_base::Uuid;

    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written_and_never_beyond_its_end() {
        let registration = Registration { id: BrokerId(2), epoch: 40 };
        let (topic, partition) = (Uuid([7; 16]), PartitionIndex(3));
        let words = Words::from([((topic, partition), (LeaderEpoch(5), Offset(99)))]);
        let body = encode(registration, &words);
        let mut read = Vec::new();
        decode(body.clone(), |topic, partition, word| read.push((topic, partition, word))).unwrap();
        let word = FollowerFlushed {
            replica: BrokerId(2),
            broker_epoch: 40,
            leader_epoch: LeaderEpoch(5),
            flushed: Offset(99),
        };
        assert_eq!(read, [(topic, partition, word)]);
        for len in 0..body.len() {
            assert!(decode(body.slice(..len), |_, _, _| panic!("of a short message")).is_err());
        }
    }
}
