//! What is appended: by a leader, by clients with sequence numbers and transactions, by a replica.

use ottla_base::{LeaderEpoch, Offset, ProducerId, TopicPartition};
use ottla_env::Clock;
use ottla_log::producers::{Decision, Sender, Written};
use ottla_log::{AppendError, Log, Origin};
use ottla_records::{ValidBatch, increment_sequence};

use super::World;
use super::batches::{Draft, marker};
use crate::law::{Checked, law};

impl World {
    pub(super) fn number(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    fn draft(&mut self, name: &TopicPartition, producer: Option<(i64, i16, i32)>) -> Draft {
        let now_ms = self.clock.now_ms().0;
        let longest = if self.work.happens(500) { 5_000 } else { 250 };
        Draft {
            producer,
            in_transaction: false,
            records: self.work.between(1, 4),
            value_len: self.work.below(longest),
            timestamp: now_ms - self.work.between(0, 300),
            number: self.number(),
            keys: self.models[name].config.compact.then(|| self.work.draw()),
        }
    }

    fn append(
        &mut self,
        name: &TopicPartition,
        log: &Log,
        mut batches: Vec<ValidBatch>,
        origin: Origin,
    ) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        if let Origin::Client(epoch) | Origin::Leader(epoch) = origin {
            let mut end = Offset(model.end);
            for batch in &mut batches {
                batch.assign(end, epoch);
                end = batch.next_offset();
            }
        }
        model.offer(&batches);
        let mut given = batches.clone();
        let appended = self.try_to("append", |_| log.append(&mut given, origin))?;
        if appended.is_some() {
            let model = self.models.get_mut(name).expect("it is known");
            model.appended(&batches);
            if self.work.happens(6_000) {
                log.join_next_flush();
            }
        }
        Ok(())
    }

    pub(super) fn append_as_leader(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let count = self.work.between(1, 3);
        let batches = (0..count).map(|_| self.draft(name, None).build()).collect();
        let epoch = LeaderEpoch(self.models[name].epoch);
        self.append(name, log, batches, Origin::Leader(epoch))
    }

    pub(super) fn replicate(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = &self.models[name];
        let (mut at, epoch) = (model.end, model.epoch);
        let mut batches = Vec::new();
        for _ in 0..self.work.between(1, 3) {
            if self.work.happens(1_500) {
                at += self.work.between(1, 3);
            }
            let mut batch = self.draft(name, None).build();
            batch.assign(Offset(at), LeaderEpoch(epoch));
            at = batch.next_offset().0;
            batches.push(batch);
        }
        self.append(name, log, batches, Origin::Replica)
    }

    pub(super) fn produce(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = &self.models[name];
        // Of those whose batches compaction has taken the log need not know all that the model does.
        let is_exact = !model.compacted.may_know_less();
        let producers = if is_exact { model.producers() } else { log.producers() };
        let id = self.work.between(1, 3);
        let known = producers.get(ProducerId(id));
        let epoch = known.map_or(0, |producer| producer.epoch);
        let first = if id == 1 { i32::MAX - 20 } else { 0 };
        let sequence = known.map_or(first, |producer| match producer.last_sequence() {
            -1 => 0,
            last => increment_sequence(last, 1),
        });
        let open = known.is_some_and(|producer| producer.transaction_first_offset.is_some());
        let next = Draft { in_transaction: open, ..self.draft(name, Some((id, epoch, sequence))) };
        let mut sender = Sender::Client;
        let batch = match self.work.below(14) {
            0 => Draft { in_transaction: true, ..next }.build(),
            1 => Draft { producer: Some((id, epoch + 1, 0)), ..next }.build(),
            2 => {
                let sequence = increment_sequence(sequence, 3);
                Draft { producer: Some((id, epoch, sequence)), ..next }.build()
            }
            3 | 4 => {
                sender = Sender::Coordinator;
                let bump = i16::from(self.work.happens(5_000));
                marker(id, epoch + bump, self.work.happens(5_000), next.timestamp)
            }
            // A retry of something that is there, was lost, or was never appended.
            5..8 => {
                let back = self.work.below(7);
                let of_producer = |batch: &&ValidBatch| {
                    let header = batch.header();
                    header.producer_id == id && !header.attributes.is_control()
                };
                let again = self.models[name].offered().rev().filter(of_producer).nth(back);
                let Some(batch) = again else { return Ok(()) };
                batch.clone()
            }
            _ => next.build(),
        };
        let epoch = LeaderEpoch(self.models[name].epoch);
        let origin =
            if sender == Sender::Client { Origin::Client(epoch) } else { Origin::Leader(epoch) };
        match producers.check(&Written::of(&batch), sender) {
            Decision::Append => self.append(name, log, vec![batch], origin),
            Decision::Duplicate(written) => {
                let mut given = [batch];
                let appended = self.try_to("append", |_| log.append(&mut given, origin))?;
                let Some(appended) = appended else { return Ok(()) };
                law!(
                    Producers,
                    appended.duplicate,
                    "{name}: a duplicate was appended: {appended:?}"
                );
                law!(
                    Producers,
                    appended.base_offset == written.first_offset(),
                    "{name}: a duplicate is {appended:?}"
                );
                self.disk.count("duplicate refused");
                Ok(())
            }
            Decision::Refuse(expected) => {
                let mut given = [batch];
                let refused = self.try_to("append", |_| match log.append(&mut given, origin) {
                    Err(AppendError::Refused(refusal)) => Ok(Some(refusal)),
                    Err(AppendError::Storage(error)) => Err(error),
                    Ok(_) => Ok(None),
                })?;
                let Some(refused) = refused else { return Ok(()) };
                law!(Producers, refused == Some(expected), "{name}: {refused:?}, not {expected:?}");
                Ok(())
            }
        }
    }

    pub(super) fn new_epoch(&mut self, name: &TopicPartition, log: &Log) -> Checked {
        let model = self.models.get_mut(name).expect("it is known");
        model.epoch += 1;
        let epoch = LeaderEpoch(model.epoch);
        if self.work.happens(5_000) {
            self.try_to("assign epoch", |_| log.assign_epoch(epoch))?;
        }
        Ok(())
    }
}
