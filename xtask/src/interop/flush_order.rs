//! What the real binary asks of the system, as `strace` sees it: no answer before the flush that it promises, and no
//! name that is not made durable (shell; the laws are pure).
//!
//! What is deleted is set aside under another name first, and nothing is removed before no crash can take that back. The
//! removal itself a crash may take back: the next start removes what has such a name.
//!
//! What is in an entry of the journal a trace does not show. Its length does: only one request is under way where it is
//! used, and an entry that is no shorter than all that was appended and not synced, with the names, has that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::iter;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use ottla_base::Timestamp;
use ottla_protocol::frame::encode_request;
use ottla_protocol::messages::ProduceRequest;
use ottla_protocol::messages::produce_request::PartitionProduceData;
use rustix::process::{Pid, Signal, kill_process};

use super::operator::{self, LIMIT, Running, client, new_directory, produce_request, serve_in};
use super::session::{Session, eventually};
use super::{FLUSH_ORDER, TRACE, Test};
use crate::side_by_side::connection::{Connection, Reply};

const TOPIC: &str = "ordered";
const DELETED: &str = "deleted";
/// With so many partitions that a flush of all of them goes to the journal.
const MANY: &str = "many";
const PARTITIONS: usize = 16;
const TO_MANY: usize = 40;
const BATCHES: usize = 300;
/// As many as Kafka's producers have in flight.
const IN_FLIGHT: usize = 5;
const BATCHES_PER_SEGMENT: usize = 50;
const SEGMENT_MS: i64 = 1_000;

const CALLS: &str = "trace=pwritev,pwrite64,fdatasync,fsync,syncfs,sendmsg,openat,mkdir,rename,unlink,unlinkat,rmdir";
/// As soon as possible: what is due, and what is to be removed.
const HOUSEKEEPING: [&str; 3] = [
    "log.initial.task.delay.ms=0",
    "log.retention.check.interval.ms=500",
    "log.flush.offset.checkpoint.interval.ms=1000",
];
const AT_ONCE: [&str; 2] = ["--config", "file.delete.delay.ms=1"];

/// How names end of what is going to be removed.
const SEGMENT: &str = ".log";
const SEGMENT_DELETED: &str = ".deleted";
const LOG_DELETED: &str = "-delete";

const UNFLUSHED: &str = "comes before its flush";
const JOURNAL: &str = "/ottla.journal.";
/// Of an entry of the journal, before what it is of.
const JOURNAL_HEADER_LEN: usize = 32;
/// Of what is of one log, beside the log's name and its bytes.
const TAIL_HEADER_LEN: usize = 2 + 36;

const UNNAMED: &str = "is of a file whose name is not synced";
const UNSETTLED: &str = "is emptied before what it has is where it belongs";
const NOT_SET_ASIDE: &str = "is removed before it is durably set aside";

pub(super) fn tests() -> Vec<Test> {
    let run = move |session: &mut Session| traced(&new_directory(session)?);
    let test = Test::new(FLUSH_ORDER, &["strace", "setpriv"], run);
    vec![test.without_broker().where_allowed(&[TRACE])]
}

