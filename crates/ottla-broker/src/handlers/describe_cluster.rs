//! DescribeCluster (key 60), versions 0–2: brokers, controller and cluster id.
//!
//! - v1: endpoint type (1 brokers, 2 controllers). v2: fenced brokers on request.
//! - A broker names itself as the controller, as it carries there what is meant for it; a controller names the controllers,
//!   and the one that leads them.
//! - A broker listener answers only for brokers, a controller listener only for controllers:
//!   MISMATCHED_ENDPOINT_TYPE; other types are UNSUPPORTED_ENDPOINT_TYPE.

use ottla_base::{BrokerId, ErrorCode};
use ottla_metadata::{Broker, Controller, Image};
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
    let (nodes, controller_id) = match context.listener.role {
        Role::Broker => (brokers(context, &image, &request), context.controller_id(&image)),
        Role::Controller => (controllers(context, &image), quorum_leader(context)),
    };
    // One that cannot be reached here would only confuse.
    let is_named = nodes.iter().any(|node| node.broker_id == controller_id);
    DescribeClusterResponse {
        endpoint_type: expected,
        cluster_id: context.broker.cluster_id.clone(),
        controller_id: if is_named { controller_id } else { BrokerId::NONE.0 },
        brokers: nodes,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            authorized::CLUSTER
        } else {
            authorized::NOT_ASKED
        },
        ..DescribeClusterResponse::default()
    }
}

fn brokers(
    context: &Context,
    image: &Image,
    request: &DescribeClusterRequest,
) -> Vec<DescribeClusterBroker> {
    let shown = image.brokers().filter(|broker| !broker.fenced || request.include_fenced_brokers);
    let node = |broker: &Broker| {
        let endpoint = broker.endpoint(context.endpoint_name())?;
        Some(DescribeClusterBroker {
            broker_id: broker.id.0,
            host: (&*endpoint.host).into(),
            port: endpoint.port.into(),
            rack: broker.rack.as_deref().map(Into::into),
            is_fenced: broker.fenced,
        })
    };
    shown.filter_map(node).collect()
}

fn controllers(context: &Context, image: &Image) -> Vec<DescribeClusterBroker> {
    let node = |controller: &Controller| {
        let mut endpoints = controller.endpoints.iter();
        let endpoint = endpoints.find(|it| &*it.listener == context.endpoint_name())?;
        Some(DescribeClusterBroker {
            broker_id: controller.id,
            host: (&*endpoint.host).into(),
            port: endpoint.port.into(),
            ..DescribeClusterBroker::default()
        })
    };
    image.controllers().filter_map(node).collect()
}

fn quorum_leader(context: &Context) -> i32 {
    context.broker.quorum.leader().borrow().map_or(BrokerId::NONE, |leader| leader.id).0
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
