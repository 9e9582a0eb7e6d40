//! What other brokers know of this broker's partitions, and the active controller could not tell it. Shell, around a map.
//!
//! A broker that is cut off from the active controller alone is fenced, and gets no metadata: it would go on as the leader
//! that it was, with clients that no follower's fetch will ever complete a produce for (`docs/decisions/021-hearsay.md`). So,
//! while no controller answers its heartbeats, it asks the other brokers in turn with Kafka's Metadata. A later leader epoch
//! than it knows is a fact of the metadata log, whoever tells it: from then on the broker follows that leader, and tells
//! clients of it. Where nobody knows of a later one, as when all controllers are gone, it goes on leading.
//!
//! Invariants: an amended image differs from the metadata in partitions only of which a later leader epoch was heard; what
//! names this broker as leader is not believed, as only its own metadata tells it with which ISR it leads.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use ottla_base::{BrokerId, LeaderEpoch, PartitionIndex, TopicId};
use ottla_client::Limits;
use ottla_metadata::{Image, LeaderTold};
use ottla_protocol::messages::metadata_request::MetadataRequestTopic;
use ottla_protocol::messages::{MetadataRequest, MetadataResponse};
use ottla_quorum::Quorum;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::controller_channel::ControllerChannel;
use crate::listener::stopped;
use crate::peers::{BrokerAddresses, PeerError, Purpose};
use crate::replica::Replica;
use crate::replicas::Replicas;
use crate::topics::Topics;

type Key = (TopicId, PartitionIndex);

/// Between two questions to others, one of whom is asked at a time.
const PAUSE: Duration = Duration::from_millis(500);
/// How long another broker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What was heard, as far as the metadata has not said it since.
#[derive(Debug, Default)]
pub(crate) struct Hearsay {
    told: Mutex<HashMap<Key, LeaderTold>>,
    /// None while nothing was heard.
    amended: ArcSwapOption<Amended>,
}

/// An image, and the same with what was heard.
#[derive(Debug)]
struct Amended {
    of: Arc<Image>,
    image: Arc<Image>,
}

impl Hearsay {
    /// This image with what was heard beyond it.
    pub(crate) fn amend(&self, image: Arc<Image>) -> Arc<Image> {
        match &*self.amended.load() {
            None => image,
            Some(amended) if Arc::ptr_eq(&amended.of, &image) => Arc::clone(&amended.image),
            Some(_) => self.amend_anew(&mut self.told.lock(), image),
        }
    }

    /// Forgets what the metadata says by now.
    fn amend_anew(&self, told: &mut HashMap<Key, LeaderTold>, image: Arc<Image>) -> Arc<Image> {
        told.retain(|key, told| is_later(&image, *key, told.leader_epoch));
        if told.is_empty() {
            self.amended.store(None);
            return image;
        }
        let of_each = told.iter().map(|(&(topic, index), told)| (topic, index, told));
        let amended = Arc::new(image.with_later_leaders(of_each));
        self.amended.store(Some(Arc::new(Amended { of: image, image: Arc::clone(&amended) })));
        amended
    }

    /// Takes another broker's answer: the image as it is with that, and the partitions of which a later leader epoch was
    /// heard than ever before.
    fn hear(
        &self,
        me: BrokerId,
        image: Arc<Image>,
        answer: &MetadataResponse,
    ) -> (Arc<Image>, Vec<Key>) {
        let mut told = self.told.lock();
        let mut news = Vec::new();
        for (key, heard) in leaders_in(answer) {
            let is_later_than_heard =
                told.get(&key).is_none_or(|before| before.leader_epoch < heard.leader_epoch);
            let is_later = is_later(&image, key, heard.leader_epoch) && is_later_than_heard;
            if is_later && heard.leader != me {
                told.insert(key, heard);
                news.push(key);
            }
        }
        (self.amend_anew(&mut told, image), news)
    }

    fn has_heard_of(&self, key: Key) -> bool {
        self.told.lock().contains_key(&key)
    }
}

/// Whether an image knows the partition, and only of earlier leader epochs.
fn is_later(image: &Image, (topic, index): Key, epoch: LeaderEpoch) -> bool {
    image.partition(topic, index).is_some_and(|known| known.leader_epoch < epoch)
}

fn leaders_in(answer: &MetadataResponse) -> impl Iterator<Item = (Key, LeaderTold)> {
    answer.topics.iter().filter(|topic| !topic.error_code.is_error()).flat_map(|topic| {
        topic.partitions.iter().map(|it| {
            let told = LeaderTold {
                leader: BrokerId(it.leader_id),
                leader_epoch: LeaderEpoch(it.leader_epoch),
                isr: it.isr_nodes.iter().copied().map(BrokerId).collect(),
            };
            ((topic.topic_id, PartitionIndex(it.partition_index)), told)
        })
    })
}

