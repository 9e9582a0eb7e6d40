//! How static voters whose directories are all empty agree on one cluster at their first start. Pure, but for [`form`].
//!
//! Every voter asks all others where they stand, and goes on by [`next_step`]:
//!
//! 1. The voter with the lowest id draws the cluster's id, once all others have said that their directories are empty.
//! 2. The others adopt it from whoever has it. An empty voter that has not heard from *all* others adopts nothing: one
//!    of those that are silent may know that this voter's disk was wiped.
//! 3. Whoever has formatted its directories is *forming*, which a file notes, and casts no vote before it has seen all
//!    others formatted, or one of them past this point. Then it is *formed*, for good.
//!
//! So when a voter is formed, no voter is empty unless its disk was wiped since. Such a voter finds somebody formed,
//! and is refused: it has forgotten its votes and the records that it has acknowledged, and must not vote as if it had
//! not. How they ask is in [`network`]. Invariant: a voter that comes back empty takes part only if nobody else was formed when it was wiped.

pub(crate) mod network;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use anyhow::bail;
use futures_util::future::join_all;
use ottla_base::BrokerId;
pub(crate) use ottla_broker::Standing;
use ottla_config::{BrokerConfig, Voter};
use tokio::sync::watch;
use tracing::info;

use crate::data_directory::{self, Stamp};

/// What a voter does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Format with a new cluster id.
    Draw,
    /// Format with this one.
    Adopt(String),
    /// Take part in the quorum.
    Begin,
    /// Ask again: these have not answered, or not come so far.
    Wait(Vec<BrokerId>),
    Refuse(Refusal),
}

/// Why a voter can't take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Wiped { formed: BrokerId, cluster_id: String },
    Disagree { one: (BrokerId, String), other: (BrokerId, String) },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wiped { formed, cluster_id } => write!(
                f,
                "the data directory is empty, but controller {formed} already belongs to cluster {cluster_id}: is the \
                 disk mounted? A controller that has lost its data may have lost what it has acknowledged; only if the \
                 others have all of it, format this one"
            ),
            Self::Disagree { one, other } => write!(
                f,
                "controller {} belongs to cluster {}, but controller {} to cluster {}: controller.quorum.voters names \
                 nodes of two clusters",
                one.0, one.1, other.0, other.1
            ),
        }
    }
}

/// Decides from what all others have answered; `None` is no answer.
pub(crate) fn next_step(
    me: BrokerId,
    mine: &Standing,
    others: &BTreeMap<BrokerId, Option<Standing>>,
) -> Step {
    let answered = || others.iter().filter_map(|(id, it)| Some((*id, it.as_ref()?)));
    let formed = answered().find_map(|(id, it)| match it {
        Standing::Formed(cluster_id) => Some((id, cluster_id)),
        Standing::Empty | Standing::Forming(_) => None,
    });
    let clusters = || answered().filter_map(|(id, it)| Some((id, it.cluster_id()?.to_owned())));
    let first = mine.cluster_id().map(|id| (me, id.to_owned())).or_else(|| clusters().next());
    if let Some(one) = &first
        && let Some(other) = clusters().find(|other| other.1 != one.1)
    {
        return Step::Refuse(Refusal::Disagree { one: one.clone(), other });
    }
    match (mine, formed) {
        (Standing::Formed(_), _) | (Standing::Forming(_), Some(_)) => Step::Begin,
        (Standing::Empty, Some((formed, cluster_id))) => {
            Step::Refuse(Refusal::Wiped { formed, cluster_id: cluster_id.clone() })
        }
        (Standing::Forming(_), None) => {
            match waiting(others, |it| matches!(it, None | Some(Standing::Empty))) {
                Some(wait) => wait,
                None => Step::Begin,
            }
        }
        (Standing::Empty, None) => match (waiting(others, Option::is_none), first) {
            (Some(wait), _) => wait,
            (None, Some((_, cluster_id))) => Step::Adopt(cluster_id),
            (None, None) => match others.keys().next().filter(|lowest| **lowest < me) {
                Some(lowest) => Step::Wait(vec![*lowest]),
                None => Step::Draw,
            },
        },
    }
}

