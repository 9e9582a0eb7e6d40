//! The cluster: its id, its brokers, what may be done with it.

use anyhow::Result;
use ottla_protocol::messages::DescribeClusterRequest;

use super::super::both::Both;
use super::versions;

pub(super) fn run(both: &mut Both) -> Result<()> {
    for version in versions::<DescribeClusterRequest>() {
        let request = DescribeClusterRequest { endpoint_type: 1, ..Default::default() };
        both.ask(version, "the cluster", |_| request.clone())?;
        let operations =
            DescribeClusterRequest { include_cluster_authorized_operations: true, ..request };
        both.ask(version, "authorized operations", |_| operations.clone())?;
        for endpoint_type in [2, 0, 3, -1, i8::MAX].into_iter().filter(|_| version >= 1) {
            both.ask(version, &format!("endpoint type {endpoint_type}"), |_| {
                DescribeClusterRequest { endpoint_type, ..Default::default() }
            })?;
        }
        if version >= 2 {
            let fenced = DescribeClusterRequest { include_fenced_brokers: true, ..operations };
            both.ask(version, "fenced brokers, too", |_| fenced.clone())?;
        }
    }
    Ok(())
}
