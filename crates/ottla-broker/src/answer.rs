//! Answers on their way to the socket: encoded bytes with file ranges between them, sent without copying the files.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use bytes::Bytes;
use ottla_base::ErrorCode;
use ottla_protocol::frame::{Outgoing, encode_response};
use ottla_protocol::wire::Structure;
use ottla_protocol::{ApiKey, EncodeError, Encoder, Message};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Where the bytes of a fetched range come from (architecture: the fetch plan). Tiered storage will
/// add remote segments.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// `len` bytes of a segment file from `position`; both in bytes.
    File { file: Arc<File>, position: u64, len: usize },
}

impl Source {
    #[must_use]
    pub(crate) const fn len(&self) -> usize {
        match self {
            Self::File { len, .. } => *len,
        }
    }
}

/// A response frame, its length prefix, header and body, cut where sources come in between; and those that leave with it.
#[derive(Debug)]
pub(crate) struct Answer {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Bytes(Bytes),
    Source(Source),
}

/// A range that is longer goes without the bytes before it in its first packet. Ranges begin anywhere in a page, and the
/// kernel cuts them into packets of as many pieces of pages as fit: one piece more, and every packet ends at another place
/// than where the next piece of the file begins, so that there are more of them, a fifth more CPU in all.
const SHARES_PACKET_MAX: usize = 128 * 1024;

impl Part {
    /// What is in memory of it.
    fn bytes(&self) -> Option<IoSlice<'_>> {
        match self {
            Self::Bytes(bytes) => Some(IoSlice::new(bytes)),
            Self::Source(_) => None,
        }
    }

    /// Whether it may go in one packet with what comes before it.
    fn shares_packet(&self) -> bool {
        match self {
            Self::Bytes(_) => true,
            Self::Source(source) => source.len() <= SHARES_PACKET_MAX,
        }
    }
}

/// Longest range that one call to `sendfile` is asked for: a connection with a fast reader leaves
/// the thread to the others from time to time.
const SEND_STEP: usize = 1024 * 1024;

/// The length before a frame.
const LENGTH_LEN: usize = 4;

impl Answer {
    /// Encodes a response; `sources` fill the slots of the body's deferred records.
    ///
    /// # Errors
    /// If a field is set that `version` can't carry: a bug of the handler.
    pub(crate) fn new<M: Message>(
        api_key: ApiKey,
        version: i16,
        correlation_id: i32,
        body: &M,
        sources: Vec<Source>,
    ) -> Result<Self, EncodeError> {
        let outgoing = encode_response(api_key, version, correlation_id, body)?;
        Ok(Self { parts: cut(outgoing, sources) })
    }

    /// A whole frame that somebody else has made, with its length.
    #[must_use]
    pub(crate) fn raw(frame: Bytes) -> Self {
        Self { parts: vec![Part::Bytes(frame)] }
    }

    /// Header and body without the length, or `None` if some of it is still in a file.
    #[must_use]
    pub(crate) fn into_body(self) -> Option<Bytes> {
        let mut parts = self.parts.into_iter();
        match (parts.next(), parts.next()) {
            (Some(Part::Bytes(frame)), None) => Some(frame.slice(LENGTH_LEN.min(frame.len())..)),
            _ => None,
        }
    }

