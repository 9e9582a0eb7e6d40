//! `ottla group list`. How many members a group has, only its description tells.

use std::collections::BTreeMap;

use ottla_base::BrokerId;
use ottla_client::{Client, ClientError, GroupDescription, GroupFilter, ListedGroup};
use serde::Serialize;

use crate::failure::{Failure, note};
use crate::output::{or_dash, print_json, print_line, printable, table};

#[derive(Serialize)]
struct ListedJson {
    group: String,
    state: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    protocol_type: String,
    /// Null when the group is of a type that is not described here.
    members: Option<usize>,
    coordinator: i32,
}

pub(super) async fn run(
    client: &Client,
    states: Vec<String>,
    types: Vec<String>,
    json: bool,
) -> Result<(), Failure> {
    let filter = GroupFilter { states, types };
    let groups = client.list_groups(&filter).await?;
    let described = describe(client, &groups).await;
    let listed: Vec<_> = groups
        .into_values()
        .map(|group| join(group, &described))
        .filter(|group| passes(group, &filter))
        .collect();
    if json {
        return print_json(&listed);
    }
    if listed.is_empty() {
        let any = filter == GroupFilter::default();
        note(if any { "There are no groups yet." } else { "There is no such group." });
        return Ok(());
    }
    let row = |group: ListedJson| {
        [
            printable(&group.group),
            or_dash(group.state),
            or_dash(group.kind),
            or_dash(group.members),
            printable(&or_dash(Some(group.protocol_type).filter(|it| !it.is_empty()))),
            group.coordinator.to_string(),
        ]
    };
    let rows = listed.into_iter().map(row).collect();
    let head = ["GROUP", "STATE", "TYPE", "MEMBERS", "PROTOCOL", "COORDINATOR"];
    print_line(&table(head, rows))
}

/// Those of the types that we know how to describe, with one request to each coordinator.
async fn describe(
    client: &Client,
    groups: &BTreeMap<String, ListedGroup>,
) -> BTreeMap<String, GroupDescription> {
    let is_known =
        |group: &&ListedGroup| !matches!(group.kind.as_deref(), Some("share" | "streams"));
    let mut by_coordinator: BTreeMap<BrokerId, Vec<String>> = BTreeMap::new();
    for group in groups.values().filter(is_known) {
        by_coordinator.entry(group.coordinator).or_default().push(group.id.clone());
    }
    let mut described = BTreeMap::new();
    for (coordinator, ids) in by_coordinator {
        match client.describe_groups_at(coordinator, &ids).await {
            Ok(groups) => described.extend(groups.into_iter().filter_map(found)),
            Err(error) => note(&format!("note: members are not counted: {error}")),
        }
    }
    described
}

/// A group may have ended since it was listed.
fn found(
    (id, described): (String, Result<GroupDescription, ClientError>),
) -> Option<(String, GroupDescription)> {
    Some((id, described.ok()?))
}

fn join(group: ListedGroup, described: &BTreeMap<String, GroupDescription>) -> ListedJson {
    let description = described.get(&group.id);
    let kind = || description.map(|it| it.kind.to_owned());
    ListedJson {
        state: group.state.or_else(|| description.map(|it| it.state.clone())),
        kind: group.kind.or_else(kind),
        protocol_type: group.protocol_type,
        members: description.map(|it| it.members.len()),
        coordinator: group.coordinator.0,
        group: group.id,
    }
}

/// Old brokers do not filter.
fn passes(group: &ListedJson, filter: &GroupFilter) -> bool {
    let is_in = |names: &[String], name: &Option<String>| {
        let name = name.as_deref().unwrap_or_default();
        names.is_empty() || names.iter().any(|it| it.eq_ignore_ascii_case(name))
    };
    is_in(&filter.states, &group.state) && is_in(&filter.types, &group.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(state: Option<&str>) -> ListedJson {
        let described = GroupDescription {
            id: "g".to_owned(),
            kind: "classic",
            state: "Stable".to_owned(),
            coordinator: BrokerId(1),
            protocol_type: "consumer".to_owned(),
            assignor: "range".to_owned(),
            members: Vec::new(),
            last_rebalance: None,
        };
        let group = ListedGroup {
            id: "g".to_owned(),
            protocol_type: "consumer".to_owned(),
            state: state.map(str::to_owned),
            kind: None,
            coordinator: BrokerId(1),
        };
        join(group, &BTreeMap::from([("g".to_owned(), described)]))
    }

    #[test]
    fn what_a_list_does_not_say_the_description_does() {
        let group = listed(None);
        assert_eq!(group.state.as_deref(), Some("Stable"));
        assert_eq!(group.kind.as_deref(), Some("classic"));
        assert_eq!(listed(Some("Empty")).state.as_deref(), Some("Empty"));
    }

    #[test]
    fn a_filter_holds_also_where_the_broker_does_not_know_it() {
        let by = |states: &[&str], types: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
            passes(&listed(None), &GroupFilter { states: owned(states), types: owned(types) })
        };
        assert!(by(&[], &[]) && by(&["empty", "stable"], &["CLASSIC"]));
        assert!(!by(&["empty"], &[]) && !by(&[], &["share"]));
    }
}
