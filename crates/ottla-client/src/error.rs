//! Why a request to a cluster failed, as its caller can act on it.

use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ottla_base::{ErrorCode, TopicPartition};
use ottla_protocol::{ApiKey, DecodeError, EncodeError};

use crate::address::{Address, AddressError};

/// Cheap to clone: one failed connection fails every request that waits on it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Address(#[from] AddressError),
    /// None of these addresses accepted a connection and spoke Kafka's protocol.
    #[error("no broker answers at {}", Attempts(.0))]
    Unreachable(Vec<(Address, String)>),
    #[error("the connection to {address} failed: {source}")]
    Connection { address: Address, source: Arc<io::Error> },
    #[error("no answer {what} within {after:?}")]
    TimedOut { what: String, after: Duration },
    #[error("the broker at {address} does not serve {}", .api.name())]
    UnsupportedApi { address: Address, api: ApiKey },
    #[error(
        "the broker at {address} serves {} in versions {}, this client needs {}",
        .api.name(), Versions(.theirs), Versions(.ours)
    )]
    UnsupportedVersion {
        address: Address,
        api: ApiKey,
        theirs: RangeInclusive<i16>,
        ours: RangeInclusive<i16>,
    },
    #[error("the answer of {address} to {} cannot be read: {what}", .api.name())]
    Malformed { address: Address, api: ApiKey, what: String },
    #[error("a request for {} cannot be written: {source}", .api.name())]
    Encode { api: ApiKey, source: Arc<EncodeError> },
    #[error("{what}: {}", Refusal(*.code, .message.as_deref()))]
    Refused { what: String, code: ErrorCode, message: Option<String> },
    #[error("topic \"{0}\" does not exist")]
    NoSuchTopic(Arc<str>),
    #[error("topic \"{}\" has no partition {}", .0.topic, .0.partition)]
    NoSuchPartition(TopicPartition),
    #[error("topic \"{0}\" was deleted and created again while it was read")]
    TopicRecreated(Arc<str>),
    #[error("{partition} holds a batch that cannot be read at offset {offset}: {what}")]
    CorruptBatch { partition: TopicPartition, offset: i64, what: String },
}

impl ClientError {
    pub(crate) fn malformed(address: &Address, api: ApiKey, error: &DecodeError) -> Self {
        Self::Malformed { address: address.clone(), api, what: error.to_string() }
    }

    pub(crate) fn refused(what: impl Into<String>, code: ErrorCode) -> Self {
        Self::Refused { what: what.into(), code, message: None }
    }

    /// Whether the same request may succeed a little later, perhaps at another broker.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Connection { .. } | Self::TimedOut { .. } => true,
            Self::Refused { code, .. } => code.is_retriable(),
            Self::Address(_)
            | Self::UnsupportedApi { .. }
            | Self::UnsupportedVersion { .. }
            | Self::Malformed { .. }
            | Self::Encode { .. }
            | Self::NoSuchTopic(_)
            | Self::NoSuchPartition(_)
            | Self::TopicRecreated(_)
            | Self::CorruptBatch { .. } => false,
        }
    }

    /// Whether the broker does not know the request at all, so that a caller may do without.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::UnsupportedApi { .. } | Self::UnsupportedVersion { .. })
    }
}

/// A Kafka error code with its name, and the broker's own words where it sent some.
struct Refusal<'a>(ErrorCode, Option<&'a str>);

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.1, self.0.name()) {
            (Some(message), Some(name)) => write!(f, "{message} ({name})"),
            (Some(message), None) => write!(f, "{message} (error {})", self.0.0),
            (None, Some(name)) => write!(f, "{name}"),
            (None, None) => write!(f, "error {}", self.0.0),
        }
    }
}

struct Attempts<'a>(&'a [(Address, String)]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (address, reason)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{address} ({reason})")?;
        }
        Ok(())
    }
}

struct Versions<'a>(&'a RangeInclusive<i16>);

impl fmt::Display for Versions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.0.start(), self.0.end())
    }
}
