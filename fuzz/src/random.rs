//! Random numbers for the short runs of the fuzzers on a stable compiler; under libFuzzer nobody needs any.
//!
//! A seed's numbers stay the same, so that a seed that a test has named stands for the same bytes ever after.

/// SplitMix64: small, and the same on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).expect("a length"))
            .expect("below a length")
    }

    pub(crate) fn byte(&mut self) -> u8 {
        const TELLING: [u8; 8] = [0, 1, 2, 0x7e, 0x7f, 0x80, 0xfe, 0xff];
        match self.below(3) {
            0 => TELLING[self.below(TELLING.len())],
            _ => self.next().to_le_bytes()[0],
        }
    }
}
