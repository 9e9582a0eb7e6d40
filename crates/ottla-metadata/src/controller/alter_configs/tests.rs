//! What changes of configuration write and what they refuse, record by record.

use super::*;
use crate::controller::brokers::tests::image_with_brokers;
use ottla_base::TopicId;
use ottla_config::{Settings, Sources, load};
use ottla_protocol::records::{RegisterControllerRecord, TopicRecord};

fn policy() -> Policy {
    let settings = |file: &str| {
        let sources = Sources {
            file: Some(("server.properties".to_owned(), file.to_owned())),
            ..Sources::default()
        };
        load(&sources).unwrap().settings
    };
    Policy::from_settings(settings(
        "node.id=1\nprocess.roles=broker,controller\nlisteners=PLAINTEXT://:9092,C://:9093\n\
         controller.listener.names=C\nlog.retention.ms=5000",
    ))
}

/// A cluster of broker 1 with a topic `t`.
fn image() -> Image {
    let mut image = image_with_brokers(&[1]);
    let topic = TopicRecord { name: "t".into(), topic_id: TopicId::from_u128(9) };
    image.apply(&topic.into()).unwrap();
    image
}

fn operation(key: &str, code: i8, value: Option<&str>) -> Operation {
    Operation { key: key.into(), code, value: value.map(Into::into) }
}

fn set(key: &str, value: &str) -> Operation {
    operation(key, Operation::SET, Some(value))
}

fn change(kind: i8, name: &str, operations: &[Operation]) -> ConfigChange {
    ConfigChange { kind, name: name.into(), operations: operations.to_vec(), replaces_all: false }
}

fn replacement(kind: i8, name: &str, pairs: &[(&str, &str)]) -> ConfigChange {
    let operations: Vec<_> = pairs.iter().map(|(key, value)| set(key, value)).collect();
    ConfigChange { replaces_all: true, ..change(kind, name, &operations) }
}

fn alter(image: &Image, change: ConfigChange) -> Outcome<Vec<ConfigAnswer>> {
    alter_configs(image, &policy(), &[], &[change], Via::Broker, false)
}

/// Applies a change that must be accepted, and gives its records.
fn altered(image: &mut Image, change: ConfigChange) -> Vec<MetadataRecord> {
    let outcome = alter(image, change);
    assert!(outcome.reply.iter().all(|it| it.rejection.is_none()), "{:?}", outcome.reply);
    outcome.records.iter().for_each(|record| image.apply(record).unwrap());
    outcome.records
}

fn refusal_of(changes: &[ConfigChange], via: Via) -> Vec<(ErrorCode, String)> {
    let outcome = alter_configs(&image(), &policy(), &[], changes, via, false);
    assert_eq!(outcome.records, []);
    let rejection = |it: &ConfigAnswer| it.rejection.clone().expect("a refusal");
    let refusals = outcome.reply.iter().map(rejection);
    refusals.map(|rejection| (rejection.code, rejection.message)).collect()
}

fn refusal(kind: i8, name: &str, operations: &[Operation]) -> (ErrorCode, String) {
    refusal_of(&[change(kind, name, operations)], Via::Broker).remove(0)
}

fn record(kind: i8, name: &str, key: &str, value: Option<&str>) -> MetadataRecord {
    config_record(&ConfigResource { kind, name: name.into() }, key, value)
}

const TOPIC: i8 = ConfigResource::TOPIC;
const BROKER: i8 = ConfigResource::BROKER;
const GROUP: i8 = ConfigResource::GROUP;
const CLIENT_METRICS: i8 = ConfigResource::CLIENT_METRICS;

#[test]
fn a_topic_property_is_set_replaced_and_deleted() {
    let mut image = image();
    let records = altered(&mut image, change(TOPIC, "t", &[set("retention.ms", "5")]));
    assert_eq!(records, [record(TOPIC, "t", "retention.ms", Some("5"))]);
    // What is so already is not written again.
    assert_eq!(altered(&mut image, change(TOPIC, "t", &[set("retention.ms", "5")])), []);
    let delete = operation("retention.ms", Operation::DELETE, None);
    let records = altered(&mut image, change(TOPIC, "t", std::slice::from_ref(&delete)));
    assert_eq!(records, [record(TOPIC, "t", "retention.ms", None)]);
    assert_eq!(altered(&mut image, change(TOPIC, "t", &[delete])), []);
}

