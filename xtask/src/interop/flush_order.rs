//! What the real binary asks of the system, as `strace` sees it: no answer before the flush that it promises, and no
//! name that is not made durable (shell; the laws are pure).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use ottla_base::Timestamp;
use ottla_protocol::frame::encode_request;
use ottla_protocol::messages::ProduceRequest;
use rustix::process::{Pid, Signal, kill_process};

use super::operator::{self, LIMIT, Running, client, new_directory, produce_request, serve_in};
use super::session::Session;
use super::{FLUSH_ORDER, TRACE, Test};
use crate::side_by_side::connection::{Connection, Reply};

const TOPIC: &str = "ordered";
const BATCHES: usize = 300;
/// As many as Kafka's producers have in flight.
const IN_FLIGHT: usize = 5;
const BATCHES_PER_SEGMENT: usize = 50;
const SEGMENT_MS: i64 = 1_000;

const CALLS: &str =
    "trace=pwritev,pwrite64,fdatasync,fsync,syncfs,sendmsg,openat,mkdir,rename,unlink";

pub(super) fn tests() -> Vec<Test> {
    let run = move |session: &mut Session| traced(&new_directory(session)?);
    let test = Test::new(FLUSH_ORDER, &["strace", "setpriv"], run);
    vec![test.without_broker().where_allowed(&[TRACE])]
}

fn traced(directory: &Path) -> Result<()> {
    let trace = directory.join("trace");
    let running = Running::start(serve_traced(directory, &trace)?, directory)?;
    let segment_ms = format!("segment.ms={SEGMENT_MS}");
    let create = ["topic", "create", TOPIC, "--config", &segment_ms];
    client(running.address(), &create, "")?;
    let peer = produce(running.address())?;
    let text = fs::read_to_string(&trace)?;
    let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
    let pid = pid.and_then(Pid::from_raw).context("the trace names no process")?;
    kill_process(pid, Signal::TERM)?;
    ensure!(running.process.wait(LIMIT)?.success(), "it did not stop cleanly");

    let text = fs::read_to_string(&trace)?;
    let data = directory.join("data").display().to_string();
    let answered = check(&text, &data, &peer)?;
    ensure!(answered == BATCHES, "{answered} answers were seen");
    for (what, calls) in [
        ("files are never synced", &["fdatasync", "syncfs"][..]),
        ("names are never synced", &["fsync", "syncfs"]),
    ] {
        let kept = |line: &&str| !calls.iter().any(|call| line.contains(&format!(" {call}")));
        let without: String = text.lines().filter(kept).map(|line| format!("{line}\n")).collect();
        ensure!(check(&without, &data, &peer).is_err(), "nobody would notice that {what}");
    }
    Ok(())
}

