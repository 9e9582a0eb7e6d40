//! Who does for a simulated node what may block: a task for each piece of work, after a time that is drawn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ottla_quorum::{InOrder, Work, Workers};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::world::Shared;
use crate::Random;

#[derive(Debug)]
pub(super) struct SimulatedWorkers {
    /// For what is done beside everything else, and for what is done in order.
    hands: [Arc<Hand>; 2],
}

/// How long a node's disk takes, in one of its lives.
#[derive(Debug)]
struct Hand {
    node: usize,
    random: Mutex<Random>,
    shared: Arc<Shared>,
    /// Set once this life is over: what is not done by then is never done.
    is_over: Arc<AtomicBool>,
}

impl SimulatedWorkers {
    pub(super) fn new(
        node: usize,
        randoms: [Random; 2],
        shared: &Arc<Shared>,
        is_over: &Arc<AtomicBool>,
    ) -> Self {
        let hand = |random| {
            let (random, shared) = (Mutex::new(random), Arc::clone(shared));
            Arc::new(Hand { node, random, shared, is_over: Arc::clone(is_over) })
        };
        Self { hands: randoms.map(hand) }
    }
}

impl Hand {
    async fn work(&self, work: Work) {
        let longest = self.shared.disk_takes(self.node).as_millis() as usize;
        let millis = 1 + self.random.lock().below(longest) as u64;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        self.shared.held_up(self.node).await;
        if !self.is_over.load(Ordering::Relaxed) {
            work();
        }
    }
}

impl Workers for SimulatedWorkers {
    fn start(&self, work: Work) {
        let hand = Arc::clone(&self.hands[0]);
        tokio::spawn(async move { hand.work(work).await });
    }

    fn in_order(&self, _name: &str) -> io::Result<Box<dyn InOrder>> {
        let (sender, mut works) = mpsc::unbounded_channel::<Work>();
        let hand = Arc::clone(&self.hands[1]);
        tokio::spawn(async move {
            while let Some(work) = works.recv().await {
                hand.work(work).await;
            }
        });
        Ok(Box::new(Order(sender)))
    }
}

/// Nobody can wait for it: whoever drops it does the rest.
struct Order(mpsc::UnboundedSender<Work>);

impl InOrder for Order {
    fn give(&self, work: Work) -> Result<(), Work> {
        self.0.send(work).map_err(|mpsc::error::SendError(work)| work)
    }
}
