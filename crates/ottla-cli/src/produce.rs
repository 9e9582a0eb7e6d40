//! `ottla produce`: lines of standard input become records.
//!
//! A thread reads and cuts lines, because a read of standard input cannot be called off; chunks
//! of records go to the producer through a short channel, which slows the reader down when the
//! cluster does. An interrupt ends the input: what was read is still stored.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use ottla_client::{
    Acks, Compression, Delivered, Producer, ProducerOptions, ProducerRecord, TooLarge,
};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::connection::ConnectionArguments;
use crate::failure::{EXIT_CODES, Exit, Failure, note};
use crate::output::print_json;

const READ_LEN: usize = 256 << 10;
const CHUNKS_MAX: usize = 4;
/// Lines that an error names.
const NAMED_MAX: usize = 10;

#[derive(Debug, Args)]
#[command(after_help = examples())]
pub struct ProduceArguments {
    #[command(flatten)]
    pub connection: ConnectionArguments,
    /// Where the records go
    pub topic: String,
    /// What is before this text in a line is the record's key; a line without it has no key
    #[arg(short, long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub key_separator: Option<String>,
    /// A header of every record; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// The partition of every record; if not given, by key as Kafka's Java client, or spread
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// Whose confirmation to wait for: nobody's, the leader's, or all in-sync replicas'
    #[arg(short, long, value_enum, default_value_t = AcksArgument::All)]
    pub acks: AcksArgument,
    /// How batches are compressed on their way and in the log
    #[arg(short = 'z', long, value_enum, default_value_t = CompressionArgument::None)]
    pub compression: CompressionArgument,
    /// A key or value that is exactly this text is sent as null
    #[arg(long, value_name = "TEXT")]
    pub null: Option<String>,
}

fn examples() -> String {
    format!(
        "Examples:
  echo 'order 1 placed' | ottla produce orders
  echo 'customer-7:order 1 placed' | ottla produce orders --key-separator :
  ottla produce orders --header source=shop --compression zstd < orders.txt
  echo 'customer-7:NULL' | ottla produce customers -k : --null NULL      (a tombstone)

Each line is one record, without its newline. The input ends with its file, Ctrl-D or Ctrl-C;
what was read until then is stored before the command ends. The topic is created if the cluster
creates topics on demand. A line that is too large for the topic is left out, and named at the
end. With acks=all, records are numbered: a retry stores none twice.

{EXIT_CODES}"
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AcksArgument {
    #[value(name = "0")]
    None,
    #[value(name = "1")]
    Leader,
    #[value(name = "all", alias = "-1")]
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompressionArgument {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<AcksArgument> for Acks {
    fn from(acks: AcksArgument) -> Self {
        match acks {
            AcksArgument::None => Self::None,
            AcksArgument::Leader => Self::Leader,
            AcksArgument::All => Self::All,
        }
    }
}

impl From<CompressionArgument> for Compression {
    fn from(compression: CompressionArgument) -> Self {
        match compression {
            CompressionArgument::None => Self::None,
            CompressionArgument::Gzip => Self::Gzip,
            CompressionArgument::Snappy => Self::Snappy,
            CompressionArgument::Lz4 => Self::Lz4,
            CompressionArgument::Zstd => Self::Zstd,
        }
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, such as source=shop".to_owned()),
    }
}

#[derive(Serialize)]
struct ProducedJson<'a> {
    topic: &'a str,
    records: u64,
    seconds: f64,
}

pub(crate) async fn run(arguments: ProduceArguments) -> Result<(), Failure> {
    let client = arguments.connection.connect().await?;
    // A mistake in the topic's name should show before the first line is typed.
    client.topic_or_create(&arguments.topic).await?;
    let options = ProducerOptions {
        acks: arguments.acks.into(),
        compression: arguments.compression.into(),
        delivery_timeout: arguments.connection.timeout,
        ..ProducerOptions::default()
    };
    let producer = Producer::new(client, options);
    let started = Instant::now();
    let mut chunks = read_in_background(io::stdin(), LineReader::new(&arguments));
    let topic: Arc<str> = arguments.topic.as_str().into();
    let written = write(&producer, &topic, &mut chunks).await;
    let delivered = producer.delivered();
    let failure = match written {
        Err(failure) => failure,
        Ok(()) => {
            report(&arguments, delivered, started)?;
            match too_large(producer.too_large()) {
                Some(failure) => failure,
                None => return Ok(()),
            }
        }
    };
    Err(Failure {
        message: format!("{}; {} stored", failure.message, count(delivered.records)),
        ..failure
    })
}

/// Until the input ends and everything is stored.
async fn write(
    producer: &Producer,
    topic: &Arc<str>,
    chunks: &mut mpsc::Receiver<io::Result<Vec<ProducerRecord>>>,
) -> Result<(), Failure> {
    let mut interrupted = std::pin::pin!(interrupted());
    loop {
        let chunk = tokio::select! {
            chunk = chunks.recv() => chunk,
            () = &mut interrupted => None,
        };
        let Some(chunk) = chunk else { break };
        for record in chunk? {
            producer.send(topic, &record).await?;
        }
    }
    producer.flush().await?;
    Ok(())
}

/// Says which lines were left out; of many, how many more.
fn too_large(mut left_out: Vec<TooLarge>) -> Option<Failure> {
    left_out.sort_by_key(|record| record.number);
    let named = left_out.iter().take(NAMED_MAX);
    let named: Vec<_> =
        named.map(|it| format!("line {} ({} bytes)", it.number + 1, it.bytes)).collect();
    let more = match left_out.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let is = if left_out.len() == 1 { "is" } else { "are" };
    let message = format!("{}{more} {is} too large for the topic", named.join(", "));
    let cure = "Raise the topic's max.message.bytes, or send smaller records.";
    (!left_out.is_empty()).then(|| Failure::new(Exit::Failed, message).with_cure(cure))
}

fn count(records: u64) -> String {
    format!("{records} record{}", if records == 1 { "" } else { "s" })
}

/// Completes when someone wants the command to end. A second interrupt ends the process.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    tokio::spawn(async {
        let _ = tokio::signal::ctrl_c().await;
        std::process::exit(130);
    });
}

