//! The sockets of a node: bound before anything is opened, so that a port that is taken is told at once. Shell.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use ottla_config::{BrokerConfig, Listener as ListenerConfig, Settings as ConfigSettings};
use tokio::net::{TcpListener, TcpSocket};
use tracing::warn;

use crate::listener::Role;

/// A bound listener that does not accept yet.
pub(super) struct Bound {
    pub config: ListenerConfig,
    pub role: Role,
    pub socket: TcpListener,
    /// With the port that port 0 has become.
    pub address: SocketAddr,
}

pub(super) async fn bind_all(config: &BrokerConfig) -> anyhow::Result<Vec<Bound>> {
    let roles =
        [(Role::Broker, &config.listeners), (Role::Controller, &config.controller_listeners)];
    let mut bound = Vec::new();
    for (role, listeners) in roles {
        for listener in listeners {
            let socket = bind(config, listener).await?;
            let address = socket.local_addr()?;
            bound.push(Bound { config: listener.clone(), role, socket, address });
        }
    }
    Ok(bound)
}

/// Binds a listener.
///
/// # Errors
/// When the address is taken, or not this machine's.
pub async fn bind(config: &BrokerConfig, listener: &ListenerConfig) -> anyhow::Result<TcpListener> {
    let backlog = u32::try_from(config.socket_listen_backlog_size).unwrap_or(50);
    let socket = bind_one_of_its_addresses(listener, backlog).await;
    socket.with_context(|| {
        format!("can't listen on {listener}: choose another address with --listen")
    })
}

async fn bind_one_of_its_addresses(
    listener: &ListenerConfig,
    backlog: u32,
) -> anyhow::Result<TcpListener> {
    // Every interface: IPv6 with IPv4 mapped into it, as the JVM does; IPv4 alone where there is no IPv6.
    let hosts = listener.host.as_deref().map_or_else(|| vec!["::", "0.0.0.0"], |host| vec![host]);
    let mut last_error = None;
    for host in hosts {
        for address in tokio::net::lookup_host((host, listener.port)).await? {
            match listen(address, backlog) {
                Ok(socket) => return Ok(socket),
                Err(error) => last_error = Some(error),
            }
        }
    }
    match last_error {
        Some(error) => Err(error.into()),
        None => bail!("no such host"),
    }
}

fn listen(address: SocketAddr, backlog: u32) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// The operator's port. A second broker on one machine finds the default port taken; it goes
/// without, with a warning. A port that somebody chose must be free.
pub(super) async fn bind_http(
    config: &BrokerConfig,
    settings: &ConfigSettings,
) -> anyhow::Result<Option<TcpListener>> {
    const PROPERTY: &str = "ottla.http.listener";
    let Some((host, port)) = &config.http_listener else { return Ok(None) };
    match TcpListener::bind((host.as_str(), *port)).await {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if settings.is_set(PROPERTY) => {
            Err(error).with_context(|| format!("{PROPERTY}: can't listen on {host}:{port}"))
        }
        Err(error) => {
            warn!(%error, "no metrics: {host}:{port} is taken; set {PROPERTY}");
            Ok(None)
        }
    }
}