#[test]
fn a_list_grows_and_shrinks_from_its_default() {
    let mut image = image();
    let append = operation("cleanup.policy", Operation::APPEND, Some("compact,delete"));
    let records = altered(&mut image, change(TOPIC, "t", &[append]));
    assert_eq!(records, [record(TOPIC, "t", "cleanup.policy", Some("delete,compact"))]);
    let subtract = operation("cleanup.policy", Operation::SUBTRACT, Some("delete"));
    let records = altered(&mut image, change(TOPIC, "t", &[subtract]));
    assert_eq!(records, [record(TOPIC, "t", "cleanup.policy", Some("compact"))]);
}

#[test]
fn what_is_no_list_neither_grows_nor_shrinks() {
    let append = |key| [operation(key, Operation::APPEND, Some("1"))];
    assert_eq!(
        refusal(TOPIC, "t", &append("retention.ms")),
        (
            ErrorCode::INVALID_CONFIG,
            "Can't APPEND to key retention.ms because its type is not LIST.".to_owned()
        )
    );
    assert_eq!(
        refusal(BROKER, "1", &append("log.retention.ms")).1,
        "Config value append is not allowed for config key: log.retention.ms"
    );
    assert_eq!(refusal(BROKER, "1", &append("no.such")).1, "Unknown config name: no.such");
    assert_eq!(
        refusal(BROKER, "1", &[operation("log.retention.ms", 9, Some("1"))]).1,
        "Unknown operations type 9"
    );
}

#[test]
fn replacing_all_deletes_what_is_not_named() {
    let mut image = image();
    altered(&mut image, change(TOPIC, "t", &[set("retention.ms", "5"), set("segment.ms", "7")]));
    let records =
        altered(&mut image, replacement(TOPIC, "t", &[("segment.ms", "7"), ("flush.ms", "1")]));
    let expected =
        [record(TOPIC, "t", "flush.ms", Some("1")), record(TOPIC, "t", "retention.ms", None)];
    assert_eq!(records, expected);
    let records = altered(&mut image, replacement(TOPIC, "t", &[]));
    assert_eq!(records.len(), 2);
}

#[test]
fn a_resource_is_changed_wholly_or_not_at_all() {
    let good = set("retention.ms", "5");
    let (code, message) = refusal(TOPIC, "t", &[good, set("segment.ms", "soon")]);
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
    assert_eq!(
        message,
        "Invalid value soon for configuration segment.ms: Not a number of type LONG"
    );
}

#[test]
fn one_refused_resource_does_not_stop_the_others() {
    let changes = [
        change(TOPIC, "t", &[set("retention.ms", "5")]),
        change(TOPIC, "nobody", &[set("retention.ms", "5")]),
    ];
    let outcome = alter_configs(&image(), &policy(), &[], &changes, Via::Broker, false);
    assert_eq!(outcome.records, [record(TOPIC, "t", "retention.ms", Some("5"))]);
    let [good, bad] = &*outcome.reply else { panic!("{outcome:?}") };
    assert_eq!(good.rejection, None);
    let message = "The topic 'nobody' does not exist.";
    let refusal = Rejection::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message);
    assert_eq!(bad.rejection, Some(refusal));
}

#[test]
fn a_check_without_a_change_answers_the_same_and_writes_nothing() {
    let changes = [change(TOPIC, "t", &[set("retention.ms", "5")])];
    let checked = alter_configs(&image(), &policy(), &[], &changes, Via::Broker, true);
    assert_eq!(checked.records, []);
    assert_eq!(
        checked.reply,
        alter_configs(&image(), &policy(), &[], &changes, Via::Broker, false).reply
    );
}

