//! `ottla consume`: records of a topic on standard output.

mod group;
mod print;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use jiff::ZonedDateTime;
use ottla_base::TopicPartition;
use ottla_client::{
    Client, ClientError, Consumer, ConsumerOptions, Isolation, Polled, Repositioned,
};
use tokio::sync::mpsc;

use self::print::{Page, print_in_background};
use crate::connection::{ConnectionArguments, parse_duration};
use crate::failure::{EXIT_CODES, Failure, note};
use crate::from::Start;
use crate::output::reader_gone;
use crate::produce::interrupted;
use crate::template::Template;

/// Answers of brokers that may wait for standard output.
const ANSWERS_MAX: usize = 2;
/// What the reader of a pipe gets to take the last records after an interrupt.
const LAST_WRITES: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = examples())]
pub struct ConsumeArguments {
    #[command(flatten)]
    pub connection: ConnectionArguments,
    /// Whose records to print
    pub topic: String,
    /// Read as one of this group: its members share the partitions, and each goes on where the
    /// group left off, also after the end of this command
    #[arg(
        short,
        long,
        value_name = "GROUP",
        conflicts_with = "partitions",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub group: Option<String>,
    /// How long the group waits for a member that has died before the others get its partitions
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "10s",
        requires = "group",
        value_parser = parse_duration
    )]
    pub session_timeout: Duration,
    /// Where to begin: beginning, end, an offset, the last N of each partition (-N), a time ago
    /// (-1h, -30m, -2d), today or yesterday (from local midnight), a time or a day (UTC unless a
    /// zone follows: 2026-05-01T08:00:00+02:00), or @ and milliseconds since 1970. With a group, only in partitions where it has not read yet
    #[arg(
        short,
        long,
        value_name = "WHERE",
        default_value = "beginning",
        allow_hyphen_values = true
    )]
    pub from: Start,
    /// Read this partition only; may be repeated
    #[arg(
        short,
        long = "partition",
        value_name = "N",
        value_parser = clap::value_parser!(i32).range(0..)
    )]
    pub partitions: Vec<i32>,
    /// How to print a record: %k key, %v value, %h headers, %o offset, %p partition, %T timestamp
    /// (ms), %t topic, %% percent; escapes \n \t \r \0 \\. A newline follows, unless the format
    /// ends in \n, \0 or \c
    #[arg(long, value_name = "FORMAT", conflicts_with = "json")]
    pub format: Option<Template>,
    /// Print each record as one line of JSON, bytes that are not UTF-8 in base64
    #[arg(short, long)]
    pub json: bool,
    /// Stop after this many records
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// Stop at the end that each partition has now, rather than wait for more
    #[arg(long)]
    pub until_end: bool,
    /// Show records of open and rolled-back transactions (Kafka's default), or only committed ones
    #[arg(
        long,
        value_enum,
        value_name = "LEVEL",
        default_value_t = IsolationArgument::ReadUncommitted
    )]
    pub isolation: IsolationArgument,
    /// What stands for a key or value that is null, outside of JSON
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub null: String,
}

fn examples() -> String {
    format!(
        "Examples:
  ottla consume orders                                 all there is, then whatever comes
  ottla consume orders --from end                      only what comes from now on
  ottla consume orders --from yesterday --until-end    from yesterday's first record to now
  ottla consume orders --from -10 --count 10           the last ten of a topic with one partition
  ottla consume orders --format '%p/%o %T %k: %v'
  ottla consume orders --json | jq .value
  ottla consume orders --group inventory               goes on where the group left off

Ctrl-C stops it; that is no failure. Several readers read independently of one another, and
nothing is remembered between runs, unless they read as members of a group: what was written to
standard output is committed then, and not read again. A member that dies may have printed
records that it had no time to commit; those are printed once more.

{EXIT_CODES}"
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum IsolationArgument {
    ReadUncommitted,
    ReadCommitted,
}

pub(crate) async fn run(arguments: ConsumeArguments) -> Result<(), Failure> {
    if arguments.count == Some(0) {
        return Ok(());
    }
    let client = arguments.connection.connect().await?;
    if let Some(group) = &arguments.group {
        return group::run(client, &arguments, group).await;
    }
    let consumer = assign(client, &arguments).await?;
    let (pages, _, mut printed) = print_in_background(&arguments);
    let left = arguments.count.unwrap_or(u64::MAX);
    let reading = read(consumer, pages, left, arguments.until_end);
    let mut interrupted = std::pin::pin!(interrupted());
    let stopped = tokio::select! {
        result = reading => result,
        () = reader_gone() => return Ok(()),
        () = &mut interrupted => {
            // What is on its way to the reader of a pipe may still arrive.
            let _ = tokio::time::timeout(LAST_WRITES, printed).await;
            return Ok(());
        }
    };
    // What was read before a failure is printed before the failure is told.
    tokio::select! {
        written = &mut printed => written.map_err(|_| io::Error::other("printing failed"))??,
        () = &mut interrupted => {}
    }
    Ok(stopped?)
}

async fn assign(client: Client, arguments: &ConsumeArguments) -> Result<Consumer, ClientError> {
    let topic = client.topic(&arguments.topic).await?;
    let position = arguments.from.position(&ZonedDateTime::now());
    let chosen: Vec<i32> = if arguments.partitions.is_empty() {
        topic.partitions.keys().copied().collect()
    } else {
        arguments.partitions.clone()
    };
    let mut positions = BTreeMap::new();
    for index in chosen {
        let partition = TopicPartition::new(topic.name.clone(), index);
        if !topic.partitions.contains_key(&index) {
            return Err(ClientError::NoSuchPartition(partition));
        }
        positions.insert(partition, position);
    }
    Consumer::assign(client, positions, options(arguments)).await
}

fn options(arguments: &ConsumeArguments) -> ConsumerOptions {
    let isolation = match arguments.isolation {
        IsolationArgument::ReadUncommitted => Isolation::ReadUncommitted,
        IsolationArgument::ReadCommitted => Isolation::ReadCommitted,
    };
    ConsumerOptions { isolation, ..ConsumerOptions::default() }
}

/// Hands records over for printing until enough are read, or nobody reads what is printed.
async fn read(
    mut consumer: Consumer,
    pages: mpsc::Sender<Page>,
    mut left: u64,
    until_end: bool,
) -> Result<(), ClientError> {
    while left > 0 && !(until_end && consumer.has_reached_end()) {
        let polled = tokio::select! {
            polled = consumer.poll() => polled?,
            () = pages.closed() => return Ok(()),
        };
        let mut records = match polled {
            Polled::Records(fetched) => fetched.records,
            Polled::Repositioned(repositioned) => {
                warn_of(&repositioned);
                continue;
            }
        };
        records.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= u64::try_from(records.len()).unwrap_or(left);
        if !records.is_empty() && pages.send(Page::of(records)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn warn_of(Repositioned { partition, from, to }: &Repositioned) {
    note(&format!("note: {partition} does not hold offset {from}; reading goes on at {to}"));
}
