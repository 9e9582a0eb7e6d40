//! Reads batches whole, one after another, and tells which of them are not what was written. Pure, but for the source
//! that it is given.
//!
//! A batch's checksum covers neither its base offset nor its leader epoch. The first is held against its neighbours:
//! offsets rise, and end before the next segment or the log's end. The second against the log's leader epochs. What
//! neither can tell is a base offset that still lies in a gap of its neighbours, as compaction leaves them.
//!
//! After damage the reading goes on where the next batch begins whose checksum is right, however the lengths before it
//! lie. So damage is a range of bytes and a range of offsets, between two batches that are sound.
//!
//! Invariant: the ranges of the damage that is found rise, and are not empty in bytes.

mod source;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::ControlFlow;

use ottla_base::{LeaderEpoch, Offset};
use ottla_records::{BatchError, BatchHeader, HEADER_LEN, MAGIC, RawBatch};

use crate::epochs::EpochCache;
pub(crate) use source::{FileSource, Source, Window};

/// What is wrong with bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing that could be a batch begins here: length or magic make no sense.
    NotABatch,
    /// A batch whose checksum is not that of its bytes.
    Checksum,
    /// A sound batch with offsets that belong to others.
    Offsets,
    /// A sound batch with another leader epoch than the log has there.
    LeaderEpoch,
}

/// A stretch of a segment that is not what was written. Both ranges are half-open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub position: u64,
    pub end_position: u64,
    pub first_offset: Offset,
    /// Where the next sound batch begins, or where the log or the next segment does.
    pub end_offset: Offset,
    pub fault: Fault,
    pub what: String,
}

/// What is known of the bytes that are to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch<'a> {
    /// Where a batch begins.
    pub(crate) position: u64,
    pub(crate) end: u64,
    /// No batch begins before this offset.
    pub(crate) first_offset: i64,
    /// None ends at or after it: the next segment's base offset, or the log's end. `i64::MAX` where nobody knows.
    pub(crate) end_offset: i64,
    /// The epochs of the log, where they can be believed.
    pub(crate) epochs: Option<&'a EpochCache>,
    /// Up to which offset they can.
    pub(crate) epochs_end: i64,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    pub(crate) damage: Vec<Damage>,
    pub(crate) batches: u64,
    /// The offset after the last sound batch.
    pub(crate) next_offset: i64,
}

/// A batch whose checksum is right.
#[derive(Debug, Clone)]
struct Sound {
    position: u64,
    batch: RawBatch,
}

impl Sound {
    fn base_offset(&self) -> i64 {
        self.batch.header().base_offset
    }

    fn next_offset(&self) -> i64 {
        self.batch.header().next_offset()
    }
}

/// Damage whose end is not known yet.
#[derive(Debug, Clone)]
struct Open {
    position: u64,
    first_offset: i64,
    fault: Fault,
    what: String,
}

/// What begins at a position.
enum Piece {
    Sound(RawBatch),
    /// Damaged, but the next batch begins behind it.
    Bad {
        size: u64,
        fault: Fault,
        what: String,
    },
    /// Nothing here says where the next batch begins.
    Lost {
        fault: Fault,
        what: String,
    },
}

/// What a reading comes across.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen<'a> {
    /// A sound batch, and where it begins.
    Batch(u64, &'a RawBatch),
    Damage(&'a Damage),
}

/// Reads a stretch. `visit` is shown every sound batch and where it begins, in order.
pub(crate) fn audit(
    source: &mut dyn Source,
    stretch: &Stretch<'_>,
    visit: &mut dyn FnMut(u64, &RawBatch),
) -> io::Result<Audit> {
    audit_all(source, stretch, &mut |seen| {
        if let Seen::Batch(position, batch) = seen {
            visit(position, batch);
        }
        ControlFlow::Continue(())
    })
}

/// Like [`audit`], but `visit` is shown the damage, too, where it lies; and says whether to go on.
pub(crate) fn audit_all(
    source: &mut dyn Source,
    stretch: &Stretch<'_>,
    visit: &mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
) -> io::Result<Audit> {
    let window = Window::new(source, stretch.end);
    let auditor = Auditor {
        stretch: *stretch,
        window,
        visit,
        lower: stretch.first_offset,
        pending: None,
        open: None,
        is_stopped: false,
        found: Audit { next_offset: stretch.first_offset, ..Audit::default() },
    };
    auditor.run()
}

struct Auditor<'a, 's> {
    stretch: Stretch<'a>,
    window: Window<'s>,
    visit: &'s mut dyn FnMut(Seen<'_>) -> ControlFlow<()>,
    /// The offset after the last batch that nothing contradicts.
    lower: i64,
    /// The last batch, until the one after it fits.
    pending: Option<Sound>,
    open: Option<Open>,
    /// Nobody wants to see more.
    is_stopped: bool,
    found: Audit,
}

