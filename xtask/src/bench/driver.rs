//! A producer and a consumer that cost next to nothing, so that the broker is what is measured
//! (shell).
//!
//! Requests are built before the clock starts and sent again and again over one connection.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use ottla_base::Timestamp;
use ottla_records::{BatchBuilder, Compression};

use super::wire::{self, TopicId};

const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const READY_LIMIT: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// Kafka's producer keeps at most five requests in flight, its consumer one fetch.
const IN_FLIGHT_MAX: u64 = 5;
const FETCH_MAX_WAIT_MS: i32 = 500;

/// One connection; answers are read in the order of the requests.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    answer: Vec<u8>,
}

impl Connection {
    pub(super) fn open(address: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        stream.set_read_timeout(Some(ANSWER_LIMIT)).context("cannot set a read limit")?;
        Ok(Self { stream: BufReader::new(stream), answer: Vec::new() })
    }

    pub(super) fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(frame).context("cannot send a request")
    }

    /// The next answer without its length.
    pub(super) fn receive(&mut self) -> Result<&[u8]> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).context("no answer")?;
        let length = usize::try_from(u32::from_be_bytes(length)).context("an answer's length")?;
        self.answer.resize(length, 0);
        self.stream.read_exact(&mut self.answer).context("half an answer")?;
        Ok(&self.answer)
    }

    pub(super) fn call(&mut self, frame: &[u8]) -> Result<&[u8]> {
        self.send(frame)?;
        self.receive()
    }

    fn fetch(&mut self, topic: &TopicId, offset: i64, max_wait_ms: i32) -> Result<&[u8]> {
        let frame = wire::fetch(topic, offset, max_wait_ms);
        wire::fetched(self.call(&frame)?)
    }
}

/// Whether a broker answers ApiVersions at `address` right now.
pub(super) fn is_answering(address: &str) -> bool {
    let answer = || -> Result<()> {
        let mut connection = Connection::open(address)?;
        wire::versions_told(connection.call(&wire::api_versions())?)
    };
    answer().is_ok()
}

/// Creates a topic and waits until its first partition can be read.
pub(super) fn create_topic(address: &str, name: &str, partitions: i32) -> Result<TopicId> {
    let mut connection = Connection::open(address)?;
    let topic = wire::created(connection.call(&wire::create_topic(name, partitions))?)?;
    let deadline = Instant::now() + READY_LIMIT;
    while let Err(error) = connection.fetch(&topic, 0, 0) {
        if Instant::now() > deadline {
            return Err(error.context(format!("topic {name} never became readable")));
        }
        thread::sleep(RETRY_PAUSE);
    }
    Ok(topic)
}

pub(super) fn delete_topic(address: &str, name: &str) -> Result<()> {
    wire::deleted(Connection::open(address)?.call(&wire::delete_topic(name))?)
}

/// Requests that carry records of one size, as a producer with a given `batch.size` makes them.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) records: u64,
}

impl Batch {
    /// As many records with values of `value_len` as fit into `batch_size`, at least one.
    pub(super) fn filled(value_len: usize, batch_size: usize) -> Result<Self> {
        let now = now()?;
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let mut builder = BatchBuilder::new(Compression::None);
        // A record adds at most 21 bytes of lengths and deltas, and the batch has a header.
        while builder.is_empty() || builder.size_in_bytes() + value_len + 21 <= batch_size {
            builder.append(now, None, Some(&noise.bytes(value_len)), &[]);
        }
        Ok(Self::of(builder))
    }

    /// As many records as fit into `batch_size` before compression, of words that a codec shrinks as it shrinks text.
    pub(super) fn text(value_len: usize, batch_size: usize, codec: Compression) -> Result<Self> {
        const WORDS: [&[u8]; 8] = [
            b"order ",
            b"placed ",
            b"shipped ",
            b"customer ",
            b"total ",
            b"item ",
            b"price ",
            b"at ",
        ];
        let now = now()?;
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let mut builder = BatchBuilder::new(codec);
        let mut size = 0;
        while builder.is_empty() || size + value_len <= batch_size {
            let mut value = Vec::new();
            while value.len() < value_len {
                let word = usize::try_from(noise.next() % 8).ok().and_then(|at| WORDS.get(at));
                value.extend_from_slice(word.copied().unwrap_or_default());
                value.extend_from_slice(format!("{} ", noise.next() % 10_000).as_bytes());
            }
            value.truncate(value_len);
            builder.append(now, None, Some(&value), &[]);
            size += value_len;
        }
        Ok(Self::of(builder))
    }

    fn of(builder: BatchBuilder) -> Self {
        let records = u64::from(builder.record_count().unsigned_abs());
        Self { bytes: builder.build_bytes().to_vec(), records }
    }
}

fn now() -> Result<Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(Timestamp(i64::try_from(now.as_millis()).context("the clock is far off")?))
}

/// What a thread made, once it has ended.
pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread of the driver panicked"))?
}

/// The same work in every thread, each for its share; the results in the order of the shares.
pub(super) fn in_threads<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let spawn = |share| {
            let work = &work;
            scope.spawn(move || work(share))
        };
        let threads: Vec<_> = (0..count).map(spawn).collect();
        threads.into_iter().map(joined).collect()
    })
}

/// Bytes that no file system and no codec can shrink.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.flatten().take(length).collect()
    }

    /// xorshift64.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Waits until a partition can be read up to an offset.