fn serve_traced(directory: &Path, trace: &Path) -> Result<Command> {
    let options = ["-yy", "-s", "0", "-e", CALLS];
    Ok(operator::traced(&serve_in(directory)?, trace, &options))
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

fn request(number: usize) -> Result<ProduceRequest> {
    let segment = i64::try_from(number / BATCHES_PER_SEGMENT)?;
    let timestamp = Timestamp(1_500_000_000_000 + segment * 2 * SEGMENT_MS);
    Ok(produce_request(TOPIC, 0, timestamp, b"v"))
}

/// A call of the system, when it begins and when it has returned.
#[derive(Debug, PartialEq, Eq)]
enum Event<'a> {
    Begin(&'a str),
    End { call: &'a str, result: &'a str },
}

/// A line of `strace -f`: the thread, and what it says of a call. `resumed` gives what was begun before.
fn events<'a>(line: &'a str, unfinished: &mut BTreeMap<&'a str, &'a str>) -> Vec<Event<'a>> {
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

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// What has been written to a file, and how much of that is on the disk.
#[derive(Debug, Default)]
struct Written {
    writes: usize,
    synced: usize,
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
    /// What a sync under way will have covered, by the call.
    syncing: Vec<(&'a str, Vec<Covered<'a>>)>,
    /// The segment of each batch, in the order in which they were appended, and which write to it that was.
    batches: Vec<(&'a str, usize)>,
    answered: usize,
}

/// Holds a trace to the laws. Returns how many answers there were.
fn check(trace: &str, data: &str, peer: &str) -> Result<usize> {
    let mut laws = Laws { data, ..Laws::default() };
    let mut unfinished = BTreeMap::new();
    for (number, line) in trace.lines().enumerate() {
        for event in events(line, &mut unfinished) {
            let judged = match event {
                Event::Begin(call) => laws.begin(call, peer),
                Event::End { call, result } => laws.end(call, result),
            };
            judged.with_context(|| format!("line {} of the trace: {line}", number + 1))?;
        }
    }
    let unsynced = laws.names.iter().find(|(_, names)| names.synced < names.writes);
    ensure!(unsynced.is_none(), "names are not synced in the end: {unsynced:?}");
    Ok(laws.answered)
}

impl<'a> Laws<'a> {
    fn begin(&mut self, call: &'a str, peer: &str) -> Result<()> {
        let covers = match call.split('(').next() {
            Some("fdatasync" | "fsync") => self.covered(|path| path == subject(call)),
            Some("syncfs") => self.covered(|_| true),
            Some("sendmsg") if subject(call).ends_with(&format!("->{peer}]")) => {
                let answers = buffers(call).context("a call that does not say what it sends")?;
                return (0..answers).try_for_each(|_| self.answer());
            }
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

    /// Every batch so far, and the name of its segment, must be on the disk.
    fn answer(&mut self) -> Result<()> {
        let (segment, write) =
            *self.batches.get(self.answered).context("an answer to what was not written")?;
        let synced = self.files.get(segment).map_or(0, |file| file.synced);
        ensure!(synced >= write, "answer {} comes before its flush", self.answered);
        let names = self.names.get(parent(segment)).context("the segment was never created")?;
        ensure!(names.synced > 0, "answer {} is of a file whose name is not synced", self.answered);
        self.answered += 1;
        Ok(())
    }

    fn end(&mut self, call: &'a str, result: &str) -> Result<()> {
        if result.starts_with('-') {
            return Ok(());
        }
        match call.split('(').next() {
            Some("fdatasync" | "fsync" | "syncfs") => self.synced(call),
            Some("pwritev" | "pwrite64") => self.wrote(subject(call)),
            Some("openat") if call.contains("O_CREAT") => self.renamed(quoted(call)),
            Some("mkdir" | "rename" | "unlink") => self.renamed(quoted(call)),
            _ => {}
        }
        Ok(())
    }

    fn synced(&mut self, call: &str) {
        let Some(at) = self.syncing.iter().position(|(begun, _)| *begun == call) else { return };
        for Covered { are_names, path, writes } in self.syncing.remove(at).1 {
            let all = if are_names { &mut self.names } else { &mut self.files };
            if let Some(written) = all.get_mut(path) {
                written.synced = written.synced.max(writes);
            }
        }
    }

    fn wrote(&mut self, path: &'a str) {
        let file = self.files.entry(path).or_default();
        file.writes += 1;
        if path.ends_with(".log") && path.contains(&format!("/{TOPIC}-0/")) {
            self.batches.push((path, file.writes));
        }
    }

    fn renamed(&mut self, paths: Vec<&'a str>) {
        for path in paths.into_iter().filter(|path| path.starts_with(self.data)) {
            if path != self.data {
                self.names.entry(parent(path)).or_default().writes += 1;
            }
        }
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

    fn judge(lines: &[&str]) -> Result<usize> {
        check(&lines.join("\n"), "/d", PEER)
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
    fn names_that_nobody_syncs_are_found_in_the_end() {
        let renamed = r#"1 rename("/d/a.tmp", "/d/a") = 0"#;
        judge(&[renamed]).unwrap_err();
        judge(&[renamed, "1 fsync(6</d>) = 0"]).unwrap();
    }
}
