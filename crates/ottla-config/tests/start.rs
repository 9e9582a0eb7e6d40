//! What a broker makes of the configuration that people really give it.

use ottla_config::property::{Scope, Status};
use ottla_config::{
    Listener, Loaded, Notice, Origin, SecurityProtocol, Severity, Sources, load, table,
};

/// The properties of Kafka 4.3's stock `config/server.properties`.
const STOCK: &str = include_str!("kafka/server.properties");

fn file(text: &str) -> Sources {
    Sources { file: Some(("server.properties".to_owned(), text.to_owned())), ..Sources::default() }
}

fn set(pairs: &[&str]) -> Sources {
    Sources { set: pairs.iter().map(|&pair| pair.to_owned()).collect(), ..Sources::default() }
}

fn started(sources: &Sources) -> Loaded {
    load(sources).unwrap_or_else(|rejected| panic!("{rejected}"))
}

/// Every problem, one line each.
fn refused(sources: &Sources) -> String {
    load(sources).expect_err("this configuration is refused").to_string()
}

fn warnings(notices: &[Notice]) -> Vec<&str> {
    notices
        .iter()
        .filter(|notice| notice.severity == Severity::Warn)
        .map(|notice| notice.message.as_str())
        .collect()
}

fn shown(listeners: &[Listener]) -> Vec<String> {
    listeners.iter().map(ToString::to_string).collect()
}

#[test]
fn without_any_configuration_a_node_serves_this_machine() {
    let Loaded { config, notices, .. } = started(&Sources::default());
    assert_eq!(config.node_id.0, 1);
    assert_eq!(shown(&config.listeners), ["PLAINTEXT://127.0.0.1:9092"]);
    assert_eq!(shown(&config.advertised_listeners), ["PLAINTEXT://127.0.0.1:9092"]);
    assert!(config.controller_listeners.is_empty());
    assert_eq!(config.log_dirs, [std::path::Path::new("./ottla-data")]);
    assert_eq!(config.http_listener, Some(("127.0.0.1".to_owned(), 9644)));
    assert!(config.log_flush_on_commit);
    assert_eq!(notices, []);
}

#[test]
fn the_stock_file_starts_unchanged_and_without_a_warning() {
    let Loaded { config, notices, .. } = started(&file(STOCK));
    assert_eq!(shown(&config.listeners), ["PLAINTEXT://:9092"]);
    assert_eq!(shown(&config.controller_listeners), ["CONTROLLER://:9093"]);
    assert_eq!(shown(&config.advertised_listeners), ["PLAINTEXT://localhost:9092"]);
    assert_eq!(shown(&config.advertised_controller_listeners), ["CONTROLLER://localhost:9093"]);
    assert_eq!(config.inter_broker_listener_name, "PLAINTEXT");
    assert_eq!(config.listeners[0].protocol, SecurityProtocol::Plaintext);
    assert_eq!(config.log_dirs, [std::path::Path::new("/tmp/kraft-combined-logs")]);
    assert_eq!(config.topic_defaults.retention_ms, 168 * 3_600_000);
    assert_eq!(warnings(&notices), Vec::<&str>::new());
}

#[test]
fn the_command_line_beats_the_environment_and_that_beats_the_file() {
    let mut sources = file(STOCK);
    sources.environment = vec![
        ("KAFKA_NUM_PARTITIONS".to_owned(), "5".to_owned()),
        ("KAFKA_LOG_RETENTION_MS".to_owned(), "1000".to_owned()),
        ("KAFKA_HEAP_OPTS".to_owned(), "-Xmx1G".to_owned()),
        ("PATH".to_owned(), "/bin".to_owned()),
    ];
    sources.set = vec!["num.partitions=7".to_owned()];
    let Loaded { config, settings, .. } = started(&sources);
    assert_eq!(config.num_partitions, 7);
    assert_eq!(config.topic_defaults.retention_ms, 1000);
    assert_eq!(
        settings.get("log.retention.ms").unwrap().origin,
        Origin::Environment { variable: "KAFKA_LOG_RETENTION_MS".to_owned() }
    );
    assert_eq!(
        settings.get("log.retention.hours").unwrap().origin,
        Origin::File { path: "server.properties".into(), line: 22 }
    );
}

#[test]
fn a_weaker_source_may_be_wrong_where_a_stronger_one_speaks() {
    let mut sources = file(&format!("{STOCK}num.partitions=many\n"));
    sources.set = vec!["num.partitions=7".to_owned()];
    assert_eq!(started(&sources).config.num_partitions, 7);
}

#[test]
fn every_malformed_value_is_named_with_its_line_and_what_is_allowed() {
    let text = format!("{STOCK}\n# a comment\nlog.segment.bytes = ten\nnum.partitions=0\n");
    assert_eq!(
        refused(&file(&text)),
        "server.properties line 27: log.segment.bytes=ten is not allowed: Not a number of type \
         INT; allowed: 1048576 to 2147483647\n\
         server.properties line 28: num.partitions=0 is not allowed: Value must be at least 1; \
         allowed: 1 to 2147483647"
    );
}