    /// Puts another answer behind this one, to be sent with it.
    pub(crate) fn followed_by(&mut self, next: Self) {
        self.parts.extend(next.parts);
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// A failed socket, or a file that ended early. A frame is then incomplete and the connection
    /// must be closed; it is never padded.
    pub(crate) async fn send(self, socket: &TcpStream) -> io::Result<usize> {
        let (mut sent, mut parts) = (0, &self.parts[..]);
        while let Some((part, rest)) = parts.split_first() {
            let mut run: Vec<_> = parts.iter().map_while(Part::bytes).collect();
            sent += match part {
                Part::Bytes(_) => {
                    parts = parts.get(run.len()..).unwrap_or_default();
                    let more = parts.first().is_some_and(Part::shares_packet);
                    send_bytes(socket, &mut run, more).await?
                }
                Part::Source(Source::File { file, position, len }) => {
                    parts = rest;
                    send_file(socket, file, *position, *len).await?
                }
            };
        }
        Ok(sent)
    }
}

/// Cuts the encoded bytes at the gaps, and puts the sources in.
fn cut(outgoing: Outgoing, sources: Vec<Source>) -> Vec<Part> {
    let Outgoing { bytes: mut rest, gaps, .. } = outgoing;
    let mut sources: Vec<Option<Source>> = sources.into_iter().map(Some).collect();
    let mut cut_at = 0;
    let mut parts = Vec::with_capacity(gaps.len() * 2 + 1);
    for gap in gaps {
        let slot = usize::try_from(gap.slot).expect("a slot is an index");
        let source = sources.get_mut(slot).and_then(Option::take).expect("a slot has one source");
        parts.push(Part::Bytes(rest.split_to(gap.at - cut_at)));
        parts.push(Part::Source(source));
        cut_at = gap.at;
    }
    if !rest.is_empty() {
        parts.push(Part::Bytes(rest));
    }
    parts
}

async fn send_bytes(
    socket: &TcpStream,
    mut left: &mut [IoSlice<'_>],
    more: bool,
) -> io::Result<usize> {
    let mut sent = 0;
    // Without the empty ones.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        let send = || ottla_env::sys::send(socket.as_fd(), left, more);
        match socket.try_io(Interest::WRITABLE, send) {
            Ok(taken) => {
                IoSlice::advance_slices(&mut left, taken);
                sent += taken;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

async fn send_file(
    socket: &TcpStream,
    file: &Arc<File>,
    mut position: u64,
    len: usize,
) -> io::Result<usize> {
    let mut left = len;
    while left > 0 {
        let step = left.min(SEND_STEP);
        warm_up(file, position, step).await?;
        let mut step_left = step;
        while step_left > 0 {
            let result = socket.try_io(Interest::WRITABLE, || {
                ottla_env::sys::send_file(socket.as_fd(), file, position, step_left)
            });
            match result {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(sent) => {
                    position += sent as u64;
                    step_left -= sent;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.writable().await?;
                }
                Err(error) => return Err(error),
            }
        }
        left -= step;
    }
    Ok(len)
}

/// Brings a range that is not in the page cache there on a thread that may block, so that one cold
/// reader never stalls the connections that share its thread.
async fn warm_up(file: &Arc<File>, position: u64, len: usize) -> io::Result<()> {
    if ottla_env::sys::is_cached(file, position, len) {
        return Ok(());
    }
    let file = Arc::clone(file);
    tokio::task::spawn_blocking(move || ottla_env::sys::read_ahead(&file, position, len))
        .await
        .map_err(io::Error::other)?
}

pub(crate) type Pending = std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What a handler makes of a request.
pub(crate) enum Outcome {
    Answer(Answer),
    /// The answer comes when something happens; later requests of this connection that do not
    /// depend on it may be handled meanwhile.
    Later(Pending),
    /// As [`Outcome::Later`], once what was appended is on disk: whoever has appended all that there is begins that flush.
    AfterFlush {
        pending: Pending,
        /// Whether followers were woken that wait for what was appended.
        has_followers: bool,
    },
    /// The answer comes later, and nothing else of this connection begins before: what was asked for is not done yet.
    Alone(Pending),
    /// A produce with acks=0 that went well.
    Silent,
    /// The connection is closed without an answer, as Kafka does.
    Close(CloseReason),
}

impl Outcome {
    /// What it comes to, where nothing else is done meanwhile.
    pub(crate) async fn in_the_end(mut self) -> Self {
        while let Self::Later(pending) | Self::AfterFlush { pending, .. } | Self::Alone(pending) =
            self
        {
            self = pending.await;
        }
        self
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Answer(_) => "Answer",
            Self::Later(_) => "Later",
            Self::AfterFlush { .. } => "AfterFlush",
            Self::Alone(_) => "Alone",
            Self::Silent => "Silent",
            Self::Close(_) => "Close",
        })
    }
}

/// The most that an answer may take whose size does not follow from the size of its request. Twenty thousand topics and
/// all of their properties fit.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is left for an answer that grows by far more than its request with each entry: a request may name one resource
/// thousands of times, or thousands that do not exist and have defaults. Apache Kafka answers until its heap is full.
#[derive(Debug)]
pub(crate) struct Room {
    version: i16,
    left: usize,
}

impl Room {
    #[must_use]
    pub(crate) const fn new(version: i16) -> Self {
        Self { version, left: ANSWER_BYTES_MAX }
    }

    /// Lets an entry into the answer if there is room for it.
    ///
    /// # Errors
    /// If there is none, or if the entry can't be encoded.
    pub(crate) fn admit<S: Structure>(&mut self, entry: S) -> Result<S, CloseReason> {
        let mut encoder = Encoder::new();
        entry.write(&mut encoder, self.version)?;
        self.reserve(1, encoder.total_len())?;
        Ok(entry)
    }

    /// Takes the room of so many entries of so many bytes each, before there are any.
    ///
    /// # Errors
    /// If there is not as much.
    pub(crate) fn reserve(&mut self, entries: usize, bytes: usize) -> Result<(), CloseReason> {
        let bytes = entries.checked_mul(bytes).ok_or(CloseReason::TooLarge)?;
        self.left = self.left.checked_sub(bytes).ok_or(CloseReason::TooLarge)?;
        Ok(())
    }
}

/// Why a connection is closed on a request that was understood well enough to be named.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloseReason {
    #[error("{0} is not served on this listener")]
    NotServed(&'static str),
    #[error("{api} version {version} is not served")]
    UnsupportedVersion { api: &'static str, version: i16 },
    #[error("malformed request: {0}")]
    Malformed(#[from] ottla_protocol::DecodeError),
    #[error("the request names something of an unknown kind")]
    UnknownKind,
    #[error("a produce with acks=0 failed with {0}, and has no other way to say so")]
    SilentProduceFailed(ErrorCode),
    #[error("the answer would be larger than {ANSWER_BYTES_MAX} bytes: ask for less at a time")]
    TooLarge,
    #[error("the answer can't be encoded: {0}")]
    Encode(#[from] EncodeError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_for_so_many_bytes_and_no_more() {
        let mut room = Room::new(0);
        assert!(matches!(room.reserve(usize::MAX, 2), Err(CloseReason::TooLarge)));
        room.reserve(64, 1024 * 1024).unwrap();
        room.reserve(usize::MAX, 0).unwrap();
        assert!(matches!(room.reserve(1, 1), Err(CloseReason::TooLarge)));
    }
}
