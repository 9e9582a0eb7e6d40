package suite;

import static org.mockito.Mockito.mock;
import static org.mockito.Mockito.withSettings;

import java.io.File;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import kafka.cluster.Partition;
import kafka.log.LogManager;
import kafka.network.SocketServer;
import kafka.server.BrokerServer;
import kafka.server.KafkaApis;
import kafka.server.KafkaConfig;
import kafka.server.ReplicaManager;
import kafka.server.SharedServer;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.KafkaStorageException;
import org.apache.kafka.common.message.AlterPartitionRequestData;
import org.apache.kafka.common.message.DescribeLogDirsRequestData;
import org.apache.kafka.common.message.DescribeLogDirsResponseData;
import org.apache.kafka.common.message.ListOffsetsRequestData.ListOffsetsPartition;
import org.apache.kafka.common.message.ListOffsetsRequestData.ListOffsetsTopic;
import org.apache.kafka.common.message.ListOffsetsResponseData.ListOffsetsPartitionResponse;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.requests.AbstractRequest;
import org.apache.kafka.common.requests.AbstractResponse;
import org.apache.kafka.common.requests.DescribeLogDirsRequest;
import org.apache.kafka.common.requests.DescribeLogDirsResponse;
import org.apache.kafka.common.requests.ListOffsetsRequest;
import org.apache.kafka.common.requests.ListOffsetsResponse;
import org.apache.kafka.common.requests.MetadataResponse;
import org.apache.kafka.common.requests.MetadataResponse.PartitionMetadata;
import org.apache.kafka.coordinator.group.GroupCoordinator;
import org.apache.kafka.image.loader.MetadataLoader;
import org.apache.kafka.metadata.BrokerState;
import org.apache.kafka.metadata.KRaftMetadataCache;
import org.apache.kafka.metadata.LeaderAndIsr;
import org.apache.kafka.metadata.LeaderRecoveryState;
import org.apache.kafka.server.BrokerLifecycleManager;
import org.apache.kafka.server.IntegrationTestUtils;
import org.apache.kafka.storage.internals.log.UnifiedLog;
import org.mockito.MockMakers;
import scala.Option;
import scala.jdk.javaapi.CollectionConverters;
import scala.jdk.javaapi.OptionConverters;

/**
 * A broker outside of this JVM, as tests know one: stopped and started through its Java object, and asked for what it
 * knows of the cluster and what it holds itself. What else such an object has is not there, and says so.
 */
final class Broker {
    private final ExternalCluster cluster;
    private final int id;
    private final KafkaConfig config;
    private final Runnable startup;

    private Broker(ExternalCluster cluster, KafkaConfig config, Runnable startup) {
        this.cluster = cluster;
        this.id = config.nodeId();
        this.config = config;
        this.startup = startup;
    }

    /** What a stand-in says when it is called by this name. */
    interface Answers {
        Object to(String method, Object[] arguments) throws Exception;
    }

    /** An object of a class whose every method is answered like this. */
    static <T> T standIn(Class<T> type, Answers answers) {
        return mock(type, withSettings().stubOnly().mockMaker(MockMakers.SUBCLASS).defaultAnswer(call ->
            call.getMethod().getName().equals("toString")
                ? type.getSimpleName() + " of a node outside of this JVM"
                : answers.to(call.getMethod().getName(), call.getArguments())));
    }

    static RuntimeException absent(String what) {
        return new UnsupportedOperationException("no broker outside of this JVM has " + what);
    }

    static BrokerServer of(ExternalCluster cluster, KafkaConfig config, Runnable startup) {
        return new Broker(cluster, config, startup).server();
    }

    private BrokerServer server() {
        KRaftMetadataCache cache = metadataCache();
        KafkaApis apis = standIn(KafkaApis.class, (method, arguments) -> switch (method) {
            case "clusterId" -> cluster.clusterId();
            case "metadataCache" -> cache;
            default -> throw absent(method);
        });
        LogManager logs = logManager();
        ReplicaManager replicas = replicaManager(logs, cache);
        SocketServer socketServer = standIn(SocketServer.class, this::port);
        SharedServer shared = sharedServer();
        GroupCoordinator coordinator = groupCoordinator();
        BrokerLifecycleManager lifecycle = standIn(BrokerLifecycleManager.class, (method, arguments) -> switch (method) {
            // A broker that the harness started is ready, which it says when it is not fenced any more.
            case "initialUnfenceFuture" -> CompletableFuture.completedFuture(null);
            default -> throw absent(method);
        });
        return standIn(BrokerServer.class, (method, arguments) -> {
            switch (method) {
                case "startup" -> startup.run();
                case "shutdown" -> cluster.shutdownBroker(id);
                case "awaitShutdown" -> { }
                case "isShutdown" -> { return cluster.isStopped(id); }
                case "brokerState" -> { return cluster.isStopped(id) ? BrokerState.NOT_RUNNING : BrokerState.RUNNING; }
                case "boundPort" -> { return port(method, arguments); }
                case "clusterId" -> { return cluster.clusterId(); }
                case "config" -> { return config; }
                case "metadataCache" -> { return cache; }
                case "dataPlaneRequestProcessor" -> { return apis; }
                case "logManager" -> { return logs; }
                case "replicaManager" -> { return replicas; }
                case "socketServer" -> { return socketServer; }
                case "sharedServer" -> { return shared; }
                case "groupCoordinator" -> { return coordinator; }
                case "lifecycleManager" -> { return lifecycle; }
                default -> throw absent(method);
            }
            return null;
        });
    }

