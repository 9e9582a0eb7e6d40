//! `partition.metadata`: the id of the topic that a log belongs to, in Kafka's format. Pure.

use ottla_base::TopicId;

/// What the text says, as far as it makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionMetadata<'a> {
    /// Kafka knows version 0 only.
    pub(crate) version: Option<&'a str>,
    pub(crate) topic_id: Option<TopicId>,
}

impl<'a> PartitionMetadata<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let values = |key: &'static str| {
            text.lines().filter_map(move |line| line.strip_prefix(key)).map(str::trim)
        };
        Self {
            version: values("version:").next(),
            topic_id: values("topic_id:").find_map(|id| id.parse().ok()),
        }
    }
}

/// The text for a topic.
pub(crate) fn to_text(topic_id: TopicId) -> String {
    format!("version: 0\ntopic_id: {topic_id}")
}

#[cfg(test)]
mod tests {
    use ottla_base::Uuid;

    use super::*;

    #[test]
    fn the_text_is_kafkas() {
        let topic_id = Uuid([7; 16]);
        let text = to_text(topic_id);
        assert_eq!(text, "version: 0\ntopic_id: BwcHBwcHBwcHBwcHBwcHBw");
        let expected = PartitionMetadata { version: Some("0"), topic_id: Some(topic_id) };
        assert_eq!(PartitionMetadata::of(&text), expected);
    }

    #[test]
    fn what_a_crash_leaves_of_it_names_no_topic() {
        for (text, version) in [("", None), ("version: 0\ntopic_id: BwcH", Some("0"))] {
            let expected = PartitionMetadata { version, topic_id: None };
            assert_eq!(PartitionMetadata::of(text), expected, "{text:?}");
        }
    }
}
