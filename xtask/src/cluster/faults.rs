//! Which faults happen to a cluster, in which order, drawn from a seed (pure).
//!
//! Faults come in rounds: in each round every kind that the ground allows happens once, the kills first. At most one node
//! is away at a time: a fault is over before the next one is drawn.

use std::collections::BTreeMap;
use std::fmt;

use ottla_base::SplitMix64;

/// Which node is meant, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whom {
    Leader,
    Controller,
    Coordinator,
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "a leader",
            Self::Controller => "the active controller",
            Self::Coordinator => "a group's coordinator",
        })
    }
}

/// What happens, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    Kill(Whom),
    /// SIGTERM, node after node: what a rolling upgrade does.
    StopInTurn,
    /// SIGSTOP until it is fenced, SIGCONT: it goes on as if nothing had happened.
    Pause(Whom),
    /// Nothing goes in or out until it is fenced, and no connection closes.
    Cut(Whom),
    /// A leader and the active controller do not reach each other; the third node and all clients reach both.
    PartLeaderFromController,
    /// Its disk has no space, and then has.
    Fill(Whom),
}

impl Fault {
    pub(super) const KILLS: [Self; 3] =
        [Self::Kill(Whom::Leader), Self::Kill(Whom::Controller), Self::Kill(Whom::Coordinator)];
    const OTHERS: [Self; 4] = [
        Self::StopInTurn,
        Self::Pause(Whom::Leader),
        Self::Pause(Whom::Controller),
        Self::Pause(Whom::Coordinator),
    ];
    /// Those of a network whose cables can be pulled.
    pub(super) const CUTS: [Self; 4] = [
        Self::Cut(Whom::Leader),
        Self::Cut(Whom::Controller),
        Self::Cut(Whom::Coordinator),
        Self::PartLeaderFromController,
    ];
    /// Those of disks that can be full.
    pub(super) const FILLS: [Self; 3] =
        [Self::Fill(Whom::Leader), Self::Fill(Whom::Controller), Self::Fill(Whom::Coordinator)];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(whom) => write!(f, "kill -9 of {whom}"),
            Self::StopInTurn => write!(f, "SIGTERM, node after node"),
            Self::Pause(whom) => write!(f, "SIGSTOP of {whom} until it is fenced"),
            Self::Cut(whom) => write!(f, "the network of {whom} cut until it is fenced"),
            Self::PartLeaderFromController => {
                write!(f, "a leader cut off from the active controller alone")
            }
            Self::Fill(whom) => write!(f, "the disk of {whom} full, and then not"),
        }
    }
}

/// How long a node that was killed or stopped stays away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// It may be back before anybody has noticed.
    None,
    /// Until clients were served without it.
    UntilServed,
}

/// One fault as drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Drawn {
    pub(super) fault: Fault,
    /// Whose leader is meant, for what happens to a leader.
    pub(super) partition: i32,
    pub(super) absence: Absence,
}

/// All faults to come: it never ends.
#[derive(Debug)]
pub(super) struct Faults {
    random: SplitMix64,
    partitions: i32,
    /// What comes after the kills of each round.
    others: Vec<Fault>,
    round: Vec<Fault>,
}

impl Faults {
    /// `more` is what the ground allows beside kills, stops and pauses.
    pub(super) fn new(seed: u64, partitions: i32, more: &[Fault]) -> Self {
        let others = [&Fault::OTHERS, more].concat();
        Self { random: SplitMix64::new(seed), partitions, others, round: Vec::new() }
    }

    /// What a round consists of.
    pub(super) fn kinds(&self) -> Vec<Fault> {
        [&Fault::KILLS[..], &self.others].concat()
    }
}

/// The kinds of a round that have not happened, although as many faults have as a round has; in words.
pub(super) fn left_out(round: &[Fault], counts: &BTreeMap<Fault, usize>) -> Vec<String> {
    if counts.values().sum::<usize>() < round.len() {
        return Vec::new();
    }
    let never = round.iter().filter(|fault| counts.get(fault).is_none_or(|count| *count == 0));
    never.map(Fault::to_string).collect()
}

impl Iterator for Faults {
    type Item = Drawn;

    fn next(&mut self) -> Option<Drawn> {
        if self.round.is_empty() {
            // The last one comes first.
            let random = &mut self.random;
            let others = shuffled(random, &self.others);
            self.round = [others, shuffled(random, &Fault::KILLS)].concat();
        }
        let fault = self.round.pop()?;
        let partitions = usize::try_from(self.partitions).ok()?;
        let partition = i32::try_from(self.random.below(partitions)).ok()?;
        let absence = if self.random.below(3) == 0 { Absence::None } else { Absence::UntilServed };
        Some(Drawn { fault, partition, absence })
    }
}

fn shuffled(random: &mut SplitMix64, of: &[Fault]) -> Vec<Fault> {
    let mut keyed: Vec<_> = of.iter().map(|fault| (random.draw(), *fault)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, fault)| fault).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn drawn(seed: u64, count: usize) -> Vec<Drawn> {
        Faults::new(seed, 6, &Fault::CUTS).take(count).collect()
    }

    #[test]
    fn a_seed_gives_the_same_faults_every_time_and_another_seed_others() {
        assert_eq!(drawn(7, 50), drawn(7, 50));
        assert_ne!(drawn(7, 50), drawn(8, 50));
    }

    #[test]
    fn every_kind_of_fault_happens_in_every_round_and_the_kills_come_first() {
        for seed in 0..20 {
            for round in drawn(seed, 66).chunks(11) {
                let kinds: BTreeSet<_> = round.iter().map(|it| it.fault).collect();
                assert_eq!(kinds.len(), 11);
                let kills: BTreeSet<_> = round[..3].iter().map(|it| it.fault).collect();
                assert_eq!(kills, BTreeSet::from(Fault::KILLS));
            }
        }
    }

    #[test]
    fn a_kind_that_hits_nobody_in_a_whole_round_is_named_and_no_sooner() {
        let round = Faults::new(1, 6, &[]).kinds();
        let mut counts: BTreeMap<Fault, usize> = round.iter().map(|fault| (*fault, 1)).collect();
        assert_eq!(left_out(&round, &counts), [""; 0]);
        let last = counts.pop_last().map(|(fault, _)| fault).unwrap();
        assert_eq!(left_out(&round, &counts), [""; 0], "the round is not over");
        counts.insert(Fault::StopInTurn, 2);
        assert_eq!(left_out(&round, &counts), [last.to_string()]);
        counts.insert(last, 0);
        assert_eq!(left_out(&round, &counts), [last.to_string()]);
    }

    #[test]
    fn every_partition_and_both_absences_are_drawn() {
        let all = drawn(1, 200);
        assert_eq!(all.iter().map(|it| it.partition).collect::<BTreeSet<_>>(), (0..6).collect());
        for absence in [Absence::None, Absence::UntilServed] {
            assert!(all.iter().any(|it| it.absence == absence));
        }
    }
}
