//! Connections that are opened when first needed, and again when one has failed.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::address::Address;
use crate::connection::{Connection, Speaker};
use crate::error::ClientError;

/// One connection for each key, which several may ask for at the same time.
#[derive(Debug)]
pub struct Pool<K> {
    slots: Mutex<HashMap<K, Slot>>,
    speaker: Speaker,
}

/// The lock is held while a connection is opened, so that concurrent requests open one, not many.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Connection>>>>;

impl<K> Default for Pool<K> {
    fn default() -> Self {
        Self::of(Speaker::Client)
    }
}

impl<K> Pool<K> {
    #[must_use]
    pub fn of(speaker: Speaker) -> Self {
        Self { slots: Mutex::default(), speaker }
    }
}

impl<K: Eq + Hash> Pool<K> {
    /// The connection of a key, opened to `address` if there is none that works.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn connection(
        &self,
        key: K,
        address: &Address,
        client_id: &Arc<str>,
        limit: Duration,
    ) -> Result<Arc<Connection>, ClientError> {
        let slot = self.slot(key);
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_failed()) {
            return Ok(Arc::clone(connection));
        }
        let opened = Connection::open(address, Arc::clone(client_id), self.speaker, limit);
        let connection = Arc::new(opened.await?);
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// The connection of a key, if one is open and works.
    pub async fn standing(&self, key: K) -> Option<Arc<Connection>> {
        let slot = self.slot(key);
        let slot = slot.lock().await;
        slot.as_ref().filter(|connection| !connection.is_failed()).cloned()
    }

    fn slot(&self, key: K) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key).or_default())
    }

    /// Any connection that is open and works.
    pub(crate) fn any(&self) -> Option<Arc<Connection>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.values().find_map(|slot| {
            let slot = slot.try_lock().ok()?;
            slot.as_ref().filter(|connection| !connection.is_failed()).cloned()
        })
    }
}
