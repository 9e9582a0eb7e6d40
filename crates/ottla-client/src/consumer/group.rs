//! Reads topics as one of a group: the members share the partitions, and each goes on where the group left off.
//!
//! A task lives the membership ([`membership`] decides, [`task`] does), so that heartbeats go out whatever the
//! application is busy with. Nothing is committed that the application has not said it is done with: what was read
//! and not yet done when a member dies is read again, by whoever comes after it.
//!
//! What is absent: static members, assignors but `range`, regular expressions for topics, and a limit to how long an
//! application may be busy with what it has got. While it is, its session lives.

mod membership;
mod progress;
mod range;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ottla_base::{ErrorCode, Offset, TopicPartition};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::membership::{Membership, Notice, Settings};
pub(crate) use self::range::assignment_in;
use self::task::{Input, Requests};
use super::{ConsumedRecord, Consumer, ConsumerOptions, Polled, Position, Repositioned};
use crate::client::{Client, TopicFilter};
use crate::error::ClientError;
use crate::retry::Patience;

#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// Where reading begins in partitions where nothing is committed.
    pub begin: Position,
    /// How long the coordinator may not hear of a member before it counts as dead.
    pub session_timeout: Duration,
    /// How long the others wait for a member to let go of what it has; it is asked to in half of it.
    pub rebalance_timeout: Duration,
    /// The least time between two commits.
    pub commit_interval: Duration,
    /// Batches that may be handed out before the first of them is done.
    pub ahead_max: usize,
    pub consumer: ConsumerOptions,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            begin: Position::Earliest,
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(60),
            commit_interval: Duration::from_secs(1),
            ahead_max: 2,
            consumer: ConsumerOptions::default(),
        }
    }
}

/// How often the leader of a group looks whether topics have got more partitions.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(30);

/// What [`GroupConsumer::poll`] has to say.
#[derive(Debug)]
pub enum GroupPolled {
    /// These are this member's from now on, and read.
    Assigned(Vec<TopicPartition>),
    Batch(Batch),
    Repositioned(Repositioned),
    /// The group is about to share its partitions anew. Nothing more of the present ones is handed out: be done with
    /// what you have, or drop it, then call [`GroupConsumer::let_go`].
    Revoked,
    /// The group has given the partitions to others already, for this reason: drop what you have.
    Lost(String),
}

/// Records of one partition, in order; perhaps none, when all that was passed is hidden.
#[derive(Debug)]
pub struct Batch {
    pub partition: TopicPartition,
    pub records: Vec<ConsumedRecord>,
    assignment: u64,
    next_offset: Offset,
}

/// That a batch is done with, and all before it in its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    assignment: u64,
    partition: TopicPartition,
    next_offset: Offset,
}

impl Batch {
    /// Keeps the first records only: the group goes on after them.
    pub fn truncate(&mut self, records: usize) {
        if let Some(next) = self.records.get(records) {
            self.next_offset = Offset(next.offset);
            self.records.truncate(records);
        }
    }

    #[must_use]
    pub fn receipt(&self) -> Receipt {
        Receipt {
            assignment: self.assignment,
            partition: self.partition.clone(),
            next_offset: self.next_offset,
        }
    }
}

/// One member of a group. Dropped, it is gone without a word: the others wait for its session to end.
#[derive(Debug)]
pub struct GroupConsumer {
    client: Client,
    group: String,
    options: GroupOptions,
    inputs: mpsc::UnboundedSender<Input>,
    notices: mpsc::UnboundedReceiver<Result<Notice, ClientError>>,
    task: JoinHandle<()>,
    assignment: u64,
    /// Assigned, and not opened yet.
    to_open: Option<Vec<TopicPartition>>,
    consumer: Option<Consumer>,
    /// Batches that were handed out and are not done.
    ahead: usize,
}

impl GroupConsumer {
    /// Begins to join; what comes of it, [`GroupConsumer::poll`] tells.
    ///
    /// # Panics
    /// If the name of a topic is longer than any that Kafka knows (32767 bytes).
    #[must_use]
    pub fn join(client: Client, group: &str, topics: &[&str], options: GroupOptions) -> Self {
        let settings = Settings {
            group: group.to_owned(),
            topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
            session_timeout: options.session_timeout,
            rebalance_timeout: options.rebalance_timeout,
            commit_interval: options.commit_interval,
            recount_interval: RECOUNT_INTERVAL,
            patience: client.options().timeout,
        };
        let (inputs, of_application) = mpsc::unbounded_channel();
        let (to_application, notices) = mpsc::unbounded_channel();
        let requests = Requests::new(client.clone(), group.to_owned());
        let membership = Membership::new(settings, Instant::now());
        let task = tokio::spawn(task::run(membership, requests, of_application, to_application));
        Self {
            client,
            group: group.to_owned(),
            options,
            inputs,
            notices,
            task,
            assignment: 0,
            to_open: None,
            consumer: None,
            ahead: 0,
        }
    }