impl Auditor<'_, '_> {
    fn run(mut self) -> io::Result<Audit> {
        let mut position = self.stretch.position;
        while position < self.stretch.end && !self.is_stopped {
            position = match self.piece(position)? {
                Piece::Sound(batch) => {
                    let next = position + batch.header().size_in_bytes() as u64;
                    self.take(Sound { position, batch });
                    next
                }
                Piece::Bad { size, fault, what } => {
                    self.begin_damage(position, fault, what);
                    position + size
                }
                Piece::Lost { fault, what } => {
                    self.begin_damage(position, fault, what);
                    let lower = self.lower;
                    match resynchronise(&mut self.window, &self.stretch, position + 1, lower)? {
                        Some(next) => next,
                        None => break,
                    }
                }
            };
        }
        Ok(self.finish())
    }

    fn piece(&mut self, position: u64) -> io::Result<Piece> {
        let lost =
            |error: BatchError| Piece::Lost { fault: Fault::NotABatch, what: error.to_string() };
        let header = match BatchHeader::parse(self.window.get(position, HEADER_LEN)?) {
            Ok(header) => header,
            Err(error) => return Ok(lost(error)),
        };
        let size = header.size_in_bytes() as u64;
        let left = self.stretch.end - position;
        if size > left {
            let what = format!("a batch of {size} bytes is cut off after {left}");
            return Ok(Piece::Lost { fault: Fault::NotABatch, what });
        }
        // Before memory is taken for a length that may not be true.
        if size > Window::STEP as u64 && !self.may_begin_at(position + size)? {
            let what = format!("no batch begins behind the {size} bytes that this one claims");
            return Ok(Piece::Lost { fault: Fault::NotABatch, what });
        }
        let batch = match self.verified(position, header.size_in_bytes())? {
            Ok(batch) => batch,
            Err(error) if self.may_begin_at(position + size)? => {
                return Ok(Piece::Bad { size, fault: Fault::Checksum, what: error.to_string() });
            }
            Err(error) => {
                return Ok(Piece::Lost { fault: Fault::Checksum, what: error.to_string() });
            }
        };
        Ok(match self.objection(&header) {
            Some((fault, what)) => Piece::Bad { size, fault, what },
            None => Piece::Sound(batch),
        })
    }

    fn verified(&mut self, position: u64, size: usize) -> io::Result<Result<RawBatch, BatchError>> {
        let bytes = bytes::Bytes::copy_from_slice(self.window.get(position, size)?);
        let parsed = RawBatch::parse(bytes);
        Ok(parsed.and_then(|batch| batch.check_crc().map(|()| batch)))
    }

    /// What speaks against a header that the checksum does not cover.
    fn objection(&self, header: &BatchHeader) -> Option<(Fault, String)> {
        let (base, last) = (header.base_offset, header.last_offset());
        if header.last_offset_delta < 0 || last < base || last == i64::MAX {
            return Some((Fault::Offsets, format!("offsets {base} to {last} are none")));
        }
        let end = self.stretch.end_offset;
        if last >= end {
            let what = format!("offset {last} is at or after {end}, where what follows begins");
            return Some((Fault::Offsets, what));
        }
        if base >= self.stretch.epochs_end {
            return None;
        }
        let found = LeaderEpoch(header.partition_leader_epoch);
        let known = self.stretch.epochs.and_then(|epochs| epochs.epoch_for(Offset(base)))?;
        let what = || format!("leader epoch {found} at offset {base}, where the log has {known}");
        (known != found).then(|| (Fault::LeaderEpoch, what()))
    }

