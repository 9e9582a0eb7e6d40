//! The controllers that a cluster with recorded voters (`kraft.version` 1) begins with: as people write them, and as
//! the file that formatting leaves for the first start. Pure.
//!
//! The file is Kafka's snapshot of nothing, `00000000000000000000-0000000000.checkpoint`: a control batch with
//! SnapshotHeader, KRaftVersion and KRaftVoters, a control batch with SnapshotFooter.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use ottla_base::{BrokerId, LeaderEpoch, Offset, Timestamp, Uuid};
use ottla_broker::InitialVoter;
use ottla_metadata::Endpoint;
use ottla_protocol::records::{
    KRaftVersionRecord, SnapshotFooterRecord, SnapshotHeaderRecord, VotersRecord, voters_record,
};
use ottla_protocol::{Decoder, Encoder, Message};
use ottla_records::{BatchBuilder, Batches, ControlType, RawBatch};

/// Where the file is, in the directory of the metadata's log.
pub(crate) const FILE: &str = "00000000000000000000-0000000000.checkpoint";

/// The level of `kraft.version` at which voters are in the log.
pub(crate) const KRAFT_VERSION: i16 = 1;

/// A controller, where others reach it, and the directory that its metadata is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InitialController {
    pub(crate) id: BrokerId,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) directory_id: Uuid,
}

/// At least one controller, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InitialControllers(BTreeMap<BrokerId, InitialController>);

impl InitialControllers {
    pub(crate) fn one(controller: InitialController) -> Self {
        Self(BTreeMap::from([(controller.id, controller)]))
    }

    pub(crate) fn get(&self, id: BrokerId) -> Option<&InitialController> {
        self.0.get(&id)
    }

    /// As voters whose listener has this name, the first of `controller.listener.names`.
    pub(crate) fn to_voters(&self, listener: &str) -> Vec<InitialVoter> {
        let endpoint = |it: &InitialController| Endpoint {
            listener: listener.into(),
            host: it.host.as_str().into(),
            port: it.port,
            // The record in the log does not say, and all voters must write the same.
            security_protocol: 0,
        };
        let voter = |it: &InitialController| InitialVoter {
            id: it.id,
            directory_id: it.directory_id,
            endpoints: vec![endpoint(it)],
        };
        self.0.values().map(voter).collect()
    }

    fn from_all(all: impl IntoIterator<Item = InitialController>) -> anyhow::Result<Self> {
        let mut controllers = BTreeMap::new();
        for controller in all {
            let id = controller.id;
            ensure!(controllers.insert(id, controller).is_none(), "node {id} is there twice");
        }
        ensure!(!controllers.is_empty(), "no controller is named");
        Ok(Self(controllers))
    }

    /// The whole file. `listener` is the first of `controller.listener.names`.
    pub(crate) fn to_checkpoint(&self, listener: &str, now: Timestamp) -> anyhow::Result<Vec<u8>> {
        let header = SnapshotHeaderRecord { version: 0, last_contained_log_timestamp: now.0 };
        let version = KRaftVersionRecord { version: 0, k_raft_version: KRAFT_VERSION };
        let voters = self.0.values().map(|it| it.to_voter(listener)).collect();
        let voters = VotersRecord { version: 0, voters };
        let begin = [
            (ControlType::SnapshotHeader, encode(&header)?),
            (ControlType::KRaftVersion, encode(&version)?),
            (ControlType::KRaftVoters, encode(&voters)?),
        ];
        let end = [(ControlType::SnapshotFooter, encode(&SnapshotFooterRecord { version: 0 })?)];
        let end_offset = Offset(3);
        Ok([batch(Offset(0), now, &begin), batch(end_offset, now, &end)].concat())
    }

    /// Who is in a file that this program or Kafka's has written.
    pub(crate) fn from_checkpoint(file: Bytes) -> anyhow::Result<Self> {
        let mut batches = Batches::new(file);
        let mut controllers = None;
        for batch in &mut batches {
            for record in control_records(batch?)? {
                if let (ControlType::KRaftVoters, value) = record {
                    let record = VotersRecord::decode(&mut Decoder::new(value), 0)?;
                    let all: Result<Vec<_>, _> =
                        record.voters.into_iter().map(InitialController::from_voter).collect();
                    controllers = Some(Self::from_all(all?)?);
                }
            }
        }
        ensure!(batches.remaining().is_empty(), "it is cut off");
        controllers.context("it names no voters")
    }
}

