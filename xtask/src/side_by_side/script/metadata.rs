//! Metadata of topics by name and by id, and topics that come into being by being asked for.

use anyhow::Result;
use ottla_base::Uuid;
use ottla_protocol::messages::metadata_request::MetadataRequestTopic;
use ottla_protocol::messages::{MetadataRequest, MetadataResponse};

use super::super::both::Both;
use super::{NOBODYS_ID, invalid_names, versions};

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create("metadata-a", 3, &[])?;
    both.create("metadata-b", 1, &[])?;
    both.create("metadata.collision", 1, &[])?;
    for version in versions::<MetadataRequest>() {
        by_name(both, version)?;
        all_and_none(both, version)?;
        auto_creation(both, version)?;
        if version >= 8 {
            authorized_operations(both, version)?;
        }
        if version >= 10 {
            by_id(both, version)?;
        }
    }
    Ok(())
}

fn by_name(both: &mut Both, version: i16) -> Result<()> {
    both.ask(version, "two topics", |_| asked(version, &["metadata-b", "metadata-a"]))?;
    both.ask(version, "one topic twice", |_| asked(version, &["metadata-a", "metadata-a"]))?;
    for name in invalid_names() {
        let short: String = name.chars().take(10).collect();
        both.ask(version, &format!("the invalid name {short:?}"), |_| asked(version, &[&name]))?;
    }
    both.ask(version, "an invalid name among others", |_| {
        asked(version, &["metadata-a", "in valid", "metadata-b"])
    })?;
    if version >= 4 {
        both.ask(version, "an unknown topic that nobody makes", |_| {
            asked(version, &["metadata-unknown", "metadata-a"])
        })?;
    }
    Ok(())
}

/// Some topics are the brokers' own.
fn all_and_none(both: &mut Both, version: i16) -> Result<()> {
    let users = |response: &mut MetadataResponse| {
        response
            .topics
            .retain(|topic| !topic.name.as_deref().unwrap_or_default().starts_with("__"));
    };
    let none = MetadataRequest { topics: Some(Vec::new()), ..asked(version, &[]) };
    both.ask_edited(version, "an empty list", |_, _| none.clone(), users)?;
    if version >= 1 {
        let all = MetadataRequest { topics: None, ..none.clone() };
        both.ask_edited(version, "all topics", |_, _| all.clone(), users)?;
    }
    Ok(())
}

fn auto_creation(both: &mut Both, version: i16) -> Result<()> {
    let name = format!("metadata-auto-{version}");
    let request = MetadataRequest {
        allow_auto_topic_creation: true,
        ..asked(version, &[&name, "metadata-a"])
    };
    both.ask(version, "a topic that is made by asking", |_| request.clone())?;
    both.set_up(|subject| subject.wait_until_usable(&name, 1))?;
    both.ask(version, "a topic that was made by asking", |_| request.clone())?;
    let collision = MetadataRequest {
        allow_auto_topic_creation: true,
        ..asked(version, &["metadata_collision"])
    };
    both.ask(version, "a topic that can't be made, for its name collides", |_| collision.clone())?;
    Ok(())
}

fn authorized_operations(both: &mut Both, version: i16) -> Result<()> {
    let request = MetadataRequest {
        include_cluster_authorized_operations: version <= 10,
        include_topic_authorized_operations: true,
        ..asked(version, &["metadata-a", "metadata-unknown", "in valid"])
    };
    both.ask(version, "authorized operations", |_| request.clone())?;
    Ok(())
}

fn by_id(both: &mut Both, version: i16) -> Result<()> {
    let topic = |topic_id, name: Option<&str>| MetadataRequestTopic {
        topic_id,
        name: name.map(Into::into),
    };
    let request = |topics| MetadataRequest { topics: Some(topics), ..asked(version, &[]) };
    both.ask(version, "by id", |subject| {
        request(vec![topic(subject.id("metadata-a"), None), topic(subject.id("metadata-b"), None)])
    })?;
    both.ask(version, "an unknown id", |_| request(vec![topic(NOBODYS_ID, None)]))?;
    both.ask(version, "a known and an unknown id", |subject| {
        request(vec![topic(NOBODYS_ID, None), topic(subject.id("metadata-a"), None)])
    })?;
    both.ask(version, "neither id nor name", |_| request(vec![topic(Uuid::ZERO, None)]))?;
    both.ask(version, "id and name", |subject| {
        request(vec![topic(subject.id("metadata-a"), Some("metadata-a"))])
    })?;
    both.ask(version, "an id, and another topic's name", |subject| {
        request(vec![topic(subject.id("metadata-a"), Some("metadata-b"))])
    })?;
    both.ask(version, "one by id, one by name", |subject| {
        request(vec![topic(subject.id("metadata-a"), None), topic(Uuid::ZERO, Some("metadata-b"))])
    })?;
    Ok(())
}

/// Asks by name; what is missing is not made, from the version on that can say so.
fn asked(version: i16, names: &[&str]) -> MetadataRequest {
    let topic =
        |name: &&str| MetadataRequestTopic { topic_id: Uuid::ZERO, name: Some((*name).into()) };
    MetadataRequest {
        topics: Some(names.iter().map(topic).collect()),
        allow_auto_topic_creation: version < 4,
        ..Default::default()
    }
}
