//! Voters that form a cluster: each decision, many interleavings with crashes and wiped disks, and the whole with
//! real directories.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Standing::{Empty, Formed, Forming};
use super::*;

fn step(me: i32, mine: Standing, others: &[(i32, Option<Standing>)]) -> Step {
    let others = others.iter().map(|(id, it)| (BrokerId(*id), it.clone())).collect();
    next_step(BrokerId(me), &mine, &others)
}

fn forming(id: &str) -> Standing {
    Forming(id.to_owned())
}

fn formed(id: &str) -> Standing {
    Formed(id.to_owned())
}

#[test]
fn the_lowest_voter_draws_when_all_others_are_known_to_be_empty() {
    assert_eq!(step(1, Empty, &[(2, Some(Empty)), (3, Some(Empty))]), Step::Draw);
    assert_eq!(
        step(1, Empty, &[(2, Some(Empty)), (3, None)]),
        Step::Wait(vec![BrokerId(3)]),
        "it may belong to a cluster already"
    );
    assert_eq!(
        step(2, Empty, &[(1, Some(Empty)), (3, Some(Empty))]),
        Step::Wait(vec![BrokerId(1)])
    );
}

#[test]
fn an_empty_voter_adopts_when_nobody_is_silent() {
    let adopt = Step::Adopt("x".to_owned());
    assert_eq!(step(2, Empty, &[(1, Some(forming("x"))), (3, Some(Empty))]), adopt);
    assert_eq!(step(1, Empty, &[(2, Some(Empty)), (3, Some(forming("x")))]), adopt);
    assert_eq!(
        step(2, Empty, &[(1, Some(forming("x"))), (3, None)]),
        Step::Wait(vec![BrokerId(3)]),
        "it may know that this disk was wiped"
    );
}

#[test]
fn a_voter_that_lost_its_data_is_refused_even_if_others_are_silent() {
    let refused = step(3, Empty, &[(1, None), (2, Some(formed("x")))]);
    let Step::Refuse(refusal) = refused else { panic!("{refused:?}") };
    let text = refusal.to_string();
    assert!(text.contains("controller 2 already belongs to cluster x"), "{text}");
}

#[test]
fn nobody_begins_before_all_are_formatted_or_one_has_begun() {
    let mine = || forming("x");
    assert_eq!(step(1, mine(), &[(2, Some(mine())), (3, Some(mine()))]), Step::Begin);
    assert_eq!(
        step(1, mine(), &[(2, Some(Empty)), (3, None)]),
        Step::Wait(vec![BrokerId(2), BrokerId(3)])
    );
    assert_eq!(step(1, mine(), &[(2, None), (3, Some(formed("x")))]), Step::Begin);
}

#[test]
fn voters_of_two_clusters_are_refused() {
    for (mine, others) in [
        (forming("x"), [(2, Some(forming("y"))), (3, None)]),
        (Empty, [(2, Some(forming("x"))), (3, Some(formed("y")))]),
        (formed("x"), [(2, Some(formed("y"))), (3, None)]),
    ] {
        let refused = step(1, mine, &others);
        assert!(matches!(refused, Step::Refuse(Refusal::Disagree { .. })), "{refused:?}");
    }
}

