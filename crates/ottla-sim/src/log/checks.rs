//! What an open log is looked at for: that it is its model, whose laws are in [`model`](super::model), and that its indexes
//! name batches that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_base::{LeaderEpoch, Offset, Timestamp};
use ottla_log::Log;
use ottla_records::{Batches, ValidBatch};

use super::World;
use super::model::Found;
use super::world::NOW_MS;
use crate::law::{Checked, Law, Violation, law};

impl World {
    /// Reads everything that a consumer may.
    pub(super) fn look_at(&self, log: &Log) -> Checked<Found> {
        let name = log.topic_partition();
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let mut batches: Vec<ValidBatch> = Vec::new();
        let mut at = start;
        while at < end {
            let slice = log.read(at, 700, end, true);
            let slice = slice.map_err(|error| format!("{name} cannot be read at {at}: {error}"))?;
            let Some(source) = slice.source else { break };
            let bytes = source.read().map_err(|error| format!("{name} at {at}: {error}"))?;
            let before = at;
            for batch in Batches::new(bytes) {
                let batch = batch.and_then(ottla_records::RawBatch::verify_crc);
                let batch = batch.map_err(|error| format!("{name} at {at}: {error}"))?;
                at = batch.next_offset();
                batches.push(batch);
            }
            law!(Readable, at > before, "{name}: nothing is read at {at}");
        }
        let infos = log.segment_infos().map_err(|error| error.to_string())?;
        let first_segment = infos.first().map_or(0, |info| info.base_offset.0);
        let producers = log.producers();
        Ok(Found { start: start.0, end: end.0, batches, producers, first_segment })
    }

    /// The epoch that is known for each batch is its own.
    pub(super) fn check_epochs(&self, log: &Log, batches: &[ValidBatch]) -> Checked {
        for batch in batches {
            let at = batch.base_offset().max(log.log_start_offset());
            let (epoch, known) = (batch.header().partition_leader_epoch, log.epoch_for_offset(at));
            let name = log.topic_partition();
            law!(
                KnownEpochs,
                known == Some(LeaderEpoch(epoch)),
                "{name}: at {at} is epoch {epoch}, and known is {:?}",
                log.epoch_entries()
            );
        }
        Ok(())
    }

    /// Every entry of an index names a batch that is there.
    pub(super) fn check_indexes(&self, log: &Log) -> Checked {
        let infos = log.segment_infos().map_err(|error| error.to_string())?;
        let files: BTreeMap<_, _> = self.disk.files().into_iter().collect();
        let folder = std::path::Path::new("data").join(log.topic_partition().to_string());
        for info in infos.iter().filter(|info| info.size > 0) {
            let base = info.base_offset.0;
            let file = |suffix| files.get(&folder.join(format!("{base:020}.{suffix}")));
            let segment = file("log").cloned().unwrap_or_default();
            let (mut position, mut by_position, mut times) =
                (0_u32, BTreeMap::new(), BTreeSet::new());
            let mut largest = -1;
            for batch in Batches::new(segment.into()).flatten() {
                let header = *batch.header();
                by_position.insert(position, header.last_offset() - base);
                times.insert((header.max_timestamp, header.last_offset() - base));
                largest = largest.max(header.max_timestamp);
                position += batch.bytes().len() as u32;
            }
            for entry in file("index").into_iter().flat_map(|bytes| bytes.chunks(8)) {
                let numbers = entry.split_first_chunk::<4>().zip(entry.last_chunk::<4>());
                let Some(((relative, _), position)) = numbers else {
                    law!(
                        Indexes,
                        false,
                        "{}: half an entry in the index of {base}",
                        log.topic_partition()
                    );
                    continue;
                };
                let (relative, position) =
                    (u32::from_be_bytes(*relative), u32::from_be_bytes(*position));
                law!(
                    Indexes,
                    by_position.get(&position) == Some(&i64::from(relative)),
                    "{}: the index of segment {base} says that {relative} is at {position}",
                    log.topic_partition()
                );
            }
            let mut last = -1;
            for entry in file("timeindex").into_iter().flat_map(|bytes| bytes.chunks(12)) {
                let numbers = entry.split_first_chunk::<8>().zip(entry.last_chunk::<4>());
                let Some(((timestamp, _), relative)) = numbers else {
                    law!(
                        Indexes,
                        false,
                        "{}: half an entry in the time index of {base}",
                        log.topic_partition()
                    );
                    continue;
                };
                let entry =
                    (i64::from_be_bytes(*timestamp), i64::from(u32::from_be_bytes(*relative)));
                law!(
                    Indexes,
                    times.contains(&entry),
                    "{}: no batch is as the time index of {base} says: {entry:?}",
                    log.topic_partition()
                );
                last = entry.0;
            }
            law!(
                Indexes,
                info.is_active || last == largest,
                "{}: the time index of {base} ends at {last}, not {largest}",
                log.topic_partition()
            );
        }
        Ok(())
    }

    /// What is alive is exactly its model.
    pub(super) fn check_open(&mut self) -> Checked {
        let logs = self.directory.as_ref().expect("it is open").logs();
        law!(
            OpenLog,
            logs.len() == self.models.len(),
            "{} logs, not {}",
            logs.len(),
            self.models.len()
        );
        for log in logs {
            let name = log.topic_partition().clone();
            let disk = Arc::clone(&self.disk);
            let found = disk.calmly(|| self.look_at(&log))?;
            self.check_epochs(&log, &found.batches)?;
            let model = self.models.get(&name);
            let model =
                model.ok_or_else(|| Violation::of(Law::OpenLog, format!("nobody knows {name}")))?;
            model.check_open(&found).map_err(|it| it.within(&name))?;
            if self.directory.as_ref().is_some_and(|directory| directory.check_health().is_err()) {
                continue;
            }
            let high_watermark = Offset(model.flushed);
            let stable = log.last_stable_offset(high_watermark).0;
            let expected = model.last_stable_offset(model.flushed);
            law!(
                OpenLog,
                stable == expected,
                "{name}: what is before {stable} is stable, not {expected}"
            );
            for _ in 0..2 {
                let wanted = NOW_MS + self.work.between(-1000, 4000);
                let looked_up = disk.calmly(|| log.offset_for_timestamp(Timestamp(wanted)));
                let looked_up = looked_up.map_err(|error| error.to_string())?.map(|it| it.offset.0);
                let records =
                    found.batches.iter().filter_map(|batch| batch.records().ok()).flatten();
                let mut records = records.flatten().filter(|record| record.offset.0 >= model.start);
                let expected =
                    records.find(|record| record.timestamp.0 >= wanted).map(|it| it.offset.0);
                law!(
                    Indexes,
                    looked_up == expected,
                    "{name}: at {wanted} {looked_up:?} is found, not {expected:?}"
                );
            }
        }
        Ok(())
    }
}
