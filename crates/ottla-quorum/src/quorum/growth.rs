//! Whether a node that wants a vote gets one without being given it by hand. Pure.
//!
//! A set of voters stands as many losses as are left over from a majority: an even number stands no more than the odd one
//! below it, and two stand fewer than one. So votes come in pairs, or one by one where they make an even number odd.
//!
//! A directory that votes in the name of a node which asks with another one is lost, if nobody answers for it: its vote goes
//! first, in an entry of its own, and the successor's comes in the next. In between nothing is worse: of one voter fewer, and
//! that one dead, a majority is at most as large as before.
//!
//! Invariants: whoever leads goes on having a majority that it hears, whatever is done; no plan makes an odd number even but
//! the removal of a lost vote; no plan makes more than [`BY_THEMSELVES_MAX`] of an odd number.

use std::collections::BTreeSet;

use super::Member;

/// Up to so many voters come by themselves: more would be slower, and stand more losses than anybody has at once.
pub(crate) const BY_THEMSELVES_MAX: usize = 5;

/// A voter, as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) voter: Member,
    /// Whether it answers; the leader itself does.
    pub(crate) is_heard: bool,
}

/// An observer that wants a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) member: Member,
    /// Whether it has caught up with the log, and answers.
    pub(crate) is_ready: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    Keep,
    /// A lost directory's vote is taken away.
    Remove(Member),
    /// One or two votes are given, in one change.
    Add(Vec<Member>),
    Wait(Wait),
}

/// Why a node that wants a vote does not get one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until one more node wants one.
    ForAnother,
    /// There are enough.
    Enough,
}

