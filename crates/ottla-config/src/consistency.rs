//! What several properties must agree on before a broker starts (pure).

use crate::broker::{BrokerConfig, Notice, Severity};
use crate::connections::parse_overrides;
use crate::property::Scope;
use crate::settings::{Problem, Settings, judge};
use crate::table::{find, listener_base};

pub(crate) fn check(settings: &Settings, joins: bool, problems: &mut Vec<Problem>) {
    let mut check = Check { settings, problems };
    check.identity(joins);
    check.log();
    check.bounds();
    check.connections();
}

/// What a broker starts with all the same, but is unlikely to be meant.
pub(crate) fn doubts(config: &BrokerConfig, settings: &Settings) -> Vec<Notice> {
    let mut notices = Vec::new();
    let mut doubt = |name: &str, message: String| {
        let severity = Severity::Warn;
        if let Some(origin) = settings.origin(name) {
            notices.push(Notice { severity, message, origin });
        }
    };
    const INTERVAL: &str = "broker.heartbeat.interval.ms";
    const TIMEOUT: &str = "broker.session.timeout.ms";
    let (interval, timeout) = (settings.int(INTERVAL), settings.int(TIMEOUT));
    if i64::from(interval) * 2 > i64::from(timeout) {
        doubt(
            if settings.is_set(TIMEOUT) { TIMEOUT } else { INTERVAL },
            format!(
                "{INTERVAL} ({interval}) is more than half of {TIMEOUT} ({timeout}): one lost \
                 heartbeat and a broker counts as dead"
            ),
        );
    }
    if let (Some(voter), Some(listener)) = (config.own_voter(), config.quorum_listener()) {
        let mut told = config.advertised_controller_listeners.iter();
        let told = told.find(|it| it.name == listener.name).map_or(0, |it| it.port);
        if voter.port != listener.port && (voter.port != told || listener.port == 0) {
            doubt(
                "controller.quorum.voters",
                format!(
                    "controller.quorum.voters says that this node's controller is on port {}, but \
                     it listens on {listener}: without a port that is forwarded nobody finds it",
                    voter.port
                ),
            );
        }
    }
    notices
}

