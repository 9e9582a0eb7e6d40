//! What a node makes of the configuration of a cluster: roles, voters, listeners for controllers.

use ottla_config::{
    BrokerConfig, Formation, Formatted, Listener, Loaded, ProcessRoles, ReplicaSelector, Severity,
    Sources, load,
};

/// The second of three nodes, as Kafka's documentation sets them up.
const SECOND: &str = "\
process.roles=broker,controller
node.id=2
controller.quorum.voters=1@one:9093,2@two:9093,3@three:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
controller.listener.names=CONTROLLER
log.dirs=/data
";

/// Its controller's listener.
const CONTROLLER: &str = ",CONTROLLER://:9093\ncontroller.listener.names=CONTROLLER";

fn file(text: &str) -> Sources {
    Sources { file: Some(("server.properties".to_owned(), text.to_owned())), ..Sources::default() }
}

fn started(text: &str) -> Loaded {
    load(&file(text)).unwrap_or_else(|rejected| panic!("{rejected}"))
}

fn config(text: &str) -> BrokerConfig {
    started(text).config
}

fn refused(text: &str) -> String {
    load(&file(text)).expect_err("this configuration is refused").to_string()
}

fn warnings(text: &str) -> Vec<String> {
    let notices = started(text).notices.into_iter();
    notices.filter(|it| it.severity == Severity::Warn).map(|it| it.message).collect()
}

fn shown(listeners: &[Listener]) -> Vec<String> {
    listeners.iter().map(ToString::to_string).collect()
}

#[test]
fn one_of_three_controllers_knows_all_of_them_and_itself() {
    let config = config(SECOND);
    assert_eq!(config.formation(), Formation::StaticVoters);
    let ids: Vec<i32> = config.controller_quorum_voters.iter().map(|voter| voter.id).collect();
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(config.own_voter().unwrap().host, "two");
    assert_eq!(config.process_roles, ProcessRoles { broker: true, controller: true });
    assert_eq!(warnings(SECOND), [""; 0]);
}

#[test]
fn a_controller_on_every_interface_is_told_by_its_entry_among_the_voters() {
    let told = |text: &str| shown(&config(text).advertised_controller_listeners);
    assert_eq!(told(SECOND), ["CONTROLLER://two:9093"]);
    let anywhere = SECOND.replace("CONTROLLER://:", "CONTROLLER://0.0.0.0:");
    assert_eq!(told(&anywhere), ["CONTROLLER://two:9093"]);
    let own = SECOND.replace("CONTROLLER://:", "CONTROLLER://10.0.0.2:");
    assert_eq!(told(&own), ["CONTROLLER://10.0.0.2:9093"]);
    let given = "advertised.listeners=PLAINTEXT://p:1,CONTROLLER://c:2\n";
    assert_eq!(told(&format!("{SECOND}{given}")), ["CONTROLLER://c:2"]);
    let unlisted = anywhere.replace("controller.quorum.voters", "# voters");
    let servers = "controller.quorum.bootstrap.servers=one:9093,two:9093\n";
    assert_eq!(told(&format!("{unlisted}{servers}")), ["CONTROLLER://:9093"]);
}

#[test]
fn the_first_name_is_the_listener_on_which_controllers_meet() {
    let text = SECOND
        .replace("CONTROLLER://:9093", "NEW://:9094,CONTROLLER://:9093")
        .replace("names=CONTROLLER", "names=CONTROLLER,NEW");
    let config = config(&text);
    assert_eq!(config.quorum_listener().unwrap().name, "CONTROLLER");
    assert_eq!(
        shown(&config.advertised_controller_listeners),
        ["CONTROLLER://two:9093", "NEW://:9094"]
    );
}

