//! A snapshot on its way from the leader to a voter whose log ends before the leader's begins. Shell.
//!
//! It goes in pieces of at most [`PIECE_BYTES`], one at a time, after an empty one that only asks; each answer says how
//! much the receiver has, and that is where the sender goes on. So a transfer that was broken off is taken up again,
//! unless the receiver was started anew: then it has nothing. When all of it is there it is flushed, read to its end, and
//! only then given to openraft, which installs it. That may take longer than the sender has patience: it asks again.

use std::fs::File;
use std::io;
use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use openraft::raft::SnapshotResponse;
use tokio::sync::{Mutex, oneshot};

use super::SnapshotId;
use super::store::{Checkpoint, Part};
use crate::controller::QuorumRaft;
use crate::network::{CallError, Peer, unfitting};
use crate::raft::{TypeConfig, Vote};
use crate::service::ServeError;
use crate::state_machine::stored;
use crate::storage::Storage;
use crate::wire::{Answer, Piece, Request};

/// The most of a snapshot that is sent at once.
const PIECE_BYTES: usize = 1 << 20;

/// Sends a snapshot, and returns once it is installed, or the receiver knows of a later leader.
pub(crate) async fn send(
    peer: &Peer,
    vote: Vote,
    checkpoint: &Checkpoint,
) -> Result<SnapshotResponse<TypeConfig>, CallError> {
    let (id, len) = (checkpoint.extent.id, checkpoint.len);
    tracing::info!(snapshot = %id, bytes = len, "sending a snapshot of the metadata");
    let mut has_got = None;
    loop {
        let position = has_got.unwrap_or(0);
        let bytes = match has_got {
            None => Vec::new(),
            Some(_) => read(peer.storage(), &checkpoint.file, position).await.map_err(failed)?,
        };
        let is_last = position + bytes.len() as u64 == len;
        let piece = Piece { vote, id, len, position, bytes: bytes.into() };
        let answer = peer.ask(Request::Piece(piece), peer.patience()).await?;
        let Answer::HasGot { vote: theirs, len: now } = answer else {
            return Err(unfitting(&answer));
        };
        if now == len || theirs > vote {
            return Ok(SnapshotResponse::new(theirs));
        }
        if has_got.is_some_and(|before| now <= before) || is_last || now > len {
            return Err(CallError::from_string("the snapshot was not taken"));
        }
        has_got = Some(now);
    }
}

fn failed(error: io::Error) -> CallError {
    CallError::from_string(error)
}

async fn read(storage: &Storage, file: &Arc<File>, position: u64) -> io::Result<Vec<u8>> {
    let (snapshots, file) = (storage.clone(), Arc::clone(file));
    let read = move || snapshots.snapshots().read(&file, position, PIECE_BYTES);
    storage.aside(read).await.map_err(io::Error::other)?
}

/// Where pieces arrive. There is one snapshot at a time: one from another leader, or a newer one, takes the place of
/// what there is.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Mutex<Option<Arrived>>);

/// What there is of a snapshot, in its file.
#[derive(Debug)]
struct Arrived {
    id: SnapshotId,
    len: u64,
    part: Part,
    has_got: u64,
    /// All of it is there, and is being read.
    reading: Option<oneshot::Receiver<Option<Checkpoint>>>,
}

impl Inbox {
    pub(crate) async fn take(
        &self,
        raft: &QuorumRaft,
        storage: &Storage,
        piece: Piece,
    ) -> Result<Answer, ServeError> {
        // One after the other: a leader that has lost patience asks again.
        let mut inbox = self.0.lock().await;
        let vote = own_vote(raft);
        if vote > piece.vote {
            return Ok(Answer::HasGot { vote, len: 0 });
        }
        let newest = storage.snapshots().newest_extent();
        if newest.is_some_and(|newest| newest.id.end_offset >= piece.id.end_offset) {
            // It is installed, and the answer that said so was lost.
            return Ok(Answer::HasGot { vote, len: piece.len });
        }
        let arrived = match add(&mut inbox, storage, &piece).await {
            Ok(arrived) => arrived,
            Err(error) => {
                tracing::warn!(%error, "cannot write what the leader sends of a snapshot");
                *inbox = None;
                return Ok(Answer::HasGot { vote, len: 0 });
            }
        };
        if arrived.has_got < arrived.len {
            return Ok(Answer::HasGot { vote, len: arrived.has_got });
        }
        // Whoever waits here may go away, and the next one waits for the same.
        let reading = arrived.reading.get_or_insert_with(|| complete(storage, &arrived.part));
        let checkpoint = reading.await;
        let part = arrived.part.clone();
        *inbox = None;
        let Ok(Some(checkpoint)) = checkpoint else { return Ok(Answer::HasGot { vote, len: 0 }) };
        tracing::info!(snapshot = %piece.id, "installing a snapshot that the leader has sent");
        let snapshot = stored(checkpoint, storage.myself());
        let installed = raft.install_full_snapshot(piece.vote, snapshot).await;
        let vote = installed.map_err(|error| ServeError::Stopped(error.to_string()))?.vote;
        // There is still one where openraft had no need of it.
        storage.snapshots().give_up(&part);
        Ok(Answer::HasGot { vote, len: piece.len })
    }
}

fn own_vote(raft: &QuorumRaft) -> Vote {
    raft.server_metrics().borrow_watched().vote
}

/// Adds a piece to what there is. One that does not fit changes nothing: the answer tells where to go on.
async fn add<'a>(
    inbox: &'a mut Option<Arrived>,
    storage: &Storage,
    piece: &Piece,
) -> io::Result<&'a mut Arrived> {
    if inbox.as_ref().is_none_or(|it| (it.id, it.len) != (piece.id, piece.len)) {
        if let Some(other) = inbox.take() {
            storage.snapshots().give_up(&other.part);
        }
        let part = storage.snapshots().begin(piece.id)?;
        let (id, len) = (piece.id, piece.len);
        *inbox = Some(Arrived { id, len, part, has_got: 0, reading: None });
    }
    let arrived = inbox.as_mut().expect("it was just made");
    if piece.position == arrived.has_got && !piece.bytes.is_empty() {
        let (snapshots, part, piece) = (storage.clone(), arrived.part.clone(), piece.clone());
        let end = piece.position + piece.bytes.len() as u64;
        let write = move || snapshots.snapshots().add(&part, &piece.bytes, piece.position);
        storage.aside(write).await.map_err(io::Error::other)??;
        arrived.has_got = end;
    }
    Ok(arrived)
}

/// Reads what has arrived; `None` if it is no whole snapshot.
fn complete(storage: &Storage, part: &Part) -> oneshot::Receiver<Option<Checkpoint>> {
    let (snapshots, part) = (storage.clone(), part.clone());
    storage.aside(move || match snapshots.snapshots().complete(&part) {
        Ok(checkpoint) => Some(checkpoint),
        Err(error) => {
            tracing::error!(%error, "the leader has sent a snapshot that is none");
            None
        }
    })
}
