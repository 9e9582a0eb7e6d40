//! The broker's configuration as it is now: what it was started with, and on top of it what was changed since. Shell.
//!
//! Whoever needs a property that may change at run time asks for [`Configuration::live`] anew each time.
//!
//! What is stored takes effect as a whole or not at all: the metadata may hold values that go together with nothing, as a
//! change that goes to the controller is not checked. Then what was in effect stays in effect, as in Apache Kafka; throttles
//! change all the same.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ottla_base::BrokerId;
use ottla_config::dynamic::{Dynamic, Effective, Throttles, check_stored};
use ottla_config::{CleanerConfig, ConnectionLimits, Settings, TopicConfig};
use ottla_metadata::{ConfigResource, Delta, Image};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tracing::{debug, error, info, warn};

#[derive(Debug)]
pub(crate) struct Configuration {
    node_id: BrokerId,
    /// What was set when the process started, and where.
    pub settings: Settings,
    live: ArcSwap<Live>,
    /// Told when `live` is another one.
    changed: Notify,
}

/// Everything that follows from properties that may change.
#[derive(Debug)]
pub(crate) struct Live {
    /// What is stored, for DescribeConfigs to say where a value comes from.
    pub dynamic: Dynamic,
    /// Everything that is in effect; without what is stored if that cannot be.
    pub in_effect: Settings,
    /// What a topic gets where it sets nothing.
    pub topic_defaults: TopicConfig,
    pub seats: Seats,
    pub producer_id_expiration_ms: i64,
    /// `log.dir.reserved.bytes`
    pub reserved_bytes: u64,
    pub throttles: Throttles,
    /// `num.replica.fetchers`
    pub fetchers: usize,
    pub cleaner: CleanerConfig,
}

/// How many connections may be open.
#[derive(Debug)]
pub(crate) struct Seats {
    /// Through all listeners of a role together.
    pub all: usize,
    by_listener: HashMap<String, usize>,
    per_ip: usize,
    overrides: HashMap<IpAddr, usize>,
    /// The addresses of those that `overrides` is about; a host that was not found is looked up again.
    hosts: HashMap<String, Vec<IpAddr>>,
}

impl Seats {
    /// How many may be open through one listener.
    #[must_use]
    pub(crate) fn for_listener(&self, name: &str) -> usize {
        self.by_listener.get(&name.to_lowercase()).copied().unwrap_or(self.all)
    }

    /// How many may be open from one address.
    #[must_use]
    pub(crate) fn for_ip(&self, ip: IpAddr) -> usize {
        self.overrides.get(&ip).copied().unwrap_or(self.per_ip)
    }

    /// Looks up the addresses of hosts that `before` does not know: this may take the time of a name server, and whoever
    /// changes something else must not wait for it, nor lose an address because it does not answer now.
    pub(crate) fn new(limits: &ConnectionLimits, before: Option<&Self>) -> Self {
        let size = |count: i32| usize::try_from(count).unwrap_or(0);
        let known = |host: &String| {
            before.and_then(|before| before.hosts.get(host)).filter(|it| !it.is_empty()).cloned()
        };
        let look_up = |host: &String| (host.clone(), known(host).unwrap_or_else(|| resolve(host)));
        let hosts: HashMap<String, Vec<IpAddr>> =
            limits.max_connections_per_ip_overrides.keys().map(look_up).collect();
        let addresses = |(host, count): (&String, &i32)| {
            let (addresses, count) = (hosts.get(host).cloned().unwrap_or_default(), size(*count));
            addresses.into_iter().map(move |ip| (ip, count))
        };
        let by_listener = limits.max_connections_by_listener.iter();
        Self {
            all: size(limits.max_connections),
            by_listener: by_listener.map(|(name, count)| (name.clone(), size(*count))).collect(),
            per_ip: size(limits.max_connections_per_ip),
            overrides: limits.max_connections_per_ip_overrides.iter().flat_map(addresses).collect(),
            hosts,
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
        let live = ArcSwap::from_pointee(Live::new(settings.clone(), Dynamic::default(), None));
        Self { node_id, settings, live, changed: Notify::new() }
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
        self.live.store(Arc::new(self.next(dynamic)));
        self.changed.notify_waiters();
        true
    }

    /// Waits for the next change after this call, whenever it is first polled.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn next(&self, dynamic: Dynamic) -> Live {
        let now = self.live();
        let wanted = dynamic.over(&self.settings);
        let names = names(&dynamic);
        let settings = match check_stored(&now.in_effect, &wanted) {
            Ok(()) => {
                // Such as a new cluster's min.insync.replicas, which the controller writes down as it is.
                let is_same = |name: &str| wanted.value(name) == now.in_effect.value(name);
                if names.iter().copied().chain(self::names(&now.dynamic)).all(is_same) {
                    debug!(?names, "dynamic configuration that changes nothing");
                } else {
                    info!(?names, "dynamic configuration");
                }
                wanted
            }
            Err(why) => {
                error!(?names, why, "dynamic configuration could not be applied: all as before");
                now.in_effect.clone()
            }
        };
        Live::new(settings, dynamic, Some(&now))
    }
}

