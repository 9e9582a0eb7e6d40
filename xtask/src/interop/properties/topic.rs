//! One topic with one partition: written to, changed, and looked at from outside and on disk (shell).

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use ottla_base::{ErrorCode, Timestamp};
use ottla_protocol::Records;
use ottla_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use ottla_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ottla_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::produce_response::PartitionProduceResponse;
use ottla_protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest,
    ProduceRequest,
};
use ottla_records::{BatchBuilder, BatchHeader, Batches, Compression};

use super::super::directories::ask;
use super::super::session::{eventually, now_ms};
use super::{Bench, TOPIC};

pub(super) const LIMIT: Duration = Duration::from_secs(20);
const DAY_MS: i64 = 86_400_000;
/// Segments end when this much time lies between two records, unless a test wants it otherwise.
pub(super) const SEGMENT_MS: i64 = 3_600_000;

pub(super) struct Topic<'a> {
    bench: &'a Bench,
    name: String,
    /// The time of the record that was written last; all are days old.
    time_ms: Cell<i64>,
}

impl<'a> Topic<'a> {
    /// Made with `segment.ms` and these.
    pub(super) fn create(bench: &'a Bench, name: &str, configs: &[(&str, &str)]) -> Result<Self> {
        let segment_ms = SEGMENT_MS.to_string();
        let own = [("segment.ms", segment_ms.as_str())];
        let config = |&(name, value): &(&str, &str)| CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
        };
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: 1,
            replication_factor: 1,
            configs: own.iter().chain(configs).map(config).collect(),
            ..Default::default()
        };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let answer = ask(&bench.address, &request, 7)?;
        let failed = answer.topics.iter().find(|topic| topic.error_code != ErrorCode::NONE);
        ensure!(failed.is_none(), "{name} could not be made: {failed:?}");
        let time_ms = Cell::new(now_ms() - 30 * DAY_MS);
        let topic = Self { bench, name: name.to_owned(), time_ms };
        // Apache Kafka answers before the broker has applied it.
        eventually(LIMIT, || Ok(topic.start().ok()))?;
        Ok(topic)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the broker says to a change.
    pub(super) fn alter(&self, name: &str, value: &str) -> Result<ErrorCode> {
        let value = Some(value.into());
        let resource = AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: self.name.as_str().into(),
            configs: vec![AlterableConfig { name: name.into(), config_operation: 0, value }],
        };
        let request =
            IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        let answer = ask(&self.bench.address, &request, 1)?;
        answer.responses.first().map(|it| it.error_code).context("no answer for the topic")
    }

    /// A change that must be accepted. Apache Kafka applies it a little later.
    pub(super) fn set(&self, name: &str, value: &str) -> Result<()> {
        let code = self.alter(name, value)?;
        ensure!(code == ErrorCode::NONE, "{name}={value}: {code}");
        Ok(())
    }

    /// One batch as it is, with acks=all.
    pub(super) fn produce(&self, batch: Bytes) -> Result<PartitionProduceResponse> {
        let records = Some(Records::Bytes(batch));
        let topic = TopicProduceData {
            name: self.name.as_str().into(),
            partition_data: vec![PartitionProduceData { index: 0, records }],
            ..Default::default()
        };
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![topic],
            ..Default::default()
        };
        let answer = ask(&self.bench.address, &request, 12)?;
        let answers = answer.responses.into_iter().flat_map(|topic| topic.partition_responses);
        answers.into_iter().next().context("no answer for the partition")
    }

    fn produced(&self, batch: Bytes) -> Result<i64> {
        let answer = self.produce(batch)?;
        ensure!(answer.error_code == ErrorCode::NONE, "{}: {}", self.name, answer.error_code);
        Ok(answer.base_offset)
    }

    /// A record a moment after the one before; gives its offset.
    pub(super) fn write(&self, value: &[u8]) -> Result<i64> {
        self.write_after(1, None, Some(value))
    }

    pub(super) fn write_keyed(&self, key: &str, value: Option<&[u8]>) -> Result<i64> {
        self.write_after(1, Some(key.as_bytes()), value)
    }

    /// A record so long after the one before that it is in a segment of its own.
    pub(super) fn roll(&self) -> Result<i64> {
        self.write_after(SEGMENT_MS + 1, Some(b"roll"), Some(b"v"))
    }

    pub(super) fn write_after(
        &self,
        milliseconds: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<i64> {
        self.time_ms.set(self.time_ms.get() + milliseconds);
        let mut batch = BatchBuilder::new(Compression::None);
        batch.append(Timestamp(self.time_ms.get()), key, value, &[]);
        self.produced(batch.build_bytes())
    }

    /// Where the log begins.
    pub(super) fn start(&self) -> Result<i64> {
        let earliest =
            ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp: -2 };
        let topic =
            ListOffsetsTopic { name: self.name.as_str().into(), partitions: vec![earliest] };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        let answer = ask(&self.bench.address, &request, 9)?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let answer = partitions.into_iter().next().context("no answer for the partition")?;
        ensure!(answer.error_code == ErrorCode::NONE, "{}: {}", self.name, answer.error_code);
        Ok(answer.offset)
    }

    pub(super) fn delete_before(&self, offset: i64) -> Result<()> {
        let topic = DeleteRecordsTopic {
            name: self.name.as_str().into(),
            partitions: vec![DeleteRecordsPartition { partition_index: 0, offset }],
        };
        let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 10_000 };
        let answer = ask(&self.bench.address, &request, 2)?;
        let mut answers = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let code = answers.next().context("no answer for the partition")?.error_code;
        ensure!(code == ErrorCode::NONE, "{} before {offset}: {code}", self.name);
        Ok(())
    }

    /// The partition's files with this ending, in the order of their offsets.
    pub(super) fn files(&self, ending: &str) -> Result<Vec<PathBuf>> {
        let directory = self.bench.data.join(format!("{}-0", self.name));
        let mut files = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(ending) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    pub(super) fn segments(&self) -> Result<usize> {
        Ok(self.files(".log")?.len())
    }

    /// The headers of what is stored, in the order of their offsets.
    pub(super) fn stored(&self) -> Result<Vec<BatchHeader>> {
        eventually(LIMIT, || self.stored_now())
    }

    /// None while files are taken away or replaced.
    fn stored_now(&self) -> Result<Option<Vec<BatchHeader>>> {
        let files = self.files(".log")?;
        let mut headers = Vec::new();
        for file in &files {
            let bytes = match fs::read(file) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                bytes => bytes?,
            };
            let batches = Batches::new(bytes.into()).map_while(Result::ok);
            headers.extend(batches.map(|batch| *batch.header()));
        }
        let is_as_it_was = self.files(".swap")?.is_empty() && self.files(".log")? == files;
        Ok(is_as_it_was.then_some(headers))
    }

    pub(super) fn last_stored(&self) -> Result<BatchHeader> {
        self.stored()?.pop().context("nothing is stored")
    }

    /// Whether there is a batch with records that begins here.
    pub(super) fn holds(&self, offset: i64) -> Result<bool> {
        let is_it = |batch: &BatchHeader| batch.base_offset == offset && batch.record_count > 0;
        Ok(self.stored()?.iter().any(is_it))
    }

    /// Does something again until something shows; `what` says what has not.
    pub(super) fn until(&self, what: &str, mut shows: impl FnMut() -> Result<bool>) -> Result<()> {
        eventually(LIMIT, || Ok(shows()?.then_some(())))
            .with_context(|| format!("{}: {what}", self.name))
    }
}