#[test]
fn a_malformed_value_of_the_command_line_or_environment_names_its_option_or_variable() {
    assert_eq!(
        refused(&set(&["log.message.timestamp.type=Whenever"])),
        "command line --set: log.message.timestamp.type=Whenever is not allowed: String must be \
         one of: CreateTime, LogAppendTime; allowed: one of CreateTime, LogAppendTime"
    );
    let sources = Sources {
        environment: vec![("KAFKA_DELETE_TOPIC_ENABLE".to_owned(), "yes".to_owned())],
        ..Sources::default()
    };
    assert_eq!(
        refused(&sources),
        "environment variable KAFKA_DELETE_TOPIC_ENABLE: delete.topic.enable=yes is not allowed: \
         Expected value to be either true or false; allowed: true or false"
    );
}

#[test]
fn an_unknown_name_is_one_warning_and_with_strict_config_an_error() {
    let mut sources = file(&format!("{STOCK}log.retention.hour=1\nmy.own.key=1\n"));
    assert_eq!(
        warnings(&started(&sources).notices),
        [
            "log.retention.hour is no property of Kafka or Ottla: did you mean \
             log.retention.hours?",
            "my.own.key is no property of Kafka or Ottla, and is ignored",
        ]
    );
    sources.strict = true;
    let problems = refused(&sources);
    assert!(problems.starts_with("server.properties line 25: log.retention.hour is no"));
    assert!(problems.contains("line 26: my.own.key"));
}

#[test]
fn keys_of_plug_ins_vendors_and_container_platforms_are_no_warnings() {
    let mut sources =
        file(&format!("{STOCK}listener.name.plaintext.ssl.client.auth=none\nconfluent.x=1\n"));
    sources.environment = vec![("KAFKA_PORT_9092_TCP_ADDR".to_owned(), "10.0.0.1".to_owned())];
    sources.strict = true;
    assert_eq!(warnings(&started(&sources).notices), Vec::<&str>::new());
}

#[test]
fn a_property_without_effect_is_a_debug_line() {
    let notices = started(&set(&["num.io.threads=4"])).notices;
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].severity, Severity::Debug);
    assert_eq!(notices[0].message, "num.io.threads is accepted and has no effect here");
}

#[test]
fn what_the_broker_would_have_to_pretend_is_refused_with_the_cure() {
    for (pair, cure) in [
        ("controller.quorum.voters=2@a:1", "give node.id as the voter"),
        ("replica.selector.class=x.Selector", "Java classes cannot run here"),
        ("authorizer.class.name=x.Authorizer", "remove it"),
        ("remote.log.storage.system.enable=true", "set it to false"),
        ("listeners=PLAINTEXT://:9092,SSL://:9093", "to PLAINTEXT in listener.security"),
        ("listener.security.protocol.map=PLAINTEXT:SASL_SSL", "SASL_SSL, which is not served"),
        ("config.providers=file", "write the values themselves"),
        ("cordoned.log.dirs=*", "remove it"),
        ("create.topic.policy.class.name=x.Policy", "remove it"),
    ] {
        let problems = refused(&set(&[pair]));
        assert!(problems.contains(cure), "{pair}: {problems}");
    }
}

#[test]
fn a_file_must_say_who_the_node_is() {
    assert_eq!(
        refused(&file("log.dirs=/data\n")),
        "node.id is missing: every node needs one, such as node.id=1\n\
         process.roles is missing: a node here is process.roles=broker,controller"
    );
    let old = "broker.id=7\nprocess.roles=broker,controller\n";
    assert_eq!(started(&file(old)).config.node_id.0, 7);
    assert_eq!(
        refused(&file(&format!("{old}node.id=8\n"))),
        "server.properties line 1: broker.id must equal node.id: remove broker.id"
    );
}

#[test]
fn listeners_must_fit_together() {
    for (pairs, reason) in [
        (&["controller.listener.names=CONTROLLER"][..], "add CONTROLLER://:9093 to listeners"),
        (&["controller.listener.names=PLAINTEXT"], "there is none for clients"),
        (&["listeners=PLAINTEXT://:1,SSL://:1"], "want the same port"),
        (&["listeners=PLAINTEXT://0.0.0.0:1"], "clients cannot connect to 0.0.0.0"),
        (&["advertised.listeners=SSL://h:1"], "SSL is not among the listeners: PLAINTEXT"),
        (&["inter.broker.listener.name=SSL"], "SSL is not advertised: name one of PLAINTEXT"),
        (
            &["security.inter.broker.protocol=SSL"],
            "security.inter.broker.protocol: SSL is not advertised: name one of PLAINTEXT",
        ),
        (
            &["inter.broker.listener.name=PLAINTEXT", "security.inter.broker.protocol=PLAINTEXT"],
            "security.inter.broker.protocol is set, too",
        ),
        (&["early.start.listeners=PLAINTEXT,SSL"], "SSL is not among the listeners"),
        (&["listeners=here"], "here is not of the form NAME://HOST:PORT"),
    ] {
        let problems = refused(&set(pairs));
        assert!(problems.contains(reason), "{pairs:?}: {problems}");
    }
}

