//! Apache Kafka 4.3.1 and these tables say the same.
//!
//! `kafka/*.tsv` holds Kafka's answers; `kafka/Facts.java` asks for them.

use std::collections::{BTreeMap, BTreeSet};

use ottla_config::describe::{Entry, describe_broker, describe_topic};
use ottla_config::dynamic::Dynamic;
use ottla_config::property::{Property, Scope};
use ottla_config::{Settings, Sources, properties, settings, table};

const SCOPES: [(&str, Scope); 4] = [
    ("broker", Scope::Broker),
    ("topic", Scope::Topic),
    ("group", Scope::Group),
    ("client-metrics", Scope::ClientMetrics),
];

/// The rows of a file of Kafka's answers; null is `<null>`.
fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines().map(|line| line.split('\t').map(cell).collect()).collect()
}

fn cell(written: &str) -> String {
    let mut chars = written.chars();
    let mut text = String::new();
    while let Some(c) = chars.next() {
        text.push(match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                other => other.expect("an escaped character"),
            },
            (plain, false) => plain,
        });
    }
    text
}

fn is_ours(property: &Property) -> bool {
    const UNDER_KAFKAS_PREFIX: [&str; 2] = ["log.dir.reserved.bytes", "log.flush.on.commit"];
    property.name.starts_with("ottla.") || UNDER_KAFKAS_PREFIX.contains(&property.name)
}

