//! The newest offset of every key in the dirty part of a log, in memory that is bounded. Pure.
//!
//! 24 bytes for each key, as in Kafka: a hash of 128 bits, and an offset. The key itself is not kept: two keys with one
//! hash would be taken for the same, and records of one of them lost. Nobody can look for such keys: the hash has a
//! secret seed, drawn for each compaction (docs/decisions/011-cleaner.md).
//!
//! Invariant: at least one slot is free, so that a search ends.

use ottla_base::Offset;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

/// Bytes for each key.
const ENTRY_BYTES: u64 = 24;

#[derive(Debug)]
pub struct NewestOffsets {
    seed: [u8; 16],
    hashes: Vec<u128>,
    /// One more than the offset, so that zero stands for a free slot: fresh memory is free slots.
    offsets: Vec<i64>,
    len: usize,
    max: usize,
    latest: Offset,
}

/// No more keys fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl NewestOffsets {
    /// A map of at most `memory_bytes`, of which keys may fill this share; but no larger than `keys_max` keys need.
    #[must_use]
    pub fn new(memory_bytes: u64, load_factor: f64, keys_max: u64, seed: [u8; 16]) -> Self {
        let slots_allowed = memory_bytes / ENTRY_BYTES;
        let max = share(slots_allowed, load_factor).clamp(1, slots_allowed.max(2) - 1);
        let slots_needed = share(keys_max.min(max), 1.0 / load_factor.clamp(0.1, 1.0));
        let slots =
            size(slots_needed.max(keys_max.min(max)).saturating_add(1).min(slots_allowed.max(2)));
        let (hashes, offsets) = (vec![0; slots], vec![0; slots]);
        Self { seed, hashes, offsets, len: 0, max: size(max), latest: Offset(-1) }
    }

    /// What a key's bytes are to go through; in how many pieces makes no difference.
    #[must_use]
    pub fn hasher(&self) -> KeyHasher {
        KeyHasher(SipHasher24::new_with_key(&self.seed))
    }

    /// Notes the offset of a key, which is larger than any before.
    ///
    /// # Errors
    /// [`Full`] where no other key would fit, even if this one is there already: nothing is noted then.
    pub fn put(&mut self, key: &KeyHasher, offset: Offset) -> Result<(), Full> {
        // Kafka, too, stops before it looks whether the key is there already.
        if self.len >= self.max || self.len + 1 >= self.hashes.len() {
            return Err(Full);
        }
        let hash = key.hash();
        let at = self.slot(hash);
        if let (Some(held), Some(known)) = (self.hashes.get_mut(at), self.offsets.get_mut(at)) {
            self.len += usize::from(*known == 0);
            (*held, *known) = (hash, offset.0 + 1);
        }
        self.latest = offset;
        Ok(())
    }

    /// The newest offset of a key.
    #[must_use]
    pub fn get(&self, key: &KeyHasher) -> Option<Offset> {
        let known = self.offsets.get(self.slot(key.hash())).copied();
        known.filter(|known| *known != 0).map(|known| Offset(known - 1))
    }

    /// Everything up to here was looked at.
    #[must_use]
    pub fn latest(&self) -> Offset {
        self.latest
    }

    pub fn set_latest(&mut self, offset: Offset) {
        self.latest = offset;
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The most keys that it may hold.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max
    }

    /// Where a hash is, or would be.
    fn slot(&self, hash: u128) -> usize {
        let slots = self.hashes.len();
        let mut at = start(hash, slots);
        loop {
            let is_free = self.offsets.get(at).is_none_or(|offset| *offset == 0);
            if is_free || self.hashes.get(at) == Some(&hash) {
                return at;
            }
            at = if at + 1 == slots { 0 } else { at + 1 };
        }
    }
}

/// A key on its way into its hash.
#[derive(Debug, Clone)]
pub struct KeyHasher(SipHasher24);

impl KeyHasher {
    fn hash(&self) -> u128 {
        self.0.finish128().as_u128()
    }
}

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

