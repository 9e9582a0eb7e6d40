//! What was acknowledged, what is there in the end, and what of that breaks a promise (pure).
//!
//! The promises, whatever happens to one node at a time:
//! - a record that was acknowledged is there, unchanged, at the offset that the acknowledgement named;
//! - an idempotent producer's record is there once; any producer's records first appear in the order of writing;
//! - what a consumer has once read is still there, at its offset, and one consumer's offsets only go up;
//! - a partition has no holes, and a consumer that reads from the beginning leaves nothing out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A producer: idempotent, but for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Writer {
    /// librdkafka's.
    Idempotent,
    /// librdkafka's, that retries without sequence numbers: a retry may write a record twice.
    Plain,
    Java,
    Franz,
}

impl Writer {
    pub(super) const ALL: [Self; 4] = [Self::Idempotent, Self::Plain, Self::Java, Self::Franz];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Idempotent => "idempotent",
            Self::Plain => "plain",
            Self::Java => "java",
            Self::Franz => "franz-go",
        }
    }
}

/// A record: whose, and the how manyth of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    pub(super) writer: Writer,
    pub(super) number: u64,
}

impl Record {
    /// Where it is written to.
    pub(super) fn partition(self, partitions: i32) -> i32 {
        let partitions = u64::from(partitions.unsigned_abs()).max(1);
        i32::try_from(self.number % partitions).unwrap_or(0)
    }

    /// Its value, from which it can be told, with filling of different lengths.
    pub(super) fn value(self) -> String {
        let filling = usize::try_from(self.number % 211).unwrap_or(0);
        let letter = char::from(b'a' + u8::try_from(self.number % 26).unwrap_or(0));
        format!("{} {} {}", self.writer.name(), self.number, String::from(letter).repeat(filling))
    }

    /// `None` for anything but a record's value as it was written.
    pub(super) fn from_value(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (name, rest) = text.split_once(' ')?;
        let writer = Writer::ALL.into_iter().find(|writer| writer.name() == name)?;
        let record = Self { writer, number: rest.split_once(' ')?.0.parse().ok()? };
        (record.value() == text).then_some(record)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.writer.name(), self.number)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) partition: i32,
    /// `None` where the answer named none.
    pub(super) offset: Option<i64>,
    pub(super) record: Record,
}

/// What a consumer was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// `None` if it is no record as one was written.
    pub(super) record: Option<Record>,
}

/// Everything that clients noted.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) partitions: i32,
    pub(super) acknowledged: Vec<Acknowledged>,
    /// How many records each producer has handed to its client at least.
    pub(super) sent: BTreeMap<Writer, u64>,
    /// By consumers that read all the while, each in the order of its polls.
    pub(super) meanwhile: BTreeMap<&'static str, Vec<Read>>,
    /// From the beginning to the end, when all was over.
    pub(super) finally: Vec<Read>,
}

/// A broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    Lost(Acknowledged),
    /// It is there, but not at the offset that was acknowledged.
    Moved(Acknowledged),
    /// What is there was never written so, or not to this partition.
    Changed(Read),
    Doubled(Read, Record),
    /// It appears first after one that was written later.
    Reordered(Read, Record),
    /// With one request in flight, at an offset that is not above the one that was acknowledged before.
    Fell(Acknowledged, i64),
    /// It was read once, and is not there any more.
    Retracted(Read),
    /// An offset that is not above the one that the same consumer was given before.
    WentBack(Read, i64),
    /// There is nothing between the offset before and this one, where something must be.
    Hole(Read, i64),
}

