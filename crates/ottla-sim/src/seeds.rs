//! Many worlds, on all processors.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::Counts;
use crate::law::{Law, Run, Violation};

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Holds all seeds of a run to the laws, or plays the one of `OTTLA_SIM_SEED` and tells all of it. `OTTLA_SIM_SEEDS` says how
/// many there are, instead of `ordinary`, and `OTTLA_SIM_FIRST` which is the first, instead of 0; in `seeds_for_all` of them
/// everything in `all` must have occurred.
///
/// # Panics
/// With the violation of a law, or what never occurred.
#[expect(clippy::print_stdout, reason = "what a test run tells")]
pub fn hold_to_laws(
    run: impl Fn(u64, bool) -> Run + Sync,
    ordinary: u64,
    all: &[&str],
    seeds_for_all: u64,
) {
    if let Some(seed) = number("OTTLA_SIM_SEED") {
        let played = run(seed, true);
        played.trace.iter().for_each(|line| println!("{line}"));
        println!("{}", played.counts);
        played.result.unwrap();
        return;
    }
    let seeds = number("OTTLA_SIM_SEEDS").unwrap_or(ordinary);
    let first = number("OTTLA_SIM_FIRST").unwrap_or(0);
    let (counts, failed) = play(first..first + seeds, |seed| run(seed, false));
    println!("{seeds} seeds from {first} on\n{counts}");
    if let Some((seed, violation)) = failed {
        panic!("OTTLA_SIM_SEED={seed}: {violation}");
    }
    let missing = counts.missing(all);
    assert!(seeds < seeds_for_all || missing.is_empty(), "in {seeds} seeds never: {missing:?}");
}

/// Plays each of these seeds twice, to find the same both times.
///
/// # Panics
/// With the first thing that was another one.
pub fn hold_to_repetition(run: impl Fn(u64, bool) -> Run, seeds: Range<u64>) {
    for seed in seeds {
        let (first, second) = (run(seed, true), run(seed, true));
        assert!(first.trace.len() > 100, "{}", first.trace.len());
        let pairs = first.trace.iter().zip(&second.trace);
        pairs.for_each(|(first, second)| assert_eq!(first, second));
        assert_eq!(first.trace.len(), second.trace.len());
        assert_eq!(first.counts, second.counts);
    }
}

/// Plays so many seeds with a planted bug, until one of them breaks a law: one of those that are stated for the bug.
///
/// # Panics
/// If none does, or another law is broken first, or there is a panic: that shows nothing of the bug.
#[expect(clippy::print_stdout, reason = "what a test run tells")]
pub fn find_planted<B: Debug + Copy>(
    run: impl Fn(u64, Option<B>, bool) -> Run,
    bug: B,
    seeds: u64,
    by: &[Law],
) {
    let breaks = |seed: u64| Some((seed, run(seed, Some(bug), false).result.err()?));
    let Some((seed, found)) = (0..seeds).find_map(breaks) else {
        panic!("{bug:?} is not found in {seeds} seeds")
    };
    println!("{bug:?} is found by seed {seed}: {found}");
    assert!(
        by.contains(&found.law),
        "{bug:?} is to be found by {by:?}, not, in seed {seed}, by {found}"
    );
}

/// Plays seeds until one fails; that of the lowest number is told.
fn play(seeds: Range<u64>, run: impl Fn(u64) -> Run + Sync) -> (Counts, Option<(u64, Violation)>) {
    let next = AtomicU64::new(seeds.start);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut counts = Counts::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return (counts, None);
            }
            let played = run(seed);
            counts.merge(&played.counts);
            if let Err(violation) = played.result {
                next.store(seeds.end, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_for(found: Option<Law>) -> thread::Result<()> {
        let run = |seed: u64, _: Option<()>, _: bool| {
            let broken = found.filter(|_| seed == 3);
            let result = broken.map_or(Ok(()), |law| Err(Violation::of(law, "as told")));
            Run { counts: Counts::default(), trace: Vec::new(), result }
        };
        std::panic::catch_unwind(|| find_planted(run, (), 5, &[Law::Flushed, Law::Order]))
    }

    #[test]
    fn a_planted_bug_is_found_by_the_laws_that_are_stated_for_it_and_by_nothing_else() {
        assert!(looked_for(Some(Law::Flushed)).is_ok());
        assert!(looked_for(Some(Law::Order)).is_ok());
        for other in [None, Some(Law::NoPanic), Some(Law::AtRest), Some(Law::Indexes)] {
            assert!(looked_for(other).is_err(), "{other:?}");
        }
    }
}
