//! Requests about many topics or many partitions at once, written by hand like the rest of the driver's (pure).

use anyhow::{Result, bail};

use super::{Frame, Reader, TIMEOUT_MS, TopicId};

/// CreateTopics v7: topics of one partition each.
pub(in crate::bench) fn create_topics(names: &[String]) -> Vec<u8> {
    let mut frame = Frame::start(19, 7, true);
    frame.length(names.len());
    for name in names {
        frame.string(name).i32(1).i16(1);
        frame.byte(1).byte(1).no_tags(); // No assignments, no configs.
    }
    frame.i32(TIMEOUT_MS).byte(0).no_tags();
    frame.finish()
}

/// The answer to CreateTopics: the ids, in the order of the answer.
pub(in crate::bench) fn all_created(response: &[u8]) -> Result<Vec<TopicId>> {
    let mut reader = Reader::after_flexible_header(response);
    reader.skip(4)?; // Throttle time.
    let topics = reader.length()?.saturating_sub(1);
    (0..topics).map(|_| created_topic(&mut reader)).collect()
}

fn created_topic(reader: &mut Reader<'_>) -> Result<TopicId> {
    reader.skip_string()?;
    let id = reader.array()?;
    reader.expect_no_error("CreateTopics")?;
    reader.skip_string()?; // Message.
    reader.skip(4 + 2)?; // Partitions, replication factor.
    for _ in 1..reader.length()? {
        reader.skip_string()?;
        reader.skip_string()?;
        reader.skip(3)?; // Read-only, source, sensitive.
        reader.expect_no_tags()?;
    }
    reader.expect_no_tags()?;
    Ok(id)
}

/// Produce v13: the same batch for some partitions of some topics.
pub(in crate::bench) fn produce<'a>(
    topics: impl ExactSizeIterator<Item = (&'a TopicId, &'a [i32])>,
    acks: i16,
    batch: &[u8],
) -> Vec<u8> {
    let mut frame = Frame::start(0, 13, true);
    frame.byte(0).i16(acks).i32(TIMEOUT_MS);
    frame.length(topics.len());
    for (topic, partitions) in topics {
        frame.bytes(topic).length(partitions.len());
        for partition in partitions {
            frame.i32(*partition).length(batch.len()).bytes(batch).no_tags();
        }
        frame.no_tags();
    }
    frame.no_tags();
    frame.finish()
}

/// The answer to Produce: how many partitions took their batch.
pub(in crate::bench) fn all_produced(response: &[u8]) -> Result<usize> {
    let mut reader = Reader::after_flexible_header(response);
    let mut taken = 0;
    for _ in 1..reader.length()? {
        reader.skip(16)?;
        for _ in 1..reader.length()? {
            reader.skip(4)?;
            reader.expect_no_error("Produce")?;
            reader.skip(8 + 8 + 8)?; // Base offset, log append time, log start offset.
            if reader.length()? != 1 {
                bail!("Produce told of errors of records");
            }
            reader.skip_string()?; // Message.
            reader.expect_no_tags()?;
            taken += 1;
        }
        reader.expect_no_tags()?;
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_of_an_answer_is_counted() {
        let partition = |index: u8| {
            let mut bytes = vec![0, 0, 0, index, 0, 0];
            bytes.extend([0; 24]);
            bytes.extend([1, 0, 0]);
            bytes
        };
        let topic = [vec![0; 16], vec![3], partition(0), partition(1), vec![0]].concat();
        let answer = [vec![0, 0, 0, 9, 0, 3], topic.clone(), topic].concat();
        assert_eq!(all_produced(&answer).unwrap(), 4);
        assert!(all_produced(&answer[..answer.len() - 2]).is_err());
    }
}
