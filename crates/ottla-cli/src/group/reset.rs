//! `ottla group reset-offsets`: where a group without members goes on reading. It shows what it would do, until it is
//! told to do it.
//!
//! The plan is made by [`plan`], a pure function of what was asked for and what the cluster says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args};
use jiff::{Span, SpanRelativeTo, Timestamp};
use ottla_base::{Offset, TopicPartition};
use ottla_client::{Client, ClientError, Committed, Isolation, OffsetQuery};
use serde::Serialize;

use super::scope::TopicScope;
use super::{Failures, csv, is_not_found, scope};
use crate::failure::{Exit, Failure, note};
use crate::from::time;
use crate::output::{or_dash, print_json, print_line, printable, table, write_out};

#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("scope").required(true).args(["topics", "all_topics", "from_file"])),
    group(ArgGroup::new("position").required(true).args([
        "to_earliest", "to_latest", "to_current", "to_offset", "shift_by", "to_datetime",
        "by_duration", "from_file",
    ])),
    after_help = "Examples:
  ottla group reset-offsets inventory --topic orders --to-earliest
  ottla group reset-offsets inventory --topic orders --to-earliest --execute
  ottla group reset-offsets inventory --topic orders:0,3 --to-offset 42
  ottla group reset-offsets inventory --all-topics --to-datetime 2026-05-01T08:00:00
  ottla group reset-offsets inventory --all-topics --by-duration 2h30m
  ottla group reset-offsets inventory --all-topics --shift-by -10 --execute
  ottla group reset-offsets inventory --all-topics --to-current --export > backup.csv
  ottla group reset-offsets inventory --from-file backup.csv --execute

Nothing is changed without --execute. An offset outside of a partition is moved to its nearest
end. Files are those of Kafka's own tool, without a heading: topic,partition,offset on each line,
or group,topic,partition,offset."
)]
pub struct ResetOffsetsArguments {
    /// Which group
    #[arg(value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
    pub group: String,
    /// A topic, or some of its partitions; may be repeated
    #[arg(long = "topic", value_name = "TOPIC[:P,…]")]
    pub topics: Vec<TopicScope>,
    /// All partitions where the group has committed an offset
    #[arg(long)]
    pub all_topics: bool,
    /// To the first record there is
    #[arg(long)]
    pub to_earliest: bool,
    /// To the end: only new records are read
    #[arg(long)]
    pub to_latest: bool,
    /// To where it is; to the end where nothing is committed
    #[arg(long)]
    pub to_current: bool,
    /// To this offset
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(0..)
    )]
    pub to_offset: Option<i64>,
    /// By so many records onwards, or back
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub shift_by: Option<i64>,
    /// To the first record at or after this time, such as 2026-05-01T08:00:00, which is UTC unless
    /// a zone follows (+02:00)
    #[arg(long, value_name = "TIME", value_parser = datetime)]
    pub to_datetime: Option<Timestamp>,
    /// To the first record not older than this, such as 2h30m, 7d or PT2H30M
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub by_duration: Option<Span>,
    /// To what each line of a file says
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<PathBuf>,
    /// Change nothing, which is the default
    #[arg(long, conflicts_with = "execute")]
    pub dry_run: bool,
    /// Do it, rather than show what would be done
    #[arg(long)]
    pub execute: bool,
    /// Print the new offsets in the form that --from-file reads
    #[arg(long)]
    pub export: bool,
}

fn datetime(text: &str) -> Result<Timestamp, String> {
    let wrong = || {
        "write a time such as 2026-05-01T08:00:00 (UTC), 2026-05-01T08:00:00.000+02:00 or 2026-05-01".to_owned()
    };
    time(text).ok_or_else(wrong)
}

fn span(text: &str) -> Result<Span, String> {
    let span = text.parse::<Span>().ok().filter(|span| !span.is_negative());
    span.filter(|span| in_ms(span).is_some())
        .ok_or_else(|| "write a duration such as 90s, 2h30m, 7d or P1DT2H".to_owned())
}