impl Finding {
    /// What findings are counted by.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Lost(_) => "acknowledged and lost",
            Self::Moved(_) => "at another offset than acknowledged",
            Self::Changed(_) => "changed",
            Self::Doubled(..) => "written twice by an idempotent producer",
            Self::Reordered(..) => "reordered",
            Self::Fell(..) => "acknowledged at falling offsets",
            Self::Retracted(_) => "read once and gone",
            Self::WentBack(..) => "offsets that went back",
            Self::Hole(..) => "offsets left out",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind())?;
        match self {
            Self::Lost(it) | Self::Moved(it) => {
                let Acknowledged { partition, offset, record } = it;
                write!(f, "{record}, acknowledged at {offset:?} of partition {partition}")
            }
            Self::Fell(it, before) => {
                let Acknowledged { partition, offset, record } = it;
                write!(f, "{record}, at {offset:?} of partition {partition} after {before}")
            }
            Self::Changed(read) | Self::Retracted(read) => {
                write!(f, "offset {} of partition {}", read.offset, read.partition)?;
                read.record.map_or(Ok(()), |record| write!(f, ", {record}"))
            }
            Self::Doubled(read, record) | Self::Reordered(read, record) => {
                write!(f, "{record} at offset {} of partition {}", read.offset, read.partition)
            }
            Self::WentBack(read, before) | Self::Hole(read, before) => {
                let Read { partition, offset, .. } = read;
                write!(f, "offset {offset} of partition {partition} after {before}")
            }
        }
    }
}

/// The findings, and what is counted without being one.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) findings: Vec<Finding>,
    /// Second copies of the plain producer's records.
    pub(super) repeated: usize,
    /// Records of the plain producer that come first after later ones.
    pub(super) overtaken: usize,
}

/// Holds a history to the promises.
pub(super) fn judge(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let mut places: BTreeMap<Record, BTreeSet<i64>> = BTreeMap::new();
    let mut latest: BTreeMap<(i32, Writer), u64> = BTreeMap::new();
    for read in &history.finally {
        let Some(record) = read.record.filter(|record| history.has_written(*record, read)) else {
            verdict.findings.push(Finding::Changed(*read));
            continue;
        };
        let copies = places.entry(record).or_default();
        copies.insert(read.offset);
        if copies.len() > 1 {
            verdict.repeat(*read, record);
            continue;
        }
        let latest = latest.entry((read.partition, record.writer)).or_default();
        if record.number < *latest {
            verdict.overtake(*read, record);
        }
        *latest = record.number.max(*latest);
    }
    verdict.findings.extend(history.acknowledged.iter().filter_map(|it| missing(it, &places)));
    verdict.findings.extend(fell(history));
    verdict.findings.extend(retracted(history));
    for reads in history.meanwhile.values().chain([&history.finally]) {
        verdict.findings.extend(went_back(reads));
        verdict.findings.extend(holes(reads));
    }
    verdict
}

impl History {
    fn has_written(&self, record: Record, read: &Read) -> bool {
        let sent = self.sent.get(&record.writer).copied().unwrap_or_default();
        record.number < sent && record.partition(self.partitions) == read.partition
    }
}

impl Verdict {
    fn repeat(&mut self, read: Read, record: Record) {
        match record.writer {
            Writer::Plain => self.repeated += 1,
            Writer::Idempotent | Writer::Java | Writer::Franz => {
                self.findings.push(Finding::Doubled(read, record));
            }
        }
    }

    /// A plain librdkafka may send what comes later to a new leader before it sends again what the old one has not answered
    /// (librdkafka #1092 names it), so that the broker gets it in this order: with Apache Kafka as with Ottla.
    fn overtake(&mut self, read: Read, record: Record) {
        match record.writer {
            Writer::Plain => self.overtaken += 1,
            Writer::Idempotent | Writer::Java | Writer::Franz => {
                self.findings.push(Finding::Reordered(read, record));
            }
        }
    }
}

/// In which order the broker has taken the plain producer's records, its answers tell: it has one request in flight.
fn fell(history: &History) -> impl Iterator<Item = Finding> {
    let plain = history.acknowledged.iter().filter(|it| it.record.writer == Writer::Plain);
    let mut latest = BTreeMap::new();
    plain.filter_map(move |it| {
        let before = latest.insert(it.partition, it.offset?)?;
        (it.offset? <= before).then_some(Finding::Fell(*it, before))
    })
}

fn missing(it: &Acknowledged, places: &BTreeMap<Record, BTreeSet<i64>>) -> Option<Finding> {
    let Some(offsets) = places.get(&it.record) else { return Some(Finding::Lost(*it)) };
    let is_there = it.offset.is_none_or(|offset| offsets.contains(&offset));
    (!is_there).then_some(Finding::Moved(*it))
}

