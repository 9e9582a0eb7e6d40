package org.apache.kafka.common.test.junit;

import kafka.server.ControllerServer;
import kafka.server.KafkaBroker;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.GroupProtocol;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.network.ListenerName;
import org.apache.kafka.common.test.ClusterInstance;
import org.apache.kafka.common.test.api.ClusterConfig;
import org.apache.kafka.common.test.api.Type;
import org.apache.kafka.server.fault.FaultHandlerException;
import org.apache.kafka.test.TestUtils;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.extension.AfterEachCallback;
import org.junit.jupiter.api.extension.BeforeEachCallback;
import org.junit.jupiter.api.extension.Extension;
import org.junit.jupiter.api.extension.TestTemplateInvocationContext;
import suite.ExternalCluster;

import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

/**
 * Stands before Kafka's class of the same name on the class path, so that every {@code @ClusterTest} gets an external
 * cluster (see {@link ExternalCluster}) instead of brokers inside this JVM.
 */
public class RaftClusterInvocationContext implements TestTemplateInvocationContext {
    /** What ran: a test's cluster is the same, whether it declares combined or separate nodes, so that both are one run. */
    private static final Set<String> RUNS = new HashSet<>();

    private final String baseDisplayName;
    private final ClusterConfig config;
    private final boolean isCombined;

    public RaftClusterInvocationContext(String baseDisplayName, ClusterConfig config, boolean isCombined) {
        this.baseDisplayName = baseDisplayName;
        this.config = config;
        this.isCombined = isCombined;
    }

    @Override
    public String getDisplayName(int invocationIndex) {
        return String.format("%s [%d] Type=Raft-%s, %s", baseDisplayName, invocationIndex,
                isCombined ? "Combined" : "Isolated", String.join(",", config.displayTags()));
    }

    @Override
    public List<Extension> getAdditionalExtensions() {
        ExternalInstance instance = new ExternalInstance(config, isCombined);
        BeforeEachCallback before = context -> {
            String run = context.getRequiredTestMethod() + " " + instance.describe();
            if (!RUNS.add(run)) Assumptions.abort("the same run again: one node is broker and controller");
            if (instance.config().isAutoStart()) instance.start();
        };
        AfterEachCallback after = context -> instance.stop();
        return List.of(before, after, new ClusterInstanceParameterResolver(instance));
    }

    /**
     * What a test sees of the external cluster. Of the brokers' own Java objects those of several nodes have what the
     * suite's stand-ins say; of one node they are not there, and the map is empty.
     */
    private static class ExternalInstance implements ClusterInstance {
        private final ClusterConfig config;
        private final int declaredBrokers;
        private final boolean isCombined;
        private ExternalCluster cluster;
        private Map<Integer, KafkaBroker> brokers = Map.of();
        private boolean started;
        private boolean stopped;

        ExternalInstance(ClusterConfig declared, boolean isCombined) {
            this.config = ExternalCluster.ONE_NODE ? ExternalCluster.onOneNode(declared) : declared;
            this.declaredBrokers = declared.numBrokers();
            this.isCombined = isCombined;
        }

        String describe() {
            return config.serverProperties() + " " + config.perServerOverrideProperties() + " " + config.metadataVersion()
                    + " " + config.features() + " " + config.brokerSecurityProtocol() + " " + config.tags();
        }

        // Life of the cluster

        @Override
        public void start() {
            if (started) return;
            cluster = ExternalCluster.start(config);
            if (!ExternalCluster.ONE_NODE) brokers = cluster.brokers(config);
            started = true;
            waitForReadyBrokers();
        }

        @Override
        public void stop() {
            if (stopped || cluster == null) return;
            stopped = true;
            cluster.stop();
        }

        @Override
        public boolean started() {
            return started;
        }

        @Override
        public boolean stopped() {
            return stopped;
        }

        @Override
        public void shutdownBroker(int brokerId) {
            cluster.shutdownBroker(brokerId);
        }

        @Override
        public void startBroker(int brokerId) {
            cluster.startBroker(brokerId);
        }

        @Override
        public void waitForReadyBrokers() {
            // A broker that the harness started is ready, but may not have heard yet that the others are.
            if (ExternalCluster.ONE_NODE || config.numBrokers() == 1) return;
            try {
                cluster.waitUntilAllKnow(metadata -> metadata.brokers().size() >= config.numBrokers(), List.of(),
                        "not all brokers know all others");
            } catch (InterruptedException e) {
                throw new RuntimeException(e);
            }
        }

        /** Nothing outside tells when a broker has applied what the controller committed: this is longer than it takes. */
        @Override
        public void ensureConsistentMetadata() throws InterruptedException {
            Thread.sleep(1000);
        }

