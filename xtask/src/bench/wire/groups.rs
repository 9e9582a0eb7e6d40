//! What group members and their coordinator say to each other, written by hand like the rest of the driver's
//! requests (pure).

use anyhow::{Result, bail};

use super::{Frame, Reader};

const SESSION_TIMEOUT_MS: i32 = 45_000;
const REBALANCE_TIMEOUT_MS: i32 = 300_000;
const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL: &str = "range";
/// To the topic `groups`, in version 0 of a consumer's own format. Kafka does not survive one that it cannot read: the
/// group never forms.
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x06groups\xff\xff\xff\xff";
const NULL: u8 = 0;

/// What a coordinator answers while it is not ready: not available, loading, not the coordinator.
const RETRIABLE: [i16; 3] = [14, 15, 16];

/// A member of a group, as its coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bench) struct Member {
    pub(in crate::bench) group: String,
    pub(in crate::bench) generation: i32,
    pub(in crate::bench) id: String,
}

/// The answer to JoinGroup.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::bench) enum Joined {
    /// Not yet: to be asked for again under this name.
    AsMember(String),
    Done {
        generation: i32,
        leader: String,
        id: String,
    },
}

/// FindCoordinator v4: of one group.
pub(in crate::bench) fn find_coordinator(group: &str) -> Vec<u8> {
    let mut frame = Frame::start(10, 4, true);
    frame.byte(0).array_of_one().string(group).no_tags();
    frame.finish()
}

/// Whether there is a coordinator.
pub(in crate::bench) fn coordinator_found(response: &[u8]) -> Result<bool> {
    let mut reader = Reader::after_flexible_header(response);
    reader.skip(4)?; // Throttle time.
    reader.expect_one("coordinator")?;
    reader.skip_string()?;
    reader.skip(4)?; // Node.
    reader.skip_string()?; // Host.
    reader.skip(4)?; // Port.
    is_ready(reader.i16()?, "FindCoordinator")
}

/// JoinGroup v9; a member without a name gets one.
pub(in crate::bench) fn join_group(group: &str, member_id: &str) -> Vec<u8> {
    let mut frame = Frame::start(11, 9, true);
    frame.string(group).i32(SESSION_TIMEOUT_MS).i32(REBALANCE_TIMEOUT_MS);
    frame.string(member_id).byte(NULL).string(PROTOCOL_TYPE);
    frame.array_of_one().string(PROTOCOL);
    frame.length(SUBSCRIPTION.len()).bytes(SUBSCRIPTION).no_tags();
    frame.byte(NULL).no_tags();
    frame.finish()
}

pub(in crate::bench) fn joined(response: &[u8]) -> Result<Joined> {
    const MEMBER_ID_REQUIRED: i16 = 79;
    let mut reader = Reader::after_flexible_header(response);
    reader.skip(4)?;
    let error = reader.i16()?;
    let generation = reader.i32()?;
    reader.skip_string()?; // Protocol type.
    reader.skip_string()?; // Protocol.
    let leader = reader.string()?;
    reader.skip(1)?; // Whether the leader need not assign anything.
    let id = reader.string()?;
    match error {
        MEMBER_ID_REQUIRED => Ok(Joined::AsMember(id)),
        0 => Ok(Joined::Done { generation, leader, id }),
        code => bail!("JoinGroup was refused with Kafka's error code {code}"),
    }
}

/// SyncGroup v5: the leader assigns something to itself, the others only ask.
pub(in crate::bench) fn sync_group(member: &Member, is_leader: bool) -> Vec<u8> {
    let mut frame = Frame::start(14, 5, true);
    member.write(&mut frame);
    frame.string(PROTOCOL_TYPE).string(PROTOCOL);
    if is_leader {
        frame.array_of_one().string(&member.id).string("what I read").no_tags();
    } else {
        frame.length(0);
    }
    frame.no_tags();
    frame.finish()
}

/// The answer to SyncGroup.
pub(in crate::bench) fn synced(response: &[u8]) -> Result<()> {
    let mut reader = Reader::after_flexible_header(response);
    reader.skip(4)?;
    reader.expect_no_error("SyncGroup")
}

/// Heartbeat v4.
pub(in crate::bench) fn heartbeat(member: &Member) -> Vec<u8> {
    let mut frame = Frame::start(12, 4, true);
    member.write(&mut frame);
    frame.no_tags();
    frame.finish()
}

/// The answer to Heartbeat.
pub(in crate::bench) fn heart_was_heard(response: &[u8]) -> Result<()> {
    let mut reader = Reader::after_flexible_header(response);
    reader.skip(4)?;
    reader.expect_no_error("Heartbeat")
}

