//! What a broker asks the controller, and how the controller decides it: the same, whether the request came over a socket or
//! not. Shell.

use ottla_base::ErrorCode;
use ottla_metadata::Rejection;
use ottla_metadata::controller::BrokerEpoch;
use ottla_protocol::Request;
use ottla_protocol::messages::create_topics_response::CreatableTopicResult;
use ottla_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest,
    AlterPartitionResponse, AssignReplicasToDirsRequest, AssignReplicasToDirsResponse,
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    BrokerRegistrationResponse, ControllerRegistrationRequest, ControllerRegistrationResponse,
    CreateTopicsRequest, CreateTopicsResponse,
};
use ottla_quorum::{Quorum, SubmitError};

use crate::handlers::submit_error;

/// A request that a broker makes by itself.
pub(crate) trait ControllerRequest: Request + Clone + Send + Sync + 'static {
    /// What this node's controller says; NOT_CONTROLLER if it is not the active one.
    ///
    /// `version` is the request's.
    fn decide(self, quorum: &Quorum, version: i16) -> impl Future<Output = Self::Response> + Send;

    /// The error of an answer as a whole.
    fn error_of(response: &Self::Response) -> ErrorCode;
}

/// The code of a refusal, of whatever kind. Brokers are told no messages; they are for the log.
fn refusal<T>(
    asked: &str,
    result: Result<Result<T, Rejection>, SubmitError>,
) -> Result<T, ErrorCode> {
    match result {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(rejection)) => {
            tracing::warn!(%rejection, "{asked} refused");
            Err(rejection.code)
        }
        Err(error) => Err(submit_error(&error)),
    }
}

impl ControllerRequest for BrokerRegistrationRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> BrokerRegistrationResponse {
        match refusal("a broker's registration is", quorum.register_broker(self).await) {
            Ok(BrokerEpoch(broker_epoch)) => {
                BrokerRegistrationResponse { broker_epoch, ..BrokerRegistrationResponse::default() }
            }
            Err(error_code) => {
                BrokerRegistrationResponse { error_code, ..BrokerRegistrationResponse::default() }
            }
        }
    }

    fn error_of(response: &BrokerRegistrationResponse) -> ErrorCode {
        response.error_code
    }
}

impl ControllerRequest for BrokerHeartbeatRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> BrokerHeartbeatResponse {
        refusal("a broker's heartbeat is", quorum.broker_heartbeat(self).await).unwrap_or_else(
            |error_code| BrokerHeartbeatResponse {
                error_code,
                ..BrokerHeartbeatResponse::default()
            },
        )
    }

    fn error_of(response: &BrokerHeartbeatResponse) -> ErrorCode {
        response.error_code
    }
}

impl ControllerRequest for AlterPartitionRequest {
    async fn decide(self, quorum: &Quorum, version: i16) -> AlterPartitionResponse {
        quorum.alter_partition(self, version).await.unwrap_or_else(|error| AlterPartitionResponse {
            error_code: submit_error(&error),
            ..AlterPartitionResponse::default()
        })
    }

    fn error_of(response: &AlterPartitionResponse) -> ErrorCode {
        response.error_code
    }
}

impl ControllerRequest for AssignReplicasToDirsRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> AssignReplicasToDirsResponse {
        let decided = quorum.assign_replicas_to_dirs(self).await;
        refusal("where replicas are is", decided).unwrap_or_else(|error_code| {
            AssignReplicasToDirsResponse { error_code, ..AssignReplicasToDirsResponse::default() }
        })
    }

    fn error_of(response: &AssignReplicasToDirsResponse) -> ErrorCode {
        response.error_code
    }
}

impl ControllerRequest for AllocateProducerIdsRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> AllocateProducerIdsResponse {
        quorum.allocate_producer_ids(self).await.unwrap_or_else(|error| {
            AllocateProducerIdsResponse {
                error_code: submit_error(&error),
                ..AllocateProducerIdsResponse::default()
            }
        })
    }

    fn error_of(response: &AllocateProducerIdsResponse) -> ErrorCode {
        response.error_code
    }
}

impl ControllerRequest for ControllerRegistrationRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> ControllerRegistrationResponse {
        match quorum.register_controller(self).await {
            Ok(()) => ControllerRegistrationResponse::default(),
            Err(error) => ControllerRegistrationResponse {
                error_code: submit_error(&error),
                error_message: Some(error.to_string().into()),
                ..ControllerRegistrationResponse::default()
            },
        }
    }

    fn error_of(response: &ControllerRegistrationResponse) -> ErrorCode {
        response.error_code
    }
}

/// Topics that a broker wants by itself: those that are created automatically, and the cluster's own.
impl ControllerRequest for CreateTopicsRequest {
    async fn decide(self, quorum: &Quorum, _: i16) -> CreateTopicsResponse {
        let names: Vec<_> = self.topics.iter().map(|topic| topic.name.clone()).collect();
        quorum.create_topics(self).await.unwrap_or_else(|error| CreateTopicsResponse {
            topics: names
                .into_iter()
                .map(|name| CreatableTopicResult {
                    name,
                    error_code: submit_error(&error),
                    error_message: Some(error.to_string().into()),
                    ..CreatableTopicResult::default()
                })
                .collect(),
            ..CreateTopicsResponse::default()
        })
    }

    /// There is none for the whole; a controller that does not lead says so for each topic.
    fn error_of(response: &CreateTopicsResponse) -> ErrorCode {
        let is_refused =
            |topic: &CreatableTopicResult| topic.error_code == ErrorCode::NOT_CONTROLLER;
        if response.topics.iter().any(is_refused) {
            return ErrorCode::NOT_CONTROLLER;
        }
        ErrorCode::NONE
    }
}
