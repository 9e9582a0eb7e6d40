//! What is changed for a topic, for the broker or for the cluster is in effect for the next batch.

use anyhow::Result;
use ottla_base::ErrorCode;
use ottla_protocol::messages::ProduceRequest;
use ottla_protocol::messages::describe_configs_request::DescribeConfigsResource;

use super::super::both::Both;
use super::super::subject::Subject;
use super::alter_configs::{delete_for_both, set_for_both, set_for_both_controllers};
use super::batches;
use super::describe_configs::{BROKER, TOPIC, ask as describe, resource};
use super::produce_request;

pub(super) fn run(both: &mut Both) -> Result<()> {
    both.create("dynamic", 1, &[])?;
    largest_batch(both)?;
    whose_time(both)?;
    what_cannot_be(both)
}

/// The strongest of several bounds counts: the topic's, then the broker's, then the cluster's.
fn largest_batch(both: &mut Both) -> Result<()> {
    const PROPERTY: &str = "message.max.bytes";
    produce(both, "a batch within the default")?;
    set_for_both(both, BROKER, "", &[(PROPERTY, "50")])?;
    until_answered(both, ErrorCode::MESSAGE_TOO_LARGE)?;
    produce(both, "a batch above the cluster's bound")?;
    set_for_both(both, BROKER, "1", &[(PROPERTY, "5000")])?;
    until_answered(both, ErrorCode::NONE)?;
    produce(both, "a batch within the broker's bound")?;
    set_for_both(both, TOPIC, "dynamic", &[("max.message.bytes", "60")])?;
    until_answered(both, ErrorCode::MESSAGE_TOO_LARGE)?;
    produce(both, "a batch above the topic's bound")?;
    delete_for_both(both, TOPIC, "dynamic", "max.message.bytes")?;
    until_answered(both, ErrorCode::NONE)?;
    delete_for_both(both, BROKER, "1", PROPERTY)?;
    until_answered(both, ErrorCode::MESSAGE_TOO_LARGE)?;
    delete_for_both(both, BROKER, "", PROPERTY)?;
    until_answered(both, ErrorCode::NONE)?;
    produce(both, "a batch within the default again")
}

fn whose_time(both: &mut Both) -> Result<()> {
    const PROPERTY: &str = "log.message.timestamp.type";
    set_for_both(both, BROKER, "", &[(PROPERTY, "LogAppendTime")])?;
    both.set_up(|subject| {
        subject.wait_for("the broker's own time", |subject| {
            let request = request(subject);
            let response = subject.expect(12, &request)?;
            let partitions = response.responses.iter().flat_map(|it| &it.partition_responses);
            Ok(partitions.map(|it| it.log_append_time_ms).all(|time| time > 0))
        })
    })?;
    produce(both, "a batch that gets the broker's time")?;
    delete_for_both(both, BROKER, "", PROPERTY)
}

/// A controller checks nothing. What is stored and can't be in effect keeps everything that came with it from being so.
fn what_cannot_be(both: &mut Both) -> Result<()> {
    const BOUND: &str = "message.max.bytes";
    for (name, value) in [("log.retention.ms", "0"), ("log.roll.ms", "0"), ("max.connections", "0")]
    {
        let pairs = [(name, value), (BOUND, "50")];
        set_for_both_controllers(both, BROKER, "", &pairs)?;
        produce(both, &format!("a batch after {name}={value} was stored"))?;
        both.talk(
            &format!("a new connection after {name}={value} was stored"),
            |_, connection| {
                connection.finish_sending();
                Ok(vec![connection.receive()?])
            },
        )?;
        let asked =
            [(BROKER, ""), (BROKER, "1"), (TOPIC, "dynamic")].map(|(kind, resource_name)| {
                let keys = [name, BOUND, "retention.ms", "segment.ms", "max.message.bytes"];
                let configuration_keys = Some(keys.map(Into::into).to_vec());
                DescribeConfigsResource { configuration_keys, ..resource(kind, resource_name) }
            });
        describe(both, 4, &format!("after {name}={value} was stored"), asked.to_vec())?;
        delete_for_both(both, BROKER, "", name)?;
        until_answered(both, ErrorCode::MESSAGE_TOO_LARGE)?;
        delete_for_both(both, BROKER, "", BOUND)?;
        until_answered(both, ErrorCode::NONE)?;
    }
    Ok(())
}

fn request(subject: &Subject) -> ProduceRequest {
    produce_request(subject, 12, "dynamic", 0, Some(batches::sized(100)))
}

fn produce(both: &mut Both, what: &str) -> Result<()> {
    both.ask_edited(
        12,
        what,
        |subject, _| request(subject),
        |response| {
            // How often each broker was asked until it had taken over a change is a matter of time.
            let partitions =
                response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
            partitions.for_each(|partition| partition.base_offset = partition.base_offset.min(0));
        },
    )?;
    Ok(())
}

/// Apache Kafka describes a change before its logs go by it.
fn until_answered(both: &mut Both, code: ErrorCode) -> Result<()> {
    both.set_up(|subject| {
        subject.wait_for(&format!("{code:?}"), |subject| {
            let request = request(subject);
            let response = subject.expect(12, &request)?;
            let mut partitions =
                response.responses.iter().flat_map(|topic| &topic.partition_responses);
            Ok(partitions.all(|partition| partition.error_code == code))
        })
    })
}