#[test]
fn a_brokers_property_is_written_even_where_nothing_changes() {
    let mut image = image();
    let again = change(BROKER, "1", &[set("log.retention.ms", "7")]);
    let expected = [record(BROKER, "1", "log.retention.ms", Some("7"))];
    assert_eq!(altered(&mut image, again.clone()), expected);
    assert_eq!(altered(&mut image, again), expected);
}

#[test]
fn a_dynamic_default_of_all_brokers_is_what_topics_are_checked_against() {
    let mut image = image();
    let lag = "log.cleaner.max.compaction.lag.ms";
    altered(&mut image, change(BROKER, "", &[set(lag, "100")]));
    let outcome = alter(&image, change(TOPIC, "t", &[set("min.compaction.lag.ms", "101")]));
    let rejection = outcome.reply[0].rejection.as_ref().unwrap();
    assert_eq!(
        rejection.message,
        "conflict topic config setting min.compaction.lag.ms (101) > max.compaction.lag.ms (100)"
    );
}

#[test]
fn a_broker_refuses_what_is_not_its_own_and_a_controller_only_what_nobody_is() {
    let [own, other, word] = ["1", "2", "one"].map(|name| change(BROKER, name, &[]));
    assert_eq!(alter(&image(), own).reply[0].rejection, None);
    let [refused] = &*refusal_of(std::slice::from_ref(&other), Via::Broker) else { panic!() };
    let message = "Unexpected broker id, expected 1, but received 2";
    assert_eq!(*refused, (ErrorCode::INVALID_REQUEST, message.to_owned()));
    let [refused] = &*refusal_of(std::slice::from_ref(&word), Via::Broker) else { panic!() };
    assert_eq!(refused.1, "Node id must be an integer, but it is: one");

    let [refused] = &*refusal_of(&[other], Via::Controller) else { panic!() };
    let message = "No node with id 2 found.";
    assert_eq!(*refused, (ErrorCode::BROKER_ID_NOT_REGISTERED, message.to_owned()));
    let [refused] = &*refusal_of(&[word], Via::Controller) else { panic!() };
    assert_eq!(refused.1, "Unable to parse broker name as a base 10 number.");
}

#[test]
fn a_listener_of_both_looks_at_its_own_properties_and_leaves_those_of_others_to_them() {
    let image = image_with_brokers(&[1, 2]);
    let alter = |name: &str, value: &str| {
        let change = change(BROKER, name, &[set("log.retention.ms", value)]);
        alter_configs(&image, &policy(), &[], &[change], Via::Shared, false)
    };
    let others = alter("2", "2");
    assert_eq!(others.reply[0].rejection, None);
    assert_eq!(others.records, [record(BROKER, "2", "log.retention.ms", Some("2"))]);
    let code =
        |name: &str, value: &str| alter(name, value).reply[0].rejection.clone().unwrap().code;
    assert_eq!(code("3", "2"), ErrorCode::BROKER_ID_NOT_REGISTERED);
    for (name, value) in [("1", "none"), ("", "none"), ("one", "2")] {
        assert_eq!(code(name, value), ErrorCode::INVALID_REQUEST, "{name} {value}");
    }
}

#[test]
fn a_property_that_needs_a_restart_is_refused_by_the_broker_and_stored_by_the_controller() {
    let static_one = change(BROKER, "1", &[set("num.partitions", "3")]);
    let (code, message) = refusal_of(std::slice::from_ref(&static_one), Via::Broker).remove(0);
    assert_eq!(code, ErrorCode::INVALID_REQUEST);
    assert_eq!(message, "Cannot update these configs dynamically: [num.partitions]");
    let mut image = image();
    let outcome = alter_configs(&image, &policy(), &[], &[static_one], Via::Controller, false);
    image.apply(&outcome.records[0]).unwrap();
    // It is stored, and passed over by who reads it.
    assert_eq!(policy().dynamic(&image).of(Reach::ThisBroker), &Properties::new());
}

