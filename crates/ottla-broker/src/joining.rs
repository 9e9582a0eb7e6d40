//! What a new node asks a cluster that it wants to join: which cluster it is, where its controllers are, and which node id
//! is free. The format and [`Claims`] are pure.
//!
//! Any node answers, on any of its listeners. Only the active controller says who the new node is, since ids are given
//! there and nowhere else: two nodes that join at the same moment get two ids. Others say whom to ask.
//!
//! The body of the question, big-endian ([`PeerKey::Joining`](ottla_protocol::peer::PeerKey::Joining)):
//!
//! | bytes | |
//! | --- | --- |
//! | 2 | version of this format: 0 |
//! | 16 | drawn by whoever asks: the same one that asks again gets the same id |
//! | 4 | the id that it has; −1 if it wants one; −2 if it wants none, and the rest of the answer |
//!
//! That of the answer:
//!
//! | bytes | |
//! | --- | --- |
//! | 2 | version of this format: 0 |
//! | 2 + n | the cluster's id: its length, then UTF-8 |
//! | 4 | the new node's id; −1 if it got none here; −2 if the id that it has belongs to a node that lives |
//! | 4 | how many controllers follow: the voters, or the active controller alone, if it is known |
//! | 4, 2 + n, 2 | of each: node id, host, port |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, Uuid};
use ottla_protocol::{Decoder, Encoder};
use parking_lot::Mutex;

const VERSION: i16 = 0;
/// How long an id is kept for a node that has asked for it: longer than it takes to format its directories. When it asks
/// for the metadata log, the log's leader knows of it.
const CLAIM: Duration = Duration::from_secs(60);
/// Whoever asks for more at the same time is no cluster's administrator.
const CLAIMS_MAX: usize = 1000;

/// Who wants to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applicant {
    pub claim: Uuid,
    pub wish: Wish,
}

/// What it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To be this node, as its configuration says.
    ThisId(BrokerId),
    AnyId,
    /// To look around, before it takes an id.
    NoId,
}

impl Wish {
    const ANY_ID: i32 = -1;
    const NO_ID: i32 = -2;

    const fn code(self) -> i32 {
        match self {
            Self::ThisId(id) => id.0,
            Self::AnyId => Self::ANY_ID,
            Self::NoId => Self::NO_ID,
        }
    }

    const fn of(code: i32) -> Option<Self> {
        match code {
            Self::ANY_ID => Some(Self::AnyId),
            Self::NO_ID => Some(Self::NoId),
            0.. => Some(Self::ThisId(BrokerId(code))),
            _ => None,
        }
    }
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    pub cluster_id: String,
    pub verdict: Verdict,
    /// Who votes, or, from a node that is not the active controller, who that is.
    pub controllers: Vec<ControllerAddress>,
}

/// Whether it may join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As the node of this id.
    Welcome(BrokerId),
    /// The id that it has belongs to a node that lives.
    Taken,
    /// It has not asked to, or that is for the active controller to say.
    Unsaid,
}

impl Verdict {
    const TAKEN: i32 = -2;
    const UNSAID: i32 = -1;

    const fn code(self) -> i32 {
        match self {
            Self::Welcome(id) => id.0,
            Self::Taken => Self::TAKEN,
            Self::Unsaid => Self::UNSAID,
        }
    }

    const fn of(code: i32) -> Option<Self> {
        match code {
            Self::TAKEN => Some(Self::Taken),
            Self::UNSAID => Some(Self::Unsaid),
            0.. => Some(Self::Welcome(BrokerId(code))),
            _ => None,
        }
    }
}

/// A controller, and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerAddress {
    pub id: BrokerId,
    pub host: String,
    pub port: u16,
}

impl Applicant {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut output = Encoder::new();
        output.i16(VERSION);
        output.uuid(self.claim);
        output.i32(self.wish.code());
        output.into_bytes()
    }

    /// `None` where the bytes are no question.
    #[must_use]
    pub fn decode(body: Bytes) -> Option<Self> {
        let mut input = Decoder::new(body);
        let known = input.i16().ok()? == VERSION;
        let (claim, wish) = (input.uuid().ok()?, Wish::of(input.i32().ok()?)?);
        known.then_some(Self { claim, wish })
    }
}

impl Introduction {
    /// `None` where a text is too long to be sent.
    #[must_use]
    pub fn encode(&self) -> Option<Bytes> {
        let mut output = Encoder::new();
        output.i16(VERSION);
        output.string(&self.cluster_id.as_str().into(), false).ok()?;
        output.i32(self.verdict.code());
        output.i32(i32::try_from(self.controllers.len()).ok()?);
        for controller in &self.controllers {
            output.i32(controller.id.0);
            output.string(&controller.host.as_str().into(), false).ok()?;
            output.u16(controller.port);
        }
        Some(output.into_bytes())
    }

    /// `None` where the bytes are no answer.
    #[must_use]
    pub fn decode(body: Bytes) -> Option<Self> {
        let mut input = Decoder::new(body);
        if input.i16().ok()? != VERSION {
            return None;
        }
        let cluster_id = input.string(false).ok()?.to_string();
        let verdict = Verdict::of(input.i32().ok()?)?;
        let count = input.i32().ok()?;
        let controllers: Option<Vec<_>> =
            (0..count).map(|_| ControllerAddress::decode(&mut input)).collect();
        Some(Self { cluster_id, verdict, controllers: controllers? })
    }
}

