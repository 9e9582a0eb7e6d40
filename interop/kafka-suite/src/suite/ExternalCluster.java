package suite;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.File;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.time.Duration;
import java.util.Arrays;
import java.util.Collection;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.IntSupplier;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import kafka.server.ControllerServer;
import kafka.server.KafkaBroker;
import kafka.server.KafkaConfig;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.QuorumInfo;
import org.apache.kafka.common.message.DescribeLogDirsRequestData;
import org.apache.kafka.common.requests.DescribeLogDirsRequest;
import org.apache.kafka.common.requests.DescribeLogDirsResponse;
import org.apache.kafka.common.requests.MetadataRequest;
import org.apache.kafka.common.requests.MetadataResponse;
import org.apache.kafka.common.test.api.ClusterConfig;
import org.apache.kafka.server.IntegrationTestUtils;
import org.apache.kafka.server.common.MetadataVersion;
import org.apache.kafka.test.TestUtils;
import org.junit.jupiter.api.Assumptions;

/** A cluster outside this JVM, started fresh by the harness for one test, with the test's own configuration. */
public final class ExternalCluster {
    /** {@code -Dsuite.one=true}: the cluster has one node, whatever the test declares. */
    public static final boolean ONE_NODE = Boolean.getBoolean("suite.one");
    /** {@code -Dsuite.isolated=true}: its controllers are no brokers, and as many as the test declares. */
    private static final boolean ISOLATED = Boolean.getBoolean("suite.isolated");
    /** The first of them, as tests know it. */
    private static final int FIRST_CONTROLLER = 3000;

    /** The listener of Kafka's core's tests, and its protocol. */
    private static final String PLAINTEXT = "PLAINTEXT";

    private final String bootstrap;
    private final String controllers;
    private final Map<Integer, Integer> ports = new TreeMap<>();
    private final Set<Integer> stopped = ConcurrentHashMap.newKeySet();
    private final Map<Integer, MetadataResponse> lastKnown = new ConcurrentHashMap<>();
    private final Map<Integer, List<File>> lastLogDirs = new ConcurrentHashMap<>();
    private String clusterId;
    private Admin admin;
    private boolean testIsOver;
    private boolean isOver;

    private ExternalCluster(JsonNode answer, Collection<Integer> brokers) {
        this.bootstrap = answer.get("bootstrap").asText();
        this.controllers = answer.get("controllers").asText();
        Iterator<Integer> found = ports(bootstrap).iterator();
        brokers.forEach(id -> ports.put(id, found.next()));
    }

    /** Not a failure but an aborted test, if the harness can't start such a cluster and says why. */
    public static ExternalCluster start(ClusterConfig config) {
        List<Integer> brokers = IntStream.range(0, config.numBrokers()).boxed().toList();
        String listener = config.brokerListenerName().value();
        ObjectNode request = request(brokers, config.brokerSecurityProtocol().name, listener);
        request.put("controllers", ISOLATED ? config.numControllers() : 0);
        request.put("alone", ONE_NODE);
        request.put("disks", config.numDisksPerBroker());
        // A test that names no version gets the released one's, not the next release's.
        if (config.metadataVersion() != MetadataVersion.latestTesting()) {
            request.put("version", config.metadataVersion().version());
        }
        ObjectNode features = request.putObject("features");
        config.features().forEach((feature, level) -> features.put(feature.featureName(), level.intValue()));
        ObjectNode properties = request.putObject("properties");
        config.serverProperties().forEach(properties::put);
        ObjectNode servers = request.putObject("servers");
        config.perServerOverrideProperties().forEach((id, overrides) -> put(servers, id, overrides));
        return start(request, brokers);
    }

    /** For a test of Kafka's core, in which each node has a configuration of its own; there is one controller. */
    public static ExternalCluster start(Map<Integer, KafkaConfig> brokers, Map<String, String> controller) {
        ObjectNode request = request(brokers.keySet(), PLAINTEXT, PLAINTEXT);
        request.put("controllers", 1);
        request.put("alone", false);
        request.put("disks", 1);
        request.putObject("features");
        request.putObject("properties");
        ObjectNode servers = request.putObject("servers");
        brokers.forEach((id, config) -> put(servers, id, ofItsOwn(config)));
        put(servers, FIRST_CONTROLLER, controllerOf(brokers, controller));
        return start(request, brokers.keySet());
    }

