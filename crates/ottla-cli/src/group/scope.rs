//! Which partitions a command is about: `TOPIC` or `TOPIC:P,P…`.

use std::collections::BTreeSet;
use std::str::FromStr;

use ottla_base::TopicPartition;
use ottla_client::{Client, ClientError};

/// All partitions of a topic, or some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicScope {
    topic: String,
    partitions: Option<BTreeSet<i32>>,
}

impl FromStr for TopicScope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write TOPIC or TOPIC:P,P such as orders or orders:0,3".to_owned();
        let (topic, partitions) = match text.split_once(':') {
            None => (text, None),
            Some((topic, numbers)) => {
                let number = |text: &str| text.trim().parse().ok().filter(|it| *it >= 0);
                let numbers = numbers.split(',').map(number).collect::<Option<_>>();
                (topic, Some(numbers.ok_or_else(wrong)?))
            }
        };
        if topic.is_empty() {
            return Err(wrong());
        }
        Ok(Self { topic: topic.to_owned(), partitions })
    }
}

/// All that the scopes name, in order; each must exist.
pub(super) async fn partitions(
    client: &Client,
    scopes: &[TopicScope],
) -> Result<Vec<TopicPartition>, ClientError> {
    let mut found = BTreeSet::new();
    for scope in scopes {
        let topic = client.topic(&scope.topic).await?;
        let named = |index: &i32| TopicPartition::new(topic.name.clone(), *index);
        match &scope.partitions {
            None => found.extend(topic.partitions.keys().map(named)),
            Some(indexes) => {
                let missing = indexes.iter().find(|index| !topic.partitions.contains_key(index));
                if let Some(missing) = missing {
                    return Err(ClientError::NoSuchPartition(named(missing)));
                }
                found.extend(indexes.iter().map(named));
            }
        }
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_topic_or_some_of_its_partitions() {
        let scope = |topic: &str, partitions: Option<&[i32]>| TopicScope {
            topic: topic.to_owned(),
            partitions: partitions.map(|it| it.iter().copied().collect()),
        };
        assert_eq!("orders".parse(), Ok(scope("orders", None)));
        assert_eq!("orders:3".parse(), Ok(scope("orders", Some(&[3]))));
        assert_eq!("orders:3,0, 1".parse(), Ok(scope("orders", Some(&[0, 1, 3]))));
        for wrong in ["", ":1", "orders:", "orders:x", "orders:-1", "orders:1,,2"] {
            assert!(wrong.parse::<TopicScope>().is_err(), "{wrong:?}");
        }
    }
}
