//! A listener: accepts connections on a bound socket and gives each a task of its own.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use ottla_env::sys;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::broker::Broker;
use crate::configuration::Seats;
use crate::connection::Connection;

/// Whom a listener is for (`controller.listener.names`). Where there is none for controllers, the one that brokers meet on
/// serves them, too, and is a broker's in everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Broker,
    Controller,
}

/// What a connection knows of the listener that it came through.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Kafka's listener name, such as `PLAINTEXT`; answers carry the endpoints of this name.
    pub name: String,
    pub role: Role,
    /// Whether nodes reach this node's controller through it.
    pub serves_controllers: bool,
    /// Whether `max.connections` is for the other listeners alone: brokers must not be kept out by clients.
    pub is_protected: bool,
    /// Those through all listeners of the role.
    pub connections: Arc<Connections>,
}

impl Listener {
    /// As it is to what a broker carries here for a client: the controller's side of it.
    #[must_use]
    pub(crate) fn of_the_controller(&self) -> Self {
        Self {
            name: self.name.clone(),
            role: Role::Controller,
            serves_controllers: true,
            is_protected: self.is_protected,
            connections: Arc::clone(&self.connections),
        }
    }
}

/// How long to rest when the process has no file descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Counts a connection for as long as it lives, and what it has left behind.
#[derive(Debug)]
pub(crate) struct Seat {
    broker: Arc<Broker>,
    listener: Arc<Listener>,
    ip: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.listener.connections.leave(&self.listener.name, self.ip);
        self.broker.state.metrics.connections.dec();
    }
}

/// Accepts until `shutdown` is true, then waits for the connections to finish what they began.
pub(crate) async fn accept(
    socket: TcpListener,
    listener: Arc<Listener>,
    broker: Arc<Broker>,
    shutdown: watch::Receiver<bool>,
) {
    let mut stop = shutdown.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Meanwhile others wait in the socket's backlog.
                    let taken = tokio::select! {
                        taken = take_seat(&broker, &listener, peer) => taken,
                        () = stopped(&mut stop) => break,
                    };
                    let Some(seat) = taken else { continue };
                    prepare(&stream, peer, &broker);
                    let (listener, broker) = (Arc::clone(&listener), Arc::clone(&broker));
                    let connection = Connection::new(stream, peer, listener, broker, seat);
                    connections.spawn(connection.run(shutdown.clone()));
                }
                Err(error) => {
                    warn!(listener = listener.name, %error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = stopped(&mut stop) => break,
        }
    }
    drop(socket);
    while connections.join_next().await.is_some() {}
}

/// Waits until `stop` is true, or nobody is left to say so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits until `max.connections` allows another connection, and admits it if `max.connections.per.ip` does.
async fn take_seat(
    broker: &Arc<Broker>,
    listener: &Arc<Listener>,
    peer: SocketAddr,
) -> Option<Seat> {
    let ip = peer.ip().to_canonical();
    let (connections, configuration) = (&listener.connections, &broker.configuration);
    let mut has_waited = false;
    loop {
        // Before the look: what happens behind it is not missed.
        let (left, changed) = (connections.left.notified(), configuration.changed());
        match connections.enter(listener, ip, &configuration.live().seats) {
            Ok(()) => break,
            Err(Full::Ip) => {
                warn!(%peer, "connection refused: max.connections.per.ip is reached");
                return None;
            }
            Err(Full::Listener) if !has_waited => {
                warn!(listener = listener.name, %peer, "connections wait: max.connections or the limit of open files is reached");
                has_waited = true;
            }
            Err(Full::Listener) => {}
        }
        tokio::select! {
            () = left => {}
            () = changed => {}
        }
    }
    broker.state.metrics.connections.inc();
    Some(Seat { broker: Arc::clone(broker), listener: Arc::clone(listener), ip })
}

fn prepare(stream: &TcpStream, peer: SocketAddr, broker: &Broker) {
    let result = stream.set_nodelay(true).and_then(|()| {
        let socket = SockRef::from(stream);
        socket.set_keepalive(true)?;
        if let Some(bytes) = broker.settings.socket_send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = broker.settings.socket_receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        pace_only_on_a_network(stream, peer)
    });
    if let Err(error) = result {
        debug!(%error, "socket options not set");
    }
}

fn pace_only_on_a_network(stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    let is_on_this_machine = stream.local_addr()?.ip() == peer.ip();
    if is_on_this_machine { sys::send_without_pacing(stream.as_fd()) } else { Ok(()) }
}

/// The connections that are open through all listeners of a role: clients do not keep out who talks to the controller.
///
/// Invariant: `all` is the sum of `by_ip`, and of `by_listener`; `by_ip` has no zeros.
#[derive(Debug)]
pub(crate) struct Connections {
    /// What the process may open and logs do not need: without it, connections would take files from the logs.
    sockets_max: usize,
    counts: Mutex<Counts>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_listener: HashMap<String, usize>,
    by_ip: HashMap<IpAddr, usize>,
}

/// Why there is no seat.
#[derive(Debug, PartialEq, Eq)]
enum Full {
    /// For nobody who comes through this listener.
    Listener,
    /// For nobody from this address.
    Ip,
}

impl Connections {
    #[must_use]
    pub(crate) fn new(sockets_max: usize) -> Self {
        Self { sockets_max, counts: Mutex::default(), left: Notify::new() }
    }

