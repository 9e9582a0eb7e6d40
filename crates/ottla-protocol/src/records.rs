//! What Kafka stores as records in topics of its own, and how each kind is told apart.
//!
//! - [`MetadataRecord`]: cluster metadata, in `__cluster_metadata`. A record's value is the number 1, the key of the
//!   kind and its version, each a varint, then the message.
//! - [`GroupRecord`], [`TransactionRecord`], [`ShareRecord`]: the coordinators' state, in `__consumer_offsets`,
//!   `__transaction_state` and `__share_group_state`. A record's key is the kind (int16), then the key message in
//!   version 0; its value is a version (int16), then the value message; a null value deletes the key.
//! - Control records (`LeaderChangeMessage`, `VotersRecord`, `EndTxnMarker` and so on) are plain messages here.

use bytes::Bytes;

pub use crate::generated::record_kinds::{
    GroupRecord, MetadataRecord, ShareRecord, TransactionRecord,
};
pub use crate::generated::records::*;
use crate::wire::{DecodeError, Decoder, EncodeError, Encoder, Malformed, Message};

/// The only layout of metadata records that there has been since Kafka 3.0.
const FRAME_VERSION: u32 = 1;

/// A message behind its version (int16), as Kafka stores values in topics and hands subscriptions to brokers.
///
/// # Errors
/// [`EncodeError`] for a version that the message has not, or what that version cannot say.
pub fn encode_versioned<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut output = Encoder::new();
    output.i16(version);
    message.encode(&mut output, version)?;
    Ok(output.into_bytes())
}

/// A message behind its version. What follows the message is ignored, as in Kafka.
///
/// # Errors
/// [`DecodeError`] for a version that the message has not, or bytes that are cut off or malformed.
pub fn decode_versioned<M: Message>(bytes: Bytes) -> Result<(i16, M), DecodeError> {
    let mut input = Decoder::new(bytes);
    let version = input.i16().map_err(|what| error(M::NAME, -1, &input, what))?;
    Ok((version, M::decode(&mut input, version)?))
}

pub(crate) fn error(
    message: &'static str,
    version: i16,
    input: &Decoder,
    what: Malformed,
) -> DecodeError {
    DecodeError { message, version, position: input.position(), what }
}

/// Begins the value of a metadata record.
pub(crate) fn begin_metadata(output: &mut Encoder, key: i16, version: i16) {
    let number = |value: i16| u32::try_from(value).expect("keys and versions are not negative");
    output.unsigned_varint(FRAME_VERSION);
    output.unsigned_varint(number(key));
    output.unsigned_varint(number(version));
}

/// The key and version at the beginning of a metadata record.
pub(crate) fn metadata_head(input: &mut Decoder) -> Result<(i16, i16), DecodeError> {
    let mut head = || {
        if input.unsigned_varint()? != FRAME_VERSION {
            return Err(Malformed::UnsupportedVersion);
        }
        let mut number = || {
            let value = input.unsigned_varint()?;
            i16::try_from(value).map_err(|_| Malformed::UnknownKey(i32::MAX))
        };
        Ok((number()?, number()?))
    };
    head().map_err(|what| error("MetadataRecord", 1, input, what))
}

