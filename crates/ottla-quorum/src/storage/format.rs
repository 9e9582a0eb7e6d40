//! One entry of the metadata log as a record batch, as Kafka's tools read it. Pure.
//!
//! | entry | batch |
//! | --- | --- |
//! | blank: a leader begins its term | control: `LeaderChangeMessage` |
//! | membership | control: `KRaftVersionRecord`, then one `VotersRecord` for each set of voters (two while they change) |
//! | normal | the proposal's metadata records, null keys, all with the time of the decision |
//!
//! `kraft.version` is 1 where the voters are known with their log directories' ids, and 0 where they are not: then the
//! record names their ids alone.
//!
//! Batches are not compressed. A batch has one CRC over all of its records: a proposal is there whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use ottla_base::{BrokerId, LeaderEpoch, Timestamp, Uuid};
use ottla_metadata::{Endpoint, MetadataRecord, record};
use ottla_protocol::records::{
    KRaftVersionRecord, LeaderChangeMessage, NoOpRecord, VotersRecord, leader_change_message,
    voters_record,
};
use ottla_protocol::{Decoder, Encoder, Message};
use ottla_records::{BatchBuilder, Compression, ControlType, RawBatch, Record, ValidBatch};

use crate::raft::{Entry, Membership, Payload, Proposal, Verdict, Voter, epoch_of, log_id};

/// The level of `kraft.version` that knows voters by directory id (KIP-853).
const KRAFT_VERSION: i16 = 1;

/// The most records that room is reserved for on the word of a batch's header.
const RESERVED_RECORDS: usize = 1024;

/// Who writes a batch, and when.
#[derive(Debug)]
pub(crate) struct Author<'a> {
    pub(crate) leader: BrokerId,
    pub(crate) voters: Option<&'a Membership>,
    pub(crate) now: Timestamp,
}

