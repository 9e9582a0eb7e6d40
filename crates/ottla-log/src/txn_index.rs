//! `NNNNNNNNNNNNNNNNNNNN.txnindex`: the transactions whose abort marker is in a segment, in Kafka's format. Pure.
//!
//! Big endian, 34 bytes for each, in the order of their markers: version (int16, 0), producer id (int64), first offset
//! of its records (int64), offset of the marker (int64), last stable offset once it was aborted (int64). The file is
//! there only if it has something to say.
//!
//! It has no checksum, and tells nothing that the batches do not tell, too: recovery writes it anew for every segment that
//! it reads, and the scrub where it says something else.

use ottla_base::{Offset, ProducerId};

use crate::index::Entry;

/// An aborted transaction: which records readers of committed data leave out, and why they may stop looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AbortedTransaction {
    pub producer_id: ProducerId,
    /// The producer's records from here on are aborted,
    pub first_offset: Offset,
    /// up to its marker here.
    pub last_offset: Offset,
    /// Where the oldest transaction began that was open when this one ended; right after its marker if there was none.
    pub last_stable_offset: Offset,
}

pub(crate) const ENTRY_LEN: usize = 34;
pub(crate) const VERSION: i16 = 0;

/// An entry as it is in the file, whatever its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versioned {
    pub(crate) version: i16,
    pub(crate) transaction: AbortedTransaction,
}

impl Versioned {
    /// `None` for a version that is not known.
    pub(crate) fn known(&self) -> Option<AbortedTransaction> {
        (self.version == VERSION).then_some(self.transaction)
    }

    /// Whether a segment that begins at this offset may have it.
    pub(crate) fn may_be_in(&self, base_offset: i64) -> bool {
        let it = &self.transaction;
        self.version == VERSION
            && it.producer_id.0 >= 0
            && (0..=it.last_offset.0).contains(&it.first_offset.0)
            && it.last_offset.0 >= base_offset
            // The marker itself is no more open.
            && (0..=it.last_offset.0.saturating_add(1)).contains(&it.last_stable_offset.0)
    }
}

impl Entry for Versioned {
    const SIZE: usize = ENTRY_LEN;

    fn encode(&self, out: &mut Vec<u8>) {
        let it = &self.transaction;
        out.extend(self.version.to_be_bytes());
        out.extend(it.producer_id.0.to_be_bytes());
        out.extend(it.first_offset.0.to_be_bytes());
        out.extend(it.last_offset.0.to_be_bytes());
        out.extend(it.last_stable_offset.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk()?;
        let (producer_id, rest) = rest.split_first_chunk()?;
        let (first_offset, rest) = rest.split_first_chunk()?;
        let (last_offset, rest) = rest.split_first_chunk()?;
        let last_stable_offset = rest.first_chunk()?;
        let transaction = AbortedTransaction {
            producer_id: ProducerId(i64::from_be_bytes(*producer_id)),
            first_offset: Offset(i64::from_be_bytes(*first_offset)),
            last_offset: Offset(i64::from_be_bytes(*last_offset)),
            last_stable_offset: Offset(i64::from_be_bytes(*last_stable_offset)),
        };
        Some(Self { version: i16::from_be_bytes(*version), transaction })
    }
}

impl AbortedTransaction {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        Versioned { version: VERSION, transaction: *self }.encode(out);
    }

    /// `None` for a version that is not known.
    fn decode(entry: &[u8; ENTRY_LEN]) -> Option<Self> {
        Versioned::decode(entry)?.known()
    }

    /// Whether any of its records lies in this range.
    pub(crate) fn overlaps(&self, range: &std::ops::Range<Offset>) -> bool {
        self.last_offset >= range.start && self.first_offset < range.end
    }
}

/// The file's bytes.
pub(crate) fn encode(entries: &[AbortedTransaction]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_LEN);
    entries.iter().for_each(|entry| entry.encode(&mut bytes));
    bytes
}

/// The entries in a file. An unfinished one at its end is being written; `None` if there is anything else.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<AbortedTransaction>> {
    let (entries, _unfinished) = bytes.as_chunks::<ENTRY_LEN>();
    entries.iter().map(AbortedTransaction::decode).collect()
}

/// Whether the entries can belong to a segment that holds the markers from `base_offset` on.
pub(crate) fn is_plausible(bytes: &[u8], base_offset: i64) -> bool {
    let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
    let decoded = entries.iter().map(|entry| Versioned::decode(entry));
    let possible = decoded.map(|it| it.filter(|it| it.may_be_in(base_offset)));
    let entries: Option<Vec<_>> = possible.collect();
    rest.is_empty()
        && entries.is_some_and(|it| it.is_sorted_by_key(|entry| entry.transaction.last_offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(first: i64, last: i64) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: ProducerId(7),
            first_offset: Offset(first),
            last_offset: Offset(last),
            last_stable_offset: Offset(last + 1),
        }
    }

    #[test]
    fn an_entry_is_kafkas_34_bytes() {
        let bytes = encode(&[entry(1, 2)]);
        let mut expected = vec![0, 0];
        for number in [7_i64, 1, 2, 3] {
            expected.extend(number.to_be_bytes());
        }
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes), Some(vec![entry(1, 2)]));
    }

    #[test]
    fn an_unfinished_entry_is_not_there_yet_and_an_unknown_version_is_an_error() {
        let mut bytes = encode(&[entry(1, 2), entry(3, 4)]);
        assert_eq!(decode(&bytes[..60]), Some(vec![entry(1, 2)]));
        bytes[ENTRY_LEN + 1] = 1;
        assert_eq!(decode(&bytes), None);
    }

    #[test]
    fn what_no_segment_can_have_written_is_not_plausible() {
        let good = encode(&[entry(1, 20), entry(3, 24)]);
        assert!(is_plausible(&good, 20));
        assert!(is_plausible(&[], 20));
        assert!(!is_plausible(&good, 21), "a marker before the segment");
        assert!(!is_plausible(&good[..50], 20), "a part of an entry");
        assert!(!is_plausible(&encode(&[entry(1, 24), entry(3, 20)]), 20), "markers in no order");
        assert!(!is_plausible(&encode(&[entry(25, 24)]), 20), "a transaction after its marker");
        assert!(!is_plausible(&[0; ENTRY_LEN], 20), "zeros, as a crash may leave them");
    }

    #[test]
    fn a_transaction_is_wanted_if_it_has_records_in_the_range() {
        let overlaps = |from, to| entry(10, 20).overlaps(&(Offset(from)..Offset(to)));
        assert!(overlaps(0, 11) && overlaps(20, 30) && overlaps(12, 13));
        assert!(!overlaps(0, 10) && !overlaps(21, 30));
    }
}
