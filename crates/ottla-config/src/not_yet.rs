//! What may be configured and formatted, but not served so far: the one place to take out what can
//! be (pure).

use crate::broker::BrokerConfig;
use crate::quorum::Formation;

impl BrokerConfig {
    /// Why a node with this configuration is not started, if it is not, with the cure.
    #[must_use]
    pub fn not_yet(&self) -> Option<String> {
        let roles = self.process_roles;
        if !(roles.broker && roles.controller) {
            return Some(format!(
                "process.roles={roles} alone is not supported yet: a node here is its own \
                 controller, set process.roles=broker,controller"
            ));
        }
        match self.formation() {
            Formation::Alone | Formation::StaticVoters => None,
            Formation::RecordedVoters => Some(
                "controller.quorum.bootstrap.servers names another controller, and one is \
                 supported so far: leave this node's own, or remove the property"
                    .to_owned(),
            ),
        }
    }
}
