//! A listener: accepts connections on a bound socket and gives each a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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
struct Seat(Arc<Broker>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.connections.dec();
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

/// Admits a connection if `max.connections` allows another one.
fn take_seat(broker: &Arc<Broker>, peer: SocketAddr) -> Option<Seat> {
    let limit = broker.settings.connections_max;
    if broker.connections.fetch_add(1, Ordering::Relaxed) >= limit {
        broker.connections.fetch_sub(1, Ordering::Relaxed);
        warn!(%peer, limit, "connection refused: max.connections is reached");
        return None;
    }
    broker.metrics.connections.inc();
    Some(Seat(Arc::clone(broker)))
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

/// The number of connections that are open.
pub(crate) type Connections = AtomicUsize;
