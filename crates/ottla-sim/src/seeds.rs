//! Many worlds, on all processors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::Counts;
use crate::log::{Run, Violation};

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Holds all seeds of a run to the laws, or plays the one of `OTTLA_SIM_SEED` and tells all of it. `OTTLA_SIM_SEEDS` says how
/// many there are, instead of `ordinary`; in `seeds_for_all` of them everything in `all` must have occurred.
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
    let (counts, failed) = play(seeds, |seed| run(seed, false));
    println!("{seeds} seeds\n{counts}");
    if let Some((seed, violation)) = failed {
        panic!("OTTLA_SIM_SEED={seed}: {violation}");
    }
    let missing = counts.missing(all);
    assert!(seeds < seeds_for_all || missing.is_empty(), "in {seeds} seeds never: {missing:?}");
}

/// Plays seeds until one fails; that of the lowest number is told.
fn play(seeds: u64, run: impl Fn(u64) -> Run + Sync) -> (Counts, Option<(u64, Violation)>) {
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
