//! Variable-length integers, zigzag, as they stand in records (protobuf's sint32 and sint64). Pure.

/// The longest encoding of 32 bits, and of 64.
const MAX_VARINT_LEN: usize = 5;
const MAX_VARLONG_LEN: usize = 10;
