//! One connection: frames in, answers out, in the order of the requests.
//!
//! Produces overlap: the next one is appended while an earlier one waits for the disk, unless that one is not in the log
//! yet. Any other request is handled only when everything before it was answered, as in Apache Kafka, so that it sees the
//! effects.
//!
//! What has arrived is read before answers are sent, so that the answers to it leave with one call: that costs less than half
//! of what one each does, and a client that sends several requests does not wait for the first answer alone.
//!
//! Invariants: answers leave in the order in which their requests came; `in_flight.len() <=
//! IN_FLIGHT_MAX`, and more than one only if all are produces; a request that waits for its turn
//! (`held`) is the last that was read; whoever waits for a flush that nobody has begun (`owed_flush`) begins it before
//! it waits for anything but the turn of the followers that it has woken.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::ApiKey;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::answer::{Answer, CloseReason, Outcome, Pending};
use crate::broker::Broker;
use crate::frame::{Frame, FrameError, FrameReader};
use crate::handlers::{self, Session};
use crate::listener::{Listener, Seat, stopped};

/// How many produces of one connection may wait for the disk together; clients send at most five.
const IN_FLIGHT_MAX: usize = 64;

/// How many requests are read at most before it is looked whether answers are there to be sent, or the broker stops.
const READ_IN_A_ROW_MAX: usize = 16;

enum InFlight {
    Done(Outcome),
    Waiting(Pending),
}

/// Serves a connection until either side closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    peer: SocketAddr,
    session: Session,
    broker: Arc<Broker>,
    seat: Arc<Seat>,
    reader: FrameReader,
    in_flight: VecDeque<InFlight>,
    held: Option<Frame>,
    /// How many requests were read since that was looked at.
    read_in_a_row: usize,
    /// Whether all requests in flight are produces, which alone may overlap.
    only_produces: bool,
    /// What the latest produces wait for and this connection has yet to begin: all that a client has sent share one.
    owed_flush: Option<OwedFlush>,
}

#[derive(Debug, Clone, Copy, Default)]
struct OwedFlush {
    /// Whether followers were woken that wait for what it is of. They have a disk of their own, and take it along meanwhile.
    has_followers: bool,
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Done(_) => "Done",
            Self::Waiting(_) => "Waiting",
        })
    }
}

enum Step {
    Frame(Result<Option<Frame>, FrameError>),
    Outcome(Outcome),
    NothingToRead,
    IdleCheck,
    Shutdown,
}

impl Connection {
    #[must_use]
    pub(crate) fn new(
        socket: TcpStream,
        peer: SocketAddr,
        listener: Arc<Listener>,
        broker: Arc<Broker>,
        seat: Seat,
    ) -> Self {
        let reader =
            FrameReader::new(broker.settings.request_bytes_max, broker.state.queued_bytes.clone());
        let session = Session::new(listener, peer.ip());
        Self {
            socket,
            peer,
            session,
            broker,
            seat: Arc::new(seat),
            reader,
            in_flight: VecDeque::new(),
            held: None,
            read_in_a_row: 0,
            only_produces: false,
            owed_flush: None,
        }
    }

