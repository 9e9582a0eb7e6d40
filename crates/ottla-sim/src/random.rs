//! Random numbers from a seed: the same ones on every machine. Pure.

use std::io;

use ottla_base::SplitMix64;
use parking_lot::Mutex;

/// Each use gets a stream of its own, so that one more draw here changes nothing there.
#[derive(Debug, Clone)]
pub struct Random(SplitMix64);

impl Random {
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(SplitMix64::new(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93)));
        random.draw();
        random
    }

    pub fn draw(&mut self) -> u64 {
        self.0.draw()
    }

    /// A number below a bound; 0 below 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound)
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = usize::try_from(high.saturating_sub(low)).unwrap_or(0);
        low + i64::try_from(self.below(span + 1)).expect("not above the highest")
    }

    /// True so many times in ten thousand.
    pub fn happens(&mut self, times_in_10_000: u32) -> bool {
        self.draw() % 10_000 < u64::from(times_in_10_000)
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// The same for those who ask through [`ottla_env::Random`].
#[derive(Debug)]
pub struct SharedRandom(Mutex<Random>);

impl SharedRandom {
    #[must_use]
    pub fn new(random: Random) -> Self {
        Self(Mutex::new(random))
    }
}

impl ottla_env::Random for SharedRandom {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut random = self.0.lock();
        bytes.chunks_mut(8).for_each(|part| {
            let drawn = random.draw().to_le_bytes();
            part.iter_mut().zip(drawn).for_each(|(to, from)| *to = from);
        });
        Ok(())
    }
}
