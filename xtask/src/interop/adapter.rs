//! Client libraries behind the line protocol of `interop/README.md` (shell).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) use super::library::Library;
use super::record::Record;
use crate::process::Process;

/// Longer than any time limit inside an adapter, so that the adapter says what went wrong.
const ANSWER_LIMIT: Duration = Duration::from_secs(110);

/// A running adapter, talking to one broker; started when it is first asked.
#[derive(Debug)]
pub(crate) struct Adapter {
    library: Library,
    bootstrap: String,
    /// Several nodes, all of which must know a topic before it counts as created; none for one broker.
    nodes: Vec<String>,
    directory: PathBuf,
    process: Option<Process>,
    starts: u32,
}

/// How records are to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writing<'a> {
    pub(crate) codec: &'a str,
    pub(crate) acks: &'a str,
    pub(crate) idempotence: bool,
}

impl Default for Writing<'_> {
    fn default() -> Self {
        Self { codec: "none", acks: "all", idempotence: false }
    }
}

/// What one of Kafka's command line tools said.
#[derive(Debug)]
pub(crate) struct ToolOutput {
    pub(crate) status: i64,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Adapter {
    pub(crate) fn new(library: Library, bootstrap: &str, directory: &Path) -> Self {
        Self {
            library,
            bootstrap: bootstrap.to_owned(),
            nodes: Vec::new(),
            directory: directory.to_path_buf(),
            process: None,
            starts: 0,
        }
    }

    /// As for a cluster of these nodes.
    pub(crate) fn of_nodes(self, nodes: Vec<String>) -> Self {
        Self { nodes, ..self }
    }

    /// The offset of each record, −1 where the client does not learn it.
    pub(crate) fn produce(
        &mut self,
        topic: &str,
        records: &[Record],
        writing: Writing<'_>,
    ) -> Result<Vec<i64>> {
        let records: Vec<Value> = records.iter().map(Record::to_json).collect();
        let answer = self.ask(json!({
            "do": "produce",
            "topic": topic,
            "codec": writing.codec,
            "acks": writing.acks,
            "idempotence": writing.idempotence,
            "records": records,
        }))?;
        numbers(&answer, "offsets")
    }

    /// `count` records of a partition, or those that came in time, with their offsets.
    pub(crate) fn consume(
        &mut self,
        topic: &str,
        partition: i32,
        from: i64,
        count: usize,
    ) -> Result<Vec<(i64, Record)>> {
        let answer = self.ask(json!({
            "do": "consume", "topic": topic, "partition": partition, "from": from, "count": count,
        }))?;
        answer_records(&answer)
    }

    pub(crate) fn watermarks(&mut self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        let answer =
            self.ask(json!({ "do": "watermarks", "topic": topic, "partition": partition }))?;
        Ok((number(&answer, "low")?, number(&answer, "high")?))
    }

    pub(crate) fn offsets(
        &mut self,
        topic: &str,
        partition: i32,
        times: &[i64],
    ) -> Result<Vec<i64>> {
        let answer = self.ask(json!({
            "do": "offsets", "topic": topic, "partition": partition, "times": times,
        }))?;
        numbers(&answer, "offsets")
    }

    pub(crate) fn create(
        &mut self,
        topic: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<()> {
        let configs: serde_json::Map<String, Value> =
            configs.iter().map(|&(name, value)| (name.to_owned(), json!(value))).collect();
        let request =
            json!({ "do": "create", "topic": topic, "partitions": partitions, "configs": configs });
        self.ask(request)?;
        self.nodes.iter().try_for_each(|node| await_topic(node, topic))
    }

    pub(crate) fn delete(&mut self, topic: &str) -> Result<()> {
        self.ask(json!({ "do": "delete", "topic": topic })).map(drop)
    }

    pub(crate) fn topics(&mut self) -> Result<Vec<String>> {
        let answer = self.ask(json!({ "do": "topics" }))?;
        let topics = answer.get("topics").and_then(Value::as_array).context("no topics")?;
        Ok(topics.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// The configuration of a topic.
    pub(crate) fn configs(&mut self, topic: &str) -> Result<BTreeMap<String, Option<String>>> {
        let answer = self.ask(json!({ "do": "configs", "topic": topic }))?;
        object(&answer, "configs")
    }

    /// The offset that a group committed for each partition of a topic, by the partition's number.
    pub(crate) fn committed(&mut self, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let answer = self.ask(json!({ "do": "committed", "group": group, "topic": topic }))?;
        object(&answer, "offsets")
    }

    pub(crate) fn groups(&mut self) -> Result<Vec<String>> {
        let answer = self.ask(json!({ "do": "groups" }))?;
        object(&answer, "groups")
    }

    /// Runs one of Kafka's command line tools by the name of its class below `org.apache.kafka`.
    pub(crate) fn tool(
        &mut self,
        class: &str,
        arguments: &[&str],
        input: &[u8],
    ) -> Result<ToolOutput> {
        // One tool is older than the others' package.
        let prefix = if class.starts_with("kafka.") { "" } else { "org.apache.kafka." };
        let answer = self.ask(json!({
            "do": "tool",
            "class": format!("{prefix}{class}"),
            "arguments": arguments,
            "input": super::record::hex(input),
        }))?;
        let text = |name| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(ToolOutput { status: number(&answer, "status")?, out: text("out"), err: text("err") })
    }

    /// Sends one request and waits for its answer; an adapter that fails to answer is replaced.
    pub(crate) fn ask(&mut self, mut request: Value) -> Result<Value> {
        if let Some(request) = request.as_object_mut() {
            request.insert("bootstrap".to_owned(), json!(self.bootstrap));
        }
        let mut process = match self.process.take() {
            Some(process) => process,
            None => self.start()?,
        };
        let line = exchange(&mut process, &request)?;
        self.process = Some(process);
        answer(&line, self.library.name())
    }

    /// SIGKILL: no goodbye to anybody.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.take().context("the adapter is not running")?.kill()
    }

    fn start(&mut self) -> Result<Process> {
        self.starts += 1;
        let name = self.library.name();
        let log = self.directory.join(format!("{name}-{}.log", self.starts));
        Process::spawn(&format!("the {name} adapter"), self.library.command()?, &log)
    }
}

/// The controller answers; each node hears of it a little later, and sends clients away until then.
#[cfg(feature = "cluster")]
fn await_topic(node: &str, topic: &str) -> Result<()> {
    use crate::cluster::ask;

    super::session::eventually(ANSWER_LIMIT, || {
        let known = ask::view(node, Some(topic)).is_ok_and(|view| {
            !view.partitions.is_empty() && view.partitions.values().all(|it| it.leader.is_some())
        });
        Ok(known.then_some(()))
    })
    .with_context(|| format!("{node} does not hear of {topic}"))
}

#[cfg(not(feature = "cluster"))]
fn await_topic(_: &str, _: &str) -> Result<()> {
    Ok(())
}

/// Sends a line of the adapters' protocol, and waits for the line that answers it.
pub(crate) fn exchange(process: &mut Process, request: &Value) -> Result<String> {
    process.write_line(&request.to_string())?;
    let (_, line) = process.next_line(Instant::now() + ANSWER_LIMIT)?;
    Ok(line)
}

/// What a line answers; an error if `who` says so.
pub(crate) fn answer(line: &str, who: &str) -> Result<Value> {
    let answer: Value =
        serde_json::from_str(line).with_context(|| format!("not an answer: {line:.200}"))?;
    if let Some(error) = answer.get("error") {
        bail!("{who} says: {}", error.as_str().unwrap_or_default());
    }
    Ok(answer)
}

/// The part of an answer that a JSON pointer names, null if there is none.
pub(crate) fn part<'a>(answer: &'a Value, pointer: &str) -> &'a Value {
    answer.pointer(pointer).unwrap_or(&Value::Null)
}

/// The records that were read, with their offsets.
pub(crate) fn answer_records(answer: &Value) -> Result<Vec<(i64, Record)>> {
    let records = answer.get("records").and_then(Value::as_array).context("no records")?;
    records.iter().map(|record| Record::from_json(record).context("not a record")).collect()
}

pub(crate) fn object<T: DeserializeOwned>(answer: &Value, name: &str) -> Result<T> {
    let value = answer.get(name).with_context(|| format!("no {name} in the answer"))?;
    serde_json::from_value(value.clone()).with_context(|| format!("{name} is malformed"))
}

pub(crate) fn number(answer: &Value, name: &str) -> Result<i64> {
    answer.get(name).and_then(Value::as_i64).with_context(|| format!("no {name} in the answer"))
}

pub(crate) fn numbers(answer: &Value, name: &str) -> Result<Vec<i64>> {
    let numbers = answer.get(name).and_then(Value::as_array);
    let numbers = numbers.with_context(|| format!("no {name} in the answer"))?;
    let number = |value: &Value| value.as_i64().with_context(|| format!("{name}: one is missing"));
    numbers.iter().map(number).collect()
}