    /// Whether a batch, or the end, may be here.
    fn may_begin_at(&mut self, position: u64) -> io::Result<bool> {
        if position >= self.stretch.end {
            return Ok(position == self.stretch.end);
        }
        let header = BatchHeader::parse(self.window.peek(position, HEADER_LEN)?);
        Ok(header.is_ok_and(|header| header.magic == MAGIC))
    }

    /// A batch whose checksum is right: does it go on where the one before it ends?
    fn take(&mut self, next: Sound) {
        let Some(pending) = self.pending.take() else {
            if next.base_offset() < self.lower {
                return self.blame(&next, self.lower);
            }
            self.pending = Some(next);
            return;
        };
        if next.base_offset() >= pending.next_offset() {
            self.confirm(&pending);
            self.pending = Some(next);
            return;
        }
        let span = pending.next_offset() - pending.base_offset();
        let moved_up = pending.base_offset() > self.lower;
        if moved_up && next.base_offset() >= self.lower + span {
            // It would fit, had it begun where the one before it ends.
            self.blame(&pending, self.lower);
            self.pending = Some(next);
            return;
        }
        let lower = pending.next_offset();
        self.blame(&next, lower);
        self.pending = Some(pending);
    }

    fn blame(&mut self, sound: &Sound, expected: i64) {
        let what = format!("offset {} where {expected} is due", sound.base_offset());
        // Before whatever else was found wrong after it.
        let open =
            Open { position: sound.position, first_offset: expected, fault: Fault::Offsets, what };
        if self.open.as_ref().is_none_or(|known| known.position > open.position) {
            self.open = Some(open);
        }
    }

    fn begin_damage(&mut self, position: u64, fault: Fault, what: String) {
        let first_offset = self.pending.as_ref().map_or(self.lower, Sound::next_offset);
        self.open.get_or_insert(Open { position, first_offset, fault, what });
    }

    /// Nothing contradicts this batch: damage before it ends here.
    fn confirm(&mut self, sound: &Sound) {
        if self.open.as_ref().is_some_and(|open| open.position < sound.position) {
            self.close(sound.position, sound.base_offset());
        }
        self.lower = sound.next_offset();
        self.found.next_offset = self.lower;
        self.found.batches += 1;
        self.show(Seen::Batch(sound.position, &sound.batch));
    }

    fn show(&mut self, seen: Seen<'_>) {
        if !self.is_stopped {
            self.is_stopped = (self.visit)(seen).is_break();
        }
    }

    fn close(&mut self, end_position: u64, end_offset: i64) {
        let Some(open) = self.open.take() else { return };
        let damage = Damage {
            position: open.position,
            end_position,
            first_offset: Offset(open.first_offset.min(end_offset)),
            end_offset: Offset(end_offset),
            fault: open.fault,
            what: open.what,
        };
        self.show(Seen::Damage(&damage));
        self.found.damage.push(damage);
    }

    fn finish(mut self) -> Audit {
        if let Some(pending) = self.pending.take() {
            self.confirm(&pending);
        }
        self.close(self.stretch.end, self.stretch.end_offset);
        self.found
    }
}

/// The first position from `from` on where a batch begins that is sound in itself and fits behind `lower`.
fn resynchronise(
    window: &mut Window<'_>,
    stretch: &Stretch<'_>,
    from: u64,
    lower: i64,
) -> io::Result<Option<u64>> {
    // The farthest that offsets of one segment can be apart.
    let upper = stretch.end_offset.min(lower.saturating_add(i64::from(i32::MAX)));
    for position in from..stretch.end {
        let left = stretch.end - position;
        let bytes = window.get(position, HEADER_LEN)?;
        if bytes.len() < HEADER_LEN {
            break;
        }
        if bytes.get(16).copied() != Some(MAGIC.cast_unsigned()) {
            continue;
        }
        let Ok(header) = BatchHeader::parse(bytes) else { continue };
        let fits = header.size_in_bytes() as u64 <= left
            && header.last_offset_delta >= 0
            && header.record_count >= 0
            && header.base_offset >= lower
            && header.last_offset() < upper;
        if !fits {
            continue;
        }
        let bytes = bytes::Bytes::copy_from_slice(window.peek(position, header.size_in_bytes())?);
        let parsed = RawBatch::parse(bytes);
        if parsed.is_ok_and(|batch| batch.check_crc().is_ok()) {
            return Ok(Some(position));
        }
    }
    Ok(None)
}
