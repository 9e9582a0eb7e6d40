//! What a bit that turns in a file without a checksum of its own does: never another answer than before. A refusal is one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset, Timestamp, TopicPartition, Uuid};
use ottla_env::ManualClock;
use ottla_log::{DirectoryOptions, Log, LogConfig, LogDirectory};
use ottla_records::{BatchHeader, ControlType};
use support::{Draft, marker};

const NOW_MS: i64 = 100_000;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 760,
        index_interval_bytes: 120,
        retention_ms: NOW_MS - 1_500,
        ..LogConfig::default()
    }
}

fn open(path: &Path) -> Result<LogDirectory, ottla_log::OpenError> {
    let clock = Arc::new(ManualClock::at(Timestamp(NOW_MS)));
    let options = DirectoryOptions {
        threads: false,
        scrub_interval_ms: 0,
        scrub_bytes_per_second: 0,
        ..DirectoryOptions::default()
    };
    LogDirectory::open(path, config(), options, clock)
}

fn partition() -> TopicPartition {
    TopicPartition::new("t", 0)
}

/// Three segments with transactions that are aborted, in three leader epochs.
fn written() -> tempfile::TempDir {
    let temporary = support::temporary_directory();
    let logs = open(temporary.path()).unwrap();
    let log = logs.create(partition(), Uuid([7; 16]), Arc::new(config())).unwrap();
    for n in 0..7 {
        let epoch = LeaderEpoch(n / 3);
        let timestamp = 2_000 + i64::from(n % 3 + n) * 10;
        let draft = Draft { in_transaction: true, timestamp, ..Draft::new(2 * n, 2) };
        log.append_batch(draft.build(), epoch).unwrap();
        let end = marker(ControlType::Abort, 1, 0, 0, timestamp);
        log.append_batch(end, epoch).unwrap();
    }
    log.flush().unwrap();
    assert_eq!(log.segment_count(), 3);
    logs.checkpoint().unwrap();
    drop(log);
    logs.close(1).unwrap();
    temporary
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Each question with its answer, `None` where it is refused.
type Answers = BTreeMap<String, Option<String>>;

fn answers(log: &Arc<Log>) -> Answers {
    let mut answers = Answers::new();
    let mut add = |question: String, answer: Option<String>| {
        answers.insert(question, answer);
    };
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    add("ends".to_owned(), Some(format!("{start} {end}")));
    for from in 0..end.0 {
        let slice = log.read(Offset(from), 200, end, true);
        let first = slice.as_ref().ok().and_then(|slice| {
            let bytes = slice.source.as_ref()?.read().ok()?;
            Some(BatchHeader::parse(&bytes).ok()?.base_offset.to_string())
        });
        add(format!("read from {from}"), first);
        let aborted = slice.ok().and_then(|slice| {
            let last = slice.source.as_ref()?.read().ok()?;
            let mut batches = ottla_records::Batches::new(last);
            let last = batches.by_ref().map_while(Result::ok).last()?.header().last_offset();
            let found = log.aborted_transactions(&(Offset(from)..log.end_of(&slice))).ok()?;
            // What lies behind is more than was asked for.
            Some(format!(
                "{:?}",
                found.iter().filter(|it| it.first_offset.0 <= last).collect::<Vec<_>>()
            ))
        });
        add(format!("aborted from {from}"), aborted);
        let epoch = log.epoch_for_offset(Offset(from));
        add(format!("epoch of {from}"), epoch.map(|it| it.to_string()));
    }
    for timestamp in 1_990..2_100 {
        let found = log.offset_for_timestamp(Timestamp(timestamp)).ok();
        add(format!("first at {timestamp}"), found.map(|it| format!("{it:?}")));
    }
    add("newest".to_owned(), log.max_timestamp().ok().map(|it| format!("{it:?}")));
    for epoch in 0..4 {
        let end = log.end_offset_for_epoch(LeaderEpoch(epoch));
        add(format!("end of epoch {epoch}"), Some(format!("{end:?}")));
    }
    add("producers".to_owned(), Some(format!("{:?}", log.producers())));
    let stable = log.last_stable_offset(end);
    add("stable".to_owned(), Some(stable.to_string()));
    add("topic".to_owned(), log.topic_id().map(|it| it.to_string()));
    answers
}

/// When a bit turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Running,
    Stopped,
    Crashed,
}

const ALWAYS: [When; 3] = [When::Running, When::Stopped, When::Crashed];

