//! The fuzzer `quorum` on a stable compiler: seeded mutations of the files of a quorum of one.

#![expect(clippy::indexing_slicing, reason = "a panic is what the test looks for")]

use std::sync::atomic::{AtomicBool, Ordering};

use ottla_base::SplitMix64;

#[path = "../../../fuzz/src/files.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports it")]
mod files;

#[path = "../../../fuzz/src/quorum.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports it")]
mod quorum;

#[path = "../../../fuzz/src/random.rs"]
mod random;

use quorum::{CLEAN, FILES, sound};
use random::{mutate, seeds};

const ROUNDS: u64 = 300;

/// A panic in a task reaches nobody who waits for something else.
static HAS_PANICKED: AtomicBool = AtomicBool::new(false);

fn notice_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        HAS_PANICKED.store(true, Ordering::Relaxed);
        usual(panic);
    }));
}

fn data(sound: &[(u8, Vec<u8>)], random: &mut SplitMix64) -> Vec<u8> {
    let mut data = Vec::new();
    for (which, file) in sound {
        let often = if FILES[usize::from(*which)] == CLEAN { 2 } else { 12 };
        if random.below(often) == 0 {
            continue;
        }
        let mut file = file.clone();
        if random.below(3) == 0 {
            mutate(&mut file, random);
        }
        let repaired = if random.below(3) > 0 { files::REPAIRED } else { 0 };
        files::push(&mut data, which | repaired, &file);
    }
    data
}

#[test]
fn mutated_files_of_a_quorum_are_started_from_or_refused_and_never_panic() {
    notice_panics();
    let examples = [sound(false), sound(true)];
    let is_snapshot = |(which, _): &(u8, Vec<u8>)| FILES[usize::from(*which)].contains("-{epoch}");
    assert!(!examples[0].iter().any(is_snapshot) && examples[1].iter().any(is_snapshot));
    let (mut started, mut refused, mut failed) = (0, 0, Vec::new());
    for example in &examples {
        let mut whole = Vec::new();
        example.iter().for_each(|(which, file)| files::push(&mut whole, *which, file));
        assert!(quorum::run(&whole), "what was not changed is not started from");
    }
    // It was sound but for its last offset, and the log ended where the next segment begins.
    quorum::run(include_bytes!("fuzz/a_batch_beyond_the_next_segment"));
    assert!(!HAS_PANICKED.load(Ordering::Relaxed), "what once broke it breaks it again");
    for seed in seeds(ROUNDS) {
        let mut random = SplitMix64::new(seed);
        let data = data(&examples[random.below(2)], &mut random);
        let outcome = std::panic::catch_unwind(|| quorum::run(&data));
        if outcome.is_err() | HAS_PANICKED.swap(false, Ordering::Relaxed) {
            // The sound files are not the same each time.
            let kept = std::env::temp_dir().join(format!("ottla-fuzz-quorum-{seed}"));
            let written = std::fs::write(&kept, &data);
            failed.push(format!("seed {seed}, kept in {}: {written:?}", kept.display()));
        }
        match outcome {
            Ok(true) => started += 1,
            _ => refused += 1,
        }
        if failed.len() == 10 {
            break;
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    // Mutations that all break at once, or never, would show nothing.
    assert!(
        started > refused / 20 && refused > started / 20,
        "{started} started, {refused} refused"
    );
}
