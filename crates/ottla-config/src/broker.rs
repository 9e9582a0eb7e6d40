//! A broker's configuration, typed: what the rooms read at start (pure).
//!
//! [`load`] turns sources into a [`BrokerConfig`], or says everything that is wrong at once.
//! Beyond single values it checks what must fit together, as Kafka does at its start, and refuses
//! what this broker would have to pretend (TLS, an authorizer).

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use ottla_base::BrokerId;

use crate::check::{Voter, host_and_port, not_an_address, server};
use crate::consistency;
use crate::endpoints::Endpoints;
use crate::listener::Listener;
use crate::property::{Scope, Status};
use crate::quorum::{self, ProcessRoles};
use crate::replica_selector::ReplicaSelector;
use crate::settings::{
    BUILT_IN_FOR_ONE, Formatted, Origin, Problem, Settings, Sources, unknown_message,
};
use crate::table::{find, listener_base, nearest};
use crate::topic::TopicConfig;

/// Everything that a broker reads from its configuration. Times are milliseconds, sizes bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    pub node_id: BrokerId,
    pub process_roles: ProcessRoles,
    /// Whether this node has joined a cluster with `--join`, or is about to: it never begins one. Before the cluster has
    /// given it a node id it may have none.
    pub joins: bool,
    pub rack: Option<String>,

    /// Listeners for clients, in the order of the file.
    pub listeners: Vec<Listener>,
    /// Listeners for the controller, in the order of `controller.listener.names`: controllers
    /// reach each other on the first. They may be absent: a single node needs none.
    pub controller_listeners: Vec<Listener>,
    /// What clients are told, one per client listener at most. Port 0 is the port that the
    /// listener of the same name got; no host is this machine's name.
    pub advertised_listeners: Vec<Listener>,
    pub advertised_controller_listeners: Vec<Listener>,
    pub inter_broker_listener_name: String,
    pub controller_listener_names: Vec<String>,
    /// All of the static voters, or none; what they mean is [`BrokerConfig::formation`].
    pub controller_quorum_voters: Vec<Voter>,
    pub controller_quorum_bootstrap_servers: Vec<(String, u16)>,
    pub controller_quorum_auto_join_enable: bool,

    pub broker_heartbeat_interval_ms: i32,
    pub initial_broker_registration_timeout_ms: i32,
    /// `None` until somebody sets it.
    pub controller_quorum_fetch_timeout_ms: Option<i32>,

    pub log_dirs: Vec<PathBuf>,
    /// One of `log_dirs`, or another one.
    pub metadata_log_dir: PathBuf,
    /// `internal.metadata.log.segment.bytes`, where that is set.
    pub metadata_log_segment_bytes: i32,
    pub metadata_log_segment_ms: i64,
    pub metadata_log_max_record_bytes_between_snapshots: i64,
    /// 0: time plays no part.
    pub metadata_log_max_snapshot_interval_ms: i64,
    /// Negative: without a limit.
    pub metadata_max_retention_bytes: i64,
    /// Negative: without a limit.
    pub metadata_max_retention_ms: i64,

    pub auto_create_topics_enable: bool,
    pub num_partitions: i32,
    pub default_replication_factor: i32,
    /// Among them `min.insync.replicas` and `unclean.leader.election.enable`.
    pub topic_defaults: TopicConfig,

    pub socket_send_buffer_bytes: i32,
    pub socket_receive_buffer_bytes: i32,
    pub socket_request_max_bytes: i32,
    pub socket_listen_backlog_size: i32,
    /// Negative: never.
    pub connections_max_idle_ms: i64,
    /// `None`: without a bound.
    pub queued_max_request_bytes: Option<u64>,

    pub fetch_max_bytes: i32,
    pub max_incremental_fetch_session_cache_slots: i32,
    pub max_request_partition_size_limit: i32,

    /// Acknowledged means on disk, not in the page cache.
    pub log_flush_on_commit: bool,
    /// `ottla.scrub.bytes.per.second`; 0 is never.
    pub scrub_bytes_per_second: i64,
    pub scrub_interval_ms: i64,
    /// At the start; it may change later.
    pub log_dir_reserved_bytes: i64,
    pub log_flush_offset_checkpoint_interval_ms: i32,
    pub log_initial_task_delay_ms: i64,
    pub log_retention_check_interval_ms: i64,
    pub num_recovery_threads_per_data_dir: i32,
    pub replica_high_watermark_checkpoint_interval_ms: i64,
    pub replica_lag_time_max_ms: i64,

    /// At the start; it may change later.
    pub num_replica_fetchers: i32,
    pub replica_fetch_backoff_ms: i32,
    pub replica_fetch_max_bytes: i32,
    pub replica_fetch_min_bytes: i32,
    pub replica_fetch_response_max_bytes: i32,
    pub replica_fetch_wait_max_ms: i32,
    pub replica_selector_class: ReplicaSelector,
    pub replication_quota_window_num: i32,
    pub replication_quota_window_size_seconds: i32,

    pub producer_id_expiration_ms: i32,
    pub producer_id_expiration_check_interval_ms: i32,
    pub group_initial_rebalance_delay_ms: i32,
    pub group_min_session_timeout_ms: i32,
    pub group_max_session_timeout_ms: i32,
    pub group_max_size: i32,
    pub offset_metadata_max_bytes: i32,
    pub offsets_commit_timeout_ms: i32,
    pub offsets_retention_minutes: i32,
    pub offsets_retention_check_interval_ms: i64,
    pub offsets_topic_compression_codec: i32,
    pub offsets_topic_num_partitions: i32,
    pub offsets_topic_replication_factor: i32,
    pub offsets_topic_segment_bytes: i32,
    pub transaction_state_log_num_partitions: i32,
    pub transaction_state_log_replication_factor: i32,
    pub transaction_state_log_min_isr: i32,
    pub transaction_state_log_segment_bytes: i32,
    pub share_coordinator_state_topic_num_partitions: i32,
    pub share_coordinator_state_topic_replication_factor: i32,
    pub share_coordinator_state_topic_min_isr: i32,
    pub share_coordinator_state_topic_segment_bytes: i32,

    /// Where /metrics, /healthz and /readyz are; `None` is nowhere.
    pub http_listener: Option<(String, u16)>,
    pub log_format: LogFormat,
    pub log_level: LogLevel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A configuration that a broker can start with.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: BrokerConfig,
    /// What was set and where, for DescribeConfigs.
    pub settings: Settings,
    pub notices: Vec<Notice>,
}

