//! Kills the broker in the middle of creating topics: each is there as a whole afterwards, or not at all (shell).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use ottla_base::{ErrorCode, SplitMix64, Timestamp};
use ottla_protocol::Records;
use ottla_protocol::messages::create_topics_request::CreatableTopic;
use ottla_protocol::messages::metadata_request::MetadataRequestTopic;
use ottla_protocol::messages::metadata_response::MetadataResponseTopic;
use ottla_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use ottla_protocol::messages::{CreateTopicsRequest, MetadataRequest, ProduceRequest};
use ottla_records::{BatchBuilder, Compression};

use super::session::{SETTINGS, Session, eventually};
use super::{Length, Test};
use crate::broker::{Broker, Target};
use crate::side_by_side::subject::{Outcome, Subject};

const PARTITIONS: i32 = 5;
const CONNECTIONS: usize = 4;
/// A killed Apache Kafka takes a while to lead again.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

pub(super) fn tests() -> Vec<Test> {
    let name = "durability: kill -9 in the middle of CreateTopics leaves all of a topic or nothing";
    vec![Test::new(name, &[], kill_while_creating).without_broker()]
}

/// Topics by name, and whether their creation was acknowledged.
type Asked = BTreeMap<String, bool>;

fn kill_while_creating(session: &mut Session) -> Result<()> {
    let target = session.target();
    let kills = match (target, session.length) {
        (Target::Kafka, Length::Short) => 2,
        (Target::Kafka, Length::Long) => 4,
        (Target::Ottla, Length::Short) => 8,
        (Target::Ottla, Length::Long) => 40,
    };
    let mut broker = target.start(&session.directory().join("creation"), SETTINGS)?;
    let mut all = Asked::new();
    let (mut in_flight, mut made_unheard) = (0, 0);
    for life in 0..kills {
        let asked = create_until_killed(&mut broker, life)?;
        broker.restart()?;
        let there = check(&broker, &asked).with_context(|| format!("after life {life}"))?;
        in_flight += asked.values().filter(|acknowledged| !**acknowledged).count();
        made_unheard += there - asked.values().filter(|acknowledged| **acknowledged).count();
        all.extend(asked);
    }
    ensure!(in_flight > 0, "no kill came in the middle of a creation");
    broker.restart()?;
    let there = check(&broker, &all).context("after all lives")?;
    println!(
        "       {kills} kills: {there} of {} topics are there; {in_flight} were not acknowledged, {made_unheard} of them are there",
        all.len()
    );
    broker.stop()
}

/// Several connections create one topic after another; at a random moment the broker is killed.
fn create_until_killed(broker: &mut Broker, life: u64) -> Result<Asked> {
    let asked = Arc::new(Mutex::new(Asked::new()));
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let mut creators = Vec::new();
    for connection in 0..CONNECTIONS {
        let subject = Subject::connect(broker)?;
        let (asked, acknowledged) = (Arc::clone(&asked), Arc::clone(&acknowledged));
        let prefix = format!("life-{life}-{connection}");
        creators.push(thread::spawn(move || create(subject, &prefix, &asked, &acknowledged)));
    }
    let mut random = SplitMix64::new(life);
    let enough = 1 + random.below(30);
    let earned = eventually(SETTLE_LIMIT, || {
        let done = creators.iter().all(thread::JoinHandle::is_finished);
        ensure!(!done, "no connection creates any more");
        Ok((acknowledged.load(Ordering::Relaxed) >= enough).then_some(()))
    });
    // Anywhere in the creation that comes next.
    thread::sleep(Duration::from_micros(random.below(4_000) as u64));
    broker.kill9()?;
    for creator in creators {
        creator.join().map_err(|_| anyhow!("a connection panicked"))??;
    }
    earned?;
    let asked = asked.lock().map_err(|_| anyhow!("a connection panicked"))?;
    Ok(asked.clone())
}

