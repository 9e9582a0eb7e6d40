//! DeleteTopics: by name or by id, each topic on its own. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bytestring::ByteString;
use ottla_base::{ErrorCode, TopicId};
use ottla_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use ottla_protocol::messages::{delete_topics_request, delete_topics_response};
use ottla_protocol::records::RemoveTopicRecord;

use super::{Outcome, Policy, Rejection};
use crate::image::Image;

/// Deletes what the request names. Answers come in no order that a client may rely on.
///
/// `version` is the request's: clients before version 3 do not know TOPIC_DELETION_DISABLED.
#[must_use]
pub fn delete_topics(
    image: &Image,
    policy: &Policy,
    request: &DeleteTopicsRequest,
    version: i16,
) -> Outcome<DeleteTopicsResponse> {
    if !policy.delete_topic_enable {
        return Outcome::unchanged(deletion_disabled(request, version));
    }
    let mut answers = Answers::default();
    let selection = select(request, &mut answers);
    let topics = resolve(image, selection, &mut answers);
    let mut records = Vec::with_capacity(topics.len());
    for (id, name) in topics {
        records.push(RemoveTopicRecord { topic_id: id }.into());
        answers.add(Some(name), id, None);
    }
    let responses = answers.0;
    Outcome { records, reply: DeleteTopicsResponse { responses, ..Default::default() } }
}

#[derive(Default)]
struct Answers(Vec<delete_topics_response::DeletableTopicResult>);

impl Answers {
    fn add(&mut self, name: Option<ByteString>, id: TopicId, rejection: Option<Rejection>) {
        let (error_code, error_message) = match rejection {
            None => (ErrorCode::NONE, None),
            Some(rejection) => (rejection.code, Some(rejection.message.into())),
        };
        self.0.push(delete_topics_response::DeletableTopicResult {
            name,
            topic_id: id,
            error_code,
            error_message,
        });
    }

    fn refuse(&mut self, name: Option<ByteString>, id: TopicId, code: ErrorCode, message: &str) {
        self.add(name, id, Some(Rejection::new(code, message)));
    }
}

fn deletion_disabled(request: &DeleteTopicsRequest, version: i16) -> DeleteTopicsResponse {
    let error_code =
        if version < 3 { ErrorCode::INVALID_REQUEST } else { ErrorCode::TOPIC_DELETION_DISABLED };
    let answer = |(name, topic_id)| delete_topics_response::DeletableTopicResult {
        name,
        topic_id,
        error_code,
        error_message: None,
    };
    let responses = named(request).map(answer).collect();
    DeleteTopicsResponse { responses, ..Default::default() }
}

/// What is named: by version 6 as topics, before it as a list of names.
fn named(request: &DeleteTopicsRequest) -> impl Iterator<Item = (Option<ByteString>, TopicId)> {
    let names = request.topic_names.iter().map(|name| (Some(name.clone()), TopicId::ZERO));
    let state = |it: &delete_topics_request::DeleteTopicState| (it.name.clone(), it.topic_id);
    names.chain(request.topics.iter().map(state))
}

struct Selection {
    names: BTreeSet<ByteString>,
    ids: BTreeSet<TopicId>,
    ids_named_twice: BTreeSet<TopicId>,
}

/// What is named once and properly; the rest is answered.
fn select(request: &DeleteTopicsRequest, answers: &mut Answers) -> Selection {
    let mut names = BTreeMap::<ByteString, usize>::new();
    let mut ids = BTreeMap::<TopicId, usize>::new();
    for (name, id) in named(request) {
        match name {
            None if id == TopicId::ZERO => {
                let message = "Neither topic name nor id were specified.";
                answers.refuse(None, id, ErrorCode::INVALID_REQUEST, message);
            }
            None => *ids.entry(id).or_default() += 1,
            Some(name) if id == TopicId::ZERO => *names.entry(name).or_default() += 1,
            Some(name) => {
                let message = "You may not specify both topic name and topic id.";
                answers.refuse(Some(name), id, ErrorCode::INVALID_REQUEST, message);
            }
        }
    }
    for name in names.iter().filter(|(_, times)| **times > 1).map(|(name, _)| name) {
        let (code, message) = (ErrorCode::INVALID_REQUEST, "Duplicate topic name.");
        answers.refuse(Some(name.clone()), TopicId::ZERO, code, message);
    }
    let (ids, ids_named_twice): (BTreeMap<_, _>, BTreeMap<_, _>) =
        ids.into_iter().partition(|(_, times)| *times == 1);
    for id in ids_named_twice.keys() {
        answers.refuse(None, *id, ErrorCode::INVALID_REQUEST, "Duplicate topic id.");
    }
    Selection {
        names: names.into_iter().filter(|(_, times)| *times == 1).map(|(name, _)| name).collect(),
        ids: ids.into_keys().collect(),
        ids_named_twice: ids_named_twice.into_keys().collect(),
    }
}

/// The topics to delete; what does not exist, or is named both ways, is answered.
fn resolve(
    image: &Image,
    selection: Selection,
    answers: &mut Answers,
) -> BTreeMap<TopicId, ByteString> {
    let mut topics = BTreeMap::new();
    for id in selection.ids {
        match image.topic(id) {
            Some(topic) => {
                topics.insert(id, ByteString::from(&*topic.name));
            }
            None => {
                let message = "This server does not host this topic ID.";
                answers.refuse(None, id, ErrorCode::UNKNOWN_TOPIC_ID, message);
            }
        }
    }
    for name in selection.names {
        let Some(topic) = image.topic_by_name(&name) else {
            let message = "This server does not host this topic-partition.";
            let code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
            answers.refuse(Some(name), TopicId::ZERO, code, message);
            continue;
        };
        let named_twice = selection.ids_named_twice.contains(&topic.id);
        if named_twice || topics.insert(topic.id, name.clone()).is_some() {
            topics.remove(&topic.id);
            let message = "The provided topic name maps to an ID that was already supplied.";
            answers.refuse(Some(name), topic.id, ErrorCode::INVALID_REQUEST, message);
        }
    }
    topics
}

#[cfg(test)]
mod tests;