    private Object port(String method, Object[] arguments) {
        if (!method.equals("boundPort")) throw absent(method);
        return cluster.port(id);
    }

    private GroupCoordinator groupCoordinator() {
        return standIn(GroupCoordinator.class, (method, arguments) -> switch (method) {
            case "groupMetadataTopicConfigs" -> {
                Properties properties = new Properties();
                properties.put("cleanup.policy", "compact");
                properties.put("compression.type", "producer");
                properties.put("segment.bytes", config.getInt("offsets.topic.segment.bytes").toString());
                yield properties;
            }
            default -> throw absent(method);
        });
    }

    /** How far the broker has the metadata, which it is about to apply. */
    private SharedServer sharedServer() {
        MetadataLoader loader = standIn(MetadataLoader.class, (method, arguments) -> switch (method) {
            case "lastAppliedOffset" -> cluster.metadataOffset(id);
            default -> throw absent(method);
        });
        return standIn(SharedServer.class, (method, arguments) -> switch (method) {
            case "loader" -> cluster.isStopped(id) ? null : loader;
            default -> throw absent(method);
        });
    }

    // What it knows of the cluster

    private KRaftMetadataCache metadataCache() {
        return standIn(KRaftMetadataCache.class, (method, arguments) -> switch (method) {
            case "contains" -> arguments[0] instanceof TopicPartition partition
                ? partition(partition).isPresent() : !partitions((String) arguments[0]).isEmpty();
            case "numPartitions" -> Optional.of(partitions((String) arguments[0]).size()).filter(count -> count > 0);
            case "getTopicId" -> topic((String) arguments[0]).map(MetadataResponse.TopicMetadata::topicId)
                .findFirst().orElse(Uuid.ZERO_UUID);
            case "topicConfig" -> topicConfig((String) arguments[0]);
            case "hasAliveBroker" -> nodes().containsKey((Integer) arguments[0]);
            case "getAliveBrokerNodes" -> List.copyOf(nodes().values());
            case "getLeaderAndIsr" -> partition(new TopicPartition((String) arguments[0], (int) arguments[1])).map(found ->
                new LeaderAndIsr(found.leaderId.orElse(LeaderAndIsr.NO_LEADER), found.leaderEpoch.orElse(-1),
                    LeaderRecoveryState.RECOVERED,
                    found.inSyncReplicaIds.stream().map(replica ->
                        new AlterPartitionRequestData.BrokerState().setBrokerId(replica)).toList(), 0));
            case "getPartitionLeaderEndpoint" -> {
                Map<Integer, Node> nodes = nodes();
                yield partition(new TopicPartition((String) arguments[0], (int) arguments[1])).map(found ->
                    found.leaderId.map(nodes::get).orElse(Node.noNode()));
            }
            case "getPartitionReplicaEndpoints" -> {
                Map<Integer, Node> nodes = nodes();
                yield partition((TopicPartition) arguments[0]).stream().flatMap(found -> found.replicaIds.stream())
                    .filter(nodes::containsKey).collect(Collectors.toMap(replica -> replica, nodes::get));
            }
            default -> throw absent(method);
        });
    }

    private Map<Integer, Node> nodes() throws IOException {
        return cluster.metadata(id, List.of()).brokers().stream().collect(Collectors.toMap(Node::id, node -> node));
    }

    private Stream<MetadataResponse.TopicMetadata> topic(String name) throws IOException {
        return cluster.metadata(id, List.of(name)).topicMetadata().stream().filter(topic -> topic.topic().equals(name));
    }

    private List<PartitionMetadata> partitions(String topic) throws IOException {
        return topic(topic).flatMap(metadata -> metadata.partitionMetadata().stream()).toList();
    }

    private Optional<PartitionMetadata> partition(TopicPartition partition) throws IOException {
        return partitions(partition.topic()).stream()
            .filter(found -> found.partition() == partition.partition()).findFirst();
    }

    private Properties topicConfig(String topic) {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Properties properties = new Properties();
        cluster.ask(admin -> admin.describeConfigs(List.of(resource)).all().get()).get(resource).entries().stream()
            .filter(entry -> entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG)
            .forEach(entry -> properties.put(entry.name(), entry.value()));
        return properties;
    }

    // What it holds

