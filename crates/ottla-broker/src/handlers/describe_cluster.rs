//! DescribeCluster (key 60), versions 0–2: brokers, controller and cluster id.
//!
//! - v1: endpoint type (1 brokers, 2 controllers). v2: fenced brokers on request.
//! - A broker names itself as the controller, as it carries there what is meant for it; a controller names the controllers,
//!   and the one that leads them.
//! - A broker listener answers only for brokers, a controller listener only for controllers:
//!   MISMATCHED_ENDPOINT_TYPE; other types are UNSUPPORTED_ENDPOINT_TYPE. v0, which cannot say a type: INVALID_REQUEST.
//! - Known difference: a listener that serves clients and controllers, which Apache Kafka has not, answers for both
//!   (`--bootstrap-server`, `--bootstrap-controller`).

use ottla_base::{BrokerId, ErrorCode};
use ottla_metadata::{Broker, Controller, Image};
use ottla_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use ottla_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

use super::{Context, authorized};
use crate::listener::{Listener, Role};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;
const TYPES_SINCE: i16 = 1;

pub(super) fn handle(
    context: &Context,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let endpoint_type = request.endpoint_type;
    if !answers_for(&context.listener, endpoint_type) {
        return refuse(context, endpoint_type);
    }
    let image = context.broker.image();
    let (nodes, controller_id) = if endpoint_type == CONTROLLERS {
        (controllers(context, &image), quorum_leader(context))
    } else {
        (brokers(context, &image, &request), context.controller_id(&image))
    };
    // One that cannot be reached here would only confuse.
    let is_named = nodes.iter().any(|node| node.broker_id == controller_id);
    DescribeClusterResponse {
        endpoint_type,
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

fn answers_for(listener: &Listener, endpoint_type: i8) -> bool {
    match endpoint_type {
        BROKERS => listener.role == Role::Broker,
        CONTROLLERS => listener.serves_controllers,
        _ => false,
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
    // Others may have a listener for controllers alone, which is called by another name than one that clients share.
    let is_shared = context.listener.role == Role::Broker;
    let node = |controller: &Controller| {
        let endpoints = &controller.endpoints;
        let same = endpoints.iter().find(|it| &*it.listener == context.endpoint_name());
        let endpoint = same.or_else(|| endpoints.first().filter(|_| is_shared))?;
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

fn refuse(context: &Context, endpoint_type: i8) -> DescribeClusterResponse {
    let (error_code, message) = refusal(context.listener.role, context.version, endpoint_type);
    DescribeClusterResponse {
        error_code,
        error_message: Some(message.into()),
        ..DescribeClusterResponse::default()
    }
}

/// Kafka's codes and words.
fn refusal(role: Role, version: i16, endpoint_type: i8) -> (ErrorCode, String) {
    let (error_code, message) = if [BROKERS, CONTROLLERS].contains(&endpoint_type) {
        let (sent_to, wanted) = match role {
            Role::Broker => ("BROKER", "CONTROLLER"),
            Role::Controller => ("CONTROLLER", "BROKER"),
        };
        let message = format!(
            "The request was sent to an endpoint of type {sent_to}, but we wanted an endpoint of type {wanted}"
        );
        (ErrorCode::MISMATCHED_ENDPOINT_TYPE, message)
    } else {
        let message = format!("Unsupported endpoint type {endpoint_type}");
        (ErrorCode::UNSUPPORTED_ENDPOINT_TYPE, message)
    };
    (if version >= TYPES_SINCE { error_code } else { ErrorCode::INVALID_REQUEST }, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::unused as listener;

    #[test]
    fn a_listener_answers_for_what_it_serves() {
        let types_of = |role, serves_controllers| {
            let listener = listener(role, serves_controllers);
            [0, BROKERS, CONTROLLERS, 3].map(|it| answers_for(&listener, it))
        };
        assert_eq!(types_of(Role::Broker, false), [false, true, false, false]);
        assert_eq!(types_of(Role::Broker, true), [false, true, true, false]);
        assert_eq!(types_of(Role::Controller, true), [false, false, true, false]);
    }

    #[test]
    fn whoever_cannot_say_a_type_is_not_told_of_types() {
        let code = |version, endpoint_type| refusal(Role::Controller, version, endpoint_type).0;
        assert_eq!(code(1, BROKERS), ErrorCode::MISMATCHED_ENDPOINT_TYPE);
        assert_eq!(code(1, 3), ErrorCode::UNSUPPORTED_ENDPOINT_TYPE);
        assert_eq!(code(0, BROKERS), ErrorCode::INVALID_REQUEST);
    }
}