/// Turns bits of a file, one in so many, and asks: what has another answer is told, with the number of the bit. With a scrub
/// in between, what is refused after it, too.
fn wrong(file: &str, when: When, step: usize, is_scrubbed: bool) -> Vec<(usize, String)> {
    let template = written();
    let at = support::temporary_directory();
    let path = at.path().join("data");
    copy(template.path(), &path);
    let expected = answers(&open(&path).unwrap().log(&partition()).unwrap());
    fs::remove_dir_all(&path).unwrap();
    let mut wrong = Vec::new();
    let bytes = fs::read(template.path().join(file)).unwrap();
    for bit in (0..bytes.len() * 8).step_by(step) {
        copy(template.path(), &path);
        if when == When::Crashed {
            fs::remove_file(path.join(".kafka_cleanshutdown")).unwrap();
        }
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let flip = || fs::write(path.join(file), &flipped).unwrap();
        if when != When::Running {
            flip();
        }
        let logs = open(&path).unwrap();
        if when == When::Running {
            flip();
        }
        let log = logs.log(&partition()).unwrap();
        let removed = log.enforce_retention(NOW_MS, log.log_end_offset()).unwrap();
        if removed.segments > 0 {
            wrong.push((bit, "retention".to_owned()));
        }
        if is_scrubbed {
            logs.scrub();
        }
        let found = answers(&log);
        for (question, answer) in &expected {
            let got = found.get(question).cloned().flatten();
            if got != *answer && (is_scrubbed || got.is_some()) {
                wrong.push((bit, question.clone()));
            }
        }
        drop((log, logs));
        fs::remove_dir_all(&path).unwrap();
    }
    wrong
}

fn files(ending: &str) -> Vec<String> {
    let template = written();
    let entries = fs::read_dir(template.path().join("t-0")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(ending)).collect();
    names.sort();
    assert!(!names.is_empty());
    names.into_iter().map(|name| format!("t-0/{name}")).collect()
}

#[test]
fn an_offset_index_leads_nobody_astray() {
    for file in files(".index") {
        for when in ALWAYS {
            assert_eq!(wrong(&file, when, 1, false), [], "{file} {when:?}");
        }
    }
}

#[test]
fn a_time_index_has_nothing_deleted_too_early_and_after_a_scrub_leads_nobody_astray() {
    for file in files(".timeindex") {
        for when in ALWAYS {
            let mut wrong = wrong(&file, when, 1, true);
            // While a segment is written nobody says that its records are newer than any of them, but that there is none.
            wrong.retain(|(_, question)| !file.contains("18") || question != "newest");
            assert_eq!(wrong, [], "{file} {when:?}");
        }
    }
}

#[test]
fn a_transaction_index_leads_nobody_astray_after_a_scrub() {
    for file in files(".txnindex") {
        for when in ALWAYS {
            assert_eq!(wrong(&file, when, 5, true), [], "{file} {when:?}");
        }
    }
}

#[test]
fn a_snapshot_of_producers_is_right_or_worth_nothing() {
    for file in files(".snapshot") {
        for when in ALWAYS {
            assert_eq!(wrong(&file, when, 11, false), [], "{file} {when:?}");
        }
    }
}

#[test]
fn a_recovery_point_cuts_nothing_off() {
    let file = "recovery-point-offset-checkpoint";
    for when in ALWAYS {
        assert_eq!(wrong(file, when, 1, false), [], "{when:?}");
    }
}

/// Where a log starts nothing else tells; but where it ends, its recovery point does.
#[test]
fn a_log_start_behind_the_end_of_a_log_that_was_closed_takes_nothing_away() {
    let template = written();
    let logs = open(template.path()).unwrap();
    logs.log(&partition()).unwrap().delete_records_to(Offset(12)).unwrap();
    logs.close(1).unwrap();
    let file = "log-start-offset-checkpoint";
    let bytes = fs::read(template.path().join(file)).unwrap();
    let (at, mut behind) = (support::temporary_directory(), 0);
    for bit in 0..bytes.len() * 8 {
        let path = at.path().join(bit.to_string());
        copy(template.path(), &path);
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(path.join(file), &flipped).unwrap();
        let Ok(logs) = open(&path) else { continue };
        let log = logs.log(&partition()).unwrap();
        assert_eq!(log.log_end_offset(), Offset(21), "bit {bit}");
        log.read(Offset(20), 1, Offset(21), true).unwrap();
        let text = String::from_utf8_lossy(&flipped);
        let is_behind = ["t 0 32", "t 0 52", "t 0 92"].iter().any(|it| text.contains(it));
        if is_behind {
            behind += 1;
            assert_eq!(log.log_start_offset(), Offset(0), "bit {bit}");
            let now = fs::read_to_string(path.join(file)).unwrap();
            assert!(now.contains("t 0 0"), "{now}");
        }
    }
    assert_eq!(behind, 3);
}

/// What it says of epochs is believed, and batches of others are refused.
#[test]
fn leader_epochs_cut_nothing_off() {
    for when in ALWAYS {
        let mut wrong = wrong("t-0/leader-epoch-checkpoint", when, 1, false);
        wrong.retain(|(_, question)| !question.contains("epoch"));
        assert_eq!(wrong, [], "{when:?}");
    }
}
