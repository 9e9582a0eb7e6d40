//! A short run of the fuzzer `record_batch` on a stable compiler: seeded mutations of sound batches.

#![expect(clippy::indexing_slicing, reason = "a panic is what the test looks for")]

use ottla_base::Timestamp;
use ottla_records::{BatchBuilder, Compression};

#[path = "../../../fuzz/src/record_batch.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports it")]
mod record_batch;

const ROUNDS: u64 = 4000;

/// SplitMix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).expect("a length"))
            .expect("below a length")
    }

    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 8] = [0, 1, 2, 0x7e, 0x7f, 0x80, 0xfe, 0xff];
        match self.below(3) {
            0 => TELLING[self.below(TELLING.len())],
            _ => self.next().to_le_bytes()[0],
        }
    }
}

fn batch(random: &mut Random) -> Vec<u8> {
    let compression = Compression::ALL[random.below(5)];
    let mut builder = BatchBuilder::new(compression);
    for index in 0..=random.below(20) {
        let value = vec![random.byte(); random.below(300)];
        let key = [random.byte(), random.byte()];
        let timestamp = Timestamp(1_700_000_000_000 + i64::from(random.byte()));
        builder.append(timestamp, Some(&key), Some(&value), &[("header", None), ("", Some(&key))]);
        if index % 7 == 6 {
            builder.append(timestamp, None, None, &[]);
        }
    }
    builder.build_bytes().to_vec()
}

fn mutate(batch: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        let at = random.below(batch.len());
        match random.below(6) {
            0 => batch.insert(at, random.byte()),
            1 => drop(batch.remove(at)),
            2 => batch.truncate(at.max(1)),
            _ => batch[at] = random.byte(),
        }
    }
}

#[test]
fn mutated_batches_are_refused_or_readable_and_never_panic() {
    for seed in 0..ROUNDS {
        let mut random = Random(seed);
        let mut batch = batch(&mut random);
        mutate(&mut batch, &mut random);
        let mut data = vec![random.byte(), random.byte()];
        data.append(&mut batch);
        let outcome = std::panic::catch_unwind(|| record_batch::run(&data));
        assert!(outcome.is_ok(), "seed {seed} panics");
    }
}
