//! Records that the cluster wrote for itself: control records, and those of its own topics. Pure.

use bytes::Bytes;
use ottla_protocol::records::{
    GroupRecord, KRaftVersionRecord, LeaderChangeMessage, MetadataRecord, ShareRecord,
    SnapshotFooterRecord, SnapshotHeaderRecord, TransactionRecord, VotersRecord,
};
use ottla_protocol::{DecodeError, Decoder, Message};
use ottla_records::{ControlType, EndTransactionMarker, Record};

use super::line::{Line, Value};

/// Whose records a topic of the cluster's own holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Internal {
    Groups,
    Transactions,
    Shares,
    Metadata,
}

impl Internal {
    pub(super) fn of(topic: Option<&str>) -> Option<Self> {
        match topic? {
            "__consumer_offsets" => Some(Self::Groups),
            "__transaction_state" => Some(Self::Transactions),
            "__share_group_state" => Some(Self::Shares),
            "__cluster_metadata" => Some(Self::Metadata),
            _ => None,
        }
    }

    pub(super) fn decode(self, record: &Record) -> Result<String, DecodeError> {
        let (key, value) = (record.key.clone().unwrap_or_default(), record.value.clone());
        Ok(match self {
            Self::Groups => format!("{:?}", GroupRecord::decode(key, value)?),
            Self::Transactions => format!("{:?}", TransactionRecord::decode(key, value)?),
            Self::Shares => format!("{:?}", ShareRecord::decode(key, value)?),
            Self::Metadata => {
                let (version, record) = MetadataRecord::decode(value.unwrap_or_default())?;
                format!("{} version {version} {record:?}", record.name())
            }
        })
    }
}

/// What a control record says, behind the fields that every record has.
pub(super) fn control(line: Line, record: &Record) -> Line {
    let key = record.key.clone().unwrap_or_default();
    let value = record.value.clone().unwrap_or_default();
    let control = match ControlType::from_key(&key) {
        Ok(Some(control)) => control,
        Ok(None) => {
            return line
                .with("controlType", "unknown")
                .with("key", Value::Bytes(Some(key)))
                .with("payload", Value::Bytes(Some(value)));
        }
        Err(error) => return line.with("undecodable", error.to_string()),
    };
    match control {
        ControlType::Abort | ControlType::Commit => {
            let name = if control == ControlType::Commit { "COMMIT" } else { "ABORT" };
            let marker = EndTransactionMarker::parse(&value);
            line.with("endTxnMarker", name)
                .with("coordinatorEpoch", marker.map(|marker| marker.coordinator_epoch))
        }
        ControlType::LeaderChange => message::<LeaderChangeMessage>(line, "LeaderChange", value),
        ControlType::SnapshotHeader => {
            message::<SnapshotHeaderRecord>(line, "SnapshotHeader", value)
        }
        ControlType::SnapshotFooter => {
            message::<SnapshotFooterRecord>(line, "SnapshotFooter", value)
        }
        ControlType::KRaftVersion => message::<KRaftVersionRecord>(line, "KRaftVersion", value),
        ControlType::KRaftVoters => message::<VotersRecord>(line, "KRaftVoters", value),
    }
}

/// The value of a control record is a message that begins with its version.
fn message<M: Message>(line: Line, name: &'static str, value: Bytes) -> Line {
    let version = value.first_chunk().map_or(0, |version| i16::from_be_bytes(*version));
    let line = line.with("controlType", name);
    match M::decode(&mut Decoder::new(value), version) {
        Ok(message) => line.with("message", format!("{message:?}")),
        Err(error) => line.with("undecodable", error.to_string()),
    }
}