/// Whom it takes to ask, and to follow what is heard.
#[derive(Debug)]
pub(crate) struct Parts {
    pub node_id: BrokerId,
    pub quorum: Arc<Quorum>,
    pub controller: Arc<ControllerChannel>,
    pub replicas: Arc<Replicas>,
    pub topics: Arc<Topics>,
    pub addresses: Arc<BrokerAddresses>,
}

impl Hearsay {
    /// Asks others while no controller answers this broker, until the node stops.
    pub(crate) async fn listen(
        self: Arc<Self>,
        parts: Parts,
        mut is_unheard: watch::Receiver<bool>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let listening = async {
            let mut turn = 0_usize;
            while is_unheard.wait_for(|it| *it).await.is_ok() {
                self.ask(&parts, turn).await;
                turn = turn.wrapping_add(1);
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = listening => {}
            () = stopped(&mut stopping) => {}
        }
    }

    /// Asks one of the other brokers about what is led here, and about what was before others were heard to lead it.
    async fn ask(&self, parts: &Parts, turn: usize) {
        let others = parts.others();
        let Some(other) = turn.checked_rem(others.len()).and_then(|at| others.get(at)) else {
            return;
        };
        let is_asked = |replica: &Arc<Replica>| {
            let key = (replica.topic_id, replica.partition.partition);
            replica.led_epoch().is_some() || self.has_heard_of(key)
        };
        let replicas = parts.replicas.all().into_iter().filter(is_asked);
        let topics: BTreeSet<TopicId> = replicas.map(|replica| replica.topic_id).collect();
        if topics.is_empty() {
            return;
        }
        let answer = match parts.ask(*other, topics).await {
            Ok(answer) => answer,
            Err(error) => return debug!(broker = %other, %error, "nothing is heard"),
        };
        let (image, news) = self.hear(parts.node_id, parts.quorum.image(), &answer);
        if !news.is_empty() {
            warn!(
                broker = %other,
                partitions = news.len(),
                "no controller answers this broker, and others lead meanwhile what it has led, as another broker says"
            );
            // It may wait for disks.
            let topics = Arc::clone(&parts.topics);
            let heeded = tokio::task::spawn_blocking(move || topics.hear(&image, &news));
            heeded.await.expect("roles change without a panic");
        }
    }
}

impl Parts {
    /// The brokers that may know more: not the one in the node that does not answer.
    fn others(&self) -> Vec<BrokerId> {
        let silent = self.controller.leader();
        let image = self.quorum.image();
        let others = image.brokers().filter(|it| !it.fenced && it.id != self.node_id);
        others.map(|it| it.id).filter(|id| Some(*id) != silent).collect()
    }

    async fn ask(
        &self,
        broker: BrokerId,
        topics: BTreeSet<TopicId>,
    ) -> Result<MetadataResponse, PeerError> {
        let topic = |topic_id| MetadataRequestTopic { topic_id, name: None };
        let request = MetadataRequest {
            topics: Some(topics.into_iter().map(topic).collect()),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let connection = self.addresses.connection(Purpose::Hearsay, broker).await?;
        Ok(connection.send(&request, Limits::within(ANSWER_MAX)).await?)
    }
}

#[cfg(test)]
mod tests {
    use ottla_base::{ErrorCode, Uuid};
    use ottla_metadata::MetadataRecord;
    use ottla_protocol::messages::metadata_response::{
        MetadataResponsePartition, MetadataResponseTopic,
    };
    use ottla_protocol::records::{PartitionChangeRecord, PartitionRecord, TopicRecord};

    use super::*;

    const TOPIC: TopicId = Uuid([7; 16]);
    const ME: BrokerId = BrokerId(1);

    /// This broker leads both partitions of a topic in leader epoch 5.
    fn known() -> Image {
        let mut image = Image::new("cluster");
        let partition = |partition_id| PartitionRecord {
            partition_id,
            topic_id: TOPIC,
            replicas: vec![1, 2],
            isr: vec![1, 2],
            leader: ME.0,
            leader_epoch: 5,
            ..Default::default()
        };
        let topic = TopicRecord { name: "t".into(), topic_id: TOPIC };
        let records: [MetadataRecord; 3] = [topic.into(), partition(0).into(), partition(1).into()];
        records.iter().for_each(|record| image.apply(record).unwrap());
        image
    }