fn start(hash: u128, slots: usize) -> usize {
    let bits = u64::try_from(hash & u128::from(u64::MAX)).unwrap_or(0);
    // A number below `slots` without a division: the upper half of the product.
    let product = u128::from(bits) * (slots as u128);
    usize::try_from(product >> 64).unwrap_or(0)
}

fn share(count: u64, factor: f64) -> u64 {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a size need not be exact; a cast of a number that is too large gives the largest"
    )]
    let share = (count as f64 * factor) as u64;
    share
}

fn size(count: u64) -> usize {
    usize::try_from(count).expect("a usize is 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(memory_bytes: u64, load_factor: f64) -> NewestOffsets {
        NewestOffsets::new(memory_bytes, load_factor, u64::MAX, [7; 16])
    }

    impl NewestOffsets {
        fn key(&self, bytes: &[u8]) -> KeyHasher {
            let mut key = self.hasher();
            key.write(bytes);
            key
        }
    }

    #[test]
    fn the_newest_offset_of_every_key_is_found() {
        let mut map = map(24 * 4_000, 0.9);
        for n in 0..3_000_i64 {
            map.put(&map.key(format!("key {}", n % 1_000).as_bytes()), Offset(n)).unwrap();
        }
        assert_eq!(map.len(), 1_000);
        for n in 0..1_000 {
            assert_eq!(map.get(&map.key(format!("key {n}").as_bytes())), Some(Offset(2_000 + n)));
        }
        assert_eq!(map.get(&map.key(b"another")), None);
        assert_eq!(map.latest(), Offset(2_999));
        map.put(&map.key(b""), Offset(3_000)).unwrap();
        assert_eq!(map.get(&map.key(b"")), Some(Offset(3_000)), "an empty key is a key");
    }

    #[test]
    fn it_is_full_when_kafkas_is() {
        let mut map = map(24 * 100, 0.9);
        assert_eq!(map.max(), 90);
        for n in 0..90_i64 {
            map.put(&map.key(&n.to_be_bytes()), Offset(n)).unwrap();
        }
        assert_eq!(map.put(&map.key(b"one more"), Offset(90)), Err(Full));
        assert_eq!(map.put(&map.key(&0_i64.to_be_bytes()), Offset(90)), Err(Full));
        assert_eq!(map.get(&map.key(&89_i64.to_be_bytes())), Some(Offset(89)));
        assert_eq!(map.latest(), Offset(89));
    }

    #[test]
    fn a_share_of_all_or_more_still_leaves_a_slot_free() {
        for load_factor in [1.0, 7.5] {
            let mut map = map(24 * 10, load_factor);
            assert_eq!(map.max(), 9);
            (0..9_i64).for_each(|n| map.put(&map.key(&n.to_be_bytes()), Offset(n)).unwrap());
            assert_eq!(map.get(&map.key(b"not there")), None);
        }
    }

    #[test]
    fn a_map_takes_no_more_memory_than_its_keys_can_need() {
        let small = NewestOffsets::new(1 << 40, 0.9, 100, [0; 16]);
        assert!(small.hashes.len() < 120, "{}", small.hashes.len());
        let mut small = small;
        (0..100_i64).for_each(|n| small.put(&small.key(&n.to_be_bytes()), Offset(n)).unwrap());
    }

    #[test]
    fn the_hash_is_not_the_same_for_another_seed() {
        let [one, other] = [[1; 16], [2; 16]].map(|seed| NewestOffsets::new(240, 0.9, 5, seed));
        assert_ne!(one.key(b"key").hash(), other.key(b"key").hash());
        assert_eq!(one.key(b"key").hash(), one.key(b"key").hash());
    }

    #[test]
    fn a_key_in_pieces_is_the_same_key() {
        let map = map(240, 0.9);
        let bytes: Vec<u8> = (0..100).collect();
        for piece_len in [1, 3, 8, 17, 64] {
            let mut key = map.hasher();
            bytes.chunks(piece_len).for_each(|piece| key.write(piece));
            assert_eq!(key.hash(), map.key(&bytes).hash(), "{piece_len}");
        }
    }
}