#[test]
fn every_property_of_kafka_is_here_and_is_the_same() {
    let kafka: BTreeSet<Vec<String>> =
        rows(include_str!("kafka/properties.tsv")).into_iter().collect();
    let ours: BTreeSet<Vec<String>> = SCOPES
        .iter()
        .flat_map(|(name, scope)| table::properties(*scope).map(move |property| (name, property)))
        .filter(|(_, property)| !is_ours(property))
        .map(|(scope, property)| {
            let default =
                property.default.unwrap_or(if property.required { "<required>" } else { "<null>" });
            let internal = if property.internal { "internal" } else { "-" };
            [
                scope,
                property.name,
                property.kind.name(),
                default,
                property.importance.name(),
                internal,
                property.update.name(),
            ]
            .map(str::to_owned)
            .to_vec()
        })
        .collect();
    let differences: Vec<_> = kafka.symmetric_difference(&ours).collect();
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn topics_fall_back_to_the_same_broker_properties() {
    let factor = |conversion| match conversion {
        table::Conversion::Same => "1",
        table::Conversion::MinutesToMs => "60000",
        table::Conversion::HoursToMs => "3600000",
    };
    let ours: BTreeSet<[String; 3]> = table::properties(Scope::Topic)
        .flat_map(|property| {
            table::topic_synonyms(property.name).iter().map(move |(synonym, conversion)| {
                [property.name, synonym, factor(*conversion)].map(str::to_owned)
            })
        })
        .collect();
    let kafka: BTreeSet<[String; 3]> = rows(include_str!("kafka/synonyms.tsv"))
        .into_iter()
        .filter(|row| row[0] == "topic")
        .map(|row| [row[1].clone(), row[2].clone(), row[3].clone()])
        .collect();
    assert_eq!(ours, kafka);
}

#[test]
fn groups_fall_back_to_the_same_broker_properties() {
    let ours: BTreeSet<[String; 2]> = table::properties(Scope::Group)
        .filter_map(|property| {
            let synonym = table::group_synonym(property.name)?;
            Some([property.name, synonym].map(str::to_owned))
        })
        .collect();
    let kafka: BTreeSet<[String; 2]> = rows(include_str!("kafka/synonyms.tsv"))
        .into_iter()
        .filter(|row| row[0] == "group")
        .map(|row| [row[1].clone(), row[2].clone()])
        .collect();
    assert_eq!(ours, kafka);
}

#[test]
fn good_and_bad_values_get_kafkas_answer_word_for_word() {
    let mut differences = Vec::new();
    for row in rows(include_str!("kafka/values.tsv")) {
        let [scope, name, text, verdict, answer] = row.as_slice() else { panic!("{row:?}") };
        let scope = SCOPES.iter().find(|(known, _)| known == scope).unwrap().1;
        let property = table::find(scope, name).unwrap();
        let ours = settings::judge(property, text);
        let same = match (&ours, verdict.as_str()) {
            (Ok(value), "ok") => value.to_string() == *answer || property.is_sensitive(),
            (Err(message), "no") => message == answer,
            _ => false,
        };
        if !same {
            differences.push(format!("{name}={text:?}: {ours:?}, Kafka: {verdict} {answer}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn properties_text_is_read_as_java_reads_it() {
    for row in rows(include_str!("kafka/syntax.tsv")) {
        let (text, expected) = row.split_first().expect("a text");
        let ours: Vec<String> = match properties::parse(text) {
            Err(_) => vec!["malformed".to_owned()],
            Ok(entries) => {
                let last: BTreeMap<String, String> =
                    entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
                last.into_iter().flat_map(|(key, value)| [key, value]).collect()
            }
        };
        assert_eq!(ours, expected, "{text:?}");
    }
}

/// The configurations of `Facts.java`.
const CASES: [(&str, &[(&str, &str)]); 4] = [
    ("", &[]),
    ("log.retention.hours=1", &[]),
    (
        "log.retention.hours=1\nlog.retention.ms=5\nlog.roll.hours=2\n\
         log.flush.scheduler.interval.ms=9",
        &[("retention.ms", "7"), ("cleanup.policy", "compact, delete")],
    ),
    (
        "vendor.key=1\nssl.key.password=secret\nunstable.api.versions.enable=true\n\
         message.max.bytes=2000000\ncompression.type=lz4",
        &[("internal.segment.bytes", "10")],
    ),
];

fn started(text: &str) -> Settings {
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n\
         controller.quorum.bootstrap.servers=localhost:9093\n\
         listeners=PLAINTEXT://:9092,CONTROLLER://:9093\n{text}"
    );
    let sources =
        Sources { file: Some(("server.properties".to_owned(), text)), ..Sources::default() };
    ottla_config::load(&sources).expect("a valid configuration").settings
}

fn shown(scope: &str, entry: &Entry) -> Vec<String> {
    let null = || "<null>".to_owned();
    let synonyms: Vec<String> = entry
        .synonyms
        .iter()
        .map(|s| {
            let value = s.value.as_deref().unwrap_or("null");
            format!("{}={value}@{}", s.name, s.source.code())
        })
        .collect();
    vec![
        scope.to_owned(),
        entry.name.clone(),
        entry.value.clone().unwrap_or_else(null),
        entry.type_code().to_string(),
        entry.source.code().to_string(),
        entry.sensitive.to_string(),
        entry.read_only.to_string(),
        synonyms.join(" "),
    ]
}

#[test]
fn describe_configs_answers_what_kafka_answers() {
    let mut kafka: [BTreeMap<(String, String), Vec<String>>; 4] = Default::default();
    for row in rows(include_str!("kafka/described.tsv")) {
        let number: usize = row[0].parse().unwrap();
        kafka[number].insert((row[1].clone(), row[2].clone()), row[1..].to_vec());
    }
    for (number, (broker, topic)) in CASES.iter().enumerate() {
        let mut expected = kafka[0].clone();
        expected.extend(kafka[number].clone());
        let settings = started(broker);
        let dynamic = Dynamic::default();
        let overrides =
            topic.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let broker = describe_broker(&settings, &dynamic, &settings);
        let topic = describe_topic(&settings, &dynamic, &settings, &overrides);
        let ours: BTreeMap<_, _> = broker
            .iter()
            .filter(|entry| !table::find(Scope::Broker, &entry.name).is_some_and(is_ours))
            .map(|entry| ("broker", entry))
            .chain(topic.iter().map(|entry| ("topic", entry)))
            .map(|(scope, entry)| ((scope.to_owned(), entry.name.clone()), shown(scope, entry)))
            .collect();
        for (name, row) in &expected {
            assert_eq!(ours.get(name), Some(row), "case {number}");
        }
        assert_eq!(ours.len(), expected.len(), "case {number}");
    }
}
