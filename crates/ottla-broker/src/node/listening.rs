//! Whom a node lets in, and by which listener. Shell.

use std::sync::Arc;

use ottla_config::BrokerConfig;
use tokio::net::TcpListener;
use tracing::warn;

use super::Node;
use super::bind::Bound;
use crate::http;
use crate::listener::{Connections, Listener, accept};

impl Node {
    pub(super) fn listen_for_controllers(&mut self, bound: Vec<Bound>) {
        let connections = Arc::new(Connections::new(usize::MAX));
        for Bound { config, role, socket, .. } in bound {
            self.accept(
                socket,
                Listener {
                    is_protected: false,
                    connections: Arc::clone(&connections),
                    name: config.name,
                    role,
                    serves_controllers: true,
                },
            );
        }
    }

    /// At most `sockets_max` clients at a time, whatever they are allowed.
    pub(super) fn listen_for_clients(
        &mut self,
        bound: Vec<Bound>,
        config: &BrokerConfig,
        sockets_max: usize,
    ) {
        let inter_broker = &config.inter_broker_listener_name;
        let is_shared = config.controllers_meet_brokers();
        let connections = Arc::new(Connections::new(sockets_max));
        let has_others = bound.len() > 1;
        for Bound { config, role, socket, .. } in bound {
            self.accept(
                socket,
                Listener {
                    is_protected: config.name == *inter_broker && has_others,
                    serves_controllers: config.name == *inter_broker && is_shared,
                    connections: Arc::clone(&connections),
                    name: config.name,
                    role,
                },
            );
        }
    }

    fn accept(&mut self, socket: TcpListener, listener: Listener) {
        let broker = Arc::clone(&self.broker);
        self.spawn(|stopping| accept(socket, Arc::new(listener), broker, stopping));
    }

    pub(super) fn serve_operator(&mut self, http: Option<TcpListener>) {
        let Some(socket) = http else { return };
        let broker = Arc::clone(&self.broker);
        self.spawn(|stopping| async move {
            if let Err(error) = http::serve(socket, broker, stopping).await {
                warn!(%error, "the operator's port is closed");
            }
        });
    }
}
