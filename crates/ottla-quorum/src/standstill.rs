//! Lets all tasks of one node stand still, as a process does that the system has stopped (SIGSTOP). For simulations, which
//! have several nodes on one thread. Shell.
//!
//! Timers go on meanwhile, as clocks do: when the node wakes, all that are over by then are over at once.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

thread_local! {
    /// That of the task which is under way on this thread.
    static CURRENT: RefCell<Option<Arc<Standstill>>> = const { RefCell::new(None) };
}

/// See the module.
#[derive(Debug, Default)]
pub struct Standstill(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_on: bool,
    waiting: Vec<Waker>,
}

impl Standstill {
    /// Nothing that is covered goes on.
    pub fn begin(&self) {
        self.0.lock().is_on = true;
    }

    /// Everything goes on, with whatever has come meanwhile.
    pub fn end(&self) {
        let waiting = {
            let mut state = self.0.lock();
            state.is_on = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.lock().is_on
    }

    /// Covers something that is done here, with every task of the quorum that it starts, and those that these start.
    pub fn cover<F: Future>(self: Arc<Self>, future: F) -> impl Future<Output = F::Output> {
        Covered { standstill: self, future: Box::pin(future) }
    }

    /// Whether a task has to wait; if so it is woken at the end.
    fn holds(&self, context: &Context<'_>) -> bool {
        let mut state = self.0.lock();
        let waker = context.waker();
        if state.is_on && !state.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
            state.waiting.push(waker.clone());
        }
        state.is_on
    }
}

/// A task of this node, which stands still with whoever has started it.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match CURRENT.with_borrow(Clone::clone) {
        Some(standstill) => tokio::spawn(standstill.cover(future)),
        None => tokio::spawn(future),
    }
}

struct Covered<F> {
    standstill: Arc<Standstill>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Covered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.standstill.holds(context) {
            return Poll::Pending;
        }
        let _within = Within::enter(&self.standstill);
        self.future.as_mut().poll(context)
    }
}

/// While it is there, tasks are started as those of a node.
struct Within(Option<Arc<Standstill>>);

impl Within {
    fn enter(standstill: &Arc<Standstill>) -> Self {
        Self(CURRENT.replace(Some(Arc::clone(standstill))))
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// Lets all tasks do what they can.
    async fn yield_to_all() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_a_node_has_started_stands_still_with_it_and_goes_on_where_it_was() {
        let standstill = Arc::<Standstill>::default();
        let (ask, mut asked) = mpsc::unbounded_channel::<u32>();
        let (answer, mut answers) = mpsc::unbounded_channel();
        let serve = async move {
            while let Some(number) = asked.recv().await {
                answer.send(number).unwrap();
            }
        };
        let start = async { spawn(async { drop(spawn(serve)) }).await.unwrap() };
        Arc::clone(&standstill).cover(start).await;
        ask.send(1).unwrap();
        yield_to_all().await;
        assert_eq!(answers.try_recv(), Ok(1));
        standstill.begin();
        assert!(standstill.is_on());
        ask.send(2).unwrap();
        yield_to_all().await;
        assert_eq!(answers.try_recv(), Err(mpsc::error::TryRecvError::Empty));
        standstill.end();
        assert_eq!(answers.recv().await, Some(2));
        ask.send(3).unwrap();
        assert_eq!(answers.recv().await, Some(3));
    }

    #[tokio::test]
    async fn tasks_that_nobody_covers_go_on() {
        let standstill = Arc::<Standstill>::default();
        let covered = Arc::clone(&standstill).cover(async { 1 });
        standstill.begin();
        assert_eq!(spawn(async { 7 }).await.unwrap(), 7);
        standstill.end();
        assert_eq!(covered.await, 1);
        assert!(CURRENT.with_borrow(Option::is_none));
    }
}
