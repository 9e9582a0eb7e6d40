//! Cuts a connection's bytes into frames: a big-endian int32 length, then that many bytes.
//!
//! Invariants: `buffer` holds only bytes that no frame was cut from yet; an idle connection holds no
//! buffer at all; a peer that announces a large frame costs memory only as its bytes arrive; where requests
//! have a bound together, a frame is read to its end only when it has its share.

use std::future::poll_fn;
use std::io;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const LENGTH_LEN: usize = 4;
/// Room for what has not arrived yet, within these bounds: four times what the latest reads gave, so that one call reads all that
/// a client sends together.
const READ_AHEAD: RangeInclusive<usize> = 8 * 1024..=256 * 1024;
/// Room that an announced length gets before the bytes themselves have arrived.
const STEP_MAX: usize = 1024 * 1024;

/// Why no frame could be cut; the connection is closed in each case.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error(
        "invalid frame length {length}: expected 0..={max}; is the peer speaking Kafka's protocol in plaintext?"
    )]
    Length { length: i32, max: usize },
    #[error("the peer closed the connection in the middle of a frame")]
    Truncated,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One request as it came.
#[derive(Debug)]
pub struct Frame {
    pub bytes: Bytes,
    /// Its share of `queued.max.request.bytes`, to be kept until the request has been handled.
    pub share: Option<OwnedSemaphorePermit>,
}

/// Reads frames from a socket. [`FrameReader::next`] may be dropped and called again at any point.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    /// The most that a read gave, the latest one counted fully and each earlier one half as much as the next.
    latest_reads: usize,
    frame_bytes_max: usize,
    /// What all requests that wait to be handled may take together, if that is bounded.
    all: Option<Arc<Semaphore>>,
    /// What the frame that is being read has got of that.
    share: Option<OwnedSemaphorePermit>,
}

impl FrameReader {
    /// `frame_bytes_max` is Kafka's `socket.request.max.bytes`; `all` has a permit for each byte of its
    /// `queued.max.request.bytes`, which holds at least one frame of that length.
    #[must_use]
    pub fn new(frame_bytes_max: usize, all: Option<Arc<Semaphore>>) -> Self {
        Self { buffer: BytesMut::new(), latest_reads: 0, frame_bytes_max, all, share: None }
    }

    /// The next frame without its length, or `None` when the peer closed between two frames.
    ///
    /// # Errors
    /// [`FrameError`]; the stream can't be read any further then.
    pub async fn next(&mut self, socket: &mut TcpStream) -> Result<Option<Frame>, FrameError> {
        loop {
            self.take_share().await?;
            if let Some(frame) = self.cut()? {
                return Ok(Some(frame));
            }
            if self.fill(socket).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
    }

    /// Cuts one frame off the bytes that have arrived, if they hold a whole one.
    fn cut(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(length) = self.announced_length()? else { return Ok(None) };
        if self.buffer.len() < LENGTH_LEN + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_LEN);
        let bytes = self.buffer.split_to(length).freeze();
        Ok(Some(Frame { bytes, share: self.share.take() }))
    }

    /// Waits until there is room for a frame whose length is known.
    async fn take_share(&mut self) -> Result<(), FrameError> {
        if let Some(all) = &self.all
            && self.share.is_none()
            && let Some(length) = self.announced_length()?
        {
            let bytes = u32::try_from(length).unwrap_or(u32::MAX);
            let share = Arc::clone(all).acquire_many_owned(bytes).await;
            self.share = Some(share.expect("nobody closes it"));
        }
        Ok(())
    }

    fn announced_length(&self) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        let length = i32::from_be_bytes(*prefix);
        match usize::try_from(length) {
            Ok(len) if len <= self.frame_bytes_max => Ok(Some(len)),
            _ => Err(FrameError::Length { length, max: self.frame_bytes_max }),
        }
    }

    /// The socket is asked again only when it has more: a read that leaves room has emptied it.
    async fn fill(&mut self, socket: &mut TcpStream) -> Result<usize, FrameError> {
        let read = poll_fn(|context| {
            self.reserve()?;
            let polled = pin!(socket.read_buf(&mut self.buffer)).poll(context);
            if polled.is_pending() && self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            polled.map_err(FrameError::from)
        })
        .await?;
        self.latest_reads = read.max(self.latest_reads / 2);
        Ok(read)
    }

    fn reserve(&mut self) -> Result<(), FrameError> {
        let have = self.buffer.len();
        let ahead = (4 * self.latest_reads).clamp(*READ_AHEAD.start(), *READ_AHEAD.end());
        let announced = self.announced_length()?.map_or(0, |length| LENGTH_LEN + length);
        let missing = announced.saturating_sub(have).min(STEP_MAX.max(have));
        self.buffer.reserve(missing.max(ahead.saturating_sub(have)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    fn reader_with(bytes: &[u8]) -> FrameReader {
        let mut reader = FrameReader::new(100, None);
        reader.buffer.extend_from_slice(bytes);
        reader
    }

    #[test]
    fn frames_are_cut_one_after_another() {
        let mut reader = reader_with(&[0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 3, b'c']);
        assert_eq!(cut(&mut reader), "ab");
        assert_eq!(cut(&mut reader), "");
        assert!(reader.cut().unwrap().is_none());
        reader.buffer.extend_from_slice(b"de");
        assert_eq!(cut(&mut reader), "cde");
    }

    #[test]
    fn a_negative_or_oversized_length_is_refused_before_anything_is_allocated() {
        for bytes in [[0xff, 0xff, 0xff, 0xff], [0, 0, 0, 101], *b"GET "] {
            let mut reader = reader_with(&bytes);
            assert!(matches!(reader.cut(), Err(FrameError::Length { .. })));
        }
    }

    #[test]
    fn an_announced_length_reserves_no_more_than_a_step() {
        let mut reader = FrameReader::new(100 << 20, None);
        reader.buffer.extend_from_slice(&(90i32 << 20).to_be_bytes());
        reader.reserve().unwrap();
        assert!(reader.buffer.capacity() < 2 * STEP_MAX);
    }

    fn cut(reader: &mut FrameReader) -> Bytes {
        reader.cut().unwrap().unwrap().bytes
    }

    /// Both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_frame_waits_until_others_leave_room_for_it() {
        let all = Arc::new(Semaphore::new(10));
        let reader = || FrameReader::new(10, Some(Arc::clone(&all)));
        let ((mut first, mut first_end), (mut second, mut second_end)) =
            (pair().await, pair().await);
        let (mut first_reader, mut second_reader) = (reader(), reader());
        first.write_all(&[0, 0, 0, 8, 1, 1, 1, 1, 1, 1, 1, 1]).await.unwrap();
        let frame = first_reader.next(&mut first_end).await.unwrap().unwrap();
        second.write_all(&[0, 0, 0, 3, 2, 2, 2]).await.unwrap();
        second_end.readable().await.unwrap();
        assert!(second_reader.next(&mut second_end).now_or_never().is_none());
        // It has been handled.
        drop(frame);
        let frame = second_reader.next(&mut second_end).await.unwrap().unwrap();
        assert_eq!((&*frame.bytes, all.available_permits()), (&[2, 2, 2][..], 7));
    }
}
