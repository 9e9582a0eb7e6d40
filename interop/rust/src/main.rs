//! librdkafka through the rdkafka crate, behind the protocol of interop/README.md.

mod admin;
mod member;

use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde_json::{Value, json};

use member::Members;

type Answer = Result<Value, Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(30);
const CONSUME_LIMIT: Duration = Duration::from_secs(20);

fn main() -> Result<(), Box<dyn Error>> {
    let mut answers = std::io::stdout().lock();
    let mut members = Members::default();
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let answer = answer(&request, &mut members)
            .unwrap_or_else(|error| json!({ "error": error.to_string() }));
        writeln!(answers, "{answer}")?;
        answers.flush()?;
    }
    Ok(())
}

fn answer(request: &Value, members: &mut Members) -> Answer {
    match text(request, "do")? {
        "produce" => produce(request),
        "consume" => consume(request),
        "watermarks" => watermarks(request),
        "offsets" => offsets(request),
        "create" => admin::create(request),
        "delete" => admin::delete(request),
        "topics" => admin::topics(request),
        "configs" => admin::configs(request),
        "set-configs" => admin::set_configs(request),
        "partitions" => admin::partitions(request),
        "add-partitions" => admin::add_partitions(request),
        "groups" => admin::groups(request),
        "describe-group" => admin::describe_group(request),
        "committed" => admin::committed(request),
        "commit" => admin::commit(request),
        "delete-group" => admin::delete_group(request),
        "join" => members.join(request),
        "member" => members.describe(request),
        "consumed" => members.consumed(request),
        "leave" => members.leave(request),
        other => Err(format!("unknown request {other}").into()),
    }
}

/// Collects what the broker said about each record, by the record's index.
#[derive(Clone, Default)]
struct Deliveries(Arc<Mutex<Vec<(usize, Result<i64, KafkaError>)>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(message) => Ok(message.offset().max(-1)),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().expect("no holder panics").push((*index, outcome));
    }
}

fn produce(request: &Value) -> Answer {
    let deliveries = Deliveries::default();
    let idempotence = request["idempotence"].as_bool().unwrap_or_default().to_string();
    let producer: BaseProducer<Deliveries> = config(request)?
        .set("compression.codec", text(request, "codec")?)
        .set("acks", text(request, "acks")?)
        .set("enable.idempotence", idempotence)
        .set("message.max.bytes", "4194304")
        .set("message.timeout.ms", "45000")
        .set("linger.ms", "5")
        .create_with_context(deliveries.clone())?;
    let records = list(request, "records")?;
    for (index, record) in records.iter().enumerate() {
        send(&producer, text(request, "topic")?, record, index)?;
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(50))?;
    let mut offsets = vec![None; records.len()];
    for (index, outcome) in deliveries.0.lock().expect("no holder panics").drain(..) {
        offsets[index] = Some(outcome?);
    }
    Ok(json!({ "offsets": offsets }))
}

fn send(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    record: &Value,
    index: usize,
) -> Result<(), Box<dyn Error>> {
    let (key, value) = (unhex(&record["key"])?, unhex(&record["value"])?);
    let mut headers = OwnedHeaders::new();
    for header in list(record, "headers")? {
        let value = unhex(&header[1])?;
        let key = header[0].as_str().ok_or("a header has a name")?;
        headers = headers.insert(Header { key, value: value.as_deref() });
    }
    let mut message = BaseRecord::with_opaque_to(topic, Box::new(index))
        .partition(i32::try_from(number(record, "partition")?)?)
        .timestamp(number(record, "timestamp")?)
        .headers(headers);
    if let Some(key) = &key {
        message = message.key(key.as_slice());
    }
    if let Some(value) = &value {
        message = message.payload(value.as_slice());
    }
    producer.send(message).map_err(|(error, _)| error.into())
}

fn consume(request: &Value) -> Answer {
    let consumer = consumer(request)?;
    let from = Offset::Offset(number(request, "from")?);
    consumer.assign(&partition(request, from)?)?;
    let wanted = usize::try_from(number(request, "count")?)?;
    let deadline = Instant::now() + CONSUME_LIMIT;
    let mut records = Vec::new();
    while records.len() < wanted && Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(200)) {
            Some(message) => records.push(describe(&message?)),
            None => continue,
        }
    }
    Ok(json!({ "records": records }))
}

fn describe(message: &BorrowedMessage<'_>) -> Value {
    let headers: Vec<Value> = message
        .headers()
        .map(|headers| {
            headers.iter().map(|header| json!([header.key, header.value.map(hex)])).collect()
        })
        .unwrap_or_default();
    json!({
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp().to_millis(),
        "key": message.key().map(hex),
        "value": message.payload().map(hex),
        "headers": headers,
    })
}

fn watermarks(request: &Value) -> Answer {
    let partition = i32::try_from(number(request, "partition")?)?;
    let consumer = consumer(request)?;
    let (low, high) = consumer.fetch_watermarks(text(request, "topic")?, partition, LIMIT)?;
    Ok(json!({ "low": low, "high": high }))
}

fn offsets(request: &Value) -> Answer {
    let consumer = consumer(request)?;
    let mut offsets = Vec::new();
    for time in list(request, "times")? {
        let time = Offset::Offset(time.as_i64().ok_or("a time is a number")?);
        let found = consumer.offsets_for_times(partition(request, time)?, LIMIT)?;
        let element = &found.elements()[0];
        element.error()?;
        offsets.push(match element.offset() {
            Offset::Offset(offset) => offset,
            _ => -1,
        });
    }
    Ok(json!({ "offsets": offsets }))
}

fn consumer(request: &Value) -> Result<BaseConsumer, Box<dyn Error>> {
    Ok(config(request)?
        .set("group.id", "interop")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .create()?)
}

fn config(request: &Value) -> Result<ClientConfig, Box<dyn Error>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", text(request, "bootstrap")?);
    Ok(config)
}

fn partition(request: &Value, offset: Offset) -> Result<TopicPartitionList, Box<dyn Error>> {
    let mut partitions = TopicPartitionList::new();
    let partition = i32::try_from(number(request, "partition")?)?;
    partitions.add_partition_offset(text(request, "topic")?, partition, offset)?;
    Ok(partitions)
}

fn text<'a>(request: &'a Value, name: &str) -> Result<&'a str, Box<dyn Error>> {
    request[name].as_str().ok_or_else(|| format!("{name} is missing").into())
}

fn number(request: &Value, name: &str) -> Result<i64, Box<dyn Error>> {
    request[name].as_i64().ok_or_else(|| format!("{name} is missing").into())
}

fn list<'a>(request: &'a Value, name: &str) -> Result<&'a Vec<Value>, Box<dyn Error>> {
    request[name].as_array().ok_or_else(|| format!("{name} is missing").into())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

fn unhex(text: &Value) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
    let Some(text) = text.as_str() else { return Ok(None) };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks_exact(2).map(pair).collect();
    Ok(Some(bytes.ok_or("bytes are hexadecimal")?))
}
