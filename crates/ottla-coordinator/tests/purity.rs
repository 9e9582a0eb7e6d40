//! What makes this room pure: no clock, file, socket, thread or random source in its sources or its tree.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../ottla-base/tests/purity/mod.rs"]
mod purity;

const ROOM: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_sources_name_nothing_that_has_effects() {
    purity::check_sources(ROOM, 10);
}

#[test]
fn the_tree_holds_no_runtime_and_no_entropy() {
    purity::check_tree(ROOM, env!("CARGO_PKG_NAME"));
}
