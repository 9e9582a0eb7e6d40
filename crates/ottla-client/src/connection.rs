//! One connection to one broker: requests go out as they come, answers are matched to them in order.
//!
//! Two tasks own the socket's halves. A request is noted in the queue of awaited answers before
//! its bytes are written, and a broker answers in order, so the head of that queue is always the
//! request which the next frame answers; any other correlation id means that the stream is lost.
//! The first failure closes both halves, and every request in flight learns of it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ottla_env::sys;
use ottla_protocol::messages::ApiVersionsRequest;
use ottla_protocol::peer::{self, NODE_SOFTWARE_NAME, PeerKey, PeerRequest};
use ottla_protocol::{Message as _, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::address::Address;
use crate::error::ClientError;
use crate::versions::BrokerVersions;
use crate::wire;

/// Requests that may wait for the socket; beyond them, senders wait.
const QUEUE_LEN: usize = 64;
/// An answer is read into memory whole. Fetch answers obey the limits that we ask for, others are small.
const FRAME_LEN_MAX: usize = 1 << 30;
/// Memory that an announced length gets before its bytes have come.
const FIRST_READ_MAX: usize = 1 << 20;
const READ_BUFFER_LEN: usize = 64 << 10;

/// How long another node's machine may leave unacknowledged what was sent to it.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Who opens a connection: a broker may serve more to other nodes than to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    Client,
    Node,
}

impl Speaker {
    const fn software_name(self) -> &'static str {
        match self {
            Self::Client => "ottla",
            Self::Node => NODE_SOFTWARE_NAME,
        }
    }
}

/// A cheap handle; the socket closes when the last one is dropped.
#[derive(Debug)]
pub struct Connection {
    pub(crate) address: Address,
    pub(crate) versions: BrokerVersions,
    client_id: Arc<str>,
    outgoing: mpsc::Sender<Outgoing>,
    next_correlation_id: AtomicI32,
    failure: Failure,
    abandoned: watch::Sender<bool>,
    /// Closed once nothing more is read.
    reading: watch::Receiver<()>,
}

/// Why the connection is of no use any more, once it is not.
type Failure = Arc<OnceLock<Arc<io::Error>>>;

#[derive(Debug)]
struct Outgoing {
    frame: Bytes,
    correlation_id: i32,
    reply: Reply,
}

#[derive(Debug)]
enum Reply {
    /// The broker answers with a frame.
    Frame(oneshot::Sender<Bytes>),
    /// The broker will not answer (Produce with acks=0): done when the bytes are with the kernel.
    Written(oneshot::Sender<()>),
}

#[derive(Debug)]
struct Awaited {
    correlation_id: i32,
    reply: oneshot::Sender<Bytes>,
}

impl Connection {
    /// Connects, and asks which versions of which requests the broker understands.
    ///
    /// # Errors
    /// When nobody listens there, or no Kafka broker, or not within the limit.
    pub async fn open(
        address: &Address,
        client_id: Arc<str>,
        speaker: Speaker,
        limit: Duration,
    ) -> Result<Self, ClientError> {
        let opening = Self::open_unlimited(address, client_id, speaker);
        tokio::time::timeout(limit, opening).await.unwrap_or_else(|_| {
            let what = format!("from {address} to the first request");
            Err(ClientError::TimedOut { what, after: limit })
        })
    }

    async fn open_unlimited(
        address: &Address,
        client_id: Arc<str>,
        speaker: Speaker,
    ) -> Result<Self, ClientError> {
        let failed = |error| connection_error(address, error);
        let stream = match speaker {
            Speaker::Client => TcpStream::connect((&*address.host, address.port)).await,
            Speaker::Node => connect_soon(address).await,
        };
        let stream = stream.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        heed_silence(&stream, speaker).map_err(failed)?;
        let mut connection = Self::over(stream, address.clone(), client_id);
        connection.versions = connection.ask_versions(speaker).await?;
        Ok(connection)
    }

