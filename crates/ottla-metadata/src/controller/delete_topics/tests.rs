//! Deleting by name and by id, record by record.

use super::*;
use ottla_protocol::records::TopicRecord;

fn image() -> Image {
    let mut image = Image::new("cluster");
    for (name, id) in [("a", 100), ("b", 200)] {
        let topic_id = TopicId::from_u128(id);
        image.apply(&TopicRecord { name: name.into(), topic_id }.into()).unwrap();
    }
    image
}

fn by_name(names: &[&str]) -> DeleteTopicsRequest {
    let topic_names = names.iter().map(|name| ByteString::from(*name)).collect();
    DeleteTopicsRequest { topic_names, ..Default::default() }
}

fn by_state(states: &[(Option<&str>, u128)]) -> DeleteTopicsRequest {
    let state = |&(name, id): &(Option<&str>, u128)| delete_topics_request::DeleteTopicState {
        name: name.map(ByteString::from),
        topic_id: TopicId::from_u128(id),
    };
    DeleteTopicsRequest { topics: states.iter().map(state).collect(), ..Default::default() }
}

fn delete(request: &DeleteTopicsRequest) -> Outcome<DeleteTopicsResponse> {
    delete_topics(&image(), &Policy::default(), request, 6)
}

fn removal(id: u128) -> crate::MetadataRecord {
    RemoveTopicRecord { topic_id: TopicId::from_u128(id) }.into()
}

fn codes(outcome: &Outcome<DeleteTopicsResponse>) -> Vec<(Option<&str>, u128, ErrorCode)> {
    let responses = outcome.reply.responses.iter();
    let code = |it: &'_ delete_topics_response::DeletableTopicResult| {
        (u128::from_be_bytes(it.topic_id.0), it.error_code)
    };
    responses.map(|it| (it.name.as_deref(), code(it).0, code(it).1)).collect()
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let outcome = delete(&by_name(&["a"]));
    assert_eq!(outcome.records, [removal(100)]);
    assert_eq!(codes(&outcome), [(Some("a"), 100, ErrorCode::NONE)]);

    let outcome = delete(&by_state(&[(None, 200), (Some("a"), 0)]));
    assert_eq!(outcome.records, [removal(100), removal(200)]);
    let expected = [(Some("a"), 100, ErrorCode::NONE), (Some("b"), 200, ErrorCode::NONE)];
    assert_eq!(codes(&outcome), expected);
}

#[test]
fn what_does_not_exist_is_told_apart_by_how_it_was_named() {
    let outcome = delete(&by_state(&[(Some("x"), 0), (None, 999)]));
    assert_eq!(outcome.records, []);
    let expected = [
        (None, 999, ErrorCode::UNKNOWN_TOPIC_ID),
        (Some("x"), 0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
    ];
    assert_eq!(codes(&outcome), expected);
}

#[test]
fn a_topic_named_twice_in_whatever_way_is_kept() {
    let invalid = ErrorCode::INVALID_REQUEST;
    let outcome = delete(&by_name(&["a", "b", "a", "a"]));
    assert_eq!(outcome.records, [removal(200)]);
    assert_eq!(codes(&outcome), [(Some("a"), 0, invalid), (Some("b"), 200, ErrorCode::NONE)]);

    let outcome = delete(&by_state(&[(None, 100), (Some("a"), 0)]));
    assert_eq!((&*outcome.records, codes(&outcome)), (&[][..], vec![(Some("a"), 100, invalid)]));

    let outcome = delete(&by_state(&[(None, 100), (None, 100), (Some("a"), 0)]));
    assert_eq!(outcome.records, []);
    assert_eq!(codes(&outcome), [(None, 100, invalid), (Some("a"), 100, invalid)]);
}

#[test]
fn a_topic_is_named_in_exactly_one_way() {
    let outcome = delete(&by_state(&[(None, 0), (Some("a"), 100)]));
    assert_eq!(outcome.records, []);
    let invalid = ErrorCode::INVALID_REQUEST;
    assert_eq!(codes(&outcome), [(None, 0, invalid), (Some("a"), 100, invalid)]);
}

#[test]
fn a_cluster_that_forbids_deletion_says_so_in_the_words_of_the_version() {
    let policy = Policy { delete_topic_enable: false, ..Policy::default() };
    for (version, code) in
        [(2, ErrorCode::INVALID_REQUEST), (3, ErrorCode::TOPIC_DELETION_DISABLED)]
    {
        let outcome = delete_topics(&image(), &policy, &by_name(&["a"]), version);
        assert_eq!(outcome.records, []);
        assert_eq!(codes(&outcome), [(Some("a"), 0, code)]);
    }
}
