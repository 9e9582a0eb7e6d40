//! Replies that wait for one proposal. Shell.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::SubmitError;

pub(crate) type Respond = Box<dyn FnOnce(Result<(), SubmitError>) + Send>;

/// The replies of a proposal: kept until it is finished, and given at once from then on. Clones share them.
#[derive(Clone)]
pub(crate) struct Waiting(Arc<Mutex<State>>);

enum State {
    Unfinished(Vec<Respond>),
    Finished(Result<(), SubmitError>),
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0.lock() {
            State::Unfinished(replies) => write!(f, "{} replies wait", replies.len()),
            State::Finished(result) => write!(f, "finished: {result:?}"),
        }
    }
}

impl Waiting {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::Unfinished(Vec::with_capacity(1)))))
    }

    pub(crate) fn is_finished(&self) -> bool {
        matches!(*self.0.lock(), State::Finished(_))
    }

    pub(crate) fn add(&self, respond: Respond) {
        let mut state = self.0.lock();
        match &mut *state {
            State::Unfinished(replies) => replies.push(respond),
            State::Finished(result) => {
                let result = *result;
                drop(state);
                respond(result);
            }
        }
    }

    /// Gives all replies. Only the first result counts.
    pub(crate) fn finish(&self, result: Result<(), SubmitError>) {
        let mut state = self.0.lock();
        let State::Unfinished(replies) = &mut *state else { return };
        let replies = std::mem::take(replies);
        *state = State::Finished(result);
        drop(state);
        for respond in replies {
            respond(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_wait_for_the_result_and_later_ones_get_it_at_once() {
        let given = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let given = Arc::clone(&given);
            Box::new(move |result| given.lock().push((name, result)))
        };
        let waiting = Waiting::new();
        waiting.add(note("first"));
        assert_eq!(*given.lock(), []);
        waiting.finish(Err(SubmitError::NotController));
        waiting.finish(Ok(()));
        waiting.add(note("second"));
        let failed = Err(SubmitError::NotController);
        assert_eq!(*given.lock(), [("first", failed), ("second", failed)]);
    }
}
