//! How a node that was started with `--join` comes into a cluster that exists. What is said against an address is pure, the
//! rest a shell.
//!
//! It asks the nodes that it was told of until one of them knows the active controller, and that one gives it a node id that
//! nobody else has, and the addresses of the voters. With these it is formatted, and from then on it is a node like any other:
//! it follows the metadata log, registers, and asks for a vote. Before that nothing is written, so whoever waits for a
//! cluster in vain has changed nothing.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use futures_util::future::join_all;
use ottla_base::{BrokerId, Uuid};
use ottla_broker::{Applicant, ControllerAddress, Introduction, Verdict, Wish};
use ottla_config::{BrokerConfig, Listener};
use ottla_protocol::peer::PeerKey;
use tracing::info;

use crate::forming::network::ask_peer;

/// What the cluster has told this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) cluster_id: String,
    pub(crate) node_id: BrokerId,
    /// `HOST:PORT` of its voters.
    pub(crate) controllers: Vec<String>,
}

/// Why this node has not joined at an address.
enum Obstacle {
    /// It is worth another try.
    NotYet(anyhow::Error),
    /// Somebody has to change a configuration.
    Mistake(anyhow::Error),
}

impl From<anyhow::Error> for Obstacle {
    fn from(why: anyhow::Error) -> Self {
        Self::NotYet(why)
    }
}