    fn leaders(image: &Image) -> [(i32, i32); 2] {
        [0, 1].map(|index| {
            let partition = image.partition(TOPIC, PartitionIndex(index)).unwrap();
            (partition.leader.0, partition.leader_epoch.0)
        })
    }

    /// Each partition's leader and leader epoch.
    fn answer(topic_id: TopicId, leaders: &[(i32, i32)]) -> MetadataResponse {
        let partition =
            |(index, (leader_id, leader_epoch)): (i32, &(i32, i32))| MetadataResponsePartition {
                partition_index: index,
                leader_id: *leader_id,
                leader_epoch: *leader_epoch,
                isr_nodes: vec![*leader_id],
                ..Default::default()
            };
        let partitions = (0..).zip(leaders).map(partition).collect();
        let topic = MetadataResponseTopic { topic_id, partitions, ..Default::default() };
        MetadataResponse { topics: vec![topic], ..Default::default() }
    }

    fn key(index: i32) -> Key {
        (TOPIC, PartitionIndex(index))
    }

    #[test]
    fn a_later_leader_is_believed_once_and_what_is_known_already_is_no_news() {
        let (hearsay, image) = (Hearsay::default(), Arc::new(known()));
        assert!(Arc::ptr_eq(&hearsay.amend(Arc::clone(&image)), &image));
        let hear = |leaders| hearsay.hear(ME, Arc::clone(&image), &answer(TOPIC, leaders));
        // An answer from behind, and one that is as new as this broker: the controllers may all be gone.
        for same in [&[(2, 4), (2, 5)], &[(1, 5), (1, 5)]] {
            let (view, news) = hear(same);
            assert!(news.is_empty() && Arc::ptr_eq(&view, &image), "{same:?}");
        }
        let (view, news) = hear(&[(2, 6), (1, 5)]);
        assert_eq!((leaders(&view), news), ([(2, 6), (1, 5)], vec![key(0)]));
        let (view, news) = hear(&[(2, 6), (-1, 7)]);
        assert_eq!((leaders(&view), news), ([(2, 6), (-1, 7)], vec![key(1)]));
        // The next one that is asked is behind.
        let (view, news) = hear(&[(1, 5), (1, 5)]);
        assert_eq!((leaders(&view), news), ([(2, 6), (-1, 7)], vec![]));
        assert!(Arc::ptr_eq(&hearsay.amend(Arc::clone(&image)), &view));
        assert!(hearsay.has_heard_of(key(0)) && hearsay.has_heard_of(key(1)));
    }

    #[test]
    fn nobody_makes_this_broker_a_leader_nor_is_believed_about_what_it_does_not_know() {
        let (hearsay, image) = (Hearsay::default(), Arc::new(known()));
        let hear = |answer| hearsay.hear(ME, Arc::clone(&image), &answer);
        assert!(hear(answer(TOPIC, &[(ME.0, 6)])).1.is_empty());
        assert!(hear(answer(Uuid([8; 16]), &[(2, 6)])).1.is_empty());
        assert!(hear(answer(TOPIC, &[(1, 5), (1, 5), (2, 6)])).1.is_empty());
        let mut unknown = answer(TOPIC, &[(2, 6)]);
        unknown.topics.iter_mut().for_each(|it| it.error_code = ErrorCode::UNKNOWN_TOPIC_ID);
        assert!(hear(unknown).1.is_empty());
        assert!(Arc::ptr_eq(&hearsay.amend(Arc::clone(&image)), &image));
    }

    #[test]
    fn what_the_metadata_says_in_the_end_takes_the_place_of_what_was_heard() {
        let (hearsay, image) = (Hearsay::default(), Arc::new(known()));
        hearsay.hear(ME, Arc::clone(&image), &answer(TOPIC, &[(2, 6), (2, 7)]));
        let mut image = Image::clone(&image);
        let mut change = |partition_id, leader| {
            let change = PartitionChangeRecord {
                partition_id,
                topic_id: TOPIC,
                leader,
                ..Default::default()
            };
            image.apply(&change.into()).unwrap();
            hearsay.amend(Arc::new(image.clone()))
        };
        assert_eq!(leaders(&change(0, 2)), [(2, 6), (2, 7)]);
        assert!(!hearsay.has_heard_of(key(0)) && hearsay.has_heard_of(key(1)));
        // Still on its way to what was heard.
        assert_eq!(leaders(&change(1, 3)), [(2, 6), (2, 7)]);
        assert_eq!(leaders(&change(0, 1)), [(1, 7), (2, 7)]);
        assert_eq!(leaders(&change(1, 2)), [(1, 7), (2, 7)]);
        assert!(!hearsay.has_heard_of(key(1)) && hearsay.amended.load().is_none());
    }
}