impl InitialController {
    fn to_voter(&self, listener: &str) -> voters_record::Voter {
        voters_record::Voter {
            voter_id: self.id.0,
            voter_directory_id: self.directory_id,
            endpoints: vec![voters_record::Endpoint {
                name: listener.into(),
                host: self.host.as_str().into(),
                port: self.port,
            }],
            k_raft_version_feature: voters_record::KRaftVersionFeature {
                min_supported_version: 0,
                max_supported_version: KRAFT_VERSION,
            },
        }
    }

    fn from_voter(voter: voters_record::Voter) -> anyhow::Result<Self> {
        let id = voter.voter_id;
        let endpoint = voter.endpoints.into_iter().next();
        let endpoint = endpoint.with_context(|| format!("voter {id} has no address"))?;
        Ok(Self {
            id: BrokerId(id),
            host: (*endpoint.host).to_owned(),
            port: endpoint.port,
            directory_id: voter.voter_directory_id,
        })
    }
}

/// All control messages of version 0, the only one there is.
pub(crate) fn encode(message: &impl Message) -> anyhow::Result<Bytes> {
    let mut output = Encoder::new();
    message.encode(&mut output, 0)?;
    Ok(output.into_bytes())
}

pub(crate) fn batch(at: Offset, now: Timestamp, records: &[(ControlType, Bytes)]) -> Bytes {
    let mut builder = BatchBuilder::control().at(at, LeaderEpoch(0));
    for (kind, value) in records {
        builder.append_control(now, *kind, value);
    }
    builder.build_bytes()
}

/// The control records of a batch; none if it is of another kind.
pub(crate) fn control_records(batch: RawBatch) -> anyhow::Result<Vec<(ControlType, Bytes)>> {
    batch.check_crc()?;
    let mut found = Vec::new();
    if !batch.header().attributes.is_control() {
        return Ok(found);
    }
    for record in batch.records()? {
        let record = record?;
        let kind = ControlType::from_key(&record.key.unwrap_or_default())?;
        if let (Some(kind), Some(value)) = (kind, record.value) {
            found.push((kind, value));
        }
    }
    Ok(found)
}

impl FromStr for InitialControllers {
    type Err = anyhow::Error;

    /// `id@host:port:directory`, separated by commas.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let all: Result<Vec<_>, _> = entries.map(InitialController::from_str).collect();
        Self::from_all(all?)
    }
}

impl FromStr for InitialController {
    type Err = anyhow::Error;

    fn from_str(entry: &str) -> anyhow::Result<Self> {
        let form = || format!("{entry} is not of the form ID@HOST:PORT:DIRECTORY-ID");
        let (id, rest) = entry.split_once('@').with_context(form)?;
        let (address, directory) = rest.rsplit_once(':').with_context(form)?;
        let (host, port) = address.rsplit_once(':').with_context(form)?;
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.strip_suffix(']').with_context(form)?,
            None if host.contains(':') => bail!("{}: an IPv6 address needs brackets", form()),
            None => host,
        };
        let id: i32 = id.parse().ok().filter(|id| *id >= 0).with_context(|| {
            format!("{id} in {entry} is no node id: a whole number from 0 is one")
        })?;
        let directory_id = directory
            .parse()
            .with_context(|| format!("{directory} in {entry} is no directory id"))?;
        ensure!(!host.is_empty(), form());
        Ok(Self {
            id: BrokerId(id),
            host: host.to_owned(),
            port: port.parse().with_context(|| format!("{port} in {entry} is no port"))?,
            directory_id,
        })
    }
}

