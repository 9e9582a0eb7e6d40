//! What `cargo xtask protocol` makes from the tables in `schema/`; only this file is written by hand.

#![allow(
    clippy::collapsible_else_if,
    clippy::bool_comparison,
    clippy::match_single_binding,
    clippy::nonminimal_bool,
    reason = "the generator splits by version and does not simplify across fields"
)]

pub(crate) mod api;
pub(crate) mod header;
pub mod messages;
pub(crate) mod record_kinds;
pub(crate) mod records;

/// What every generated module begins with.
mod prelude {
    pub(super) use std::ops::RangeInclusive;

    pub(super) use bytes::Bytes;
    pub(super) use bytestring::ByteString;
    pub(super) use ottla_base::{ErrorCode, Uuid};

    pub(super) use crate::api::ApiKey;
    pub(super) use crate::wire::{
        Decoder, EncodeError, Encoder, Malformed, Message, Records, Request, Structure, required,
        unset,
    };
}