    fn over(stream: TcpStream, address: Address, client_id: Arc<str>) -> Self {
        let (reader, writer) = stream.into_split();
        let (outgoing, requests) = mpsc::channel(QUEUE_LEN);
        let (await_answer, awaited) = mpsc::unbounded_channel();
        let failure = Failure::default();
        let abandoned = watch::Sender::new(false);
        let (is_reading, reading) = watch::channel(());
        tokio::spawn(write_until_abandoned(
            writer,
            abandoned.subscribe(),
            requests,
            await_answer,
            failure.clone(),
        ));
        let answers = read_until_abandoned(reader, abandoned.subscribe(), awaited, failure.clone());
        tokio::spawn(async move {
            answers.await;
            drop(is_reading);
        });
        Self {
            address,
            versions: BrokerVersions::default(),
            client_id,
            outgoing,
            next_correlation_id: AtomicI32::new(0),
            failure,
            abandoned,
            reading,
        }
    }

    /// A broker that does not know our version answers in version 0, naming those it knows (KIP-511).
    async fn ask_versions(&self, speaker: Speaker) -> Result<BrokerVersions, ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: speaker.software_name().into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let newest = *ApiVersionsRequest::VERSIONS.end();
        let answer = self.exchange(&request, newest).await?;
        let response = match wire::read_api_versions(&self.address, answer, newest)? {
            wire::Versions::Known(response) => response,
            wire::Versions::TryInstead(version) => {
                let answer = self.exchange(&ApiVersionsRequest::default(), version).await?;
                wire::read_answer::<ApiVersionsRequest>(&self.address, answer, version)?
            }
        };
        wire::broker_versions(response)
    }

    /// Whether another connection is needed for what comes next.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.failure.get().is_some() || self.outgoing.is_closed()
    }

    /// Until the other side has closed the connection, or it has broken, also while nothing is asked.
    pub async fn broken(&self) {
        let mut reading = self.reading.clone();
        // Nothing is ever sent: it ends with an error when the reader does.
        while reading.changed().await.is_ok() {}
    }

    /// Sends a request in the highest version that both sides speak, and waits for the answer.
    ///
    /// # Errors
    /// When the connection has failed, the broker does not serve the request, or the answer makes no sense.
    pub async fn send<R: Request>(
        &self,
        request: &R,
        limits: Limits,
    ) -> Result<R::Response, ClientError> {
        let version = self.versions.choose::<R>(&self.address, limits.version_max)?;
        let exchange = self.exchange(request, version);
        let answer = self.in_time(limits.time, R::KEY.name(), exchange).await?;
        wire::read_answer::<R>(&self.address, answer, version)
    }

    /// Sends a message of our own to a node of the same cluster, and waits for the body of its answer.
    ///
    /// # Errors
    /// When the connection has failed, or there is no answer in time.
    pub async fn ask_peer(
        &self,
        key: PeerKey,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        let exchange = async {
            let (reply, answer) = oneshot::channel();
            self.enqueue_peer(key, body, Reply::Frame(reply)).await?;
            answer.await.map_err(|_| self.failure())
        };
        let answer = self.in_time(limit, "a peer's message", exchange).await?;
        peer::answer_body(&answer).ok_or_else(|| self.failure())
    }

    async fn in_time(
        &self,
        limit: Duration,
        asked: &str,
        exchange: impl Future<Output = Result<Bytes, ClientError>>,
    ) -> Result<Bytes, ClientError> {
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
            // Whatever is behind this request would wait, too: better a new connection.
            self.fail(io::Error::new(io::ErrorKind::TimedOut, "a request was not answered"));
            let what = format!("from {} to {asked}", self.address);
            Err(ClientError::TimedOut { what, after: limit })
        })
    }

    /// Sends a request that the broker does not answer.
    pub(crate) async fn send_unanswered<R: Request>(
        &self,
        request: &R,
        limits: Limits,
    ) -> Result<(), ClientError> {
        let version = self.versions.choose::<R>(&self.address, limits.version_max)?;
        let (written, done) = oneshot::channel();
        self.enqueue(request, version, Reply::Written(written)).await?;
        done.await.map_err(|_| self.failure())
    }

    async fn exchange<R: Request>(&self, request: &R, version: i16) -> Result<Bytes, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(request, version, Reply::Frame(reply)).await?;
        answer.await.map_err(|_| self.failure())
    }

    async fn enqueue<R: Request>(
        &self,
        request: &R,
        version: i16,
        reply: Reply,
    ) -> Result<(), ClientError> {
        let correlation_id = self.next_correlation_id.fetch_add(1, Ordering::Relaxed);
        let frame = wire::frame(request, version, correlation_id, &self.client_id)?;
        self.enqueue_frame(Outgoing { frame, correlation_id, reply }).await
    }

    async fn enqueue_peer(
        &self,
        key: PeerKey,
        body: Bytes,
        reply: Reply,
    ) -> Result<(), ClientError> {
        let correlation_id = self.next_correlation_id.fetch_add(1, Ordering::Relaxed);
        let frame = PeerRequest { key, correlation_id, body }.encode();
        self.enqueue_frame(Outgoing { frame, correlation_id, reply }).await
    }

    async fn enqueue_frame(&self, outgoing: Outgoing) -> Result<(), ClientError> {
        self.outgoing.send(outgoing).await.map_err(|_| self.failure())
    }

    /// Ends the connection at once, and forgets what the peer has not received yet: nothing of it arrives any more. After
    /// an ordinary end the operating system goes on trying, for minutes where the network is down.
    pub fn abandon(&self) {
        self.fail(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was given up"));
        self.abandoned.send_replace(true);
    }

    fn fail(&self, error: io::Error) {
        self.failure.get_or_init(|| Arc::new(error));
    }

    fn failure(&self) -> ClientError {
        let source = self.failure.get_or_init(|| Arc::new(closed()));
        ClientError::Connection { address: self.address.clone(), source: Arc::clone(source) }
    }
}

