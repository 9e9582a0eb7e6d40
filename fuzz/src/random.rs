//! Random numbers for the short runs of the fuzzers on a stable compiler; under libFuzzer nobody needs any.
//!
//! A seed's numbers stay the same, so that a seed that a test has named stands for the same bytes ever after.

use ottla_base::SplitMix64;

pub(crate) fn byte(random: &mut SplitMix64) -> u8 {
    const TELLING: [u8; 8] = [0, 1, 2, 0x7e, 0x7f, 0x80, 0xfe, 0xff];
    match random.below(3) {
        0 => TELLING[random.below(TELLING.len())],
        _ => random.draw().to_le_bytes()[0],
    }
}
