//! Arbitrary bytes as the files of a controller's metadata: a start ends and never panics, and what has started once decides,
//! ends, and starts again with what it has decided.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ottla_base::{BrokerId, Timestamp, Uuid};
use ottla_env::ManualClock;
use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
use ottla_metadata::{ConfigResource, Image, Outcome};
use ottla_protocol::records::ConfigRecord;
use ottla_quorum::{Config, Dependencies, NoTransport, Quorum, SnapshotLimits, Threads};

use crate::files;

/// What the bytes may become. All that the quorum itself reads, and what it makes of its log's files.
pub const FILES: [&str; 12] = [
    "__cluster_metadata-0/{offset}.log",
    "__cluster_metadata-0/{offset}.index",
    "__cluster_metadata-0/{offset}.timeindex",
    "__cluster_metadata-0/{offset}-{epoch}.checkpoint",
    "__cluster_metadata-0/leader-epoch-checkpoint",
    "__cluster_metadata-0/partition.metadata",
    "__cluster_metadata-0/quorum-state",
    "__cluster_metadata-0/reserve",
    "ottla.begun",
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    CLEAN,
];

const LOG: &str = "__cluster_metadata-0/";
pub const CLEAN: &str = ".kafka_cleanshutdown";

const PATIENCE: Duration = Duration::from_secs(10);
/// What is decided on arbitrary files; sound ones have others.
const FIRST: u32 = 1_000;
const SECOND: u32 = 1_001;

/// Takes `data` apart into files and starts a quorum of one on them, twice. Returns whether it has started.
pub fn run(data: &[u8]) -> bool {
    let temporary = files::directory();
    files::lay(temporary.path(), &FILES, data);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("there is a runtime").block_on(async {
        let limits = SnapshotLimits::default();
        let Ok(has_decided) = live(temporary.path(), limits, None, FIRST..SECOND).await else {
            return false;
        };
        let known = has_decided.then_some(FIRST);
        let again = live(temporary.path(), limits, known, SECOND..SECOND + 1).await;
        let again = again.unwrap_or_else(|error| panic!("it started once, and not again: {error}"));
        assert!(again || !has_decided, "it led once, and does not again");
        true
    })
}

/// One life, which knows of a decision and makes others: why it does not start, or whether it has made them.
async fn live(
    path: &Path,
    snapshots: SnapshotLimits,
    known: Option<u32>,
    numbers: Range<u32>,
) -> Result<bool, String> {
    let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
    let options =
        DirectoryOptions { threads: false, recovery_threads: 1, ..DirectoryOptions::default() };
    let directory =
        LogDirectory::open(path, LogConfig::default(), options, Arc::clone(&clock) as _);
    let directory = Arc::new(directory.map_err(|error| error.to_string())?);
    let dependencies = Dependencies {
        directory: Arc::clone(&directory),
        clock,
        publisher: Arc::new(()),
        transport: Arc::new(NoTransport),
        workers: Arc::new(Threads),
    };
    let starting = Quorum::start(config(snapshots), dependencies);
    let started = tokio::time::timeout(PATIENCE, starting).await;
    let quorum = started.expect("a start ends").map_err(|error| error.to_string())?;
    let before = quorum.image();
    before.check();
    assert!(known.is_none_or(|known| has_decided(&before, known)), "{known:?} is forgotten");
    let leads = quorum.is_alone();
    for number in numbers.filter(|_| leads) {
        decide(&quorum, number).await;
    }
    if snapshots.bytes_between == FORGETFUL.bytes_between {
        until("a snapshot is written", || has_snapshot(path)).await;
    }
    quorum.shutdown().await;
    drop(quorum);
    let _ = directory.close(-1);
    // Whoever has it still has its lock.
    until("its directory is let go", || Arc::strong_count(&directory) == 1).await;
    Ok(leads)
}

/// Whoever is alone decides.
async fn decide(quorum: &Quorum, number: u32) {
    let record = record(number);
    let decision = quorum.decide(move |_| Outcome { records: vec![record.into()], reply: () });
    let decided = tokio::time::timeout(PATIENCE, decision).await;
    decided.expect("a decision ends").expect("nobody else has a say");
    assert!(has_decided(&quorum.image(), number), "what was decided is not there");
}

fn record(number: u32) -> ConfigRecord {
    ConfigRecord {
        resource_type: ConfigResource::GROUP,
        resource_name: format!("fuzz-{number}").into(),
        name: "consumer.session.timeout.ms".into(),
        value: Some("45000".into()),
    }
}

fn has_decided(image: &Image, number: u32) -> bool {
    image.config(&ConfigResource::group(format!("fuzz-{number}"))).next().is_some()
}

fn config(snapshots: SnapshotLimits) -> Config {
    Config {
        segment_bytes: 700,
        snapshots,
        ..Config::alone(BrokerId(1), "cluster", Uuid([7; 16]), Uuid([8; 16]))
    }
}

/// A snapshot after every few decisions, and a log that is short.
const FORGETFUL: SnapshotLimits =
    SnapshotLimits { bytes_between: 900, interval_ms: 0, retention_bytes: 2_000, retention_ms: -1 };
const DECISIONS: u32 = 30;

/// Waits for what somebody else does.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} never"));
}

fn has_snapshot(path: &Path) -> bool {
    let mut entries = std::fs::read_dir(path.join(LOG)).expect("it is there").flatten();
    entries.any(|entry| entry.path().extension().is_some_and(|it| it == "checkpoint"))
}

/// The files of a quorum of one that has ended properly, each with its place in [`FILES`]; of one that is forgetful with
/// snapshots, and a log that begins after the first of them.
#[must_use]
pub fn sound(is_forgetful: bool) -> Vec<(u8, Vec<u8>)> {
    let temporary = files::directory();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let limits = if is_forgetful { FORGETFUL } else { SnapshotLimits::default() };
    runtime.expect("there is a runtime").block_on(async {
        for first in (0..DECISIONS).step_by(10) {
            let known = first.checked_sub(1);
            live(temporary.path(), limits, known, first..first + 10).await.expect("it starts");
        }
    });
    let mut found = Vec::new();
    for directory in ["", LOG] {
        let entries = std::fs::read_dir(temporary.path().join(directory)).expect("it is there");
        for entry in entries.map(|entry| entry.expect("it can be read")) {
            let name = format!("{directory}{}", entry.file_name().to_string_lossy());
            let place =
                FILES.iter().enumerate().find_map(|(at, it)| Some((at, numbers(it, &name)?)));
            if let Some((at, mut bytes)) = place {
                bytes.extend(std::fs::read(entry.path()).expect("it can be read"));
                found.push((u8::try_from(at).expect("there are few"), bytes));
            }
        }
    }
    found
}

/// The bytes that stand for the numbers in a name, if it is one of this kind.
fn numbers(kind: &str, name: &str) -> Option<Vec<u8>> {
    let (before, rest) = kind.split_once(files::OFFSET).unwrap_or((kind, ""));
    let behind = name.strip_prefix(before)?;
    if before == kind {
        return behind.is_empty().then(Vec::new);
    }
    let (offset, behind) = behind.split_at_checked(20)?;
    let mut bytes = offset.parse::<u64>().ok()?.to_be_bytes().to_vec();
    let Some(rest) = rest.strip_prefix('-') else { return (behind == rest).then_some(bytes) };
    let (epoch, behind) = behind.strip_prefix('-')?.split_at_checked(10)?;
    bytes.extend(epoch.parse::<u32>().ok()?.to_be_bytes());
    (rest.strip_prefix(files::EPOCH)? == behind).then_some(bytes)
}
