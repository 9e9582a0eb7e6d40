//! The fuzzers `log_directory` and `log_hints` on a stable compiler: seeded mutations of a sound log's files.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic is what the test looks for"
)]

use ottla_base::{LeaderEpoch, Offset, SplitMix64, Timestamp};
use ottla_records::{BatchBuilder, Compression};

#[path = "../../../fuzz/src/files.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports it")]
mod files;

#[path = "../../../fuzz/src/log_directory.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports it")]
mod log_directory;

#[path = "../../../fuzz/src/random.rs"]
mod random;

use log_directory::{CLEAN, FILES, HINTS};
use random::{mutate, seeds};

const ROUNDS: u64 = 1500;

/// What is seldom there, and sound: a log's files, and what may be beside them.
fn others() -> Vec<(&'static str, Vec<u8>)> {
    let of_log = |name: &str| {
        let sound = log_directory::sound().iter();
        sound.clone().find(|(it, _)| it.ends_with(name)).unwrap().1.clone()
    };
    let future = "u-0.0123456789abcdef0123456789abcdef-future";
    let future = |name: &str| *FILES.iter().find(|it| **it == format!("{future}/{name}")).unwrap();
    let adopt = "version=0\ntopic_id=BwcHBwcHBwcHBwcHBwcHBw\npartitions=1\nlargest_producer_id=1\n";
    // Of producer 1, from offset 0 to the marker at 3, with the last stable offset 4.
    let aborted = [1_i64, 0, 3, 4].map(i64::to_be_bytes).concat();
    let aborted = [vec![0, 0], aborted].concat();
    vec![
        ("t-0/ottla.quarantine", b"0\n1\n0 0 90 0 2 checksum\n".to_vec()),
        ("t-0/ottla.adopt", adopt.as_bytes().to_vec()),
        ("t-0/00000000000000000000.txnindex", aborted),
        ("t-0/00000000000000000000.log.swap", of_log("00000000000000000000.log")),
        ("t-0/00000000000000000000.index.swap", of_log("00000000000000000000.index")),
        ("t-0/00000000000000000000.timeindex.swap", of_log("00000000000000000000.timeindex")),
        ("t-0/00000000000000000000.txnindex.swap", Vec::new()),
        ("t-0/00000000000000000004.log.cleaned", of_log("00000000000000000004.log")),
        (future("00000000000000000000.log"), of_log("00000000000000000000.log")),
        (future("00000000000000000000.index"), of_log("00000000000000000000.index")),
        (future("leader-epoch-checkpoint"), b"0\n1\n0 0\n".to_vec()),
        (future("partition.metadata"), of_log("partition.metadata")),
        (future("copy-complete"), b"2".to_vec()),
        ("log-start-offset-checkpoint", b"0\n1\nt 0 1\n".to_vec()),
        ("cleaner-offset-checkpoint", b"0\n1\nt 0 4\n".to_vec()),
        (".ottla_sync_failed", Vec::new()),
        ("ottla.journal.0", journal(1, 12)),
        ("ottla.journal.1", journal(2, 13)),
    ]
}

/// An entry with what the log has got at its end, at this offset.
fn journal(sequence: u64, offset: i64) -> Vec<u8> {
    let append = |offset| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(Timestamp(1_000), None, Some(b"value"), &[]);
        let mut batch = builder.build();
        batch.assign(Offset(offset), LeaderEpoch(1));
        batch.to_bytes()
    };
    let before = log_directory::sound().iter().find(|(name, _)| name.ends_with("4.log")).unwrap();
    let position = before.1.len() + (12..offset).map(|it| append(it).len()).sum::<usize>();
    let bytes = append(offset);
    let mut entry = files::JOURNAL.to_vec();
    entry.resize(files::JOURNAL_HEADER_LEN, 0);
    entry[8..16].copy_from_slice(&sequence.to_be_bytes());
    entry.extend(3_u16.to_be_bytes());
    entry.extend(b"t-0");
    entry.extend([7; 16]);
    entry.extend(4_i64.to_be_bytes());
    entry.extend(u64::try_from(position).unwrap().to_be_bytes());
    entry.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    entry.extend(&bytes[..]);
    let len = u32::try_from(entry.len() - files::JOURNAL_HEADER_LEN).unwrap();
    entry[4..8].copy_from_slice(&len.to_be_bytes());
    files::repair_journal(&mut entry);
    entry
}

#[test]
fn the_example_of_a_journal_is_written_back() {
    let temporary = files::directory();
    for (name, bytes) in log_directory::sound().iter().filter(|(name, _)| *name != CLEAN) {
        files::put(temporary.path(), name, bytes);
    }
    files::put(temporary.path(), "ottla.journal.0", &journal(1, 12));
    files::put(temporary.path(), "ottla.journal.1", &journal(2, 13));
    assert_eq!(log_directory::end(temporary.path()), Some(Offset(14)));
}

fn which(name: &str, of: &[&str]) -> u8 {
    u8::try_from(of.iter().position(|it| *it == name).unwrap()).unwrap()
}

#[test]
fn every_file_that_is_read_has_a_sound_example() {
    let others = others();
    let is_there = |name: &&str| {
        let sound = log_directory::sound().iter().chain(&others);
        sound.clone().any(|(it, _)| it == name)
    };
    let missing: Vec<_> = FILES.iter().filter(|name| !is_there(name)).collect();
    // These have nothing in them that a sound log of this kind would write.
    assert_eq!(missing, [&"t-0/00000000000000000004.txnindex"]);
}

#[test]
fn mutated_files_of_a_log_are_opened_or_refused_and_never_panic() {
    let (sound, others) = (log_directory::sound(), others());
    for seed in seeds(ROUNDS) {
        let mut random = SplitMix64::new(seed);
        let has_others = random.below(2) == 0;
        let mut data = Vec::new();
        for (at, (name, file)) in sound.iter().chain(&others).enumerate() {
            let is_seldom = at >= sound.len();
            let often = if *name == CLEAN { 2 } else { 8 };
            let is_left_out = match is_seldom {
                true => !has_others || random.below(3) > 0,
                false => random.below(often) == 0,
            };
            if is_left_out {
                continue;
            }
            let mut file = file.clone();
            if random.below(3) == 0 {
                mutate(&mut file, &mut random);
            }
            let repaired = if random.below(2) == 0 { files::REPAIRED } else { 0 };
            files::push(&mut data, which(name, &FILES) | repaired, &file);
        }
        let outcome = std::panic::catch_unwind(|| log_directory::run(&data));
        assert!(outcome.is_ok(), "seed {seed} panics");
    }
}

#[test]
fn bytes_that_once_broke_something_are_opened() {
    // The last entry of an index was trusted, and the batch there contradicted the epochs: the log ended where its segment
    // begins, before batches that were in the file.
    log_directory::run(include_bytes!("fuzz/reading_begins_at_damage"));
}

#[test]
fn mutated_files_that_only_help_take_no_sound_record_away() {
    let others = others();
    for seed in seeds(ROUNDS / 3) {
        let mut random = SplitMix64::new(seed);
        let mut data = vec![u8::try_from(random.below(2)).unwrap()];
        for (name, file) in log_directory::sound().iter().chain(&others) {
            if HINTS.contains(name) && random.below(3) > 0 {
                let mut file = file.clone();
                mutate(&mut file, &mut random);
                files::push(&mut data, which(name, &HINTS), &file);
            }
        }
        let outcome = std::panic::catch_unwind(|| log_directory::run_hints(&data));
        assert!(outcome.is_ok(), "seed {seed} panics");
    }
}