    private LogManager logManager() {
        return standIn(LogManager.class, (method, arguments) -> switch (method) {
            case "getLog" -> OptionConverters.toScala(log((TopicPartition) arguments[0], (boolean) arguments[1]));
            case "getLog$default$2" -> false;
            case "liveLogDirs" -> CollectionConverters.asScala(cluster.logDirs(id)).toSeq();
            case "isLogDirOnline" -> logDirs().results().stream().anyMatch(found ->
                found.logDir().equals(arguments[0]) && found.errorCode() == Errors.NONE.code());
            default -> throw absent(method);
        });
    }

    private ReplicaManager replicaManager(LogManager logs, KRaftMetadataCache cache) {
        return standIn(ReplicaManager.class, (method, arguments) -> switch (method) {
            case "onlinePartition" -> OptionConverters.toScala(replica((TopicPartition) arguments[0]));
            case "localLog", "getLog" -> OptionConverters.toScala(log((TopicPartition) arguments[0], false));
            case "localLogOrException" -> log((TopicPartition) arguments[0], false).orElseThrow(() ->
                new KafkaStorageException("no log of " + arguments[0]));
            case "logManager" -> logs;
            case "metadataCache" -> cache;
            default -> throw absent(method);
        });
    }

    private Optional<Partition> replica(TopicPartition partition) throws IOException {
        return partition(partition).filter(found -> found.replicaIds.contains(id)).map(found ->
            standIn(Partition.class, (method, arguments) -> switch (method) {
                case "getLeaderEpoch" -> found.leaderEpoch.orElse(-1);
                case "leaderReplicaIdOpt" -> OptionConverters.toScala(found.leaderId.map(leader -> (Object) leader));
                case "inSyncReplicaIds" -> CollectionConverters.asScala(
                    found.inSyncReplicaIds.stream().map(replica -> (Object) replica).collect(Collectors.toSet())).toSet();
                case "leaderLogIfLocal" -> leads(partition)
                    ? OptionConverters.toScala(log(partition, false)) : Option.empty();
                default -> throw absent(method);
            }));
    }

    /** It says so itself, whatever the metadata say: it may be about to learn that. */
    private boolean leads(TopicPartition partition) throws IOException {
        return offset(partition, ListOffsetsRequest.CONSUMER_REPLICA_ID, ListOffsetsRequest.LATEST_TIMESTAMP)
            .errorCode() == Errors.NONE.code();
    }

    private Optional<UnifiedLog> log(TopicPartition partition, boolean isFuture) throws IOException {
        return logDirs().results().stream().filter(directory -> directory.topics().stream()
                .filter(topic -> topic.name().equals(partition.topic())).flatMap(topic -> topic.partitions().stream())
                .anyMatch(found -> found.partitionIndex() == partition.partition() && found.isFutureKey() == isFuture))
            .map(directory -> log(partition, new File(directory.logDir(), partition.toString()))).findFirst();
    }

    private UnifiedLog log(TopicPartition partition, File directory) {
        return standIn(UnifiedLog.class, (method, arguments) -> switch (method) {
            case "dir" -> directory;
            case "logStartOffset" -> held(partition, ListOffsetsRequest.EARLIEST_TIMESTAMP);
            case "logEndOffset" -> held(partition, ListOffsetsRequest.LATEST_TIMESTAMP);
            case "numberOfSegments" -> directory.list((parent, name) -> name.endsWith(".log")).length;
            default -> throw absent(method);
        });
    }

    /** Of its own replica, whether it leads or follows: who debugs may ask for that. */
    private long held(TopicPartition partition, long timestamp) throws IOException {
        ListOffsetsPartitionResponse found = offset(partition, ListOffsetsRequest.DEBUGGING_REPLICA_ID, timestamp);
        Errors.forCode(found.errorCode()).maybeThrow();
        return found.offset();
    }

    private ListOffsetsPartitionResponse offset(TopicPartition partition, int replica, long timestamp) throws IOException {
        ListOffsetsTopic topic = new ListOffsetsTopic().setName(partition.topic()).setPartitions(List.of(
            new ListOffsetsPartition().setPartitionIndex(partition.partition()).setTimestamp(timestamp)));
        ListOffsetsRequest request = ListOffsetsRequest.Builder
            .forReplica(ApiKeys.LIST_OFFSETS.latestVersion(), replica).setTargetTimes(List.of(topic)).build();
        ListOffsetsResponse response = ask(request);
        return response.topics().get(0).partitions().get(0);
    }

    private DescribeLogDirsResponseData logDirs() throws IOException {
        DescribeLogDirsRequestData all = new DescribeLogDirsRequestData().setTopics(null);
        DescribeLogDirsResponse response = ask(new DescribeLogDirsRequest.Builder(all).build());
        return response.data();
    }

    private <T extends AbstractResponse> T ask(AbstractRequest request) throws IOException {
        return IntegrationTestUtils.connectAndReceive(request, cluster.port(id));
    }
}
