//! CRC-32C (Castagnoli), the checksum over a batch from its attributes to its end. Pure.

/// The CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// The CRC-32C of two pieces that lie apart in memory, such as a rewritten header and a shared body.
pub(crate) fn crc32c_of_parts(first: &[u8], second: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc32c(first), second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_castagnoli_polynomial() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn parts_have_the_crc_of_the_whole() {
        let whole: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for cut in [0, 1, 40, 2500, 5000] {
            let (first, second) = whole.split_at(cut);
            assert_eq!(crc32c_of_parts(first, second), crc32c(&whole));
        }
    }
}