/// Something to log once at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub severity: Severity,
    pub message: String,
    pub origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Debug,
    Info,
    Warn,
}

/// Why a broker does not start: everything that is wrong, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub problems: Vec<Problem>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejected {}

/// Reads all sources and checks everything.
///
/// # Errors
/// [`Rejected`], with all that is wrong.
pub fn load(sources: &Sources) -> Result<Loaded, Rejected> {
    let mut problems = Vec::new();
    let mut settings = sources.gather(&mut problems);
    apply_formatted(sources, &mut settings, &mut problems);
    identity(&mut settings, &mut problems);
    apply_options(sources, &mut settings, &mut problems);
    apply_join(sources, &mut settings, &mut problems);
    forget_what_suits_one_node(sources, &mut settings);
    refuse(&settings, &mut problems);
    let mut notices = notices(sources, &settings, &mut problems);
    consistency::check(&settings, sources.joins(), &mut problems);
    let config = BrokerConfig::from_settings(&settings, sources.joins(), &mut problems);
    match config {
        Some(config) if problems.is_empty() => {
            notices.extend(consistency::doubts(&config, &settings));
            Ok(Loaded { config, settings, notices })
        }
        _ => Err(Rejected { problems }),
    }
}

/// Where the data is, that of the metadata last, without a look at anything else: what is there may be one of the sources.
pub fn directories(sources: &Sources) -> Vec<PathBuf> {
    let mut problems = Vec::new();
    let mut settings = sources.gather(&mut problems);
    apply_options(sources, &mut settings, &mut problems);
    let mut directories = log_dirs(&settings);
    directories.extend(settings.text("metadata.log.dir").map(PathBuf::from));
    directories
}

