//! `ottla group describe`: state, lag, members, and why the group last rebalanced.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use jiff::Timestamp;
use ottla_base::{Offset, TopicPartition};
use ottla_client::{
    Client, ClientError, Committed, GroupDescription, GroupFilter, GroupMember, Isolation,
    OffsetQuery, TopicFilter,
};
use serde::Serialize;

use super::{Failures, failure};
use crate::failure::{Failure, note};
use crate::output::{or_dash, print_json, print_line, printable, table};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ottla group describe inventory
  ottla group describe inventory --members
  ottla group describe --all-groups --output json | jq '.[] | {group, lag}'

LAG is how many records are behind the committed offset; a dash where that is not known. Apache
Kafka does not tell why a group last rebalanced; Ottla does, for as long as its coordinator runs.")]
pub struct DescribeGroupsArguments {
    /// One group or several
    #[arg(value_name = "GROUP", required_unless_present = "all_groups")]
    pub groups: Vec<String>,
    /// Every group there is
    #[arg(long, conflicts_with = "groups")]
    pub all_groups: bool,
    /// Show the members only
    #[arg(long)]
    pub members: bool,
    /// Show the offsets only
    #[arg(long, conflicts_with = "members")]
    pub offsets: bool,
}

#[derive(Debug, Serialize)]
struct GroupJson {
    group: String,
    state: String,
    #[serde(rename = "type")]
    kind: &'static str,
    protocol_type: String,
    assignor: Option<String>,
    coordinator: CoordinatorJson,
    last_rebalance: Option<RebalanceJson>,
    /// Of all partitions whose lag is known.
    /// Null where it is of none.
    lag: Option<i64>,
    partitions: Vec<PartitionJson>,
    members: Vec<MemberJson>,
}

#[derive(Debug, Serialize)]
struct CoordinatorJson {
    id: i32,
    host: Option<String>,
    port: Option<u16>,
}

