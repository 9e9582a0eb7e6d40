//! Administration: topics are created, deleted and described, and so is the cluster.

use std::collections::BTreeMap;

use ottla_base::{BrokerId, ErrorCode, Offset, TopicId, TopicPartition};
use ottla_protocol::ApiKey;
use ottla_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use ottla_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use ottla_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use ottla_protocol::messages::delete_topics_request::DeleteTopicState;
use ottla_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use ottla_protocol::messages::describe_quorum_request;
use ottla_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeQuorumRequest,
};

use crate::address::Address;
use crate::client::{Client, Target, TopicFilter};
use crate::error::ClientError;
use crate::metadata::Broker;

const METADATA_TOPIC: &str = "__cluster_metadata";

/// A topic to be created; what is `None` takes the cluster's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
    pub configs: Vec<(String, String)>,
}

/// What the cluster says of a topic that it has created; old brokers say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    pub name: String,
    pub id: Option<TopicId>,
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    pub id: Option<String>,
    pub controller: Option<BrokerId>,
    pub brokers: Vec<ClusterBroker>,
    /// Feature levels in force, `metadata.version` among them.
    pub features: BTreeMap<String, i16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterBroker {
    pub broker: Broker,
    /// Registered, but not allowed to lead. Old brokers do not tell of fenced ones at all.
    pub is_fenced: bool,
}

