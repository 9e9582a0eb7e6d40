//! One plain connection to a broker: bytes out, frames in, and whether the other side hung up (shell).

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

/// A compiler beside the brokers must not look like a difference between them.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// No answer is longer; what claims to be is not an answer.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// What came of waiting for a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Without its length.
    Frame(Bytes),
    Closed,
    /// Neither an answer nor a close in time.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) fn open(address: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self(stream))
    }

    /// Waits for an answer for so long only.
    pub(crate) fn wait_at_most(&self, limit: Duration) -> Result<()> {
        self.0.set_read_timeout(Some(limit)).context("no time limit for reading")
    }

    /// Our own end, which the broker calls its peer.
    pub(crate) fn local_address(&self) -> Result<SocketAddr> {
        self.0.local_addr().context("a connection has two ends")
    }

    /// A broker that hangs up while we write is found when we read.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).ok();
    }

    /// Says that nothing more will come.
    pub(crate) fn finish_sending(&self) {
        self.0.shutdown(Shutdown::Write).ok();
    }

    /// Waits for the first byte of an answer, and leaves it there.
    pub(crate) fn wait_for_an_answer_to_begin(&self) -> Result<()> {
        let seen = self.0.peek(&mut [0]).context("no answer begins")?;
        ensure!(seen == 1, "the broker hung up");
        Ok(())
    }

    pub(crate) fn receive(&mut self) -> Result<Reply> {
        let mut length = [0; 4];
        if let Some(end) = end_of(self.0.read_exact(&mut length))? {
            return Ok(end);
        }
        let length = usize::try_from(i32::from_be_bytes(length)).ok();
        let length = length.filter(|length| *length <= FRAME_BYTES_MAX);
        let mut frame = vec![0; length.context("an answer has no sensible length")?];
        match end_of(self.0.read_exact(&mut frame))? {
            Some(end) => Ok(end),
            None => Ok(Reply::Frame(frame.into())),
        }
    }
}

/// Why nothing was read, when nothing was.
fn end_of(read: std::io::Result<()>) -> Result<Option<Reply>> {
    let Err(error) = read else { return Ok(None) };
    Ok(Some(match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Reply::Nothing,
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe => Reply::Closed,
        _ => return Err(error).context("the connection broke"),
    }))
}
