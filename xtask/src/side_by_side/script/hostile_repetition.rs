//! Requests that name one thing thousands of times, or thousands of things that nobody made: Ottla hangs up rather than
//! gather an answer of any size, and its memory stays in bounds. Apache Kafka answers until its heap is full, so that
//! it is not asked.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use bytestring::ByteString;
use ottla_base::Timestamp;
use ottla_protocol::Request;
use ottla_protocol::frame::encode_request;
use ottla_protocol::messages::describe_configs_request::DescribeConfigsResource;
use ottla_protocol::messages::describe_producers_request::TopicRequest;
use ottla_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ottla_protocol::messages::{
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeProducersRequest, JoinGroupRequest,
    ListConfigResourcesRequest,
};
use ottla_records::{BatchBuilder, Compression};

use super::super::both::Both;
use super::super::connection::{Connection, Reply};
use super::super::subject::Subject;
use super::describe_configs::{BROKER, GROUP, TOPIC};
use super::hostile_lengths::memory;
use super::{find_coordinator, produce_request};

const PREFIX: &str = "hostile-repetition";
/// The most that one request may take. An answer that is given up takes its 64 MiB, and its parts some times as much
/// before.
const GROWTH_MIB_MAX: f64 = 384.0;

pub(super) fn run(both: &mut Both) -> Result<()> {
    let ottla = both.ottla();
    for topic in 0..8 {
        ottla.create(&format!("{PREFIX}-{topic}"), 1, &[])?;
    }
    let mut bounds = Bounds(ottla);
    bounds.keep("ListConfigResources", &topics_a_million_times(), true)?;
    bounds.keep("DescribeConfigs of one broker", &configs(BROKER, 0..13_000), false)?;
    bounds.keep("DescribeConfigs of groups", &configs(GROUP, 0..100_000), false)?;
    write_with_an_identity(bounds.0)?;
    bounds.keep("DescribeProducers", &producers(2_000_000), false)?;
    let member = join_with_a_long_name(bounds.0)?;
    bounds.keep("DescribeGroups", &groups(10_000), false)?;
    drop(member);
    Ok(())
}

fn topics_a_million_times() -> ListConfigResourcesRequest {
    ListConfigResourcesRequest { resource_types: vec![TOPIC; 1_000_000] }
}

/// Groups have names of their own, a broker has one.
fn configs(resource_type: i8, numbers: Range<usize>) -> DescribeConfigsRequest {
    let resource = |number: usize| DescribeConfigsResource {
        resource_type,
        resource_name: if resource_type == BROKER { "1".into() } else { number.to_string().into() },
        configuration_keys: None,
    };
    DescribeConfigsRequest {
        resources: numbers.map(resource).collect(),
        include_synonyms: true,
        include_documentation: true,
    }
}

fn producers(times: usize) -> DescribeProducersRequest {
    let topic =
        TopicRequest { name: format!("{PREFIX}-0").into(), partition_indexes: vec![0; times] };
    DescribeProducersRequest { topics: vec![topic] }
}

fn groups(times: usize) -> DescribeGroupsRequest {
    DescribeGroupsRequest { groups: vec![PREFIX.into(); times], ..Default::default() }
}

/// A producer that the log remembers.
fn write_with_an_identity(ottla: &mut Subject) -> Result<()> {
    let mut batch = BatchBuilder::new(Compression::None).producer(1, 0, 0);
    batch.append(Timestamp(1_700_000_000_000), None, Some(b"value"), &[]);
    let topic = format!("{PREFIX}-0");
    let request = produce_request(ottla, 12, &topic, 0, Some(batch.build_bytes()));
    ottla.expect(12, &request).map(drop)
}

/// The longest client id that leaves room for the rest of a member's id, which begins with it.
fn join_with_a_long_name(ottla: &mut Subject) -> Result<Connection> {
    find_coordinator::wait_for_a_coordinator(ottla)?;
    let request = JoinGroupRequest {
        group_id: PREFIX.into(),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), ..Default::default() }],
        ..Default::default()
    };
    let mut connection = ottla.fresh_connection()?;
    send(&mut connection, "x".repeat(32_000), 3, &request)?;
    ottla.wait_for("the member to be there", |subject| {
        let described = subject.expect(5, &groups(1))?;
        Ok(described.groups.iter().any(|group| !group.members.is_empty()))
    })?;
    Ok(connection)
}

fn send<R: Request>(
    connection: &mut Connection,
    client: String,
    version: i16,
    request: &R,
) -> Result<()> {
    let frame = encode_request(version, 1, Some(ByteString::from(client)), request)?;
    connection.send(&frame.bytes);
    Ok(())
}

/// Looks at Ottla from outside: how much memory it takes.
struct Bounds<'a>(&'a mut Subject);

impl Bounds<'_> {
    /// Asks on a new connection; whether it `is_answered` is known.
    ///
    /// Memory that one request needed may stay with the process for a while, and what comes next may find another
    /// thread's part of it: what counts is what each adds.
    fn keep<R: Request>(&mut self, what: &str, request: &R, is_answered: bool) -> Result<()> {
        // From here on Linux counts the peak anew.
        std::fs::write(format!("/proc/{}/clear_refs", self.0.pid), "5")
            .context("the peak of the memory can't be forgotten")?;
        let before = memory(self.0, "VmRSS:")?;
        let mut connection = self.0.fresh_connection()?;
        send(&mut connection, "xtask".to_owned(), *R::KEY.stable_versions().end(), request)?;
        let reply = connection.receive().with_context(|| what.to_owned())?;
        let peak = memory(self.0, "VmHWM:")?;
        println!(
            "       {what}: resident memory was {before:.1} MiB and never above {peak:.1} MiB"
        );
        match reply {
            Reply::Frame(_) => ensure!(is_answered, "{what} was answered"),
            Reply::Closed => ensure!(!is_answered, "{what} was not answered"),
            Reply::Nothing => bail!("{what} was neither answered nor refused"),
        }
        ensure!(peak - before <= GROWTH_MIB_MAX, "{what} took {:.1} MiB", peak - before);
        Ok(())
    }
}
