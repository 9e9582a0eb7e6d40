//! Which partition a record goes to: the one that Kafka's Java producer would choose for its key. Pure.
//!
//! Equal keys must meet in one partition whoever wrote them, so the hash is a fact of the
//! ecosystem: MurmurHash2, 32 bits, with the seed that Kafka took.

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// The partition of a record with this key, `0..partitions`.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: u32) -> i32 {
    // Kafka drops the sign bit rather than taking the absolute value, which i32::MIN has none of.
    let hash = murmur2(key) & 0x7fff_ffff;
    let partition = hash % partitions.max(1);
    i32::try_from(partition).expect("a hash of 31 bits, reduced, fits 31 bits")
}

/// MurmurHash2 with Kafka's seed.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    // Kafka's arrays have lengths of 31 bits; longer data cannot be a key.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let (words, tail) = data.as_chunks::<4>();
    let mut hash = words.iter().fold(SEED ^ length, |hash, word| {
        hash.wrapping_mul(MULTIPLIER) ^ mixed(u32::from_le_bytes(*word))
    });
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |word: u32, byte| (word << 8) | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

fn mixed(word: u32) -> u32 {
    let word = word.wrapping_mul(MULTIPLIER);
    (word ^ (word >> SHIFT)).wrapping_mul(MULTIPLIER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kafkas_java_client() {
        let expected: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in expected {
            assert_eq!(murmur2(key).cast_signed(), hash, "{key:?}");
        }
    }

    #[test]
    fn a_negative_hash_still_gives_a_partition_that_exists() {
        for partitions in 1..50 {
            let partition = partition_for_key(b"foobar", partitions);
            assert!((0..50).contains(&partition));
        }
        assert_eq!(partition_for_key(b"21", 6), ((-973_932_308 & 0x7fff_ffff) % 6));
    }
}
