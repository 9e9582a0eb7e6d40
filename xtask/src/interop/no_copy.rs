//! What the real binary reads of a log to serve its consumers, as `strace` sees it: every record that they get goes from the
//! file to the socket by `sendfile`, and what is not in the page cache is brought there without a copy (shell; the law is
//! pure).
//!
//! Of a `.log` file the process itself gets only what it looks a batch up by: at most [`WINDOW_BYTES`] at once, all in all
//! less than a hundredth of what consumers get.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ottla_base::{Offset, Timestamp};
use ottla_protocol::Records;
use ottla_protocol::frame::{decode_response, encode_request};
use ottla_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::{FetchRequest, ProduceRequest};
use ottla_records::{BatchBuilder, Batches, Compression};

use super::flush_order::{Event, events};
use super::operator::{self, Running, client, new_directory, serve_in};
use super::session::Session;
use super::{TRACE, Test};
use crate::side_by_side::connection::{Connection, Reply};

const TOPIC: &str = "uncopied";
const CONSUMERS: usize = 20;
const VALUE_BYTES: usize = 1024;
const RECORDS_PER_BATCH: usize = 16;
const BATCHES: usize = 1_024;
/// Five segments: four that are closed, and one that is written to.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;
const FETCH_BYTES: i32 = 1024 * 1024;

/// One look for a batch: what is between two entries of the index, or one header.
const WINDOW_BYTES: u64 = 8 * 1024;

/// Everything that could read a file, or send it.
const CALLS: &str = "trace=read,readv,pread64,preadv,preadv2,mmap,sendfile,splice,copy_file_range";

pub(super) fn tests() -> Vec<Test> {
    let name =
        "performance: what twenty consumers of a partition read is copied nowhere, cached or not";
    let run = move |session: &mut Session| traced(&new_directory(session)?);
    let test = Test::new(name, &["strace", "setpriv"], run);
    vec![test.without_broker().where_allowed(&[TRACE])]
}

fn traced(directory: &Path) -> Result<()> {
    let trace = directory.join("trace");
    let mut broker = serve_in(directory)?;
    // To find out what a disk has changed, everything is read, past the page cache.
    broker.args(["--set", "ottla.scrub.bytes.per.second=0"]);
    let broker = operator::traced(&broker, &trace, &["-yy", "-s", "0", "-e", CALLS]);
    let running = Running::start(broker, directory)?;
    let segments = format!("segment.bytes={SEGMENT_BYTES}");
    client(running.address(), &["topic", "create", TOPIC, "--config", &segments], "")?;
    produce(running.address())?;
    let is_cold = drop_halves(&running.ready.data.join(format!("{TOPIC}-0")))?;

    let address = running.address();
    let delivered = thread::scope(|scope| {
        let consumers: Vec<_> = (0..CONSUMERS).map(|_| scope.spawn(|| consume(address))).collect();
        let joined = consumers
            .into_iter()
            .map(|consumer| consumer.join().map_err(|_| anyhow!("a consumer panicked")).flatten());
        joined.sum::<Result<u64>>()
    })?;

    let text = fs::read_to_string(&trace)?;
    let moved = Moved::of(&text, &format!("/{TOPIC}-0/"))?;
    println!("       of {delivered} bytes for consumers: {moved:?}");
    moved.check(delivered)?;
    ensure!(!is_cold || moved.brought_in > 0, "nothing was brought in: {moved:?}");
    Ok(())
}

