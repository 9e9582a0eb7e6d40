//! Random valid bytes, made from the field tables alone, are read and written again unchanged.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::type_complexity,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod support;

use support::random::Writer;

const SEEDS: u64 = 30;

#[test]
fn random_messages_are_read_and_written_again_byte_for_byte() {
    for schema in support::schemas() {
        let entry = support::find(&schema.name).unwrap();
        for version in entry.versions.clone() {
            for seed in 0..SEEDS {
                let bytes = Writer::random(&schema, version, seed).message();
                let rewritten = (entry.rewrite)(bytes.clone().into(), version);
                let rewritten = rewritten
                    .unwrap_or_else(|error| panic!("{} seed {seed}: {error:#}", schema.name));
                assert_eq!(rewritten, bytes, "{} {version} seed {seed}", schema.name);
            }
        }
    }
}
