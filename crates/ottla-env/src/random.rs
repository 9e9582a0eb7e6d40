//! Random numbers, and identifiers that nobody else has. Shell: from the operating system's random source.

use std::fmt::Debug;
use std::io;

use ottla_base::Uuid;

use crate::sys;

/// A source of random numbers, passed to a shell whose tests must know what it draws.
pub trait Random: Debug + Send + Sync {
    /// Fills all of `bytes`.
    ///
    /// # Errors
    /// When there are no random numbers; a part of `bytes` may be filled then.
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()>;
}

/// The operating system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        sys::random_bytes(bytes)
    }
}

/// A new identifier for a topic, a directory, a process or a cluster.
///
/// # Errors
/// When the operating system has no random numbers.
pub fn random_uuid() -> io::Result<Uuid> {
    loop {
        let mut bytes = [0; 16];
        sys::random_bytes(&mut bytes)?;
        if let Some(id) = Uuid::from_random_bytes(bytes) {
            return Ok(id);
        }
    }
}
