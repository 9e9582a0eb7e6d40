//! How Kafka lays out numbers, texts and lists, and the traits of everything that is laid out so.
//!
//! *Flexible* versions of a message write lengths as varints, one higher so that 0 can mean null, and end every
//! structure with tagged fields that a reader may skip (KIP-482). The older ones write lengths in two or four bytes.

mod decoder;
mod encoder;
mod error;

use std::fmt::Debug;
use std::ops::RangeInclusive;

use bytes::Bytes;

pub use decoder::Decoder;
pub use encoder::{Encoder, Gap, TaggedFields};
pub use error::{DecodeError, EncodeError, Malformed};

use crate::api::ApiKey;

/// Anything with fields: a message, or a structure inside one. It trusts its caller to ask for a version that
/// exists; [`Message::decode`] and [`Message::encode`] check that.
pub trait Structure: Sized {
    /// The fewest bytes that it takes in any version.
    const MIN_SIZE: usize;

    /// Reads the fields, and leaves what follows them in the decoder.
    ///
    /// # Errors
    /// [`Malformed`], with the decoder somewhere within.
    fn read(input: &mut Decoder, version: i16) -> Result<Self, Malformed>;

    /// Writes the fields behind what is there.
    ///
    /// # Errors
    /// [`EncodeError`], with a part of them written.
    fn write(&self, output: &mut Encoder, version: i16) -> Result<(), EncodeError>;
}

/// A request, response, header or record.
pub trait Message: Structure + Default + Clone + PartialEq + Debug {
    const NAME: &'static str;
    /// Every version that the schema has, those that are not stable yet included.
    const VERSIONS: RangeInclusive<i16>;

    /// Reads the message, and leaves what follows it in the decoder.
    ///
    /// # Errors
    /// [`DecodeError`], with the decoder where it tells.
    fn decode(input: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
        let result = if Self::VERSIONS.contains(&version) {
            Self::read(input, version)
        } else {
            Err(Malformed::UnsupportedVersion)
        };
        result.map_err(|what| DecodeError {
            message: Self::NAME,
            version,
            position: input.position(),
            what,
        })
    }

    /// Writes the message. A field that this version lacks must have its default value, unless the schema calls
    /// it ignorable.
    ///
    /// # Errors
    /// [`EncodeError`], with a part of the message written unless there is no such version.
    fn encode(&self, output: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(EncodeError::UnsupportedVersion { message: Self::NAME, version });
        }
        self.write(output, version)
    }
}

/// A message that asks for a response.
pub trait Request: Message {
    const KEY: ApiKey;
    type Response: Message;
}

/// The record batches in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Records {
    Bytes(Bytes),
    /// `len` bytes that stay where they are, in source number `slot` of whoever encodes the message; the
    /// encoder writes the length and leaves a [`Gap`], so that a file can go out by `sendfile`.
    Deferred {
        slot: u32,
        len: u32,
    },
}

impl Records {
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Deferred { len, .. } => usize::try_from(*len).expect("32 bits fit a usize"),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are at hand; those of a decoded message always are.
    #[must_use]
    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Deferred { .. } => None,
        }
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// Refuses to drop the value of a field that this version lacks.
pub(crate) fn unset(
    is_default: bool,
    field: &'static str,
    version: i16,
) -> Result<(), EncodeError> {
    if is_default { Ok(()) } else { Err(EncodeError::FieldNotInVersion { field, version }) }
}

/// Refuses null in a version that cannot say null.
pub(crate) fn required<'a, T>(
    value: &'a Option<T>,
    field: &'static str,
    version: i16,
) -> Result<&'a T, EncodeError> {
    value.as_ref().ok_or(EncodeError::NullNotInVersion { field, version })
}