fn traced(directory: &Path) -> Result<()> {
    let trace = directory.join("trace");
    let running = Running::start(serve_traced(directory, &trace)?, directory)?;
    let kept = [format!("segment.ms={SEGMENT_MS}"), "retention.ms=-1".to_owned()];
    for (topic, config) in [(TOPIC, &kept[..]), (DELETED, &[])] {
        let config = config.iter().flat_map(|it| ["--config", it]);
        let create: Vec<_> =
            ["topic", "create", topic].into_iter().chain(AT_ONCE).chain(config).collect();
        client(running.address(), &create, "")?;
    }
    client(running.address(), &["produce", DELETED], "v\n")?;
    let partitions = PARTITIONS.to_string();
    client(running.address(), &["topic", "create", MANY, "--partitions", &partitions], "")?;
    let peers = [produce(running.address())?, produce_to_many(running.address())?];
    let data = directory.join("data");
    client(running.address(), &["topic", "delete", DELETED], "")?;
    client(running.address(), &["config", "set", &format!("topic/{TOPIC}"), "retention.ms=1"], "")?;
    eventually(LIMIT, || Ok(is_all_removed(&data)?.then_some(())))?;
    let data = data.display().to_string();
    // While it runs: as it stops, everything is synced.
    let mut unsynced = None;
    eventually(LIMIT, || {
        let text = fs::read_to_string(&trace)?;
        let laws = check(&text, &data, &peers)?;
        unsynced = laws.unsynced().map(|(path, _)| path.to_owned());
        Ok(unsynced.is_none().then_some(()))
    })
    .with_context(|| format!("names stay unsynced in {unsynced:?}"))?;
    let text = fs::read_to_string(&trace)?;
    let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
    let pid = pid.and_then(Pid::from_raw).context("the trace names no process")?;
    kill_process(pid, Signal::TERM)?;
    ensure!(running.process.wait(LIMIT)?.success(), "it did not stop cleanly");

    let text = fs::read_to_string(&trace)?;
    let laws = check(&text, &data, &peers)?;
    let answered: Vec<usize> = laws.clients.iter().map(|client| client.answered).collect();
    ensure!(answered == [BATCHES, TO_MANY], "{answered:?} answers were seen");
    ensure!(laws.journaled >= TO_MANY / 2, "{} entries of the journal were synced", laws.journaled);
    ensure!(laws.unsynced().is_none(), "names are not synced in the end: {:?}", laws.unsynced());
    for ending in [SEGMENT_DELETED, LOG_DELETED] {
        let removed = laws.removed.iter().any(|path| path.ends_with(ending));
        ensure!(removed, "nothing was removed that ends with {ending}");
    }
    would_be_noticed(&text, &data, &peers)
}

/// What would be wrong, the law that it breaks, and which lines are to be taken out for it.
type TakenOut<'a> = (&'a str, &'a str, &'a dyn Fn(usize, &str) -> bool);

/// Takes syncs out of a trace that is as it should be.
fn would_be_noticed(text: &str, data: &str, peers: &[String; 2]) -> Result<()> {
    let is =
        |line: &str, calls: &[&str]| calls.iter().any(|call| line.contains(&format!(" {call}(")));
    let lines: Vec<&str> = text.lines().collect();
    let of_topic = format!("/{TOPIC}-0>");
    let first_named =
        lines.iter().position(|line| is(line, &["fsync"]) && line.contains(&of_topic));
    let first_set_aside = lines.iter().position(|line| is(line, &["rename"]) && sets_aside(line));
    let first_named = first_named.context("a new segment's directory is never synced")?;
    let first_set_aside = first_set_aside.context("nothing is set aside")?;
    let first_noted =
        lines.iter().position(|line| is(line, &["fdatasync"]) && line.contains(JOURNAL));
    let first_noted = first_noted.context("the journal is never synced")?;
    let emptied = format!("= {JOURNAL_HEADER_LEN}");
    let taken_out: [TakenOut<'_>; 6] = [
        ("the journal is emptied at once", UNSETTLED, &|at, line| {
            at > first_noted && is(line, &["syncfs"])
        }),
        ("files are never synced", UNFLUSHED, &|_, line| is(line, &["fdatasync", "syncfs"])),
        ("the journal is never synced", UNFLUSHED, &|_, line| {
            is(line, &["fdatasync"]) && line.contains(JOURNAL)
        }),
        ("names are never synced", UNNAMED, &|_, line| is(line, &["fsync", "syncfs"])),
        ("names of later segments are not synced", UNNAMED, &|at, line| {
            at > first_named && is(line, &["fsync"]) && line.contains(&of_topic)
        }),
        // Nor is the journal emptied then, which would be noticed first.
        ("what is set aside is not synced", NOT_SET_ASIDE, &|at, line| {
            let is_emptied = line.contains(JOURNAL) && line.ends_with(&emptied);
            at > first_set_aside && (is(line, &["fsync", "syncfs"]) || is_emptied)
        }),
    ];
    for (what, law, is_taken) in taken_out {
        let kept = lines.iter().enumerate().filter(|(at, line)| !is_taken(*at, line));
        let without: String = kept.map(|(_, line)| format!("{line}\n")).collect();
        let found = check(&without, data, peers).err().map(|error| format!("{error:#}"));
        let is_found = found.as_ref().is_some_and(|error| error.contains(law));
        ensure!(is_found, "nobody would notice that {what}: {found:?}");
    }
    Ok(())
}

