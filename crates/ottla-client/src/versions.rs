//! Which version of which request a broker understands. Pure.

use std::collections::BTreeMap;

use ottla_protocol::{ApiKey, Request};

use crate::address::Address;
use crate::error::ClientError;

/// What one broker said in its answer to ApiVersions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerVersions {
    /// By API key: the lowest and the highest version served.
    pub apis: BTreeMap<i16, (i16, i16)>,
    /// Feature levels in force over the whole cluster, `metadata.version` among them.
    pub finalized_features: BTreeMap<String, i16>,
}

impl BrokerVersions {
    /// The highest stable version that both sides speak, no higher than `at_most`.
    pub(crate) fn choose<R: Request>(
        &self,
        address: &Address,
        at_most: i16,
    ) -> Result<i16, ClientError> {
        let Some(&(lowest, highest)) = self.apis.get(&R::KEY.key()) else {
            return Err(ClientError::UnsupportedApi { address: address.clone(), api: R::KEY });
        };
        let ours = R::KEY.stable_versions();
        let ours = *ours.start()..=at_most.min(*ours.end());
        let version = highest.min(*ours.end());
        if lowest <= version && ours.contains(&version) {
            return Ok(version);
        }
        Err(ClientError::UnsupportedVersion {
            address: address.clone(),
            api: R::KEY,
            theirs: lowest..=highest,
            ours,
        })
    }

    /// Whether requests of this kind are served at all.
    #[must_use]
    pub fn serves(&self, api: ApiKey) -> bool {
        self.apis.contains_key(&api.key())
    }
}
