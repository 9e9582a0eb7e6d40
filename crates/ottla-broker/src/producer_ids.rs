//! Hands out producer ids from a block that the controller gave this broker.
//!
//! Invariants:
//! - each id is handed out at most once, ever: a block belongs to one run of one broker, and what is left of it at a restart
//!   is never used
//! - the controller is asked one question at a time, whose answer is for all who wait

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ottla_base::{ErrorCode, ProducerId};
use ottla_protocol::messages::AllocateProducerIdsRequest;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::broker::Registration;
use crate::controller_channel::ControllerChannel;
use crate::peers::Purpose;

/// How long a client waits for a block. A controller takes milliseconds; while there is none, a client does better to come
/// again, as Apache Kafka tells it to at once.
const WAIT_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The block in use, empty at first.
    block: Range<i64>,
    /// The question under way.
    asked: Option<Asked>,
}

/// Whether a block has come, once that is known.
type Asked = watch::Receiver<Option<bool>>;

impl ProducerIds {
    /// The next id; asks the controller for another block when this one is used up.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS, which clients retry, when the controller gives no block, or not soon.
    pub(crate) async fn next(
        &self,
        controller: &Arc<ControllerChannel>,
        broker: Registration,
    ) -> Result<ProducerId, ErrorCode> {
        self.next_within(WAIT_MAX, || ask(Arc::clone(controller), broker)).await
    }

    async fn next_within<F>(
        &self,
        wait_max: Duration,
        ask: impl FnMut() -> F,
    ) -> Result<ProducerId, ErrorCode>
    where
        F: Future<Output = Option<Range<i64>>> + Send + 'static,
    {
        let taken = tokio::time::timeout(wait_max, self.take(ask)).await;
        taken.ok().flatten().ok_or(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)
    }

    /// `None` when the controller gives no block.
    async fn take<F>(&self, mut ask: impl FnMut() -> F) -> Option<ProducerId>
    where
        F: Future<Output = Option<Range<i64>>> + Send + 'static,
    {
        loop {
            let mut asked = {
                let mut state = self.state.lock();
                if let Some(id) = state.block.next() {
                    return Some(ProducerId(id));
                }
                state.asked.get_or_insert_with(|| self.begin(ask())).clone()
            };
            // Others may have taken all of the block that comes.
            let known = asked.wait_for(Option::is_some).await.ok()?;
            known.filter(|has_come| *has_come)?;
        }
    }

    /// Asks, and goes on with it when nobody waits any longer: a slow controller must not be asked for ever in vain.
    fn begin(&self, answer: impl Future<Output = Option<Range<i64>>> + Send + 'static) -> Asked {
        let (tell, asked) = watch::channel(None);
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            let block = answer.await;
            let has_come = block.is_some();
            {
                let mut state = state.lock();
                state.asked = None;
                state.block = block.unwrap_or_default();
            }
            // Those who asked may have gone away.
            let _ = tell.send(Some(has_come));
        });
        asked
    }
}

/// The next block, or `None` if the controller does not give one.
async fn ask(controller: Arc<ControllerChannel>, broker: Registration) -> Option<Range<i64>> {
    let request = AllocateProducerIdsRequest { broker_id: broker.id.0, broker_epoch: broker.epoch };
    let response = controller.ask(Purpose::Controller, request).await.ok()?;
    if response.error_code.is_error() {
        tracing::warn!(code = %response.error_code, "the controller gave no producer ids");
        return None;
    }
    let start = response.producer_id_start;
    Some(start..start + i64::from(response.producer_id_len))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::oneshot;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const NEVER: Duration = Duration::from_secs(60);
    const TRY_AGAIN: Result<ProducerId, ErrorCode> = Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);

    #[tokio::test]
    async fn nobody_waits_long_for_a_silent_controller_and_its_late_answer_is_not_lost() {
        let (ids, asked) = (ProducerIds::default(), AtomicUsize::new(0));
        let (answer, mut answered) = oneshot::channel();
        let ask = || {
            asked.fetch_add(1, Ordering::Relaxed);
            let answered = std::mem::replace(&mut answered, oneshot::channel().1);
            async { answered.await.ok() }
        };
        let first = ids.next_within(SOON, ask);
        let others = join_all((0..9).map(|_| ids.next_within(SOON, || async { panic!("twice") })));
        let (first, others) =
            tokio::time::timeout(NEVER, async { tokio::join!(first, others) }).await.unwrap();
        assert_eq!(first, TRY_AGAIN);
        assert_eq!(others, [TRY_AGAIN; 9]);
        answer.send(5..7).unwrap();
        for id in [5, 6] {
            let next = ids.next_within(NEVER, || async { panic!("it has answered") }).await;
            assert_eq!(next, Ok(ProducerId(id)));
        }
        assert_eq!(asked.into_inner(), 1);
    }

    #[tokio::test]
    async fn one_block_is_for_all_who_wait_and_the_next_for_those_who_are_left() {
        let (ids, blocks) = (ProducerIds::default(), AtomicUsize::new(0));
        let ask = || {
            let start = 10 * i64::try_from(blocks.fetch_add(1, Ordering::Relaxed)).unwrap();
            async move {
                tokio::task::yield_now().await;
                Some(start..start + 2)
            }
        };
        let taken = join_all((0..3).map(|_| ids.next_within(NEVER, ask))).await;
        assert_eq!(taken, [0, 1, 10].map(|id| Ok(ProducerId(id))));
        assert_eq!(blocks.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn all_who_wait_are_told_when_there_is_no_block() {
        let ids = ProducerIds::default();
        let refused = join_all((0..3).map(|_| ids.next_within(NEVER, || async { None }))).await;
        assert_eq!(refused, [TRY_AGAIN; 3]);
        assert_eq!(ids.next_within(NEVER, || async { Some(1..2) }).await, Ok(ProducerId(1)));
    }
}
