//! Drives a broker with clients that none of us wrote (shell).

pub(crate) mod fetch;
