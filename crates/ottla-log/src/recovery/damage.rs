//! What is damaged of what was flushed, while a log is opened: it is quarantined, not cut off. Shell.

use std::fs::File;
use std::ops::ControlFlow;

use ottla_base::Offset;
use ottla_records::BatchHeader;

use super::{Doubt, Loader};
use crate::audit::{self, Damage, Fault, FileSource, Seen, Stretch};
use crate::epochs::EpochCache;
use crate::error::{Context, StorageError};
use crate::names;
use crate::quarantine;
use crate::segment::Segment;

impl Loader<'_> {
    /// A batch that claims to be beyond what was flushed, while flushed offsets before it are nowhere: it is one of
    /// those, and its base offset is wrong.
    pub(super) fn missing(
        &self,
        position: u64,
        header: &BatchHeader,
        doubt: Doubt,
    ) -> Option<Damage> {
        // A log whose first records were deleted may begin with a gap.
        let due = self.next_offset.max(self.opening.log_start_offset.0);
        let found = header.base_offset;
        // Where records are missing because of compaction, they are meant to be.
        let is_compacted = doubt.flushed_end <= self.opening.cleaned_to.0;
        let is_missing = due < doubt.flushed_end && found > due && found >= doubt.flushed_end;
        (is_missing && !is_compacted).then(|| Damage {
            position,
            end_position: position + header.size_in_bytes() as u64,
            first_offset: Offset(due),
            end_offset: Offset(doubt.flushed_end),
            fault: Fault::Offsets,
            what: format!("offset {found} where {due} is due"),
        })
    }

    /// Finds what is damaged of the flushed part of a segment, and where it goes on. Returns whether that is something else
    /// than what was known.
    pub(super) fn quarantine_flushed(
        &self,
        segment: &Segment,
        file: &File,
        doubt: Doubt,
        epochs: &EpochCache,
    ) -> Result<bool, StorageError> {
        let path = segment.path(names::LOG);
        let end = file.metadata().context("stat", &path)?.len();
        let stretch = Stretch {
            position: 0,
            end,
            first_offset: segment.base_offset,
            end_offset: doubt.next.unwrap_or_else(|| beyond(segment)),
            epochs: Some(epochs).filter(|_| doubt.are_epochs_known),
            epochs_end: doubt.flushed_end,
        };
        let mut source = FileSource(segment.disk(), file);
        let found = audit::audit(&mut source, &stretch, &mut |_, _| {}).context("read", &path)?;
        let mut damage = found.damage;
        // Behind the last batch there may be a gap up to the log's start: what begins in it, with nothing sound behind it, is the
        // next append, which was not flushed.
        let start = self.opening.log_start_offset;
        damage.retain(|damage| {
            let is_last = damage.end_position == end;
            let due = if is_last { damage.first_offset.max(start) } else { damage.first_offset };
            due.0 < doubt.flushed_end
        });
        for damage in &mut damage {
            // Nothing sound follows, so nobody knows where it would end but for what was flushed.
            if damage.end_position == end {
                damage.end_offset = damage.end_offset.min(Offset(doubt.flushed_end));
            }
            quarantine::report_damage(None, &path, damage);
        }
        // What was known may be wrong: then there is less, and what comes behind it is to be read again all the same.
        let known = segment.damage().unwrap_or_default();
        let is_news = *damage != *known;
        segment.set_damage(damage);
        Ok(is_news)
    }

    /// What was known to be damaged of a segment, as far as it still is. The file that says so has no checksum, and is believed
    /// only in that something is wrong there: which bytes and offsets those are, the segment tells.
    pub(super) fn restore_quarantine(
        &self,
        segment: &Segment,
        next: Option<&Offset>,
    ) -> Result<(), StorageError> {
        let known = self.quarantined.iter().filter(|(base, _)| *base == segment.base_offset);
        let known: Vec<Damage> = known.map(|(_, damage)| damage.clone()).collect();
        if known.is_empty() {
            return Ok(());
        }
        let still = self.damage_among(segment, &known, next)?;
        for damage in &known {
            if !still.iter().any(|still| overlap(still, damage)) {
                quarantine::report_sound(None, &segment.path(names::LOG), damage);
            }
        }
        segment.set_damage(still);
        Ok(())
    }

    /// The damage that has bytes in common with what is known, read from the segment's beginning: a batch begins there, and
    /// nobody knows where else one does.
    fn damage_among(
        &self,
        segment: &Segment,
        known: &[Damage],
        next: Option<&Offset>,
    ) -> Result<Vec<Damage>, StorageError> {
        let (file, path) = (segment.log_file()?, segment.path(names::LOG));
        let end = file.metadata().context("stat", &path)?.len();
        let stretch = Stretch {
            position: 0,
            end,
            first_offset: segment.base_offset,
            end_offset: next.map_or_else(|| beyond(segment), |next| next.0),
            epochs: Some(&self.epochs),
            // After a crash the file of epochs may lack the latest, of records that were flushed without it.
            epochs_end: if self.opening.clean { i64::MAX } else { self.opening.recovery_point.0 },
        };
        let known_end = known.iter().map(|damage| damage.end_position).max().unwrap_or(0);
        let mut found = Vec::new();
        let mut look = |seen: Seen<'_>| {
            let position = match seen {
                Seen::Batch(position, _) => position,
                Seen::Damage(damage) => {
                    let known = known.iter().filter(|known| overlap(known, damage));
                    let last = known.max_by_key(|known| known.end_offset);
                    let is_last = next.is_none() && damage.end_position == end;
                    found.extend(last.map(|known| as_known(damage, known, is_last)));
                    damage.position
                }
            };
            if position < known_end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let mut source = FileSource(segment.disk(), &file);
        audit::audit_all(&mut source, &stretch, &mut look).context("read", &path)?;
        Ok(found)
    }
}

/// Whether they have bytes in common.
fn overlap(one: &Damage, other: &Damage) -> bool {
    one.position < other.end_position && other.position < one.end_position
}

/// What was found where something was known. Where it is the last thing in the log, nothing but what was known tells where the
/// offsets go on.
fn as_known(found: &Damage, known: &Damage, is_last: bool) -> Damage {
    let mut damage = found.clone();
    if is_last {
        let end_offset = known.end_offset.min(damage.end_offset);
        damage.end_offset = end_offset.max(damage.first_offset);
    }
    // The same damage may be put in other words.
    let what = std::mem::replace(&mut damage.what, known.what.clone());
    if damage != *known {
        damage.what = what;
    }
    damage
}

/// Where the offsets of any segment that begins like this one end: its indexes can't say more.
fn beyond(segment: &Segment) -> i64 {
    segment.base_offset.saturating_add(i64::from(i32::MAX))
}
