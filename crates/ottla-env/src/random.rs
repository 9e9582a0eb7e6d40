//! Identifiers that nobody else has. Shell: from the operating system's random source.

use std::io;

use ottla_base::Uuid;

use crate::sys;

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