impl fmt::Display for InitialControllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, InitialController { id, host, port, directory_id }) in self.0.values().enumerate()
        {
            let comma = if at == 0 { "" } else { "," };
            if host.contains(':') {
                write!(f, "{comma}{id}@[{host}]:{port}:{directory_id}")?;
            } else {
                write!(f, "{comma}{id}@{host}:{port}:{directory_id}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "0@one.example:8082:JEXY6aqzQY-32P5TStzaFg,1@10.0.0.1:8083:\
                         MvDxzVmcRsaTz33bUuRU6A,2@[::1]:8084:07R5amHmR32VDA6jHkGbTA";

    /// Those that Kafka's `kafka-storage format --initial-controllers` was given for the file in `tests/kafka`.
    fn kafkas() -> (InitialControllers, &'static [u8]) {
        let controllers = THREE.replace("[::1]", "three.example").parse().unwrap();
        (controllers, include_bytes!("../tests/kafka/initial-controllers.checkpoint"))
    }

    fn refusal(text: &str) -> String {
        format!("{:#}", text.parse::<InitialControllers>().unwrap_err())
    }

    #[test]
    fn controllers_are_read_as_kafkas_tool_reads_them_and_shown_the_same() {
        let three: InitialControllers = THREE.parse().unwrap();
        assert_eq!(three.to_string(), THREE);
        let last = three.get(BrokerId(2)).unwrap();
        assert_eq!((last.host.as_str(), last.port), ("::1", 8084));
    }

    #[test]
    fn what_is_no_controller_is_named() {
        for (text, reason) in [
            ("", "no controller is named"),
            ("0@h:1", "is not of the form ID@HOST:PORT:DIRECTORY-ID"),
            ("h:1:JEXY6aqzQY-32P5TStzaFg", "is not of the form"),
            ("-1@h:1:JEXY6aqzQY-32P5TStzaFg", "-1 in"),
            ("0@h:x:JEXY6aqzQY-32P5TStzaFg", "x in 0@h:x:JEXY6aqzQY-32P5TStzaFg is no port"),
            ("0@h:65536:JEXY6aqzQY-32P5TStzaFg", "is no port"),
            ("0@::1:1:JEXY6aqzQY-32P5TStzaFg", "needs brackets"),
            ("0@h:1:short", "short in 0@h:1:short is no directory id"),
            ("0@h:1:JEXY6aqzQY-32P5TStzaFg,0@h:2:MvDxzVmcRsaTz33bUuRU6A", "node 0 is there twice"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_checkpoint_gives_back_who_was_put_in() {
        let three: InitialControllers = THREE.parse().unwrap();
        let file = three.to_checkpoint("CONTROLLER", Timestamp(7)).unwrap();
        assert_eq!(InitialControllers::from_checkpoint(file.into()).unwrap(), three);
    }

    #[test]
    fn a_damaged_checkpoint_is_an_error_wherever_the_damage_is() {
        let three: InitialControllers = THREE.parse().unwrap();
        let file = three.to_checkpoint("CONTROLLER", Timestamp(7)).unwrap();
        let is_whole_or_error =
            |file: Vec<u8>| match InitialControllers::from_checkpoint(file.into()) {
                Ok(read) => {
                    assert_eq!(read, three);
                    true
                }
                Err(_) => false,
            };
        let cuts = (0..file.len()).filter(|length| is_whole_or_error(file[..*length].to_vec()));
        assert_eq!(cuts.count(), 1, "the footer says nothing that is needed");
        let flips = (0..file.len()).filter(|at| {
            let mut flipped = file.clone();
            flipped[*at] ^= 1;
            is_whole_or_error(flipped)
        });
        // No checksum covers where a batch lies.
        assert_eq!(flips.count(), 2 * (8 + 4));
    }

    #[test]
    fn the_checkpoint_of_kafkas_tool_is_read() {
        let (controllers, file) = kafkas();
        let read = InitialControllers::from_checkpoint(Bytes::from_static(file)).unwrap();
        assert_eq!(read, controllers);
    }

    #[test]
    fn a_checkpoint_is_kafkas_byte_for_byte() {
        let (controllers, file) = kafkas();
        let written = Batches::new(Bytes::from_static(file)).next().unwrap().unwrap();
        let written = Timestamp(written.header().max_timestamp);
        let ours = controllers.to_checkpoint("CONTROLLER", written).unwrap();
        assert_eq!(ours.len(), file.len());
        assert_eq!(without_times(&ours), without_times(file));
    }

    /// The batches, with what a clock has a part in left out: times and checksums.
    fn without_times(file: &[u8]) -> Vec<Vec<(ControlType, Bytes)>> {
        Batches::new(Bytes::copy_from_slice(file))
            .map(|batch| {
                let mut records = control_records(batch.unwrap()).unwrap();
                for (kind, value) in &mut records {
                    if *kind == ControlType::SnapshotHeader {
                        *value = value.slice(..2);
                    }
                }
                records
            })
            .collect()
    }
}