fn waiting(
    others: &BTreeMap<BrokerId, Option<Standing>>,
    for_whom: impl Fn(&Option<Standing>) -> bool,
) -> Option<Step> {
    let ids: Vec<BrokerId> =
        others.iter().filter(|(_, it)| for_whom(it)).map(|(id, _)| *id).collect();
    (!ids.is_empty()).then_some(Step::Wait(ids))
}

/// How voters are asked where they stand, over their controller listeners.
pub(crate) trait Peers: Sync {
    fn standing(&self, voter: &Voter) -> impl Future<Output = io::Result<Standing>> + Send;
}

/// The data directories of a voter that is not formed.
pub(crate) trait Directories {
    /// Formats all that are empty, and notes that the node is forming; durably.
    fn format(&self, cluster_id: &str) -> anyhow::Result<()>;
    /// Takes the note away; durably.
    fn formed(&self) -> anyhow::Result<()>;
}

/// The directories that a node's configuration names.
pub(crate) struct NodeDirectories<'a>(pub(crate) &'a BrokerConfig);

impl Directories for NodeDirectories<'_> {
    fn format(&self, cluster_id: &str) -> anyhow::Result<()> {
        let stamp = Stamp { forming: true, ..Stamp::of(cluster_id) };
        let opened = data_directory::survey(self.0, "ottla format")?.open(&stamp)?;
        match opened.directories.unreadable.first() {
            None => Ok(()),
            Some(it) => {
                bail!("{} can't be used at a first start: {}", it.path.display(), it.reason)
            }
        }
    }

    fn formed(&self) -> anyhow::Result<()> {
        Ok(data_directory::survey(self.0, "ottla format")?.formed()?)
    }
}

/// Returns when this voter may take part in the quorum. `own` is what others are answered meanwhile; `to_format` is the
/// command that formats this node, but for the cluster's id, should a person have to.
///
/// # Errors
/// If it may not, or its directories can't be written.
pub(crate) async fn form(
    me: BrokerId,
    voters: &[Voter],
    own: &watch::Sender<Standing>,
    peers: &impl Peers,
    directories: &impl Directories,
    to_format: &str,
    pause: Duration,
) -> anyhow::Result<()> {
    let mut waited_for = Vec::new();
    loop {
        let mine = own.borrow().clone();
        match next_step(me, &mine, &ask_all(me, voters, peers).await) {
            Step::Draw => format(&ottla_env::random_uuid()?.to_string(), own, directories)?,
            Step::Adopt(cluster_id) => format(&cluster_id, own, directories)?,
            Step::Begin => {
                directories.formed()?;
                if let Some(cluster_id) = mine.cluster_id() {
                    own.send_replace(Standing::Formed(cluster_id.to_owned()));
                }
                return Ok(());
            }
            Step::Wait(ids) => {
                if ids != waited_for {
                    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
                    info!(controllers = names.join(", "), "waiting for the other controllers");
                    waited_for = ids;
                }
                tokio::time::sleep(pause).await;
            }
            Step::Refuse(Refusal::Wiped { formed, cluster_id }) => {
                let refusal = Refusal::Wiped { formed, cluster_id: cluster_id.clone() };
                bail!("{refusal}:\n  {to_format} --cluster-id {cluster_id}")
            }
            Step::Refuse(refusal) => bail!("{refusal}"),
        }
    }
}

fn format(
    cluster_id: &str,
    own: &watch::Sender<Standing>,
    directories: &impl Directories,
) -> anyhow::Result<()> {
    directories.format(cluster_id)?;
    own.send_replace(Standing::Forming(cluster_id.to_owned()));
    Ok(())
}

async fn ask_all(
    me: BrokerId,
    voters: &[Voter],
    peers: &impl Peers,
) -> BTreeMap<BrokerId, Option<Standing>> {
    let others = voters.iter().filter(|voter| voter.id != me.0);
    let asked = others.map(async |voter| (BrokerId(voter.id), peers.standing(voter).await.ok()));
    join_all(asked).await.into_iter().collect()
}

#[cfg(test)]
mod tests;
