package suite;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.IntSupplier;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.common.test.api.ClusterConfig;
import org.apache.kafka.server.common.MetadataVersion;
import org.junit.jupiter.api.Assumptions;

/** A cluster outside this JVM, started fresh by the harness for one test, with the test's own configuration. */
public final class ExternalCluster {
    /** {@code -Dsuite.one=true}: the cluster has one node, whatever the test declares. */
    public static final boolean ONE_NODE = Boolean.getBoolean("suite.one");
    /** {@code -Dsuite.isolated=true}: its controllers are no brokers, and as many as the test declares. */
    private static final boolean ISOLATED = Boolean.getBoolean("suite.isolated");
    /** The first of them, as tests know it. */
    private static final int FIRST_CONTROLLER = 3000;

    private final ClusterConfig config;
    private final String bootstrap;
    private final String controllers;
    private Nodes nodes;

    private ExternalCluster(ClusterConfig config, String bootstrap, String controllers) {
        this.config = config;
        this.bootstrap = bootstrap;
        this.controllers = controllers;
    }

    /** Not a failure but an aborted test, if the harness can't start such a cluster and says why. */
    public static ExternalCluster start(ClusterConfig config) {
        ObjectNode request = Harness.message().put("do", "start");
        request.put("brokers", config.numBrokers());
        request.put("controllers", ISOLATED ? config.numControllers() : 0);
        request.put("alone", ONE_NODE);
        request.put("disks", config.numDisksPerBroker());
        request.put("protocol", config.brokerSecurityProtocol().name);
        request.put("listener", config.brokerListenerName().value());
        // A test that names no version gets the released one's, not the next release's.
        if (config.metadataVersion() != MetadataVersion.latestTesting()) {
            request.put("version", config.metadataVersion().version());
        }
        ObjectNode features = request.putObject("features");
        config.features().forEach((feature, level) -> features.put(feature.featureName(), level.intValue()));
        ObjectNode properties = request.putObject("properties");
        config.serverProperties().forEach(properties::put);
        ObjectNode servers = request.putObject("servers");
        config.perServerOverrideProperties().forEach((id, overrides) -> {
            ObjectNode server = servers.putObject(id.toString());
            overrides.forEach(server::put);
        });
        JsonNode answer = Harness.ask(request);
        if (answer.has("skip")) {
            Assumptions.abort(answer.get("skip").asText());
        }
        return new ExternalCluster(config, answer.get("bootstrap").asText(), answer.get("controllers").asText());
    }

    /** The brokers' Java objects, so far as a broker outside of this JVM can have them; made when first asked for. */
    public Nodes nodes(Supplier<String> clusterId, List<Integer> boundPorts) {
        if (nodes == null) {
            nodes = new Nodes(this, clusterId.get(), boundPorts);
        }
        return nodes;
    }

    /** What a broker was started with. */
    Map<String, String> propertiesOf(int id) {
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

    public String bootstrap() {
        return bootstrap;
    }

    public String controllers() {
        return controllers;
    }

    /** The brokers, or those that are none. */
    public Set<Integer> controllerIds() {
        int first = ISOLATED ? FIRST_CONTROLLER : 0;
        int count = ONE_NODE ? 1 : controllers.split(",").length;
        return IntStream.range(first, first + count).boxed().collect(Collectors.toSet());
    }

    public void stop() {
        Harness.ask(Harness.message().put("do", "stop"));
    }

    public void shutdownBroker(int id) {
        Harness.ask(Harness.message().put("do", "stop-broker").put("node", id));
        if (nodes != null) {
            nodes.stoppedNode(id);
        }
    }

    /** Returns when the broker is ready. */
    public void startBroker(int id) {
        Harness.ask(Harness.message().put("do", "start-broker").put("node", id));
        if (nodes != null) {
            nodes.startedNode(id);
        }
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
