//! How bytes get to another voter: what the quorum asks of whoever owns the connections. Shell.

use std::fmt::Debug;
use std::future::{self, Future};
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use ottla_base::BrokerId;
use ottla_metadata::Endpoint;

/// What comes of a call.
pub type Called = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// What must not wait for what: requests of one lane may be answered in turn, those of two lanes never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Who leads: heartbeats, votes and pre-votes. Small, and late within a fraction of a second.
    Leadership,
    /// The log, and all that is about it. The other node answers when its disk has what it was sent.
    Log,
}

/// Carries a request to another voter, and its answer back.
pub trait Transport: Debug + Send + Sync + 'static {
    /// `request` goes as it is to the [`Quorum::serve`](crate::Quorum::serve) of voter `to`; what that returns is the
    /// answer. Several calls to the same voter may be under way at once, and may overtake each other. The quorum gives
    /// up on a call by dropping it; whether the other voter has seen the request is then unknown.
    ///
    /// An error means that the voter cannot be reached now.
    fn call(&self, to: BrokerId, endpoints: &[Endpoint], lane: Lane, request: Bytes) -> Called;
}

/// Reaches nobody: enough where this node is the only voter.
#[derive(Debug, Clone, Copy)]
pub struct NoTransport;

impl Transport for NoTransport {
    fn call(&self, _: BrokerId, _: &[Endpoint], _: Lane, _: Bytes) -> Called {
        let error = io::Error::new(io::ErrorKind::Unsupported, "this node has no way to others");
        Box::pin(future::ready(Err(error)))
    }
}
