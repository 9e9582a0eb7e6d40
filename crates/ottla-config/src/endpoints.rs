//! Listeners and what is told of them: who listens where, for whom, as Kafka sorts it out at its
//! start (pure).

use crate::check::Voter;
use crate::listener::{Listener, NON_ROUTABLE, ProtocolMap, SecurityProtocol, clash, parse_all};
use crate::quorum::ProcessRoles;
use crate::settings::{Problem, Settings};

const MAP: &str = "listener.security.protocol.map";
const EARLY: &str = "early.start.listeners";
const LISTENERS: &str = "listeners";
const ADVERTISED: &str = "advertised.listeners";
const CONTROLLERS: &str = "controller.listener.names";
const INTER_BROKER: &str = "inter.broker.listener.name";
const INTER_BROKER_PROTOCOL: &str = "security.inter.broker.protocol";

pub(crate) struct Endpoints {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) controller_listeners: Vec<Listener>,
    pub(crate) advertised_listeners: Vec<Listener>,
    pub(crate) advertised_controller_listeners: Vec<Listener>,
    pub(crate) inter_broker_listener_name: String,
    /// The property that names it.
    inter_broker_property: &'static str,
    pub(crate) controller_listener_names: Vec<String>,
}

impl Endpoints {
    pub(crate) fn from_settings(
        s: &Settings,
        roles: ProcessRoles,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let mut fail = |name: &str, message: String| {
            problems
                .push(Problem { origin: s.origin(name), message: format!("{name}: {message}") });
        };
        let controller_listener_names: Vec<String> =
            s.list(CONTROLLERS).iter().map(|n| n.to_uppercase()).collect();
        let mut map = ProtocolMap::parse(&s.text(MAP).unwrap_or_default())
            .map_err(|message| fail(MAP, message))
            .ok()?;
        if !s.is_set(MAP) {
            map.add_controllers(&controller_listener_names);
        }
        let all =
            parse_all(&s.list(LISTENERS), &map).map_err(|message| fail(LISTENERS, message)).ok()?;
        let advertised = parse_all(&s.list(ADVERTISED), &map)
            .map_err(|message| fail(ADVERTISED, message))
            .ok()?;
        if s.is_set(INTER_BROKER) && s.is_set(INTER_BROKER_PROTOCOL) {
            let other = format!("{INTER_BROKER_PROTOCOL} is set, too: leave one of them out");
            fail(INTER_BROKER, other);
        }
        let inter_broker_listener_name = s
            .text(INTER_BROKER)
            .or_else(|| s.text(INTER_BROKER_PROTOCOL))
            .unwrap_or_else(|| SecurityProtocol::Plaintext.name().to_owned())
            .to_uppercase();
        let is_controller = |l: &Listener| controller_listener_names.contains(&l.name);
        let (mut controller_listeners, listeners): (Vec<_>, Vec<_>) =
            all.into_iter().partition(is_controller);
        controller_listeners
            .sort_by_key(|it| controller_listener_names.iter().position(|name| *name == it.name));
        let (advertised_controllers, mut advertised_listeners): (Vec<_>, Vec<_>) =
            advertised.into_iter().partition(is_controller);
        if !s.is_set(ADVERTISED) {
            advertised_listeners.clone_from(&listeners);
        }
        let endpoints = Self {
            advertised_controller_listeners: advertised_for_controllers(
                &controller_listeners,
                &advertised_controllers,
                own_voter(s).as_ref(),
            ),
            listeners,
            controller_listeners,
            advertised_listeners,
            inter_broker_listener_name,
            inter_broker_property: match s.is_set(INTER_BROKER_PROTOCOL) && !s.is_set(INTER_BROKER)
            {
                true => INTER_BROKER_PROTOCOL,
                false => INTER_BROKER,
            },
            controller_listener_names,
        };
        endpoints.check(roles, &map, &mut fail);
        endpoints.check_early(&s.list(EARLY), &mut fail);
        if !roles.broker && s.is_set(INTER_BROKER) {
            endpoints.check_controller_alone(&mut fail);
        }
        Some(endpoints)
    }

    fn check(&self, roles: ProcessRoles, map: &ProtocolMap, fail: &mut impl FnMut(&str, String)) {
        self.check_listeners(fail);
        if roles.controller {
            self.check_controller_names(fail);
        } else {
            self.check_controller_names_of_a_broker(map, fail);
        }
        if roles.broker {
            self.check_advertised(fail);
        } else if !self.listeners.is_empty() {
            fail(
                LISTENERS,
                format!(
                    "{} is in none of {CONTROLLERS}, and a controller alone has no other \
                     listeners: remove it",
                    names(&self.listeners)
                ),
            );
        }
        self.check_routable(fail);
    }

