package kafka.server;

import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.stream.Stream;
import kafka.integration.KafkaServerTestHarness;
import kafka.utils.Logging;
import kafka.utils.TestInfoUtils;
import org.apache.kafka.clients.consumer.GroupProtocol;
import org.apache.kafka.common.security.auth.SecurityProtocol;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.metadata.storage.Formatter;
import org.apache.kafka.server.common.MetadataVersion;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.TestInfo;
import org.junit.jupiter.api.extension.AfterTestExecutionCallback;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.params.provider.Arguments;
import scala.Option;
import scala.collection.immutable.Seq;
import scala.jdk.javaapi.CollectionConverters;
import suite.ExternalCluster;

/**
 * Stands before Kafka's class of the same name on the class path, so that the tests of Kafka's core get an external
 * cluster (see {@link ExternalCluster}) instead of brokers inside this JVM: one controller, and as many brokers as they
 * start.
 */
@ExtendWith(QuorumTestHarness.End.class)
public abstract class QuorumTestHarness implements Logging {
    private TestInfo testInfo;
    private ExternalCluster cluster;
    private ControllerServer controller;

    /** What comes after the test itself is only the end of its cluster. */
    static final class End implements AfterTestExecutionCallback {
        @Override
        public void afterTestExecution(ExtensionContext context) {
            QuorumTestHarness test = (QuorumTestHarness) context.getRequiredTestInstance();
            if (test.cluster != null) test.cluster.testIsOver();
        }
    }

    // The life of a test

    @BeforeEach
    public void setUp(TestInfo testInfo) {
        this.testInfo = testInfo;
        Map<Integer, KafkaConfig> brokers = new TreeMap<>();
        // All that a test is known to start are started at once; others follow when they are created.
        if (this instanceof KafkaServerTestHarness harness) {
            CollectionConverters.asJava(harness.configs()).forEach(config -> brokers.put(config.nodeId(), config));
        }
        Map<String, String> properties = new TreeMap<>();
        CollectionConverters.asJava(kraftControllerConfigs(testInfo)).forEach(node ->
            node.forEach((name, value) -> properties.put(name.toString(), value.toString())));
        cluster = ExternalCluster.start(brokers, properties);
        controller = cluster.controller(properties);
    }

    @AfterEach
    public void tearDown() {
        if (cluster != null) cluster.stop();
    }

    public KafkaBroker createBroker(KafkaConfig config, Time time, boolean startup, Option<String> threadNamePrefix) {
        KafkaBroker broker = cluster.broker(config);
        if (startup) broker.startup();
        return broker;
    }

    public Time createBroker$default$2() {
        return Time.SYSTEM;
    }

    public boolean createBroker$default$3() {
        return true;
    }

    public Option<String> createBroker$default$4() {
        return Option.empty();
    }

    public void shutdownKRaftController() {
        controller.shutdown();
    }

    // What a test may ask, or say

    public ControllerServer controllerServer() {
        return controller;
    }

    public scala.collection.Seq<ControllerServer> controllerServers() {
        return CollectionConverters.asScala(List.of(controller)).toSeq();
    }

    public scala.collection.Seq<Properties> kraftControllerConfigs(TestInfo testInfo) {
        return CollectionConverters.asScala(List.of(new Properties())).toSeq();
    }

    public SecurityProtocol controllerListenerSecurityProtocol() {
        return SecurityProtocol.PLAINTEXT;
    }

    public scala.collection.Seq<SecurityProtocol> extraControllerSecurityProtocols() {
        return CollectionConverters.asScala(List.<SecurityProtocol>of()).toSeq();
    }

    public MetadataVersion metadataVersion() {
        return MetadataVersion.latestTesting();
    }

    public void addFormatterSettings(Formatter formatter) {
    }

    public Option<GroupProtocol> maybeGroupProtocolSpecified() {
        return TestInfoUtils.maybeGroupProtocolSpecified(testInfo);
    }

    public GroupProtocol groupProtocolFromTestParameters() {
        return maybeGroupProtocolSpecified().get();
    }

    public static Stream<Arguments> getTestGroupProtocolParametersAll() {
        return Stream.concat(getTestGroupProtocolParametersClassicGroupProtocolOnly(),
            getTestGroupProtocolParametersConsumerGroupProtocolOnly());
    }

    public static Stream<Arguments> getTestGroupProtocolParametersClassicGroupProtocolOnly() {
        return Stream.of(parameter(GroupProtocol.CLASSIC));
    }

    public static Stream<Arguments> getTestGroupProtocolParametersConsumerGroupProtocolOnly() {
        return Stream.of(parameter(GroupProtocol.CONSUMER));
    }

    private static Arguments parameter(GroupProtocol protocol) {
        return Arguments.of(protocol.name().toLowerCase(Locale.ROOT));
    }

    // What a Scala class has of Logging

    private String logIdent;

    @Override
    public String logIdent() {
        return logIdent;
    }

    @Override
    public void logIdent_$eq(String logIdent) {
        this.logIdent = logIdent;
    }
}