/// A day has 24 hours, as in Kafka's tool; what has months has no length.
fn in_ms(span: &Span) -> Option<i64> {
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    i64::try_from(length.as_millis()).ok()
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Position {
    Earliest,
    Latest,
    Current,
    At(Offset),
    ShiftedBy(i64),
    Since(ottla_base::Timestamp),
    Each(BTreeMap<TopicPartition, Offset>),
}

impl ResetOffsetsArguments {
    /// Exactly one is given, clap sees to it.
    fn position(&self, now: Timestamp) -> Result<Position, Failure> {
        let since = |ms: i64| Position::Since(ottla_base::Timestamp(ms));
        Ok(if let Some(file) = &self.from_file {
            Position::Each(read_file(file, &self.group)?)
        } else if let Some(offset) = self.to_offset {
            Position::At(Offset(offset))
        } else if let Some(records) = self.shift_by {
            Position::ShiftedBy(records)
        } else if let Some(time) = self.to_datetime {
            since(time.as_millisecond())
        } else if let Some(ago) = &self.by_duration {
            since(now.as_millisecond() - in_ms(ago).unwrap_or_default())
        } else if self.to_earliest {
            Position::Earliest
        } else if self.to_latest {
            Position::Latest
        } else {
            Position::Current
        })
    }
}

fn read_file(file: &Path, group: &str) -> Result<BTreeMap<TopicPartition, Offset>, Failure> {
    let shown = file.display();
    let wrong = |message: String| Failure::new(Exit::Usage, message);
    let text = std::fs::read_to_string(file).map_err(|error| wrong(format!("{shown}: {error}")))?;
    let offsets = csv::read(&text, group).map_err(|line| {
        wrong(format!("{shown}, line {line}: this is no offset"))
            .with_cure("Write topic,partition,offset or group,topic,partition,offset.")
    })?;
    if offsets.is_empty() {
        return Err(wrong(format!("{shown} has no line for group \"{}\"", printable(group))));
    }
    Ok(offsets)
}

/// What the cluster says of the partitions.
#[derive(Debug, Default)]
struct Facts {
    committed: BTreeMap<TopicPartition, Offset>,
    earliest: BTreeMap<TopicPartition, Offset>,
    latest: BTreeMap<TopicPartition, Offset>,
    /// Where the time that was asked for begins; a partition without so young a record is missing.
    since: BTreeMap<TopicPartition, Offset>,
}

/// One partition's part of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    partition: TopicPartition,
    current: Option<Offset>,
    new: Offset,
    /// What is not as it was asked for.
    note: Option<String>,
}

fn plan(
    position: &Position,
    partitions: &[TopicPartition],
    facts: &Facts,
) -> Result<Vec<Step>, Failure> {
    partitions.iter().map(|partition| step(position, partition, facts)).collect()
}

fn step(position: &Position, partition: &TopicPartition, facts: &Facts) -> Result<Step, Failure> {
    let ends = facts.earliest.get(partition).zip(facts.latest.get(partition));
    let Some((&earliest, &latest)) = ends else {
        return Err(Failure::new(Exit::Failed, format!("the ends of {partition} are not known")));
    };
    let current = facts.committed.get(partition).copied();
    let mut note = None;
    let wanted = match position {
        Position::Earliest => earliest,
        Position::Latest => latest,
        Position::Current => current.unwrap_or(latest),
        Position::At(offset) => *offset,
        Position::ShiftedBy(records) => shifted(partition, current, *records)?,
        Position::Since(_) => facts.since.get(partition).copied().unwrap_or_else(|| {
            note = Some(format!("{partition} has no record that young: its end is taken"));
            latest
        }),
        Position::Each(offsets) => offsets.get(partition).copied().unwrap_or(latest),
    };
    // Where it is may well be outside of the log; it stays there.
    let new = if *position == Position::Current {
        wanted
    } else {
        wanted.clamp(earliest, latest.max(earliest))
    };
    if new != wanted {
        note = Some(format!("{partition} does not hold offset {wanted}: {new} is taken"));
    }
    Ok(Step { partition: partition.clone(), current, new, note })
}

fn shifted(
    partition: &TopicPartition,
    current: Option<Offset>,
    records: i64,
) -> Result<Offset, Failure> {
    let Some(current) = current else {
        let message =
            format!("{partition} cannot be shifted: the group has committed nothing there");
        let cure = "Use --to-offset, --to-earliest or --to-latest, or name other partitions.";
        return Err(Failure::new(Exit::Failed, message).with_cure(cure));
    };
    Ok(Offset(current.0.saturating_add(records)))
}

#[derive(Serialize)]
struct ResetJson<'a> {
    group: &'a str,
    executed: bool,
    offsets: Vec<StepJson<'a>>,
}

#[derive(Serialize)]
struct StepJson<'a> {
    topic: &'a str,
    partition: i32,
    current: Option<i64>,
    new: i64,
}

