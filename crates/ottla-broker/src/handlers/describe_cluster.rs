//! DescribeCluster (key 60), versions 0–2: brokers, controller and cluster id.
//!
//! - v1: endpoint type (1 brokers, 2 controllers). v2: fenced brokers on request.
//! - A broker listener answers only for brokers, a controller listener only for controllers:
//!   MISMATCHED_ENDPOINT_TYPE; other types are UNSUPPORTED_ENDPOINT_TYPE.

use ottla_base::ErrorCode;
use ottla_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use ottla_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

use super::{Context, authorized};
use crate::listener::Role;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) fn handle(
    context: &Context,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let expected = match context.listener.role {
        Role::Broker => BROKERS,
        Role::Controller => CONTROLLERS,
    };
    if request.endpoint_type != expected {
        return refuse(&request, expected);
    }
    let image = context.broker.image();
    let brokers = image.brokers().filter(|broker| !broker.fenced || request.include_fenced_brokers);
    DescribeClusterResponse {
        endpoint_type: expected,
        cluster_id: context.broker.cluster_id.clone(),
        controller_id: context.broker.node_id.0,
        brokers: brokers
            .filter_map(|broker| {
                let endpoint = broker.endpoint(context.endpoint_name())?;
                Some(DescribeClusterBroker {
                    broker_id: broker.id.0,
                    host: (&*endpoint.host).into(),
                    port: endpoint.port.into(),
                    rack: broker.rack.as_deref().map(Into::into),
                    is_fenced: broker.fenced,
                })
            })
            .collect(),
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            authorized::CLUSTER
        } else {
            authorized::NOT_ASKED
        },
        ..DescribeClusterResponse::default()
    }
}

fn refuse(request: &DescribeClusterRequest, expected: i8) -> DescribeClusterResponse {
    let (error_code, message) = if [BROKERS, CONTROLLERS].contains(&request.endpoint_type) {
        let name = |endpoint| if endpoint == BROKERS { "BROKER" } else { "CONTROLLER" };
        let message = format!(
            "The request was sent to an endpoint of type {}, but we wanted an endpoint of type {}",
            name(expected),
            name(request.endpoint_type)
        );
        (ErrorCode::MISMATCHED_ENDPOINT_TYPE, message)
    } else {
        (
            ErrorCode::UNSUPPORTED_ENDPOINT_TYPE,
            format!("Unsupported endpoint type {}", request.endpoint_type),
        )
    };
    DescribeClusterResponse {
        error_code,
        error_message: Some(message.into()),
        ..DescribeClusterResponse::default()
    }
}