macro_rules! define_metadata_records {
    ($($variant:ident($message:ident) = $key:literal;)*) => {
        /// A record of the cluster's metadata.
        #[derive(Debug, Clone, PartialEq)]
        pub enum MetadataRecord {
            $($variant($message),)*
        }

        impl MetadataRecord {
            /// The number that names this kind of record.
            #[must_use]
            pub const fn key(&self) -> i16 {
                match self {
                    $(Self::$variant(_) => $key,)*
                }
            }

            /// Kafka's name for this kind of record.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($message),)*
                }
            }

            /// The versions that this kind of record has.
            #[must_use]
            pub const fn versions(&self) -> std::ops::RangeInclusive<i16> {
                match self {
                    $(Self::$variant(_) => <$message as crate::wire::Message>::VERSIONS,)*
                }
            }

            /// The value of the record in the log. The metadata version of the cluster decides on `version`.
            ///
            /// # Errors
            /// [`EncodeError`](crate::wire::EncodeError) for a version that this kind has not, or what that version
            /// cannot say.
            pub fn encode(&self, version: i16) -> Result<bytes::Bytes, crate::wire::EncodeError> {
                let mut output = crate::wire::Encoder::new();
                let out = &mut output;
                match self {
                    $(Self::$variant(message) => {
                        if !self.versions().contains(&version) {
                            return Err(crate::wire::EncodeError::UnsupportedVersion {
                                message: self.name(),
                                version,
                            });
                        }
                        crate::records::begin_metadata(out, $key, version);
                        crate::wire::Message::encode(message, out, version)?;
                    })*
                }
                Ok(output.into_bytes())
            }

            /// Reads the value of a record, which must end with the message; returns its version, too.
            ///
            /// # Errors
            /// [`DecodeError`](crate::wire::DecodeError) for a frame version other than 1, an unknown key or version,
            /// and bytes that are cut off, malformed or left over.
            pub fn decode(value: bytes::Bytes) -> Result<(i16, Self), crate::wire::DecodeError> {
                let mut input = crate::wire::Decoder::new(value);
                let (key, version) = crate::records::metadata_head(&mut input)?;
                let wrong = |input: &_, what| crate::records::error("MetadataRecord", version, input, what);
                let record = match key {
                    $($key => Self::$variant(crate::wire::Message::decode(&mut input, version)?),)*
                    _ => return Err(wrong(&input, crate::wire::Malformed::UnknownKey(key.into()))),
                };
                input.finish().map_err(|what| wrong(&input, what))?;
                Ok((version, record))
            }
        }

        $(impl From<$message> for MetadataRecord {
            fn from(message: $message) -> Self {
                Self::$variant(message)
            }
        })*
    };
}
pub(crate) use define_metadata_records;

macro_rules! define_coordinator_records {
    ($name:ident: $($variant:ident($key_message:ident, $value_message:ident) = $kind:literal;)*) => {
        /// A record of a coordinator: a key, and the value that is now behind it, or `None` if the key is gone.
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($variant($key_message, Option<$value_message>),)*
        }

        impl $name {
            /// The number that names this kind of record.
            #[must_use]
            pub const fn kind(&self) -> i16 {
                match self {
                    $(Self::$variant(..) => $kind,)*
                }
            }

            /// The versions that values of this kind of record have.
            #[must_use]
            pub const fn versions(&self) -> std::ops::RangeInclusive<i16> {
                match self {
                    $(Self::$variant(..) => <$value_message as crate::wire::Message>::VERSIONS,)*
                }
            }

            /// The record's key and value in the log, the value in the version given.
            ///
            /// # Errors
            /// [`EncodeError`](crate::wire::EncodeError) for a version that this kind's value has not, or what it
            /// cannot say.
            pub fn encode(
                &self,
                version: i16,
            ) -> Result<(bytes::Bytes, Option<bytes::Bytes>), crate::wire::EncodeError> {
                let mut key = crate::wire::Encoder::new();
                key.i16(self.kind());
                let value = match self {
                    $(Self::$variant(key_message, value) => {
                        crate::wire::Message::encode(key_message, &mut key, 0)?;
                        let value = value.as_ref();
                        value.map(|value| crate::records::encode_versioned(value, version))
                    })*
                };
                Ok((key.into_bytes(), value.transpose()?))
            }

            /// Reads a record.
            ///
            /// # Errors
            /// [`DecodeError`](crate::wire::DecodeError) for an unknown kind or version, and bytes that are cut off or
            /// malformed.
            pub fn decode(
                key: bytes::Bytes,
                value: Option<bytes::Bytes>,
            ) -> Result<Self, crate::wire::DecodeError> {
                let mut input = crate::wire::Decoder::new(key);
                let wrong = |input: &_, what| crate::records::error(stringify!($name), 0, input, what);
                let kind = input.i16().map_err(|what| wrong(&input, what))?;
                match kind {
                    $($kind => {
                        let key = crate::wire::Message::decode(&mut input, 0)?;
                        let value = value.map(crate::records::decode_versioned).transpose()?;
                        Ok(Self::$variant(key, value.map(|(_, value)| value)))
                    })*
                    _ => Err(wrong(&input, crate::wire::Malformed::UnknownKey(kind.into()))),
                }
            }
        }
    };
}
pub(crate) use define_coordinator_records;
