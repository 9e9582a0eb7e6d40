package suite;

import java.io.IOException;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Proxy;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.function.Predicate;
import kafka.server.KafkaBroker;
import kafka.server.KafkaConfig;
import org.apache.kafka.common.message.AlterPartitionRequestData;
import org.apache.kafka.common.requests.MetadataRequest;
import org.apache.kafka.common.requests.MetadataResponse;
import org.apache.kafka.metadata.BrokerState;
import org.apache.kafka.metadata.LeaderAndIsr;
import org.apache.kafka.metadata.LeaderRecoveryState;
import org.apache.kafka.metadata.MetadataCache;
import org.apache.kafka.server.IntegrationTestUtils;
import org.apache.kafka.test.TestUtils;

/**
 * The nodes of a cluster outside this JVM, as tests know brokers: stopped and started through their Java objects, and
 * asked what they know of the cluster. What else such an object has is not there, and says so.
 */
public final class Nodes {
    private final ExternalCluster cluster;
    private final String clusterId;
    private final Map<Integer, Integer> ports = new TreeMap<>();
    private final Map<Integer, KafkaBroker> brokers = new TreeMap<>();
    private final Map<Integer, Boolean> stopped = new TreeMap<>();

    Nodes(ExternalCluster cluster, String clusterId, List<Integer> boundPorts) {
        this.cluster = cluster;
        this.clusterId = clusterId;
        for (int id = 0; id < boundPorts.size(); id++) {
            ports.put(id, boundPorts.get(id));
            brokers.put(id, broker(id));
        }
    }

    public Map<Integer, KafkaBroker> brokers() {
        return brokers;
    }

    void stoppedNode(int id) {
        stopped.put(id, true);
    }

    void startedNode(int id) {
        stopped.remove(id);
    }

    /** Asks each broker that is there by itself: what one knows already, another may not. */
    public void waitUntilAllKnow(Predicate<MetadataResponse> expected, List<String> topics, String complaint)
            throws InterruptedException {
        TestUtils.waitForCondition(() -> {
            for (int id : ports.keySet()) {
                if (!stopped.containsKey(id) && !expected.test(metadata(id, topics))) return false;
            }
            return true;
        }, 60_000, complaint);
    }

    /** No topics means all. */
    private MetadataResponse metadata(int id, List<String> topics) throws IOException {
        MetadataRequest.Builder request = topics.isEmpty()
            ? MetadataRequest.Builder.allTopics() : new MetadataRequest.Builder(topics, false);
        return IntegrationTestUtils.connectAndReceive(request.build(), ports.get(id));
    }

    private KafkaBroker broker(int id) {
        KafkaConfig config = new KafkaConfig(cluster.propertiesOf(id), false);
        MetadataCache cache = proxy(MetadataCache.class, (proxy, method, arguments) -> switch (method.getName()) {
            case "contains" -> partition(id, arguments[0].toString(), 0).isPresent();
            case "numPartitions" -> Optional.of(partitions(id, (String) arguments[0]).size()).filter(count -> count > 0);
            case "getAliveBrokerNodes" -> metadata(id, List.of()).brokers().stream().toList();
            case "getLeaderAndIsr" -> partition(id, (String) arguments[0], (int) arguments[1]).map(found ->
                new LeaderAndIsr(found.leaderId.orElse(LeaderAndIsr.NO_LEADER), found.leaderEpoch.orElse(-1),
                    LeaderRecoveryState.RECOVERED,
                    found.inSyncReplicaIds.stream().map(replica ->
                        new AlterPartitionRequestData.BrokerState()
                            .setBrokerId(replica)).toList(), 0));
            default -> throw absent(method.getName());
        });
        return proxy(KafkaBroker.class, (proxy, method, arguments) -> {
            switch (method.getName()) {
                case "shutdown" -> cluster.shutdownBroker(id);
                case "startup" -> cluster.startBroker(id);
                case "awaitShutdown" -> { }
                case "isShutdown" -> { return stopped.containsKey(id); }
                case "brokerState" -> { return stopped.containsKey(id) ? BrokerState.NOT_RUNNING : BrokerState.RUNNING; }
                case "boundPort" -> { return ports.get(id); }
                case "clusterId" -> { return clusterId; }
                case "config" -> { return config; }
                case "metadataCache" -> { return cache; }
                default -> throw absent(method.getName());
            }
            return null;
        });
    }

    private List<MetadataResponse.PartitionMetadata> partitions(int id, String topic) throws IOException {
        return metadata(id, List.of(topic)).topicMetadata().stream()
            .flatMap(metadata -> metadata.partitionMetadata().stream()).toList();
    }

    private Optional<MetadataResponse.PartitionMetadata> partition(int id, String topic, int number) throws IOException {
        return partitions(id, topic).stream().filter(partition -> partition.partition() == number).findFirst();
    }

    @SuppressWarnings("unchecked")
    private static <T> T proxy(Class<T> type, InvocationHandler answers) {
        return (T) Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[]{type}, (proxy, method, arguments) ->
            switch (method.getName()) {
                case "hashCode" -> System.identityHashCode(proxy);
                case "equals" -> proxy == arguments[0];
                case "toString" -> type.getSimpleName() + " of a node outside of this JVM";
                default -> answers.invoke(proxy, method, arguments);
            });
    }

    private static RuntimeException absent(String what) {
        return new UnsupportedOperationException("no broker outside of this JVM has " + what);
    }
}
