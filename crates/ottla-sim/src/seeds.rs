//! Many worlds, on all processors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::Counts;
use crate::log::{Run, Violation};

/// A number from the environment.
#[must_use]
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Plays seeds until one fails; that of the lowest number is told.
///
/// # Panics
/// Where a thread cannot be started.
pub fn play(seeds: u64, run: impl Fn(u64) -> Run + Sync) -> (Counts, Option<(u64, Violation)>) {
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut counts = Counts::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return (counts, None);
            }
            let played = run(seed);
            counts.merge(&played.counts);
            if let Err(violation) = played.result {
                next.store(seeds, Ordering::Relaxed);
                return (counts, Some((seed, violation)));
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut total = Counts::default();
        let mut failed: Vec<(u64, Violation)> = Vec::new();
        for worker in workers {
            let (counts, violation) = worker.join().unwrap();
            total.merge(&counts);
            failed.extend(violation);
        }
        (total, failed.into_iter().min_by_key(|(seed, _)| *seed))
    })
}