/// What a single request may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub time: Duration,
    pub version_max: i16,
}

impl Limits {
    /// Any version, within a time.
    #[must_use]
    pub const fn within(time: Duration) -> Self {
        Self { time, version_max: i16::MAX }
    }
}

/// A node asks others all the time, and must find one that is back behind a network that was cut: another connection gets
/// there sooner than what is under way in this one.
fn heed_silence(stream: &TcpStream, speaker: Speaker) -> io::Result<()> {
    match speaker {
        Speaker::Node => sys::give_up_unacknowledged_after(stream.as_fd(), SILENCE_MAX),
        Speaker::Client => Ok(()),
    }
}

fn connection_error(address: &Address, error: io::Error) -> ClientError {
    ClientError::Connection { address: address.clone(), source: Arc::new(error) }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the broker closed the connection")
}

/// Returns once the connection is abandoned, and never if it just ends.
async fn abandonment(mut abandoned: watch::Receiver<bool>) {
    if abandoned.wait_for(|it| *it).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn write_until_abandoned(
    mut socket: OwnedWriteHalf,
    abandoned: watch::Receiver<bool>,
    requests: mpsc::Receiver<Outgoing>,
    await_answer: mpsc::UnboundedSender<Awaited>,
    failure: Failure,
) {
    tokio::select! {
        () = write_requests(&mut socket, requests, await_answer, failure) => return,
        () = abandonment(abandoned) => {}
    }
    // Where this fails, the socket is gone.
    let _ = socket.as_ref().set_zero_linger();
    socket.forget();
}

async fn read_until_abandoned(
    socket: OwnedReadHalf,
    abandoned: watch::Receiver<bool>,
    awaited: mpsc::UnboundedReceiver<Awaited>,
    failure: Failure,
) {
    tokio::select! {
        () = read_answers(socket, awaited, failure) => {}
        () = abandonment(abandoned) => {}
    }
}

/// Ends when the handle is dropped or the socket fails; closing its half ends the reader, too.
async fn write_requests(
    socket: &mut OwnedWriteHalf,
    mut requests: mpsc::Receiver<Outgoing>,
    await_answer: mpsc::UnboundedSender<Awaited>,
    failure: Failure,
) {
    while let Some(Outgoing { frame, correlation_id, reply }) = requests.recv().await {
        let written = match reply {
            Reply::Frame(reply) => {
                if await_answer.send(Awaited { correlation_id, reply }).is_err() {
                    return;
                }
                None
            }
            Reply::Written(written) => Some(written),
        };
        if let Err(error) = socket.write_all(&frame).await {
            failure.get_or_init(|| Arc::new(error));
            return;
        }
        if let Some(written) = written {
            // The one who asked may have stopped waiting.
            let _ = written.send(());
        }
    }
}

/// Ends when the broker closes the connection, which it does once the writer has closed its half.
async fn read_answers(
    socket: OwnedReadHalf,
    mut awaited: mpsc::UnboundedReceiver<Awaited>,
    failure: Failure,
) {
    let mut socket = BufReader::with_capacity(READ_BUFFER_LEN, socket);
    loop {
        if let Err(error) = read_answer(&mut socket, &mut awaited).await {
            failure.get_or_init(|| Arc::new(error));
            return;
        }
    }
}

async fn read_answer(
    socket: &mut BufReader<OwnedReadHalf>,
    awaited: &mut mpsc::UnboundedReceiver<Awaited>,
) -> io::Result<()> {
    let frame = read_frame(socket).await?;
    let next = awaited.try_recv().map_err(|_| unexpected("an answer to no request"))?;
    if wire::correlation_id(&frame) != Some(next.correlation_id) {
        return Err(unexpected("an answer out of order"));
    }
    // The one who asked may have stopped waiting.
    let _ = next.reply.send(frame);
    Ok(())
}

async fn read_frame(socket: &mut BufReader<OwnedReadHalf>) -> io::Result<Bytes> {
    let announced = match socket.read_i32().await {
        Ok(announced) => announced,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(closed()),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(announced)
        .ok()
        .filter(|length| *length <= FRAME_LEN_MAX)
        .ok_or_else(|| unexpected("an answer whose length is not one of Kafka's protocol"))?;
    let mut frame = BytesMut::with_capacity(length.min(FIRST_READ_MAX));
    let mut rest = socket.take(u64::try_from(length).expect("bounded above"));
    while frame.len() < length {
        if rest.read_buf(&mut frame).await? == 0 {
            return Err(closed());
        }
    }
    Ok(frame.freeze())
}

/// How long a node waits for another one before it knocks once more.
const KNOCK_EVERY: Duration = Duration::from_millis(200);

/// Knocks again and again until somebody opens. The system itself does so after a second, and then more and more rarely, by
/// which a cut that has healed would be noticed a second late.
async fn connect_soon(address: &Address) -> io::Result<TcpStream> {
    let found = tokio::net::lookup_host((&*address.host, address.port)).await?;
    let addresses: Arc<[SocketAddr]> = found.collect();
    let mut knocks = JoinSet::new();
    loop {
        let addresses = Arc::clone(&addresses);
        knocks.spawn(async move { TcpStream::connect(&*addresses).await });
        let opened = tokio::time::timeout(KNOCK_EVERY, knocks.join_next()).await;
        if let Ok(Some(opened)) = opened {
            return opened.map_err(io::Error::other)?;
        }
    }
}

fn unexpected(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn that_the_other_side_has_hung_up_is_known_although_nothing_is_asked() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let address = Address { host: "127.0.0.1".into(), port };
        let connection = Connection::over(stream, address, "test".into());
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(!connection.is_failed());
        drop(accepted);
        connection.broken().await;
        assert!(connection.is_failed());
        // Who asks later is told at once.
        connection.broken().await;
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_machine_that_acknowledges_nothing_breaks_the_connection_of_a_node_soon() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let limit_ms = || rustix::net::sockopt::tcp_user_timeout(&stream).unwrap();
        heed_silence(&stream, Speaker::Client).unwrap();
        assert_eq!(limit_ms(), 0, "as the system has it");
        heed_silence(&stream, Speaker::Node).unwrap();
        assert_eq!(u128::from(limit_ms()), SILENCE_MAX.as_millis());
    }
}
