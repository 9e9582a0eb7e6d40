//! Single records of partition 0, written to a node of one's choice, and all of them read back (shell).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ottla_base::ErrorCode;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use super::ask::Caller;
use super::client::{Acks, request};
use super::nodes::Cluster;

const PARTITION: i32 = 0;
const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Sends a record to a node, whether it leads or not, and gives its answer. The broker may wait for followers for so long.
pub(super) fn write(
    cluster: &Cluster,
    node: i32,
    topic: &str,
    value: &str,
    acks: Acks,
    limit: Duration,
) -> Result<ErrorCode> {
    let request = request(topic, PARTITION, value.as_bytes(), acks, limit)?;
    let mut caller = Caller::open(&cluster.address_of(node)?, limit + LIMIT)?;
    let answer = caller.call(12, &request)?;
    let mut partitions = answer.responses.iter().flat_map(|it| &it.partition_responses);
    Ok(partitions.next().context("Produce tells of no partition")?.error_code)
}

/// The values of all records from offset 0 on that consumers may see, by librdkafka.
pub(super) fn read_all(cluster: &Cluster, topic: &str) -> Result<Vec<String>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap()).set("group.id", "readers");
    config.set("enable.auto.commit", "false").set("auto.offset.reset", "error");
    let consumer: BaseConsumer = config.create()?;
    let (_, end) = consumer.fetch_watermarks(topic, PARTITION, LIMIT)?;
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(topic, PARTITION, Offset::Offset(0))?;
    consumer.assign(&all)?;
    let deadline = Instant::now() + LIMIT;
    let mut values = Vec::new();
    let mut next = 0;
    while next < end {
        ensure!(Instant::now() < deadline, "read up to {next} of {end} only");
        // Brokers that are away are an error on the way, and no end.
        let Some(Ok(message)) = consumer.poll(POLL) else { continue };
        ensure!(message.offset() == next, "offset {} after {next}", message.offset());
        next += 1;
        values.push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned());
    }
    Ok(values)
}