/// Waits until the cluster at the addresses of the configuration has given this node an id.
///
/// # Errors
/// When the addresses can't lead to a cluster of this node and others: what to set is said.
pub(crate) async fn join(config: &BrokerConfig, pause: Duration) -> anyhow::Result<Joined> {
    let servers = &config.controller_quorum_bootstrap_servers;
    let others: Vec<_> = servers.iter().filter(|it| !is_own(config, it)).collect();
    ensure!(
        !others.is_empty(),
        "--join names this node itself: name one that runs, and start the first node of a cluster without --join"
    );
    let wish = match config.node_id {
        BrokerId::NONE => Wish::AnyId,
        id => Wish::ThisId(id),
    };
    let applicant = Applicant { claim: ottla_env::random_uuid()?, wish };
    let mut said = BTreeSet::new();
    loop {
        for (host, port) in &others {
            match ask_there(config, host, *port, applicant).await {
                Ok(joined) => return Ok(joined),
                Err(Obstacle::Mistake(mistake)) => return Err(mistake),
                Err(Obstacle::NotYet(why)) => {
                    let hint = hint(is_refused(&why), &addresses_of(host, *port).await);
                    let why = format!("{why:#}{hint}");
                    if said.insert((host, port, why.clone())) {
                        info!(why, "waiting for the cluster at {}", shown(host, *port));
                    }
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Whether a machine has answered that nothing listens there.
fn is_refused(why: &anyhow::Error) -> bool {
    let kinds = why.chain().filter_map(|it| Some(it.downcast_ref::<io::Error>()?.kind()));
    kinds.into_iter().any(|kind| kind == io::ErrorKind::ConnectionRefused)
}

/// A node that only its own machine reaches looks to all others as if it were not there.
fn hint(is_refused: bool, addresses: &[IpAddr]) -> &'static str {
    if is_refused && !addresses.iter().all(is_loopback) {
        "; a node that was started without --listen is reached from its own machine alone"
    } else {
        ""
    }
}

/// Asks a node, and the active controller if that is another one: first who is there, and for an id when all are of use to
/// each other, so that one that is refused takes none.
async fn ask_there(
    config: &BrokerConfig,
    host: &str,
    port: u16,
    applicant: Applicant,
) -> Result<Joined, Obstacle> {
    let looks = Applicant { wish: Wish::NoId, ..applicant };
    let (found, peer) = ask((host, port), looks).await.context("nobody answers")?;
    check_all(config, &found.controllers, peer).await.map_err(Obstacle::Mistake)?;
    let (here, peer) = ask((host, port), applicant).await.context("nobody answers any more")?;
    let (introduction, peer) = match (here.verdict, here.controllers.first()) {
        (Verdict::Unsaid, None) => return Err(anyhow!("it knows no active controller").into()),
        (Verdict::Unsaid, Some(active)) => {
            let at = shown(&active.host, active.port);
            let elsewhere = || format!("the active controller, node {} at {at}", active.id);
            ask((&active.host, active.port), applicant).await.with_context(elsewhere)?
        }
        (Verdict::Welcome(_) | Verdict::Taken, _) => (here, peer),
    };
    let node_id = match introduction.verdict {
        Verdict::Welcome(id) => id,
        Verdict::Taken => {
            let why =
                "a node of this id is alive, or is a voter that the others know by its id alone";
            return Err(anyhow!("{why}: every node needs a node.id of its own").into());
        }
        Verdict::Unsaid => return Err(anyhow!("another controller leads by now").into()),
    };
    let Introduction { cluster_id, controllers, .. } = introduction;
    check_all(config, &controllers, peer).await.map_err(Obstacle::Mistake)?;
    let controllers = controllers.iter().map(|it| shown(&it.host, it.port)).collect();
    Ok(Joined { cluster_id, node_id, controllers })
}

async fn ask(address: (&str, u16), applicant: Applicant) -> anyhow::Result<(Introduction, IpAddr)> {
    let (body, peer) = ask_peer(address, PeerKey::Joining, applicant.encode()).await?;
    Ok((Introduction::decode(body).context("that is no node of a cluster like this")?, peer))
}

/// Whether an address to join at is this node's own, to the letter: hosts have many names.
fn is_own(config: &BrokerConfig, (host, port): &(String, u16)) -> bool {
    let listeners = config.listeners.iter().chain(&config.controller_listeners);
    let advertised =
        config.advertised_listeners.iter().chain(&config.advertised_controller_listeners);
    let mut own = listeners.chain(advertised);
    own.any(|it| it.port == *port && it.host.as_deref() == Some(host))
}

/// Addresses by which nodes do not reach each other are found out before anybody relies on them.
///
/// # Errors
/// If a machine tells others that it is at an address of its own loopback, or by a name that is not known here.
async fn check_all(
    config: &BrokerConfig,
    controllers: &[ControllerAddress],
    peer: IpAddr,
) -> anyhow::Result<()> {
    for ControllerAddress { id, host, port } in controllers {
        let at = shown(host, *port);
        let wrong = match addresses_of(host, *port).await {
            addresses if addresses.is_empty() => "a name that this machine does not know",
            addresses if leads_astray(peer, &addresses) => "where only its own machine reaches it",
            _ => continue,
        };
        bail!(
            "node {id} of the cluster tells others that it is at {at}, {wrong}: start it with {REACHABLE}"
        );
    }
    let own = config.advertised_listeners.iter().chain(&config.advertised_controller_listeners);
    for Listener { host, port, .. } in own {
        // Without a host it is this machine's name, and what others make of that is not known here.
        let Some(host) = host else { continue };
        ensure!(
            !leads_astray(peer, &addresses_of(host, *port).await),
            "the other nodes would be told that this one is at {}, where only this machine reaches it: start it with \
             {REACHABLE}",
            shown(host, *port)
        );
    }
    Ok(())
}

const REACHABLE: &str = "--listen HOST:PORT, or set its advertised.listeners, so that HOST is what other machines call it";

/// Whether an address is of no use to whoever talks to this peer: only loopback, while the peer is not reached by that.
fn leads_astray(peer: IpAddr, addresses: &[IpAddr]) -> bool {
    !is_loopback(&peer) && !addresses.is_empty() && addresses.iter().all(is_loopback)
}

fn is_loopback(address: &IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// None where the name is not known here.
async fn addresses_of(host: &str, port: u16) -> Vec<IpAddr> {
    let found = tokio::net::lookup_host((host, port)).await;
    found.map(|all| all.map(|it| it.ip()).collect()).unwrap_or_default()
}

fn shown(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Refuses to be part of two clusters: if nodes answer at these addresses, and all of them belong to another cluster.
///
/// # Errors
/// If so. Silence is no reason: the others may be down.
pub(crate) async fn check_cluster(config: &BrokerConfig, cluster_id: &str) -> anyhow::Result<()> {
    let applicant = Applicant { claim: Uuid::ZERO, wish: Wish::NoId };
    let servers = config.controller_quorum_bootstrap_servers.iter();
    let others = servers.filter(|it| !is_own(config, it));
    let asked = others.map(async |(host, port)| {
        let (introduction, _) = ask((host, *port), applicant).await.ok()?;
        Some((shown(host, *port), introduction.cluster_id))
    });
    let answers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    match answers.first() {
        Some((address, other)) if answers.iter().all(|(_, id)| id != cluster_id) => bail!(
            "the data belongs to cluster {cluster_id}, but the node at {address} to cluster {other}: choose an empty \
             directory with --data-dir, or another address"
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_refused_by_another_machine_hears_what_may_be_wrong_there() {
        let (near, far) = ("127.0.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let refused = is_refused(&anyhow::Error::from(refused).context("nobody answers"));
        let silent = io::Error::from(io::ErrorKind::TimedOut);
        let silent = is_refused(&anyhow::Error::from(silent).context("nobody answers"));
        assert!(hint(refused, &[far]).contains("--listen"));
        for (is_refused, addresses) in
            [(refused, vec![near]), (silent, vec![far]), (refused, vec![])]
        {
            assert_eq!(hint(is_refused, &addresses), "", "{is_refused} {addresses:?}");
        }
    }

    #[test]
    fn an_address_is_of_no_use_if_only_its_own_machine_reaches_it() {
        let (near, far) = ("127.0.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let (mapped, v6) = ("::ffff:127.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        for (peer, addresses, expected) in [
            (far, vec![near], true),
            (far, vec![near, v6, mapped], true),
            (far, vec![near, far], false),
            (far, vec![], false),
            (near, vec![near], false),
            (mapped, vec![near], false),
        ] {
            assert_eq!(leads_astray(peer, &addresses), expected, "{peer} {addresses:?}");
        }
    }
}
