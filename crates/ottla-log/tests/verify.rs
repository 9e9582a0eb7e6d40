//! `ottla log verify`'s findings: a flip in any byte of any file of a log is one, and a sound directory has none.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ottla_base::{Offset, Timestamp};
use ottla_env::ManualClock;
use ottla_log::verify::{Finding, Options, Report, VerifyError, Weight, verify};
use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
use support::closed_directory;

fn report(path: &Path) -> Report {
    verify(path, Options { deep: true }).unwrap()
}

fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    files.sort();
    files
}

#[test]
fn what_was_written_is_found_sound() {
    let directory = closed_directory();
    let report = report(directory.path());
    assert_eq!(report.findings, []);
    assert_eq!((report.partitions, report.segments, report.batches, report.records), (1, 2, 8, 8));
    assert!(report.clean && !report.in_use);
    assert_eq!(report.bytes, 8 * 73);
}

#[test]
fn a_partitions_directory_can_be_checked_alone() {
    let directory = closed_directory();
    let alone = report(&directory.path().join("t-0"));
    assert_eq!((alone.findings, alone.batches), (vec![], 8));
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(matches!(
        verify(elsewhere.path(), Options::default()),
        Err(VerifyError::NotALogDirectory(_))
    ));
}

#[test]
fn a_flip_in_any_byte_of_any_file_of_a_log_is_found_in_that_file() {
    let directory = closed_directory();
    let log = directory.path().join("t-0");
    let mut flips = 0;
    for ending in [".log", ".index", ".timeindex", ".snapshot"] {
        for path in files(&log, ending) {
            let bytes = std::fs::read(&path).unwrap();
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at * 5 % 8);
                std::fs::write(&path, &flipped).unwrap();
                let report = report(directory.path());
                let found = |finding: &Finding| finding.path == path;
                assert!(report.is_damaged(), "{} byte {at}", path.display());
                assert!(
                    report.findings.iter().any(found),
                    "{} byte {at}: {report:?}",
                    path.display()
                );
                flips += 1;
            }
            std::fs::write(&path, &bytes).unwrap();
        }
    }
    assert!(flips > 700, "{flips}");
    assert_eq!(report(directory.path()).findings, []);
}

#[test]
fn damage_is_told_with_its_place_and_its_fate() {
    let directory = closed_directory();
    let path = &files(&directory.path().join("t-0"), ".log")[0];
    let mut bytes = std::fs::read(path).unwrap();
    let size = bytes.len() as u64 / 5;
    bytes[usize::try_from(2 * size + 65).unwrap()] ^= 4;
    std::fs::write(path, &bytes).unwrap();
    let report = report(directory.path());
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.position, Some(2 * size));
    assert_eq!(finding.offsets, Some(Offset(2)..Offset(3)));
    assert!(finding.what.contains("stored crc"), "{finding:?}");
    assert!(finding.next_start.contains("refused"), "{finding:?}");
}

#[test]
fn the_torn_end_of_a_crash_is_no_damage() {
    let directory = closed_directory();
    std::fs::remove_file(directory.path().join(".kafka_cleanshutdown")).unwrap();
    let path = files(&directory.path().join("t-0"), ".log").pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let torn = bytes[..40].to_vec();
    bytes.extend(torn);
    std::fs::write(&path, bytes).unwrap();
    let report = report(directory.path());
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.weight, Weight::Unfinished);
    assert_eq!(finding.next_start, "these 40 bytes are cut off");
}

#[test]
fn nothing_is_changed_and_a_running_process_is_noticed() {
    let directory = closed_directory();
    let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
    let (config, options) = (LogConfig::default(), DirectoryOptions::default());
    let open = LogDirectory::open(directory.path(), config, options, clock).unwrap();
    let names = |path: &Path| files(path, "");
    let before = (names(directory.path()), names(&directory.path().join("t-0")));
    let report = report(directory.path());
    assert!(report.in_use);
    assert_eq!(report.findings, []);
    assert_eq!(before, (names(directory.path()), names(&directory.path().join("t-0"))));
    drop(open);
}

#[test]
fn what_is_said_of_leftovers_is_what_the_next_start_makes_of_them() {
    for is_finished in [true, false] {
        let directory = closed_directory();
        let file = |name: &str| directory.path().join("t-0").join(name);
        let log = file("00000000000000000000.log");
        let bytes = std::fs::read(&log).unwrap();
        let swap = file("00000000000000000000.log.swap");
        std::fs::write(&swap, &bytes[..2 * 73]).unwrap();
        let temporary = file("leader-epoch-checkpoint.tmp");
        let cleaned = file("00000000000000000000.index.cleaned");
        let deleted = file("00000000000000000000.log.1.deleted");
        std::fs::write(&deleted, []).unwrap();
        std::fs::write(&temporary, []).unwrap();
        if !is_finished {
            std::fs::write(&cleaned, []).unwrap();
        }
        let report = report(directory.path());
        let fate = |path: &Path| {
            let mut findings = report.findings.iter().filter(|finding| finding.path == path);
            findings.next().map(|finding| finding.next_start.as_str())
        };
        let replaces = "takes the place of what it was made from";
        assert_eq!(fate(&swap), Some(if is_finished { replaces } else { "removed" }));
        assert_eq!(fate(&cleaned), (!is_finished).then_some("removed"));
        assert_eq!(fate(&deleted), Some("removed"));
        assert_eq!(fate(&temporary), Some("left alone"));
        assert!(!report.is_damaged(), "{report:?}");
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        let (config, options) = (LogConfig::default(), DirectoryOptions::default());
        drop(LogDirectory::open(directory.path(), config, options, clock).unwrap());
        assert!(!swap.exists() && !cleaned.exists() && !deleted.exists() && temporary.exists());
        let kept = if is_finished { &bytes[..2 * 73] } else { &bytes[..] };
        assert_eq!(std::fs::read(&log).unwrap(), kept);
    }
}
