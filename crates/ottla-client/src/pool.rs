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
    /// The connection of a key, opened to `address` if there is none that works. Whoever has less patience than that takes may
    /// drop this: the connection will be there for the next who asks.
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
        let mut slot = slot.lock_owned().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_failed()) {
            return Ok(Arc::clone(connection));
        }
        let (address, client_id, speaker) = (address.clone(), Arc::clone(client_id), self.speaker);
        let opening = tokio::spawn(async move {
            let opened = Connection::open(&address, client_id, speaker, limit).await;
            let connection = Arc::new(opened?);
            *slot = Some(Arc::clone(&connection));
            Ok(connection)
        });
        match opening.await {
            Ok(opened) => opened,
            // The runtime ends, and this with it.
            Err(_) => std::future::pending().await,
        }
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

#[cfg(test)]
mod tests {
    use ottla_protocol::frame::encode_response;
    use ottla_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
    use ottla_protocol::{ApiKey, Message as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn answer_versions(stream: &mut TcpStream) {
        let len = stream.read_u32().await.unwrap();
        let mut request = vec![0; usize::try_from(len).unwrap()];
        stream.read_exact(&mut request).await.unwrap();
        let (version, response) =
            (*ApiVersionsRequest::VERSIONS.end(), ApiVersionsResponse::default());
        let answer = encode_response(ApiKey::ApiVersions, version, 0, &response).unwrap();
        stream.write_all(&answer.bytes).await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_is_opened_even_if_whoever_asked_first_has_no_patience() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = Address { host: "127.0.0.1".to_owned(), port };
        let pool = Pool::default();
        let (client_id, limit) = ("test".into(), Duration::from_secs(10));
        let ask = || pool.connection((), &address, &client_id, limit);
        let (mut accepted, _) = tokio::select! {
            biased;
            opened = ask() => panic!("nobody has answered: {opened:?}"),
            accepted = listener.accept() => accepted.unwrap(),
        };
        answer_versions(&mut accepted).await;
        // Nobody would answer on another one.
        ask().await.unwrap();
    }
}
