//! Kafka's 128-bit identifiers of topics, directories and clusters, written as URL-safe base64.

use std::fmt;
use std::str::FromStr;

/// A 128-bit identifier; all zero means "none" on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

/// The identity of a topic, which survives neither deletion nor re-creation under the same name (KIP-516).
pub type TopicId = Uuid;

/// Twenty-two characters of URL-safe base64 without padding were expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier of 22 URL-safe base64 characters")]
pub struct ParseUuidError;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TEXT_LEN: usize = 22;

impl Uuid {
    /// No identifier.
    pub const ZERO: Self = Self([0; 16]);
    /// The directory id of a replica whose directory was decided on before directories had ids (KIP-858).
    pub const MIGRATING_DIR: Self = Self::from_u128(0);
    /// The directory id of a replica whose directory is not decided yet (KIP-858).
    pub const UNASSIGNED_DIR: Self = Self::from_u128(1);
    /// The directory id of a replica in a directory that went offline (KIP-858).
    pub const LOST_DIR: Self = Self::from_u128(2);

    #[must_use]
    pub const fn from_u128(value: u128) -> Self {
        Self(value.to_be_bytes())
    }

    /// Sixteen random bytes as an RFC 4122 version 4 identifier whose text does not begin with a dash, and which is
    /// none of the reserved ones: Kafka's tools take a leading dash for an option.
    /// Returns `None` when the bytes given would make such an identifier; draw again.
    #[must_use]
    pub fn from_random_bytes(mut bytes: [u8; 16]) -> Option<Self> {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let id = Self(bytes);
        (!id.to_string().starts_with('-')).then_some(id)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = String::with_capacity(TEXT_LEN);
        for character in 0..TEXT_LEN {
            // The last character carries the two bits that are left, padded with zeros on the right.
            let shift = 122 - 6 * i32::try_from(character).expect("22 fits");
            let sextet = if shift >= 0 { bits >> shift } else { bits << -shift } & 0x3f;
            let sextet = usize::try_from(sextet).expect("six bits fit");
            text.push(char::from(
                ALPHABET.get(sextet).copied().expect("six bits index 64 letters"),
            ));
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        if text.len() != TEXT_LEN {
            return Err(ParseUuidError);
        }
        let mut bits: u128 = 0;
        for (position, letter) in text.bytes().enumerate() {
            let sextet = ALPHABET.iter().position(|&a| a == letter).ok_or(ParseUuidError)? as u128;
            if position + 1 < TEXT_LEN {
                bits = (bits << 6) | sextet;
            } else {
                // Like Kafka, which decodes with java.util.Base64, we ignore the four bits of padding.
                bits = (bits << 2) | (sextet >> 4);
            }
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_two_forms_of_the_same_identifier() {
        let id = Uuid([0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xfe]);
        assert_eq!(id.to_string().len(), TEXT_LEN);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn the_reserved_identifiers_read_as_kafka_prints_them() {
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid::from_u128(1).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!("".parse::<Uuid>(), Err(ParseUuidError));
        assert_eq!("AAAAAAAAAAAAAAAAAAAAA*".parse::<Uuid>(), Err(ParseUuidError));
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAAA".parse::<Uuid>(), Err(ParseUuidError));
    }

    #[test]
    fn a_random_identifier_never_begins_with_a_dash() {
        // 0b111110 is the dash.
        assert_eq!(Uuid::from_random_bytes([0xf8; 16]), None);
        assert!(Uuid::from_random_bytes([0x11; 16]).is_some());
    }
}
