//! What voters send each other, byte by byte. Pure.
//!
//! All numbers are big-endian. A request:
//!
//! | bytes | |
//! | --- | --- |
//! | 2 | version of this format: 0 |
//! | 1 | what is asked: 0 a vote, 1 whether there would be one, 2 append entries, 3 take over the leadership, 4 a piece of a snapshot, 5 to be fed, 6 the same by a node that wants a vote |
//! | 2 + n | the cluster's id: its length, then UTF-8 |
//! | 4 | the sender's id |
//! | 4 + 16 | the receiver's id, and its log directory's; zero where that is not known |
//! | 1 + 4 | whether the sender's log still has its first entry, and its CRC |
//! | | what is asked for, as below, to the end of the frame |
//!
//! | asked | |
//! | --- | --- |
//! | vote, would-be vote | the candidate's *vote*, its last *place*, 1: whether the leader wants it |
//! | append | the leader's *vote*, the *place* before the first entry, the last committed *place*, then record batches as they are in the leader's log, each an entry |
//! | take over | the leader's *vote*, 4: the id of whoever is to lead, the leader's last *place* |
//! | piece | the leader's *vote*, 8: the snapshot's end offset, 4: its epoch, 8: its length, 8: where in it the piece begins, then the piece |
//! | be fed | 16: the sender's log directory, its *endpoints*; the receiver's id may be −1: whoever is there |
//!
//! A *vote* is 4: the term, 4: the candidate, 1: whether it was elected. A *place* in the log is 1: whether there is one,
//! then 4: its term, 8: its index. *Endpoints* are 1: how many, and for each the listener's name and the host (2 + n each),
//! and 2: the port.
//!
//! An answer is one byte that says what it is, and:
//!
//! | first byte | |
//! | --- | --- |
//! | 0 vote | the answering voter's *vote*, 1: granted or not, its last *place* |
//! | 1 appended | nothing more |
//! | 2 appended in part | the last *place* |
//! | 3 no such place before the first entry | nothing more |
//! | 4 there is a higher vote | that *vote* |
//! | 5 takes over | 1: whether it will try |
//! | 6 refused | 1: why, see [`Refusal`] |
//! | 7 has got | the answering voter's *vote*, 8: how much of the snapshot it has |
//! | 8 feeds the sender | nothing more |
//! | 9 does not lead | 4: the id of whoever does, −1 if that is not known, its *endpoints* |
//! | 10 feeds the sender | 1: why it has no vote: 1 it waits for another node, 2 there are enough |
//! | 11 does not feed the sender: it feeds another node of its id | nothing more |

use bytes::Bytes;
use bytestring::ByteString;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use ottla_base::{BrokerId, LeaderEpoch, Offset, Uuid};
use ottla_metadata::Endpoint;
use ottla_protocol::{Decoder, Encoder};
use ottla_records::{Batches, RawBatch};

use crate::quorum::growth::Wait;
use crate::raft::{Entry, LeaderId, LogId, TypeConfig, Vote, Voter, log_id};
use crate::snapshot::SnapshotId;
use crate::storage::format;

const VERSION: i16 = 0;

/// Who writes to whom. A request that does not fit the receiver is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) cluster_id: ByteString,
    pub(crate) sender: BrokerId,
    pub(crate) receiver: BrokerId,
    /// Zero where it is not known.
    pub(crate) receiver_directory: Uuid,
    /// The CRC of the first entry of the sender's log, if that is still there.
    pub(crate) origin: Option<u32>,
}

