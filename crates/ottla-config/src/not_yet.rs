//! What may be configured and formatted, but not served so far: the one place to take out what can
//! be (pure).

use crate::broker::BrokerConfig;

impl BrokerConfig {
    /// Why a node with this configuration is not started, if it is not, with the cure.
    #[must_use]
    pub fn not_yet(&self) -> Option<String> {
        let roles = self.process_roles;
        if !(roles.broker && roles.controller) {
            return Some(format!(
                "process.roles={roles} alone is not supported yet: a node here is broker and \
                 controller, set process.roles=broker,controller"
            ));
        }
        None
    }
}
