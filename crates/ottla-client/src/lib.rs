//! A small asynchronous Kafka client: what brokers use among themselves and what the command line uses. Shell.
//!
//! It speaks to any Kafka cluster over plaintext TCP. [`Client`] finds brokers and sends single
//! requests in the highest version that both sides know; [`Producer`] and [`Consumer`] write and
//! read records on top of it, [`GroupConsumer`] reads as one of a group; [`Client`]'s further methods
//! administer topics, configuration and groups.
//!
//! What is absent: groups of the newer protocol (KIP-848), whose members let the coordinator assign; transactions
//! (reading what transactions wrote is here), TLS and SASL, replica selection by rack, and the check for truncation
//! of KIP-320.

#![allow(clippy::wildcard_enum_match_arm, reason = "a client treats what it does not know alike")]

mod accumulator;
mod address;
mod admin;
mod client;
mod configs;
mod connection;
mod consumer;
mod error;
mod groups;
mod metadata;
mod offsets;
mod partitioner;
mod pool;
mod producer;
mod retry;
mod versions;
mod visible;
mod wire;

pub use address::{Address, AddressError};
pub use admin::{Cluster, ClusterBroker, CreatedTopic, NewTopic};
pub use client::{Client, ClientOptions, Target, TopicFilter};
pub use configs::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource};
pub use connection::{Connection, Limits, Speaker};
pub use consumer::{
    Batch, ConsumedRecord, Consumer, ConsumerOptions, Fetched, GroupConsumer, GroupOptions,
    GroupPolled, Polled, Position, Receipt, Repositioned,
};
pub use error::ClientError;
pub use groups::{
    Committed, GroupDescription, GroupFilter, GroupMember, LastRebalance, ListedGroup, Outcomes,
};
pub use metadata::{Broker, Metadata, Partition, Topic};
pub use offsets::{Isolation, ListedOffset, OffsetQuery};
pub use ottla_records::{Compression, TimestampType};
pub use partitioner::{murmur2, partition_for_key};
pub use pool::Pool;
pub use producer::{Acks, Delivered, Producer, ProducerOptions, ProducerRecord, TooLarge};
pub use versions::BrokerVersions;