#[derive(Debug, Clone)]
pub(crate) enum Request {
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Append(AppendEntriesRequest<TypeConfig>),
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    Piece(Piece),
    /// To be sent what voters get, at this place.
    Observe {
        observer: Voter,
        wants_vote: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Vote(VoteResponse<TypeConfig>),
    Append(AppendEntriesResponse<TypeConfig>),
    TransferLeader {
        accepted: bool,
    },
    Refused(Refusal),
    /// All of it only when the snapshot is installed.
    HasGot {
        vote: Vote,
        len: u64,
    },
    Fed {
        /// Why the one who wants a vote has none, if there is something to say.
        wait: Option<Wait>,
    },
    /// Another node of the sender's id is fed.
    Taken,
    /// Another node leads.
    Leader {
        leader: Option<BrokerId>,
        endpoints: Vec<Endpoint>,
    },
}

/// A part of a snapshot, on its way from the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) vote: Vote,
    pub(crate) id: SnapshotId,
    /// Of the whole snapshot, in bytes.
    pub(crate) len: u64,
    pub(crate) position: u64,
    pub(crate) bytes: Bytes,
}

/// Why a voter does not listen to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("it belongs to another cluster")]
    Cluster,
    #[error("it has another id")]
    Receiver,
    #[error("its log is in another directory")]
    Directory,
    #[error("it does not know the sender as a voter")]
    Sender,
    #[error("its log has begun with other voters")]
    Origin,
    #[error("its log is empty, and a voter that is known by its id alone had one")]
    Empty,
}