#[test]
fn properties_must_fit_together() {
    for (pair, reason) in [
        ("queued.max.request.bytes=1", "must hold one largest request"),
        ("max.connections.per.ip=0", "lets nobody connect"),
        ("max.connections.per.ip.overrides=h", "h is not of the form HOST:COUNT"),
        ("log.roll.ms=0", "log.roll.ms must be at least 1"),
        ("log.retention.ms=0", "log.retention.ms=0 is not allowed"),
        ("group.consumer.session.timeout.ms=60001", "must not be above"),
        ("log.cleaner.threads=1000", "per thread"),
        ("log.flush.interval.ms=-1", "log.flush.interval.ms must be at least 0"),
        ("log.flush.scheduler.interval.ms=-1", "scheduler.interval.ms must be at least 0"),
        ("offsets.topic.compression.codec=5", "must be 0 (none), 1 (gzip)"),
        ("group.coordinator.rebalance.protocols=consumer", "must contain classic"),
    ] {
        let problems = refused(&set(&[pair]));
        assert!(problems.contains(reason), "{pair}: {problems}");
    }
    // The one that does not count may be anything.
    started(&set(&["log.flush.interval.ms=0", "log.flush.scheduler.interval.ms=-1"]));
}

#[test]
fn listen_moves_the_client_listener_and_keeps_the_others() {
    let mut sources = file(STOCK);
    sources.listen = Some("127.0.0.1:0".to_owned());
    let config = started(&sources).config;
    assert_eq!(shown(&config.listeners), ["PLAINTEXT://127.0.0.1:0"]);
    assert_eq!(shown(&config.advertised_listeners), ["PLAINTEXT://127.0.0.1:0"]);
    assert_eq!(shown(&config.controller_listeners), ["CONTROLLER://:9093"]);

    sources = Sources { listen: Some("0.0.0.0:9092".to_owned()), ..Sources::default() };
    assert_eq!(shown(&started(&sources).config.listeners), ["PLAINTEXT://:9092"]);

    // As the help of `ottla serve` says.
    sources = set(&["advertised.listeners=PLAINTEXT://broker.example:9092"]);
    sources.listen = Some("0.0.0.0:9092".to_owned());
    let config = started(&sources).config;
    assert_eq!(shown(&config.listeners), ["PLAINTEXT://:9092"]);
    assert_eq!(shown(&config.advertised_listeners), ["PLAINTEXT://broker.example:9092"]);

    sources = Sources { listen: Some("9092".to_owned()), ..Sources::default() };
    assert_eq!(refused(&sources), "command line --listen: 9092 is not of the form HOST:PORT");

    sources.listen = Some("broker:99999".to_owned());
    let port = "command line --listen: the port of broker:99999 is not between 0 and 65535";
    assert_eq!(refused(&sources), port);
}

#[test]
fn a_data_directory_of_the_command_line_takes_everything() {
    let mut sources = file(&format!("{STOCK}metadata.log.dir=/elsewhere\n"));
    sources.data_dir = Some("/data".to_owned());
    let config = started(&sources).config;
    assert_eq!(config.log_dirs, [std::path::Path::new("/data")]);
    assert_eq!(config.metadata_log_dir, std::path::Path::new("/data"));
}

#[test]
fn the_metadata_is_in_the_first_directory_unless_it_has_one_of_its_own() {
    let stock = format!("{STOCK}log.dirs=/first,/second\n");
    let config = started(&file(&stock)).config;
    assert_eq!(config.log_dirs, ["/first", "/second"].map(std::path::PathBuf::from));
    assert_eq!(config.metadata_log_dir, std::path::Path::new("/first"));
    let config = started(&file(&format!("{stock}metadata.log.dir=/elsewhere\n"))).config;
    assert_eq!(config.metadata_log_dir, std::path::Path::new("/elsewhere"));
}

#[test]
fn the_metrics_port_can_be_moved_and_switched_off() {
    let listener =
        |text: &str| started(&set(&[&format!("ottla.http.listener={text}")])).config.http_listener;
    assert_eq!(listener("none"), None);
    assert_eq!(listener("0.0.0.0:0"), Some(("0.0.0.0".to_owned(), 0)));
    assert!(refused(&set(&["ottla.http.listener=9644"])).contains("host:port, or none"));
}

#[test]
fn a_secret_is_never_repeated() {
    let loaded = started(&set(&["ssl.key.password=hunter2"]));
    let setting = loaded.settings.get("ssl.key.password").unwrap();
    assert_eq!(setting.value.to_string(), "[hidden]");
}

#[test]
fn every_property_can_be_set_to_its_own_default() {
    for property in table::properties(Scope::Broker) {
        let Some(default) = property.default else { continue };
        if matches!(property.name, "broker.id" | "listeners") {
            continue;
        }
        let pair = format!("{}={default}", property.name);
        assert!(load(&set(&[&pair])).is_ok(), "{pair}");
        assert!(!matches!(property.status, Status::Refused(cure) if cure.is_empty()));
    }
}