/// A voter of the interleavings below.
#[derive(Clone)]
struct Node {
    disk: Standing,
    /// What it has heard, until it decides.
    heard: BTreeMap<BrokerId, Option<Standing>>,
    refused: bool,
    /// Whether somebody else was formed when its disk was wiped after it had begun.
    had_company: bool,
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Plays one history in which answers are lost or old, voters crash, and one disk is wiped.
fn play(seed: u64, count: usize) -> Vec<Node> {
    let mut dice = Dice(seed);
    let fresh = Node { disk: Empty, heard: BTreeMap::new(), refused: false, had_company: false };
    let mut nodes = vec![fresh; count];
    let mut wipes = dice.below(2);
    let mut drawn = 0;
    for _ in 0..250 {
        let at = dice.below(count);
        match dice.below(20) {
            0 => nodes[at].heard.clear(),
            1 if wipes > 0 && nodes[at].disk != Empty => {
                wipes -= 1;
                let others_formed =
                    nodes.iter().enumerate().any(|(i, it)| i != at && matches!(it.disk, Formed(_)));
                nodes[at] = Node {
                    disk: Empty,
                    heard: BTreeMap::new(),
                    refused: false,
                    had_company: others_formed,
                };
            }
            2..=12 => {
                let other = dice.below(count);
                let answers = dice.below(5) > 0 && !nodes[other].refused;
                let answer = answers.then(|| nodes[other].disk.clone());
                if other != at {
                    nodes[at].heard.insert(BrokerId(i32::try_from(other).unwrap()), answer);
                }
            }
            _ if nodes[at].heard.len() == count - 1 && !nodes[at].refused => {
                let heard = std::mem::take(&mut nodes[at].heard);
                let me = BrokerId(i32::try_from(at).unwrap());
                match next_step(me, &nodes[at].disk, &heard) {
                    Step::Draw => {
                        drawn += 1;
                        nodes[at].disk = Forming(drawn.to_string());
                    }
                    Step::Adopt(id) => nodes[at].disk = Forming(id),
                    Step::Begin => {
                        let id = nodes[at].disk.cluster_id().unwrap().to_owned();
                        nodes[at].disk = Formed(id);
                    }
                    Step::Wait(_) => {}
                    Step::Refuse(_) => nodes[at].refused = true,
                }
            }
            _ => {}
        }
        let formed: Vec<&str> = nodes
            .iter()
            .filter_map(|it| match &it.disk {
                Formed(id) => Some(id.as_str()),
                Empty | Forming(_) => None,
            })
            .collect();
        assert!(formed.windows(2).all(|pair| pair[0] == pair[1]), "two clusters: seed {seed}");
        for node in &nodes {
            let takes_part = matches!(node.disk, Formed(_));
            assert!(!(node.had_company && takes_part), "a wiped voter takes part: seed {seed}");
        }
    }
    nodes
}

#[test]
fn whatever_is_lost_or_late_there_is_one_cluster_and_no_wiped_voter_in_it() {
    let mut complete = 0;
    let mut refused = 0;
    for seed in 0..2_000 {
        let nodes = play(seed, if seed % 2 == 0 { 3 } else { 5 });
        complete += usize::from(nodes.iter().all(|it| matches!(it.disk, Formed(_))));
        refused += usize::from(nodes.iter().any(|it| it.refused && it.had_company));
    }
    assert!(complete > 100 && refused > 10, "{complete} formed, {refused} refused");
}

/// Voters in one process, each third question to whom is lost.
struct Table {
    standings: BTreeMap<i32, watch::Sender<Standing>>,
    asked: AtomicU32,
}

impl Peers for Arc<Table> {
    async fn standing(&self, voter: &Voter) -> io::Result<Standing> {
        tokio::task::yield_now().await;
        if self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        match self.standings.get(&voter.id) {
            Some(standing) => Ok(standing.borrow().clone()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// One of three static voters, with two directories that are really there.
fn config(root: &std::path::Path, id: i32) -> BrokerConfig {
    let directories = root.join(format!("{id}-a")).display().to_string()
        + ","
        + &root.join(format!("{id}-b")).display().to_string();
    let set = [
        format!("node.id={id}"),
        format!("log.dirs={directories}"),
        "controller.quorum.voters=1@a:9093,2@b:9093,3@c:9093".to_owned(),
        "listeners=PLAINTEXT://:9092,CONTROLLER://:9093".to_owned(),
        "controller.listener.names=CONTROLLER".to_owned(),
    ];
    let sources = ottla_config::Sources { set: set.into(), ..Default::default() };
    ottla_config::load(&sources).unwrap().config
}

async fn start_all(root: &std::path::Path) -> Vec<anyhow::Result<String>> {
    let survey = |config: &BrokerConfig| data_directory::survey(config, "ottla format").unwrap();
    let configs: Vec<BrokerConfig> = (1..=3).map(|id| config(root, id)).collect();
    let standings =
        configs.iter().map(|it| (it.node_id.0, watch::Sender::new(survey(it).standing())));
    let table = Arc::new(Table { standings: standings.collect(), asked: AtomicU32::new(0) });
    let start = async |config: &BrokerConfig| {
        let own = table.standings.get(&config.node_id.0).unwrap();
        let (voters, pause) = (&config.controller_quorum_voters, Duration::from_millis(1));
        form(config.node_id, voters, own, &table, &NodeDirectories(config), "ottla format", pause)
            .await?;
        assert_eq!(survey(config).standing(), *own.borrow());
        assert_eq!(survey(config).empty().count(), 0);
        Ok(survey(config).cluster_id().unwrap().to_owned())
    };
    join_all(configs.iter().map(start)).await
}

#[tokio::test]
async fn three_voters_with_empty_directories_become_one_cluster_and_stay_it() {
    let root = tempfile::tempdir().unwrap();
    let first: Vec<String> = start_all(root.path()).await.into_iter().map(Result::unwrap).collect();
    assert!(first.windows(2).all(|pair| pair[0] == pair[1]), "{first:?}");
    let again: Vec<String> = start_all(root.path()).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(again, first);
}

#[tokio::test]
async fn a_voter_with_a_wiped_disk_stays_out_and_leaves_its_directory_empty() {
    let root = tempfile::tempdir().unwrap();
    start_all(root.path()).await.into_iter().for_each(|it| drop(it.unwrap()));
    for name in ["2-a", "2-b"] {
        std::fs::remove_dir_all(root.path().join(name)).unwrap();
    }
    let again = start_all(root.path()).await;
    let error = again[1].as_ref().unwrap_err().to_string();
    assert!(error.contains("the data directory is empty"), "{error}");
    assert!(!root.path().join("2-a").exists() && !root.path().join("2-b").exists());
    assert!(again[0].is_ok() && again[2].is_ok());
}