fn sets_aside(path: &str) -> bool {
    path.contains(SEGMENT_DELETED) || path.contains(LOG_DELETED)
}

/// Whether of one topic there is nothing any more, and of the other one a single segment.
fn is_all_removed(data: &Path) -> Result<bool> {
    let names = |path: &Path| -> Result<Vec<String>> {
        let entries = fs::read_dir(path)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let logs = names(data)?;
    let files = names(&data.join(format!("{TOPIC}-0")))?;
    let segments = files.iter().filter(|name| name.ends_with(".log")).count();
    let waits = logs.iter().chain(&files).any(|name| sets_aside(name));
    Ok(segments == 1 && !waits && !logs.contains(&format!("{DELETED}-0")))
}

fn serve_traced(directory: &Path, trace: &Path) -> Result<Command> {
    let options = ["-yy", "-s", "0", "-e", CALLS];
    let mut broker = serve_in(directory)?;
    broker.args(HOUSEKEEPING.iter().flat_map(|it| ["--set", it]));
    Ok(operator::traced(&broker, trace, &options))
}

/// Writes batches with acks=all over one connection, several at a time. Returns the connection's own address.
fn produce(address: &str) -> Result<String> {
    let mut connection = Connection::open(address)?;
    let (mut sent, mut answered) = (0, 0);
    while answered < BATCHES {
        while sent < BATCHES && sent - answered < IN_FLIGHT {
            let request = request(sent)?;
            connection.send(&encode_request(12, i32::try_from(sent)?, None, &request)?.bytes);
            sent += 1;
        }
        let Reply::Frame(_) = connection.receive()? else { bail!("no answer {answered}") };
        answered += 1;
    }
    Ok(connection.local_address()?.to_string())
}

/// The same with a batch for each of many partitions in each request, one at a time.
fn produce_to_many(address: &str) -> Result<String> {
    let mut connection = Connection::open(address)?;
    for number in 0..TO_MANY {
        let mut request = request(number)?;
        for topic in &mut request.topic_data {
            topic.name = MANY.into();
            let first = topic.partition_data.pop().context("a request for no partition")?;
            let of = |index| PartitionProduceData { index, ..first.clone() };
            topic.partition_data = (0..i32::try_from(PARTITIONS)?).map(of).collect();
        }
        connection.send(&encode_request(12, i32::try_from(number)?, None, &request)?.bytes);
        let Reply::Frame(_) = connection.receive()? else { bail!("no answer {number}") };
    }
    Ok(connection.local_address()?.to_string())
}

fn request(number: usize) -> Result<ProduceRequest> {
    let segment = i64::try_from(number / BATCHES_PER_SEGMENT)?;
    let timestamp = Timestamp(1_500_000_000_000 + segment * 2 * SEGMENT_MS);
    Ok(produce_request(TOPIC, 0, timestamp, b"v"))
}

/// A call of the system, when it begins and when it has returned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    Begin(&'a str),
    End { call: &'a str, result: &'a str },
}

/// A line of `strace -f`: the thread, and what it says of a call. `resumed` gives what was begun before.
pub(super) fn events<'a>(
    line: &'a str,
    unfinished: &mut BTreeMap<&'a str, &'a str>,
) -> Vec<Event<'a>> {
    let Some((thread, rest)) = line.split_once(' ') else { return Vec::new() };
    let rest = rest.trim_start();
    if let Some(call) = rest.strip_suffix(" <unfinished ...>") {
        unfinished.insert(thread, call);
        return vec![Event::Begin(call)];
    }
    let Some((call, result)) = rest.rsplit_once(" = ") else { return Vec::new() };
    if rest.starts_with("<... ") {
        return unfinished
            .remove(thread)
            .map(|call| Event::End { call, result })
            .into_iter()
            .collect();
    }
    let call = call.trim_end();
    vec![Event::Begin(call), Event::End { call, result }]
}

/// What is in the first `<…>` of a call: the file or the socket that it is about.
fn subject(call: &str) -> &str {
    let inner = call.split_once('<').map_or("", |(_, rest)| rest);
    // A socket's has an arrow in it.
    inner.rsplit_once(">,").or_else(|| inner.rsplit_once('>')).map_or(inner, |(path, _)| path)
}