impl ControllerAddress {
    fn decode(input: &mut Decoder) -> Option<Self> {
        Some(Self {
            id: BrokerId(input.i32().ok()?),
            host: input.string(false).ok()?.to_string(),
            port: input.u16().ok()?,
        })
    }
}

/// The ids that the active controller has given, until their nodes are known by other means.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<BTreeMap<Uuid, Claim>>);

#[derive(Debug, Clone, Copy)]
struct Claim {
    id: BrokerId,
    until: Duration,
}

impl Claims {
    /// The id that it has, or the lowest from 1 that nobody has and nobody was given lately. `None` if somebody else was
    /// given the id that it has, or too many ask.
    pub(crate) fn give(
        &self,
        claim: Uuid,
        own: Option<BrokerId>,
        is_taken: impl Fn(BrokerId) -> bool,
        now: Duration,
    ) -> Option<BrokerId> {
        let mut claims = self.0.lock();
        claims.retain(|_, claim| now < claim.until);
        let given = claims.get(&claim).map(|claim| claim.id);
        let others = claims.iter().filter(|(other, _)| **other != claim);
        let claimed: BTreeSet<BrokerId> = others.map(|(_, claim)| claim.id).collect();
        if own.is_some_and(|own| claimed.contains(&own)) {
            return None;
        }
        let is_free = |id: &BrokerId| !is_taken(*id) && !claimed.contains(id);
        let id = own.or(given).or_else(|| (1..=i32::MAX).map(BrokerId).find(is_free))?;
        if given.is_none() && claims.len() >= CLAIMS_MAX {
            return None;
        }
        claims.insert(claim, Claim { id, until: now + CLAIM });
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_written_and_nothing_else_is_one() {
        for wish in [Wish::AnyId, Wish::NoId, Wish::ThisId(BrokerId(0))] {
            let asked = Applicant { claim: Uuid([7; 16]), wish };
            let body = asked.encode();
            for length in 0..body.len() {
                assert_eq!(Applicant::decode(body.slice(..length)), None, "{length} bytes");
            }
            assert_eq!(Applicant::decode(body), Some(asked));
        }
    }

    #[test]
    fn an_answer_is_read_as_it_was_written_and_nothing_else_is_one() {
        let controller = |id: i32| ControllerAddress {
            id: BrokerId(id),
            host: format!("host-{id}.example"),
            port: 65_535,
        };
        for (verdict, controllers) in [
            (Verdict::Welcome(BrokerId(3)), vec![1, 2]),
            (Verdict::Taken, vec![1]),
            (Verdict::Unsaid, vec![]),
        ] {
            let controllers = controllers.into_iter().map(controller).collect();
            let cluster_id = "4L6g3nShT-eMCtK--X86sw".to_owned();
            let told = Introduction { cluster_id, verdict, controllers };
            let body = told.encode().unwrap();
            for length in 0..body.len() {
                assert_eq!(Introduction::decode(body.slice(..length)), None, "{length} bytes");
            }
            assert_eq!(Introduction::decode(body), Some(told));
        }
    }

    #[test]
    fn an_answer_that_announces_more_controllers_than_it_has_takes_no_room_for_them() {
        let mut output = Encoder::new();
        output.i16(VERSION);
        output.string(&"cluster".into(), false).unwrap();
        output.i32(1);
        output.i32(i32::MAX);
        assert_eq!(Introduction::decode(output.into_bytes()), None);
    }

    #[test]
    fn nodes_that_join_at_the_same_moment_get_the_lowest_ids_that_nobody_has() {
        let claims = Claims::default();
        let is_taken = |id: BrokerId| [1, 3].contains(&id.0);
        let give = |claim, own: Option<i32>, now| {
            claims.give(Uuid([claim; 16]), own.map(BrokerId), is_taken, now)
        };
        assert_eq!(give(7, None, Duration::ZERO), Some(BrokerId(2)));
        assert_eq!(give(8, None, Duration::ZERO), Some(BrokerId(4)));
        assert_eq!(give(7, None, Duration::ZERO), Some(BrokerId(2)), "it asks again");
        assert_eq!(give(9, Some(5), Duration::ZERO), Some(BrokerId(5)), "it has one");
        assert_eq!(give(10, None, Duration::ZERO), Some(BrokerId(6)));
        assert_eq!(give(11, Some(2), Duration::ZERO), None, "another one is about to have it");
        assert_eq!(give(11, None, CLAIM), Some(BrokerId(2)), "they have not come");
    }

    #[test]
    fn too_many_who_ask_are_given_none() {
        let claims = Claims::default();
        let claim = |at: usize| Uuid::from_u128(u128::try_from(at).unwrap());
        let give = |at| claims.give(claim(at), None, |_| false, Duration::ZERO);
        (0..CLAIMS_MAX).for_each(|at| assert!(give(at).is_some()));
        assert_eq!(give(CLAIMS_MAX), None);
        assert_eq!(give(0), Some(BrokerId(1)));
    }
}
