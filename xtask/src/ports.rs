//! Ports that stay free while a node is away (shell).
//!
//! A port that the system would also give to a client's own end is no good: a client that tries to reach a node that
//! is away may then be given the node's port, connect to itself, and keep the node from coming back.

use std::net::TcpListener;
use std::ops::Range;
use std::sync::Mutex;

use anyhow::{Result, ensure};

/// Below what Linux gives to clients (`ip_local_port_range` begins with 32768).
const PORTS: Range<u16> = 20_000..32_000;

/// How far into the range the searches of this process have come.
static SEARCHED: Mutex<usize> = Mutex::new(0);

/// So many free ports. Runs that begin at the same time begin their search in different places, and within a run no
/// search gives again what one before it gave, until it has come round.
pub(crate) fn free(count: usize) -> Result<Vec<u16>> {
    let span = usize::from(PORTS.end - PORTS.start);
    let mut searched = SEARCHED.lock().expect("no search panics");
    let start = (usize::try_from(std::process::id())? * 16 + *searched) % span;
    let mut found = Vec::new();
    for port in PORTS.cycle().skip(start).take(span) {
        if found.len() == count {
            break;
        }
        *searched += 1;
        if is_free(port) {
            found.push(port);
        }
    }
    ensure!(found.len() == count, "there are not enough free ports in {PORTS:?}");
    Ok(found)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_none_that_the_system_gives_to_clients() {
        let mut ports = free(6).unwrap();
        ports.extend(free(6).unwrap());
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 12);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }
}
