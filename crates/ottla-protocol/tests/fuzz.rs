//! The fuzzer `frame` on a stable compiler: seeded mutations of sound requests of every API.

#![expect(clippy::indexing_slicing, reason = "a panic is what the test looks for")]
#![expect(clippy::duplicate_mod, reason = "the fuzzer makes its own use of the table of messages")]

mod support;

#[path = "../../../fuzz/src/frame.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports it")]
mod frame;

#[path = "../../../fuzz/src/random.rs"]
mod random;

use ottla_base::SplitMix64;
use ottla_protocol::ApiKey;
use random::{byte, seeds};
use support::random::Writer;
use support::schema::Schema;

/// For each version of each API.
const ROUNDS: u64 = 300;

fn sound_frame(api: ApiKey, version: i16, schema: &Schema, seed: u64) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(api.key().to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(7_i32.to_be_bytes());
    frame.extend([0, 2, b'm', b'e']);
    if api.is_flexible(version) {
        frame.push(0);
    }
    frame.extend(Writer::random(schema, version, seed).message());
    frame
}

fn mutate(frame: &mut Vec<u8>, random: &mut SplitMix64) {
    for _ in 0..=random.below(3) {
        let at = random.below(frame.len());
        match random.below(8) {
            0 => frame.insert(at, byte(random)),
            1 if frame.len() > 1 => drop(frame.remove(at)),
            2 => frame.truncate(at.max(1)),
            3 => frame.extend_from_within(at..),
            _ => frame[at] = byte(random),
        }
    }
}

fn requests() -> Vec<(ApiKey, Schema)> {
    let mut schemas = support::schemas();
    let of = |api: &ApiKey| {
        let at = schemas.iter().position(|schema| schema.name == format!("{api}Request"));
        let at = at.expect("every API has a table");
        (*api, schemas.swap_remove(at))
    };
    ApiKey::ALL.iter().map(of).collect()
}

#[test]
fn sound_requests_of_every_api_and_version_are_read() {
    for (api, schema) in requests() {
        for version in api.versions() {
            for seed in 0..4 {
                let sound = sound_frame(api, version, &schema, seed);
                assert!(frame::run(&sound), "{api} {version}, seed {seed}: {sound:?}");
            }
        }
    }
}

#[test]
fn mutated_requests_are_refused_or_readable_and_never_panic() {
    let (mut read, mut refused) = (0, 0);
    let requests = requests();
    for seed in seeds(ROUNDS) {
        for (api, schema) in &requests {
            for version in api.versions() {
                let mut random = SplitMix64::new(seed);
                let mut bytes = sound_frame(*api, version, schema, seed);
                mutate(&mut bytes, &mut random);
                let outcome = std::panic::catch_unwind(|| frame::run(&bytes));
                match outcome.unwrap_or_else(|_| panic!("{api} {version}, seed {seed} panics")) {
                    true => read += 1,
                    false => refused += 1,
                }
            }
        }
    }
    // Mutations that all break at once, or never, would show nothing.
    assert!(read > refused / 20 && refused > read / 20, "{read} read, {refused} refused");
}
