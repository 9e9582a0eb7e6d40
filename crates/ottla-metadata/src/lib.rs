//! The cluster's state as Kafka's metadata records tell it, and the controller's decisions about it. Pure.
//!
//! State is an [`Image`], changed only by applying a [`MetadataRecord`]; a [`Delta`] says what an
//! application changed. A decision ([`controller`]) reads an image and returns an [`Outcome`]:
//! records to append and the reply to give once they are committed.
//!
//! Absent: the log that the records are in, consensus, time and chance. Identifiers of new topics
//! and the seed of a placement come in as arguments.

pub mod controller;
mod delta;
pub mod feature;
mod image;
pub mod record;
pub mod topic_name;

pub use controller::{Outcome, Rejection};
pub use delta::{ConfigResource, Delta};
pub use image::{ApplyError, Broker, Controller, Endpoint, Image, LeaderTold, Partition, Topic};
pub use ottla_protocol::records::MetadataRecord;
