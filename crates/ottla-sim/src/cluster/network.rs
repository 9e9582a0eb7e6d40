//! What brokers, controller and clients send each other, and which of it arrives, when and how often.

use std::time::Duration;

use bytes::Bytes;
use ottla_base::{BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionIndex, TopicId};
use ottla_coordinator::group::Reply;
use ottla_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerHeartbeatRequest, BrokerHeartbeatResponse,
};
use ottla_records::ValidBatch;
use ottla_replication::follower::{EpochEnd, Fetch, LeaderOffsets};

use super::coordinating::{Ask, Asker};
use crate::Random;
use crate::links::{Links, Weather};

pub(super) type Key = (TopicId, PartitionIndex);

/// A broker by its place in the world; the controller is a part of one of them. Clients are outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Node(usize),
    Clients,
}

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) body: Body,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Fetch {
        key: Key,
        number: u64,
        from: Follower,
        fetch: Fetch,
    },
    Fetched {
        key: Key,
        number: u64,
        fetch: Fetch,
        answer: FetchAnswer,
    },
    AskOffsets {
        key: Key,
        number: u64,
        epoch: LeaderEpoch,
    },
    Offsets {
        key: Key,
        number: u64,
        found: Result<LeaderOffsets, ErrorCode>,
    },
    Flushed(Bytes),
    /// Nobody waits for an answer any more after the deadline, and the request does not arrive.
    Alter {
        number: u64,
        request: AlterPartitionRequest,
        deadline: Duration,
    },
    Altered {
        number: u64,
        response: AlterPartitionResponse,
    },
    /// To the controller: who starts, as which life.
    Register {
        life: u64,
    },
    Registered {
        life: u64,
        result: Result<i64, ErrorCode>,
    },
    Heartbeat(BrokerHeartbeatRequest),
    Beaten(Result<BrokerHeartbeatResponse, ErrorCode>),
    /// So many commits are there to be read.
    Metadata(usize),
    Produce(Produce),
    Produced {
        client: usize,
        attempt: u64,
        result: Result<Offset, ErrorCode>,
    },
    /// A member of a group asks its coordinator.
    Ask {
        asker: Asker,
        group: &'static str,
        ask: Box<Ask>,
    },
    Answer {
        asker: Asker,
        result: Box<Result<Reply, ErrorCode>>,
    },
}

impl Body {
    /// The number of the question that this answers. Connections end with their process: the next one, which begins with
    /// a larger number, hears no answers to its questions.
    pub(super) fn answers(&self) -> Option<u64> {
        match self {
            Self::Fetched { number, .. }
            | Self::Offsets { number, .. }
            | Self::Altered { number, .. } => Some(*number),
            _ => None,
        }
    }
}

/// Who fetches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Follower {
    pub(super) id: BrokerId,
    pub(super) epoch: i64,
}

#[derive(Debug, Clone)]
pub(super) enum FetchAnswer {
    Records { records: Bytes, high_watermark: Offset, log_start: Offset },
    Diverged(EpochEnd),
    Refused(ErrorCode),
}

#[derive(Debug, Clone)]
pub(super) struct Produce {
    pub(super) client: usize,
    pub(super) attempt: u64,
    pub(super) topic: &'static str,
    pub(super) partition: PartitionIndex,
    pub(super) batch: ValidBatch,
    pub(super) needs_all: bool,
}

/// How long an answer of the controller is waited for. Until then, the request has arrived or never will: a request that is
/// still on its way when its connection is given up is not played.
pub(super) const CONTROLLER_TIMEOUT: Duration = Duration::from_millis(900);

/// Of so many reports of flushes in ten thousand, a copy lies somewhere: its connection was given up long ago.
const STUCK: u32 = 1_500;
const STUCK_FOR: Duration = Duration::from_secs(15);
/// No other message is as late as one that is later than this.
const LATE_MAX: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Network {
    random: Random,
    nodes: usize,
    pub(super) links: Links,
    pub(super) weather: Weather,
    /// Copies of reports of flushes, and when they were sent.
    stuck: Vec<(Duration, Message)>,
}

/// What becomes of a message: when each copy of it arrives.
#[derive(Debug, Default)]
pub(super) struct Fate {
    pub(super) arrivals: Vec<Duration>,
    pub(super) seen: Option<&'static str>,
}

impl Network {
    pub(super) fn new(random: Random, nodes: usize) -> Self {
        // The clients' is the last.
        Self {
            random,
            nodes,
            links: Links::new(nodes + 1),
            weather: Weather::default(),
            stuck: Vec::new(),
        }
    }

    pub(super) fn is_cut(&self, from: Place, to: Place) -> bool {
        from != to && self.links.is_cut(self.number_of(from), self.number_of(to))
    }

    fn number_of(&self, place: Place) -> usize {
        match place {
            Place::Node(at) => at,
            Place::Clients => self.nodes,
        }
    }

    /// Within one machine everything arrives, once and soon.
    pub(super) fn fate(&mut self, message: &Message) -> Fate {
        let mut delay = self.latency();
        if message.from == message.to {
            return Fate { arrivals: vec![delay / 10], seen: None };
        }
        if self.is_cut(message.from, message.to) {
            return Fate { arrivals: Vec::new(), seen: Some("message on a cut link") };
        }
        let Weather { lost, doubled, late } = self.weather;
        if self.random.happens(lost) {
            return Fate { arrivals: Vec::new(), seen: Some("message lost") };
        }
        let mut seen = None;
        if self.random.happens(late) {
            let longest = if matches!(message.body, Body::Alter { .. }) {
                800
            } else {
                LATE_MAX.as_millis() as usize
            };
            delay += Duration::from_millis(self.random.below(longest) as u64);
            seen = Some("message late");
        }
        let mut arrivals = vec![delay];
        let once = matches!(message.body, Body::Alter { .. } | Body::Register { .. });
        if !once && self.random.happens(doubled) {
            arrivals.push(delay + self.latency() * 20);
            seen = Some("message doubled");
        }
        Fate { arrivals, seen }
    }

    /// A copy of what is sent may come much later.
    pub(super) fn keep_copy(&mut self, message: &Message, now: Duration) {
        if matches!(message.body, Body::Flushed(_)) && self.random.happens(STUCK) {
            self.stuck.push((now, message.clone()));
        }
    }

    /// What comes now of what lay somewhere, most of it of epochs and lives that are over by then; and whether it is later than
    /// anything else.
    pub(super) fn unstick(&mut self, now: Duration) -> Vec<(Duration, Message, bool)> {
        self.stuck.retain(|(sent, _)| now < *sent + STUCK_FOR);
        let mut comes = Vec::new();
        for (sent, message) in &self.stuck {
            if self.random.happens(3_000) {
                let delay = Duration::from_millis(1 + self.random.below(300) as u64);
                comes.push((delay, message.clone(), now - *sent > LATE_MAX));
            }
        }
        comes
    }

    fn latency(&mut self) -> Duration {
        Duration::from_micros(200 + self.random.below(3_000) as u64)
    }
}
