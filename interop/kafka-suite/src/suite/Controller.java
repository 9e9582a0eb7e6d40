package suite;

import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Collectors;
import kafka.network.SocketServer;
import kafka.raft.KafkaRaftManager;
import kafka.server.ControllerServer;
import kafka.server.KafkaConfig;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.TopicListing;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.requests.ApiError;
import org.apache.kafka.controller.ResultOrError;
import org.apache.kafka.raft.LogOffsetMetadata;
import org.apache.kafka.raft.RaftLog;

/**
 * The one controller outside of this JVM, as tests know it: what they ask is asked of the cluster. What else its Java
 * object has is not there, and says so.
 */
final class Controller {
    private final ExternalCluster cluster;
    private final int id;
    private final KafkaConfig config;

    private Controller(ExternalCluster cluster, int id, Map<String, String> properties) {
        this.cluster = cluster;
        this.id = id;
        Map<String, String> all = new TreeMap<>(properties);
        all.put("process.roles", "controller");
        all.put("node.id", Integer.toString(id));
        all.put("listeners", "CONTROLLER://localhost:0");
        all.put("controller.listener.names", "CONTROLLER");
        all.put("controller.quorum.voters", id + "@" + cluster.controllers());
        this.config = new KafkaConfig(all, false);
    }

    static ControllerServer of(ExternalCluster cluster, int id, Map<String, String> properties) {
        return new Controller(cluster, id, properties).server();
    }

    private ControllerServer server() {
        RaftLog log = Broker.standIn(RaftLog.class, (method, arguments) -> switch (method) {
            case "endOffset" -> new LogOffsetMetadata(cluster.metadataOffset() + 1);
            default -> throw Broker.absent(method);
        });
        KafkaRaftManager<?> raft = Broker.standIn(KafkaRaftManager.class, (method, arguments) -> switch (method) {
            case "raftLog" -> log;
            default -> throw Broker.absent(method);
        });
        var controller = Broker.standIn(org.apache.kafka.controller.Controller.class, (method, arguments) -> switch (method) {
            case "isActive" -> true;
            case "findAllTopicIds" -> CompletableFuture.completedFuture(topicIds());
            case "findTopicIds" -> CompletableFuture.completedFuture(topicIds((Collection<?>) arguments[1]));
            default -> throw Broker.absent(method);
        });
        SocketServer socketServer = Broker.standIn(SocketServer.class, (method, arguments) -> switch (method) {
            case "boundPort" -> ExternalCluster.ports(cluster.controllers()).get(0);
            default -> throw Broker.absent(method);
        });
        return Broker.standIn(ControllerServer.class, (method, arguments) -> {
            switch (method) {
                case "shutdown" -> cluster.shutdownController(id);
                case "awaitShutdown" -> { }
                case "config" -> { return config; }
                case "clusterId" -> { return cluster.clusterId(); }
                case "controller" -> { return controller; }
                case "raftManager" -> { return raft; }
                case "socketServer" -> { return socketServer; }
                default -> throw Broker.absent(method);
            }
            return null;
        });
    }

    private Map<String, Uuid> topicIds() {
        ListTopicsOptions all = new ListTopicsOptions().listInternal(true);
        return cluster.ask(admin -> admin.listTopics(all).listings().get()).stream()
            .collect(Collectors.toMap(TopicListing::name, TopicListing::topicId));
    }

    private Map<String, ResultOrError<Uuid>> topicIds(Collection<?> names) {
        Map<String, Uuid> all = topicIds();
        Map<String, ResultOrError<Uuid>> result = new TreeMap<>();
        for (Object name : List.copyOf(names)) {
            Uuid id = all.get(name);
            result.put(name.toString(), id == null
                ? new ResultOrError<>(new ApiError(Errors.UNKNOWN_TOPIC_OR_PARTITION)) : new ResultOrError<>(id));
        }
        return result;
    }
}
