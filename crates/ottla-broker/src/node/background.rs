//! What a broker does beside serving requests, until its node stops. Shell.

use std::sync::Arc;
use std::time::Duration;

use ottla_config::BrokerConfig;
use tokio::sync::watch;
use tracing::warn;

use super::Node;
use super::data::Data;
use super::options::milliseconds;
use crate::broker::{Broker, Registration};
use crate::follower_watch;
use crate::handovers;
use crate::hearsay;
use crate::isr_changes;
use crate::lifecycle::Lifecycle;
use crate::listener::stopped;
use crate::peers::BrokerAddresses;

impl Node {
    /// Lets replicas ask and tell other brokers and the controller, as this broker is known to them now.
    pub(super) fn begin_replication(
        &mut self,
        data: &Data,
        registration: Registration,
        addresses: &Arc<BrokerAddresses>,
    ) {
        let outboxes = &data.replicas.outboxes;
        outboxes.flush_reports.begin(registration, Arc::clone(addresses));
        data.fetchers.begin(registration, Arc::clone(addresses));
        let sender = isr_changes::Sender {
            registration,
            controller: Arc::clone(&self.broker.controller),
            replicas: Arc::clone(&data.replicas),
            clock: Arc::clone(&data.clock),
        };
        self.spawn(|stopping| Arc::clone(&outboxes.isr_changes).send(sender, stopping));
        let (replicas, clock) = (Arc::clone(&data.replicas), Arc::clone(&data.clock));
        self.spawn(|stopping| follower_watch::watch_followers(replicas, clock, stopping));
    }

    /// What goes on for as long as clients are served.
    pub(super) fn begin_upkeep(
        &mut self,
        data: &Data,
        config: &BrokerConfig,
        lifecycle: &Arc<Lifecycle>,
        registration: Registration,
        addresses: Arc<BrokerAddresses>,
    ) {
        let broker = Arc::clone(&self.broker);
        self.begin_retention(config);
        self.spawn(|stopping| Arc::clone(lifecycle).keep_alive(stopping));
        let parts = hearsay::Parts {
            node_id: config.node_id,
            quorum: Arc::clone(&broker.quorum),
            controller: Arc::clone(&broker.controller),
            replicas: Arc::clone(&data.replicas),
            topics: Arc::clone(&data.topics),
            addresses,
        };
        let is_unheard = lifecycle.is_unheard();
        self.spawn(|stopping| Arc::clone(&broker.hearsay).listen(parts, is_unheard, stopping));
        let parts = handovers::Parts {
            node_id: config.node_id,
            quorum: Arc::clone(&broker.quorum),
            directories: Arc::clone(&data.directories),
            replicas: Arc::clone(&data.replicas),
            fetchers: Arc::clone(&data.fetchers),
            reports: Arc::clone(&data.reports),
        };
        self.spawn(|stopping| Arc::clone(&data.replicas.outboxes.handovers).run(parts, stopping));
        let controller = Arc::clone(&broker.controller);
        self.spawn(|stopping| Arc::clone(&data.reports).send(controller, registration, stopping));
        self.spawn(|stopping| Arc::clone(&data.topics).make_missing_logs(stopping));
        self.spawn(|stopping| Arc::clone(&data.moves).run(stopping));
    }

    fn begin_retention(&mut self, config: &BrokerConfig) {
        let first = milliseconds(config.log_initial_task_delay_ms);
        let interval = milliseconds(config.log_retention_check_interval_ms.max(1));
        let broker = Arc::clone(&self.broker);
        let work = move || enforce_retention(Arc::clone(&broker));
        self.spawn(|stopping| periodically(first, interval, stopping, work));
    }
}

/// Does something for the first time after `first`, and then again whenever `interval` has passed, until the node stops.
async fn periodically<Work: Future<Output = ()>>(
    first: Duration,
    interval: Duration,
    mut stopping: watch::Receiver<bool>,
    work: impl Fn() -> Work,
) {
    let mut wait = first;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => work().await,
            () = stopped(&mut stopping) => return,
        }
        wait = interval;
    }
}

/// Deletes what is older or larger than its topic allows.
async fn enforce_retention(broker: Arc<Broker>) {
    let done = tokio::task::spawn_blocking(move || {
        let now = broker.clock.now_ms();
        broker.replicas.all().iter().for_each(|replica| replica.enforce_retention(now));
    });
    if let Err(error) = done.await {
        warn!(%error, "retention did not run");
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn periodic_work_begins_after_its_own_delay_and_ends_with_the_node() {
        let (first, interval) = (Duration::ZERO, Duration::from_secs(3600));
        let (stop, stopping) = watch::channel(false);
        let (done, mut runs) = mpsc::unbounded_channel();
        let work = move || {
            let done = done.clone();
            async move { done.send(()).unwrap() }
        };
        let task = tokio::spawn(periodically(first, interval, stopping, work));
        runs.recv().await.unwrap();
        stop.send(true).unwrap();
        task.await.unwrap();
        assert!(runs.recv().await.is_none(), "the second run is an hour away");
    }
}