/// A formatted directory says who the node is, where nobody has said it in either name.
fn apply_formatted(sources: &Sources, settings: &mut Settings, problems: &mut Vec<Problem>) {
    let is_said = ["node.id", "broker.id"]
        .iter()
        .any(|name| settings.get(name).is_some_and(|setting| setting.origin != Origin::BuiltIn));
    if let Some(Formatted { path, node_id, .. }) = &sources.formatted
        && !is_said
    {
        let origin = Origin::Directory { path: path.as_str().into() };
        let set = settings.set("node.id", &node_id.to_string(), origin);
        set.unwrap_or_else(|problem| problems.push(problem));
    }
}

/// `broker.id` is `node.id` by its older name: each stands for the other.
fn identity(settings: &mut Settings, problems: &mut Vec<Problem>) {
    for (from, to) in [("node.id", "broker.id"), ("broker.id", "node.id")] {
        if let Some(setting) = settings.get(from).cloned()
            && !settings.is_set(to)
        {
            settings.set(to, &setting.text, setting.origin).unwrap_or_else(|p| problems.push(p));
        }
    }
}

/// A node that is started without a file, but as one of several, gets Kafka's defaults where those
/// of a lone node would cost a cluster its data.
fn forget_what_suits_one_node(sources: &Sources, settings: &mut Settings) {
    if !quorum::names_others(settings) && !sources.joins() {
        return;
    }
    for (name, _) in BUILT_IN_FOR_ONE {
        if settings.get(name).is_some_and(|setting| setting.origin == Origin::BuiltIn) {
            settings.unset(name);
        }
    }
}

/// `--listen` and `--data-dir` stand for properties.
fn apply_options(sources: &Sources, settings: &mut Settings, problems: &mut Vec<Problem>) {
    let mut set = |name: &str, text: &str, option| {
        let origin = Origin::CommandLine { option };
        settings.set(name, text, origin).unwrap_or_else(|problem| problems.push(problem));
    };
    if let Some(dir) = &sources.data_dir {
        set("log.dirs", dir, "--data-dir");
        settings.unset("metadata.log.dir");
    }
    if let Some(address) = &sources.listen {
        apply_listen(address, settings, problems);
    }
}

/// `--join`, or having joined, stands for properties, too: where to ask for the controllers, and that this one wants a vote.
fn apply_join(sources: &Sources, settings: &mut Settings, problems: &mut Vec<Problem>) {
    const SERVERS: &str = "controller.quorum.bootstrap.servers";
    const AUTO_JOIN: &str = "controller.quorum.auto.join.enable";
    if !sources.joins() {
        return;
    }
    let origin = match &sources.formatted {
        Some(Formatted { path, joined: Some(_), .. }) => {
            Origin::Directory { path: path.as_str().into() }
        }
        _ => Origin::CommandLine { option: "--join" },
    };
    if !sources.join.is_empty() && !settings.list("controller.quorum.voters").is_empty() {
        problems.push(Problem {
            origin: settings.origin("controller.quorum.voters"),
            message: "controller.quorum.voters names the controllers, which a node that joins \
                      finds by itself: leave one of it and --join out"
                .to_owned(),
        });
    }
    let mut servers = settings.list(SERVERS);
    servers.extend(sources.formatted.iter().flat_map(|it| it.joined.iter().flatten().cloned()));
    for address in sources.join.iter().flat_map(|it| it.split(',')).map(str::trim) {
        match server(address) {
            Ok((host, port)) if !host.is_empty() && port != 0 => servers.push(address.to_owned()),
            Ok(_) | Err(_) => problems.push(Problem {
                origin: Some(Origin::CommandLine { option: "--join" }),
                message: not_an_address(address, 1),
            }),
        }
    }
    let mut seen = BTreeSet::new();
    servers.retain(|it| seen.insert(it.clone()));
    let wants_vote =
        ProcessRoles::from_settings(settings).controller && !settings.is_set(AUTO_JOIN);
    let mut set = |name: &str, text: &str| {
        let set = settings.set(name, text, origin.clone());
        set.unwrap_or_else(|problem| problems.push(problem));
    };
    set(SERVERS, &servers.join(","));
    if wants_vote {
        set(AUTO_JOIN, "true");
    }
}