#[test]
fn a_node_is_alone_until_its_properties_name_another() {
    let alone = SECOND.replace("1@one:9093,2@two:9093,3@three:9093", "2@two:9093");
    let servers = |servers: &str| {
        let none = SECOND.replace("controller.quorum.voters", "# voters");
        format!("{none}controller.quorum.bootstrap.servers={servers}\n")
    };
    let on = |host: &str, named: &str| {
        servers(named).replace("CONTROLLER://:", &format!("CONTROLLER://{host}:"))
    };
    let told = |named: &str| {
        let advertised = "advertised.listeners=PLAINTEXT://two:9092,CONTROLLER://two:9093\n";
        format!("{}{advertised}", servers(named))
    };
    for (text, formation) in [
        (alone, Formation::Alone),
        (SECOND.replace("controller.quorum.voters", "# voters"), Formation::Alone),
        (servers("localhost:9093"), Formation::Alone),
        (servers("127.0.0.1:9093"), Formation::Alone),
        (servers("localhost:19093"), Formation::RecordedVoters),
        (servers("one:19093"), Formation::RecordedVoters),
        // The first one of two machines that have all else in common.
        (servers("one:9093"), Formation::RecordedVoters),
        // What others may be told, too: with a new disk it would begin a second cluster.
        (on("two", "two:9093"), Formation::RecordedVoters),
        (told("two:9093"), Formation::RecordedVoters),
        (on("127.0.0.2", "127.0.0.2:9093"), Formation::Alone),
        (on("127.0.0.2", "127.0.0.1:9093"), Formation::RecordedVoters),
        (on("127.0.0.1", "127.0.0.2:9093"), Formation::RecordedVoters),
        (on("127.0.0.1", "localhost:9093"), Formation::Alone),
        (servers("one:9093,two:9093"), Formation::RecordedVoters),
    ] {
        let config = config(&text);
        assert_eq!(config.formation(), formation, "{text}");
    }
}

#[test]
fn voters_must_be_this_node_and_others_that_can_be_reached() {
    for (from, to, reason) in [
        ("node.id=2", "node.id=4", "names node 1, 2, 3, but this controller is node 4"),
        ("3@three", "1@three", "names node 1 twice"),
        ("1@one", "1@0.0.0.0", "nobody can connect to 1@0.0.0.0:9093"),
        (CONTROLLER, "", "controller.listener.names is missing"),
        (CONTROLLER, "\ncontroller.listener.names=OTHER", "OTHER is not among the listeners"),
        ("names=CONTROLLER", "names=CONTROLLER,PLAINTEXT", "there is none for clients"),
        (
            "log.dirs=/data",
            "inter.broker.listener.name=CONTROLLER",
            "CONTROLLER is not advertised: name one of PLAINTEXT",
        ),
        (
            "log.dirs=/data",
            "advertised.listeners=PLAINTEXT://h:1,CONTROLLER://0.0.0.0:1",
            "other nodes cannot connect to 0.0.0.0",
        ),
    ] {
        let problems = refused(&SECOND.replace(from, to));
        assert!(problems.contains(reason), "{to}: {problems}");
    }
}

#[test]
fn a_broker_alone_knows_controllers_and_serves_none() {
    let broker = "\
process.roles=broker
node.id=5
controller.quorum.voters=1@one:9093
listeners=PLAINTEXT://:9092
controller.listener.names=CONTROLLER
";
    assert_eq!(config(broker).formation(), Formation::StaticVoters);
    for (from, to, reason) in [
        ("node.id=5", "node.id=1", "names node 1, which is only a broker"),
        ("controller.quorum.voters", "# voters", "a broker must know a controller"),
        ("names=CONTROLLER", "names=PLAINTEXT", "a broker alone serves no controller listener"),
        ("controller.listener.names=CONTROLLER", "", "controller.listener.names is missing"),
        (
            "node.id=5",
            "node.id=5\ncontroller.quorum.auto.join.enable=true",
            "a broker cannot be a voter",
        ),
        (
            "node.id=5",
            "node.id=5\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT",
            "CONTROLLER has no entry in listener.security.protocol.map",
        ),
    ] {
        let problems = refused(&broker.replace(from, to));
        assert!(problems.contains(reason), "{to}: {problems}");
    }
}

#[test]
fn a_controller_alone_has_no_listeners_for_clients() {
    let controller = "\
process.roles=controller
node.id=1
controller.quorum.voters=1@one:9093
listeners=CONTROLLER://:9093
controller.listener.names=CONTROLLER
";
    assert!(config(controller).listeners.is_empty());
    for (from, to, reason) in [
        ("listeners=C", "listeners=PLAINTEXT://:9092,C", "PLAINTEXT is in none of"),
        (
            "node.id=1",
            "node.id=1\ninter.broker.listener.name=CONTROLLER",
            "brokers use another one among themselves",
        ),
    ] {
        let problems = refused(&controller.replace(from, to));
        assert!(problems.contains(reason), "{to}: {problems}");
    }
}

