//! How controllers ask each other where they stand, before and after there is a quorum. Shell.
//!
//! Before a node is started, [`Answering`] is all that listens for other controllers; a started one answers by itself.
//! Frames are those of `ottla_protocol::peer`.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use futures_util::future::join_all;
use ottla_base::BrokerId;
use ottla_broker::Standing;
use ottla_config::Voter;
use ottla_protocol::peer::{PeerKey, PeerRequest, answer_body, encode_answer};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{info, warn};

use super::Peers;

/// How long a controller may take to answer, connecting included.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest frame that is read: a cluster's id has 22 characters, but may be any text.
const FRAME_MAX: usize = 64 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Asks one node one thing, and returns the body of its answer, and who has given it.
pub(crate) async fn ask_peer(
    address: (&str, u16),
    key: PeerKey,
    body: Bytes,
) -> io::Result<(Bytes, IpAddr)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let peer = stream.peer_addr()?.ip();
        let request = PeerRequest { key, correlation_id: 0, body };
        stream.write_all(&request.encode()).await?;
        let frame = read_frame(&mut stream).await?;
        let body = answer_body(&frame).ok_or(io::ErrorKind::InvalidData)?;
        Ok((body, peer))
    };
    tokio::time::timeout(PATIENCE, exchange).await?
}

/// Asks one controller where it stands.
async fn ask(address: (&str, u16)) -> io::Result<(BrokerId, Standing)> {
    let (body, _) = ask_peer(address, PeerKey::Standing, Bytes::new()).await?;
    Standing::decode(body).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

async fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > FRAME_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame.into())
}

/// The voters of a configuration, at the addresses that it gives them.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    /// Those at whose address somebody else was found, which was said.
    mistaken: Mutex<BTreeSet<i32>>,
}

impl Peers for Configured {
    async fn standing(&self, voter: &Voter) -> io::Result<Standing> {
        let (id, standing) = ask((&voter.host, voter.port)).await?;
        if id.0 == voter.id {
            return Ok(standing);
        }
        if self.mistaken.lock().insert(voter.id) {
            let Voter { id: named, host, port } = voter;
            warn!(
                "controller.quorum.voters names node {named} at {host}:{port}, where node {id} is"
            );
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }
}

/// Answers on a controller listener until it is dropped.
#[derive(Debug)]
pub(crate) struct Answering(JoinHandle<()>);

impl Answering {
    pub(crate) fn start(
        socket: TcpListener,
        me: BrokerId,
        standing: watch::Receiver<Standing>,
    ) -> Self {
        Self(tokio::spawn(accept(socket, me, standing)))
    }

    /// Returns when nothing listens any more.
    pub(crate) async fn stop(mut self) {
        self.0.abort();
        // That it was told to stop is how it ends.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn accept(socket: TcpListener, me: BrokerId, standing: watch::Receiver<Standing>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) => _ = connections.spawn(answer(stream, me, standing.clone())),
                Err(error) => {
                    warn!(%error, "no controller's connection could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Answers one question. Whoever asks something else finds the connection closed, and asks again later.
async fn answer(mut stream: TcpStream, me: BrokerId, standing: watch::Receiver<Standing>) {
    let exchange = async {
        let frame = read_frame(&mut stream).await?;
        if let Some(PeerRequest { key: PeerKey::Standing, correlation_id, .. }) =
            PeerRequest::decode(&frame)
        {
            let body = standing.borrow().encode(me);
            stream.write_all(&encode_answer(correlation_id, &body)).await?;
        }
        stream.shutdown().await
    };
    // Whoever has hung up asks again.
    let _: Result<io::Result<()>, _> = tokio::time::timeout(PATIENCE, exchange).await;
}

/// Refuses to be a second node of this id: whoever answers at this node's own address, before it listens there, is one.
///
/// # Errors
/// If there is one.
pub(crate) async fn check_unique(own: &Voter) -> anyhow::Result<()> {
    let Voter { id, host, port } = own;
    match ask((host, *port)).await {
        Ok((BrokerId(other), _)) if other == *id => bail!(
            "another process is node {id}, and answers at {host}:{port}: every node needs a node.id of its own"
        ),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The cluster of the controllers at these addresses, if one of them knows it. Whoever adopts it has no vote, and so none
/// that it could have forgotten.
pub(crate) async fn cluster(addresses: &[(&str, u16)]) -> Option<String> {
    let answers = join_all(addresses.iter().map(|address| ask(*address))).await;
    answers.into_iter().find_map(|answer| match answer {
        Ok((_, Standing::Formed(id))) => Some(id),
        Ok((_, Standing::Empty | Standing::Forming(_))) | Err(_) => None,
    })
}

/// The same, as soon as one of them knows it.
pub(crate) async fn wait_for_cluster(addresses: &[(&str, u16)], pause: Duration) -> String {
    let mut has_said = false;
    loop {
        if let Some(id) = cluster(addresses).await {
            return id;
        }
        if !std::mem::replace(&mut has_said, true) {
            info!("waiting for a controller that knows its cluster");
        }
        tokio::time::sleep(pause).await;
    }
}

/// Refuses to be part of two clusters: if somebody answers at these addresses of controllers, and all of them belong to
/// another cluster, then the data is another cluster's, or the addresses are.
///
/// # Errors
/// If so. Silence is no reason: the others may be down.
pub(crate) async fn check_cluster(
    me: BrokerId,
    cluster_id: &str,
    addresses: &[(&str, u16)],
) -> anyhow::Result<()> {
    let answers = join_all(addresses.iter().map(|address| ask(*address))).await;
    let answers = answers.into_iter().filter_map(Result::ok).filter(|(id, _)| *id != me);
    let found: Vec<(BrokerId, Option<String>)> =
        answers.map(|(id, it)| (id, it.cluster_id().map(str::to_owned))).collect();
    let Some((id, Some(other))) = found.iter().find(|(_, other)| other.is_some()) else {
        return Ok(());
    };
    if found.iter().any(|(_, other)| other.as_deref() == Some(cluster_id)) {
        return Ok(());
    }
    bail!(
        "the data belongs to cluster {cluster_id}, but controller {id} to cluster {other}: is this the right disk, and \
         are the addresses of the controllers right?"
    )
}
