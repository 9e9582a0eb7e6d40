//! What a node's properties say about its roles and about who the controllers are (pure).

use std::collections::BTreeSet;
use std::fmt;

use crate::broker::BrokerConfig;
use crate::check::Voter;
use crate::listener::{Listener, NON_ROUTABLE};
use crate::settings::{Problem, Settings};

const VOTERS: &str = "controller.quorum.voters";
const SERVERS: &str = "controller.quorum.bootstrap.servers";
const NAMES: &str = "controller.listener.names";
const AUTO_JOIN: &str = "controller.quorum.auto.join.enable";

/// `process.roles`: one of the two at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRoles {
    pub broker: bool,
    pub controller: bool,
}

impl ProcessRoles {
    /// Without a value, which is a problem of its own, a node is taken for both.
    #[must_use]
    pub fn from_settings(s: &Settings) -> Self {
        let roles = s.list("process.roles");
        let has = |role: &str| roles.is_empty() || roles.iter().any(|it| it == role);
        Self { broker: has("broker"), controller: has("controller") }
    }
}

impl fmt::Display for ProcessRoles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.broker, self.controller) {
            (true, true) => "broker,controller",
            (true, false) => "broker",
            (false, _) => "controller",
        })
    }
}

/// Where a cluster's controllers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formation {
    /// No other controller is named: this node is a cluster of one.
    Alone,
    /// All of them are in `controller.quorum.voters`, which is the same on every node.
    StaticVoters,
    /// They are in the metadata log, where `ottla format` or a change of voters has put them;
    /// `controller.quorum.bootstrap.servers` are where to ask.
    RecordedVoters,
}

/// Whether the properties name a controller beside this node. For a lone bootstrap server see
/// [`BrokerConfig::formation`].
pub(crate) fn names_others(s: &Settings) -> bool {
    let voters = s.list(VOTERS);
    voters.len() > 1 || (voters.is_empty() && s.list(SERVERS).len() > 1)
}

impl BrokerConfig {
    #[must_use]
    pub fn formation(&self) -> Formation {
        if self.joins {
            return Formation::RecordedVoters;
        }
        match (&*self.controller_quorum_voters, &*self.controller_quorum_bootstrap_servers) {
            ([], []) => Formation::Alone,
            ([only], _) if only.id == self.node_id.0 => Formation::Alone,
            ([], [(host, port)]) if self.is_own_loopback(host, *port) => Formation::Alone,
            ([], _) => Formation::RecordedVoters,
            (_, _) => Formation::StaticVoters,
        }
    }

    /// Whether a lone bootstrap server is a controller listener of this node on loopback, as in Apache Kafka's own file. Whoever
    /// takes another machine for itself begins a second cluster; and so does whoever is named to others, has lost its disk,
    /// and starts as it did the first time.
    fn is_own_loopback(&self, host: &str, port: u16) -> bool {
        self.process_roles.controller
            && self
                .controller_listeners
                .iter()
                .any(|it| [port, 0].contains(&it.port) && it.is_reached_on_loopback(host))
    }

    /// This node among the static voters.
    #[must_use]
    pub fn own_voter(&self) -> Option<&Voter> {
        self.controller_quorum_voters.iter().find(|voter| voter.id == self.node_id.0)
    }

    /// Whether controllers reach this one on the listener that brokers meet on, as it has none for them alone
    /// (`controller.listener.names`).
    #[must_use]
    pub fn controllers_meet_brokers(&self) -> bool {
        self.process_roles.controller && self.controller_listener_names.is_empty()
    }

    /// The listener that controllers reach each other on, where that is not for brokers.
    #[must_use]
    pub fn quorum_listener(&self) -> Option<&Listener> {
        self.controller_listeners.first()
    }

    pub(crate) fn check_quorum(&self, s: &Settings, problems: &mut Vec<Problem>) {
        let mut fail = |name: &str, message: String| {
            problems.push(Problem { origin: s.origin(name), message });
        };
        self.check_voters(&mut fail);
        if self.process_roles.controller {
            self.check_own_voter(&mut fail);
        } else {
            self.check_broker_alone(&mut fail);
        }
        // Whoever joins may be reached by others where clients reach it, as the node that the cluster began with is.
        if self.formation() != Formation::Alone
            && self.controller_listener_names.is_empty()
            && !self.joins
        {
            fail(
                NAMES,
                format!(
                    "{NAMES} is missing: name the listener that controllers reach each other on, \
                     such as CONTROLLER"
                ),
            );
        }
    }

    fn check_voters(&self, fail: &mut impl FnMut(&str, String)) {
        let mut seen = BTreeSet::new();
        for voter in &self.controller_quorum_voters {
            if !seen.insert(voter.id) {
                fail(VOTERS, format!("{VOTERS} names node {} twice", voter.id));
            }
            if voter.host == NON_ROUTABLE {
                fail(
                    VOTERS,
                    format!(
                        "{VOTERS}: nobody can connect to {}@{NON_ROUTABLE}:{}: name a host that \
                         all nodes reach",
                        voter.id, voter.port
                    ),
                );
            }
        }
    }

    fn check_own_voter(&self, fail: &mut impl FnMut(&str, String)) {
        let voters = &self.controller_quorum_voters;
        if voters.is_empty() || self.own_voter().is_some() {
            return;
        }
        let ids: Vec<String> = voters.iter().map(|voter| voter.id.to_string()).collect();
        fail(
            VOTERS,
            format!(
                "{VOTERS} names node {}, but this controller is node {}: give node.id as the \
                 voter's id, or remove the property",
                ids.join(", "),
                self.node_id
            ),
        );
    }

    fn check_broker_alone(&self, fail: &mut impl FnMut(&str, String)) {
        if self.own_voter().is_some() {
            fail(
                VOTERS,
                format!(
                    "{VOTERS} names node {}, which is only a broker: remove it there, or add \
                     controller to process.roles",
                    self.node_id
                ),
            );
        }
        if self.controller_quorum_voters.is_empty()
            && self.controller_quorum_bootstrap_servers.is_empty()
        {
            fail(SERVERS, format!("{SERVERS} is missing: a broker must know a controller"));
        }
        if self.controller_quorum_auto_join_enable {
            fail(AUTO_JOIN, format!("{AUTO_JOIN} is for controllers: a broker cannot be a voter"));
        }
    }
}