#[test]
fn what_kafka_starts_with_but_hardly_anybody_means_is_a_warning() {
    let [warning] = &*warnings(&format!("{SECOND}broker.session.timeout.ms=3000\n")) else {
        panic!("one warning");
    };
    assert!(warning.contains("(2000) is more than half of"), "{warning}");
    let moved = SECOND.replace("CONTROLLER://:9093", "CONTROLLER://10.0.0.2:9094");
    let [warning] = &*warnings(&moved) else { panic!("one warning") };
    assert!(warning.contains("on port 9093, but it listens on"), "{warning}");
    let forwarded = format!(
        "{}advertised.listeners=PLAINTEXT://two:9092,CONTROLLER://two:9093\n",
        SECOND.replace("CONTROLLER://:9093", "CONTROLLER://:19093")
    );
    assert_eq!(warnings(&forwarded), [""; 0]);
}

#[test]
fn only_a_lone_node_without_a_file_is_content_with_one_replica() {
    let with = |set: &[&str]| {
        let set = set.iter().map(|&pair| pair.to_owned()).collect();
        let sources = Sources { set, ..Sources::default() };
        load(&sources).unwrap_or_else(|rejected| panic!("{rejected}")).config
    };
    let factors = |config: &BrokerConfig| {
        [
            config.offsets_topic_replication_factor,
            config.transaction_state_log_replication_factor,
            config.transaction_state_log_min_isr,
            config.share_coordinator_state_topic_replication_factor,
        ]
    };
    let of_three = [
        "controller.quorum.voters=1@a:1,2@b:1,3@c:1",
        "listeners=PLAINTEXT://:9092,CONTROLLER://:1",
        "controller.listener.names=CONTROLLER",
    ];
    assert_eq!(factors(&with(&[])), [1, 1, 1, 1]);
    assert_eq!(factors(&with(&of_three)), [3, 3, 2, 3]);
    assert_eq!(with(&of_three).group_initial_rebalance_delay_ms, 3000);
    let chosen = [&of_three[..], &["offsets.topic.replication.factor=2"]].concat();
    assert_eq!(with(&chosen).offsets_topic_replication_factor, 2);
    assert_eq!(factors(&config(SECOND)), [3, 3, 2, 3]);
}

#[test]
fn timeouts_and_sizes_are_kafkas_unless_they_are_set() {
    let defaults = config(SECOND);
    assert_eq!(defaults.broker_heartbeat_interval_ms, 2000);
    assert_eq!(defaults.initial_broker_registration_timeout_ms, 60_000);
    assert_eq!(defaults.controller_quorum_fetch_timeout_ms, None, "nobody has said how patient");
    let patient = config(&format!("{SECOND}controller.quorum.fetch.timeout.ms=2000\n"));
    assert_eq!(patient.controller_quorum_fetch_timeout_ms, Some(2_000));
    assert_eq!(defaults.replica_fetch_max_bytes, 1 << 20);
    assert_eq!(defaults.replica_fetch_response_max_bytes, 10 << 20);
    assert_eq!((defaults.replica_fetch_min_bytes, defaults.replica_fetch_wait_max_ms), (1, 500));
    assert_eq!((defaults.num_replica_fetchers, defaults.replica_fetch_backoff_ms), (1, 1000));
    assert_eq!(defaults.replica_lag_time_max_ms, 30_000);
    assert_eq!(defaults.replica_selector_class, ReplicaSelector::Leader);
    let set = config(&format!(
        "{SECOND}replica.fetch.max.bytes=7\nbroker.rack=east\nreplica.selector.class=\
         org.apache.kafka.common.replica.RackAwareReplicaSelector\n"
    ));
    assert_eq!(set.replica_fetch_max_bytes, 7);
    assert_eq!(set.replica_selector_class, ReplicaSelector::RackAware);
}

/// Apache Kafka 4.3.1's verdicts, from `kafka-storage format` on each configuration.
const VERDICTS: &str = include_str!("kafka/roles.tsv");

#[test]
fn kafka_starts_with_the_same_roles_voters_and_listeners() {
    let mut differences = Vec::new();
    for line in VERDICTS.lines() {
        let (verdict, properties) = line.split_once('\t').unwrap();
        let text = format!("{}\nlog.dirs=/data\n", properties.replace(';', "\n"));
        if load(&file(&text)).is_ok() != (verdict == "starts") {
            differences.push(properties);
        }
    }
    let [twice, alone] = &*differences else { panic!("{differences:#?}") };
    assert!(twice.contains("1@one:9093,2@two:9093,1@three"), "one id twice is refused: {twice}");
    let names_nobody = !alone.contains("controller.quorum");
    assert!(names_nobody && alone.contains("broker,controller"), "it may be alone: {alone}");
}

/// A node without a file that joins a cluster at this address.
fn joining(join: &str) -> Sources {
    Sources { join: vec![join.to_owned()], ..Sources::default() }
}