/// With acks=all: then all of it is on the disk, and the page cache may let go of it.
fn produce(address: &str) -> Result<()> {
    let mut connection = Connection::open(address)?;
    for number in 0..BATCHES {
        let mut builder = BatchBuilder::new(Compression::None);
        let value = vec![u8::try_from(number % 251)?; VALUE_BYTES];
        for _ in 0..RECORDS_PER_BATCH {
            builder.append(Timestamp(1_500_000_000_000), None, Some(&value), &[]);
        }
        let records = Some(Records::Bytes(builder.build_bytes()));
        let partition_data = vec![PartitionProduceData { index: 0, records }];
        let topic = TopicProduceData { name: TOPIC.into(), partition_data, ..Default::default() };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![topic],
            ..Default::default()
        };
        connection.send(&encode_request(12, 1, None, &request)?.bytes);
        let Reply::Frame(frame) = connection.receive()? else { bail!("no answer {number}") };
        let (_, response) = decode_response::<ProduceRequest>(frame, 12)?;
        let mut partitions = response.responses.iter().flat_map(|it| &it.partition_responses);
        let error = partitions.next().context("Produce tells of no partition")?.error_code;
        ensure!(error == ottla_base::ErrorCode::NONE, "Produce: {error:?}");
    }
    Ok(())
}

/// Lets the page cache forget the first half of each segment. Returns whether it did: in a file system of memory it cannot.
fn drop_halves(log: &Path) -> Result<bool> {
    let mut is_cold = false;
    for entry in fs::read_dir(log)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "log") {
            let file = File::open(&path)?;
            ottla_env::sys::drop_cached(&file, 0, file.metadata()?.len() / 2)?;
            is_cold |= !ottla_env::sys::is_cached(&file, 0, 1);
        }
    }
    Ok(is_cold)
}

/// Reads all records, checks them, and returns how many bytes that was, batches that were cut off included.
fn consume(address: &str) -> Result<u64> {
    let mut connection = Connection::open(address)?;
    let (mut next, mut delivered) = (Offset(0), 0);
    let end = Offset(i64::try_from(BATCHES * RECORDS_PER_BATCH)?);
    while next < end {
        let partition = FetchPartition {
            fetch_offset: next.0,
            partition_max_bytes: FETCH_BYTES,
            ..Default::default()
        };
        let topics = vec![FetchTopic {
            topic: TOPIC.into(),
            partitions: vec![partition],
            ..Default::default()
        }];
        let request = FetchRequest { topics, ..Default::default() };
        connection.send(&encode_request(12, 1, None, &request)?.bytes);
        let Reply::Frame(frame) = connection.receive()? else { bail!("no answer at {next}") };
        let (_, response) = decode_response::<FetchRequest>(frame, 12)?;
        let mut partitions = response.responses.into_iter().flat_map(|it| it.partitions);
        let found = partitions.next().context("Fetch tells of no partition")?;
        let Some(Records::Bytes(records)) = found.records else { bail!("no records at {next}") };
        delivered += u64::try_from(records.len())?;
        let before = next;
        for batch in Batches::new(records) {
            let batch = batch?.verify_crc()?;
            ensure!(batch.base_offset() == next, "{} follows {next}", batch.base_offset());
            next = batch.next_offset();
        }
        ensure!(next > before, "nothing comes behind {next}");
    }
    Ok(delivered)
}

/// What became of the bytes of a log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Moved {
    /// From the file to a socket.
    sent: u64,
    /// Into the page cache.
    brought_in: u64,
    /// Into the process's own memory, and the most of it at once.
    copied: u64,
    copied_at_once: u64,
}

impl Moved {
    /// As a trace tells of the segments in a directory.
    fn of(trace: &str, directory: &str) -> Result<Self> {
        let (mut moved, mut unfinished) = (Self::default(), BTreeMap::new());
        for line in trace.lines() {
            for event in events(line, &mut unfinished) {
                let Event::End { call, result } = event else { continue };
                let is_of_log = call.contains(directory) && call.contains(".log>");
                if is_of_log && !result.starts_with('-') {
                    moved.add(call, result).with_context(|| format!("in the trace: {line}"))?;
                }
            }
        }
        Ok(moved)
    }