/// A controller cannot look whether a directory is one of the broker's: it lets directories be taken away only, as Kafka's.
#[test]
fn directories_are_not_cordoned_through_a_controller() {
    let mut image = image_with_brokers(&[1, 2]);
    for (via, name) in [(Via::Controller, "1"), (Via::Controller, ""), (Via::Shared, "2")] {
        let cordon = change(BROKER, name, &[set("cordoned.log.dirs", "/a")]);
        let outcome = alter_configs(&image, &policy(), &[], &[cordon], via, false);
        assert_eq!(outcome.records, []);
        let message = "When updating cordoned.log.dirs via controllers,  the new value must be a \
                       subset of the current configuration value.";
        let refusal = Rejection::new(ErrorCode::INVALID_CONFIG, message);
        assert_eq!(outcome.reply[0].rejection, Some(refusal), "{via:?} {name}");
    }
    // Stored by Apache Kafka or an earlier release, and not in effect.
    image.apply(&record(BROKER, "1", "cordoned.log.dirs", Some("/a, /b ,/c"))).unwrap();
    assert_eq!(policy().dynamic(&image).of(Reach::ThisBroker), &Properties::new());
    let uncordon = |value: &str| {
        let change = change(BROKER, "1", &[set("cordoned.log.dirs", value)]);
        alter_configs(&image, &policy(), &[], &[change], Via::Controller, false)
    };
    for value in ["/b,/c", "", " /a"] {
        let expected = [record(BROKER, "1", "cordoned.log.dirs", Some(value))];
        assert_eq!(uncordon(value).records, expected);
    }
    assert_eq!(uncordon("/b,/d").records, []);
}

#[test]
fn what_no_broker_can_honour_is_not_set_through_a_controller_either() {
    let image = image_with_brokers(&[1, 2]);
    for (via, name) in [(Via::Controller, "1"), (Via::Controller, ""), (Via::Shared, "2")] {
        let change = change(BROKER, name, &[set("config.providers", "vault")]);
        let outcome = alter_configs(&image, &policy(), &[], &[change], via, false);
        assert_eq!(outcome.records, []);
        let refusal = outcome.reply[0].rejection.clone().unwrap();
        assert_eq!(refusal.code, ErrorCode::INVALID_CONFIG);
        let begin = "config.providers=vault cannot be honoured; ";
        assert!(refusal.message.starts_with(begin), "{}", refusal.message);
    }
}

#[test]
fn a_node_that_is_only_a_controller_is_configured_whoever_leads() {
    let mut image = image_with_brokers(&[1]);
    let registered = RegisterControllerRecord { controller_id: 8, ..Default::default() };
    image.apply(&registered.into()).unwrap();
    let mut policy = policy();
    for leader in [1, 7, 8] {
        policy.node_id = BrokerId(leader);
        let alter = |name: &str| {
            let change = change(BROKER, name, &[set("log.retention.ms", "2")]);
            let voters = [BrokerId(7), BrokerId(leader)];
            alter_configs(&image, &policy, &voters, &[change], Via::Controller, false)
        };
        for name in ["1", "7", "8"] {
            let expected = [record(BROKER, name, "log.retention.ms", Some("2"))];
            assert_eq!(alter(name).records, expected, "{leader} {name}");
        }
        let code = alter("9").reply[0].rejection.clone().unwrap().code;
        assert_eq!(code, ErrorCode::BROKER_ID_NOT_REGISTERED);
    }
}

/// As `String.split` and `List.remove` of Java: pieces at the end that are empty do not count, and one that is taken away
/// goes where it is first.
#[test]
fn lists_are_edited_as_java_edits_them() {
    let edited = |before: &str, code, operands: &str| {
        let items: Vec<String> = before.split(' ').map(str::to_owned).collect();
        edit(items, code, &super::operands(operands)).join(" ")
    };
    assert_eq!(edited("a b a", Operation::APPEND, "b,c,c,d"), "a b a c d");
    assert_eq!(edited("a b a c a", Operation::SUBTRACT, "a,x,a"), "b c a");
    assert_eq!(edited("a", Operation::APPEND, ","), "a");
    assert_eq!(edited("a", Operation::APPEND, ",,b,,"), "a  b");
    assert_eq!(edited("a", Operation::APPEND, ""), "a ");
}