    fn check_listeners(&self, fail: &mut impl FnMut(&str, String)) {
        let every: Vec<Listener> =
            self.listeners.iter().chain(&self.controller_listeners).cloned().collect();
        if let Some((a, b)) = clash(&every) {
            fail(LISTENERS, format!("{a} and {b} want the same port"));
        }
        for listener in &every {
            if listener.protocol != SecurityProtocol::Plaintext {
                fail(
                    LISTENERS,
                    format!(
                        "{listener} speaks {}, which is not served yet: map {} to PLAINTEXT in \
                         {MAP}, or remove it",
                        listener.protocol.name(),
                        listener.name
                    ),
                );
            }
        }
    }

    fn check_early(&self, early: &[String], fail: &mut impl FnMut(&str, String)) {
        let known = || self.listeners.iter().chain(&self.controller_listeners);
        for name in early {
            if !known().any(|listener| listener.name == *name) {
                fail(EARLY, format!("{name} is not among the listeners"));
            }
        }
    }

    fn check_controller_names(&self, fail: &mut impl FnMut(&str, String)) {
        for name in &self.controller_listener_names {
            if !self.controller_listeners.iter().any(|l| l.name == *name) {
                fail(
                    CONTROLLERS,
                    format!("{name} is not among the listeners: add {name}://:9093 to listeners"),
                );
            }
        }
    }

    /// A broker alone names the listeners of others, and must know what is spoken there.
    fn check_controller_names_of_a_broker(
        &self,
        map: &ProtocolMap,
        fail: &mut impl FnMut(&str, String),
    ) {
        for listener in &self.controller_listeners {
            fail(
                CONTROLLERS,
                format!(
                    "{} is among this broker's listeners: a broker alone serves no controller \
                     listener, remove it from listeners",
                    listener.name
                ),
            );
        }
        for name in &self.controller_listener_names {
            match map.get(name) {
                Some(SecurityProtocol::Plaintext) => {}
                Some(other) => fail(
                    CONTROLLERS,
                    format!("{name} speaks {}, which is not served yet", other.name()),
                ),
                None => fail(CONTROLLERS, format!("{name} has no entry in {MAP}")),
            }
        }
    }

    fn check_controller_alone(&self, fail: &mut impl FnMut(&str, String)) {
        let name = &self.inter_broker_listener_name;
        if self.controller_listener_names.contains(name) {
            fail(
                INTER_BROKER,
                format!("{name} is in {CONTROLLERS}: brokers use another one among themselves"),
            );
        }
    }

    fn check_advertised(&self, fail: &mut impl FnMut(&str, String)) {
        if self.listeners.is_empty() {
            fail(LISTENERS, format!("there is none for clients: all are in {CONTROLLERS}"));
            return;
        }
        for advertised in &self.advertised_listeners {
            if !self.listeners.iter().any(|l| l.name == advertised.name) {
                fail(
                    ADVERTISED,
                    format!(
                        "{} is not among the listeners: {}",
                        advertised.name,
                        names(&self.listeners)
                    ),
                );
            }
        }
        let inter_broker = &self.inter_broker_listener_name;
        if !self.advertised_listeners.iter().any(|l| l.name == *inter_broker) {
            fail(
                self.inter_broker_property,
                format!(
                    "{inter_broker} is not advertised: name one of {}",
                    names(&self.advertised_listeners)
                ),
            );
        }
    }

    fn check_routable(&self, fail: &mut impl FnMut(&str, String)) {
        let clients = self.advertised_listeners.iter().map(|it| (it, "clients"));
        let nodes = self.advertised_controller_listeners.iter().map(|it| (it, "other nodes"));
        for (advertised, who) in clients.chain(nodes) {
            if advertised.host.as_deref() == Some(NON_ROUTABLE) {
                fail(
                    ADVERTISED,
                    format!(
                        "{who} cannot connect to {NON_ROUTABLE}: advertise {}://HOST:{} with a \
                         host that they reach",
                        advertised.name, advertised.port
                    ),
                );
            }
        }
    }
}

fn names(listeners: &[Listener]) -> String {
    listeners.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn own_voter(s: &Settings) -> Option<Voter> {
    let node_id = s.value("node.id")?.integer()?;
    let voters = s.list("controller.quorum.voters");
    let mut voters = voters.iter().filter_map(|entry| Voter::parse(entry).ok());
    voters.find(|voter| i64::from(voter.id) == node_id)
}

/// What other nodes are told. Unless it is advertised under its name, a listener on every interface
/// is told as this node's own entry among the voters (the first listener), or as this machine's name.
fn advertised_for_controllers(
    listeners: &[Listener],
    advertised: &[Listener],
    own_voter: Option<&Voter>,
) -> Vec<Listener> {
    let told = |(at, listener): (usize, &Listener)| {
        if let Some(given) = advertised.iter().find(|it| it.name == listener.name) {
            return given.clone();
        }
        let everywhere = listener.host.as_deref().is_none_or(|host| host == NON_ROUTABLE);
        match own_voter.filter(|_| everywhere && at == 0) {
            Some(voter) => {
                Listener { host: Some(voter.host.clone()), port: voter.port, ..listener.clone() }
            }
            None if everywhere => Listener { host: None, ..listener.clone() },
            None => listener.clone(),
        }
    };
    listeners.iter().enumerate().map(told).collect()
}
