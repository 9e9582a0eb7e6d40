//! Who is told about each new state of the cluster. Shell.

use std::fmt::Debug;
use std::sync::Arc;

use ottla_metadata::{Delta, Image};

/// Acts on changes of the cluster: makes the logs of new partitions, for one.
///
/// Called in the order of the log, never twice at the same time, and before the requests that caused a change are
/// answered. The first call is about everything that was there at the start, all of it as created. A publisher may
/// block; whoever waits for a metadata change waits for it.
pub trait Publisher: Debug + Send + Sync + 'static {
    fn publish(&self, image: &Arc<Image>, delta: &Delta);

    /// What was published is what everybody sees from now on. Must not block.
    fn visible(&self, delta: &Delta) {
        let _ = delta;
    }
}

/// Acts on nothing.
impl Publisher for () {
    fn publish(&self, _image: &Arc<Image>, _delta: &Delta) {}
}
