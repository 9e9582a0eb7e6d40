//! What may change at run time, and what it changes.

use super::*;

fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn check(reach: Reach, pairs: &[(&str, &str)]) -> Result<(), String> {
    check_change(&Settings::default(), &Dynamic::default(), reach, &set(pairs))
}

fn objection(pairs: &[(&str, &str)]) -> String {
    check(Reach::ThisBroker, pairs).unwrap_err()
}

#[test]
fn what_kafka_calls_dynamic_may_change_for_a_broker_and_for_all() {
    let good = [("log.retention.ms", "5"), ("message.max.bytes", "10"), ("num.io.threads", "16")];
    assert_eq!(check(Reach::ThisBroker, &good), Ok(()));
    assert_eq!(check(Reach::AllBrokers, &good), Ok(()));
}

#[test]
fn what_is_read_at_the_start_only_is_refused_by_name() {
    assert_eq!(
        objection(&[("num.partitions", "3"), ("log.dirs", "/x"), ("log.retention.ms", "1")]),
        "Cannot update these configs dynamically: [log.dirs, num.partitions]"
    );
    assert_eq!(
        objection(&[("ssl.keystore.location", "/x")]),
        "These security configs can be dynamically updated only per-listener using the listener \
         prefix: [ssl.keystore.location]"
    );
}

#[test]
fn what_is_each_brokers_own_cannot_be_a_default() {
    let own = [("listener.name.plain.ssl.keystore.location", "/x")];
    assert_eq!(check(Reach::ThisBroker, &own), Ok(()));
    assert_eq!(
        check(Reach::AllBrokers, &own).unwrap_err(),
        "Cannot update these configs at default cluster level, broker id must be specified: \
         [listener.name.plain.ssl.keystore.location]"
    );
    let shared = [("listener.name.plain.max.connections", "5")];
    assert_eq!(check(Reach::AllBrokers, &shared), Ok(()));
}

#[test]
fn a_name_that_nobody_knows_may_hold_anything() {
    assert_eq!(check(Reach::ThisBroker, &[("plug.in", "x")]), Ok(()));
}

#[test]
fn values_are_checked_alone_and_with_each_other() {
    assert!(objection(&[("log.retention.ms", "soon")]).contains("Not a number of type LONG"));
    assert_eq!(
        objection(&[("log.retention.ms", "0")]),
        "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1"
    );
    assert_eq!(
        objection(&[("group.consumer.assignment.interval.ms", "15001")]),
        "group.consumer.assignment.interval.ms must be less than or equal to \
         group.consumer.max.assignment.interval.ms"
    );
    assert!(objection(&[("max.connections.per.ip", "0")]).contains("can be set to zero only if"));
}

#[test]
fn thread_pools_at_most_double_and_at_least_halve() {
    let failed = |what: &str| {
        format!(
            "Invalid value org.apache.kafka.common.config.ConfigException: Dynamic thread count \
             update validation failed for num.io.threads={what} the current value 8 for \
             configuration Invalid dynamic configuration"
        )
    };
    assert_eq!(
        objection(&[("num.io.threads", "17")]),
        failed("17, value should not be greater than double")
    );
    assert_eq!(objection(&[("num.io.threads", "3")]), failed("3, value should be at least half"));
    // The step is counted from what is in effect now.
    let now = Dynamic { default: set(&[("num.io.threads", "16")]), ..Dynamic::default() };
    let wanted = set(&[("num.io.threads", "32")]);
    assert_eq!(check_change(&Settings::default(), &now, Reach::AllBrokers, &wanted), Ok(()));
}

#[test]
fn what_this_broker_would_only_pretend_is_refused() {
    for (name, text) in [
        ("listeners", "PLAINTEXT://:1"),
        ("metric.reporters", "com.example.Reporter"),
        ("cordoned.log.dirs", "/data"),
    ] {
        assert!(check(Reach::ThisBroker, &[(name, text)]).is_err(), "{name}");
    }
    assert_eq!(check(Reach::ThisBroker, &[("listeners", "PLAINTEXT://:9092")]), Ok(()));
}

