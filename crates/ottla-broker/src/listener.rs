//! A listener: accepts connections on a bound socket and gives each a task of its own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::broker::Broker;
use crate::connection::Connection;

/// Whom a listener is for (`controller.listener.names`).
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
}

/// How long to rest when the process has no file descriptor left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Counts a connection for as long as it lives.
#[derive(Debug)]
struct Seat {
    broker: Arc<Broker>,
    ip: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.broker.connections.leave(self.ip);
        self.broker.metrics.connections.dec();
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
                    let Some(seat) = take_seat(&broker, peer) else { continue };
                    prepare(&stream, &broker);
                    let connection =
                        Connection::new(stream, peer, Arc::clone(&listener), Arc::clone(&broker));
                    let shutdown = shutdown.clone();
                    connections.spawn(async move {
                        connection.run(shutdown).await;
                        drop(seat);
                    });
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

/// Admits a connection if `max.connections` and `max.connections.per.ip` allow another one.
fn take_seat(broker: &Arc<Broker>, peer: SocketAddr) -> Option<Seat> {
    let ip = peer.ip().to_canonical();
    let live = broker.configuration.live();
    if let Err(property) = broker.connections.enter(ip, live.seats.all, live.seats.for_ip(ip)) {
        warn!(%peer, "connection refused: {property} is reached");
        return None;
    }
    broker.metrics.connections.inc();
    Some(Seat { broker: Arc::clone(broker), ip })
}

fn prepare(stream: &TcpStream, broker: &Broker) {
    let result = stream.set_nodelay(true).and_then(|()| {
        let socket = SockRef::from(stream);
        socket.set_keepalive(true)?;
        if let Some(bytes) = broker.settings.socket_send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = broker.settings.socket_receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        Ok(())
    });
    if let Err(error) = result {
        debug!(%error, "socket options not set");
    }
}

/// The connections that are open, by the address that they come from.
///
/// Invariant: `all` is the sum of `by_ip`, which has no zeros.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

impl Connections {
    /// # Errors
    /// The property that does not allow another connection.
    fn enter(&self, ip: IpAddr, max: usize, max_per_ip: usize) -> Result<(), &'static str> {
        let mut counts = self.0.lock();
        let from_ip = counts.by_ip.get(&ip).copied().unwrap_or(0);
        if counts.all >= max {
            return Err("max.connections");
        }
        if from_ip >= max_per_ip {
            return Err("max.connections.per.ip");
        }
        counts.all += 1;
        counts.by_ip.insert(ip, from_ip + 1);
        Ok(())
    }

    fn leave(&self, ip: IpAddr) {
        let mut counts = self.0.lock();
        counts.all -= 1;
        if let Some(from_ip) = counts.by_ip.get_mut(&ip) {
            *from_ip -= 1;
            if *from_ip == 0 {
                counts.by_ip.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn one_address_may_not_take_all_seats() {
        let connections = Connections::default();
        assert_eq!(connections.enter(IP, 3, 1), Ok(()));
        assert_eq!(connections.enter(IP, 3, 1), Err("max.connections.per.ip"));
        assert_eq!(connections.enter(OTHER_IP, 3, 1), Ok(()));
        connections.leave(IP);
        assert_eq!(connections.enter(IP, 3, 1), Ok(()));
    }

    #[test]
    fn all_addresses_together_take_no_more_than_there_are() {
        let connections = Connections::default();
        assert_eq!(connections.enter(IP, 1, 9), Ok(()));
        assert_eq!(connections.enter(OTHER_IP, 1, 9), Err("max.connections"));
        connections.leave(IP);
        assert_eq!(connections.enter(OTHER_IP, 1, 9), Ok(()));
    }
}
