//! Every configuration property of a broker, a topic and a group, defined once, and what follows
//! from it: reading files, environment and command line; typed values; error messages;
//! DescribeConfigs; the reference page.
//!
//! Pure: callers read files and the environment, and hand in text. What is absent: any effect of
//! a property. A property is [`property::Status::Honoured`] when some other room reads it.

pub mod broker;
pub mod check;
mod cleaner;
pub mod client_metrics;
mod connections;
mod consistency;
pub mod describe;
pub mod dynamic;
mod endpoints;
pub mod environment;
pub mod group;
pub mod listener;
pub mod properties;
pub mod property;
mod quorum;
pub mod reference;
mod replica_selector;
pub mod settings;
pub mod table;
pub mod topic;
pub mod value;

pub use broker::{
    BrokerConfig, Loaded, LogFormat, LogLevel, Notice, Rejected, Severity, directories, load,
};
pub use check::Voter;
pub use cleaner::CleanerConfig;
pub use connections::ConnectionLimits;
pub use dynamic::Dynamic;
pub use listener::{Listener, SecurityProtocol};
pub use quorum::{Formation, ProcessRoles};
pub use replica_selector::ReplicaSelector;
pub use settings::{Formatted, Origin, Problem, Setting, Settings, Sources};
pub use topic::{CleanupPolicy, CompressionType, InvalidTopicConfig, TimestampType, TopicConfig};
pub use value::{Password, Value};