    /** How many replicas internal topics are to have is for the controller to know as well: an Ottla's adds those that lack. */
    private static Map<String, String> controllerOf(Map<Integer, KafkaConfig> brokers, Map<String, String> properties) {
        Map<String, String> result = new TreeMap<>();
        brokers.values().forEach(config -> config.originals().forEach((name, value) -> {
            if (name.endsWith(".topic.replication.factor")) result.put(name, value.toString());
        }));
        result.putAll(properties);
        return result;
    }

    private static ObjectNode request(Collection<Integer> brokers, String protocol, String listener) {
        ObjectNode request = Harness.message().put("do", "start").put("protocol", protocol).put("listener", listener);
        brokers.forEach(request.putArray("brokers")::add);
        return request;
    }

    private static void put(ObjectNode servers, int id, Map<String, String> properties) {
        ObjectNode server = servers.putObject(Integer.toString(id));
        properties.forEach(server::put);
    }

    private static ExternalCluster start(ObjectNode request, Collection<Integer> brokers) {
        JsonNode answer = Harness.ask(request);
        if (answer.has("skip")) {
            Assumptions.abort(answer.get("skip").asText());
        }
        return new ExternalCluster(answer, brokers);
    }

    /** What a test says of a node, without what it is and where it listens, which the harness says. */
    private static Map<String, String> ofItsOwn(KafkaConfig config) {
        Map<String, String> properties = new TreeMap<>();
        config.originals().forEach((name, value) -> properties.put(name, value.toString()));
        for (String listener : properties.get("listeners").split(",")) {
            if (!listener.startsWith(PLAINTEXT + ":")) Assumptions.abort("it wants to listen at " + listener);
        }
        properties.keySet().removeAll(Set.of("process.roles", "controller.quorum.voters", "listeners", "log.dir",
            "advertised.listeners", "security.inter.broker.protocol", "metadata.log.dir"));
        properties.put("log.dirs", config.logDirs().stream()
            .map(directory -> new File(directory).getAbsolutePath()).collect(Collectors.joining(",")));
        return properties;
    }

    /** The brokers' Java objects, so far as a broker outside of this JVM can have them. */
    public Map<Integer, KafkaBroker> brokers(ClusterConfig config) {
        Map<Integer, KafkaBroker> brokers = new TreeMap<>();
        for (int id : ports.keySet()) {
            KafkaConfig properties = new KafkaConfig(propertiesOf(id, config), false);
            brokers.put(id, Broker.of(this, properties, () -> startBroker(id)));
        }
        return brokers;
    }

    /** A broker of Kafka's core's tests: started, it has this configuration, whether it was there before or not. */
    public KafkaBroker broker(KafkaConfig config) {
        return Broker.of(this, config, () -> startBroker(config));
    }

    /** What a broker was started with. */
    private Map<String, String> propertiesOf(int id, ClusterConfig config) {
        String listener = config.brokerListenerName().value();
        Map<String, String> result = new TreeMap<>();
        result.put("process.roles", ISOLATED ? "broker" : "broker,controller");
        result.put("node.id", Integer.toString(id));
        result.put("listeners", listener + "://127.0.0.1:0" + (ISOLATED ? "" : ",CONTROLLER://127.0.0.1:0"));
        result.put("listener.security.protocol.map", listener + ":" + config.brokerSecurityProtocol().name + ",CONTROLLER:PLAINTEXT");
        result.put("inter.broker.listener.name", listener);
        result.put("controller.listener.names", "CONTROLLER");
        result.put("controller.quorum.bootstrap.servers", controllers);
        result.putAll(config.serverProperties());
        result.putAll(config.perServerOverrideProperties().getOrDefault(id, Map.of()));
        return result;
    }

    public ControllerServer controller(Map<String, String> properties) {
        return Controller.of(this, FIRST_CONTROLLER, properties);
    }

    public String bootstrap() {
        return bootstrap;
    }

    public String controllers() {
        return controllers;
    }

    public Collection<Integer> brokerIds() {
        return ports.keySet();
    }

    int port(int id) {
        return ports.get(id);
    }

    /** Of {@code localhost:9092,…}, 9092 and so on. */
    public static List<Integer> ports(String addresses) {
        return Arrays.stream(addresses.split(",")).filter(address -> !address.isEmpty())
            .map(address -> Integer.parseInt(address.substring(address.lastIndexOf(':') + 1))).toList();
    }