/// LeaveGroup v5: everybody at once.
pub(in crate::bench) fn leave_group(group: &str, members: &[&Member]) -> Vec<u8> {
    let mut frame = Frame::start(13, 5, true);
    frame.string(group).length(members.len());
    for member in members {
        frame.string(&member.id).byte(NULL).byte(NULL).no_tags();
    }
    frame.no_tags();
    frame.finish()
}

/// The answer to LeaveGroup.
pub(in crate::bench) fn left(response: &[u8]) -> Result<()> {
    let mut reader = Reader::after_flexible_header(response);
    reader.skip(4)?;
    reader.expect_no_error("LeaveGroup")
}

/// OffsetCommit v9: the same offset of each of a topic's first partitions.
pub(in crate::bench) fn commit(
    member: &Member,
    topic: &str,
    partitions: i32,
    offset: i64,
) -> Vec<u8> {
    let mut frame = Frame::start(8, 9, true);
    member.write(&mut frame);
    frame.array_of_one().string(topic);
    frame.length(usize::try_from(partitions).unwrap_or(0));
    for partition in 0..partitions {
        frame.i32(partition).i64(offset).i32(-1).string("").no_tags();
    }
    frame.no_tags().no_tags();
    frame.finish()
}

/// The answer to OffsetCommit.
pub(in crate::bench) fn committed(response: &[u8]) -> Result<()> {
    let mut reader = Reader::after_flexible_header(response);
    reader.skip(4)?;
    reader.expect_one("topic")?;
    reader.skip_string()?;
    for _ in 1..reader.length()? {
        reader.skip(4)?;
        reader.expect_no_error("OffsetCommit")?;
        reader.expect_no_tags()?;
    }
    Ok(())
}

/// OffsetFetch v9: of the topic's first partition, for each of the groups.
pub(in crate::bench) fn fetch_offsets(groups: &[String], topic: &str) -> Vec<u8> {
    let mut frame = Frame::start(9, 9, true);
    frame.length(groups.len());
    for group in groups {
        frame.string(group).byte(NULL).i32(-1);
        frame.array_of_one().string(topic).array_of_one().i32(0).no_tags().no_tags();
    }
    frame.byte(0).no_tags();
    frame.finish()
}

/// The groups' offsets; `None` while the coordinator of one of them is not ready.
pub(in crate::bench) fn offsets_fetched(response: &[u8]) -> Result<Option<Vec<i64>>> {
    let mut reader = Reader::after_flexible_header(response);
    reader.skip(4)?;
    let mut offsets = Vec::new();
    for _ in 1..reader.length()? {
        reader.skip_string()?;
        for _ in 1..reader.length()? {
            reader.skip_string()?;
            reader.expect_one("partition")?;
            reader.skip(4)?;
            offsets.push(reader.i64()?);
            reader.skip(4)?; // Leader epoch.
            reader.skip_string()?;
            reader.expect_no_error("OffsetFetch")?;
            reader.expect_no_tags()?;
            reader.expect_no_tags()?;
        }
        if !is_ready(reader.i16()?, "OffsetFetch")? {
            return Ok(None);
        }
        reader.expect_no_tags()?;
    }
    Ok(Some(offsets))
}

fn is_ready(code: i16, api: &str) -> Result<bool> {
    match code {
        0 => Ok(true),
        code if RETRIABLE.contains(&code) => Ok(false),
        code => bail!("{api} was refused with Kafka's error code {code}"),
    }
}

impl Member {
    /// One that commits offsets and takes no part in a group's protocol.
    pub(in crate::bench) fn outsider(group: String) -> Self {
        Self { group, generation: -1, id: String::new() }
    }

    fn write(&self, frame: &mut Frame) {
        frame.string(&self.group).i32(self.generation).string(&self.id).byte(NULL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_from_an_answer_of_several_groups() {
        let mut frame = Frame(vec![0; 9]);
        frame.length(2);
        for (group, offset) in [("a", 7), ("b", 8)] {
            frame.string(group).array_of_one().string("t").array_of_one();
            frame.i32(0).i64(offset).i32(-1).string("").i16(0).no_tags().no_tags();
            frame.i16(0).no_tags();
        }
        assert_eq!(offsets_fetched(&frame.0).unwrap(), Some(vec![7, 8]));
    }

    #[test]
    fn a_coordinator_that_loads_is_asked_again() {
        let mut frame = Frame(vec![0; 9]);
        frame.array_of_one().string("a").length(0).i16(14).no_tags();
        assert_eq!(offsets_fetched(&frame.0).unwrap(), None);
        let end = frame.0.len() - 2;
        frame.0[end] = 30;
        offsets_fetched(&frame.0).unwrap_err();
    }
}