fn report(
    arguments: &ProduceArguments,
    delivered: Delivered,
    started: Instant,
) -> Result<(), Failure> {
    let seconds = started.elapsed().as_secs_f64();
    let (topic, records) = (&*arguments.topic, delivered.records);
    if arguments.connection.wants_json() {
        return print_json(&ProducedJson { topic, records, seconds });
    }
    note(&format!("{} to {topic} in {seconds:.2} s", count(records)));
    Ok(())
}

/// Ends at the end of the input, at its first error, or when nobody listens any more.
fn read_in_background(
    mut input: impl Read + Send + 'static,
    mut lines: LineReader,
) -> mpsc::Receiver<io::Result<Vec<ProducerRecord>>> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    std::thread::spawn(move || {
        while let Some(chunk) = lines.next_chunk(&mut input).transpose() {
            let failed = chunk.is_err();
            if chunks.blocking_send(chunk).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// Cuts bytes into lines, and lines into records that share their memory.
///
/// Invariant: the first `searched` bytes of `buffer` hold no newline.
#[derive(Debug)]
struct LineReader {
    buffer: BytesMut,
    searched: usize,
    key_separator: Option<Vec<u8>>,
    null: Option<Vec<u8>>,
    template: ProducerRecord,
}

impl LineReader {
    fn new(arguments: &ProduceArguments) -> Self {
        let headers = arguments.headers.iter();
        let bytes = |text: &String| text.clone().into_bytes();
        Self {
            buffer: BytesMut::new(),
            searched: 0,
            key_separator: arguments.key_separator.as_ref().map(bytes),
            null: arguments.null.as_ref().map(bytes),
            template: ProducerRecord {
                partition: arguments.partition,
                headers: headers
                    .map(|(name, value)| (name.clone(), Some(Bytes::from(value.clone()))))
                    .collect(),
                ..ProducerRecord::default()
            },
        }
    }

    /// Records of the lines that one read completed, perhaps none; `None` after the last.
    fn next_chunk(&mut self, input: &mut impl Read) -> io::Result<Option<Vec<ProducerRecord>>> {
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_LEN, 0);
        let room = self.buffer.get_mut(filled..).unwrap_or_default();
        let read = loop {
            match input.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        if read? > 0 {
            return Ok(Some(self.complete_lines()));
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let last = self.buffer.split().freeze();
        Ok(Some(vec![self.record(last)]))
    }

    fn complete_lines(&mut self) -> Vec<ProducerRecord> {
        let mut records = Vec::new();
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(end) = fresh.iter().rposition(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return records;
        };
        let mut whole = self.buffer.split_to(self.searched + end + 1).freeze();
        self.searched = self.buffer.len();
        while let Some(length) = whole.iter().position(|byte| *byte == b'\n') {
            records.push(self.record(whole.split_to(length)));
            whole.advance(1);
        }
        records
    }

    fn record(&self, line: Bytes) -> ProducerRecord {
        let (key, value) = match &self.key_separator {
            Some(separator) => split(line, separator),
            None => (None, line),
        };
        let unless_null = |text: Bytes| {
            let is_null = self.null.as_ref().is_some_and(|null| *null == text);
            (!is_null).then_some(text)
        };
        ProducerRecord {
            key: key.and_then(unless_null),
            value: unless_null(value),
            ..self.template.clone()
        }
    }
}

/// Key and value around the first separator.
fn split(line: Bytes, separator: &[u8]) -> (Option<Bytes>, Bytes) {
    let place = line.windows(separator.len()).position(|window| window == separator);
    match place {
        Some(place) => (Some(line.slice(..place)), line.slice(place + separator.len()..)),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        produce: ProduceArguments,
    }

    /// Gives its bytes so many at a time.
    struct Dripping<'a>(&'a [u8], usize);

    impl Read for Dripping<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let drop = self.1.min(self.0.len()).min(buffer.len());
            (&mut self.0).read(&mut buffer[..drop])
        }
    }

    fn records(options: &[&str], input: &[u8], at_a_time: usize) -> Vec<ProducerRecord> {
        let arguments = ["produce", "topic"].iter().chain(options);
        let arguments = Arguments::try_parse_from(arguments).unwrap().produce;
        let mut lines = LineReader::new(&arguments);
        let mut input = Dripping(input, at_a_time);
        let mut records = Vec::new();
        while let Some(chunk) = lines.next_chunk(&mut input).unwrap() {
            records.extend(chunk);
        }
        records
    }

    type Pair = (Option<String>, Option<String>);

    fn pairs(options: &[&str], input: &str) -> Vec<Pair> {
        let text = |bytes: Option<Bytes>| bytes.map(|b| String::from_utf8(b.to_vec()).unwrap());
        let read = |at_a_time| -> Vec<Pair> {
            let records = records(options, input.as_bytes(), at_a_time).into_iter();
            records.map(|record| (text(record.key), text(record.value))).collect()
        };
        assert_eq!(read(usize::MAX), read(1), "how the input arrives does not matter");
        read(usize::MAX)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn each_line_is_a_record_with_or_without_a_newline_at_the_end() {
        assert_eq!(pairs(&[], ""), []);
        let lines = ["a", "", "b\r"].map(|line| (None, some(line)));
        assert_eq!(pairs(&[], "a\n\nb\r\n"), lines);
        assert_eq!(pairs(&[], "a\nb"), ["a", "b"].map(|line| (None, some(line))));
    }

    #[test]
    fn a_key_ends_at_the_first_separator() {
        let expected = [(some("k"), some("v::w")), (None, some("plain")), (some(""), some(""))];
        assert_eq!(pairs(&["-k", "::"], "k::v::w\nplain\n::\n"), expected);
    }

    #[test]
    fn lines_that_were_left_out_are_named_in_their_order_and_the_rest_counted() {
        assert_eq!(too_large(vec![]), None);
        let record = |number| TooLarge { number, bytes: 3_000_068 };
        let said = |records: Vec<TooLarge>| too_large(records).unwrap().message;
        assert_eq!(said(vec![record(5)]), "line 6 (3000068 bytes) is too large for the topic");
        let two = said(vec![record(7), record(0)]);
        assert!(two.starts_with("line 1 (3000068 bytes), line 8 (3000068 bytes) are too"), "{two}");
        let many = said((0..12).map(record).collect());
        assert!(many.contains("line 10 (3000068 bytes) and 2 more are"), "{many}");
    }

    #[test]
    fn null_is_what_the_user_says_it_is() {
        let options = ["-k", ":", "--null", "NULL"];
        let expected = [(some("k"), None), (None, some("v"))];
        assert_eq!(pairs(&options, "k:NULL\nNULL:v\n"), expected);
    }

    #[test]
    fn headers_and_partition_are_the_same_for_all() {
        let options = ["-H", "a=1", "--header", "b==", "--partition", "2"];
        let record = records(&options, b"x\n", 9).remove(0);
        let header = |name: &str, value: &'static str| (name.to_owned(), Some(Bytes::from(value)));
        assert_eq!(record.headers, [header("a", "1"), header("b", "=")]);
        assert_eq!(record.partition, Some(2));
    }
}