/// Ends when the broker does.
fn create(
    mut subject: Subject,
    prefix: &str,
    asked: &Mutex<Asked>,
    acknowledged: &AtomicUsize,
) -> Result<()> {
    let enter = |name: &str, acknowledged: bool| {
        let mut asked = asked.lock().map_err(|_| anyhow!("another connection panicked"))?;
        asked.insert(name.to_owned(), acknowledged);
        Ok::<_, anyhow::Error>(())
    };
    for number in 0.. {
        let name = format!("{prefix}-{number}");
        enter(&name, false)?;
        let Outcome::Answered(answer) = subject.ask(7, &creation(&name))? else { break };
        let code = answer.topics.first().context("the answer names no topic")?.error_code;
        ensure!(code == ErrorCode::NONE, "{name}: {code:?}");
        enter(&name, true)?;
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn creation(name: &str) -> CreateTopicsRequest {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: PARTITIONS,
        replication_factor: 1,
        ..Default::default()
    };
    CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() }
}

/// Gives the number of topics that are there: as a whole, with every partition ready to be written.
fn check(broker: &Broker, asked: &Asked) -> Result<usize> {
    let mut subject = Subject::connect(broker)?;
    let directories = partition_directories(broker)?;
    let mut there = Vec::new();
    for topic in topics(&mut subject, asked)? {
        let name = topic.name.as_deref().unwrap_or_default();
        let acknowledged = asked.get(name).context("a topic that nobody asked for")?;
        let found = directories.iter().filter(|(topic, _)| topic == name).count();
        if topic.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
            ensure!(!acknowledged, "{name} was acknowledged and is gone");
            ensure!(found == 0, "{name} is not there, and has {found} directories");
        } else {
            ensure!(topic.error_code == ErrorCode::NONE, "{name}: {:?}", topic.error_code);
            let partitions = topic.partitions.len();
            ensure!(
                partitions == usize::try_from(PARTITIONS)?,
                "{name} has {partitions} partitions"
            );
            there.push(name.to_owned());
        }
    }
    for name in &there {
        write_to_all(&mut subject, name)?;
    }
    // A directory is made when the broker takes its partition over, by the first write at the latest.
    let directories = partition_directories(broker)?;
    for name in &there {
        let found = directories.iter().filter(|(topic, _)| topic == name).count();
        ensure!(found == usize::try_from(PARTITIONS)?, "{name} has {found} directories");
    }
    Ok(there.len())
}

/// What the broker says of each topic, once it leads the partitions of those that exist.
fn topics(subject: &mut Subject, asked: &Asked) -> Result<Vec<MetadataResponseTopic>> {
    let named = |name: &String| MetadataRequestTopic {
        name: Some(name.as_str().into()),
        ..Default::default()
    };
    let request = MetadataRequest {
        topics: Some(asked.keys().map(named).collect()),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    eventually(SETTLE_LIMIT, || {
        let topics = subject.expect(12, &request)?.topics;
        let mut partitions = topics.iter().flat_map(|topic| &topic.partitions);
        let leads = partitions.all(|partition| partition.error_code == ErrorCode::NONE);
        Ok(leads.then_some(topics))
    })
    .context("waiting for a leader of each partition")
}

fn write_to_all(subject: &mut Subject, name: &str) -> Result<()> {
    let mut batch = BatchBuilder::new(Compression::None);
    batch.append(Timestamp(1_700_000_000_000), None, Some(b"written after the kill"), &[]);
    let batch = batch.build_bytes();
    let partition =
        |index| PartitionProduceData { index, records: Some(Records::Bytes(batch.clone())) };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: name.into(),
            partition_data: (0..PARTITIONS).map(partition).collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    eventually(SETTLE_LIMIT, || {
        let answer = subject.expect(9, &request)?;
        let written = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        let codes: Vec<ErrorCode> = written.map(|partition| partition.error_code).collect();
        let known = [ErrorCode::NONE, ErrorCode::NOT_LEADER_OR_FOLLOWER];
        ensure!(codes.iter().all(|code| known.contains(code)), "{name}: {codes:?}");
        Ok(codes.iter().all(|code| *code == ErrorCode::NONE).then_some(()))
    })
    .with_context(|| format!("{name} can't be written"))
}

/// Topics and partitions of the directories that hold partitions.
fn partition_directories(broker: &Broker) -> Result<Vec<(String, i32)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(broker.data_directory()).context("no data directory")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some((topic, partition)) = name.rsplit_once('-')
            && let Ok(partition) = partition.parse()
        {
            found.push((topic.to_owned(), partition));
        }
    }
    Ok(found)
}
