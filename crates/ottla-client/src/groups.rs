//! Groups as administrators see them: found, listed, described and deleted; and what they have committed.

mod describe;
mod list;
mod offsets;

use bytestring::ByteString;
use ottla_base::{BrokerId, ErrorCode};
use ottla_protocol::messages::{DeleteGroupsRequest, FindCoordinatorRequest};

pub use describe::{GroupDescription, GroupMember, LastRebalance};
pub use list::{GroupFilter, ListedGroup};
pub use offsets::{Committed, Outcomes};
pub(crate) use offsets::{commit_request, commit_results};

use crate::admin::check;
use crate::client::{Client, Target, TopicFilter};
use crate::error::ClientError;

/// The type of a group whose members agree by JoinGroup and SyncGroup.
const CLASSIC: &str = "classic";
/// The type of a group whose coordinator assigns (KIP-848); also the protocol type of all consumers.
const CONSUMER: &str = "consumer";

impl Client {
    /// The broker that coordinates a group, asked for once.
    ///
    /// # Errors
    /// [`ClientError::Refused`] while there is none, or what has kept a broker from being asked.
    pub async fn coordinator(&self, group: &str) -> Result<BrokerId, ClientError> {
        const LAST_WITH_ONE_KEY: i16 = 3;
        // Of several types of coordinators, that of groups is the default.
        let request = FindCoordinatorRequest { key: group.into(), ..Default::default() };
        let found = self.send_at_most(Target::Any, &request, LAST_WITH_ONE_KEY).await?;
        let message = found.error_message.map(|message| message.to_string());
        check(format!("the coordinator of {}", quoted(group)), found.error_code, message)?;
        let id = BrokerId(found.node_id);
        if !self.metadata().brokers.contains_key(&id) {
            self.refresh(TopicFilter::None).await?;
        }
        Ok(id)
    }

    /// Ends a group that has no members, and forgets what it had committed.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with NON_EMPTY_GROUP or GROUP_ID_NOT_FOUND, or what has kept the coordinator from being
    /// asked until the client's timeout.
    pub async fn delete_group(&self, group: &str) -> Result<(), ClientError> {
        let request = DeleteGroupsRequest { groups_names: vec![group.into()] };
        let what = || format!("{} was not deleted", quoted(group));
        self.persist(|| async {
            let coordinator = Target::Broker(self.coordinator(group).await?);
            let response = self.send(coordinator, &request).await?;
            let result = response.results.first();
            let code = result.map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |result| result.error_code);
            check(what(), code, None)
        })
        .await
    }
}

/// A group as messages name it.
fn quoted(group: &str) -> String {
    format!("group \"{group}\"")
}

fn byte_strings(texts: &[impl AsRef<str>]) -> Vec<ByteString> {
    texts.iter().map(|text| ByteString::from(text.as_ref())).collect()
}