#[derive(Debug, Serialize)]
struct RebalanceJson {
    /// Milliseconds since 1970, on the coordinator's clock.
    timestamp: i64,
    reason: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct PartitionJson {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    log_end: Option<i64>,
    lag: Option<i64>,
    metadata: Option<String>,
    member_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct MemberJson {
    member_id: String,
    instance_id: Option<String>,
    client_id: String,
    host: String,
    /// By topic; null when only the members know what was assigned to them.
    assignment: Option<BTreeMap<String, Vec<i32>>>,
}

pub(super) async fn run(
    client: &Client,
    arguments: &DescribeGroupsArguments,
    json: bool,
) -> Result<(), Failure> {
    let groups = if arguments.all_groups {
        // Those of other types cannot be described like this.
        let types = vec!["classic".to_owned(), "consumer".to_owned()];
        let filter = GroupFilter { types, ..GroupFilter::default() };
        client.list_groups(&filter).await?.into_keys().collect()
    } else {
        arguments.groups.clone()
    };
    let mut failures = Failures::default();
    let mut described = Vec::new();
    for group in &groups {
        match describe(client, group).await {
            Ok(group) => described.push(group),
            Err(error) => failures.add(failure(group, error)),
        }
    }
    if json {
        print_json(&described)?;
    } else if !described.is_empty() {
        let texts: Vec<_> = described.iter().map(|group| text(group, arguments)).collect();
        print_line(&texts.join("\n\n"))?;
    }
    failures.into_result()
}

async fn describe(client: &Client, group: &str) -> Result<GroupJson, ClientError> {
    let description = client.describe_group(group).await?;
    let committed = client.committed(group).await?;
    let assigned = description.members.iter().flat_map(|member| member.assignment.iter().flatten());
    let partitions: BTreeSet<_> = committed.keys().chain(assigned).cloned().collect();
    let ends = log_ends(client, &partitions).await;
    let broker = client.metadata().brokers.get(&description.coordinator).cloned();
    Ok(GroupJson {
        coordinator: CoordinatorJson {
            id: description.coordinator.0,
            host: broker.as_ref().map(|broker| broker.address.host.clone()),
            port: broker.as_ref().map(|broker| broker.address.port),
        },
        ..group_json(description, &committed, &ends)
    })
}

/// Where the partitions end; one that cannot be asked is told of, and missing.
async fn log_ends(
    client: &Client,
    partitions: &BTreeSet<TopicPartition>,
) -> BTreeMap<TopicPartition, Offset> {
    let topics: BTreeSet<&str> = partitions.iter().map(|partition| &*partition.topic).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    let mut ends = BTreeMap::new();
    if let Err(error) = client.refresh(TopicFilter::Named(&topics)).await {
        note(&format!("note: {error}"));
        return ends;
    }
    let metadata = client.metadata();
    let exists = |it: &&TopicPartition| {
        let topic = metadata.topics.get(&it.topic);
        topic.is_some_and(|topic| topic.partitions.contains_key(&it.partition.0))
    };
    let (there, gone): (Vec<_>, Vec<_>) = partitions.iter().partition(exists);
    for partition in gone {
        note(&format!("note: {partition} does not exist any more"));
    }
    let queries = there.into_iter().map(|it| (it.clone(), OffsetQuery::Latest)).collect();
    for (partition, listed) in client.list_offsets(queries, Isolation::ReadUncommitted).await {
        match listed {
            Ok(found) => ends.extend(found.map(|found| (partition, found.offset))),
            Err(error) => note(&format!("note: {error}")),
        }
    }
    ends
}

fn group_json(
    group: GroupDescription,
    committed: &BTreeMap<TopicPartition, Committed>,
    ends: &BTreeMap<TopicPartition, Offset>,
) -> GroupJson {
    let partitions = partitions(&group.members, committed, ends);
    GroupJson {
        group: group.id,
        state: group.state,
        kind: group.kind,
        protocol_type: group.protocol_type,
        assignor: Some(group.assignor).filter(|name| !name.is_empty()),
        coordinator: CoordinatorJson { id: group.coordinator.0, host: None, port: None },
        last_rebalance: group
            .last_rebalance
            .map(|it| RebalanceJson { timestamp: it.at.0, reason: it.reason }),
        lag: partitions.iter().filter_map(|it| it.lag).reduce(|sum, lag| sum + lag),
        partitions,
        members: group.members.into_iter().map(member_json).collect(),
    }
}

/// All that anybody has committed or is assigned.
fn partitions(
    members: &[GroupMember],
    committed: &BTreeMap<TopicPartition, Committed>,
    ends: &BTreeMap<TopicPartition, Offset>,
) -> Vec<PartitionJson> {
    let mut owners: BTreeMap<&TopicPartition, Option<&GroupMember>> =
        committed.keys().map(|partition| (partition, None)).collect();
    for member in members {
        for partition in member.assignment.iter().flatten() {
            owners.insert(partition, Some(member));
        }
    }
    let json = |(partition, owner): (&TopicPartition, Option<&GroupMember>)| {
        let committed = committed.get(partition);
        let offset = committed.map(|committed| committed.offset);
        let end = ends.get(partition).copied();
        PartitionJson {
            topic: partition.topic.to_string(),
            partition: partition.partition.0,
            committed: offset.map(|offset| offset.0),
            log_end: end.map(|end| end.0),
            lag: end.zip(offset).map(|(end, offset)| end - offset),
            metadata: committed.map(|it| it.metadata.clone()).filter(|it| !it.is_empty()),
            member_id: owner.map(|member| member.id.clone()),
        }
    };
    owners.into_iter().map(json).collect()
}

fn member_json(member: GroupMember) -> MemberJson {
    let by_topic = |partitions: Vec<TopicPartition>| {
        let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            topics.entry(partition.topic.to_string()).or_default().push(partition.partition.0);
        }
        topics
    };
    MemberJson {
        member_id: member.id,
        instance_id: member.instance_id,
        client_id: member.client_id,
        host: member.host,
        assignment: member.assignment.map(by_topic),
    }
}

fn text(group: &GroupJson, arguments: &DescribeGroupsArguments) -> String {
    let mut parts = vec![head(group, Timestamp::now().as_millisecond())];
    if !arguments.members {
        parts.push(if group.partitions.is_empty() {
            "Nothing is committed, and nothing assigned.".to_owned()
        } else {
            offsets(&group.partitions)
        });
    }
    if !arguments.offsets {
        parts.push(if group.members.is_empty() {
            "No members.".to_owned()
        } else {
            members(&group.members)
        });
    }
    parts.join("\n\n")
}

fn head(group: &GroupJson, now_ms: i64) -> String {
    let coordinator = match (&group.coordinator.host, group.coordinator.port) {
        (Some(host), Some(port)) => format!("{} ({host}:{port})", group.coordinator.id),
        _ => group.coordinator.id.to_string(),
    };
    let protocol = Some(&group.protocol_type).filter(|name| !name.is_empty());
    let mut lines = vec![
        format!("Group {}", printable(&group.group)),
        format!("  state           {}", group.state),
        format!("  type            {}", group.kind),
        format!("  protocol        {}", printable(&or_dash(protocol))),
        format!("  assignor        {}", printable(&or_dash(group.assignor.as_ref()))),
        format!("  coordinator     {coordinator}"),
        format!("  lag             {}", or_dash(group.lag)),
    ];
    if let Some(RebalanceJson { timestamp, reason }) = &group.last_rebalance {
        let ago = ago(now_ms - timestamp);
        lines.push(format!("  last rebalance  {ago}: {}", printable(reason)));
    }
    lines.join("\n")
}

/// In the largest unit of which there are two, or in seconds. Clocks differ: nothing is in the future.
fn ago(ms: i64) -> String {
    let seconds = (ms / 1000).max(0);
    let units = [(86_400, "days"), (3_600, "h"), (60, "min")];
    let fitting = units.into_iter().find(|(unit, _)| seconds >= 2 * unit);
    let (unit, name) = fitting.unwrap_or((1, "s"));
    format!("{} {name} ago", seconds / unit)
}

fn offsets(partitions: &[PartitionJson]) -> String {
    let row = |partition: &PartitionJson| {
        let PartitionJson { topic, partition, committed, log_end, lag, metadata, member_id } =
            partition;
        [
            topic.clone(),
            partition.to_string(),
            or_dash(*committed),
            or_dash(*log_end),
            or_dash(*lag),
            printable(&or_dash(member_id.as_ref())),
            printable(&or_dash(metadata.as_ref())),
        ]
    };
    let head = ["TOPIC", "PARTITION", "COMMITTED", "LOG-END", "LAG", "MEMBER", "METADATA"];
    table(head, partitions.iter().map(row).collect())
}

fn members(members: &[MemberJson]) -> String {
    let row = |member: &MemberJson| {
        [
            printable(&member.member_id),
            printable(&or_dash(member.instance_id.as_ref())),
            printable(&member.client_id),
            member.host.trim_start_matches('/').to_owned(),
            member.assignment.as_ref().map_or_else(|| "?".to_owned(), assignment),
        ]
    };
    let head = ["MEMBER", "INSTANCE", "CLIENT", "HOST", "ASSIGNMENT"];
    table(head, members.iter().map(row).collect())
}

/// `orders:0,1 payments:0`; a dash for nothing.
fn assignment(topics: &BTreeMap<String, Vec<i32>>) -> String {
    let topic = |(topic, partitions): (&String, &Vec<i32>)| {
        format!("{topic}:{}", crate::output::list(partitions))
    };
    let topics: Vec<_> = topics.iter().map(topic).collect();
    or_dash((!topics.is_empty()).then(|| topics.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_base::BrokerId;
    use ottla_client::LastRebalance;

    fn partition(index: i32) -> TopicPartition {
        TopicPartition::new("orders", index)
    }

    fn member(id: &str, indexes: &[i32]) -> GroupMember {
        GroupMember {
            id: id.to_owned(),
            instance_id: None,
            client_id: "shop".to_owned(),
            host: "/10.0.0.7".to_owned(),
            assignment: Some(indexes.iter().copied().map(partition).collect()),
        }
    }

    fn group() -> GroupJson {
        let description = GroupDescription {
            id: "inventory".to_owned(),
            kind: "classic",
            state: "Stable".to_owned(),
            coordinator: BrokerId(1),
            protocol_type: "consumer".to_owned(),
            assignor: "range".to_owned(),
            members: vec![member("a", &[0, 1])],
            last_rebalance: Some(LastRebalance {
                at: ottla_base::Timestamp(1_000),
                reason: "member b left".to_owned(),
            }),
        };
        let at = |offset, metadata: &str| Committed {
            offset: Offset(offset),
            metadata: metadata.to_owned(),
        };
        let committed = BTreeMap::from([(partition(0), at(7, "n")), (partition(2), at(4, ""))]);
        let ends = [(0, 9), (1, 5)].map(|(index, end)| (partition(index), Offset(end)));
        group_json(description, &committed, &ends.into())
    }

    #[test]
    fn the_lag_is_known_where_the_end_and_the_committed_offset_are() {
        let lags: Vec<_> = group().partitions.iter().map(|it| (it.partition, it.lag)).collect();
        assert_eq!(lags, [(0, Some(2)), (1, None), (2, None)]);
        assert_eq!(group().lag, Some(2));
    }

    #[test]
    fn a_partition_is_shown_with_its_member_also_before_anything_is_committed() {
        let expected = "\
TOPIC   PARTITION  COMMITTED  LOG-END  LAG  MEMBER  METADATA
orders  0          7          9        2    a       n
orders  1          -          5        -    a       -
orders  2          4          -        -    -       -";
        assert_eq!(offsets(&group().partitions), expected);
        let expected = "\
MEMBER  INSTANCE  CLIENT  HOST      ASSIGNMENT
a       -         shop    10.0.0.7  orders:0,1";
        assert_eq!(members(&group().members), expected);
    }

    #[test]
    fn why_it_last_rebalanced_is_told_where_the_broker_told_it() {
        let mut group = group();
        assert!(head(&group, 13_500).ends_with("  last rebalance  12 s ago: member b left"));
        group.last_rebalance = None;
        assert!(!head(&group, 13_500).contains("rebalance"));
    }

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        let told = [-5_000, 119_000, 121_000, 7_300_000, 172_800_000].map(ago);
        assert_eq!(told, ["0 s ago", "119 s ago", "2 min ago", "2 h ago", "2 days ago"]);
    }
}
