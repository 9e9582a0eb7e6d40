//! Who waits for a partition's high watermark to move: delayed fetches and acks=all produces.
//!
//! A waiter registers once, looks at the state, and only then sleeps, so that a move between the look
//! and the sleep is never missed: `Notify::notify_one` leaves a permit behind.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The registered waiters of one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    registered: Mutex<Vec<Arc<Notify>>>,
}

impl Waiters {
    /// Wakes `waiter` at every [`Self::wake`] until the registration is dropped.
    pub(crate) fn register<'a>(&'a self, waiter: &Arc<Notify>) -> Registration<'a> {
        self.registered.lock().push(Arc::clone(waiter));
        Registration { waiters: self, waiter: Arc::clone(waiter) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.registered.lock().is_empty()
    }

    pub(crate) fn wake(&self) {
        for waiter in &*self.registered.lock() {
            waiter.notify_one();
        }
    }
}

/// Ends a waiter's registration when dropped.
#[derive(Debug)]
pub(crate) struct Registration<'a> {
    waiters: &'a Waiters,
    waiter: Arc<Notify>,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut registered = self.waiters.registered.lock();
        if let Some(position) = registered.iter().position(|w| Arc::ptr_eq(w, &self.waiter)) {
            registered.swap_remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wake_between_registration_and_sleep_is_not_lost() {
        let waiters = Waiters::default();
        let waiter = Arc::new(Notify::new());
        let registration = waiters.register(&waiter);
        waiters.wake();
        waiter.notified().await;
        drop(registration);
        assert!(waiters.is_empty());
    }
}
