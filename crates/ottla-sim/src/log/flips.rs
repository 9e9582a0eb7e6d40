//! Bits that turn on the disk. A batch that a reader's checksum calls sound must be one that was offered, and recovery
//! lets no batch pass that it has to read whole: one that begins at or after the recovery point.
//!
//! Not asked: bits in a batch's first 16 bytes, which no checksum covers (offset, length, leader epoch), and in the
//! files that are text; and that recovery finds what lies below the recovery point, which is the scrub's business.

use std::sync::Arc;

use ottla_base::{Offset, TopicPartition};
use ottla_log::{Log, checkpoint};
use ottla_records::{Batches, ValidBatch};

use super::World;
use super::model::{Model, summary};
use crate::law::{Checked, law};

/// What a flip has met.
#[derive(Debug)]
pub(crate) struct Flip {
    pub(crate) log: TopicPartition,
    /// Of the batch.
    base_offset: i64,
    recovery_point: i64,
}

impl World {
    /// Turns a bit in some batch of a log that nobody has open.
    pub(crate) fn flip_a_bit(&mut self) -> Option<Flip> {
        let files = self.disk().files();
        let is_log = |path: &std::path::Path| path.extension().is_some_and(|it| it == "log");
        let names: Vec<TopicPartition> = self.models.keys().cloned().collect();
        let name = self.work.pick(&names)?.clone();
        let folder = std::path::Path::new("data").join(name.to_string());
        let of_log = files.iter().filter(|(path, _)| path.starts_with(&folder) && is_log(path));
        let segments: Vec<_> = of_log.filter(|(_, bytes)| bytes.len() > 100).collect();
        let (path, bytes) = self.work.pick(&segments)?;
        let mut batches = Vec::new();
        let mut position = 0;
        for batch in Batches::new(bytes.clone().into()).flatten() {
            let len = batch.bytes().len();
            batches.push((position, len, batch.header().base_offset));
            position += len;
        }
        let (position, len, base_offset) = *self.work.pick(&batches)?;
        let at = position + 16 + self.work.below(len - 16);
        let bit = self.work.below(8) as u8;
        let points =
            files.iter().find(|(path, _)| path.ends_with("recovery-point-offset-checkpoint"));
        let points = points.and_then(|(_, bytes)| String::from_utf8(bytes.clone()).ok());
        let points = points.and_then(|text| checkpoint::offsets_from_text(&text).ok());
        let recovery_point =
            points.and_then(|points| points.get(&name).copied()).unwrap_or(Offset(0));
        let path = self.disk().root().join(path);
        self.disk().note(|| format!("flip bit {bit} of byte {at} of {name}"));
        self.disk().flip(&path, at, bit);
        self.disk().count("bit flipped");
        Some(Flip { log: name, base_offset, recovery_point: recovery_point.0 })
    }

    /// Holds a log to the law above. It is of no use to the model any more.
    pub(crate) fn check_flipped(&mut self, log: &Arc<Log>, flip: &Flip, clean: bool) -> Checked {
        let model = self.models.get_mut(&flip.log).expect("it was picked from these");
        let mut found = None;
        let mut at = log.log_start_offset();
        while at < log.log_end_offset() {
            // A header that makes no sense is found by whoever comes by.
            let read = log.read(at, 4000, log.log_end_offset(), true);
            let bytes = match read.map(|slice| slice.source.map(|source| source.read())) {
                Ok(Some(Ok(bytes))) => bytes,
                Ok(None) => break,
                Ok(Some(Err(_))) | Err(_) => {
                    found = Some("flip found by a reader's checks");
                    break;
                }
            };
            let before = at;
            for batch in Batches::new(bytes) {
                let Ok(batch) = batch else {
                    found = Some("flip found by a reader's checks");
                    break;
                };
                at = Offset(batch.header().next_offset());
                // What it says of its end may be the very thing that was changed.
                let base_offset = batch.header().base_offset;
                match batch.verify_crc() {
                    Ok(batch) => is_what_was_offered(model, &batch)?,
                    Err(error) => {
                        found = Some("flip found by a reader's checksum");
                        law!(
                            TurnedBit,
                            clean || base_offset < flip.recovery_point,
                            "recovery from {} on let a batch pass that begins at {base_offset}: {error}",
                            flip.recovery_point
                        );
                    }
                }
            }
            if at <= before {
                break;
            }
        }
        law!(
            TurnedBit,
            clean || found.is_none() || flip.base_offset < flip.recovery_point,
            "recovery from {} on let the batch at {} pass",
            flip.recovery_point,
            flip.base_offset
        );
        let is_cut_off = log.log_end_offset() <= Offset(flip.base_offset);
        let what = found.unwrap_or(match is_cut_off {
            true => "flip found by recovery",
            false => "flip in what is no longer read",
        });
        self.disk().count(what);
        self.clean_flipped(&flip.log, log)
    }
}

pub(super) fn is_what_was_offered(model: &Model, batch: &ValidBatch) -> Checked {
    law!(TurnedBit, model.may_hold(batch), "a flipped bit was accepted in {:?}", summary(batch));
    Ok(())
}