    /// Runs until the peer closes, breaks the protocol, is idle for too long, or `shutdown` is true.
    pub(crate) async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let idle_max = self.broker.settings.connections_max_idle;
        let mut last_used = Instant::now();
        let mut idle_check = Box::pin(tokio::time::sleep_until(last_used + idle_max));
        loop {
            match self.step(&mut shutdown, idle_check.as_mut()).await {
                Step::Frame(Ok(Some(frame))) => {
                    last_used = Instant::now();
                    self.take(frame);
                }
                Step::Frame(ended) => {
                    self.log_end(ended.err());
                    return self.finish_what_is_there().await;
                }
                Step::Outcome(outcome) => {
                    last_used = Instant::now();
                    if !self.finish(outcome).await {
                        return;
                    }
                }
                Step::NothingToRead => {
                    if self.owed_flush.is_some_and(|owed| owed.has_followers) {
                        tokio::task::yield_now().await;
                    }
                    self.begin_owed_flush();
                }
                Step::IdleCheck if last_used + idle_max <= Instant::now() => {
                    info!(peer = %self.peer, "connection closed: idle for too long");
                    self.session.closed_by_us();
                    return;
                }
                Step::IdleCheck => idle_check.as_mut().reset(last_used + idle_max),
                Step::Shutdown => return self.drain().await,
            }
        }
    }

    async fn step(
        &mut self,
        shutdown: &mut watch::Receiver<bool>,
        idle_check: Pin<&mut tokio::time::Sleep>,
    ) -> Step {
        // Before its flush has begun nobody needs to be told when it ends.
        let waits = !self.in_flight.is_empty() && self.owed_flush.is_none();
        if self.read_in_a_row >= READ_IN_A_ROW_MAX {
            self.read_in_a_row = 0;
            if *shutdown.borrow() {
                return Step::Shutdown;
            }
            if waits && let Some(outcome) = self.take_ready().await {
                return Step::Outcome(outcome);
            }
        }
        let closes = matches!(self.in_flight.back(), Some(InFlight::Done(Outcome::Close(_))));
        let reads = self.held.is_none() && self.in_flight.len() < IN_FLIGHT_MAX && !closes;
        tokio::select! {
            biased;
            frame = self.reader.next(&mut self.socket), if reads => Step::Frame(frame),
            () = std::future::ready(()), if self.owed_flush.is_some() => Step::NothingToRead,
            outcome = front_outcome(&mut self.in_flight), if waits => Step::Outcome(outcome),
            () = stopped(shutdown) => Step::Shutdown,
            () = idle_check, if self.in_flight.is_empty() => Step::IdleCheck,
        }
    }

    /// Handles a frame, or holds it back until everything before it is answered.
    fn take(&mut self, frame: Frame) {
        self.read_in_a_row += 1;
        let is_produce = is_produce(&frame.bytes);
        let may_begin = self.in_flight.is_empty() || (is_produce && self.only_produces);
        if !may_begin {
            self.held = Some(frame);
            return;
        }
        self.only_produces = is_produce;
        // A request that waits from here on has been read: its records are in the log, and what else it holds is small.
        let Frame { bytes, share } = frame;
        self.in_flight.push_back(match handlers::handle(&self.broker, &mut self.session, bytes) {
            Outcome::Later(pending) => InFlight::Waiting(pending),
            Outcome::AfterFlush { pending, has_followers } => {
                self.owed_flush.get_or_insert_default().has_followers |= has_followers;
                InFlight::Waiting(pending)
            }
            Outcome::Alone(pending) => {
                self.only_produces = false;
                // Some of its records may be in a log by now.
                self.owed_flush.get_or_insert_default();
                InFlight::Waiting(to_its_end(pending, share, Arc::clone(&self.seat)))
            }
            outcome @ (Outcome::Answer(_) | Outcome::Silent | Outcome::Close(_)) => {
                InFlight::Done(outcome)
            }
        });
    }

    fn begin_owed_flush(&mut self) {
        if self.owed_flush.take().is_some() {
            self.broker.directories.begin_flush();
        }
    }

    /// Sends what the oldest request came to; false when the connection is over.
    async fn finish(&mut self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Answer(mut answer) => {
                while let Some(next) = self.next_answer().await {
                    answer.followed_by(next);
                }
                if !self.send(answer).await {
                    return false;
                }
            }
            Outcome::Silent => {}
            Outcome::Later(pending)
            | Outcome::AfterFlush { pending, .. }
            | Outcome::Alone(pending) => {
                self.in_flight.push_front(InFlight::Waiting(pending));
                return true;
            }
            Outcome::Close(reason) => {
                self.log_close(&reason);
                return false;
            }
        }
        if self.in_flight.is_empty()
            && let Some(frame) = self.held.take()
        {
            self.take(frame);
        }
        true
    }

    /// Nothing more is read. What was read before is handled all the same, as Apache Kafka does, and whoever has only stopped
    /// sending hears of it: a handler begins when it is first looked at.
    async fn finish_what_is_there(&mut self) {
        while let Some(outcome) = self.take_ready().await {
            if !self.finish(outcome).await {
                return;
            }
        }
    }

    /// The answer to the oldest request in flight, if it is there: it can leave with the one before.
    async fn next_answer(&mut self) -> Option<Answer> {
        let outcome = self.take_ready().await?;
        if let Outcome::Answer(answer) = outcome {
            return Some(answer);
        }
        self.in_flight.push_front(InFlight::Done(outcome));
        None
    }

    /// What the oldest request in flight came to, if that is known.
    async fn take_ready(&mut self) -> Option<Outcome> {
        poll_fn(|context| match poll_front(&mut self.in_flight, context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    // `&mut`, though nothing changes: a shared reference would ask the waiting futures to be `Sync`.
    async fn send(&mut self, answer: Answer) -> bool {
        match answer.send(&self.socket).await {
            Ok(sent) => {
                self.broker.state.metrics.bytes_out.inc_by(sent as u64);
                true
            }
            Err(error) => {
                debug!(peer = %self.peer, %error, "connection lost while answering");
                false
            }
        }
    }

    /// Why nothing more is read; nothing is wrong where the peer has closed between two frames.
    fn log_end(&self, error: Option<FrameError>) {
        match error {
            None => {}
            Some(FrameError::Io(error)) => {
                debug!(peer = %self.peer, %error, "connection lost");
            }
            Some(error @ (FrameError::Length { .. } | FrameError::Truncated)) => {
                warn!(peer = %self.peer, %error, "connection closed");
                self.broker.state.metrics.bad_frames.inc();
            }
        }
    }

    fn log_close(&self, reason: &CloseReason) {
        self.broker.state.metrics.bad_frames.inc();
        warn!(peer = %self.peer, client_id = self.session.client_id(), %reason, "connection closed");
    }

    /// At shutdown: what was appended is still answered, nothing new is read.
    async fn drain(mut self) {
        self.begin_owed_flush();
        let deadline = Duration::from_secs(2);
        let _ = tokio::time::timeout(deadline, async {
            while !self.in_flight.is_empty() {
                let outcome = front_outcome(&mut self.in_flight).await;
                self.held = None;
                if !self.finish(outcome).await {
                    return;
                }
            }
        })
        .await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.begin_owed_flush();
        self.session.ended(&self.broker);
    }
}

/// A request that has been read is handled even if its connection closes before its turn: a producer that wants no answer
/// may do that at once. Until then it counts as its connection did, and keeps its share of `queued.max.request.bytes`.
fn to_its_end(pending: Pending, share: Option<OwnedSemaphorePermit>, seat: Arc<Seat>) -> Pending {
    let task = tokio::spawn(async move {
        let _kept = (share, seat);
        pending.await
    });
    Box::pin(async {
        match task.await {
            Ok(outcome) => outcome,
            // The runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        }
    })
}

fn is_produce(frame: &Bytes) -> bool {
    frame.first_chunk() == Some(&(ApiKey::Produce as i16).to_be_bytes())
}

/// Waits for the oldest request in flight and takes it out.
async fn front_outcome(in_flight: &mut VecDeque<InFlight>) -> Outcome {
    poll_fn(|context| poll_front(in_flight, context)).await
}

fn poll_front(
    in_flight: &mut VecDeque<InFlight>,
    context: &mut std::task::Context<'_>,
) -> Poll<Outcome> {
    let waited_for = match in_flight.front_mut() {
        None => return Poll::Pending,
        Some(InFlight::Done(_)) => None,
        Some(InFlight::Waiting(pending)) => Some(ready!(pending.as_mut().poll(context))),
    };
    let oldest = in_flight.pop_front();
    Poll::Ready(match (oldest, waited_for) {
        (_, Some(outcome)) | (Some(InFlight::Done(outcome)), None) => outcome,
        (_, None) => unreachable!("only a front that is done is ready without an outcome"),
    })
}
