//! Which resources can be described.

use anyhow::Result;
use ottla_protocol::messages::ListConfigResourcesRequest;

use super::super::both::Both;
use super::alter_configs::set_for_both;
use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::versions;

const TYPES_SINCE: i16 = 1;

pub(super) fn run(both: &mut Both) -> Result<()> {
    set_for_both(both, CLIENT_METRICS, "listed", &[("interval.ms", "1000")])?;
    set_for_both(both, GROUP, "listed", &[("consumer.session.timeout.ms", "50000")])?;
    for version in versions::<ListConfigResourcesRequest>() {
        ask(both, version, &[])?;
        if version < TYPES_SINCE {
            continue;
        }
        for types in [
            &[TOPIC][..],
            &[BROKER],
            &[BROKER_LOGGER],
            &[CLIENT_METRICS],
            &[GROUP],
            &[GROUP, TOPIC],
            &[GROUP, GROUP],
            &[0],
            &[1],
            &[-1],
            &[127],
            &[TOPIC, 3],
        ] {
            ask(both, version, types)?;
        }
    }
    Ok(())
}

fn ask(both: &mut Both, version: i16, types: &[i8]) -> Result<()> {
    both.ask(version, &format!("types {types:?}"), |_| ListConfigResourcesRequest {
        resource_types: types.to_vec(),
    })?;
    Ok(())
}