pub(super) async fn run(
    client: &Client,
    arguments: &ResetOffsetsArguments,
    json: bool,
) -> Result<(), Failure> {
    let position = arguments.position(Timestamp::now())?;
    refuse_members(client, &arguments.group).await?;
    let committed = client.committed(&arguments.group).await?;
    let partitions = partitions(client, arguments, &position, &committed).await?;
    let facts = facts(client, &position, &partitions, committed).await?;
    let steps = plan(&position, &partitions, &facts)?;
    for text in steps.iter().filter_map(|step| step.note.as_ref()) {
        note(&format!("note: {text}"));
    }
    let executed = arguments.execute;
    if executed {
        execute(client, &arguments.group, &steps).await?;
    }
    print(arguments, &steps, json)?;
    if !executed && !steps.is_empty() {
        note("Nothing was changed: add --execute to do it.");
    }
    Ok(())
}

/// A group's own members would not hear of it, and commit over it. A group that is not there yet may be prepared.
async fn refuse_members(client: &Client, group: &str) -> Result<(), Failure> {
    match client.describe_group(group).await {
        Ok(description) if description.members.is_empty() => Ok(()),
        Ok(description) => {
            let count = description.members.len();
            let plural = if count == 1 { "" } else { "s" };
            let name = printable(group);
            let message = format!(
                "group \"{name}\" has {count} member{plural} (state {}): offsets are reset only while it has none",
                description.state
            );
            let cure = format!(
                "Stop them first: `ottla group describe {name} --members` shows who they are."
            );
            Err(Failure::new(Exit::Failed, message).with_cure(cure))
        }
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn partitions(
    client: &Client,
    arguments: &ResetOffsetsArguments,
    position: &Position,
    committed: &BTreeMap<TopicPartition, Committed>,
) -> Result<Vec<TopicPartition>, Failure> {
    if !arguments.topics.is_empty() {
        return Ok(scope::partitions(client, &arguments.topics).await?);
    }
    if let Position::Each(offsets) = position {
        let mut partitions = Vec::new();
        for partition in offsets.keys() {
            let topic = client.topic(&partition.topic).await?;
            if !topic.partitions.contains_key(&partition.partition.0) {
                return Err(ClientError::NoSuchPartition(partition.clone()).into());
            }
            partitions.push(partition.clone());
        }
        return Ok(partitions);
    }
    if committed.is_empty() {
        let name = printable(&arguments.group);
        let message = format!("group \"{name}\" has committed nothing");
        let cure =
            "Name what it is to read with --topic; `ottla group list` shows what groups there are.";
        return Err(Failure::new(Exit::NotFound, message).with_cure(cure));
    }
    existing(client, committed.keys()).await
}

/// Offsets outlive their topics for a while.
async fn existing(
    client: &Client,
    partitions: impl Iterator<Item = &TopicPartition>,
) -> Result<Vec<TopicPartition>, Failure> {
    let mut found = Vec::new();
    for partition in partitions {
        let topic = match client.topic(&partition.topic).await {
            Ok(topic) => Some(topic),
            Err(ClientError::NoSuchTopic(_)) => None,
            Err(error) => return Err(error.into()),
        };
        if topic.is_some_and(|it| it.partitions.contains_key(&partition.partition.0)) {
            found.push(partition.clone());
        } else {
            note(&format!("note: {partition} does not exist any more, and is left out"));
        }
    }
    Ok(found)
}

async fn facts(
    client: &Client,
    position: &Position,
    partitions: &[TopicPartition],
    committed: BTreeMap<TopicPartition, Committed>,
) -> Result<Facts, ClientError> {
    let ask = async |query: OffsetQuery| -> Result<_, ClientError> {
        let queries = partitions.iter().map(|partition| (partition.clone(), query)).collect();
        let listed = client.list_offsets(queries, Isolation::ReadUncommitted).await;
        let mut offsets = BTreeMap::new();
        for (partition, found) in listed {
            offsets.extend(found?.map(|found| (partition, found.offset)));
        }
        Ok(offsets)
    };
    Ok(Facts {
        committed: committed.into_iter().map(|(it, committed)| (it, committed.offset)).collect(),
        earliest: ask(OffsetQuery::Earliest).await?,
        latest: ask(OffsetQuery::Latest).await?,
        since: if let Position::Since(time) = position {
            ask(OffsetQuery::AtOrAfter(*time)).await?
        } else {
            BTreeMap::new()
        },
    })
}

async fn execute(client: &Client, group: &str, steps: &[Step]) -> Result<(), Failure> {
    let offsets = steps.iter().map(|step| (step.partition.clone(), step.new)).collect();
    let mut failures = Failures::default();
    for outcome in client.set_committed(group, &offsets).await?.into_values() {
        if let Err(error) = outcome {
            failures.add(error);
        }
    }
    failures.into_result()
}

fn print(arguments: &ResetOffsetsArguments, steps: &[Step], json: bool) -> Result<(), Failure> {
    if arguments.export {
        let offsets = steps.iter().map(|step| (&step.partition, step.new));
        return write_out(csv::write(offsets).as_bytes());
    }
    if json {
        return print_json(&ResetJson {
            group: &arguments.group,
            executed: arguments.execute,
            offsets: steps.iter().map(step_json).collect(),
        });
    }
    let row = |step: &Step| {
        [
            step.partition.topic.to_string(),
            step.partition.partition.to_string(),
            or_dash(step.current),
            step.new.to_string(),
        ]
    };
    print_line(&table(["TOPIC", "PARTITION", "CURRENT", "NEW"], steps.iter().map(row).collect()))
}

fn step_json(step: &Step) -> StepJson<'_> {
    let Step { partition, current, new, .. } = step;
    StepJson {
        topic: &partition.topic,
        partition: partition.partition.0,
        current: current.map(|offset| offset.0),
        new: new.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new("t", index)
    }

    /// Partition 0 holds 10..20 and 15 is committed; partition 1 holds 0..5 and nothing is.
    fn facts() -> Facts {
        let both = |first, second| {
            BTreeMap::from([(partition(0), Offset(first)), (partition(1), Offset(second))])
        };
        Facts {
            committed: BTreeMap::from([(partition(0), Offset(15))]),
            earliest: both(10, 0),
            latest: both(20, 5),
            since: BTreeMap::from([(partition(0), Offset(17))]),
        }
    }

    fn planned(position: &Position) -> Vec<(i64, bool)> {
        let steps = plan(position, &[partition(0), partition(1)], &facts()).unwrap();
        steps.into_iter().map(|step| (step.new.0, step.note.is_some())).collect()
    }

    #[test]
    fn each_way_to_say_where_has_its_offset() {
        assert_eq!(planned(&Position::Earliest), [(10, false), (0, false)]);
        assert_eq!(planned(&Position::Latest), [(20, false), (5, false)]);
        assert_eq!(planned(&Position::Current), [(15, false), (5, false)]);
        let each = [(partition(0), Offset(11)), (partition(1), Offset(1))].into();
        assert_eq!(planned(&Position::Each(each)), [(11, false), (1, false)]);
    }

    #[test]
    fn an_offset_outside_of_a_partition_moves_to_its_nearest_end_with_a_note() {
        assert_eq!(planned(&Position::At(Offset(3))), [(10, true), (3, false)]);
        assert_eq!(planned(&Position::At(Offset(12))), [(12, false), (5, true)]);
    }

    #[test]
    fn a_time_after_the_last_record_is_the_end_with_a_note() {
        let since = Position::Since(ottla_base::Timestamp(1));
        assert_eq!(planned(&since), [(17, false), (5, true)]);
    }

    #[test]
    fn a_shift_needs_something_to_shift() {
        let shift = |records, partitions: &[TopicPartition]| {
            plan(&Position::ShiftedBy(records), partitions, &facts())
        };
        let new = |records| shift(records, &[partition(0)]).unwrap().remove(0).new.0;
        assert_eq!([new(-3), new(2), new(99), new(i64::MIN)], [12, 17, 20, 10]);
        let failure = shift(1, &[partition(0), partition(1)]).unwrap_err();
        assert!(failure.message.contains("t-1") && failure.cure.is_some());
    }

    #[test]
    fn a_time_without_zone_is_utc() {
        let ms = |text| datetime(text).map(Timestamp::as_millisecond);
        let expected = Ok(1_777_622_400_000);
        assert_eq!(ms("2026-05-01T08:00:00"), expected);
        assert_eq!(ms("2026-05-01T08:00:00.000"), expected);
        assert_eq!(ms("2026-05-01T08:00:00.000Z"), expected);
        assert_eq!(ms("2026-05-01T10:00:00.000+02:00"), expected);
        assert_eq!(ms("2026-05-01"), Ok(1_777_593_600_000));
        for wrong in ["", "2026-13-01", "08:00", "yesterday", "2026-05-01T25:00:00"] {
            assert!(datetime(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations_are_written_as_people_and_as_kafkas_tool_write_them() {
        let ms = |text| span(text).ok().and_then(|span| in_ms(&span));
        assert_eq!(ms("90s"), Some(90_000));
        assert_eq!(ms("2h30m"), Some(9_000_000));
        assert_eq!(ms("PT2H30M"), Some(9_000_000));
        assert_eq!(ms("P1DT1H"), Some(90_000_000));
        assert_eq!(ms("7d"), Some(604_800_000));
        for wrong in ["", "x", "1", "-1h", "P1M"] {
            assert_eq!(ms(wrong), None, "{wrong:?}");
        }
    }
}
