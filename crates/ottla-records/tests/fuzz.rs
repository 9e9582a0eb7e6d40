//! The fuzzer `record_batch` on a stable compiler: seeded mutations of sound batches.

#![expect(clippy::indexing_slicing, reason = "a panic is what the test looks for")]

use ottla_base::Timestamp;
use ottla_records::{BatchBuilder, Compression};

#[path = "../../../fuzz/src/record_batch.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports it")]
mod record_batch;

#[path = "../../../fuzz/src/random.rs"]
mod random;

use ottla_base::SplitMix64;
use random::{byte, seeds};

const ROUNDS: u64 = 4000;

fn batch(random: &mut SplitMix64) -> Vec<u8> {
    let compression = Compression::ALL[random.below(5)];
    let mut builder = BatchBuilder::new(compression);
    for index in 0..=random.below(20) {
        let value = vec![byte(random); random.below(300)];
        let key = [byte(random), byte(random)];
        let timestamp = Timestamp(1_700_000_000_000 + i64::from(byte(random)));
        builder.append(timestamp, Some(&key), Some(&value), &[("header", None), ("", Some(&key))]);
        if index % 7 == 6 {
            builder.append(timestamp, None, None, &[]);
        }
    }
    builder.build_bytes().to_vec()
}

fn mutate(batch: &mut Vec<u8>, random: &mut SplitMix64) {
    for _ in 0..random.below(4) {
        let at = random.below(batch.len());
        match random.below(6) {
            0 => batch.insert(at, byte(random)),
            1 => drop(batch.remove(at)),
            2 => batch.truncate(at.max(1)),
            _ => batch[at] = byte(random),
        }
    }
}

#[test]
fn mutated_batches_are_refused_or_readable_and_never_panic() {
    for seed in seeds(ROUNDS) {
        let mut random = SplitMix64::new(seed);
        let mut batch = batch(&mut random);
        mutate(&mut batch, &mut random);
        let mut data = vec![byte(&mut random), byte(&mut random)];
        data.append(&mut batch);
        let outcome = std::panic::catch_unwind(|| record_batch::run(&data));
        assert!(outcome.is_ok(), "seed {seed} panics");
    }
}
