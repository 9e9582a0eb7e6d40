//! What stands in front of every request and response.

pub use crate::generated::header::*;
