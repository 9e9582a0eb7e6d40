//! The format of the journal's entries, in big endian. Pure.
//!
//! ```text
//! entry = "OJ01", u32 length of the body, u64 sequence, u64 mark, u32 CRC-32C of the 24 bytes before, u32 CRC-32C of the body, body
//! body  = tail*
//! tail  = u16 length of the log's name, name, 16 bytes topic id (zeros where none is known),
//!         i64 base offset of the segment, u64 position in its file, u32 length, bytes
//! ```
//!
//! A file holds entries with one mark, whose sequences rise. What follows the last of them is torn, or left of earlier ones: of
//! what clients have written, too, who may have put there what looks like an entry. So the mark is drawn each time that a file
//! is begun. An entry that is damaged, with others of its mark behind it, was flushed: those count all the same.

use std::borrow::Cow;

use bytes::{Buf, BufMut};
use ottla_base::{TopicId, Uuid};
use ottla_records::crc32c;

const MAGIC: &[u8; 4] = b"OJ01";
pub(super) const HEADER_LEN: usize = 32;
/// So much of the header comes before its own checksum, which covers it.
const CHECKED_LEN: usize = 24;
const TAIL_HEADER_LEN: usize = 16 + 8 + 8 + 4;

/// What a log has appended to a segment since its last flush, and where that is in the segment's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tail<'a> {
    /// The name of the log's directory.
    pub(crate) log: String,
    /// [`Uuid::ZERO`] where none is known.
    pub(crate) topic_id: TopicId,
    pub(crate) base_offset: i64,
    pub(crate) position: u64,
    pub(crate) bytes: Cow<'a, [u8]>,
}

impl Tail<'_> {
    pub(super) fn end_position(&self) -> u64 {
        self.position.saturating_add(self.bytes.len() as u64)
    }
}

/// What was noted at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) sequence: u64,
    pub(super) tails: Vec<Tail<'a>>,
}

/// The bytes of an entry. Names are shorter than 64 KiB, and all of it than 4 GiB.
pub(super) fn encode(mark: u64, sequence: u64, tails: &[Tail<'_>]) -> Vec<u8> {
    let len_of = |tail: &Tail<'_>| 2 + tail.log.len() + TAIL_HEADER_LEN + tail.bytes.len();
    let mut bytes = Vec::with_capacity(HEADER_LEN + tails.iter().map(len_of).sum::<usize>());
    bytes.put_bytes(0, HEADER_LEN);
    for tail in tails {
        bytes.put_u16(u16::try_from(tail.log.len()).expect("a file system has shorter names"));
        bytes.put_slice(tail.log.as_bytes());
        bytes.put_slice(&tail.topic_id.0);
        bytes.put_i64(tail.base_offset);
        bytes.put_u64(tail.position);
        bytes.put_u32(u32::try_from(tail.bytes.len()).expect("only short ends are noted"));
        bytes.put_slice(&tail.bytes);
    }
    let (mut header, body) = bytes.split_at_mut(HEADER_LEN);
    let checksum = crc32c(body);
    let checked = &mut Vec::with_capacity(HEADER_LEN);
    checked.put_slice(MAGIC);
    checked.put_u32(u32::try_from(body.len()).expect("an entry is short"));
    checked.put_u64(sequence);
    checked.put_u64(mark);
    checked.put_u32(crc32c(checked));
    checked.put_u32(checksum);
    header.put_slice(checked);
    bytes
}

/// The entries of a file, and whether one between them is damaged.
pub(super) fn decode(bytes: &[u8]) -> (Vec<Entry<'_>>, bool) {
    let Some(first) = Raw::first(bytes) else { return (Vec::new(), false) };
    let (mut entries, mut is_damaged, mut is_doubtful) = (Vec::new(), false, false);
    let (mut latest, mut rest) = (0, bytes);
    loop {
        let follows = |it: &Raw<'_>| it.mark == first.mark && it.sequence > latest;
        let later = || Raw::find(rest, follows).inspect(|_| is_damaged = true);
        let next = Raw::first(rest).filter(follows).or_else(later);
        let Some(next) = next else { return (entries, is_damaged) };
        match next.body.and_then(tails) {
            Some(tails) => {
                entries.push(Entry { sequence: next.sequence, tails });
                is_damaged |= is_doubtful;
            }
            // Torn, if nothing follows.
            None => is_doubtful = true,
        }
        (latest, rest) = (next.sequence, next.rest);
    }
}

/// An entry as its header tells of it.
struct Raw<'a> {
    sequence: u64,
    mark: u64,
    /// If it is sound.
    body: Option<&'a [u8]>,
    rest: &'a [u8],
}