    /// # Errors
    /// Which limit does not allow another connection.
    fn enter(&self, listener: &Listener, ip: IpAddr, seats: &Seats) -> Result<(), Full> {
        let mut counts = self.counts.lock();
        let through = counts.by_listener.get(&listener.name).copied().unwrap_or(0);
        let is_full =
            (counts.all >= seats.all && !listener.is_protected) || counts.all >= self.sockets_max;
        if is_full || through >= seats.for_listener(&listener.name) {
            return Err(Full::Listener);
        }
        let from_ip = counts.by_ip.get(&ip).copied().unwrap_or(0);
        if from_ip >= seats.for_ip(ip) {
            return Err(Full::Ip);
        }
        counts.all += 1;
        counts.by_listener.insert(listener.name.clone(), through + 1);
        counts.by_ip.insert(ip, from_ip + 1);
        Ok(())
    }

    fn leave(&self, listener: &str, ip: IpAddr) {
        let mut counts = self.counts.lock();
        counts.all -= 1;
        if let Some(through) = counts.by_listener.get_mut(listener) {
            *through -= 1;
        }
        if let Some(from_ip) = counts.by_ip.get_mut(&ip) {
            *from_ip -= 1;
            if *from_ip == 0 {
                counts.by_ip.remove(&ip);
            }
        }
        drop(counts);
        self.left.notify_waiters();
    }
}

/// One that nobody comes through, to test with.
#[cfg(test)]
pub(crate) fn unused(role: Role, serves_controllers: bool) -> Listener {
    Listener {
        name: "PLAINTEXT".to_owned(),
        role,
        serves_controllers,
        is_protected: false,
        connections: Arc::new(Connections::new(usize::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use ottla_config::Sources;
    use ottla_config::dynamic::Effective;

    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn seats(properties: &[&str]) -> Seats {
        let set = properties.iter().map(|it| (*it).to_owned()).collect();
        let sources = Sources { set, ..Sources::default() };
        let settings = ottla_config::load(&sources).unwrap().settings;
        Seats::new(&Effective::new(&settings).connections, None)
    }

    fn listener(name: &str, connections: &Arc<Connections>, is_protected: bool) -> Listener {
        let (name, connections) = (name.to_owned(), Arc::clone(connections));
        Listener { name, is_protected, connections, ..unused(Role::Broker, false) }
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn nobody_on_this_machine_is_sent_to_at_a_pace() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let control = || rustix::net::sockopt::tcp_congestion(&stream).unwrap();
        let elsewhere = SocketAddr::new(IP, 9092);
        let as_it_comes = control();
        pace_only_on_a_network(&stream, elsewhere).unwrap();
        assert_eq!(control(), as_it_comes, "over a network, whatever the system was told to use");
        pace_only_on_a_network(&stream, peer).unwrap();
        assert_eq!(control(), "reno");
    }

    #[test]
    fn one_address_may_not_take_all_seats() {
        let connections = Arc::new(Connections::new(usize::MAX));
        let plain = listener("PLAIN", &connections, false);
        let seats = seats(&["max.connections=3", "max.connections.per.ip=1"]);
        assert_eq!(connections.enter(&plain, IP, &seats), Ok(()));
        assert_eq!(connections.enter(&plain, IP, &seats), Err(Full::Ip));
        assert_eq!(connections.enter(&plain, OTHER_IP, &seats), Ok(()));
        connections.leave("PLAIN", IP);
        assert_eq!(connections.enter(&plain, IP, &seats), Ok(()));
    }

    #[test]
    fn all_addresses_together_take_no_more_than_there_are() {
        let connections = Arc::new(Connections::new(usize::MAX));
        let plain = listener("PLAIN", &connections, false);
        let seats = seats(&["max.connections=1"]);
        assert_eq!(connections.enter(&plain, IP, &seats), Ok(()));
        assert_eq!(connections.enter(&plain, OTHER_IP, &seats), Err(Full::Listener));
        connections.leave("PLAIN", IP);
        assert_eq!(connections.enter(&plain, OTHER_IP, &seats), Ok(()));
    }

    #[test]
    fn connections_leave_the_logs_their_files() {
        let connections = Arc::new(Connections::new(1));
        let plain = listener("PLAIN", &connections, false);
        let brokers = listener("BROKERS", &connections, true);
        let seats = seats(&["max.connections=9"]);
        assert_eq!(connections.enter(&plain, IP, &seats), Ok(()));
        assert_eq!(connections.enter(&plain, IP, &seats), Err(Full::Listener));
        assert_eq!(connections.enter(&brokers, IP, &seats), Err(Full::Listener));
    }

    #[test]
    fn a_listener_may_have_a_limit_of_its_own() {
        let connections = Arc::new(Connections::new(usize::MAX));
        let (plain, other) =
            (listener("PLAIN", &connections, false), listener("OTHER", &connections, false));
        let seats = seats(&["max.connections=9", "listener.name.plain.max.connections=1"]);
        assert_eq!(connections.enter(&plain, IP, &seats), Ok(()));
        assert_eq!(connections.enter(&plain, IP, &seats), Err(Full::Listener));
        assert_eq!(connections.enter(&other, IP, &seats), Ok(()));
    }

    #[test]
    fn brokers_are_not_kept_out_by_clients() {
        let connections = Arc::new(Connections::new(usize::MAX));
        let (clients, brokers) =
            (listener("CLIENTS", &connections, false), listener("BROKERS", &connections, true));
        let seats = seats(&["max.connections=2"]);
        assert_eq!(connections.enter(&clients, IP, &seats), Ok(()));
        assert_eq!(connections.enter(&clients, IP, &seats), Ok(()));
        assert_eq!(connections.enter(&clients, IP, &seats), Err(Full::Listener));
        assert_eq!(connections.enter(&brokers, IP, &seats), Ok(()));
    }
}
