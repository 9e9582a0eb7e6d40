//! A controller without a vote asks for one (`controller.quorum.auto.join.enable`, KIP-853). The decision is pure, [`run`]
//! is a shell.
//!
//! Invariant: it never asks for a vote while another directory votes in this node's name; that one is removed first, as
//! it is in Apache Kafka: its disk is not there any more.

use std::sync::Arc;
use std::time::Duration;

use ottla_base::{ErrorCode, Uuid};
use ottla_protocol::messages::{
    AddRaftVoterRequest, ControllerRegistrationRequest, RemoveRaftVoterRequest,
    add_raft_voter_request,
};
use ottla_quorum::{Member, Quorum};

use crate::controller_channel::ControllerChannel;
use crate::peers::Purpose;

/// How long a controller leaves the others alone before it looks again.
const PAUSE: Duration = Duration::from_secs(1);

/// What a node asks for next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// The lost directory's vote to be taken away.
    Remove(Member),
    Add,
}

/// `voters` as this node knows them: none before it has heard from a leader.
fn wish(me: Member, voters: &[Member]) -> Option<Wish> {
    let by_directory = voters.iter().all(|voter| voter.directory_id != Uuid::ZERO);
    if voters.is_empty() || !by_directory || voters.contains(&me) {
        return None;
    }
    let lost = voters.iter().find(|voter| voter.id == me.id);
    Some(lost.map_or(Wish::Add, |lost| Wish::Remove(*lost)))
}

/// Looks, and asks whoever leads, until it is dropped.
pub(crate) async fn run(me: Member, quorum: Arc<Quorum>, controller: Arc<ControllerChannel>) {
    let mut refused = ErrorCode::NONE;
    loop {
        if let Some(wish) = wish(me, &quorum.voters()) {
            let cluster_id = quorum.image().cluster_id.to_string();
            let code = match wish {
                Wish::Remove(lost) => {
                    let request = removal(lost, cluster_id);
                    let answer = controller.ask(Purpose::Controller, request).await;
                    answer.map(|it| (it.error_code, it.error_message))
                }
                Wish::Add => {
                    let request = addition(me, cluster_id, quorum.controller_registration());
                    let answer = controller.ask(Purpose::Controller, request).await;
                    answer.map(|it| (it.error_code, it.error_message))
                }
            };
            match code {
                Ok((ErrorCode::NONE, _)) => {
                    tracing::info!(?wish, "this controller joins the voters")
                }
                Ok((code, message)) if code != refused => {
                    refused = code;
                    let why = message.unwrap_or_default();
                    tracing::info!(?wish, %code, %why, "this controller cannot join the voters yet");
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(?wish, %error, "asked in vain"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn removal(lost: Member, cluster_id: String) -> RemoveRaftVoterRequest {
    RemoveRaftVoterRequest {
        cluster_id: Some(cluster_id.into()),
        voter_id: lost.id.0,
        voter_directory_id: lost.directory_id,
    }
}

fn addition(
    me: Member,
    cluster_id: String,
    registration: ControllerRegistrationRequest,
) -> AddRaftVoterRequest {
    let listeners = registration.listeners.into_iter();
    AddRaftVoterRequest {
        cluster_id: Some(cluster_id.into()),
        timeout_ms: 0,
        voter_id: me.id.0,
        voter_directory_id: me.directory_id,
        listeners: listeners
            .map(|it| add_raft_voter_request::Listener {
                name: it.name,
                host: it.host,
                port: it.port,
            })
            .collect(),
        ack_when_committed: true,
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::BrokerId;

    use super::*;

    const fn member(id: i32, directory: u8) -> Member {
        Member { id: BrokerId(id), directory_id: Uuid([directory; 16]) }
    }

    #[test]
    fn a_controller_asks_for_its_own_vote_once_no_lost_directory_has_it() {
        let me = member(3, 3);
        for (voters, expected) in [
            (vec![], None),
            (vec![member(1, 0), member(2, 0)], None),
            (vec![member(1, 1), me], None),
            (vec![member(1, 1), member(2, 2)], Some(Wish::Add)),
            (vec![member(1, 1), member(3, 9)], Some(Wish::Remove(member(3, 9)))),
        ] {
            assert_eq!(wish(me, &voters), expected, "{voters:?}");
        }
    }
}