fn formatted(node_id: i32, joined: Option<&str>) -> Option<Formatted> {
    let joined = joined.map(|it| vec![it.to_owned()]);
    Some(Formatted { path: "/data".to_owned(), node_id, joined })
}

fn servers(config: &BrokerConfig) -> Vec<String> {
    let servers = config.controller_quorum_bootstrap_servers.iter();
    servers.map(|(host, port)| format!("{host}:{port}")).collect()
}

#[test]
fn a_node_that_joins_has_no_id_at_first_wants_a_vote_and_keeps_three_copies() {
    let config = load(&joining("one:9092, two:9092")).unwrap().config;
    assert_eq!(config.node_id.0, -1);
    assert_eq!(config.formation(), Formation::RecordedVoters);
    assert_eq!(servers(&config), ["one:9092", "two:9092"]);
    assert!(config.joins && config.controller_quorum_auto_join_enable);
    assert_eq!(config.offsets_topic_replication_factor, 3);
    assert_eq!(config.transaction_state_log_min_isr, 2);
    assert!(config.controllers_meet_brokers());
}

#[test]
fn a_node_that_has_joined_is_one_of_its_cluster_without_being_told_again() {
    let formatted = formatted(3, Some("one:9092"));
    let again = Sources { formatted: formatted.clone(), ..Sources::default() };
    let told_again = Sources { formatted, ..joining("two:9092") };
    for (sources, expected) in
        [(again, vec!["one:9092"]), (told_again, vec!["one:9092", "two:9092"])]
    {
        let config = load(&sources).unwrap().config;
        assert_eq!(config.node_id.0, 3);
        assert_eq!(config.formation(), Formation::RecordedVoters);
        assert_eq!(servers(&config), expected);
        assert!(config.joins && config.controller_quorum_auto_join_enable);
        assert_eq!(config.offsets_topic_replication_factor, 3);
    }
}

#[test]
fn formatted_directories_say_who_a_node_is_unless_its_properties_do() {
    let text = SECOND.replace("node.id=2\n", "").replace("controller.quorum.voters", "# voters");
    assert!(refused(&text).contains("node.id is missing"));
    let sources = |text: &str| Sources { formatted: formatted(7, None), ..file(text) };
    let config = load(&sources(&text)).unwrap().config;
    assert_eq!((config.node_id.0, config.joins), (7, false));
    assert_eq!(config.formation(), Formation::Alone);
    let named = format!("{text}node.id=2\n");
    assert_eq!(load(&sources(&named)).unwrap().config.node_id.0, 2, "what is said counts");
    let by_its_older_name = format!("{text}broker.id=2\n");
    assert_eq!(load(&sources(&by_its_older_name)).unwrap().config.node_id.0, 2);
    let without_a_file = Sources { formatted: formatted(7, None), ..Sources::default() };
    assert_eq!(load(&without_a_file).unwrap().config.node_id.0, 7);
}

#[test]
fn what_is_set_counts_more_than_what_joining_stands_for() {
    let set = |pair: &str| Sources { set: vec![pair.to_owned()], ..joining("one:9092") };
    let config = load(&set("controller.quorum.auto.join.enable=false")).unwrap().config;
    assert!(config.joins && !config.controller_quorum_auto_join_enable);
    assert_eq!(load(&set("node.id=5")).unwrap().config.node_id.0, 5);
    let broker = "process.roles=broker";
    let config = load(&set(broker)).unwrap().config;
    assert!(!config.controller_quorum_auto_join_enable, "a broker has no vote");
}

#[test]
fn what_can_not_be_joined_is_named() {
    let refused = |sources: &Sources| load(sources).unwrap_err().to_string();
    for (join, reason) in [
        ("one", "command line --join: one is not of the form HOST:PORT"),
        (":9092", "command line --join: :9092 is not of the form HOST:PORT"),
        ("one:9092,two", "command line --join: two is not of the form HOST:PORT"),
        ("one:99999", "command line --join: the port of one:99999 is not between 1 and 65535"),
        ("[::1]:0", "command line --join: the port of [::1]:0 is not between 1 and 65535"),
    ] {
        assert!(refused(&joining(join)).contains(reason), "{}", refused(&joining(join)));
    }
    let voters = vec!["controller.quorum.voters=1@one:9093".to_owned(), "node.id=1".to_owned()];
    let sources = Sources { set: voters, ..joining("two:9092") };
    assert!(refused(&sources).contains("leave one of it and --join out"), "{}", refused(&sources));
}
