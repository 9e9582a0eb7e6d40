//! The requests that the driver sends, written by hand (pure).
//!
//! By hand, because `xtask` generates `ottla-protocol` and must build when that room does not, and
//! because a driver that shares Ottla's codecs would share its mistakes. The versions are those that
//! Kafka 4.3's own clients choose; both brokers get the same bytes.

pub(super) mod groups;
pub(super) mod many;

use anyhow::{Context, Result, bail};

/// A topic's id; from Produce v13 and Fetch v13 on, requests name a topic by it.
pub(super) type TopicId = [u8; 16];

/// Where a frame keeps its correlation id: after its length, API key and version.
const CORRELATION_AT: std::ops::Range<usize> = 8..12;

const CLIENT_ID: &[u8] = b"ottla-bench";
const TIMEOUT_MS: i32 = 30_000;

/// What the Java consumer asks for by default: `fetch.max.bytes`.
const FETCH_MAX_BYTES: i32 = 52_428_800;
/// `max.partition.fetch.bytes`.
pub(super) const PARTITION_MAX_BYTES: i32 = 1_048_576;

/// ApiVersions v0, which every broker answers.
pub(super) fn api_versions() -> Vec<u8> {
    let mut frame = Frame::start(18, 0, false);
    frame.finish()
}

/// CreateTopics v7: one topic, one replica for each partition.
pub(super) fn create_topic(name: &str, partitions: i32) -> Vec<u8> {
    let mut frame = Frame::start(19, 7, true);
    frame.array_of_one().string(name).i32(partitions).i16(1);
    frame.byte(1).byte(1).no_tags(); // No assignments, no configs.
    frame.i32(TIMEOUT_MS).byte(0).no_tags();
    frame.finish()
}

/// DeleteTopics v6, by name.
pub(super) fn delete_topic(name: &str) -> Vec<u8> {
    let mut frame = Frame::start(20, 6, true);
    frame.array_of_one().string(name).bytes(&TopicId::default()).no_tags();
    frame.i32(TIMEOUT_MS).no_tags();
    frame.finish()
}

/// Produce v13: one batch for partition 0.
pub(super) fn produce(topic: &TopicId, acks: i16, batch: &[u8]) -> Vec<u8> {
    let mut frame = Frame::start(0, 13, true);
    frame.byte(0).i16(acks).i32(TIMEOUT_MS);
    frame.array_of_one().bytes(topic);
    frame.array_of_one().i32(0).length(batch.len()).bytes(batch).no_tags();
    frame.no_tags().no_tags();
    frame.finish()
}

/// Fetch v17 from partition 0, outside of any fetch session.
pub(super) fn fetch(topic: &TopicId, offset: i64, max_wait_ms: i32) -> Vec<u8> {
    let mut frame = Frame::start(1, 17, true);
    frame.i32(max_wait_ms).i32(1).i32(FETCH_MAX_BYTES).byte(0); // Read uncommitted.
    frame.i32(0).i32(-1); // No session.
    frame.array_of_one().bytes(topic);
    frame.array_of_one().i32(0).i32(-1).i64(offset).i32(-1).i64(-1).i32(PARTITION_MAX_BYTES);
    frame.no_tags().no_tags();
    frame.byte(1).byte(1).no_tags(); // Nothing forgotten, no rack.
    frame.finish()
}

/// Gives a finished frame another correlation id.
pub(super) fn set_correlation(frame: &mut [u8], correlation: i32) {
    if let Some(place) = frame.get_mut(CORRELATION_AT) {
        place.copy_from_slice(&correlation.to_be_bytes());
    }
}

/// The answer to CreateTopics of one topic: its id.
pub(super) fn created(response: &[u8]) -> Result<TopicId> {
    let mut reader = Reader::after_flexible_header(response);
    reader.skip(4)?; // Throttle time.
    reader.expect_one("topic")?;
    reader.skip_string()?;
    let topic = reader.array()?;
    reader.expect_no_error("CreateTopics")?;
    Ok(topic)
}

/// The answer to DeleteTopics.
pub(super) fn deleted(response: &[u8]) -> Result<()> {
    let mut reader = Reader::after_flexible_header(response);
    reader.skip(4)?;
    reader.expect_one("topic")?;
    reader.skip_string()?;
    reader.skip(16)?;
    reader.expect_no_error("DeleteTopics")
}

/// The answer to ApiVersions v0.
pub(super) fn versions_told(response: &[u8]) -> Result<()> {
    let mut reader = Reader(response);
    reader.skip(4)?; // Correlation id; this header never has tags.
    reader.expect_no_error("ApiVersions")
}

/// The answer to Produce.
pub(super) fn produced(response: &[u8]) -> Result<()> {
    let mut reader = Reader::after_flexible_header(response);
    reader.expect_one("topic")?;
    reader.skip(16)?;
    reader.expect_one("partition")?;
    reader.skip(4)?;
    reader.expect_no_error("Produce")
}

