//! What a topic may set, and what it gets.

use ottla_config::{CleanupPolicy, Sources, TopicConfig, load};

fn defaults(pairs: &[&str]) -> TopicConfig {
    let set = pairs.iter().map(|&pair| pair.to_owned()).collect();
    load(&Sources { set, ..Sources::default() }).expect("valid").config.topic_defaults
}

fn refused(name: &str, text: Option<&str>) -> String {
    TopicConfig::default().validate_overrides([(name, text)]).expect_err("invalid").0
}

#[test]
fn a_topic_without_overrides_is_what_kafka_makes_of_it() {
    let config = TopicConfig::default();
    assert_eq!(config, defaults(&[]));
    assert_eq!(config.segment_bytes, 1 << 30);
    assert_eq!(config.segment_ms, 7 * 86_400_000);
    assert_eq!(config.retention_ms, 7 * 86_400_000);
    assert_eq!(config.max_message_bytes, 1_048_588);
    assert_eq!(config.cleanup_policy, CleanupPolicy { compact: false, delete: true });
}

#[test]
fn the_broker_decides_what_the_topic_leaves_open_and_finer_units_win() {
    let config =
        defaults(&["log.retention.hours=1", "log.retention.minutes=2", "log.roll.hours=3"]);
    assert_eq!(config.retention_ms, 120_000);
    assert_eq!(config.segment_ms, 3 * 3_600_000);
    assert_eq!(defaults(&["log.retention.hours=-5"]).retention_ms, -1);
    assert_eq!(defaults(&["log.flush.scheduler.interval.ms=9"]).flush_ms, 9);
}

#[test]
fn the_topic_overrides_the_broker() {
    let config = defaults(&["log.retention.ms=5"]).with_overrides([
        ("retention.ms", "7"),
        ("cleanup.policy", "compact, delete"),
        ("from.a.later.version", "1"),
    ]);
    assert_eq!(config.retention_ms, 7);
    assert_eq!(config.cleanup_policy, CleanupPolicy { compact: true, delete: true });
}

#[test]
fn overrides_are_judged_in_kafkas_words() {
    assert_eq!(refused("foo", Some("1")), "Unknown topic config name: foo");
    assert_eq!(
        refused("segment.bytes", Some("1")),
        "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576"
    );
    assert_eq!(
        refused("retention.ms", None),
        "Null value not supported for topic configs: retention.ms"
    );
    assert_eq!(
        refused("remote.storage.enable", Some("true")),
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
         with remote log storage."
    );
    assert_eq!(
        TopicConfig::default()
            .validate_overrides([
                ("min.compaction.lag.ms", Some("6")),
                ("max.compaction.lag.ms", Some("5")),
            ])
            .unwrap_err()
            .0,
        "conflict topic config setting min.compaction.lag.ms (6) > max.compaction.lag.ms (5)"
    );
}

#[test]
fn a_compacted_topic_ends_its_segments_in_time_for_its_compaction_lag() {
    let config = TopicConfig::default()
        .with_overrides([("cleanup.policy", "compact"), ("max.compaction.lag.ms", "10")]);
    assert_eq!(config.segment_ms_max(), 10);
    assert_eq!(TopicConfig::default().segment_ms_max(), 7 * 86_400_000);
}
