//! Where a controller stands among those that form a cluster, as they ask each other before there is a quorum. Pure.
//!
//! The body of an answer to [`PeerKey::Standing`](ottla_protocol::peer::PeerKey::Standing), big-endian; that of the question
//! is empty:
//!
//! | bytes | |
//! | --- | --- |
//! | 2 | version of this format: 0 |
//! | 4 | the node's id |
//! | 1 | 0 empty, 1 forming, 2 formed |
//! | 2 + n | the cluster's id, empty where there is none: its length, then UTF-8 |

use bytes::Bytes;
use ottla_base::BrokerId;
use ottla_protocol::{Decoder, Encoder};

const VERSION: i16 = 0;

/// Where a controller stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to no cluster: its directories are empty.
    Empty,
    /// Formatted with this cluster id, and not part of a quorum yet.
    Forming(String),
    /// Of this cluster, and perhaps part of its quorum.
    Formed(String),
}

impl Standing {
    #[must_use]
    pub fn cluster_id(&self) -> Option<&str> {
        match self {
            Self::Empty => None,
            Self::Forming(id) | Self::Formed(id) => Some(id),
        }
    }

    /// The body of an answer by node `id`. A cluster's id that is too long for it is none: nobody else could read it.
    #[must_use]
    pub fn encode(&self, id: BrokerId) -> Bytes {
        let mut output = Encoder::new();
        output.i16(VERSION);
        output.i32(id.0);
        output.i8(match self {
            Self::Empty => 0,
            Self::Forming(_) => 1,
            Self::Formed(_) => 2,
        });
        if output.string(&self.cluster_id().unwrap_or_default().into(), false).is_err() {
            output.i16(0);
        }
        output.into_bytes()
    }

    /// Who has answered, and what; `None` where the bytes are no answer.
    #[must_use]
    pub fn decode(body: Bytes) -> Option<(BrokerId, Self)> {
        let mut input = Decoder::new(body);
        if input.i16().ok()? != VERSION {
            return None;
        }
        let (id, kind) = (BrokerId(input.i32().ok()?), input.i8().ok()?);
        let cluster_id = input.string(false).ok()?.to_string();
        let standing = match kind {
            0 => Self::Empty,
            1 => Self::Forming(cluster_id),
            2 => Self::Formed(cluster_id),
            _ => return None,
        };
        Some((id, standing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written_and_nothing_else_is_one() {
        let id = || "4L6g3nShT-eMCtK--X86sw".to_owned();
        for standing in [Standing::Empty, Standing::Forming(id()), Standing::Formed(id())] {
            let body = standing.encode(BrokerId(7));
            for length in 0..body.len() {
                assert_eq!(Standing::decode(body.slice(..length)), None, "{length} bytes");
            }
            assert_eq!(Standing::decode(body), Some((BrokerId(7), standing)));
        }
    }
}