/// An answer to Produce that says "done", of the size of a real one: what a floor answers.
pub(super) fn produced_answer(correlation: [u8; 4]) -> [u8; 63] {
    let mut frame = [0; 63];
    let mut fill = |at: usize, bytes: &[u8]| {
        if let Some(place) = frame.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    fill(0, &59_i32.to_be_bytes());
    fill(4, &correlation);
    fill(9, &[2]); // One topic,
    fill(26, &[2]); // one partition.
    frame
}

/// The records in an answer to Fetch: whole batches, and perhaps the beginning of one more.
pub(super) fn fetched(response: &[u8]) -> Result<&[u8]> {
    let mut reader = Reader::after_flexible_header(response);
    reader.skip(4)?;
    reader.expect_no_error("Fetch")?;
    reader.skip(4)?; // Session id.
    reader.expect_one("topic")?;
    reader.skip(16)?;
    reader.expect_one("partition")?;
    reader.skip(4)?;
    reader.expect_no_error("Fetch")?;
    reader.skip(8 + 8 + 8)?; // High watermark, last stable offset, log start offset.
    let aborted = reader.length()?.saturating_sub(1);
    if aborted != 0 {
        bail!("Fetch told of {aborted} aborted transactions");
    }
    reader.skip(4)?; // Preferred read replica.
    let records = reader.length()?.saturating_sub(1);
    reader.take(records)
}

/// The offset after the last whole batch of `records`; `offset` when there is none.
pub(super) fn next_offset(mut records: &[u8], mut offset: i64) -> i64 {
    while let Some((batch, rest)) = first_batch(records) {
        let mut reader = Reader(batch);
        let last = reader.i64().ok().zip(reader.skip(15).ok().and_then(|()| reader.i32().ok()));
        let Some((base_offset, last_offset_delta)) = last else { break };
        offset = base_offset + i64::from(last_offset_delta) + 1;
        records = rest;
    }
    offset
}

fn first_batch(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader(records);
    reader.skip(8).ok()?;
    let length = usize::try_from(reader.i32().ok()?).ok()?;
    records.split_at_checked(length.checked_add(12)?)
}

/// A request being written.
struct Frame(Vec<u8>);

impl Frame {
    fn start(api_key: i16, version: i16, flexible: bool) -> Self {
        let mut frame = Self(vec![0; 4]);
        frame.i16(api_key).i16(version).i32(0);
        let length = i16::try_from(CLIENT_ID.len()).expect("the client id is a short constant");
        frame.i16(length).bytes(CLIENT_ID);
        if flexible {
            frame.no_tags();
        }
        frame
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn byte(&mut self, byte: u8) -> &mut Self {
        self.bytes(&[byte])
    }

    fn i16(&mut self, value: i16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// A compact length: one more than `length`, seven bits at a time.
    fn length(&mut self, length: usize) -> &mut Self {
        let mut rest = length + 1;
        while rest >= 0x80 {
            self.byte(0x80 | low_seven_bits(rest));
            rest >>= 7;
        }
        self.byte(low_seven_bits(rest))
    }

    fn string(&mut self, text: &str) -> &mut Self {
        self.length(text.len()).bytes(text.as_bytes())
    }

    fn array_of_one(&mut self) -> &mut Self {
        self.length(1)
    }

    fn no_tags(&mut self) -> &mut Self {
        self.byte(0)
    }

    fn finish(&mut self) -> Vec<u8> {
        let mut frame = std::mem::take(&mut self.0);
        let length = u32::try_from(frame.len() - 4).expect("no request is near 4 GiB");
        if let Some(place) = frame.get_mut(..4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        frame
    }
}

fn low_seven_bits(value: usize) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits fit into a byte")
}

/// What is left of a response.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Skips correlation id and (empty) tags.
    fn after_flexible_header(response: &'a [u8]) -> Self {
        Self(response.get(5..).unwrap_or_default())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).context("the answer is too short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn skip(&mut self, length: usize) -> Result<()> {
        self.take(length).map(drop)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn i16(&mut self) -> Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// A compact length as it is on the wire: one more than the length, zero for null.
    fn length(&mut self) -> Result<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        bail!("a length of more than five bytes")
    }

    fn skip_string(&mut self) -> Result<()> {
        let length = self.length()?.saturating_sub(1);
        self.skip(length)
    }

    fn string(&mut self) -> Result<String> {
        let length = self.length()?.saturating_sub(1);
        let text = std::str::from_utf8(self.take(length)?).context("a string that is no UTF-8")?;
        Ok(text.to_owned())
    }

    fn expect_no_tags(&mut self) -> Result<()> {
        match self.length()? {
            0 => Ok(()),
            tags => bail!("the answer has {tags} unexpected tags"),
        }
    }

    fn expect_one(&mut self, what: &str) -> Result<()> {
        match self.length()?.saturating_sub(1) {
            1 => Ok(()),
            other => bail!("the answer has {other} {what}s instead of one"),
        }
    }

    fn expect_no_error(&mut self, api: &str) -> Result<()> {
        match self.i16()? {
            0 => Ok(()),
            code => bail!("{api} was refused with Kafka's error code {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_answers_produce_as_a_broker_would() {
        let answer = produced_answer([1, 2, 3, 4]);
        assert_eq!(answer.len() - 4, 59);
        produced(&answer[4..]).unwrap();
    }

    #[test]
    fn a_frame_counts_its_own_length_and_takes_a_new_correlation_id() {
        let mut frame = fetch(&[7; 16], 42, 500);
        set_correlation(&mut frame, 9);
        let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), frame.len() - 4);
        assert_eq!(frame[4..12], [0, 1, 0, 17, 0, 0, 0, 9]);
    }

    #[test]
    fn a_compact_length_survives_the_way_out_and_back() {
        for length in [0, 1, 126, 127, 128, 16_383, 16_384, 1 << 20] {
            let mut frame = Frame(Vec::new());
            frame.length(length);
            assert_eq!(Reader(&frame.0).length().unwrap(), length + 1);
        }
    }

    #[test]
    fn an_incomplete_batch_at_the_end_is_left_for_the_next_fetch() {
        let mut batch = vec![0; 61];
        batch[..8].copy_from_slice(&100_i64.to_be_bytes());
        batch[8..12].copy_from_slice(&49_i32.to_be_bytes());
        batch[23..27].copy_from_slice(&9_i32.to_be_bytes());
        let mut records = batch.clone();
        records.extend_from_slice(&batch[..40]);
        assert_eq!(next_offset(&records, 100), 110);
        assert_eq!(next_offset(&batch[..40], 100), 100);
    }
}
