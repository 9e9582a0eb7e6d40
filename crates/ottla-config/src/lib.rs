//! Every configuration property of a broker, a topic and a group, defined once, and what follows
//! from it: reading files, environment and command line; typed values; error messages;
//! DescribeConfigs; the reference page.
//!
//! Pure: callers read files and the environment, and hand in text. What is absent: any effect of
//! a property. A property is [`property::Status::Honoured`] when some other room reads it.

pub mod check;
pub mod environment;
pub mod properties;
pub mod property;
pub mod table;
pub mod value;