pub(super) fn await_end(address: &str, topic: &TopicId, end: i64) -> Result<()> {
    let mut connection = Connection::open(address)?;
    let deadline = Instant::now() + READY_LIMIT;
    // The last record: not out of range once it is there.
    while connection.fetch(topic, end - 1, 0).map(<[u8]>::is_empty).unwrap_or(true) {
        if Instant::now() > deadline {
            bail!("the partition never reached {end}");
        }
        thread::sleep(RETRY_PAUSE);
    }
    Ok(())
}

/// Sends `frame` so many times with five in flight; the time from first send to last answer.
pub(super) fn produce(address: &str, frame: &mut [u8], requests: u64) -> Result<Duration> {
    let mut connection = Connection::open(address)?;
    let started = Instant::now();
    let (mut sent, mut answered) = (0_u64, 0_u64);
    while answered < requests {
        while sent < requests && sent - answered < IN_FLIGHT_MAX {
            wire::set_correlation(frame, i32::try_from(sent & 0xffff)?);
            connection.send(frame)?;
            sent += 1;
        }
        wire::produced(connection.receive()?)?;
        answered += 1;
    }
    Ok(started.elapsed())
}

/// Sends a request with batches for many partitions until all of them know their topic: Apache Kafka answers CreateTopics
/// before its broker has applied it.
pub(super) fn until_known(
    connection: &mut Connection,
    frame: &[u8],
    partitions: usize,
) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    loop {
        match wire::many::all_produced(connection.call(frame)?) {
            Ok(taken) if taken == partitions => return Ok(()),
            Ok(taken) => bail!("{taken} of {partitions} partitions took their batch"),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(RETRY_PAUSE),
        }
    }
}

/// Reads a partition from its beginning to `end_offset`, one fetch at a time.
pub(super) fn consume(address: &str, topic: &TopicId, end_offset: i64) -> Result<Duration> {
    let mut connection = Connection::open(address)?;
    let started = Instant::now();
    let mut offset = 0;
    while offset < end_offset {
        let records = connection.fetch(topic, offset, FETCH_MAX_WAIT_MS)?;
        let next = wire::next_offset(records, offset);
        if next == offset {
            bail!("the partition ends at {offset} instead of {end_offset}");
        }
        offset = next;
    }
    Ok(started.elapsed())
}

/// Reads `bytes` from the sending floor, which answers anything.
pub(super) fn drain(address: &str, bytes: u64) -> Result<Duration> {
    let mut connection = Connection::open(address)?;
    let request = wire::fetch(&TopicId::default(), 0, FETCH_MAX_WAIT_MS);
    let started = Instant::now();
    let mut read = 0;
    while read < bytes {
        read += u64::try_from(connection.call(&request)?.len())?;
    }
    Ok(started.elapsed())
}

/// One record at a time from a producer to a consumer that already waits for it: from the send to
/// the arrival, for each record.
pub(super) fn end_to_end(
    address: &str,
    topic: &TopicId,
    frame: &[u8],
    records: u32,
) -> Result<Vec<Duration>> {
    end_to_end_until(address, topic, frame, |sent| sent < records)
}

/// The same for as long as `goes_on`, which is told how many were sent.
pub(super) fn end_to_end_until(
    address: &str,
    topic: &TopicId,
    frame: &[u8],
    goes_on: impl Fn(u32) -> bool,
) -> Result<Vec<Duration>> {
    let mut producer = Connection::open(address)?;
    let mut consumer = Connection::open(address)?;
    let mut offset = 0;
    let mut latencies = Vec::new();
    let mut sent = 0;
    while goes_on(sent) {
        sent += 1;
        consumer.send(&wire::fetch(topic, offset, FETCH_MAX_WAIT_MS))?;
        let started = Instant::now();
        producer.send(frame)?;
        loop {
            let next = wire::next_offset(wire::fetched(consumer.receive()?)?, offset);
            if next > offset {
                offset = next;
                break;
            }
            if started.elapsed() > ANSWER_LIMIT {
                wire::produced(producer.receive()?)?;
                bail!("record {sent} was acknowledged, and cannot be read after {ANSWER_LIMIT:?}");
            }
            consumer.send(&wire::fetch(topic, offset, FETCH_MAX_WAIT_MS))?;
        }
        latencies.push(started.elapsed());
        wire::produced(producer.receive()?)?;
    }
    Ok(latencies)
}

/// One request at a time to the receiving floor: from the send to the answer.
pub(super) fn round_trips(address: &str, frame: &[u8], requests: u32) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(address)?;
    let mut round_trip = || -> Result<Duration> {
        let started = Instant::now();
        wire::produced(connection.call(frame)?)?;
        Ok(started.elapsed())
    };
    (0..requests).map(|_| round_trip()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_full_as_its_size_allows() {
        let batch = Batch::filled(100, 16_384).unwrap();
        assert!(batch.bytes.len() <= 16_384 && batch.bytes.len() > 16_384 - 130);
        let end = wire::next_offset(&batch.bytes, 0);
        assert_eq!(u64::try_from(end).unwrap(), batch.records);
    }

    #[test]
    fn a_record_larger_than_a_batch_is_a_batch_of_one() {
        assert_eq!(Batch::filled(20_000, 16_384).unwrap().records, 1);
    }
}
