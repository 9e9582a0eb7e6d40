//! Any bytes as a request frame, and as the answer to it: refused or read, and what is read can be written again.

use bytes::Bytes;
use ottla_protocol::frame::Incoming;
use ottla_protocol::{Decoder, EncodeError, Encoder, Message};

#[path = "../../crates/ottla-protocol/tests/support/table.rs"]
mod table;

/// What the table of all messages needs to know of each.
#[derive(Debug)]
struct Entry {
    name: &'static str,
    check: fn(Bytes, i16) -> bool,
}

const fn entry<M: Message>() -> Entry {
    Entry { name: M::NAME, check: check::<M> }
}

/// Reads a frame without its length, as the broker does; returns whether it is a request.
pub fn run(data: &[u8]) -> bool {
    let Ok(incoming) = Incoming::decode(Bytes::copy_from_slice(data)) else {
        return false;
    };
    let version = incoming.header.request_api_version;
    let body = incoming.body.rest();
    let read_as = |kind: &str| {
        let is_it = |entry: &&Entry| entry.name.strip_prefix(incoming.api.name()) == Some(kind);
        let entry = table::ALL.iter().find(is_it).expect("every API has a request and a response");
        (entry.check)(body.clone(), version)
    };
    // Our client reads answers from brokers that it has no reason to trust.
    read_as("Response");
    read_as("Request")
}

/// Bytes may say the same in several ways; ours is read as what it was written from.
fn check<M: Message>(bytes: Bytes, version: i16) -> bool {
    let Ok(message) = M::decode(&mut Decoder::new(bytes), version) else {
        return false;
    };
    let mut output = Encoder::new();
    match message.encode(&mut output, version) {
        Ok(()) => {}
        // A text that is not UTF-8 grows when it is made so, perhaps beyond what a text may be.
        Err(EncodeError::TooLong(_)) => return true,
        Err(error) => panic!("{} {version} was read and can't be written: {error}", M::NAME),
    }
    let written = output.into_bytes();
    let again = M::decode(&mut Decoder::new(written.clone()), version)
        .unwrap_or_else(|error| panic!("{error}, in what we wrote"));
    let mut output = Encoder::new();
    again.encode(&mut output, version).expect("it could be written a moment ago");
    assert_eq!(output.into_bytes(), written, "{} {version}", M::NAME);
    true
}
