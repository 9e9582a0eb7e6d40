//! Control records: what brokers and controllers write for one another between the records of
//! applications. Pure.
//!
//! The key is a version (int16, 0) and a type (int16). The value belongs to the type; those of the
//! quorum are messages that `ottla-protocol` encodes, the transaction marker is encoded here.

use bytes::{BufMut, Bytes, BytesMut};

/// What a control record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ControlType {
    /// A transaction was rolled back.
    Abort,
    /// A transaction was committed.
    Commit,
    /// A new leader of the quorum begins its epoch.
    LeaderChange,
    SnapshotHeader,
    SnapshotFooter,
    /// The feature level of the quorum (`kraft.version`).
    KRaftVersion,
    /// The voters of the quorum.
    KRaftVoters,
}

/// A control record's key is too short, or from before the first version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a control record has an invalid key")]
pub struct InvalidControlKey;

impl ControlType {
    pub const ALL: [Self; 7] = [
        Self::Abort,
        Self::Commit,
        Self::LeaderChange,
        Self::SnapshotHeader,
        Self::SnapshotFooter,
        Self::KRaftVersion,
        Self::KRaftVoters,
    ];

    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KRaftVersion => 5,
            Self::KRaftVoters => 6,
        }
    }

    /// The key of a control record of this type.
    #[must_use]
    pub fn key(self) -> [u8; 4] {
        let [high, low] = self.code().to_be_bytes();
        [0, 0, high, low]
    }

    /// The type that a key names, or `None` for one from a later version, which readers skip.
    ///
    /// # Errors
    /// [`InvalidControlKey`] for less than four bytes, or a negative version.
    pub fn from_key(key: &[u8]) -> Result<Option<Self>, InvalidControlKey> {
        let Some([v1, v2, t1, t2]) = key.first_chunk() else {
            return Err(InvalidControlKey);
        };
        if i16::from_be_bytes([*v1, *v2]) < 0 {
            return Err(InvalidControlKey);
        }
        let code = i16::from_be_bytes([*t1, *t2]);
        Ok(Self::ALL.into_iter().find(|control| control.code() == code))
    }
}

/// The value of an [`ControlType::Abort`] or [`ControlType::Commit`] record: which coordinator decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransactionMarker {
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(6);
        bytes.put_i16(0);
        bytes.put_i32(self.coordinator_epoch);
        bytes.freeze()
    }

    /// `None` for fewer bytes than a marker has, or for a negative version.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let [v1, v2, epoch @ ..] = value.first_chunk::<6>()?;
        (i16::from_be_bytes([*v1, *v2]) >= 0)
            .then(|| Self { coordinator_epoch: i32::from_be_bytes(*epoch) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_type() {
        for control in ControlType::ALL {
            assert_eq!(ControlType::from_key(&control.key()), Ok(Some(control)));
        }
    }

    #[test]
    fn a_type_from_the_future_is_skipped_and_a_broken_key_is_not() {
        assert_eq!(ControlType::from_key(&[0, 1, 0, 77, 9]), Ok(None));
        assert_eq!(ControlType::from_key(&[0xff, 0xff, 0, 0]), Err(InvalidControlKey));
        assert_eq!(ControlType::from_key(&[0, 0, 0]), Err(InvalidControlKey));
    }

    #[test]
    fn a_marker_survives() {
        let marker = EndTransactionMarker { coordinator_epoch: 7 };
        assert_eq!(marker.to_bytes(), [0, 0, 0, 0, 0, 7].as_slice());
        assert_eq!(EndTransactionMarker::parse(&marker.to_bytes()), Some(marker));
        assert_eq!(EndTransactionMarker::parse(&[0, 0, 0]), None);
    }
}
