//! The task behind a member: carries out what [`Membership`] decides, and brings it the answers. Shell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ottla_base::{BrokerId, Offset, TopicPartition};
use ottla_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupResponse,
};
use ottla_protocol::{ApiKey, Request};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::membership::{Command, Commit, Membership, Notice};
use crate::admin::check;
use crate::client::{Client, Target, TopicFilter};
use crate::error::ClientError;
use crate::groups::{Outcomes, commit_request, commit_results};
use crate::metadata::Topic;

/// A JoinGroup is answered when all members have joined or had their time to: Kafka's Java consumers take 5 minutes if
/// nobody tells them otherwise, however short our own time is.
const JOIN_MAX: Duration = Duration::from_secs(330);

/// What the application says.
#[derive(Debug)]
pub(super) enum Input {
    Done { assignment: u64, partition: TopicPartition, next_offset: Offset },
    Released { assignment: u64 },
    Leave { reason: String },
}

/// What happens: the application speaks, or a request is answered.
#[derive(Debug)]
enum Event {
    Input(Input),
    Joined(Result<JoinGroupResponse, ClientError>),
    Counted(Result<BTreeMap<Arc<str>, i32>, ClientError>),
    Synced(Result<SyncGroupResponse, ClientError>),
    Heartbeat { assignment: u64, result: Result<(), ClientError> },
    Committed { assignment: u64, result: Result<Outcomes, ClientError> },
    Left,
    TimePassed,
}

/// Where requests go.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    group: String,
    /// The application's.
    client: Client,
    /// The member's own: heartbeats must not wait behind a fetch. Apache Kafka answers the requests of a connection one
    /// after another.
    of_member: Client,
    coordinator: Arc<Mutex<Option<BrokerId>>>,
}

impl Requests {
    pub(super) fn new(client: Client, group: String) -> Self {
        let of_member = client.with_own_connections();
        Self { group, client, of_member, coordinator: Arc::default() }
    }

    async fn carry_out(self, command: Command) -> Option<Event> {
        Some(match command {
            Command::Join(request) => Event::Joined(self.join(&request).await),
            Command::Count(topics) => Event::Counted(self.count(&topics).await),
            Command::Sync(request) => Event::Synced(self.ask(&request).await),
            Command::Heartbeat { assignment, request } => {
                Event::Heartbeat { assignment, result: self.heartbeat(&request).await }
            }
            Command::Commit(commit) => Event::Committed {
                assignment: commit.assignment,
                result: self.commit(&commit).await,
            },
            Command::Leave(request) => {
                // Who does not hear of it will miss our heartbeats.
                let _ = self.leave(request).await;
                Event::Left
            }
            Command::ForgetCoordinator => {
                *self.known() = None;
                return None;
            }
            Command::Tell(_) => return None,
        })
    }

    fn known(&self) -> MutexGuard<'_, Option<BrokerId>> {
        self.coordinator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn coordinator(&self) -> Result<Target, ClientError> {
        if let Some(known) = *self.known() {
            return Ok(Target::Broker(known));
        }
        let found = self.of_member.coordinator(&self.group).await?;
        *self.known() = Some(found);
        Ok(Target::Broker(found))
    }

    async fn ask<R: Request>(&self, request: &R) -> Result<R::Response, ClientError> {
        let coordinator = self.coordinator().await?;
        self.of_member.send(coordinator, request).await
    }

    async fn join(&self, request: &JoinGroupRequest) -> Result<JoinGroupResponse, ClientError> {
        let time = self.of_member.options().request_timeout.max(JOIN_MAX);
        let coordinator = self.coordinator().await?;
        self.of_member.send_within(coordinator, request, time).await
    }

    async fn heartbeat(&self, request: &HeartbeatRequest) -> Result<(), ClientError> {
        let response = self.ask(request).await?;
        check(format!("staying in group \"{}\"", self.group), response.error_code, None)
    }

    async fn commit(&self, commit: &Commit) -> Result<Outcomes, ClientError> {
        let mut request = commit_request(&self.group, &commit.offsets, &self.client.metadata());
        request.member_id = commit.member_id.clone();
        request.generation_id_or_member_epoch = commit.generation;
        let response = self.ask(&request).await?;
        Ok(commit_results(&request, &response, &commit.offsets))
    }

    async fn leave(&self, mut request: LeaveGroupRequest) -> Result<(), ClientError> {
        const FIRST_WITH_SEVERAL_MEMBERS: i16 = 3;
        let coordinator = self.coordinator().await?;
        // Neither behind a fetch nor behind a JoinGroup: nobody should have to wait for somebody to leave.
        let client = self.client.with_own_connections();
        let several =
            client.knows(coordinator, ApiKey::LeaveGroup, FIRST_WITH_SEVERAL_MEMBERS).await?;
        if !several && let Some(member) = request.members.pop() {
            request.member_id = member.member_id;
        }
        client.send(coordinator, &request).await.map(drop)
    }

    /// Topics that do not exist are left out.
    async fn count(
        &self,
        topics: &BTreeSet<Arc<str>>,
    ) -> Result<BTreeMap<Arc<str>, i32>, ClientError> {
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        self.client.refresh(TopicFilter::Named(&names)).await?;
        let metadata = self.client.metadata();
        let found = topics.iter().filter_map(|topic| metadata.topics.get(topic));
        let count = |topic: &Topic| i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        Ok(found.map(|topic| (Arc::clone(&topic.name), count(topic))).collect())
    }
}

/// Runs until the member has left, has failed, or nobody listens.
pub(super) async fn run(
    mut membership: Membership,
    requests: Requests,
    mut inputs: mpsc::UnboundedReceiver<Input>,
    notices: mpsc::UnboundedSender<Result<Notice, ClientError>>,
) {
    let mut running = JoinSet::new();
    loop {
        for command in membership.take_commands() {
            match command {
                // An application that has stopped listening drops this task, too.
                Command::Tell(notice) => _ = notices.send(Ok(notice)),
                command => _ = running.spawn(requests.clone().carry_out(command)),
            }
        }
        if membership.is_over() {
            if let Some(failure) = membership.take_failure() {
                let _ = notices.send(Err(failure));
            }
            return;
        }
        let event = tokio::select! {
            Some(answered) = running.join_next() => answered.expect("a request does not panic"),
            Some(input) = inputs.recv() => Some(Event::Input(input)),
            () = until(membership.deadline()) => Some(Event::TimePassed),
        };
        if let Some(event) = event {
            apply(&mut membership, event, Instant::now());
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn apply(membership: &mut Membership, event: Event, now: Instant) {
    match event {
        Event::Input(Input::Done { assignment, partition, next_offset }) => {
            membership.on_done(now, assignment, partition, next_offset);
        }
        Event::Input(Input::Released { assignment }) => membership.on_released(now, assignment),
        Event::Input(Input::Leave { reason }) => membership.on_leave(now, &reason),
        Event::Joined(result) => membership.on_joined(now, result),
        Event::Counted(result) => membership.on_counted(now, result),
        Event::Synced(result) => membership.on_synced(now, result),
        Event::Heartbeat { assignment, result } => {
            membership.on_heartbeat(now, assignment, result);
        }
        Event::Committed { assignment, result } => {
            membership.on_committed(now, assignment, result);
        }
        Event::Left => membership.on_left(),
        Event::TimePassed => membership.on_time(now),
    }
}