    fn add(&mut self, call: &str, result: &str) -> Result<()> {
        let (name, arguments) = call.split_once('(').unwrap_or_default();
        // `12<TCP:[…]>, 9<….log>, …`
        let target = arguments.split(">, ").next().unwrap_or_default();
        let count = || result.parse::<u64>().with_context(|| format!("how many is {result}?"));
        match name {
            "read" | "readv" | "pread64" | "preadv" | "preadv2" => {
                let count = count()?;
                self.copied += count;
                self.copied_at_once = self.copied_at_once.max(count);
            }
            "sendfile" if target.contains("<TCP:") => self.sent += count()?,
            "sendfile" if target.contains("</dev/null") => self.brought_in += count()?,
            _ => bail!("records go another way"),
        }
        Ok(())
    }

    fn check(&self, delivered: u64) -> Result<()> {
        ensure!(self.sent == delivered, "not all went by sendfile: {self:?}");
        let most = self.copied_at_once;
        ensure!(most <= WINDOW_BYTES, "{most} bytes of a log were copied at once: {self:?}");
        let is_little = self.copied * 100 < delivered;
        ensure!(is_little, "{} bytes of a log were copied: {self:?}", self.copied);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "7 sendfile(12<TCP:[127.0.0.1:9->127.0.0.1:7]>, 9</d/u-0/00.log>, [0] => [900000], 900000) = 900000";
    const LOOKED_UP: &str = "7 pread64(9</d/u-0/00.log>, \"\"..., 61, 4096) = 61";
    const BROUGHT_IN: &str =
        "8 sendfile(3</dev/null<char 1:3>>, 9</d/u-0/00.log>, [0] => [4096], 4096) = 4096";

    fn judge(lines: &[&str]) -> Result<()> {
        Moved::of(&lines.join("\n"), "/u-0/")?.check(900_000)
    }

    #[test]
    fn what_is_sent_from_the_file_and_looked_up_by_its_header_keeps_the_law() {
        judge(&[BROUGHT_IN, LOOKED_UP, SENT]).unwrap();
        let moved = Moved::of(&[BROUGHT_IN, LOOKED_UP, SENT].join("\n"), "/u-0/").unwrap();
        let expected = Moved { sent: 900_000, brought_in: 4096, copied: 61, copied_at_once: 61 };
        assert_eq!(moved, expected);
    }

    #[test]
    fn calls_that_were_interrupted_in_the_trace_count_once_and_failed_ones_not_at_all() {
        let begun = "7 sendfile(12<TCP:[127.0.0.1:9->127.0.0.1:7]>, 9</d/u-0/00.log>, [0], 900000 <unfinished ...>";
        let resumed = "7 <... sendfile resumed> => [900000]) = 900000";
        let full = "7 sendfile(12<TCP:[127.0.0.1:9->127.0.0.1:7]>, 9</d/u-0/00.log>, [0], 9) = -1 EAGAIN (Resource temporarily unavailable)";
        judge(&[full, begun, BROUGHT_IN, resumed]).unwrap();
    }

    #[test]
    fn what_is_copied_breaks_it() {
        for copied in [
            "7 pread64(9</d/u-0/00.log>, \"\"..., 262144, 0) = 262144",
            "7 mmap(NULL, 4096, PROT_READ, MAP_SHARED, 9</d/u-0/00.log>, 0) = 0x7f0000000000",
            "7 splice(9</d/u-0/00.log>, [0], 5<pipe:[3]>, NULL, 65536, 0) = 65536",
        ] {
            judge(&[SENT, copied]).unwrap_err();
        }
        judge(&[&[SENT], &[LOOKED_UP; 200][..]].concat()).unwrap_err();
        judge(&[LOOKED_UP]).unwrap_err();
        judge(&[&SENT.replace("TCP:[127.0.0.1:9->127.0.0.1:7]", "/tmp/copy")]).unwrap_err();
        judge(&[SENT, &LOOKED_UP.replace("u-0", "other-0").replace("= 61", "= 99999")]).unwrap();
    }
}