    /** The brokers, or those that are none. */
    public Set<Integer> controllerIds() {
        int first = ISOLATED ? FIRST_CONTROLLER : 0;
        int count = ONE_NODE ? 1 : controllers.split(",").length;
        return IntStream.range(first, first + count).boxed().collect(Collectors.toSet());
    }

    // What a client is told

    public interface Question<T> {
        T of(Admin admin) throws Exception;
    }

    public synchronized <T> T ask(Question<T> question) {
        try {
            if (admin == null) {
                List<String> addresses = ports.values().stream().map(port -> "localhost:" + port).toList();
                admin = Admin.create(Map.of("bootstrap.servers", addresses));
            }
            return question.of(admin);
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    /** Asked once: later the brokers may all be stopped. */
    public synchronized String clusterId() {
        if (clusterId == null) {
            clusterId = ask(admin -> admin.describeCluster().clusterId().get());
        }
        return clusterId;
    }

    /** What one broker knows, or knew when it was stopped. No topics means all, and of a stopped one it is always all. */
    MetadataResponse metadata(int id, List<String> topics) throws IOException {
        if (isStopped(id)) return lastKnown.get(id);
        MetadataRequest.Builder request = topics.isEmpty()
            ? MetadataRequest.Builder.allTopics() : new MetadataRequest.Builder(topics, false);
        return IntegrationTestUtils.connectAndReceive(request.build(), port(id));
    }

    /** The log directories that a broker has, or had when it was stopped. */
    List<File> logDirs(int id) throws IOException {
        if (isStopped(id)) return lastLogDirs.get(id);
        var request = new DescribeLogDirsRequest.Builder(new DescribeLogDirsRequestData().setTopics(null));
        DescribeLogDirsResponse response = IntegrationTestUtils.connectAndReceive(request.build(), port(id));
        return response.data().results().stream().map(found -> new File(found.logDir())).toList();
    }

    /** Asks each broker that is there by itself: what one knows already, another may not. */
    public void waitUntilAllKnow(Predicate<MetadataResponse> expected, List<String> topics, String complaint)
            throws InterruptedException {
        TestUtils.waitForCondition(() -> {
            for (int id : ports.keySet()) {
                if (!isStopped(id) && !expected.test(metadata(id, topics))) return false;
            }
            return true;
        }, 60_000, complaint);
    }

    /** The last offset of the metadata log, as the controllers' leader has it. */
    long metadataOffset() {
        return ask(admin -> admin.describeMetadataQuorum().quorumInfo().get()).voters().stream()
            .mapToLong(QuorumInfo.ReplicaState::logEndOffset).max().orElseThrow() - 1;
    }

    /** The last offset of the metadata log that a broker has, as the controllers' leader knows. */
    long metadataOffset(int id) {
        QuorumInfo quorum = ask(admin -> admin.describeMetadataQuorum().quorumInfo().get());
        return Stream.concat(quorum.voters().stream(), quorum.observers().stream())
            .filter(replica -> replica.replicaId() == id).mapToLong(QuorumInfo.ReplicaState::logEndOffset).max().orElse(0) - 1;
    }

    // Its life

    /** What comes now is only the end: who stops one broker stops them all. */
    public void testIsOver() {
        testIsOver = true;
    }

    public synchronized void stop() {
        if (isOver) return;
        isOver = true;
        if (admin != null) {
            admin.close(Duration.ZERO);
        }
        Harness.ask(Harness.message().put("do", "stop"));
        stopped.addAll(ports.keySet());
    }

    boolean isStopped(int id) {
        return stopped.contains(id) || !ports.containsKey(id);
    }

    public synchronized void shutdownBroker(int id) {
        if (testIsOver) stop();
        if (isStopped(id)) return;
        try {
            lastKnown.put(id, metadata(id, List.of()));
            lastLogDirs.put(id, logDirs(id));
        } catch (IOException notReady) {
            // It is stopped before it has learnt anything new.
        }
        Harness.ask(Harness.message().put("do", "stop-broker").put("node", id));
        stopped.add(id);
    }

    /** No broker knows of it. */
    void shutdownController(int id) {
        Harness.ask(Harness.message().put("do", "stop-broker").put("node", id));
    }

    /** Returns when the broker is ready. */
    public synchronized void startBroker(int id) {
        Harness.ask(Harness.message().put("do", "start-broker").put("node", id));
        stopped.remove(id);
    }

    /** One that was there before has now this configuration, and one that was not there is there now. */
    public synchronized void startBroker(KafkaConfig config) {
        int id = config.nodeId();
        if (!isStopped(id)) return;
        ObjectNode request = Harness.message().put("do", "start-broker").put("node", id);
        ObjectNode properties = request.putObject("properties");
        ofItsOwn(config).forEach(properties::put);
        ports.put(id, ports(Harness.ask(request).get("bootstrap").asText()).get(0));
        stopped.remove(id);
    }

    // One node: what a test declared for N brokers is brought down to one

    /** The configuration for a cluster of one node: the first node's, with replication set to 1. */
    public static ClusterConfig onOneNode(ClusterConfig config) {
        Map<Integer, Map<String, String>> firstNode = new TreeMap<>();
        config.perServerOverrideProperties().forEach((id, overrides) -> {
            if (id == 0) {
                firstNode.put(id, withoutReplication(overrides));
            }
        });
        return ClusterConfig.builder(config)
            .setBrokers(1)
            .setServerProperties(withoutReplication(config.serverProperties()))
            .setPerServerProperties(firstNode)
            .build();
    }

    private static Map<String, String> withoutReplication(Map<String, String> properties) {
        Map<String, String> result = new TreeMap<>(properties);
        result.replaceAll((key, value) -> key.endsWith(".replication.factor") || key.endsWith(".min.isr")
            || key.equals("min.insync.replicas") ? "1" : value);
        return result;
    }

    /**
     * An Admin that places the topics and partitions it creates on the one node. Only what the declared brokers could
     * have served is changed: a test that asks for more replicas than that waits for an error, and still gets it.
     */
    public static Admin onOneNode(Admin admin, int declaredBrokers, IntSupplier nodeId) {
        OneNode cluster = new OneNode(declaredBrokers, nodeId);
        Class<?>[] interfaces = {Admin.class};
        return (Admin) Proxy.newProxyInstance(Admin.class.getClassLoader(), interfaces, (proxy, method, arguments) -> {
            switch (method.getName()) {
                case "createTopics" -> arguments[0] = cluster.topics((Collection<?>) arguments[0]);
                case "createPartitions" -> arguments[0] = cluster.partitions((Map<?, ?>) arguments[0]);
                default -> { }
            }
            try {
                return method.invoke(admin, arguments);
            } catch (InvocationTargetException error) {
                throw error.getCause();
            }
        });
    }

    private record OneNode(int declaredBrokers, IntSupplier nodeId) {
        List<NewTopic> topics(Collection<?> topics) {
            return topics.stream().map(topic -> topic((NewTopic) topic)).toList();
        }

        Map<Object, NewPartitions> partitions(Map<?, ?> partitions) {
            Map<Object, NewPartitions> result = new TreeMap<>();
            partitions.forEach((topic, increase) -> result.put(topic, increase((NewPartitions) increase)));
            return result;
        }

        private NewTopic topic(NewTopic topic) {
            NewTopic result = topic;
            if (topic.replicasAssignments() != null) {
                Map<Integer, List<Integer>> assignments = new TreeMap<>(topic.replicasAssignments());
                assignments.replaceAll((partition, replicas) -> replicas(replicas));
                result = new NewTopic(topic.name(), assignments);
            } else if (mayBeServed(topic.replicationFactor())) {
                Optional<Integer> partitions = Optional.of(topic.numPartitions()).filter(number -> number != -1);
                result = new NewTopic(topic.name(), partitions, Optional.of((short) 1));
            }
            return result.configs(topic.configs());
        }

        /** Zero is what a test means that counts the brokers' Java objects, of which there are none. */
        private boolean mayBeServed(int replicas) {
            return replicas == 0 || replicas > 1 && replicas <= declaredBrokers;
        }

        private NewPartitions increase(NewPartitions increase) {
            if (increase.assignments() == null) {
                return increase;
            }
            List<List<Integer>> assignments = increase.assignments().stream().map(this::replicas).toList();
            return NewPartitions.increaseTo(increase.totalCount(), assignments);
        }

        private List<Integer> replicas(List<Integer> replicas) {
            boolean valid = !replicas.isEmpty() && replicas.stream().distinct().count() == replicas.size()
                && replicas.stream().allMatch(id -> id >= 0 && id < declaredBrokers);
            return valid ? List.of(nodeId.getAsInt()) : replicas;
        }
    }
}
