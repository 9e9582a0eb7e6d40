//! What a client-metrics subscription holds (pure).

use crate::check::Check;
use crate::property::{Property, int, list};

pub(super) const ROWS: &[Property] = &[
    int("interval.ms")
        .or("300000")
        .per_resource()
        .accepted("How often clients push these metrics."),
    list("match")
        .or("")
        .check(Check::List { may_be_empty: true })
        .per_resource()
        .accepted("Which clients push, as name=pattern pairs."),
    list("metrics")
        .or("")
        .check(Check::List { may_be_empty: true })
        .per_resource()
        .accepted("Prefixes of the metrics to push."),
];