/// What is to be done about the voters now.
pub(crate) fn plan(seats: &[Seat], claims: &[Claim]) -> Plan {
    let has_id = |claim: &Claim| seats.iter().any(|seat| seat.voter.id == claim.member.id);
    let is_lost = |seat: &&Seat| {
        let is_successor =
            |it: &Claim| it.is_ready && it.member.id == seat.voter.id && it.member != seat.voter;
        !seat.is_heard && claims.iter().any(is_successor)
    };
    if let Some(lost) = seats.iter().find(is_lost) {
        return Plan::Remove(lost.voter);
    }
    let new: Vec<&Claim> = claims.iter().filter(|claim| !has_id(claim)).collect();
    let ready: BTreeSet<_> = new.iter().filter(|it| it.is_ready).map(|it| it.member.id).collect();
    let wanted = if seats.len().is_multiple_of(2) { 1 } else { 2 };
    match (wanted, new.len()) {
        _ if seats.is_empty() => Plan::Keep,
        (_, 0) => Plan::Keep,
        (2, _) if seats.len() >= BY_THEMSELVES_MAX => Plan::Wait(Wait::Enough),
        (2, 1) => Plan::Wait(Wait::ForAnother),
        _ if ready.len() < wanted => Plan::Keep,
        _ => {
            let chosen: BTreeSet<_> = ready.into_iter().take(wanted).collect();
            let mut added: Vec<Member> =
                new.iter().map(|it| it.member).filter(|it| chosen.contains(&it.id)).collect();
            added.sort_by_key(|it| it.id);
            Plan::Add(added)
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::{BrokerId, Uuid};

    use super::*;

    /// On the directory that it begins with, or on the new one.
    fn member(id: i32, is_new: bool) -> Member {
        let directory = u8::try_from(id).unwrap() + if is_new { 100 } else { 0 };
        Member { id: BrokerId(id), directory_id: Uuid([directory; 16]) }
    }

    /// Voters by their ids; those below zero do not answer.
    fn seats(ids: &[i32]) -> Vec<Seat> {
        let seat = |id: &i32| Seat { voter: member(id.abs(), false), is_heard: *id > 0 };
        ids.iter().map(seat).collect()
    }

    fn ready(id: i32) -> Claim {
        Claim { member: member(id, false), is_ready: true }
    }

    fn late(id: i32) -> Claim {
        Claim { is_ready: false, ..ready(id) }
    }

    fn anew(id: i32) -> Claim {
        Claim { member: member(id, true), is_ready: true }
    }

    fn add(ids: &[i32]) -> Plan {
        Plan::Add(ids.iter().map(|id| member(*id, false)).collect())
    }

    fn remove(id: i32) -> Plan {
        Plan::Remove(member(id, false))
    }

    #[test]
    fn votes_come_in_pairs_or_make_an_even_number_odd() {
        for (voters, claims, expected) in [
            (vec![1], vec![], Plan::Keep),
            (vec![1], vec![ready(2)], Plan::Wait(Wait::ForAnother)),
            (vec![1], vec![late(2)], Plan::Wait(Wait::ForAnother)),
            (vec![1], vec![ready(2), ready(3)], add(&[2, 3])),
            (vec![1], vec![ready(3), ready(2)], add(&[2, 3])),
            (vec![1], vec![ready(2), late(3)], Plan::Keep),
            (vec![1], vec![late(2), ready(3), ready(4)], add(&[3, 4])),
            (vec![1], vec![ready(2), ready(3), ready(4)], add(&[2, 3])),
            (vec![1, 2], vec![ready(3)], add(&[3])),
            (vec![1, 2], vec![late(3)], Plan::Keep),
            (vec![1, 2], vec![ready(3), ready(4)], add(&[3])),
            (vec![1, 2, 3], vec![ready(4)], Plan::Wait(Wait::ForAnother)),
            (vec![1, 2, -3], vec![ready(4)], Plan::Wait(Wait::ForAnother)),
            (vec![1, 2, 3], vec![ready(4), ready(5)], add(&[4, 5])),
            (vec![1, 2, 3, 4], vec![ready(5), ready(6)], add(&[5])),
            (vec![1, 2, 3, 4, 5], vec![ready(6), ready(7)], Plan::Wait(Wait::Enough)),
            (vec![1, 2, 3, 4, 5], vec![ready(6)], Plan::Wait(Wait::Enough)),
            (vec![1, 2, 3, 4, 5, 6], vec![ready(7)], add(&[7])),
            (vec![], vec![ready(2), ready(3)], Plan::Keep),
        ] {
            assert_eq!(plan(&seats(&voters), &claims), expected, "{voters:?} {claims:?}");
        }
    }

    #[test]
    fn a_lost_directorys_vote_goes_before_its_successors_comes() {
        let anew_late = Claim { is_ready: false, ..anew(3) };
        for (voters, claims, expected) in [
            (vec![1, 2, -3], vec![anew(3)], remove(3)),
            // Somebody still answers for it: two nodes have one id.
            (vec![1, 2, 3], vec![anew(3)], Plan::Keep),
            (vec![1, 2, -3], vec![anew_late], Plan::Keep),
            (vec![1, 2], vec![anew(3)], Plan::Add(vec![anew(3).member])),
            // Before anything grows, and all of them.
            (vec![1, 2, -3], vec![anew(3), ready(4), ready(5)], remove(3)),
            (vec![1, 2, 3, -4, -5], vec![anew(4), anew(5)], remove(4)),
            (vec![1, 2, 3, -5], vec![anew(4), anew(5)], remove(5)),
            (
                vec![1, 2, 3],
                vec![anew(4), anew(5)],
                Plan::Add(vec![anew(4).member, anew(5).member]),
            ),
            // More than come by themselves are still replaced.
            (vec![1, 2, 3, 4, 5, 6, -7], vec![anew(7)], remove(7)),
            (vec![1, 2, 3, 4, 5, 6], vec![anew(7)], Plan::Add(vec![anew(7).member])),
        ] {
            assert_eq!(plan(&seats(&voters), &claims), expected, "{voters:?} {claims:?}");
        }
    }

    const fn majority(voters: usize) -> usize {
        voters / 2 + 1
    }

    /// Does what is planned until nothing more is; returns in how many steps. Whoever is added answers.
    fn settle(seats: &mut Vec<Seat>, claims: &[Claim]) -> usize {
        for steps in 0..10 {
            let was_odd = seats.len() % 2 == 1;
            match plan(seats, claims) {
                Plan::Keep | Plan::Wait(_) => return steps,
                Plan::Remove(lost) => seats.retain(|it| it.voter != lost),
                Plan::Add(added) => {
                    assert_eq!(added.len(), if was_odd { 2 } else { 1 }, "{seats:?} {claims:?}");
                    assert!(!was_odd || seats.len() < BY_THEMSELVES_MAX);
                    for voter in added {
                        assert!(claims.contains(&Claim { member: voter, is_ready: true }));
                        assert!(seats.iter().all(|it| it.voter.id != voter.id));
                        seats.push(Seat { voter, is_heard: true });
                    }
                }
            }
            let heard = seats.iter().filter(|it| it.is_heard).count();
            assert!(heard >= majority(seats.len()), "{seats:?} {claims:?}");
        }
        panic!("it never ends: {seats:?} {claims:?}");
    }

    /// All sets of up to seven voters, each heard or not, with up to four nodes that want a vote, two of them on new disks
    /// of voters.
    #[test]
    fn whatever_is_done_leaves_a_majority_that_is_heard_and_what_was_odd_is_odd_at_last() {
        let mut steps = 0;
        for (count, silent, claiming) in (1..=7_i32)
            .flat_map(|count| (0..1 << count).map(move |silent| (count, silent)))
            .flat_map(|(count, silent)| (0..81).map(move |claiming| (count, silent, claiming)))
        {
            let sign = |id: i32| if silent >> (id - 1) & 1 == 1 { -id } else { id };
            let mut seats = seats(&(1..=count).map(sign).collect::<Vec<_>>());
            let heard = seats.iter().filter(|it| it.is_heard).count();
            if !seats[0].is_heard || heard < majority(seats.len()) {
                // Nobody would lead them.
                continue;
            }
            let wish = |(place, id): (u32, i32)| match claiming / 3_i32.pow(place) % 3 {
                0 => None,
                wish => Some(Claim { is_ready: wish == 1, ..anew(id) }),
            };
            let claims: Vec<Claim> = (0..).zip([2, 3, 8, 9]).filter_map(wish).collect();
            let was_odd = seats.len() % 2 == 1;
            steps += settle(&mut seats, &claims);
            assert!(!was_odd || seats.len() % 2 == 1, "{seats:?} {claims:?}");
        }
        assert!(steps > 1000, "{steps}");
    }
}
