//! Topics deleted by name and by id, and what can't be deleted.

use anyhow::Result;
use ottla_base::Uuid;
use ottla_protocol::messages::DeleteTopicsRequest;
use ottla_protocol::messages::delete_topics_request::DeleteTopicState;

use super::super::both::Both;
use super::super::subject::Subject;
use super::{NOBODYS_ID, invalid_names, versions};

const BY_ID_SINCE: i16 = 6;

pub(super) fn run(both: &mut Both) -> Result<()> {
    for version in versions::<DeleteTopicsRequest>() {
        by_name(both, version)?;
        if version >= BY_ID_SINCE {
            by_id(both, version)?;
        }
    }
    Ok(())
}

fn ask(
    both: &mut Both,
    version: i16,
    what: &str,
    make: impl Fn(&Subject) -> DeleteTopicsRequest,
) -> Result<()> {
    both.ask(version, what, make)?;
    Ok(())
}

fn named(version: i16, names: &[&str]) -> DeleteTopicsRequest {
    let mut request = DeleteTopicsRequest { timeout_ms: 30_000, ..Default::default() };
    if version < BY_ID_SINCE {
        request.topic_names = names.iter().map(|name| (*name).into()).collect();
    } else {
        request.topics = names.iter().map(|name| state(Some(name), Uuid::ZERO)).collect();
    }
    request
}

fn state(name: Option<&str>, topic_id: Uuid) -> DeleteTopicState {
    DeleteTopicState { name: name.map(Into::into), topic_id }
}

fn by_name(both: &mut Both, version: i16) -> Result<()> {
    let [a, b, c] = ["a", "b", "c"].map(|what| format!("delete-{version}-{what}"));
    for topic in [&a, &b, &c] {
        both.create(topic, 1, &[])?;
    }
    ask(both, version, "two topics", |_| named(version, &[&a, &b]))?;
    both.set_up(|subject| subject.wait_until_gone(&a))?;
    ask(both, version, "a topic that was deleted", |_| named(version, &[&a]))?;
    ask(both, version, "a topic twice", |_| named(version, &[&c, &c]))?;
    ask(both, version, "a topic and an unknown one", |_| named(version, &[&c, "delete-unknown"]))?;
    both.set_up(|subject| subject.wait_until_gone(&c))?;
    for name in invalid_names() {
        let short: String = name.chars().take(10).collect();
        ask(both, version, &format!("the invalid name {short:?}"), |_| named(version, &[&name]))?;
    }
    ask(both, version, "the metadata log", |_| named(version, &["__cluster_metadata"]))?;
    both.create(&c, 1, &[])?;
    for timeout_ms in [0, -1] {
        let mut ask = |what: &str, names: &[&str]| {
            let what = format!("{what}, in {timeout_ms} ms");
            ask(both, version, &what, |_| DeleteTopicsRequest {
                timeout_ms,
                ..named(version, names)
            })
        };
        ask("a topic", &[&c])?;
        ask("a topic twice", &[&c, &c])?;
        ask("an unknown topic", &["delete-unknown"])?;
        ask("no topics", &[])?;
    }
    ask(both, version, "a topic that was to go in no time", |_| named(version, &[&c]))?;
    both.set_up(|subject| subject.wait_until_gone(&c))?;
    ask(both, version, "no topics", |_| named(version, &[]))?;
    // What comes after a deletion under the same name is another topic.
    both.create(&a, 2, &[])?;
    ask(both, version, "a topic that came back", |_| named(version, &[&a]))?;
    both.set_up(|subject| subject.wait_until_gone(&a))
}

fn by_id(both: &mut Both, version: i16) -> Result<()> {
    let [a, b, c] = ["a", "b", "c"].map(|what| format!("delete-id-{version}-{what}"));
    for topic in [&a, &b, &c] {
        both.create(topic, 1, &[])?;
    }
    let request = |topics| DeleteTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    ask(both, version, "by id and by name", |subject| {
        request(vec![state(None, subject.id(&a)), state(Some(&b), Uuid::ZERO)])
    })?;
    ask(both, version, "an unknown id", |_| request(vec![state(None, NOBODYS_ID)]))?;
    ask(both, version, "neither id nor name", |_| request(vec![state(None, Uuid::ZERO)]))?;
    ask(both, version, "id and name", |subject| request(vec![state(Some(&c), subject.id(&c))]))?;
    ask(both, version, "id and name apart", |subject| {
        request(vec![state(Some(&c), Uuid::ZERO), state(None, subject.id(&c))])
    })?;
    let impatient = |topics| DeleteTopicsRequest { timeout_ms: 0, ..request(topics) };
    ask(both, version, "an id, in no time", |subject| {
        impatient(vec![state(None, subject.id(&c))])
    })?;
    ask(both, version, "id and name, in no time", |subject| {
        impatient(vec![state(Some(&c), subject.id(&c))])
    })?;
    ask(both, version, "an id twice, in no time", |subject| {
        impatient(vec![state(None, subject.id(&c)), state(None, subject.id(&c))])
    })?;
    ask(both, version, "an id twice", |subject| {
        request(vec![state(None, subject.id(&c)), state(None, subject.id(&c))])
    })?;
    Ok(())
}