    /// The next thing that happens, whenever that is. May be dropped and called again: nothing is lost.
    ///
    /// # Errors
    /// When the group refuses the member, could not be reached for longer than the client's timeout, or what is
    /// assigned cannot be read.
    pub async fn poll(&mut self) -> Result<GroupPolled, ClientError> {
        loop {
            let may_read = self.ahead < self.options.ahead_max;
            tokio::select! {
                biased;
                notice = self.notices.recv() => {
                    if let Some(change) = self.noticed(notice)? {
                        return Ok(change);
                    }
                }
                opened = open(&self.client, &self.group, &self.options, self.to_open.as_deref()) => {
                    self.consumer = Some(opened?);
                    return Ok(GroupPolled::Assigned(self.to_open.take().unwrap_or_default()));
                }
                polled = poll(self.consumer.as_mut()), if may_read => {
                    return Ok(self.hand_out(polled?));
                }
            }
        }
    }

    /// `None`, when there is nothing to say about it yet.
    fn noticed(
        &mut self,
        notice: Option<Result<Notice, ClientError>>,
    ) -> Result<Option<GroupPolled>, ClientError> {
        let ended = || ClientError::refused("the member has left", ErrorCode::UNKNOWN_MEMBER_ID);
        self.close();
        Ok(match notice.ok_or_else(ended)?? {
            Notice::Assigned { assignment, partitions } => {
                self.assignment = assignment;
                self.ahead = 0;
                self.to_open = Some(partitions);
                None
            }
            Notice::Revoked => Some(GroupPolled::Revoked),
            Notice::Lost { reason } => {
                self.ahead = 0;
                Some(GroupPolled::Lost(reason))
            }
        })
    }

    /// Stops reading.
    fn close(&mut self) {
        self.consumer = None;
        self.to_open = None;
    }

    fn hand_out(&mut self, polled: Polled) -> GroupPolled {
        match polled {
            Polled::Repositioned(repositioned) => GroupPolled::Repositioned(repositioned),
            Polled::Records(fetched) => {
                self.ahead += 1;
                GroupPolled::Batch(Batch {
                    partition: fetched.partition,
                    records: fetched.records,
                    assignment: self.assignment,
                    next_offset: fetched.next_offset,
                })
            }
        }
    }

    /// A batch is done with: the group will not read it again once this is committed. Batches of a partition are to be
    /// done in order. Of an assignment that has passed it means nothing.
    pub fn done(&mut self, receipt: Receipt) {
        let Receipt { assignment, partition, next_offset } = receipt;
        if assignment == self.assignment {
            self.ahead = self.ahead.saturating_sub(1);
        }
        self.say(Input::Done { assignment, partition, next_offset });
    }

    /// Whether all that was handed out of the present assignment is done with.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ahead == 0
    }

    /// After [`GroupPolled::Revoked`]: others may have the partitions.
    pub fn let_go(&mut self) {
        self.say(Input::Released { assignment: self.assignment });
    }

    /// Whether all that the partitions of this member held when reading them began was handed out.
    #[must_use]
    pub fn has_reached_end(&self) -> bool {
        self.consumer.as_ref().is_some_and(Consumer::has_reached_end)
    }

    /// Commits what is done, and leaves; the reason is for whoever describes the group. A coordinator that does not
    /// answer is waited for as long as its answers are: limit it.
    pub async fn leave(mut self, reason: &str) {
        self.close();
        self.say(Input::Leave { reason: reason.to_owned() });
        // Whatever else it still has to say is not of interest any more.
        while self.notices.recv().await.is_some() {}
    }

    /// A task that is gone has said why, and poll tells.
    fn say(&self, input: Input) {
        let _ = self.inputs.send(input);
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Never, without a consumer.
async fn poll(consumer: Option<&mut Consumer>) -> Result<Polled, ClientError> {
    match consumer {
        Some(consumer) => consumer.poll().await,
        None => std::future::pending().await,
    }
}

/// Begins to read where the group left off. Never, without partitions.
async fn open(
    client: &Client,
    group: &str,
    options: &GroupOptions,
    partitions: Option<&[TopicPartition]>,
) -> Result<Consumer, ClientError> {
    let Some(partitions) = partitions else { return std::future::pending().await };
    learn_of(client, partitions).await?;
    let committed = client.committed_in(group, partitions).await?;
    let position = |partition: &TopicPartition| match committed.get(partition) {
        Some(committed) => Position::At(committed.offset),
        None => options.begin,
    };
    let positions: BTreeMap<_, _> =
        partitions.iter().map(|partition| (partition.clone(), position(partition))).collect();
    Consumer::assign(client.clone(), positions, options.consumer.clone()).await
}

/// The leader may know of partitions that are too new for us to have heard of.
async fn learn_of(client: &Client, partitions: &[TopicPartition]) -> Result<(), ClientError> {
    let topics: BTreeSet<&str> = partitions.iter().map(|partition| &*partition.topic).collect();
    let topics: Vec<&str> = topics.into_iter().collect();
    let mut patience = Patience::new(client.options().timeout);
    loop {
        client.refresh(TopicFilter::Named(&topics)).await?;
        let metadata = client.metadata();
        let is_known =
            |it: &&TopicPartition| metadata.partition(&it.topic, it.partition.0).is_some();
        match partitions.iter().find(|partition| !is_known(partition)) {
            Some(unknown) if !patience.pause().await => {
                return Err(ClientError::NoSuchPartition(unknown.clone()));
            }
            Some(_) => {}
            None => return Ok(()),
        }
    }
}
