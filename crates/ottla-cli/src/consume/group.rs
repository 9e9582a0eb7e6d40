//! `ottla consume --group`: one member of a group, on standard output.
//!
//! What is committed was written to standard output before, never after: a page's receipt comes back from the thread
//! that prints, after its flush, and only then is the page done with.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use jiff::ZonedDateTime;
use ottla_base::TopicPartition;
use ottla_client::{Batch, Client, ClientError, GroupConsumer, GroupOptions, GroupPolled, Receipt};
use tokio::sync::{mpsc, oneshot};

use super::print::{Page, Wanted, print_in_background};
use super::{ANSWERS_MAX, ConsumeArguments, LAST_WRITES, options, warn_of};
use crate::failure::{Failure, note};
use crate::output::reader_gone;
use crate::produce::interrupted;

/// The others wait this long for a member whose output nobody takes; it lets go in half of it.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(20);
const NOBODY_READS: &str = "nobody reads what it prints";
/// How long the last commit and the goodbye may take.
const LEAVE_MAX: Duration = Duration::from_secs(5);

pub(super) async fn run(
    client: Client,
    arguments: &ConsumeArguments,
    group: &str,
) -> Result<(), Failure> {
    // A mistake in the topic's name should not make a group.
    client.topic(&arguments.topic).await?;
    let group_options = GroupOptions {
        begin: arguments.from.position(&ZonedDateTime::now()),
        session_timeout: arguments.session_timeout,
        rebalance_timeout: REBALANCE_TIMEOUT,
        ahead_max: ANSWERS_MAX,
        consumer: options(arguments),
        ..GroupOptions::default()
    };
    let member = GroupConsumer::join(client, group, &[&arguments.topic], group_options);
    let (pages, written, printed) = print_in_background(arguments);
    let mut reading = Reading {
        group,
        member,
        pages: Some(pages),
        to_print: VecDeque::new(),
        written,
        wanted: Wanted::default(),
        lets_go: false,
        left: arguments.count.unwrap_or(u64::MAX),
        until_end: arguments.until_end,
    };
    let mut interrupted = std::pin::pin!(interrupted());
    let ended = tokio::select! {
        ended = reading.read() => Some(ended),
        () = reader_gone() => Some(Ok(NOBODY_READS)),
        () = &mut interrupted => None,
    };
    let printed = match ended {
        // However long it takes: what was read is printed before the end, or a failure, is told.
        Some(_) => tokio::select! {
            result = reading.print_rest(printed) => result,
            () = &mut interrupted => Ok(()),
        },
        None => {
            reading.to_print.clear();
            // What is on its way to the reader of a pipe may still arrive.
            let last = tokio::time::timeout(LAST_WRITES, reading.print_rest(printed)).await;
            last.unwrap_or(Ok(()))
        }
    };
    let why = match &ended {
        None => "interrupted",
        Some(Ok(why)) => why,
        Some(Err(_)) => "it failed",
    };
    reading.leave(why).await;
    ended.transpose()?;
    Ok(printed?)
}

struct Reading<'a> {
    group: &'a str,
    member: GroupConsumer,
    /// `None` once no more is to be printed.
    pages: Option<mpsc::Sender<Page>>,
    /// Read, and waiting for room on the way to standard output; bounded, since the member reads no further ahead.
    to_print: VecDeque<Page>,
    written: mpsc::UnboundedReceiver<Receipt>,
    /// Of the pages of the present assignment.
    wanted: Wanted,
    /// The group waits for us to print what we have.
    lets_go: bool,
    left: u64,
    until_end: bool,
}

impl Reading<'_> {
    /// Until there is a reason to leave.
    async fn read(&mut self) -> Result<&'static str, ClientError> {
        let Some(pages) = self.pages.clone() else { return Ok("it prints no more") };
        loop {
            if self.left == 0 {
                return Ok("it has read as much as it was to");
            }
            if self.until_end && self.member.has_reached_end() {
                return Ok("it has reached the end");
            }
            tokio::select! {
                () = pages.closed() => return Ok(NOBODY_READS),
                Ok(room) = pages.reserve(), if !self.to_print.is_empty() => {
                    if let Some(page) = self.to_print.pop_front() {
                        room.send(page);
                    }
                }
                Some(receipt) = self.written.recv() => self.on_written(receipt),
                polled = self.member.poll() => self.on_polled(polled?),
            }
        }
    }

    fn on_polled(&mut self, polled: GroupPolled) {
        match polled {
            GroupPolled::Assigned(partitions) => {
                self.drop_pages();
                note(&format!("note: group {}: {}", self.group, reads(&partitions)));
            }
            GroupPolled::Batch(batch) => self.take(batch),
            GroupPolled::Repositioned(repositioned) => warn_of(&repositioned),
            GroupPolled::Revoked => {
                self.lets_go = true;
                self.let_go_if_printed();
            }
            GroupPolled::Lost(reason) => {
                self.drop_pages();
                note(&format!(
                    "note: group {} has given this member's partitions to others ({reason}); \
                     records may be printed twice",
                    self.group
                ));
            }
        }
    }

    /// Others have the partitions, or it is to be begun anew where the group left off.
    fn drop_pages(&mut self) {
        self.lets_go = false;
        self.to_print.clear();
        self.wanted.give_up();
        self.wanted = Wanted::default();
    }

    fn take(&mut self, mut batch: Batch) {
        batch.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= u64::try_from(batch.records.len()).unwrap_or(self.left);
        // Also without records: in its partition, it is done after the pages before it.
        let receipt = Some(batch.receipt());
        self.to_print.push_back(Page {
            records: batch.records,
            receipt,
            wanted: self.wanted.clone(),
        });
    }

    fn on_written(&mut self, receipt: Receipt) {
        self.member.done(receipt);
        self.let_go_if_printed();
    }

    fn let_go_if_printed(&mut self) {
        if self.lets_go && self.member.is_done() {
            self.lets_go = false;
            self.member.let_go();
        }
    }

    /// May be dropped: what was written until then is known when leaving.
    async fn print_rest(&mut self, printed: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
        if let Some(pages) = self.pages.take() {
            while let Some(page) = self.to_print.pop_front() {
                if pages.send(page).await.is_err() {
                    break;
                }
            }
        }
        printed.await.map_err(|_| io::Error::other("printing failed"))?
    }

    /// Commits what was written.
    async fn leave(mut self, why: &str) {
        while let Ok(receipt) = self.written.try_recv() {
            self.member.done(receipt);
        }
        // The others find out in any case.
        let _ = tokio::time::timeout(LEAVE_MAX, self.member.leave(why)).await;
    }
}

/// What a member is about to do with its partitions, which are all of one topic.
fn reads(partitions: &[TopicPartition]) -> String {
    let numbers: Vec<_> = partitions.iter().map(|it| it.partition.to_string()).collect();
    match &*numbers {
        [] => "nothing to read, the other members have all partitions".to_owned(),
        [one] => format!("reading partition {one}"),
        several => format!("reading partitions {}", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_says_what_it_reads() {
        let said = |indexes: &[i32]| {
            let partitions: Vec<_> =
                indexes.iter().map(|index| TopicPartition::new("t", *index)).collect();
            reads(&partitions)
        };
        assert!(said(&[]).starts_with("nothing to read"));
        assert_eq!(said(&[3]), "reading partition 3");
        assert_eq!(said(&[0, 2]), "reading partitions 0, 2");
    }
}