/// A batch that this version cannot take for an entry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    #[error(transparent)]
    Batch(#[from] ottla_records::BatchError),
    #[error(transparent)]
    Message(#[from] ottla_protocol::DecodeError),
    #[error(transparent)]
    ControlKey(#[from] ottla_records::InvalidControlKey),
    #[error("{0}")]
    Unexpected(&'static str),
    #[error("voters that cannot be a quorum: {0}")]
    Voters(String),
}

/// Which proposal comes next.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sequence {
    /// The epoch of the last one, and its number.
    last: Option<(LeaderEpoch, u64)>,
}

impl Sequence {
    /// Whether a proposal was decided on what is in the log: by the leader of this epoch, and nothing that it decided before
    /// is missing. openraft may refuse a proposal, while a majority is silent for a moment, and take the next one.
    fn admits(self, proposal: &Proposal, epoch: LeaderEpoch) -> bool {
        let of_epoch = self.last.filter(|(last, _)| *last == epoch);
        let next = of_epoch.map_or(0, |(_, number)| number + 1);
        proposal.epoch == epoch && proposal.number.is_none_or(|number| number == next)
    }

    pub(crate) fn note(&mut self, entry: &Entry) {
        if let EntryPayload::Normal(proposal) = &entry.payload
            && proposal.verdict == Verdict::Applied
            && let Some(number) = proposal.number
        {
            self.last = Some((proposal.epoch, number));
        }
    }
}

/// A decision that was made on something else than this log is kept out of it: a record that does nothing takes its place.
pub(crate) fn supersede_unless_next(entry: &mut Entry, sequence: Sequence) {
    let epoch = epoch_of(&entry.log_id);
    if let EntryPayload::Normal(proposal) = &mut entry.payload
        && !sequence.admits(proposal, epoch)
    {
        proposal.records = Arc::from([MetadataRecord::from(NoOpRecord {})]);
        proposal.verdict = Verdict::Superseded;
    }
}

/// The batch for an entry; offset and epoch are given to it later.
pub(crate) fn encode(entry: &Entry, author: &Author<'_>) -> io::Result<ValidBatch> {
    match &entry.payload {
        EntryPayload::Blank => leader_change(author),
        EntryPayload::Membership(membership) => voters(membership, author.now),
        EntryPayload::Normal(proposal) => metadata(proposal),
    }
}

fn metadata(proposal: &Proposal) -> io::Result<ValidBatch> {
    let mut builder = BatchBuilder::new(Compression::None);
    for record in &*proposal.records {
        let value = record::encode(record).map_err(io::Error::other)?;
        builder.append(proposal.timestamp, None, Some(&value), &[]);
    }
    if builder.is_empty() {
        return Err(io::Error::other("a proposal without records"));
    }
    Ok(builder.build())
}

fn leader_change(author: &Author<'_>) -> io::Result<ValidBatch> {
    let voter = |voter_id| leader_change_message::Voter { voter_id, ..Default::default() };
    let voters = author.voters.map(|voters| voters.voter_ids().map(voter).collect());
    let message = LeaderChangeMessage {
        version: 0,
        leader_id: author.leader.0,
        voters: voters.unwrap_or_default(),
        // openraft does not say who else granted the leader its votes.
        granting_voters: vec![voter(author.leader.0)],
    };
    control([(ControlType::LeaderChange, encode_message(&message)?)], author.now)
}

fn voters(membership: &Membership, now: Timestamp) -> io::Result<ValidBatch> {
    // There is no record for learners: they are known to their leader alone, and ask the next one themselves.
    let mut records = vec![version_record(membership)?];
    for config in membership.get_joint_config() {
        records.push(voters_record(membership, config)?);
    }
    control(records, now)
}

/// The control records of a snapshot that name the voters: where they are changing, those who come.
pub(crate) fn newest_voters_records(
    membership: &Membership,
) -> io::Result<Vec<(ControlType, Bytes)>> {
    let mut records = vec![version_record(membership)?];
    if let Some(config) = membership.get_joint_config().last() {
        records.push(voters_record(membership, config)?);
    }
    Ok(records)
}

/// Whether the log knows of all voters which directories they are in.
pub(crate) fn is_by_directory(membership: &Membership) -> bool {
    let mut voters = membership.voter_ids().filter_map(|id| membership.get_node(&id));
    voters.all(|voter| voter.directory_id != Uuid::ZERO)
}

/// The level of `kraft.version` that the log has.
pub(crate) fn kraft_version(membership: &Membership) -> i16 {
    if is_by_directory(membership) { KRAFT_VERSION } else { 0 }
}

fn version_record(membership: &Membership) -> io::Result<(ControlType, Bytes)> {
    let version = KRaftVersionRecord { version: 0, k_raft_version: kraft_version(membership) };
    Ok((ControlType::KRaftVersion, encode_message(&version)?))
}

fn voters_record(
    membership: &Membership,
    config: &BTreeSet<i32>,
) -> io::Result<(ControlType, Bytes)> {
    let voters = config.iter().filter_map(|id| Some(voter(*id, membership.get_node(id)?)));
    let record = VotersRecord { version: 0, voters: voters.collect() };
    Ok((ControlType::KRaftVoters, encode_message(&record)?))
}

fn voter(voter_id: i32, node: &Voter) -> voters_record::Voter {
    let endpoint = |it: &Endpoint| voters_record::Endpoint {
        name: (*it.listener).into(),
        host: (*it.host).into(),
        port: it.port,
    };
    voters_record::Voter {
        voter_id,
        voter_directory_id: node.directory_id,
        endpoints: node.endpoints.iter().map(endpoint).collect(),
        k_raft_version_feature: voters_record::KRaftVersionFeature {
            min_supported_version: 0,
            max_supported_version: KRAFT_VERSION,
        },
    }
}

fn control(
    records: impl IntoIterator<Item = (ControlType, Bytes)>,
    now: Timestamp,
) -> io::Result<ValidBatch> {
    let mut builder = BatchBuilder::control();
    for (kind, value) in records {
        builder.append_control(now, kind, &value);
    }
    Ok(builder.build())
}

/// All of the quorum's control messages are written in version 0.
pub(crate) fn encode_message(message: &impl Message) -> io::Result<Bytes> {
    let mut output = Encoder::new();
    message.encode(&mut output, 0).map_err(io::Error::other)?;
    Ok(output.into_bytes())
}

/// The entry that a batch is, with its bytes.
pub(crate) fn entry(batch: &RawBatch, index: u64) -> Result<Entry, FormatError> {
    let valid = batch.clone().verify_crc()?;
    let log_id = log_id(batch.header().partition_leader_epoch, index);
    Ok(Entry { log_id, payload: decode(batch)?, batch: Some(valid) })
}

/// What a batch says.
pub(crate) fn decode(batch: &RawBatch) -> Result<Payload, FormatError> {
    if batch.header().attributes.is_control() {
        decode_control(batch)
    } else {
        decode_metadata(batch)
    }
}

fn decode_metadata(batch: &RawBatch) -> Result<Payload, FormatError> {
    let header = batch.header();
    let count = usize::try_from(header.record_count).unwrap_or_default();
    let mut records = Vec::with_capacity(count.min(RESERVED_RECORDS));
    for record in batch.records()? {
        let value = record?.value.ok_or(FormatError::Unexpected("a metadata record is null"))?;
        let (_, record) = MetadataRecord::decode(value)?;
        records.push(record);
    }
    Ok(EntryPayload::Normal(Proposal {
        epoch: LeaderEpoch(header.partition_leader_epoch),
        number: None,
        verdict: Verdict::Applied,
        timestamp: Timestamp(header.max_timestamp),
        records: records.into(),
    }))
}

fn decode_control(batch: &RawBatch) -> Result<Payload, FormatError> {
    let mut configs = Vec::new();
    let mut nodes = BTreeMap::new();
    let mut leader_changed = false;
    for record in batch.records()? {
        let Record { key, value, .. } = record?;
        let key = key.ok_or(FormatError::Unexpected("a control record has no key"))?;
        let value = value.ok_or(FormatError::Unexpected("a control record is null"))?;
        match ControlType::from_key(&key)? {
            Some(ControlType::LeaderChange) => leader_changed = true,
            Some(ControlType::KRaftVoters) => configs.push(decode_voters(value, &mut nodes)?),
            Some(ControlType::KRaftVersion) => {}
            Some(
                ControlType::Abort
                | ControlType::Commit
                | ControlType::SnapshotHeader
                | ControlType::SnapshotFooter,
            )
            | None => return Err(FormatError::Unexpected("a control record of a wrong type")),
        }
    }
    match (configs.is_empty(), leader_changed) {
        (false, _) => {
            let membership = Membership::new(configs, nodes);
            let invalid = |error: &dyn ToString| FormatError::Voters(error.to_string());
            Ok(EntryPayload::Membership(membership.map_err(|error| invalid(&error))?))
        }
        (true, true) => Ok(EntryPayload::Blank),
        (true, false) => Err(FormatError::Unexpected("a control batch names no leader or voters")),
    }
}

fn decode_voters(
    value: Bytes,
    nodes: &mut BTreeMap<i32, Voter>,
) -> Result<BTreeSet<i32>, FormatError> {
    let record = VotersRecord::decode(&mut Decoder::new(value), 0)?;
    let endpoint = |it: voters_record::Endpoint| Endpoint {
        listener: (*it.name).into(),
        host: (*it.host).into(),
        port: it.port,
        // The record does not say; whoever connects takes it from the listener's name.
        security_protocol: 0,
    };
    let mut ids = BTreeSet::new();
    for voter in record.voters {
        let endpoints = voter.endpoints.into_iter().map(endpoint).collect();
        nodes.insert(voter.voter_id, Voter { directory_id: voter.voter_directory_id, endpoints });
        ids.insert(voter.voter_id);
    }
    Ok(ids)
}