/// Replaces the address of the first listener for clients; other listeners stay, and what was
/// advertised for the replaced one does not hold any more, unless the command line says that, too.
fn apply_listen(address: &str, settings: &mut Settings, problems: &mut Vec<Problem>) {
    let origin = Origin::CommandLine { option: "--listen" };
    let Some((host, port)) = host_and_port(address) else {
        let message = not_an_address(address, 0);
        problems.push(Problem { origin: Some(origin), message });
        return;
    };
    // The wildcard addresses cannot be advertised; an empty host means them and can.
    let host = match host.as_str() {
        "0.0.0.0" | "::" => String::new(),
        v6 if v6.contains(':') => format!("[{v6}]"),
        other => other.to_owned(),
    };
    let name_of = |entry: &String| entry.split("://").next().unwrap_or_default().to_uppercase();
    let controllers: Vec<_> =
        settings.list("controller.listener.names").iter().map(|n| n.to_uppercase()).collect();
    let mut listeners = settings.list("listeners");
    let replaced = listeners.iter_mut().find(|entry| !controllers.contains(&name_of(entry)));
    let Some(entry) = replaced else { return };
    let name = name_of(entry);
    *entry = format!("{name}://{host}:{port}");
    let listeners = listeners.join(",");
    let is_told =
        matches!(settings.origin("advertised.listeners"), Some(Origin::CommandLine { .. }));
    let advertised = settings.list("advertised.listeners");
    let advertised: Vec<_> =
        advertised
            .iter()
            .map(|other| {
                if name_of(other) == name {
                    format!("{name}://{host}:{port}")
                } else {
                    other.clone()
                }
            })
            .collect();
    let mut set = |name, text: &str| {
        let set = settings.set(name, text, origin.clone());
        set.unwrap_or_else(|problem| problems.push(problem));
    };
    set("listeners", &listeners);
    if !advertised.is_empty() && !is_told {
        set("advertised.listeners", &advertised.join(","));
    }
}

/// Rows that say "refused" allow their default only.
fn refuse(settings: &Settings, problems: &mut Vec<Problem>) {
    for (name, setting) in settings.iter() {
        let Some(property) = find(Scope::Broker, name) else { continue };
        let Status::Refused(cure) = property.status else { continue };
        let written = setting.value.to_string();
        if written != property.default.unwrap_or_default() && !written.is_empty() {
            problems.push(Problem {
                origin: Some(setting.origin.clone()),
                message: format!("{name}={written} cannot be honoured; {cure}"),
            });
        }
    }
}

fn notices(sources: &Sources, settings: &Settings, problems: &mut Vec<Problem>) -> Vec<Notice> {
    let mut notices = Vec::new();
    for (name, setting) in settings.iter() {
        let accepted = find(Scope::Broker, name).is_some_and(|p| p.status == Status::Accepted);
        if accepted && setting.origin != Origin::BuiltIn {
            notices.push(Notice {
                severity: Severity::Debug,
                message: format!("{name} is accepted and has no effect here"),
                origin: setting.origin.clone(),
            });
        }
    }
    let is_read = |name: &str| listener_base(name) == Some("max.connections");
    for (name, unknown) in settings.unknown().filter(|(name, _)| !is_read(name)) {
        let origin = unknown.origin.clone();
        let severity = unknown_severity(name, &origin);
        if sources.strict && severity == Severity::Warn {
            problems.push(Problem { origin: Some(origin), message: unknown_message(name) });
        } else {
            notices.push(Notice { severity, message: unknown_message(name), origin });
        }
    }
    notices
}

/// Real files carry keys of plug-ins and vendors, and container platforms set `KAFKA_*` variables
/// of their own: only what looks like a mistake is a warning.
fn unknown_severity(name: &str, origin: &Origin) -> Severity {
    const FOREIGN: &[&str] = &[
        "client.quota.callback.",
        "config.providers.",
        "confluent.",
        "cruise.control.",
        "listener.name.",
        "metric.reporters.",
        "rlmm.config.",
        "rsm.config.",
        "strimzi.",
    ];
    let misspelt = nearest(Scope::Broker, name).is_some();
    if FOREIGN.iter().any(|prefix| name.starts_with(prefix)) {
        Severity::Debug
    } else if matches!(origin, Origin::Environment { .. }) && !misspelt {
        Severity::Info
    } else {
        Severity::Warn
    }
}

