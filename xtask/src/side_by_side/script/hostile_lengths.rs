//! Every length in every request that Ottla serves, in every version, set to the largest that it can say, and to less
//! than nothing: what comes of it is what comes of it in Apache Kafka, memory stays flat, and the log names the peer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ottla_base::{ErrorCode, Timestamp};
use ottla_protocol::header::ResponseHeader;
use ottla_protocol::messages::ApiVersionsRequest;
use ottla_protocol::{ApiKey, Decoder, Message as _};
use ottla_records::{BatchBuilder, Compression};

use super::super::both::Both;
use super::super::codes::error_codes;
use super::super::connection::{Connection, Reply};
use super::super::shape::{self, Shape};
use super::super::subject::Subject;
use super::super::value::Value;
use super::{find_coordinator, init_producer_id, transactions};
use crate::protocol::schema::{Kind, Schema};

/// Both answer or hang up in a millisecond; what fails inside Apache Kafka is never answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How often a broker that was in a hurry is asked.
const TRIES: usize = 5;
/// The most that Ottla's resident memory may have risen above its beginning at any moment, thousands of requests
/// later. One believed length would cost gigabytes.
const GROWTH_MIB_MAX: f64 = 8.0;

pub(super) fn run(both: &mut Both) -> Result<()> {
    let tables = crate::protocol::tables()?;
    both.set_up(settle)?;
    let served = served(both.ottla())?;
    let witness = Witness::begin(both.ottla())?;
    let mut hung_up = BTreeMap::new();
    for (api, versions) in served {
        let conversation = Conversation::new(api, &tables)?;
        for version in versions {
            lie_about_each_length(both, &conversation, version, &mut hung_up)
                .with_context(|| format!("{api} v{version}"))?;
        }
    }
    witness.end(both.ottla(), &hung_up)
}

/// The first question for a coordinator or a producer id is answered with "not yet".
fn settle(subject: &mut Subject) -> Result<()> {
    find_coordinator::wait_for_a_coordinator(subject)?;
    transactions::wait_for_a_coordinator(subject)?;
    init_producer_id::wait_for_an_id(subject)
}

/// What Ottla advertises, so that an API added later is asked, too.
fn served(ottla: &mut Subject) -> Result<Vec<(ApiKey, RangeInclusive<i16>)>> {
    let request = ApiVersionsRequest {
        client_software_name: "xtask".into(),
        client_software_version: "1".into(),
    };
    let answer = ottla.expect(4, &request)?;
    let served = answer.api_keys.iter().map(|served| {
        let api = ApiKey::try_from(served.api_key)?;
        // Produce is advertised from version 0 on for the sake of old clients, and served from 3 on.
        let lowest = served.min_version.max(*api.versions().start());
        Ok((api, lowest..=served.max_version))
    });
    served.collect()
}

/// The tables of one API.
struct Conversation<'a> {
    api: ApiKey,
    request: &'a Schema,
    response: &'a Schema,
}

impl<'a> Conversation<'a> {
    fn new(api: ApiKey, tables: &'a [Schema]) -> Result<Self> {
        let table = |kind: Kind| {
            let found = tables.iter().find(|it| it.kind == kind && it.key == Some(api.key()));
            found.with_context(|| format!("{api} has no table for its {kind}"))
        };
        Ok(Self { api, request: table(Kind::Request)?, response: table(Kind::Response)? })
    }

    fn shape(&self, version: i16) -> Shape {
        let mut shape = shape::header(self.api.key(), version, self.api.is_flexible(version));
        shape::body(&mut shape, self.request, version, &batch());
        shape
    }

    fn seen(&self, reply: Reply, version: i16) -> Result<Value> {
        let frame = match reply {
            Reply::Closed => return Ok(Value::leaf("closed")),
            Reply::Nothing => return Ok(Value::leaf("no answer")),
            Reply::Frame(frame) => frame,
        };
        let mut input = Decoder::new(frame);
        let header_version = self.api.response_header_version(version);
        let header = ResponseHeader::decode(&mut input, header_version)?;
        ensure!(header.correlation_id == shape::CORRELATION_ID, "an answer to something else");
        let codes = error_codes(input.rest(), self.response, version)?;
        Ok(Value::List(codes.iter().map(Value::leaf).collect()))
    }
}

/// A sound batch, so that nothing is wrong but the length.
fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(Timestamp(1_700_000_000_000), Some(b"key"), Some(b"value"), &[]);
    builder.build_bytes().to_vec()
}

/// How often Ottla hung up on a peer: a port may come again.
type HungUp = BTreeMap<SocketAddr, usize>;

