//! The links between the nodes of a world: which are cut, each in one direction, and how bad the weather is on all. Pure.

use crate::Random;

/// How bad it is at the moment, in ten thousand messages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) lost: u32,
    pub(crate) doubled: u32,
    pub(crate) late: u32,
}

impl Weather {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let mut rate = |often: u32, most: usize| {
            if random.happens(often) { random.below(most) as u32 } else { 0 }
        };
        Self { lost: rate(4_000, 1_500), doubled: rate(5_000, 2_000), late: rate(5_000, 1_000) }
    }
}

/// From whom to whom nothing gets.
#[derive(Debug)]
pub(crate) struct Links(Vec<Vec<bool>>);

impl Links {
    /// All whole, between nodes whose numbers are below a bound.
    pub(crate) fn new(nodes: usize) -> Self {
        Self(vec![vec![false; nodes]; nodes])
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.0[from][to]
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.0[from][to] = true;
    }

    pub(crate) fn heal(&mut self) {
        self.0.iter_mut().for_each(|row| row.fill(false));
    }

    pub(crate) fn are_whole(&self) -> bool {
        self.0.iter().flatten().all(|cut| !cut)
    }
}