impl BrokerConfig {
    /// `None` when the listeners cannot be made out; the reason is among the problems.
    fn from_settings(s: &Settings, joins: bool, problems: &mut Vec<Problem>) -> Option<Self> {
        let process_roles = ProcessRoles::from_settings(s);
        let endpoints = Endpoints::from_settings(s, process_roles, problems)?;
        let log_dirs = log_dirs(s);
        let metadata = s.text("metadata.log.dir").map(PathBuf::from);
        let queued = s.long("queued.max.request.bytes");
        let voters = s.list("controller.quorum.voters");
        let servers = s.list("controller.quorum.bootstrap.servers");
        let config = Self {
            node_id: BrokerId(s.value("node.id").map_or(-1, |_| s.int("node.id"))),
            process_roles,
            joins,
            rack: s.text("broker.rack"),
            listeners: endpoints.listeners,
            controller_listeners: endpoints.controller_listeners,
            advertised_listeners: endpoints.advertised_listeners,
            advertised_controller_listeners: endpoints.advertised_controller_listeners,
            inter_broker_listener_name: endpoints.inter_broker_listener_name,
            controller_listener_names: endpoints.controller_listener_names,
            controller_quorum_voters: voters.iter().filter_map(|v| Voter::parse(v).ok()).collect(),
            controller_quorum_bootstrap_servers: servers
                .iter()
                .filter_map(|entry| server(entry).ok())
                .collect(),
            controller_quorum_auto_join_enable: s.boolean("controller.quorum.auto.join.enable"),
            broker_heartbeat_interval_ms: s.int("broker.heartbeat.interval.ms"),
            initial_broker_registration_timeout_ms: s.int("initial.broker.registration.timeout.ms"),
            controller_quorum_fetch_timeout_ms: s
                .is_chosen("controller.quorum.fetch.timeout.ms")
                .then(|| s.int("controller.quorum.fetch.timeout.ms")),
            metadata_log_dir: metadata.or_else(|| log_dirs.first().cloned())?,
            metadata_log_segment_bytes: s.value("internal.metadata.log.segment.bytes").map_or_else(
                || s.int("metadata.log.segment.bytes"),
                |_| s.int("internal.metadata.log.segment.bytes"),
            ),
            metadata_log_segment_ms: s.long("metadata.log.segment.ms"),
            metadata_log_max_record_bytes_between_snapshots: s
                .long("metadata.log.max.record.bytes.between.snapshots"),
            metadata_log_max_snapshot_interval_ms: s.long("metadata.log.max.snapshot.interval.ms"),
            metadata_max_retention_bytes: s.long("metadata.max.retention.bytes"),
            metadata_max_retention_ms: s.long("metadata.max.retention.ms"),
            log_dirs,
            auto_create_topics_enable: s.boolean("auto.create.topics.enable"),
            num_partitions: s.int("num.partitions"),
            default_replication_factor: s.int("default.replication.factor"),
            topic_defaults: TopicConfig::from_broker(s),
            socket_send_buffer_bytes: s.int("socket.send.buffer.bytes"),
            socket_receive_buffer_bytes: s.int("socket.receive.buffer.bytes"),
            socket_request_max_bytes: s.int("socket.request.max.bytes"),
            socket_listen_backlog_size: s.int("socket.listen.backlog.size"),
            connections_max_idle_ms: s.long("connections.max.idle.ms"),
            queued_max_request_bytes: u64::try_from(queued).ok().filter(|bytes| *bytes > 0),
            fetch_max_bytes: s.int("fetch.max.bytes"),
            max_incremental_fetch_session_cache_slots: s
                .int("max.incremental.fetch.session.cache.slots"),
            max_request_partition_size_limit: s.int("max.request.partition.size.limit"),
            log_dir_reserved_bytes: s.long("log.dir.reserved.bytes"),
            log_flush_on_commit: s.boolean("log.flush.on.commit"),
            scrub_bytes_per_second: s.long("ottla.scrub.bytes.per.second"),
            scrub_interval_ms: s.long("ottla.scrub.interval.ms"),
            log_flush_offset_checkpoint_interval_ms: s
                .int("log.flush.offset.checkpoint.interval.ms"),
            log_initial_task_delay_ms: s.long("log.initial.task.delay.ms"),
            log_retention_check_interval_ms: s.long("log.retention.check.interval.ms"),
            num_recovery_threads_per_data_dir: s.int("num.recovery.threads.per.data.dir"),
            replica_high_watermark_checkpoint_interval_ms: s
                .long("replica.high.watermark.checkpoint.interval.ms"),
            replica_lag_time_max_ms: s.long("replica.lag.time.max.ms"),
            num_replica_fetchers: s.int("num.replica.fetchers"),
            replica_fetch_backoff_ms: s.int("replica.fetch.backoff.ms"),
            replica_fetch_max_bytes: s.int("replica.fetch.max.bytes"),
            replica_fetch_min_bytes: s.int("replica.fetch.min.bytes"),
            replica_fetch_response_max_bytes: s.int("replica.fetch.response.max.bytes"),
            replica_fetch_wait_max_ms: s.int("replica.fetch.wait.max.ms"),
            replica_selector_class: ReplicaSelector::from_settings(s, problems),
            replication_quota_window_num: s.int("replication.quota.window.num"),
            replication_quota_window_size_seconds: s.int("replication.quota.window.size.seconds"),
            producer_id_expiration_ms: s.int("producer.id.expiration.ms"),
            producer_id_expiration_check_interval_ms: s
                .int("producer.id.expiration.check.interval.ms"),
            group_initial_rebalance_delay_ms: s.int("group.initial.rebalance.delay.ms"),
            group_min_session_timeout_ms: s.int("group.min.session.timeout.ms"),
            group_max_session_timeout_ms: s.int("group.max.session.timeout.ms"),
            group_max_size: s.int("group.max.size"),
            offset_metadata_max_bytes: s.int("offset.metadata.max.bytes"),
            offsets_commit_timeout_ms: s.int("offsets.commit.timeout.ms"),
            offsets_retention_minutes: s.int("offsets.retention.minutes"),
            offsets_retention_check_interval_ms: s.long("offsets.retention.check.interval.ms"),
            offsets_topic_compression_codec: s.int("offsets.topic.compression.codec"),
            offsets_topic_num_partitions: s.int("offsets.topic.num.partitions"),
            offsets_topic_replication_factor: short(s, "offsets.topic.replication.factor"),
            offsets_topic_segment_bytes: s.int("offsets.topic.segment.bytes"),
            transaction_state_log_num_partitions: s.int("transaction.state.log.num.partitions"),
            transaction_state_log_replication_factor: short(
                s,
                "transaction.state.log.replication.factor",
            ),
            transaction_state_log_min_isr: s.int("transaction.state.log.min.isr"),
            transaction_state_log_segment_bytes: s.int("transaction.state.log.segment.bytes"),
            share_coordinator_state_topic_num_partitions: s
                .int("share.coordinator.state.topic.num.partitions"),
            share_coordinator_state_topic_replication_factor: short(
                s,
                "share.coordinator.state.topic.replication.factor",
            ),
            share_coordinator_state_topic_min_isr: short(
                s,
                "share.coordinator.state.topic.min.isr",
            ),
            share_coordinator_state_topic_segment_bytes: s
                .int("share.coordinator.state.topic.segment.bytes"),
            http_listener: s.text("ottla.http.listener").as_deref().and_then(host_and_port),
            log_format: log_format(s),
            log_level: log_level(s),
        };
        config.check_quorum(s, problems);
        Some(config)
    }
}

fn log_dirs(s: &Settings) -> Vec<PathBuf> {
    let name = if s.is_set("log.dirs") { "log.dirs" } else { "log.dir" };
    s.list(name).into_iter().map(PathBuf::from).collect()
}

fn short(s: &Settings, name: &str) -> i32 {
    s.short(name).into()
}

fn log_format(s: &Settings) -> LogFormat {
    match s.text("ottla.log.format").as_deref() {
        Some("json") => LogFormat::Json,
        _ => LogFormat::Text,
    }
}

fn log_level(s: &Settings) -> LogLevel {
    let name = s.text("ottla.log.level");
    [LogLevel::Error, LogLevel::Warn, LogLevel::Debug, LogLevel::Trace]
        .into_iter()
        .find(|level| name.as_deref() == Some(level.name()))
        .unwrap_or(LogLevel::Info)
}