/// Bytes that are not a request, or not an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error(transparent)]
    Malformed(#[from] ottla_protocol::Malformed),
    #[error(transparent)]
    TooLong(#[from] ottla_protocol::EncodeError),
    #[error(transparent)]
    Batch(#[from] ottla_records::BatchError),
    #[error(transparent)]
    Entry(#[from] format::FormatError),
    #[error("version {0} of a format of which only version 0 is known")]
    Version(i16),
    #[error("{0}")]
    Unexpected(&'static str),
}

type Result<T> = std::result::Result<T, WireError>;

pub(crate) fn encode_request(address: &Address, request: &Request) -> Result<Bytes> {
    let mut output = Encoder::new();
    output.i16(VERSION);
    output.i8(match request {
        Request::Vote(_) => 0,
        Request::PreVote(_) => 1,
        Request::Append(_) => 2,
        Request::TransferLeader(_) => 3,
        Request::Piece(_) => 4,
        Request::Observe { wants_vote: false, .. } => 5,
        Request::Observe { wants_vote: true, .. } => 6,
    });
    put_address(&mut output, address)?;
    match request {
        Request::Vote(vote) | Request::PreVote(vote) => {
            put_vote(&mut output, &vote.vote);
            put_place(&mut output, vote.last_log_id.as_ref())?;
            output.bool(vote.leadership_transfer);
        }
        Request::Append(append) => put_append(&mut output, append)?,
        Request::TransferLeader(transfer) => {
            put_vote(&mut output, transfer.from_leader());
            output.i32(*transfer.to_node_id());
            put_place(&mut output, transfer.last_log_id())?;
        }
        Request::Piece(piece) => {
            put_vote(&mut output, &piece.vote);
            output.i64(piece.id.end_offset.0);
            output.i32(piece.id.epoch.0);
            put_len(&mut output, piece.len)?;
            put_len(&mut output, piece.position)?;
            output.raw(&piece.bytes);
        }
        Request::Observe { observer, .. } => {
            output.uuid(observer.directory_id);
            put_endpoints(&mut output, &observer.endpoints)?;
        }
    }
    Ok(output.into_bytes())
}

/// Which voter has sent a request, by its own account; `None` where the bytes are no request.
#[must_use]
pub fn sender_of(request: &Bytes) -> Option<BrokerId> {
    head(&mut Decoder::new(request.clone())).ok().map(|(_, address)| address.sender)
}

/// In which epoch an answer to a request gives a vote; `None` where it gives none.
#[must_use]
pub fn vote_given(request: &Bytes, answer: &Bytes) -> Option<LeaderEpoch> {
    let Answer::Vote(answer) = decode_answer(answer.clone()).ok()? else { return None };
    let (_, Request::Vote(asked)) = decode_request(request.clone()).ok()? else { return None };
    answer.vote_granted.then_some(LeaderEpoch(asked.vote.leader_id().term))
}

/// What is asked, and who asks whom.
fn head(input: &mut Decoder) -> Result<(i8, Address)> {
    let version = input.i16()?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    Ok((input.i8()?, address(input)?))
}

pub(crate) fn decode_request(frame: Bytes) -> Result<(Address, Request)> {
    let mut input = Decoder::new(frame);
    let (kind, address) = head(&mut input)?;
    let request = match kind {
        0 => Request::Vote(vote_request(&mut input)?),
        1 => Request::PreVote(vote_request(&mut input)?),
        2 => return Ok((address, Request::Append(append(input)?))),
        4 => return Ok((address, Request::Piece(piece(input)?))),
        3 => {
            let (from, to) = (vote(&mut input)?, input.i32()?);
            let last = place(&mut input)?;
            Request::TransferLeader(TransferLeaderRequest::new(from, to, last))
        }
        5 | 6 => Request::Observe {
            observer: Voter { directory_id: input.uuid()?, endpoints: endpoints(&mut input)? },
            wants_vote: kind == 6,
        },
        _ => return Err(WireError::Unexpected("an unknown request")),
    };
    input.finish()?;
    Ok((address, request))
}

pub(crate) fn encode_answer(answer: &Answer) -> Result<Bytes> {
    let mut output = Encoder::new();
    match answer {
        Answer::Vote(it) => {
            output.i8(0);
            put_vote(&mut output, &it.vote);
            output.bool(it.vote_granted);
            put_place(&mut output, it.last_log_id.as_ref())?;
        }
        Answer::Append(AppendEntriesResponse::Success) => output.i8(1),
        Answer::Append(AppendEntriesResponse::PartialSuccess(last)) => {
            output.i8(2);
            put_place(&mut output, last.as_ref())?;
        }
        Answer::Append(AppendEntriesResponse::Conflict) => output.i8(3),
        Answer::Append(AppendEntriesResponse::HigherVote(vote)) => {
            output.i8(4);
            put_vote(&mut output, vote);
        }
        Answer::TransferLeader { accepted } => {
            output.i8(5);
            output.bool(*accepted);
        }
        Answer::Refused(refusal) => {
            output.i8(6);
            output.i8(match refusal {
                Refusal::Cluster => 0,
                Refusal::Receiver => 1,
                Refusal::Directory => 2,
                Refusal::Sender => 3,
                Refusal::Origin => 4,
                Refusal::Empty => 5,
            });
        }
        Answer::HasGot { vote, len: has_got } => {
            output.i8(7);
            put_vote(&mut output, vote);
            put_len(&mut output, *has_got)?;
        }
        Answer::Fed { wait: None } => output.i8(8),
        Answer::Fed { wait: Some(wait) } => {
            output.i8(10);
            output.i8(match wait {
                Wait::ForAnother => 1,
                Wait::Enough => 2,
            });
        }
        Answer::Taken => output.i8(11),
        Answer::Leader { leader, endpoints } => {
            output.i8(9);
            output.i32(leader.unwrap_or(BrokerId::NONE).0);
            put_endpoints(&mut output, endpoints)?;
        }
    }
    Ok(output.into_bytes())
}

pub(crate) fn decode_answer(frame: Bytes) -> Result<Answer> {
    let mut input = Decoder::new(frame);
    let answer = match input.i8()? {
        0 => {
            let (vote, granted) = (vote(&mut input)?, input.bool()?);
            Answer::Vote(VoteResponse::new(vote, place(&mut input)?, granted))
        }
        1 => Answer::Append(AppendEntriesResponse::Success),
        2 => Answer::Append(AppendEntriesResponse::PartialSuccess(place(&mut input)?)),
        3 => Answer::Append(AppendEntriesResponse::Conflict),
        4 => Answer::Append(AppendEntriesResponse::HigherVote(vote(&mut input)?)),
        5 => Answer::TransferLeader { accepted: input.bool()? },
        6 => Answer::Refused(refusal(input.i8()?)?),
        7 => Answer::HasGot { vote: vote(&mut input)?, len: len(&mut input)? },
        8 => Answer::Fed { wait: None },
        10 => Answer::Fed { wait: Some(wait(input.i8()?)?) },
        11 => Answer::Taken,
        9 => {
            let leader = Some(BrokerId(input.i32()?)).filter(|id| *id != BrokerId::NONE);
            Answer::Leader { leader, endpoints: endpoints(&mut input)? }
        }
        _ => return Err(WireError::Unexpected("an unknown answer")),
    };
    input.finish()?;
    Ok(answer)
}

fn wait(code: i8) -> Result<Wait> {
    match code {
        1 => Ok(Wait::ForAnother),
        2 => Ok(Wait::Enough),
        _ => Err(WireError::Unexpected("an unknown reason to wait")),
    }
}

fn refusal(code: i8) -> Result<Refusal> {
    match code {
        0 => Ok(Refusal::Cluster),
        1 => Ok(Refusal::Receiver),
        2 => Ok(Refusal::Directory),
        3 => Ok(Refusal::Sender),
        4 => Ok(Refusal::Origin),
        5 => Ok(Refusal::Empty),
        _ => Err(WireError::Unexpected("an unknown refusal")),
    }
}

fn put_address(output: &mut Encoder, address: &Address) -> Result<()> {
    output.string(&address.cluster_id, false)?;
    output.i32(address.sender.0);
    output.i32(address.receiver.0);
    output.uuid(address.receiver_directory);
    output.bool(address.origin.is_some());
    output.u32(address.origin.unwrap_or_default());
    Ok(())
}

fn address(input: &mut Decoder) -> Result<Address> {
    let cluster_id = input.string(false)?;
    let (sender, receiver) = (BrokerId(input.i32()?), BrokerId(input.i32()?));
    let receiver_directory = input.uuid()?;
    let (has_origin, origin) = (input.bool()?, input.u32()?);
    let origin = has_origin.then_some(origin);
    Ok(Address { cluster_id, sender, receiver, receiver_directory, origin })
}

/// A node has few addresses; more than this are not told.
const ENDPOINTS_MAX: usize = 16;

fn put_endpoints(output: &mut Encoder, endpoints: &[Endpoint]) -> Result<()> {
    let told = endpoints.get(..ENDPOINTS_MAX).unwrap_or(endpoints);
    output.i8(told.len().try_into().map_err(|_| WireError::Unexpected("too many endpoints"))?);
    for endpoint in told {
        output.string(&(*endpoint.listener).into(), false)?;
        output.string(&(*endpoint.host).into(), false)?;
        output.u16(endpoint.port);
    }
    Ok(())
}

fn endpoints(input: &mut Decoder) -> Result<Vec<Endpoint>> {
    let count = usize::try_from(input.i8()?).unwrap_or(usize::MAX);
    if count > ENDPOINTS_MAX {
        return Err(WireError::Unexpected("too many endpoints"));
    }
    let mut endpoint = || {
        Ok(Endpoint {
            listener: (*input.string(false)?).into(),
            host: (*input.string(false)?).into(),
            port: input.u16()?,
            security_protocol: 0,
        })
    };
    (0..count).map(|_| endpoint()).collect()
}

fn put_vote(output: &mut Encoder, vote: &Vote) {
    output.i32(vote.leader_id.term);
    output.i32(vote.leader_id.voted_for);
    output.bool(vote.committed);
}

fn vote(input: &mut Decoder) -> Result<Vote> {
    let leader_id = LeaderId { term: input.i32()?, voted_for: input.i32()? };
    Ok(Vote { leader_id, committed: input.bool()? })
}

fn put_place(output: &mut Encoder, place: Option<&LogId>) -> Result<()> {
    output.bool(place.is_some());
    let (term, index) = place.map_or((0, 0), |it| (**it.committed_leader_id(), it.index()));
    output.i32(term);
    output.i64(index.try_into().map_err(|_| WireError::Unexpected("an index out of bounds"))?);
    Ok(())
}

fn place(input: &mut Decoder) -> Result<Option<LogId>> {
    let (is_there, term, index) = (input.bool()?, input.i32()?, input.i64()?);
    let index = index.try_into().map_err(|_| WireError::Unexpected("a negative index"))?;
    Ok(is_there.then(|| log_id(term, index)))
}

fn put_len(output: &mut Encoder, len: u64) -> Result<()> {
    output.i64(len.try_into().map_err(|_| WireError::Unexpected("a length out of bounds"))?);
    Ok(())
}

fn len(input: &mut Decoder) -> Result<u64> {
    input.i64()?.try_into().map_err(|_| WireError::Unexpected("a negative length"))
}

fn piece(mut input: Decoder) -> Result<Piece> {
    let vote = vote(&mut input)?;
    let id = SnapshotId { end_offset: Offset(input.i64()?), epoch: LeaderEpoch(input.i32()?) };
    let (len, position) = (len(&mut input)?, len(&mut input)?);
    if id.end_offset <= Offset::ZERO || !(0..=vote.leader_id.term).contains(&id.epoch.0) {
        return Err(WireError::Unexpected("a snapshot that its leader can't have"));
    }
    let bytes = input.rest();
    if position.checked_add(bytes.len() as u64).is_none_or(|end| end > len) {
        return Err(WireError::Unexpected("a piece beyond its snapshot's end"));
    }
    Ok(Piece { vote, id, len, position, bytes })
}

fn vote_request(input: &mut Decoder) -> Result<VoteRequest<TypeConfig>> {
    let mut request = VoteRequest::new(vote(input)?, place(input)?);
    request.leadership_transfer = input.bool()?;
    Ok(request)
}

fn put_append(output: &mut Encoder, append: &AppendEntriesRequest<TypeConfig>) -> Result<()> {
    put_vote(output, &append.vote);
    put_place(output, append.prev_log_id.as_ref())?;
    put_place(output, append.leader_commit.as_ref())?;
    for entry in &append.entries {
        let in_log = entry.batch.as_ref();
        let batch = in_log.ok_or(WireError::Unexpected("an entry that is in no log yet"))?;
        output.raw(&batch.header().to_bytes());
        output.raw(batch.body());
    }
    Ok(())
}

fn append(mut input: Decoder) -> Result<AppendEntriesRequest<TypeConfig>> {
    let vote = vote(&mut input)?;
    let prev_log_id = place(&mut input)?;
    let leader_commit = place(&mut input)?;
    let mut batches = Batches::new(input.rest());
    let mut entries: Vec<Entry> = Vec::new();
    for batch in batches.by_ref() {
        let batch = batch?;
        let last = entries.last().map(|entry| entry.log_id).or(prev_log_id);
        let entry = format::entry(&batch, last.map_or(0, |last| last.index() + 1))?;
        check_order(&batch, &entry, last, entries.last(), &vote)?;
        entries.push(entry);
    }
    if !batches.remaining().is_empty() {
        return Err(WireError::Unexpected("a batch that is cut off"));
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

/// In a log, terms never fall, none is above its leader's, and offsets leave nothing out.
fn check_order(
    batch: &RawBatch,
    entry: &Entry,
    last: Option<LogId>,
    before: Option<&Entry>,
    leader: &Vote,
) -> Result<()> {
    if last > Some(entry.log_id)
        || batch.header().partition_leader_epoch > leader.leader_id.term
        || batch.header().partition_leader_epoch < 0
    {
        return Err(WireError::Unexpected("a batch of a wrong epoch"));
    }
    let next = before.and_then(|entry| entry.batch.as_ref()).map(|batch| batch.next_offset().0);
    if batch.header().next_offset() <= batch.header().base_offset
        || next.is_some_and(|next| next != batch.header().base_offset)
    {
        return Err(WireError::Unexpected("a batch at a wrong offset"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;
    use ottla_base::Timestamp;
    use ottla_records::{BatchBuilder, Compression};

    fn example_address() -> Address {
        Address {
            cluster_id: "cluster".into(),
            sender: BrokerId(1),
            receiver: BrokerId(2),
            receiver_directory: Uuid([7; 16]),
            origin: Some(0xfeed_beef),
        }
    }

    fn example_vote(committed: bool) -> Vote {
        Vote { leader_id: LeaderId { term: 3, voted_for: 1 }, committed }
    }

    /// An entry of one record at an offset, as it is in a log.
    fn entry_at(offset: i64, term: i32, index: u64) -> Entry {
        let mut builder =
            BatchBuilder::new(Compression::None).at(Offset(offset), LeaderEpoch(term));
        let record = ottla_metadata::MetadataRecord::from(ottla_protocol::records::NoOpRecord {});
        let value = ottla_metadata::record::encode(&record).unwrap();
        builder.append(Timestamp(5), None, Some(&value), &[]);
        let batch = RawBatch::parse(builder.build_bytes()).unwrap();
        format::entry(&batch, index).unwrap()
    }

    fn example_append() -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: example_vote(true),
            prev_log_id: Some(log_id(1, 4)),
            leader_commit: Some(log_id(1, 3)),
            entries: vec![entry_at(10, 1, 5), entry_at(11, 3, 6)],
        }
    }

    fn example_piece() -> Piece {
        let id = SnapshotId { end_offset: Offset(42), epoch: LeaderEpoch(2) };
        let bytes = Bytes::from_static(b"piece");
        Piece { vote: example_vote(true), id, len: 15, position: 10, bytes }
    }

    fn round_trip(request: Request) -> Request {
        let frame = encode_request(&example_address(), &request).unwrap();
        let (address, request) = decode_request(frame).unwrap();
        assert_eq!(address, example_address());
        request
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let mut asked = VoteRequest::new(example_vote(false), Some(log_id(2, 9)));
        asked.leadership_transfer = true;
        let Request::Vote(read) = round_trip(Request::Vote(asked.clone())) else { panic!() };
        assert_eq!(read, asked);

        let given = |granted| {
            let request =
                encode_request(&example_address(), &Request::Vote(asked.clone())).unwrap();
            let answer = VoteResponse::new(asked.vote, None, granted);
            vote_given(&request, &encode_answer(&Answer::Vote(answer)).unwrap())
        };
        assert_eq!(given(true), Some(LeaderEpoch(asked.vote.leader_id().term)));
        assert_eq!(given(false), None);

        let asked = VoteRequest::new(example_vote(false), None);
        let Request::PreVote(read) = round_trip(Request::PreVote(asked.clone())) else { panic!() };
        assert_eq!(read, asked);

        let asked = TransferLeaderRequest::new(example_vote(true), 2, Some(log_id(3, 9)));
        let request = Request::TransferLeader(asked.clone());
        let Request::TransferLeader(read) = round_trip(request) else { panic!() };
        assert_eq!(read, asked);

        let asked = example_piece();
        let Request::Piece(read) = round_trip(Request::Piece(asked.clone())) else { panic!() };
        assert_eq!(read, asked);

        let voter = Voter { directory_id: Uuid([9; 16]), endpoints: Vec::new() };
        for asked in [false, true] {
            let request = Request::Observe { observer: voter.clone(), wants_vote: asked };
            let Request::Observe { observer, wants_vote } = round_trip(request) else { panic!() };
            assert_eq!((observer, wants_vote), (voter.clone(), asked));
        }

        let asked = example_append();
        let Request::Append(read) = round_trip(Request::Append(asked.clone())) else { panic!() };
        assert_eq!((read.vote, read.prev_log_id), (asked.vote, asked.prev_log_id));
        assert_eq!((read.leader_commit, &read.entries), (asked.leader_commit, &asked.entries));
        let bytes = |entries: &[Entry]| -> Vec<_> {
            entries.iter().map(|entry| entry.batch.as_ref().unwrap().to_bytes()).collect()
        };
        assert_eq!(bytes(&read.entries), bytes(&asked.entries));
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let places = [None, Some(log_id(2, 9))];
        let votes =
            places.map(|place| Answer::Vote(VoteResponse::new(example_vote(true), place, true)));
        let parts =
            places.map(|place| Answer::Append(AppendEntriesResponse::PartialSuccess(place)));
        let others = [
            Answer::Append(AppendEntriesResponse::Success),
            Answer::Append(AppendEntriesResponse::Conflict),
            Answer::Append(AppendEntriesResponse::HigherVote(example_vote(false))),
            Answer::TransferLeader { accepted: true },
            Answer::TransferLeader { accepted: false },
            Answer::Refused(Refusal::Cluster),
            Answer::Refused(Refusal::Receiver),
            Answer::Refused(Refusal::Directory),
            Answer::Refused(Refusal::Sender),
            Answer::Refused(Refusal::Origin),
            Answer::Refused(Refusal::Empty),
            Answer::HasGot { vote: example_vote(true), len: 1 << 40 },
            Answer::Fed { wait: None },
            Answer::Fed { wait: Some(Wait::ForAnother) },
            Answer::Fed { wait: Some(Wait::Enough) },
            Answer::Taken,
            Answer::Leader { leader: None, endpoints: Vec::new() },
            Answer::Leader { leader: Some(BrokerId(3)), endpoints: Vec::new() },
        ];
        for answer in votes.into_iter().chain(parts).chain(others) {
            assert_eq!(decode_answer(encode_answer(&answer).unwrap()).unwrap(), answer);
        }
    }

    #[test]
    fn a_request_that_is_cut_or_changed_anywhere_is_an_error_and_never_other_entries() {
        let asked = example_append();
        let whole = encode_request(&example_address(), &Request::Append(asked.clone())).unwrap();
        let batches: usize =
            asked.entries.iter().map(|it| it.batch.as_ref().unwrap().size_in_bytes()).sum();
        let first = asked.entries[0].batch.as_ref().unwrap().size_in_bytes();
        let begin = whole.len() - batches;
        for cut in 0..whole.len() {
            let read = decode_request(whole.slice(..cut));
            // Between batches a frame may end: fewer entries were sent.
            assert_eq!(read.is_ok(), cut == begin || cut == begin + first, "cut at {cut}");
        }
        for at in begin..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0x40;
            assert!(decode_request(bytes.into()).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn entries_that_cannot_be_in_one_log_are_refused() {
        let with = |entries: Vec<Entry>| {
            let append = AppendEntriesRequest { entries, ..example_append() };
            decode_request(encode_request(&example_address(), &Request::Append(append)).unwrap())
        };
        assert!(with(vec![entry_at(10, 1, 5), entry_at(11, 1, 6)]).is_ok());
        assert!(with(vec![entry_at(10, 1, 5), entry_at(12, 1, 6)]).is_err(), "a hole");
        assert!(with(vec![entry_at(10, 3, 5), entry_at(11, 1, 6)]).is_err(), "a term that falls");
        assert!(with(vec![entry_at(10, 0, 5)]).is_err(), "a term below the entry before");
        assert!(with(vec![entry_at(10, 4, 5)]).is_err(), "a term above the leader's");
    }

    #[test]
    fn a_piece_that_can_be_of_no_snapshot_is_refused() {
        let with = |piece: Piece| {
            decode_request(encode_request(&example_address(), &Request::Piece(piece)).unwrap())
        };
        let of = |end_offset, epoch| SnapshotId {
            end_offset: Offset(end_offset),
            epoch: LeaderEpoch(epoch),
        };
        assert!(with(example_piece()).is_ok());
        for id in [of(0, 2), of(-5, 2), of(42, -1), of(42, 4)] {
            assert!(with(Piece { id, ..example_piece() }).is_err(), "{id:?}");
        }
        for (len, position) in [(14, 10), (0, 0), (15, 11), (15, 1 << 62)] {
            assert!(with(Piece { len, position, ..example_piece() }).is_err());
        }
        let whole = encode_request(&example_address(), &Request::Piece(example_piece())).unwrap();
        for cut in 0..whole.len() - 5 {
            assert!(decode_request(whole.slice(..cut)).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_entry_that_is_in_no_log_cannot_be_sent() {
        let entries = vec![Entry::new(log_id(1, 5), EntryPayload::Blank)];
        let append = AppendEntriesRequest { entries, ..example_append() };
        assert!(encode_request(&example_address(), &Request::Append(append)).is_err());
    }
}