/// How many buffers a call sends: as many answers, each of which is one of a produce.
fn buffers(call: &str) -> Option<usize> {
    call.split_once("msg_iovlen=")?.1.split(',').next()?.parse().ok()
}

fn quoted(call: &str) -> Vec<&str> {
    call.split('"').skip(1).step_by(2).collect()
}

/// What a call removes; of one that is relative to an open directory, that directory.
fn removed(call: &str) -> &str {
    let named = quoted(call).into_iter().next().unwrap_or_default();
    if named.starts_with('/') { named } else { subject(call) }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// What has been written to a file, and how much of that is on the disk.
#[derive(Debug, Default)]
struct Written {
    writes: usize,
    synced: usize,
    /// So much of that is where it belongs, and not in the journal alone.
    in_place: usize,
    /// Of what is not synced.
    bytes: usize,
}

/// How much of a file, or of a directory's names, a sync will have covered.
#[derive(Debug, Clone, Copy)]
struct Covered<'a> {
    are_names: bool,
    path: &'a str,
    writes: usize,
}

#[derive(Debug, Default)]
struct Laws<'a> {
    data: &'a str,
    files: BTreeMap<&'a str, Written>,
    /// Directories with names that were changed, and after how many changes each was synced.
    names: BTreeMap<&'a str, Written>,
    /// After how many changes of its directory a file or directory has got its name.
    named: BTreeMap<&'a str, usize>,
    /// The same of names that say that something is going to be removed.
    set_aside: BTreeMap<&'a str, usize>,
    /// Those of them that were removed, or something in them.
    removed: BTreeSet<&'a str>,
    /// What a sync under way will have covered, by the call.
    syncing: Vec<(&'a str, Vec<Covered<'a>>)>,
    /// What a sync of a file of the journal will cover beside it, by the file.
    journal: BTreeMap<&'a str, Vec<Covered<'a>>>,
    /// How many entries of the journal were synced.
    journaled: usize,
    clients: Vec<Client<'a>>,
}

/// Whoever produces to a topic, over a connection.
#[derive(Debug)]
struct Client<'a> {
    topic: &'static str,
    /// The connection's own address.
    peer: &'a str,
    /// How many batches a request has.
    batches_per_request: usize,
    /// The segment of each batch, in the order in which they were appended, and which write to it that was.
    batches: Vec<(&'a str, usize)>,
    answered: usize,
}

impl<'a> Client<'a> {
    const fn new(topic: &'static str, peer: &'a str, batches_per_request: usize) -> Self {
        Self { topic, peer, batches_per_request, batches: Vec::new(), answered: 0 }
    }
}

/// Holds a trace to the laws.
fn check<'a>(trace: &'a str, data: &'a str, peers: &'a [String; 2]) -> Result<Laws<'a>> {
    let [one, many] = peers;
    let clients = vec![Client::new(TOPIC, one, 1), Client::new(MANY, many, PARTITIONS)];
    let mut laws = Laws { data, clients, ..Laws::default() };
    let mut unfinished = BTreeMap::new();
    for (number, line) in trace.lines().enumerate() {
        for event in events(line, &mut unfinished) {
            let judged = match event {
                Event::Begin(call) => laws.begin(call),
                Event::End { call, result } => laws.end(call, result),
            };
            judged.with_context(|| format!("line {} of the trace: {line}", number + 1))?;
        }
    }
    Ok(laws)
}

impl<'a> Laws<'a> {
    /// A directory with names that are not synced.
    fn unsynced(&self) -> Option<(&'a str, &Written)> {
        let mut names = self.names.iter().map(|(path, names)| (*path, names));
        names.find(|(_, names)| names.synced < names.writes)
    }