/// The names alone: a value may be a secret.
fn names(dynamic: &Dynamic) -> Vec<&str> {
    dynamic.default.keys().chain(dynamic.broker.keys()).map(String::as_str).collect()
}

impl Live {
    fn new(in_effect: Settings, dynamic: Dynamic, before: Option<&Self>) -> Self {
        let effective = Effective::new(&in_effect);
        Self {
            topic_defaults: effective.topic_defaults,
            seats: Seats::new(&effective.connections, before.map(|live| &live.seats)),
            producer_id_expiration_ms: effective.producer_id_expiration_ms.into(),
            throttles: Throttles::from(&dynamic),
            fetchers: usize::try_from(effective.num_replica_fetchers).unwrap_or(1),
            reserved_bytes: u64::try_from(effective.log_dir_reserved_bytes).unwrap_or(0),
            cleaner: effective.cleaner,
            dynamic,
            in_effect,
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_config::Sources;
    use ottla_protocol::records::{ConfigRecord, MetadataRecord};

    use super::*;

    /// An image that grows, and who follows it.
    struct Fixture {
        image: Image,
        configuration: Configuration,
    }

    impl Fixture {
        fn new() -> Self {
            let configuration = Configuration::new(BrokerId(1), Settings::default());
            Self { image: Image::new("cluster"), configuration }
        }

        /// Sets a property for one broker, or for all under the empty name.
        fn set(&mut self, broker: &str, name: &str, value: Option<&str>) -> Arc<Live> {
            let record = MetadataRecord::Config(ConfigRecord {
                resource_type: ConfigResource::BROKER,
                resource_name: broker.into(),
                name: name.into(),
                value: value.map(Into::into),
            });
            let mut delta = Delta::default();
            self.image.apply_into(&record, &mut delta).unwrap();
            assert!(self.configuration.follow(&self.image, &delta));
            self.configuration.live()
        }
    }

    #[test]
    fn what_cannot_be_in_effect_leaves_everything_as_it_was() {
        let mut fixture = Fixture::new();
        let live = fixture.set("", "max.connections", Some("5"));
        assert_eq!(live.seats.all, 5);
        let live = fixture.set("", "max.connections", Some("0"));
        assert_eq!(live.seats.all, 5);
        let live = fixture.set("1", "log.retention.ms", Some("7"));
        assert_ne!(live.topic_defaults.retention_ms, 7);
        let live = fixture.set("", "max.connections", None);
        assert_eq!((live.topic_defaults.retention_ms, live.seats.all), (7, usize_max()));
    }

    #[test]
    fn a_throttle_is_lifted_whatever_else_is_stored() {
        let mut fixture = Fixture::new();
        let rate = "leader.replication.throttled.rate";
        assert_eq!(fixture.set("1", rate, Some("7")).throttles.leader, Some(7));
        fixture.set("", "log.retention.ms", Some("0"));
        assert_eq!(fixture.set("1", rate, Some("9")).throttles.leader, Some(9));
        assert_eq!(fixture.set("1", rate, None).throttles.leader, None);
    }

    #[test]
    fn topics_do_not_lose_everything_to_a_retention_of_nothing() {
        let mut fixture = Fixture::new();
        let before = fixture.configuration.live().topic_defaults.clone();
        let live = fixture.set("", "log.retention.ms", Some("0"));
        assert_eq!(live.topic_defaults, before);
        // It can be seen, and taken back.
        assert_eq!(names(&live.dynamic), ["log.retention.ms"]);
        let live = fixture.set("", "log.retention.ms", None);
        assert_eq!(names(&live.dynamic), [""; 0]);
    }

    #[test]
    fn a_host_is_looked_up_once_however_often_something_changes() {
        let mut fixture = Fixture::new();
        let overrides = "max.connections.per.ip.overrides";
        let live = fixture.set("", overrides, Some("localhost:3"));
        let found: Vec<IpAddr> = live.seats.hosts.get("localhost").unwrap().clone();
        assert!(found.iter().all(|ip| ip.is_loopback() && live.seats.for_ip(*ip) == 3));
        // As if the name server had found another address before.
        let elsewhere: IpAddr = "192.0.2.1".parse().unwrap();
        let mut seats = Seats::new(&limits("localhost:3"), Some(&live.seats));
        seats.hosts.insert("localhost".to_owned(), vec![elsewhere]);
        let seats = Seats::new(&limits("localhost:4"), Some(&seats));
        assert_eq!(seats.for_ip(elsewhere), 4);
    }

    fn limits(overrides: &str) -> ConnectionLimits {
        let set = vec![format!("max.connections.per.ip.overrides={overrides}")];
        let sources = Sources { set, ..Sources::default() };
        ConnectionLimits::from_settings(&ottla_config::load(&sources).unwrap().settings)
    }

    fn usize_max() -> usize {
        usize::try_from(i32::MAX).unwrap()
    }
}
