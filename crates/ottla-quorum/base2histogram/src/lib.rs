//! A stand-in for the crate `base2histogram` 0.2.3, with the names that openraft uses and nothing behind them.
//!
//! openraft makes histograms of its own run-time statistics even where the feature that shows them is off. The real
//! crate answers the first of them with tables for sixteen precisions: 26 MB that stay, and some 25 ms of the start.
//! Nothing reads those statistics here: Ottla does not turn on `runtime-stats`, and measures its quorum itself.

use std::fmt;
use std::marker::PhantomData;

/// Takes values, and forgets them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    slots: PhantomData<T>,
}

impl<T> Histogram<T> {
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: PhantomData }
    }

    pub const fn record(&mut self, _value: u64) {}

    pub const fn record_n(&mut self, _value: u64, _times: u64) {}

    /// Of no samples.
    #[must_use]
    pub const fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: 0,
            p0_1: 0,
            p1: 0,
            p5: 0,
            p10: 0,
            p50: 0,
            p90: 0,
            p99: 0,
            p99_9: 0,
        }
    }
}

/// How a histogram's values are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not recorded]")
    }
}

/// A drawing of histograms that have nothing to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AsciiChart;

impl AsciiChart {
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    #[must_use]
    pub fn add<T>(self, _name: &str, _histogram: Histogram<T>) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not recorded]")
    }
}