fn retracted(history: &History) -> Vec<Finding> {
    let place = |read: &Read| ((read.partition, read.offset), read.record);
    let there: BTreeMap<_, _> = history.finally.iter().map(place).collect();
    let is_gone = |read: &&Read| {
        there.get(&(read.partition, read.offset)).is_none_or(|record| *record != read.record)
    };
    let meanwhile = history.meanwhile.values().flatten();
    meanwhile.filter(is_gone).map(|read| Finding::Retracted(*read)).collect()
}

/// Each read with the offset before it in its partition, in the order of reading.
fn with_previous(reads: &[Read]) -> impl Iterator<Item = (&Read, Option<i64>)> {
    let mut latest = BTreeMap::new();
    reads.iter().map(move |read| (read, latest.insert(read.partition, read.offset)))
}

fn went_back(reads: &[Read]) -> impl Iterator<Item = Finding> {
    let back = |(read, before): (&Read, Option<i64>)| {
        let before = before.filter(|before| read.offset <= *before)?;
        Some(Finding::WentBack(*read, before))
    };
    with_previous(reads).filter_map(back)
}

/// Nothing here is compacted, deleted or written in transactions: every offset from 0 is a record's.
fn holes(reads: &[Read]) -> impl Iterator<Item = Finding> {
    let hole = |(read, before): (&Read, Option<i64>)| {
        let before = before.unwrap_or(-1);
        (read.offset > before + 1).then_some(Finding::Hole(*read, before))
    };
    with_previous(reads).filter_map(hole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(writer: Writer, number: u64) -> Record {
        Record { writer, number }
    }

    /// One partition that holds these, from offset 0 on, all of them acknowledged where they are.
    fn history(records: &[(Writer, u64)]) -> History {
        let read = |(offset, &(writer, number)): (i64, &(Writer, u64))| Read {
            partition: 0,
            offset,
            record: Some(record(writer, number)),
        };
        let finally: Vec<Read> = (0..).zip(records).map(read).collect();
        let acknowledged = |read: &Read| Acknowledged {
            partition: 0,
            offset: Some(read.offset),
            record: read.record.unwrap(),
        };
        History {
            partitions: 1,
            acknowledged: finally.iter().map(acknowledged).collect(),
            sent: Writer::ALL.map(|writer| (writer, 100)).into(),
            meanwhile: BTreeMap::from([("one", finally.clone())]),
            finally,
        }
    }

    use Writer::{Idempotent, Plain};

    fn meanwhile(history: &mut History) -> &mut Vec<Read> {
        history.meanwhile.get_mut("one").unwrap()
    }

    const GOOD: &[(Writer, u64)] = &[(Idempotent, 0), (Plain, 0), (Plain, 1), (Idempotent, 1)];

    fn kinds(history: &History) -> Vec<&'static str> {
        judge(history).findings.iter().map(Finding::kind).collect()
    }

    #[test]
    fn a_record_is_told_from_its_value_and_from_no_other() {
        for number in [0, 1, 210, 12_345] {
            let record = record(Plain, number);
            let value = record.value();
            assert_eq!(Record::from_value(value.as_bytes()), Some(record));
            assert_eq!(Record::from_value(format!("{value}x").as_bytes()), None);
            assert_eq!(Record::from_value(&value.as_bytes()[1..]), None);
        }
        assert_eq!(Record::from_value(b""), None);
    }

    #[test]
    fn a_history_that_keeps_all_promises_has_no_finding() {
        assert_eq!(kinds(&history(GOOD)), [""; 0]);
    }

    #[test]
    fn records_that_nobody_acknowledged_may_be_there_or_not() {
        let mut some = history(GOOD);
        some.acknowledged.remove(3);
        assert_eq!(kinds(&some), [""; 0]);
        some.finally.pop();
        meanwhile(&mut some).pop();
        assert_eq!(kinds(&some), [""; 0]);
    }

    #[test]
    fn an_acknowledged_record_that_is_not_there_is_lost() {
        let mut lost = history(GOOD);
        lost.finally.pop();
        meanwhile(&mut lost).pop();
        assert_eq!(kinds(&lost), ["acknowledged and lost"]);
    }

    #[test]
    fn a_record_elsewhere_than_acknowledged_is_found_and_no_offset_is_no_promise() {
        let mut moved = history(GOOD);
        moved.acknowledged[2].offset = Some(3);
        assert_eq!(kinds(&moved), ["at another offset than acknowledged"]);
        moved.acknowledged[2].offset = None;
        assert_eq!(kinds(&moved), [""; 0]);
    }

    #[test]
    fn bytes_that_nobody_wrote_are_found_where_a_record_was_acknowledged_and_where_not() {
        let mut changed = history(GOOD);
        changed.finally[1].record = None;
        meanwhile(&mut changed)[1].record = None;
        assert_eq!(kinds(&changed), ["changed", "acknowledged and lost"]);
        for wrong in [record(Plain, 100), record(Idempotent, 5000)] {
            let mut invented = history(GOOD);
            let read = Read { partition: 0, offset: 4, record: Some(wrong) };
            invented.finally.push(read);
            assert_eq!(kinds(&invented), ["changed"]);
        }
    }

    #[test]
    fn a_record_in_the_wrong_partition_is_found() {
        let mut two = history(&[(Idempotent, 0), (Idempotent, 1)]);
        two.partitions = 2;
        assert_eq!(kinds(&two), ["changed", "acknowledged and lost"]);
    }

    #[test]
    fn a_second_copy_is_a_finding_for_an_idempotent_producer_and_counted_for_another() {
        let verdict = judge(&history(&[(Plain, 0), (Plain, 1), (Plain, 0), (Plain, 1)]));
        assert_eq!((verdict.findings.len(), verdict.repeated), (0, 2));
        let doubled = history(&[(Idempotent, 0), (Idempotent, 1), (Idempotent, 0)]);
        assert_eq!(kinds(&doubled), ["written twice by an idempotent producer"]);
    }

    #[test]
    fn records_out_of_order_are_found_within_one_producer_only() {
        assert_eq!(kinds(&history(&[(Plain, 1), (Idempotent, 0)])), [""; 0]);
        for writer in Writer::ALL.into_iter().filter(|writer| *writer != Plain) {
            assert_eq!(kinds(&history(&[(writer, 1), (writer, 0)])), ["reordered"]);
        }
    }

    #[test]
    fn a_plain_producer_may_overtake_itself_and_the_broker_may_not() {
        let mut overtaken = history(&[(Plain, 1), (Plain, 0), (Plain, 2)]);
        let verdict = judge(&overtaken);
        assert_eq!((verdict.findings.len(), verdict.overtaken), (0, 1));
        overtaken.acknowledged.swap(0, 1);
        assert_eq!(kinds(&overtaken), ["acknowledged at falling offsets"]);
        overtaken.acknowledged.swap(0, 1);
        overtaken.acknowledged.insert(1, overtaken.acknowledged[0]);
        assert_eq!(kinds(&overtaken), ["acknowledged at falling offsets"], "two at one place");
    }

    #[test]
    fn what_was_read_once_and_is_another_in_the_end_is_found() {
        let mut other = history(GOOD);
        meanwhile(&mut other)[3].record = Some(record(Idempotent, 2));
        assert_eq!(kinds(&other), ["read once and gone"]);
        let mut gone = history(GOOD);
        meanwhile(&mut gone).push(Read { partition: 0, offset: 4, record: Some(record(Plain, 2)) });
        assert_eq!(kinds(&gone), ["read once and gone"]);
    }

    #[test]
    fn a_consumer_that_is_given_an_offset_again_is_found() {
        let mut back = history(GOOD);
        let again = back.finally[3];
        meanwhile(&mut back).push(again);
        assert_eq!(kinds(&back), ["offsets that went back"]);
    }

    #[test]
    fn an_offset_left_out_is_found_at_the_beginning_and_within() {
        for at in [0, 1] {
            let mut hole = history(GOOD);
            let left_out = hole.finally.remove(at);
            hole.meanwhile.clear();
            hole.acknowledged.retain(|it| Some(it.record) != left_out.record);
            assert_eq!(kinds(&hole), ["offsets left out"]);
        }
    }

    #[test]
    fn each_consumer_is_held_to_leaving_nothing_out() {
        let mut two = history(GOOD);
        let mut other = two.finally.clone();
        other.remove(1);
        two.meanwhile.insert("other", other);
        assert_eq!(kinds(&two), ["offsets left out"]);
    }
}
