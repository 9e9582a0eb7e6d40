//! Which groups there are: every broker is asked for those that it coordinates.

use std::collections::BTreeMap;

use ottla_base::BrokerId;
use ottla_protocol::ApiKey;
use ottla_protocol::messages::ListGroupsRequest;
use ottla_protocol::messages::list_groups_response::ListedGroup as Listed;
use tokio::task::JoinSet;

use super::byte_strings;
use crate::admin::check;
use crate::client::{Client, Target, TopicFilter};
use crate::error::ClientError;

const FIRST_WITH_STATES: i16 = 4;
const FIRST_WITH_TYPES: i16 = 5;

/// What a group must be to be listed, in Kafka's words, whatever their case; empty lists let all through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupFilter {
    pub states: Vec<String>,
    pub types: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    pub id: String,
    /// `consumer`, `connect`, whatever its members call it; empty for a group that never had members.
    pub protocol_type: String,
    /// Old brokers do not tell.
    pub state: Option<String>,
    /// `classic`, `consumer`, `share` or `streams`; old brokers know only the first, and do not tell.
    pub kind: Option<String>,
    pub coordinator: BrokerId,
}

impl Client {
    /// All groups of the cluster, by their ids.
    ///
    /// # Errors
    /// When one of the brokers cannot be asked until the client's timeout, or refuses: nothing is told of the others'
    /// groups then.
    pub async fn list_groups(
        &self,
        filter: &GroupFilter,
    ) -> Result<BTreeMap<String, ListedGroup>, ClientError> {
        self.persist(|| self.list_groups_once(filter)).await
    }

    async fn list_groups_once(
        &self,
        filter: &GroupFilter,
    ) -> Result<BTreeMap<String, ListedGroup>, ClientError> {
        self.refresh(TopicFilter::None).await?;
        let mut requests = JoinSet::new();
        for broker in self.metadata().brokers.keys().copied() {
            let (client, filter) = (self.clone(), filter.clone());
            requests.spawn(async move { client.list_groups_of(broker, &filter).await });
        }
        let mut groups = BTreeMap::new();
        for listed in requests.join_all().await {
            groups.extend(listed?.into_iter().map(|group| (group.id.clone(), group)));
        }
        Ok(groups)
    }

    async fn list_groups_of(
        &self,
        broker: BrokerId,
        filter: &GroupFilter,
    ) -> Result<Vec<ListedGroup>, ClientError> {
        let target = Target::Broker(broker);
        let by_state = self.knows(target, ApiKey::ListGroups, FIRST_WITH_STATES).await?;
        let by_type = self.knows(target, ApiKey::ListGroups, FIRST_WITH_TYPES).await?;
        let where_known =
            |known: bool, texts: &[String]| byte_strings(if known { texts } else { &[] });
        let request = ListGroupsRequest {
            states_filter: where_known(by_state, &filter.states),
            types_filter: where_known(by_type, &filter.types),
        };
        let response = self.send(target, &request).await?;
        check(format!("listing the groups of broker {broker}"), response.error_code, None)?;
        Ok(response.groups.into_iter().map(|group| listed(group, broker)).collect())
    }
}

fn listed(group: Listed, coordinator: BrokerId) -> ListedGroup {
    let told = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ListedGroup {
        id: group.group_id.to_string(),
        protocol_type: group.protocol_type.to_string(),
        state: told(&group.group_state),
        kind: told(&group.group_type),
        coordinator,
    }
}