        @Override
        public void ensureConsistentMetadata(Collection<KafkaBroker> brokers, Collection<ControllerServer> controllers)
                throws InterruptedException {
            ensureConsistentMetadata();
        }

        // What the cluster is

        @Override
        public Type type() {
            return isCombined ? Type.CO_KRAFT : Type.KRAFT;
        }

        @Override
        public ClusterConfig config() {
            return config;
        }

        @Override
        public String bootstrapServers() {
            return cluster.bootstrap();
        }

        @Override
        public String bootstrapControllers() {
            return cluster.controllers();
        }

        @Override
        public List<Integer> brokerBoundPorts() {
            return ExternalCluster.ports(bootstrapServers());
        }

        @Override
        public Set<Integer> brokerIds() {
            if (!ExternalCluster.ONE_NODE) return brokers.keySet();
            return ask(admin -> admin.describeCluster().nodes().get().stream().map(Node::id).collect(Collectors.toSet()));
        }

        @Override
        public String clusterId() {
            return cluster.clusterId();
        }

        @Override
        public Set<Integer> controllerIds() {
            return cluster.controllerIds();
        }

        /** Both, as a cluster of the released version has them: brokers elsewhere can't be asked as objects. */
        @Override
        public Set<GroupProtocol> supportedGroupProtocols() {
            return Set.of(GroupProtocol.CLASSIC, GroupProtocol.CONSUMER);
        }

        @Override
        public ListenerName clientListener() {
            return config.brokerListenerName();
        }

        @Override
        public ListenerName controllerListenerName() {
            return ListenerName.normalised("CONTROLLER");
        }

        @Override
        public Map<Integer, KafkaBroker> brokers() {
            return brokers;
        }

        @Override
        public Map<Integer, ControllerServer> controllers() {
            return Map.of();
        }

        @Override
        public Optional<FaultHandlerException> firstFatalException() {
            return Optional.empty();
        }

        @Override
        public Optional<FaultHandlerException> firstNonFatalException() {
            return Optional.empty();
        }

        // Topics and ACLs

        /**
         * All other ways to an Admin lead here, also those of the interface's createTopic and createTopicWithAssignment.
         * On one node the Admin places the topics that it creates on that node.
         */
        @Override
        public Admin admin(Map<String, Object> configs, boolean usingBootstrapControllers) {
            Admin admin = ClusterInstance.super.admin(configs, usingBootstrapControllers);
            if (!ExternalCluster.ONE_NODE) return admin;
            return ExternalCluster.onOneNode(admin, declaredBrokers, () -> brokerIds().iterator().next());
        }

        @Override
        public void waitTopicCreation(String topic, int partitions) throws InterruptedException {
            if (!ExternalCluster.ONE_NODE) {
                cluster.waitUntilAllKnow(metadata -> metadata.topicMetadata().stream()
                        .flatMap(it -> it.partitionMetadata().stream())
                        .filter(partition -> partition.leaderId.isPresent()).count() == partitions,
                        List.of(topic), topic + " not created");
                return;
            }
            waitUntil(60_000, topic + " not created", admin ->
                    admin.describeTopics(List.of(topic)).allTopicNames().get(10, TimeUnit.SECONDS).get(topic)
                            .partitions().stream().filter(partition -> partition.leader() != null).count() == partitions);
        }

        @Override
        public void waitTopicDeletion(String topic) throws InterruptedException {
            if (!ExternalCluster.ONE_NODE) {
                cluster.waitUntilAllKnow(metadata -> metadata.topicMetadata().stream()
                        .noneMatch(it -> it.topic().equals(topic)), List.of(), topic + " not deleted");
                return;
            }
            waitUntil(60_000, topic + " not deleted", admin -> !admin.listTopics().names().get().contains(topic));
        }

        @Override
        public void waitAcls(AclBindingFilter filter, Collection<AccessControlEntry> entries) throws InterruptedException {
            waitUntil(30_000, "ACLs not as expected", admin ->
                    admin.describeAcls(filter).values().get().stream().map(AclBinding::entry)
                            .collect(Collectors.toSet()).equals(new HashSet<>(entries)));
        }

        // Helpers

        private interface Question<T> {
            T of(Admin admin) throws Exception;
        }

        private <T> T ask(Question<T> question) {
            try (Admin admin = admin()) {
                return question.of(admin);
            } catch (Exception e) {
                throw new RuntimeException(e);
            }
        }

        /** An error counts as "not yet". */
        private void waitUntil(long millis, String complaint, Question<Boolean> question) throws InterruptedException {
            TestUtils.waitForCondition(() -> {
                try (Admin admin = admin()) {
                    return question.of(admin);
                }
            }, millis, complaint);
        }
    }
}