impl Client {
    /// Creates a topic. Of what is left open, the cluster decides.
    ///
    /// # Errors
    /// [`ClientError::Refused`], or what has kept the controller from being asked until the client's timeout: it may be
    /// there all the same. Where only an answer was lost, the next try is refused with TOPIC_ALREADY_EXISTS.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<CreatedTopic, ClientError> {
        let config = |(name, value): &(String, String)| CreatableTopicConfig {
            name: name.as_str().into(),
            value: Some(value.as_str().into()),
        };
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.name.as_str().into(),
                num_partitions: topic.partitions.unwrap_or(-1),
                replication_factor: topic.replication_factor.unwrap_or(-1),
                configs: topic.configs.iter().map(config).collect(),
                ..CreatableTopic::default()
            }],
            timeout_ms: self.timeout_ms(),
            ..CreateTopicsRequest::default()
        };
        let what = || format!("topic \"{}\" was not created", topic.name);
        self.persist(|| async {
            let response = self.send(Target::Controller, &request).await?;
            let Some(result) = response.topics.into_iter().next() else {
                return Err(ClientError::refused(what(), ErrorCode::UNKNOWN_SERVER_ERROR));
            };
            let message = result.error_message.map(|message| message.to_string());
            check(what(), result.error_code, message)?;
            Ok(CreatedTopic {
                name: result.name.to_string(),
                id: Some(result.topic_id).filter(|id| *id != TopicId::ZERO),
                partitions: Some(result.num_partitions).filter(|count| *count > 0),
                replication_factor: Some(result.replication_factor).filter(|count| *count > 0),
            })
        })
        .await
    }

    /// Deletes a topic with its records.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTopic`], also where an answer was lost and the next try finds it gone; else as
    /// [`Client::create_topic`].
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        const FIRST_WITH_TOPIC_STATES: i16 = 6;
        let what = || format!("topic \"{name}\" was not deleted");
        self.persist(|| async {
            let states = self.serves(ApiKey::DeleteTopics, FIRST_WITH_TOPIC_STATES).await?;
            let by_state = || DeleteTopicState { name: Some(name.into()), ..Default::default() };
            let request = DeleteTopicsRequest {
                topics: states.then(by_state).into_iter().collect(),
                topic_names: (!states).then(|| name.into()).into_iter().collect(),
                timeout_ms: self.timeout_ms(),
            };
            let response = self.send(Target::Controller, &request).await?;
            let result = response.responses.into_iter().next();
            let code = result.as_ref().map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |r| r.error_code);
            if code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
                return Err(ClientError::NoSuchTopic(name.into()));
            }
            let message = result.and_then(|result| result.error_message);
            check(what(), code, message.map(|message| message.to_string()))
        })
        .await
    }

    /// Lets a topic grow to so many partitions.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTopic`]; else as [`Client::create_topic`]. Where only an answer was lost, the next try is
    /// refused with INVALID_PARTITIONS.
    pub async fn create_partitions(&self, topic: &str, count: i32) -> Result<(), ClientError> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic { name: topic.into(), count, assignments: None }],
            timeout_ms: self.timeout_ms(),
            validate_only: false,
        };
        let what = || format!("topic \"{topic}\" did not grow");
        self.persist(|| async {
            let response = self.send(Target::Controller, &request).await?;
            let result = response.results.into_iter().next();
            let code = result.as_ref().map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |r| r.error_code);
            if code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
                return Err(ClientError::NoSuchTopic(topic.into()));
            }
            let message = result.and_then(|result| result.error_message);
            check(what(), code, message.map(|message| message.to_string()))
        })
        .await
    }

    /// Deletes the records of a partition before an offset, or all of them; returns where the partition begins now.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTopic`], [`ClientError::NoSuchPartition`], [`ClientError::Refused`], or what has kept the
    /// leader from being asked until the client's timeout.
    pub async fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Option<Offset>,
    ) -> Result<Offset, ClientError> {
        const ALL: i64 = -1;
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: (&*partition.topic).into(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: partition.partition.0,
                    offset: before.map_or(ALL, |offset| offset.0),
                }],
            }],
            timeout_ms: self.timeout_ms(),
        };
        let what = || format!("records of {partition} were not deleted");
        self.persist(|| async {
            let topic = self.topic(&partition.topic).await?;
            let known = topic.partitions.get(&partition.partition.0);
            let known = known.ok_or_else(|| ClientError::NoSuchPartition(partition.clone()))?;
            let leaderless = || ClientError::refused(what(), ErrorCode::LEADER_NOT_AVAILABLE);
            let leader = known.leader.ok_or_else(leaderless)?;
            let response = self.send(Target::Broker(leader), &request).await?;
            let mut results = response.topics.into_iter().flat_map(|topic| topic.partitions);
            let Some(result) = results.next() else {
                return Err(ClientError::refused(what(), ErrorCode::UNKNOWN_SERVER_ERROR));
            };
            check(what(), result.error_code, None)?;
            Ok(Offset(result.low_watermark))
        })
        .await
    }

    /// The cluster's brokers, who leads its controllers, and its features. What an old broker cannot say is left out.
    ///
    /// # Errors
    /// When no broker answers, or one refuses.
    pub async fn describe_cluster(&self) -> Result<Cluster, ClientError> {
        let features = self.versions(Target::Any).await?.finalized_features;
        match self.describe_cluster_itself().await {
            Ok(cluster) => {
                // What DescribeCluster calls the controller is any broker that forwards to it, where there is a quorum.
                let controller = match self.active_controller().await {
                    Err(error) if error.is_unsupported() => cluster.controller,
                    active => active.unwrap_or(None),
                };
                Ok(Cluster { features, controller, ..cluster })
            }
            Err(error) if error.is_unsupported() => {
                self.refresh(TopicFilter::None).await?;
                Ok(Cluster { features, ..self.cluster_by_metadata() })
            }
            Err(error) => Err(error),
        }
    }

    async fn describe_cluster_itself(&self) -> Result<Cluster, ClientError> {
        const FIRST_WITH_FENCED_BROKERS: i16 = 2;
        self.persist(|| async {
            let request = DescribeClusterRequest {
                include_fenced_brokers: self
                    .serves(ApiKey::DescribeCluster, FIRST_WITH_FENCED_BROKERS)
                    .await?,
                ..DescribeClusterRequest::default()
            };
            let response = self.send(Target::Any, &request).await?;
            let message = response.error_message.map(|message| message.to_string());
            check("describing the cluster".to_owned(), response.error_code, message)?;
            let controller = BrokerId(response.controller_id);
            Ok(Cluster {
                id: Some(response.cluster_id.to_string()),
                controller: Some(controller).filter(|id| *id != BrokerId::NONE),
                brokers: response.brokers.into_iter().filter_map(cluster_broker).collect(),
                features: BTreeMap::new(),
            })
        })
        .await
    }

    /// Who leads the quorum; `None` while nobody does.
    async fn active_controller(&self) -> Result<Option<BrokerId>, ClientError> {
        let partition = describe_quorum_request::PartitionData { partition_index: 0 };
        let request = DescribeQuorumRequest {
            topics: vec![describe_quorum_request::TopicData {
                topic_name: METADATA_TOPIC.into(),
                partitions: vec![partition],
            }],
        };
        let response = self.send(Target::Any, &request).await?;
        check("describing the quorum".to_owned(), response.error_code, None)?;
        let mut partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
        let leader = partitions.next().map(|partition| BrokerId(partition.leader_id));
        Ok(leader.filter(|id| *id != BrokerId::NONE))
    }

    fn cluster_by_metadata(&self) -> Cluster {
        let metadata = self.metadata();
        let brokers = metadata.brokers.values().cloned();
        Cluster {
            id: metadata.cluster_id.clone(),
            controller: metadata.controller,
            brokers: brokers.map(|broker| ClusterBroker { broker, is_fenced: false }).collect(),
            features: BTreeMap::new(),
        }
    }

    /// Whether the brokers know this version of a request.
    async fn serves(&self, api: ApiKey, version: i16) -> Result<bool, ClientError> {
        let versions = self.versions(Target::Controller).await?;
        Ok(versions.apis.get(&api.key()).is_some_and(|(_, highest)| version <= *highest))
    }

    fn timeout_ms(&self) -> i32 {
        i32::try_from(self.options().request_timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

pub(crate) fn check(
    what: String,
    code: ErrorCode,
    message: Option<String>,
) -> Result<(), ClientError> {
    if code == ErrorCode::NONE { Ok(()) } else { Err(ClientError::Refused { what, code, message }) }
}

fn cluster_broker(broker: DescribeClusterBroker) -> Option<ClusterBroker> {
    let address = Address { host: broker.host.to_string(), port: u16::try_from(broker.port).ok()? };
    let rack = broker.rack.map(|rack| rack.to_string());
    let is_fenced = broker.is_fenced;
    Some(ClusterBroker {
        broker: Broker { id: BrokerId(broker.broker_id), address, rack },
        is_fenced,
    })
}
