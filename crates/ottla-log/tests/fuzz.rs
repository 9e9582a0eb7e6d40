//! A short run of the fuzzer `log_directory` on a stable compiler: seeded mutations of a sound log's files.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is what the test looks for"
)]

use std::sync::Arc;

use ottla_base::{LeaderEpoch, Timestamp, TopicPartition, Uuid};
use ottla_env::ManualClock;
use ottla_log::{DirectoryOptions, LogConfig, LogDirectory};
use ottla_records::{BatchBuilder, Compression};

#[path = "../../../fuzz/src/log_directory.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports it")]
mod log_directory;

#[path = "../../../fuzz/src/random.rs"]
mod random;

use ottla_base::SplitMix64;
use random::byte;

const ROUNDS: u64 = 1500;

/// The files of a log with two segments that was closed properly, in the order of `FILES`.
fn sound_files() -> Vec<Option<Vec<u8>>> {
    let temporary = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
    let options = DirectoryOptions { threads: false, ..DirectoryOptions::default() };
    let config = LogConfig { index_interval_bytes: 50, ..LogConfig::default() };
    let directory = LogDirectory::open(temporary.path(), config.clone(), options, clock).unwrap();
    let partition = TopicPartition::new("t", 0);
    let log = directory.create(partition, Uuid([7; 16]), Arc::new(config)).unwrap();
    for n in 0..6 {
        if n == 2 {
            log.roll().unwrap();
        }
        let mut builder = BatchBuilder::new(Compression::None).producer(1, 0, n * 2);
        for record in 0..2 {
            builder.append(Timestamp(1_000 + i64::from(n)), None, Some(&[record; 30]), &[]);
        }
        log.append_produced(builder.build(), LeaderEpoch(n / 3)).unwrap();
    }
    drop(log);
    directory.close(1).unwrap();
    let read = |name: &&str| std::fs::read(temporary.path().join(name)).ok();
    log_directory::FILES.iter().map(read).collect()
}

fn mutate(file: &mut Vec<u8>, random: &mut SplitMix64) {
    for _ in 0..random.below(4) {
        if file.is_empty() {
            file.push(byte(random));
        }
        let at = random.below(file.len());
        match random.below(7) {
            0 => file.insert(at, byte(random)),
            1 => drop(file.remove(at)),
            2 => file.truncate(at),
            3 => file.extend_from_within(..at),
            _ => file[at] = byte(random),
        }
    }
}

#[test]
fn mutated_files_of_a_log_are_opened_or_refused_and_never_panic() {
    let sound = sound_files();
    assert!(sound.iter().flatten().count() >= 9);
    for seed in 0..ROUNDS {
        let mut random = SplitMix64::new(seed);
        let mut data = Vec::new();
        for (which, file) in sound.iter().enumerate() {
            let is_marker = which == sound.len() - 1;
            let left_out = random.below(if is_marker { 2 } else { 8 }) == 0;
            let Some(mut file) = file.clone().filter(|_| !left_out) else { continue };
            if random.below(3) == 0 {
                mutate(&mut file, &mut random);
            }
            data.push(u8::try_from(which).unwrap());
            data.extend(u16::try_from(file.len()).unwrap().to_be_bytes());
            data.extend(file);
        }
        let outcome = std::panic::catch_unwind(|| log_directory::run(&data));
        assert!(outcome.is_ok(), "seed {seed} panics");
    }
}