fn lie_about_each_length(
    both: &mut Both,
    conversation: &Conversation<'_>,
    version: i16,
    hung_up: &mut HungUp,
) -> Result<()> {
    let api = conversation.api;
    let shape = conversation.shape(version);
    let mut say = |what: &str, bytes: &[u8]| {
        both.observe(&format!("lengths {api} v{version}: {what}"), |subject, index| {
            let mut tries = 0;
            loop {
                let mut connection = subject.fresh_connection()?;
                let reply = exchange(&mut connection, bytes)?;
                if index == 1 && reply == Reply::Closed {
                    *hung_up.entry(connection.local_address()?).or_default() += 1;
                }
                let seen = conversation.seen(reply, version)?;
                tries += 1;
                if tries == TRIES || !is_late(&seen) {
                    return Ok(seen);
                }
            }
        })
    };
    say("all of them true", &shape.bytes)?;
    for length in &shape.lengths {
        for lie in length.lies() {
            say(&format!("{} is {} long", length.path, lie.said), &shape.with(length, &lie))?;
        }
    }
    Ok(())
}

/// Behind a lie everything is read as something else: a 1 may become a timeout of one millisecond.
fn is_late(answer: &Value) -> bool {
    let late = format!("ErrorCode={}", ErrorCode::REQUEST_TIMED_OUT.0);
    matches!(answer, Value::List(codes) if codes.iter().any(|code| {
        matches!(code, Value::Leaf(text) if text.ends_with(&late))
    }))
}

fn exchange(connection: &mut Connection, request: &[u8]) -> Result<Reply> {
    connection.wait_at_most(ANSWER_LIMIT)?;
    let length = i32::try_from(request.len())?.to_be_bytes();
    connection.send(&[&length, request].concat());
    connection.receive()
}

/// Looks at Ottla from outside: how much memory it takes, and what it says of its peers.
struct Witness {
    resident_mib: f64,
    log_bytes: u64,
}

impl Witness {
    fn begin(ottla: &Subject) -> Result<Self> {
        // From here on Linux counts the peak anew.
        std::fs::write(format!("/proc/{}/clear_refs", ottla.pid), "5")
            .context("the peak of the memory can't be forgotten")?;
        let log_bytes = std::fs::metadata(&ottla.log).context("Ottla has no log")?.len();
        Ok(Self { resident_mib: memory(ottla, "VmRSS:")?, log_bytes })
    }

    fn end(&self, ottla: &mut Subject, hung_up: &HungUp) -> Result<()> {
        served(ottla).context("Ottla does not serve any more")?;
        let peak = memory(ottla, "VmHWM:")?;
        let connections: usize = hung_up.values().sum();
        println!(
            "       Ottla hung up on {connections} peers; resident memory was {:.1} MiB and never above {peak:.1} MiB",
            self.resident_mib
        );
        ensure!(
            peak - self.resident_mib <= GROWTH_MIB_MAX,
            "memory rose from {:.1} to {peak:.1} MiB, and {GROWTH_MIB_MAX} MiB more were allowed",
            self.resident_mib
        );
        ensure!(connections > 0, "no connection was closed: the lengths were not lies");
        self.each_peer_is_named(ottla, hung_up)
    }

    /// One line for each connection that was closed, no more and no less.
    fn each_peer_is_named(&self, ottla: &Subject, hung_up: &HungUp) -> Result<()> {
        let log = std::fs::read(&ottla.log).context("Ottla's log can't be read")?;
        let since = log.get(usize::try_from(self.log_bytes)?..).unwrap_or_default();
        let since = String::from_utf8_lossy(since);
        let mut named = HungUp::new();
        for line in since.lines() {
            let (_, from) =
                line.split_once("peer=").with_context(|| format!("names no peer: {line}"))?;
            let peer = from.split(' ').next().unwrap_or_default();
            ensure!(line.contains("WARN"), "not a warning: {line}");
            *named.entry(peer.parse().with_context(|| line.to_owned())?).or_default() += 1;
        }
        for (peer, times) in hung_up {
            let lines = named.get(peer).copied().unwrap_or_default();
            ensure!(
                lines == *times,
                "Ottla hung up on {peer} {times} times and says so {lines} times"
            );
        }
        ensure!(named.len() == hung_up.len(), "the log names peers that were not hung up on");
        Ok(())
    }
}

pub(super) fn memory(subject: &Subject, field: &str) -> Result<f64> {
    crate::bench::procfs::mebibytes(&format!("/proc/{}/status", subject.pid), field)
}
