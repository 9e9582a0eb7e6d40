//! CRC-32C (Castagnoli), the checksum over a batch from its attributes to its end. Pure.

use crc_fast::{CrcAlgorithm, Digest, checksum};

/// The CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    truncate(checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}

/// The CRC-32C of two pieces that lie apart in memory, such as a rewritten header and a shared body.
pub(crate) fn crc32c_of_parts(first: &[u8], second: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(first);
    digest.update(second);
    truncate(digest.finalize())
}

fn truncate(crc: u64) -> u32 {
    u32::try_from(crc).expect("a 32-bit CRC fits in 32 bits")
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