#[test]
fn what_the_file_has_keeps_nothing_else_from_changing() {
    let mut settings = Settings::default();
    for (name, text) in [
        ("metric.reporters", "com.example.Reporter"),
        ("log.cleaner.threads", "0"),
        ("log.local.retention.ms", "-1"),
        ("log.local.retention.bytes", "7"),
        ("log.retention.bytes", "6"),
    ] {
        settings.set(name, text, Origin::BuiltIn).unwrap();
    }
    let change = |pairs: &[(&str, &str)]| {
        check_change(&settings, &Dynamic::default(), Reach::AllBrokers, &set(pairs))
    };
    let wanted = [("max.connections", "5")];
    assert_eq!(change(&wanted), Ok(()));
    let new = Dynamic { default: set(&wanted), ..Dynamic::default() }.over(&settings);
    assert_eq!(check_stored(&settings, &new), Ok(()));
    for touched in [
        ("metric.reporters", "com.example.Another"),
        ("log.local.retention.ms", "9223372036854775807"),
        ("log.retention.bytes", "5"),
    ] {
        assert!(change(&[touched]).is_err(), "{touched:?}");
    }
}

#[test]
fn nobody_takes_all_cleaners_away_while_a_broker_runs() {
    let message = "Log cleaner threads should be at least 1";
    assert!(objection(&[("log.cleaner.threads", "0")]).contains(message));
    let settings = Settings::default();
    let stored = Dynamic { default: set(&[("log.cleaner.threads", "0")]), ..Dynamic::default() };
    assert_eq!(check_stored(&settings, &stored.over(&settings)), Err(message.to_owned()));
}

#[test]
fn throttles_are_what_is_set_at_run_time_for_this_broker_or_else_for_all() {
    let (leader, follower) =
        ("leader.replication.throttled.rate", "follower.replication.throttled.rate");
    let moves = "replica.alter.log.dirs.io.max.bytes.per.second";
    let dynamic = Dynamic {
        broker: set(&[(leader, "3"), (moves, "9223372036854775807")]),
        default: set(&[(leader, "2"), (follower, "0"), (moves, "1")]),
    };
    let expected = Throttles { leader: Some(3), follower: Some(0), moves: None };
    assert_eq!(Throttles::from(&dynamic), expected);
    let none = Throttles { leader: None, follower: None, moves: None };
    assert_eq!(Throttles::from(&Dynamic::default()), none);
}

#[test]
fn a_brokers_own_value_beats_the_default_of_all_and_both_beat_the_file() {
    let mut settings = Settings::default();
    for (name, text) in [("message.max.bytes", "1"), ("log.retention.bytes", "1")] {
        settings.set(name, text, Origin::BuiltIn).unwrap();
    }
    let dynamic = Dynamic {
        broker: set(&[("message.max.bytes", "3")]),
        default: set(&[("message.max.bytes", "2"), ("log.retention.bytes", "2")]),
    };
    let effective = dynamic.over(&settings);
    assert_eq!(effective.int("message.max.bytes"), 3);
    assert_eq!(effective.long("log.retention.bytes"), 2);
    let effective = Effective::new(&effective);
    assert_eq!(effective.topic_defaults.max_message_bytes, 3);
    assert_eq!(effective.topic_defaults.retention_bytes, 2);
}

#[test]
fn stored_values_that_could_never_be_set_are_passed_over() {
    let stored = [("num.partitions", "7"), ("log.retention.ms", "x"), ("message.max.bytes", "9")];
    let dynamic = Dynamic::from_stored(stored, [("listeners", "PLAINTEXT://:1")]);
    assert_eq!(
        dynamic,
        Dynamic { broker: set(&[("message.max.bytes", "9")]), ..Dynamic::default() }
    );
}

#[test]
fn stored_values_take_effect_only_together_with_the_others() {
    let settings = Settings::default();
    let stored = |pairs: &[(&str, &str)]| {
        let dynamic = Dynamic::from_stored([], pairs.iter().copied());
        check_stored(&settings, &dynamic.over(&settings))
    };
    assert_eq!(stored(&[("log.retention.ms", "1"), ("max.connections", "1")]), Ok(()));
    // Reached in two steps before the broker was started again.
    assert_eq!(stored(&[("num.io.threads", "32")]), Ok(()));
    for bad in [
        ("log.retention.ms", "0"),
        ("log.roll.ms", "0"),
        ("max.connections", "0"),
        ("max.connection.creation.rate", "0"),
        ("max.connections.per.ip", "0"),
        ("max.connections.per.ip.overrides", "localhost"),
        ("log.local.retention.ms", "604800001"),
        ("listener.name.plain.max.connections", "0"),
    ] {
        assert!(stored(&[bad]).is_err(), "{bad:?}");
    }
}
