//! Variable-length integers, zigzag, as they stand in records (protobuf's sint32 and sint64). Pure.
//!
//! Reading is bounded: 5 bytes for 32 bits, 10 for 64. As in Kafka, bits of the last byte that
//! would not fit are dropped, and a longer encoding than needed is accepted.

use bytes::BufMut;

use crate::error::BatchError;

const UNTERMINATED: BatchError = BatchError::Record("a variable-length integer does not end");

/// Reads a 32-bit integer, byte by byte from `next`.
#[inline(always)]
pub(crate) fn read_varint(
    mut next: impl FnMut() -> Result<u8, BatchError>,
) -> Result<i32, BatchError> {
    let first = next()?;
    // Lengths, deltas and counts below 64 take one byte, and most are.
    if first < 0x80 {
        return Ok(unzigzag(u32::from(first)));
    }
    let mut value = u32::from(first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let byte = next()?;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(unzigzag(value));
        }
    }
    Err(UNTERMINATED)
}

/// Reads a 64-bit integer, byte by byte from `next`.
#[inline(always)]
pub(crate) fn read_varlong(
    mut next: impl FnMut() -> Result<u8, BatchError>,
) -> Result<i64, BatchError> {
    let mut value = 0;
    for shift in (0..=63).step_by(7) {
        let byte = next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    Err(UNTERMINATED)
}

pub(crate) fn write_varint(value: i32, out: &mut impl BufMut) {
    write_unsigned(u64::from(((value << 1) ^ (value >> 31)).cast_unsigned()), out);
}

pub(crate) fn write_varlong(value: i64, out: &mut impl BufMut) {
    write_unsigned(zigzag_long(value), out);
}

/// Bytes that [`write_varint`] writes.
pub(crate) fn varint_len(value: i32) -> usize {
    varlong_len(i64::from(value))
}

/// Bytes that [`write_varlong`] writes.
pub(crate) fn varlong_len(value: i64) -> usize {
    let significant_bits = (u64::BITS - zigzag_long(value).leading_zeros()).max(1);
    usize::try_from(significant_bits.div_ceil(7)).expect("at most 10")
}

fn write_unsigned(mut value: u64, out: &mut impl BufMut) {
    while let Some(low) = low_bits_of_many(value) {
        out.put_u8(low | 0x80);
        value >>= 7;
    }
    out.put_u8(u8::try_from(value).expect("below 0x80"));
}

/// The lowest seven bits, unless they are all.
fn low_bits_of_many(value: u64) -> Option<u8> {
    (value >= 0x80).then(|| u8::try_from(value & 0x7f).expect("seven bits"))
}

#[inline(always)]
fn unzigzag(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn zigzag_long(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read<T>(
        bytes: &[u8],
        read: impl FnOnce(&mut dyn FnMut() -> Result<u8, BatchError>) -> Result<T, BatchError>,
    ) -> Result<T, BatchError> {
        let mut rest = bytes.iter();
        read(&mut || rest.next().copied().ok_or(BatchError::Record("end")))
    }

    fn varint(bytes: &[u8]) -> Result<i32, BatchError> {
        read(bytes, |next| read_varint(next))
    }

    fn varlong(bytes: &[u8]) -> Result<i64, BatchError> {
        read(bytes, |next| read_varlong(next))
    }

    #[test]
    fn small_numbers_alternate_between_signs() {
        for (byte, value) in [(0, 0), (1, -1), (2, 1), (3, -2), (0x7e, 63), (0x7f, -64)] {
            assert_eq!(varint(&[byte]), Ok(value));
            assert_eq!(varlong(&[byte]), Ok(i64::from(value)));
        }
    }

    #[test]
    fn an_integer_that_does_not_end_is_refused() {
        assert_eq!(varint(&[0xff; 5]), Err(UNTERMINATED));
        assert_eq!(varlong(&[0xff; 10]), Err(UNTERMINATED));
    }

    #[test]
    fn an_encoding_longer_than_needed_is_accepted_as_kafka_does() {
        assert_eq!(varint(&[0x82, 0x80, 0x80, 0x80, 0x00]), Ok(1));
        assert_eq!(varint(&[0x80, 0x80, 0x80, 0x80, 0x70]), Ok(0));
    }

    proptest! {
        #[test]
        fn every_int_survives_and_has_its_length(value: i32) {
            let mut bytes = Vec::new();
            write_varint(value, &mut bytes);
            prop_assert_eq!(varint(&bytes), Ok(value));
            prop_assert_eq!(varint_len(value), bytes.len());
        }

        #[test]
        fn every_long_survives_and_has_its_length(value: i64) {
            let mut bytes = Vec::new();
            write_varlong(value, &mut bytes);
            prop_assert_eq!(varlong(&bytes), Ok(value));
            prop_assert_eq!(varlong_len(value), bytes.len());
        }
    }

    #[test]
    fn the_extremes_survive() {
        for value in [i64::MIN, i64::MAX, 0, -1] {
            let mut bytes = Vec::new();
            write_varlong(value, &mut bytes);
            assert_eq!(varlong(&bytes), Ok(value));
        }
        let mut bytes = Vec::new();
        write_varint(i32::MIN, &mut bytes);
        assert_eq!(bytes, [0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(varint(&bytes), Ok(i32::MIN));
    }
}
