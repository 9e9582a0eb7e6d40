//! The broker: listeners, connections, one handler per API, and the partitions they work on. Shell.
//!
//! The way of a request: `listener` → `connection` (with `frame`) → `handlers` → `replicas` → `answer`.
//!
//! What is absent: any decision about what a batch, a topic or a high watermark may be. Those are in
//! the pure rooms; this one moves bytes, waits and wakes.

mod adoption;
mod answer;
mod automatic_topics;
mod blocking;
mod broker;
mod cleaner;
mod configuration;
mod connection;
mod controller_channel;
mod controller_requests;
mod coordinators;
mod directory_reports;
mod fetch_session;
mod fetchers;
mod flush_reports;
mod follower_watch;
mod frame;
mod group_coordinator;
mod handlers;
mod handovers;
mod hang_ups;
mod hearsay;
mod http;
mod isr_changes;
mod joining;
mod lifecycle;
mod listener;
mod log_directories;
mod log_levels;
mod log_moves;
mod metrics;
mod node;
mod peers;
mod producer_ids;
mod replica;
mod replicas;
mod standing;
mod throttles;
mod topic_config;
mod topics;
mod waiters;

/// What a simulation needs to drive partitions without tasks and sockets.
#[doc(hidden)]
pub mod parts {
    pub use crate::broker::Registration;
    pub use crate::coordinators::{
        Coordinator, Event, LoadError, LogSettings, PartitionLog, ReplySender,
    };
    pub use crate::flush_reports::{FlushReports, decode as decode_flush_report};
    pub use crate::isr_changes::{IsrChanges, Waiting, request as alter_partition_request};
    pub use crate::replica::{
        AppendError, Errand, Fetched, Outboxes, Placed, Question, Replica, Served, Standing, Terms,
        Visible,
    };
    pub use crate::replicas::Replicas;
    pub use crate::topics::plan::{Incarnation, NamedLog, Partitions, Step};
}

pub use frame::{Frame, FrameError, FrameReader};
pub use joining::{Applicant, ControllerAddress, Introduction, Verdict, Wish};
pub use log_directories::{DataDirectories, DataDirectory, Unreadable};
pub use log_levels::{Apply, LogLevels, ROOT};
pub use node::{Address, Node, NodeOptions, UNWRITTEN_HOST, bind};
pub use ottla_quorum::{BEGUN_NAME, InitialVoter, RESERVE_NAME};
pub use standing::Standing;