struct Check<'a> {
    settings: &'a Settings,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    /// Records a problem under the property to change.
    fn fail(&mut self, name: &str, message: impl Into<String>) {
        let origin = self.settings.origin(name);
        self.problems.push(Problem { origin, message: message.into() });
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.settings.value(name)?.integer()
    }

    fn identity(&mut self, joins: bool) {
        let (node, broker) = (self.number("node.id"), self.number("broker.id"));
        if node.is_none() && !joins && !self.failed("node.id") {
            self.fail("node.id", "node.id is missing: every node needs one, such as node.id=1");
        } else if node.is_some() && node != broker {
            self.fail("broker.id", "broker.id must equal node.id: remove broker.id");
        }
        if !self.settings.is_set("process.roles") && !self.failed("process.roles") {
            self.fail(
                "process.roles",
                "process.roles is missing: a node here is process.roles=broker,controller",
            );
        }
    }

    /// A value that was refused already counts as set: one message is enough.
    fn failed(&self, name: &str) -> bool {
        let begin = format!("{name}=");
        self.problems.iter().any(|problem| problem.message.starts_with(&begin))
    }

    fn log(&mut self) {
        self.at_least("log.roll.ms", 1);
        self.at_least("log.roll.jitter.ms", 0);
        // Only the stronger of the two counts.
        let flush = ["log.flush.interval.ms", "log.flush.scheduler.interval.ms"];
        let flush = flush.into_iter().find(|name| self.settings.is_set(name));
        flush.into_iter().for_each(|name| self.at_least(name, 0));
        // Only the strongest of the three counts.
        let retention = ["log.retention.ms", "log.retention.minutes", "log.retention.hours"];
        if let Some(name) = retention.into_iter().find(|name| self.number(name).is_some())
            && self.number(name) == Some(0)
        {
            self.fail(name, format!("{name}=0 is not allowed: at least 1, or -1 to keep all"));
        }
        let buffer = self.number("log.cleaner.dedupe.buffer.size").unwrap_or(0);
        let threads = self.number("log.cleaner.threads").unwrap_or(1).max(1);
        if buffer / threads <= 1024 * 1024 {
            self.fail(
                "log.cleaner.dedupe.buffer.size",
                "log.cleaner.dedupe.buffer.size must be more than 1048576 per thread of \
                 log.cleaner.threads",
            );
        }
        self.ordered("log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms");
    }

    fn at_least(&mut self, name: &str, minimum: i64) {
        if self.number(name).is_some_and(|n| n < minimum) {
            self.fail(name, format!("{name} must be at least {minimum}"));
        }
    }

    /// Reports the first when it is above the second.
    fn ordered(&mut self, smaller: &str, larger: &str) {
        if let (Some(a), Some(b)) = (self.number(smaller), self.number(larger))
            && a > b
        {
            let name = if self.settings.is_set(smaller) { smaller } else { larger };
            self.fail(name, format!("{smaller} ({a}) must not be above {larger} ({b})"));
        }
    }

    fn bounds(&mut self) {
        self.ordered("replica.fetch.wait.max.ms", "replica.socket.timeout.ms");
        self.ordered("replica.fetch.wait.max.ms", "replica.lag.time.max.ms");
        self.ordered("group.streams.num.standby.replicas", "group.streams.max.standby.replicas");
        self.ordered("group.share.max.size", "group.share.max.share.sessions");
        if self.settings.list("group.share.assignors").len() > 1 {
            self.fail("group.share.assignors", "group.share.assignors must name one assignor");
        }
        const PROTOCOLS: &str = "group.coordinator.rebalance.protocols";
        let is_classic = |name: &String| name.eq_ignore_ascii_case("classic");
        if !self.settings.list(PROTOCOLS).iter().any(is_classic) && !self.failed(PROTOCOLS) {
            self.fail(PROTOCOLS, format!("{PROTOCOLS} must contain classic, which cannot be off"));
        }
        const CODEC: &str = "offsets.topic.compression.codec";
        if self.number(CODEC).is_some_and(|codec| !(0..=4).contains(&codec)) {
            self.fail(
                CODEC,
                format!("{CODEC} must be 0 (none), 1 (gzip), 2 (snappy), 3 (lz4) or 4 (zstd)"),
            );
        }
        for kind in ["consumer", "share", "streams"] {
            for what in ["heartbeat.interval.ms", "session.timeout.ms", "assignment.interval.ms"] {
                let name = |bound: &str| format!("group.{kind}.{bound}{what}");
                self.ordered(&name("min."), &name(""));
                self.ordered(&name(""), &name("max."));
            }
            let heartbeat = format!("group.{kind}.heartbeat.interval.ms");
            let session = format!("group.{kind}.session.timeout.ms");
            if self.number(&heartbeat) >= self.number(&session) {
                self.fail(&heartbeat, format!("{heartbeat} must be below {session}"));
            }
        }
        for what in
            ["delivery.count.limit", "partition.max.record.locks", "record.lock.duration.ms"]
        {
            let name = |bound: &str| format!("group.share.{bound}{what}");
            self.ordered(&name("min."), &name(""));
            self.ordered(&name(""), &name("max."));
        }
    }

    /// What is set for one listener has a name of its own, and was not looked at before.
    fn listener_limits(&mut self) {
        let property = find(Scope::Broker, "max.connections").expect("it is in the table");
        let refused: Vec<Problem> = self
            .settings
            .unknown()
            .filter(|(name, _)| listener_base(name) == Some(property.name))
            .filter_map(|(name, unknown)| {
                let message = format!("{name}: {}", judge(property, &unknown.text).err()?);
                Some(Problem { origin: Some(unknown.origin.clone()), message })
            })
            .collect();
        self.problems.extend(refused);
    }

    fn connections(&mut self) {
        self.listener_limits();
        let queued = self.number("queued.max.request.bytes").unwrap_or(-1);
        let largest = self.number("socket.request.max.bytes").unwrap_or(0);
        if queued > 0 && queued < largest {
            self.fail(
                "queued.max.request.bytes",
                format!(
                    "queued.max.request.bytes ({queued}) must hold one largest request: \
                     socket.request.max.bytes is {largest}"
                ),
            );
        }
        const OVERRIDES: &str = "max.connections.per.ip.overrides";
        if let Err(message) = parse_overrides(self.settings) {
            self.fail(OVERRIDES, message);
        }
        let overrides = self.settings.text(OVERRIDES);
        if self.number("max.connections.per.ip") == Some(0) && overrides.is_none() {
            self.fail(
                "max.connections.per.ip",
                "max.connections.per.ip=0 lets nobody connect: name exceptions in \
                 max.connections.per.ip.overrides, or raise it",
            );
        }
        let idle = self.number("connections.max.idle.ms").unwrap_or(-1);
        let delay = self.number("connection.failed.authentication.delay.ms").unwrap_or(0);
        if idle >= 0 && delay >= idle {
            self.fail(
                "connection.failed.authentication.delay.ms",
                "connection.failed.authentication.delay.ms must be below connections.max.idle.ms",
            );
        }
    }
}
