//! What can be wrong with bytes from a peer, and with a message that we were asked to write.

/// The bytes are not the message that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{message} version {version}: {what}, at byte {position}")]
pub struct DecodeError {
    pub message: &'static str,
    pub version: i16,
    /// How far the decoder came, from the beginning of its bytes.
    pub position: usize,
    pub what: Malformed,
}

/// Why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{needed} bytes are needed and {left} are left")]
    Truncated { needed: usize, left: usize },
    #[error("a list of {count} elements does not fit the {left} bytes that are left")]
    TooManyElements { count: usize, left: usize },
    #[error("null where a value must be")]
    UnexpectedNull,
    #[error("a varint that is too long")]
    Varint,
    #[error("a text of {0} bytes, where 32767 is the most")]
    TextTooLong(usize),
    #[error("no such version")]
    UnsupportedVersion,
    #[error("{0} is not the key of anything known")]
    UnknownKey(i32),
    #[error("{0} bytes are left over")]
    LeftOver(usize),
}

/// The message cannot be said in the version asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("{message} has no version {version}")]
    UnsupportedVersion { message: &'static str, version: i16 },
    #[error("{field} is set, and version {version} has no such field")]
    FieldNotInVersion { field: &'static str, version: i16 },
    #[error("{field} is null, which version {version} cannot say")]
    NullNotInVersion { field: &'static str, version: i16 },
    #[error("a length of {0} is more than the format can say")]
    TooLong(usize),
}
