//! ListConfigResources (key 74), versions 0–1: which resources may be described.
//!
//! - v0: client-metrics subscriptions only. v1: any types; none means all of them.
//! - Subscriptions and groups are those for which something is set; topics are all there are, and
//!   brokers all that have the listener that the client came by.

use std::collections::BTreeSet;

use ottla_base::ErrorCode;
use ottla_metadata::{ConfigResource, Image};
use ottla_protocol::messages::list_config_resources_response::ConfigResource as Listed;
use ottla_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use super::Context;

/// As v0 knows it.
const ONLY_SUBSCRIPTIONS: &[i8] = &[ConfigResource::CLIENT_METRICS];

pub(super) fn handle(
    context: &Context,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let asked: &[i8] = match &*request.resource_types {
        _ if context.version == 0 => ONLY_SUBSCRIPTIONS,
        [] => &ConfigResource::KINDS,
        asked => asked,
    };
    // Each kind once: a request may name one many times, and may be a hundred megabytes.
    let kinds: BTreeSet<i8> = asked.iter().copied().collect();
    if kinds.iter().any(|kind| !ConfigResource::KINDS.contains(kind)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UNSUPPORTED_VERSION,
            ..ListConfigResourcesResponse::default()
        };
    }
    let image = context.broker.image();
    ListConfigResourcesResponse {
        config_resources: list(&image, context.endpoint_name(), &kinds),
        ..ListConfigResourcesResponse::default()
    }
}

fn list(image: &Image, listener: &str, kinds: &BTreeSet<i8>) -> Vec<Listed> {
    let of_kind = |kind: &i8| names(image, listener, *kind).into_iter().map(listed(*kind));
    let mut resources: Vec<Listed> = kinds.iter().flat_map(of_kind).collect();
    resources.sort_by(|a, b| {
        (a.resource_type, &a.resource_name).cmp(&(b.resource_type, &b.resource_name))
    });
    resources
}

fn listed(kind: i8) -> impl Fn(String) -> Listed {
    move |name| Listed { resource_name: name.into(), resource_type: kind }
}

fn names(image: &Image, listener: &str, kind: i8) -> Vec<String> {
    match kind {
        ConfigResource::TOPIC => image.topics().map(|topic| topic.name.to_string()).collect(),
        ConfigResource::BROKER | ConfigResource::BROKER_LOGGER => {
            let reached = image.brokers().filter(|broker| broker.endpoint(listener).is_some());
            reached.map(|broker| broker.id.to_string()).collect()
        }
        _ => {
            let resources = image.config_resources().filter(|resource| resource.kind == kind);
            resources.map(|resource| resource.name.to_string()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_protocol::records::RegisterBrokerRecord;
    use ottla_protocol::records::register_broker_record::BrokerEndpoint;

    use super::*;

    #[test]
    fn a_broker_is_listed_where_its_listener_is_the_one_that_the_client_came_by() {
        let broker = |broker_id, listener: &'static str| {
            let end_point = BrokerEndpoint { name: listener.into(), ..BrokerEndpoint::default() };
            let end_points = vec![end_point];
            RegisterBrokerRecord { broker_id, end_points, ..RegisterBrokerRecord::default() }.into()
        };
        let mut image = Image::new("a-cluster");
        for record in [broker(1, "INSIDE"), broker(2, "OUTSIDE")] {
            image.apply(&record).unwrap();
        }
        let kinds = BTreeSet::from([ConfigResource::BROKER, ConfigResource::BROKER_LOGGER]);
        let listed = list(&image, "OUTSIDE", &kinds);
        assert!(listed.iter().all(|resource| &*resource.resource_name == "2"), "{listed:?}");
        assert_eq!(listed.len(), 2);
    }
}
