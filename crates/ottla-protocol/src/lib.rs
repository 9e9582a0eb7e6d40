//! Kafka's wire protocol: frames, headers, the table of APIs, and codecs of all messages and records. Pure.
//!
//! - [`api`]: which APIs there are, in which versions, on which listeners.
//! - [`frame`]: a request or response with its header and length, as it stands on a connection.
//! - [`messages`]: every request and response. A structure inside a message lives in the module of
//!   the message, `messages::fetch_response::PartitionData`.
//! - [`records`]: what Kafka stores in its own topics: cluster metadata, groups, transactions.
//! - [`peer`]: what nodes tell each other that Kafka has no message for.
//! - [`wire`]: how numbers, texts and lists are laid out, and what goes wrong while reading them.
//!
//! Texts and bytes of a decoded message are slices that share the frame: decoding allocates for lists only,
//! and never more than the frame can fill.

pub mod api;
pub mod frame;
mod generated;
pub mod header;
pub mod peer;
pub mod records;
pub mod wire;

pub use api::{ApiKey, Listener};
pub use generated::messages;
pub use wire::{
    DecodeError, Decoder, EncodeError, Encoder, Gap, Malformed, Message, Records, Request,
};
