//! The broker's configuration as it is now: what it was started with, and on top of it what was changed since. Shell.
//!
//! Whoever needs a property that may change at run time asks for [`Configuration::live`] anew each time.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ottla_base::BrokerId;
use ottla_config::dynamic::{Dynamic, Effective};
use ottla_config::{ConnectionLimits, Settings, TopicConfig};
use ottla_metadata::{ConfigResource, Delta, Image};
use tracing::{info, warn};

#[derive(Debug)]
pub(crate) struct Configuration {
    node_id: BrokerId,
    /// What was set when the process started, and where.
    pub settings: Settings,
    live: ArcSwap<Live>,
}

/// Everything that follows from properties that may change.
#[derive(Debug)]
pub(crate) struct Live {
    pub dynamic: Dynamic,
    /// What a topic gets where it sets nothing.
    pub topic_defaults: TopicConfig,
    pub seats: Seats,
    pub producer_id_expiration_ms: i64,
}

/// How many connections may be open.
#[derive(Debug)]
pub(crate) struct Seats {
    pub all: usize,
    per_ip: usize,
    overrides: HashMap<IpAddr, usize>,
}

impl Seats {
    /// How many may be open from one address.
    #[must_use]
    pub(crate) fn for_ip(&self, ip: IpAddr) -> usize {
        self.overrides.get(&ip).copied().unwrap_or(self.per_ip)
    }

    fn new(limits: &ConnectionLimits) -> Self {
        let size = |count: i32| usize::try_from(count).unwrap_or(0);
        let overrides = limits.max_connections_per_ip_overrides.iter();
        let addresses = |(host, count): (&String, &i32)| {
            let count = size(*count);
            resolve(host).into_iter().map(move |ip| (ip, count))
        };
        Self {
            all: size(limits.max_connections),
            per_ip: size(limits.max_connections_per_ip),
            overrides: overrides.flat_map(addresses).collect(),
        }
    }
}

fn resolve(host: &str) -> Vec<IpAddr> {
    match (host, 0).to_socket_addrs() {
        Ok(addresses) => addresses.map(|address| address.ip().to_canonical()).collect(),
        Err(error) => {
            warn!(host, %error, "max.connections.per.ip.overrides: no such host");
            Vec::new()
        }
    }
}

impl Configuration {
    #[must_use]
    pub(crate) fn new(node_id: BrokerId, settings: Settings) -> Self {
        let live = ArcSwap::from_pointee(Live::new(&settings, Dynamic::default()));
        Self { node_id, settings, live }
    }

    #[must_use]
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Takes over what the metadata says of this broker and of all brokers; true if anything changed.
    pub(crate) fn follow(&self, image: &Image, delta: &Delta) -> bool {
        let (own, default) =
            (ConfigResource::broker(self.node_id), ConfigResource::default_broker());
        if !delta.configs.contains(&own) && !delta.configs.contains(&default) {
            return false;
        }
        let dynamic = Dynamic::from_stored(image.config(&own), image.config(&default));
        info!(names = ?names(&dynamic), "dynamic configuration");
        self.live.store(Arc::new(Live::new(&self.settings, dynamic)));
        true
    }
}

/// The names alone: a value may be a secret.
fn names(dynamic: &Dynamic) -> Vec<&str> {
    dynamic.default.keys().chain(dynamic.broker.keys()).map(String::as_str).collect()
}

impl Live {
    fn new(settings: &Settings, dynamic: Dynamic) -> Self {
        let effective = Effective::new(settings, &dynamic);
        Self {
            topic_defaults: effective.topic_defaults,
            seats: Seats::new(&effective.connections),
            producer_id_expiration_ms: effective.producer_id_expiration_ms.into(),
            dynamic,
        }
    }
}