impl<'a> Raw<'a> {
    /// The one that these bytes begin with.
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER_LEN)?;
        let (checked, mut checksums) = header.split_at_checked(CHECKED_LEN)?;
        let mut fields = checked.strip_prefix(MAGIC)?;
        if checksums.get_u32() != crc32c(checked) {
            return None;
        }
        let len = usize::try_from(fields.get_u32()).ok()?;
        let (body, rest) = rest.split_at_checked(len)?;
        let is_sound = checksums.get_u32() == crc32c(body);
        let (sequence, mark) = (fields.get_u64(), fields.get_u64());
        Some(Self { sequence, mark, body: is_sound.then_some(body), rest })
    }

    /// The first one in these bytes of which this is so.
    fn find(bytes: &'a [u8], is_meant: impl Fn(&Self) -> bool) -> Option<Self> {
        let places = bytes.windows(MAGIC.len()).enumerate().filter(|(_, it)| it == MAGIC);
        let at = |(at, _)| Self::first(bytes.get(at..)?);
        places.filter_map(at).find(is_meant)
    }
}

/// `None` where they make no sense, which a checksum leaves to nobody but a fuzzer.
fn tails(mut body: &[u8]) -> Option<Vec<Tail<'_>>> {
    let mut tails = Vec::new();
    while !body.is_empty() {
        let name_len = usize::from(body.try_get_u16().ok()?);
        let (name, rest) = body.split_at_checked(name_len)?;
        let log = std::str::from_utf8(name).ok()?.to_owned();
        let (mut header, rest) = rest.split_at_checked(TAIL_HEADER_LEN)?;
        let mut topic_id = Uuid::ZERO;
        header.copy_to_slice(&mut topic_id.0);
        let (base_offset, position) = (header.get_i64(), header.get_u64());
        let (bytes, rest) = rest.split_at_checked(usize::try_from(header.get_u32()).ok()?)?;
        tails.push(Tail { log, topic_id, base_offset, position, bytes: bytes.into() });
        body = rest;
    }
    Some(tails)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail<'a>(log: &str, bytes: &'a [u8]) -> Tail<'a> {
        let topic_id = Uuid([7; 16]);
        Tail { log: log.to_owned(), topic_id, base_offset: 5, position: 9, bytes: bytes.into() }
    }

    /// An entry with something of one log.
    fn one(sequence: u64, bytes: &[u8]) -> Vec<u8> {
        encode(5, sequence, &[tail("t-0", bytes)])
    }

    fn entry(sequence: u64, tails: Vec<Tail<'_>>) -> Entry<'_> {
        Entry { sequence, tails }
    }

    #[test]
    fn what_is_noted_is_found() {
        let both = vec![tail("t-0", b"abc"), tail("a.b-11", b"")];
        let file =
            [encode(5, 3, &both), encode(5, 4, &[tail("t-0", b"d")]), encode(5, 9, &[])].concat();
        let expected = vec![entry(3, both), entry(4, vec![tail("t-0", b"d")]), entry(9, vec![])];
        assert_eq!(decode(&file), (expected, false));
    }

    #[test]
    fn nothing_is_found_of_an_entry_that_is_torn_anywhere() {
        let (first, second) = (one(1, b"abc"), one(2, b"d"));
        let file = [first.clone(), second].concat();
        for len in first.len()..file.len() {
            let (entries, is_damaged) = decode(&file[..len]);
            assert_eq!((entries, is_damaged), (vec![entry(1, vec![tail("t-0", b"abc")])], false));
        }
    }

    #[test]
    fn what_is_left_of_earlier_entries_is_not_found() {
        let later = one(8, b"x");
        let forged = encode(6, 9, &[tail("t-1", b"abc")]);
        for left in [one(7, b"abc"), forged.clone(), [b"OJ01", &forged[..]].concat()] {
            let file = [later.clone(), left].concat();
            assert_eq!(decode(&file), (vec![entry(8, vec![tail("t-0", b"x")])], false));
        }
    }

    #[test]
    fn a_flipped_bit_costs_one_entry_and_is_told_where_more_follow() {
        let entries = [one(1, b"abc"), one(2, b"defg"), one(3, b"h")];
        let file = entries.concat();
        let ends = [entries[0].len(), entries[0].len() + entries[1].len()];
        for bit in 0..8 * file.len() {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (found, is_damaged) = decode(&flipped);
            let sequences: Vec<u64> = found.iter().map(|entry| entry.sequence).collect();
            // Without the first header nobody knows the mark.
            let is_first = bit / 8 < CHECKED_LEN + 4;
            let expected: (&[u64], bool) = match ends.partition_point(|end| *end <= bit / 8) {
                0 if is_first => (&[], false),
                0 => (&[2, 3], true),
                1 => (&[1, 3], true),
                _ => (&[1, 2], false),
            };
            assert_eq!((sequences.as_slice(), is_damaged), expected, "bit {bit}");
        }
    }
}