    fn begin(&mut self, call: &'a str) -> Result<()> {
        let covers = match call.split('(').next() {
            Some("fdatasync" | "fsync") => self.covered_by(subject(call)),
            Some("syncfs") => self.covered(|_| true),
            Some("sendmsg") => {
                let is_to =
                    |client: &Client<'_>| subject(call).ends_with(&format!("->{}]", client.peer));
                let Some(client) = self.clients.iter().position(is_to) else { return Ok(()) };
                let answers = buffers(call).context("a call that does not say what it sends")?;
                return (0..answers).try_for_each(|_| self.answer(client));
            }
            Some("unlink" | "unlinkat" | "rmdir") => return self.remove(removed(call)),
            _ => return Ok(()),
        };
        self.syncing.push((call, covers));
        Ok(())
    }

    fn covered(&self, is_meant: impl Fn(&str) -> bool) -> Vec<Covered<'a>> {
        let of = |are_names, all: &BTreeMap<&'a str, Written>| {
            let meant = all.iter().filter(|(path, _)| is_meant(path));
            meant
                .map(|(path, it)| Covered { are_names, path, writes: it.writes })
                .collect::<Vec<_>>()
        };
        [of(false, &self.files), of(true, &self.names)].concat()
    }

    /// What a sync of one file or directory covers: of the journal also what is in its latest entry, once its name is synced.
    fn covered_by(&self, path: &'a str) -> Vec<Covered<'a>> {
        let mut covered = self.covered(|it| it == path);
        let is_named = self.named.get(path).is_some_and(|named| self.synced_names(path) >= *named);
        covered.extend(self.journal.get(path).filter(|_| is_named).into_iter().flatten());
        covered
    }

    /// Every batch so far, and the name of its segment, must be on the disk.
    fn answer(&mut self, at: usize) -> Result<()> {
        let client = self.clients.get(at).context("an answer to nobody")?;
        let number = client.answered;
        let batches = client.batches.chunks_exact(client.batches_per_request).nth(number);
        let batches = batches.context("an answer to what was not written")?;
        for (segment, write) in batches {
            let synced = self.files.get(segment).map_or(0, |file| file.synced);
            ensure!(synced >= *write, "answer {number} {UNFLUSHED}");
            for path in [*segment, parent(segment)] {
                let named =
                    self.named.get(path).with_context(|| format!("{path} was never created"))?;
                let is_synced = self.synced_names(path) >= *named;
                ensure!(is_synced, "answer {number} {UNNAMED}: {path}");
            }
        }
        self.clients.get_mut(at).context("an answer to nobody")?.answered += 1;
        Ok(())
    }

    /// How many changes of the directory that something is in are on the disk.
    fn synced_names(&self, path: &str) -> usize {
        self.names.get(parent(path)).map_or(0, |names| names.synced)
    }

    /// What was set aside, or lies in what was.
    fn remove(&mut self, path: &'a str) -> Result<()> {
        let Some((set_aside, change)) = self.set_aside_with(path) else {
            ensure!(!path.ends_with(SEGMENT), "{path} {NOT_SET_ASIDE}");
            return Ok(());
        };
        ensure!(self.synced_names(set_aside) >= change, "{path} {NOT_SET_ASIDE}");
        self.removed.insert(set_aside);
        Ok(())
    }

    /// With which name a path was set aside: its own, or that of a directory which it lies in.
    fn set_aside_with(&self, path: &str) -> Option<(&'a str, usize)> {
        iter::successors(Some(path), |at| Some(parent(at)))
            .take_while(|at| at.len() > self.data.len())
            .find_map(|at| self.set_aside.get_key_value(at))
            .map(|(at, change)| (*at, *change))
    }

    fn end(&mut self, call: &'a str, result: &str) -> Result<()> {
        if result.starts_with('-') {
            return Ok(());
        }
        match call.split('(').next() {
            Some("fdatasync" | "fsync" | "syncfs") => self.synced(call),
            Some("pwritev" | "pwrite64") => {
                let bytes = result.trim().parse().context("a write of what length?")?;
                self.wrote(subject(call), bytes)?;
            }
            Some("openat") if call.contains("O_CREAT") => {
                // It may have been there before.
                quoted(call).first().into_iter().for_each(|path| self.named(path, false));
            }
            Some("mkdir") => {
                quoted(call).first().into_iter().for_each(|path| self.named(path, true))
            }
            Some("rename") => {
                if let [from, to] = quoted(call)[..] {
                    // What is not synced of a directory's names goes with it.
                    let names = self.names.remove(from);
                    self.unnamed(from);
                    self.named(to, true);
                    self.names.extend(names.map(|names| (to, names)));
                }
            }
            // Of what was set aside the next start removes what comes back.
            Some("unlink" | "rmdir") if self.set_aside_with(removed(call)).is_none() => {
                self.unnamed(removed(call));
            }
            Some("unlinkat") if self.set_aside_with(removed(call)).is_none() => {
                bail!("only what was set aside is removed with all that is in it");
            }
            _ => {}
        }
        Ok(())
    }

    fn synced(&mut self, call: &str) {
        let is_of_journal = subject(call).contains(JOURNAL);
        let Some(at) = self.syncing.iter().position(|(begun, _)| *begun == call) else { return };
        for Covered { are_names, path, writes } in self.syncing.remove(at).1 {
            let all = if are_names { &mut self.names } else { &mut self.files };
            if let Some(written) = all.get_mut(path) {
                written.synced = written.synced.max(writes);
                if !is_of_journal {
                    written.in_place = written.in_place.max(writes);
                }
                if written.synced == written.writes {
                    written.bytes = 0;
                }
            }
        }
        self.journaled +=
            usize::from(is_of_journal && self.journal.remove(subject(call)).is_some());
    }

    fn wrote(&mut self, path: &'a str, bytes: usize) -> Result<()> {
        let file = self.files.entry(path).or_default();
        file.writes += 1;
        file.bytes += bytes;
        let writes = file.writes;
        if path.contains(JOURNAL) {
            return self.noted(path, bytes);
        }
        let is_of = |client: &&mut Client<'_>| path.contains(&format!("/{}-", client.topic));
        if path.ends_with(SEGMENT)
            && let Some(client) = self.clients.iter_mut().find(is_of)
        {
            client.batches.push((path, writes));
        }
        Ok(())
    }

    /// An entry of the journal, of which a sync covers all that is not synced, if it is as long as that; or nothing but the
    /// place of its first header.
    fn noted(&mut self, journal: &'a str, bytes: usize) -> Result<()> {
        let mut segments = self.files.iter().filter(|(path, _)| path.ends_with(SEGMENT));
        if bytes == JOURNAL_HEADER_LEN {
            let lost = segments.find(|(_, file)| file.in_place < file.synced);
            ensure!(lost.is_none(), "{journal} {UNSETTLED}: {lost:?}");
            return Ok(());
        }
        let len = |(path, file): (&&str, &Written)| {
            let name = parent(path).rsplit('/').next().map_or(0, str::len);
            if file.bytes == 0 { 0 } else { TAIL_HEADER_LEN + name + file.bytes }
        };
        let unsynced: usize = segments.map(len).sum();
        // More, where a flush of the file system has covered meanwhile what the round had taken already.
        if unsynced > 0 && bytes >= JOURNAL_HEADER_LEN + unsynced {
            let covered = self.covered(|path| path.ends_with(SEGMENT));
            self.journal.insert(journal, covered);
        }
        Ok(())
    }

    fn named(&mut self, path: &'a str, is_new: bool) {
        let Some(change) = self.changed(parent(path)) else { return };
        if is_new {
            self.named.remove(path);
        }
        self.named.entry(path).or_insert(change);
        if sets_aside(path) {
            self.set_aside.entry(path).or_insert(change);
        }
    }

    fn unnamed(&mut self, path: &'a str) {
        self.changed(parent(path));
        self.named.remove(path);
        self.set_aside.remove(path);
        self.names.remove(path);
    }

    /// A directory's names are others now, so many times.
    fn changed(&mut self, directory: &'a str) -> Option<usize> {
        if !directory.starts_with(self.data) {
            return None;
        }
        let names = self.names.entry(directory).or_default();
        names.writes += 1;
        Some(names.writes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "127.0.0.1:7";
    const CREATED: &str = r#"1 openat(AT_FDCWD</>, "/d/ordered-0/0.log", O_RDWR|O_CREAT, 0666) = 5</d/ordered-0/0.log>"#;
    const WRITTEN: &str = "1 pwritev(5</d/ordered-0/0.log>, [...], 2, 0) = 70";
    const SYNCED: &str = "1 fdatasync(5</d/ordered-0/0.log>) = 0";
    const NAMED: &str = "1 fsync(6</d/ordered-0>)           = 0";
    const ANSWERED: &str = r#"1 sendmsg(4<TCP:[127.0.0.1:9->127.0.0.1:7]>, {msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base=""..., iov_len=53}], msg_iovlen=1, msg_controllen=0, msg_flags=0}, MSG_NOSIGNAL) = 53"#;

    const MADE: &str = r#"1 mkdir("/d/ordered-0", 0777) = 0"#;
    const ALL_NAMED: &str = "1 fsync(7</d>) = 0";

    fn peers() -> [String; 2] {
        [PEER, "127.0.0.1:8"].map(str::to_owned)
    }

    /// In a directory whose own name is on the disk.
    fn judge(lines: &[&str]) -> Result<usize> {
        let lines = [&[MADE, ALL_NAMED], lines].concat();
        let answered = |laws: Laws<'_>| laws.clients.iter().map(|client| client.answered).sum();
        check(&lines.join("\n"), "/d", &peers()).map(answered)
    }

    #[test]
    fn an_answer_may_follow_the_syncs_of_its_file_and_of_the_files_name() {
        assert_eq!(judge(&[CREATED, WRITTEN, SYNCED, NAMED, ANSWERED]).unwrap(), 1);
        let whole = "1 syncfs(6</d>) = 0";
        assert_eq!(judge(&[CREATED, WRITTEN, whole, ANSWERED]).unwrap(), 1);
    }

    #[test]
    fn an_answer_without_one_of_them_breaks_a_law() {
        for lines in [
            &[CREATED, WRITTEN, NAMED, ANSWERED][..],
            &[CREATED, WRITTEN, SYNCED, ANSWERED, NAMED],
            &[CREATED, SYNCED, WRITTEN, NAMED, ANSWERED],
            &[CREATED, WRITTEN, SYNCED, NAMED, ANSWERED, ANSWERED],
            &[CREATED, WRITTEN, "1 fdatasync(5</d/ordered-0/0.log>) = -1 EIO", NAMED, ANSWERED],
        ] {
            judge(lines).unwrap_err();
        }
    }

    #[test]
    fn a_sync_covers_what_was_written_before_it_began_once_it_has_returned() {
        let begun = "2 fdatasync(5</d/ordered-0/0.log> <unfinished ...>";
        let returned = "2 <... fdatasync resumed>) = 0";
        judge(&[CREATED, NAMED, WRITTEN, begun, returned, ANSWERED]).unwrap();
        judge(&[CREATED, NAMED, WRITTEN, begun, ANSWERED, returned]).unwrap_err();
        judge(&[CREATED, NAMED, begun, WRITTEN, returned, ANSWERED]).unwrap_err();
    }

    #[test]
    fn a_call_may_send_several_answers_and_each_is_held_to_the_laws() {
        let both = ANSWERED.replace("msg_iovlen=1", "msg_iovlen=2");
        assert_eq!(judge(&[CREATED, NAMED, WRITTEN, WRITTEN, SYNCED, &both]).unwrap(), 2);
        judge(&[CREATED, NAMED, WRITTEN, SYNCED, WRITTEN, &both]).unwrap_err();
    }

    #[test]
    fn the_name_of_each_segment_and_of_its_directory_is_synced_before_the_first_answer() {
        let [created, written, synced] =
            [CREATED, WRITTEN, SYNCED].map(|line| line.replace("/0.log", "/9.log"));
        let first = [CREATED, WRITTEN, SYNCED, NAMED, ANSWERED];
        let next = [&created, &written, &synced, NAMED, ANSWERED];
        assert_eq!(judge(&[first, next].concat()).unwrap(), 2);
        let unnamed = [&created, &written, &synced, ANSWERED, NAMED];
        judge(&[first, unnamed].concat()).unwrap_err();
        let too_early = [NAMED, &created, &written, &synced, ANSWERED];
        judge(&[first, too_early].concat()).unwrap_err();
        let again = [CREATED, WRITTEN, SYNCED, ANSWERED];
        assert_eq!(judge(&[&first[..], &again].concat()).unwrap(), 2, "it had its name before");

        let without = |lines: &[&str]| check(&lines.join("\n"), "/d", &peers()).is_err();
        assert!(without(&[&[MADE], &first[..]].concat()));
    }

    #[test]
    fn what_is_set_aside_is_removed_only_when_no_crash_can_bring_its_old_name_back() {
        let set_aside = r#"1 rename("/d/ordered-0/0.log", "/d/ordered-0/0.log.deleted") = 0"#;
        let removed = r#"1 unlink("/d/ordered-0/0.log.deleted") = 0"#;
        judge(&[set_aside, NAMED, removed]).unwrap();
        judge(&[set_aside, removed, NAMED]).unwrap_err();
        judge(&[NAMED, set_aside, ALL_NAMED, removed]).unwrap_err();
        judge(&[r#"1 unlink("/d/ordered-0/0.log") = 0"#]).unwrap_err();

        let set_aside = r#"1 rename("/d/ordered-0", "/d/ordered-0.x-delete") = 0"#;
        let within = r#"1 unlinkat(8</d/ordered-0.x-delete>, "0.log", 0) = 0"#;
        let whole = r#"1 unlinkat(AT_FDCWD</>, "/d/ordered-0.x-delete", AT_REMOVEDIR) = 0"#;
        judge(&[set_aside, ALL_NAMED, within, whole]).unwrap();
        judge(&[set_aside, within, ALL_NAMED, whole]).unwrap_err();
        judge(&[set_aside, NAMED, whole]).unwrap_err();
        judge(&[r#"1 unlink("/d/ordered-0/1.snapshot") = 0"#]).unwrap();
    }

    #[test]
    fn a_sync_of_the_journal_covers_what_its_entry_has_room_for() {
        let made = r#"1 openat(AT_FDCWD</>, "/d/ottla.journal.0", O_RDWR|O_CREAT, 0666) = 8</d/ottla.journal.0>"#;
        // 32 of its own, 2 + 9 + 36 of a log, and 70 that it has got.
        let noted = "1 pwrite64(8</d/ottla.journal.0>, [...], 149, 0) = 149";
        let synced = "1 fdatasync(8</d/ottla.journal.0>) = 0";
        let short = "1 pwrite64(8</d/ottla.journal.0>, [...], 79, 0) = 79";
        let emptied = "1 pwrite64(8</d/ottla.journal.0>, [...], 32, 0) = 32";
        let settled = "1 syncfs(6</d>) = 0";
        let first = [CREATED, WRITTEN, SYNCED, NAMED, ANSWERED, made, ALL_NAMED];
        let then = |lines: &[&str]| judge(&[&first[..], lines].concat());
        assert_eq!(then(&[WRITTEN, noted, synced, ANSWERED]).unwrap(), 2);
        then(&[WRITTEN, noted, ANSWERED]).unwrap_err();
        then(&[WRITTEN, short, synced, ANSWERED]).unwrap_err();
        then(&[noted, WRITTEN, synced, ANSWERED]).unwrap_err();
        then(&[WRITTEN, synced, noted, ANSWERED]).unwrap_err();
        then(&[WRITTEN, noted, synced, ANSWERED, settled, emptied]).unwrap();
        then(&[WRITTEN, noted, synced, ANSWERED, emptied, settled]).unwrap_err();
        let unnamed = [CREATED, WRITTEN, SYNCED, NAMED, ANSWERED, made];
        judge(&[&unnamed[..], &[WRITTEN, noted, synced, ANSWERED]].concat()).unwrap_err();
    }

    #[test]
    fn names_that_nobody_syncs_are_found() {
        let renamed = r#"1 rename("/d/a.tmp", "/d/a") = 0"#;
        let unsynced = |lines: &[&str]| {
            check(&lines.join("\n"), "/d", &peers())
                .unwrap()
                .unsynced()
                .map(|(path, _)| path.to_owned())
        };
        assert_eq!(unsynced(&[renamed]).as_deref(), Some("/d"));
        assert_eq!(unsynced(&[renamed, ALL_NAMED]), None);
        let moved = r#"1 rename("/d/ordered-0", "/d/other-0") = 0"#;
        assert_eq!(unsynced(&[MADE, CREATED, moved, ALL_NAMED]).as_deref(), Some("/d/other-0"));
    }
}