#[test]
fn groups_and_subscriptions_are_configured_before_they_exist() {
    let mut image = image();
    let session = set("consumer.session.timeout.ms", "50000");
    let records = altered(&mut image, change(GROUP, "g", &[session]));
    assert_eq!(records, [record(GROUP, "g", "consumer.session.timeout.ms", Some("50000"))]);
    let interval = set("interval.ms", "1000");
    let records = altered(&mut image, change(CLIENT_METRICS, "s", &[interval]));
    assert_eq!(records, [record(CLIENT_METRICS, "s", "interval.ms", Some("1000"))]);
}

#[test]
fn resources_without_a_name_and_values_out_of_bounds_are_refused() {
    let refusals = [
        (refusal(TOPIC, "", &[]), "Default topic resources are not allowed."),
        (refusal(GROUP, "", &[]), "Default group resources are not allowed."),
        (refusal(CLIENT_METRICS, "", &[]), "Subscription name can't be empty"),
        (refusal(1, "x", &[]), "Unknown resource type 1"),
    ];
    for ((code, message), expected) in refusals {
        assert_eq!((code, &*message), (ErrorCode::INVALID_REQUEST, expected));
    }
    let (code, _) = refusal(TOPIC, "a b", &[]);
    assert_eq!(code, ErrorCode::INVALID_TOPIC_EXCEPTION);
    let (code, _) = refusal(GROUP, "g", &[set("consumer.session.timeout.ms", "1")]);
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
    let (code, _) = refusal(CLIENT_METRICS, "s", &[set("interval.ms", "1")]);
    assert_eq!(code, ErrorCode::INVALID_REQUEST);
    let (code, _) = refusal(TOPIC, "t", &[set("cleanup.policy", &"x".repeat(32_768))]);
    assert_eq!(code, ErrorCode::INVALID_CONFIG);
}

#[test]
fn a_broker_looks_at_names_and_nulls_first() {
    let twice = change(TOPIC, "t", &[]);
    let keys = change(TOPIC, "u", &[set("a", "1"), set("a", "2")]);
    let null = change(TOPIC, "v", &[operation("a", Operation::SET, None)]);
    let good = change(TOPIC, "w", &[operation("a", Operation::DELETE, None)]);
    let screened = screen_config_changes(&[twice.clone(), keys, null, good, twice]);
    let messages: Vec<_> =
        screened.iter().map(|it| it.as_ref().map(|rejection| &*rejection.message)).collect();
    let once = Some("Each resource must appear at most once.");
    let keys = Some("Error due to duplicate config keys");
    assert_eq!(messages, [once, keys, Some("Null value not supported for : a"), None, once]);
}

#[test]
fn a_controller_takes_null_for_a_deletion() {
    let mut image = image();
    altered(&mut image, change(TOPIC, "t", &[set("retention.ms", "5")]));
    let null = change(TOPIC, "t", &[operation("retention.ms", Operation::SET, None)]);
    let outcome = alter_configs(&image, &policy(), &[], &[null], Via::Controller, false);
    assert_eq!(outcome.records, [record(TOPIC, "t", "retention.ms", None)]);
}

#[test]
fn a_controller_answers_once_for_a_resource_named_twice() {
    let twice = change(TOPIC, "t", &[]);
    let changes = [twice.clone(), twice, change(3, "x", &[]), change(8, "1", &[])];
    let mut refusals = refusal_of(&changes, Via::Controller);
    refusals.sort_by(|a, b| a.1.cmp(&b.1));
    let expected = [
        (ErrorCode::INVALID_REQUEST, "Duplicate resource.".to_owned()),
        (ErrorCode::INVALID_REQUEST, "Unexpected resource type BROKER_LOGGER.".to_owned()),
        (ErrorCode::UNSUPPORTED_VERSION, "Unknown resource type 3.".to_owned()),
    ];
    assert_eq!(refusals, expected);
}

#[test]
fn settings_of_the_file_are_what_a_policy_decides_by() {
    assert_eq!(policy().node_id, BrokerId(1));
    assert_eq!(policy().topic_defaults(&image()).retention_ms, 5000);
    assert_eq!(Policy::from_settings(Settings::default()).node_id, BrokerId::NONE);
}
