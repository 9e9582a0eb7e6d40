import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.Exit;

/** Apache Kafka's Java clients and command line tools behind the protocol of interop/README.md. */
public final class Adapter {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final HexFormat HEX = HexFormat.of();
    private static final PrintStream ANSWERS = System.out;
    private static KafkaConsumer<byte[], byte[]> consumer;

    public static void main(String[] arguments) throws Exception {
        // The tools print to System.out, which must not mix with our answers.
        System.setOut(System.err);
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            ObjectNode answer = JSON.createObjectNode();
            try {
                answer(JSON.readTree(line), answer);
            } catch (ExecutionException error) {
                answer.put("error", String.valueOf(error.getCause()));
            } catch (Exception error) {
                error.printStackTrace();
                answer.put("error", error.toString());
            }
            ANSWERS.println(JSON.writeValueAsString(answer));
        }
        System.exit(0);
    }

    private static void answer(JsonNode request, ObjectNode answer) throws Exception {
        switch (request.get("do").asText()) {
            case "produce" -> produce(request, answer);
            case "transaction" -> transaction(request);
            case "consume" -> consume(request, answer);
            case "read" -> read(request, answer);
            case "watermarks" -> watermarks(request, answer);
            case "offsets" -> offsets(request, answer);
            case "create" -> create(request);
            case "delete" -> delete(request);
            case "topics" -> topics(request, answer);
            case "configs" -> configs(request, answer);
            case "set-configs" -> setConfigs(request);
            case "partitions" -> partitions(request, answer);
            case "add-partitions" -> addPartitions(request);
            case "delete-records" -> deleteRecords(request, answer);
            case "join" -> Member.join(request);
            case "member" -> Member.of(request).describe(answer);
            case "consumed" -> Member.of(request).consumed(answer);
            case "leave" -> Member.of(request).leave();
            case "groups" -> groups(answer, request);
            case "describe-group" -> describeGroup(request, answer);
            case "committed" -> committed(request, answer);
            case "commit" -> commit(request);
            case "delete-group" -> deleteGroup(request);
            case "tool" -> tool(request, answer);
            default -> answer.put("error", "unknown request");
        }
    }

    private static void produce(JsonNode request, ObjectNode answer) throws Exception {
        Properties config = config(request);
        config.put("compression.type", request.get("codec").asText());
        config.put("acks", request.get("acks").asText());
        config.put("enable.idempotence", request.get("idempotence").asText());
        config.put("delivery.timeout.ms", "45000");
        config.put("max.request.size", "4194304");
        config.put("linger.ms", "5");
        List<Future<RecordMetadata>> sent;
        ByteArraySerializer bytes = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(config, bytes, bytes)) {
            sent = send(producer, request);
        }
        ArrayNode offsets = answer.putArray("offsets");
        for (Future<RecordMetadata> future : sent) {
            RecordMetadata metadata = future.get(0, TimeUnit.SECONDS);
            offsets.add(metadata.hasOffset() ? metadata.offset() : -1);
        }
    }

    private static List<Future<RecordMetadata>> send(KafkaProducer<byte[], byte[]> producer, JsonNode request) {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        String topic = request.get("topic").asText();
        for (JsonNode record : request.get("records")) {
            List<Header> headers = new ArrayList<>();
            for (JsonNode header : record.get("headers")) {
                headers.add(new RecordHeader(header.get(0).asText(), bytes(header.get(1))));
            }
            sent.add(producer.send(new ProducerRecord<>(topic, record.get("partition").asInt(),
                record.get("timestamp").asLong(), bytes(record.get("key")), bytes(record.get("value")), headers)));
        }
        producer.flush();
        return sent;
    }

    /** A producer by its transactional id, as long as its transaction is open: to close one would roll it back. */
    private static final Map<String, KafkaProducer<byte[], byte[]>> TRANSACTIONS = new HashMap<>();

    private static void transaction(JsonNode request) throws Exception {
        String id = request.get("id").asText();
        var producer = TRANSACTIONS.get(id);
        if (producer == null) {
            Properties config = config(request);
            config.put("compression.type", request.get("codec").asText());
            config.put("transactional.id", id);
            config.put("transaction.timeout.ms", "600000");
            producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
            TRANSACTIONS.put(id, producer);
            producer.initTransactions();
            producer.beginTransaction();
        }
        for (Future<RecordMetadata> future : send(producer, request)) {
            future.get(0, TimeUnit.SECONDS);
        }
        switch (request.get("end").asText()) {
            case "commit" -> producer.commitTransaction();
            case "abort" -> producer.abortTransaction();
            default -> {
                return;
            }
        }
        TRANSACTIONS.remove(id).close();
    }

    private static void read(JsonNode request, ObjectNode answer) {
        TopicPartition partition = partition(request);
        Properties config = config(request);
        config.put("isolation.level", request.get("isolation").asText());
        config.put("auto.offset.reset", "none");
        ArrayNode records = answer.putArray("records");
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        try (var reader = new KafkaConsumer<>(config, bytes, bytes)) {
            reader.assign(List.of(partition));
            long end = reader.endOffsets(List.of(partition)).get(partition);
            long start = reader.beginningOffsets(List.of(partition)).get(partition);
            reader.seek(partition, start);
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
            // Markers and records that are gone are passed over: the position tells what was read, not the count.
            while (reader.position(partition) < end) {
                if (System.nanoTime() > deadline) {
                    throw new IllegalStateException(partition + " is read to " + reader.position(partition) + " of " + end);
                }
                reader.poll(Duration.ofMillis(200)).forEach(record -> describe(record, records.addObject()));
            }
            answer.put("start", start);
            answer.put("end", end);
        }
    }

    private static void consume(JsonNode request, ObjectNode answer) {
        TopicPartition partition = partition(request);
        int wanted = request.get("count").asInt();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        ArrayNode records = answer.putArray("records");
        var consumer = consumer(request);
        consumer.assign(List.of(partition));
        consumer.seek(partition, request.get("from").asLong());
        while (records.size() < wanted && System.nanoTime() < deadline) {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                if (records.size() < wanted) {
                    describe(record, records.addObject());
                }
            }
        }
        consumer.unsubscribe();
    }

    private static void describe(ConsumerRecord<byte[], byte[]> record, ObjectNode into) {
        into.put("partition", record.partition());
        into.put("offset", record.offset());
        into.put("timestamp", record.timestamp());
        into.put("key", hex(record.key()));
        into.put("value", hex(record.value()));
        ArrayNode headers = into.putArray("headers");
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(hex(header.value()));
        }
    }

    private static void watermarks(JsonNode request, ObjectNode answer) {
        TopicPartition partition = partition(request);
        var consumer = consumer(request);
        answer.put("low", consumer.beginningOffsets(List.of(partition)).get(partition));
        answer.put("high", consumer.endOffsets(List.of(partition)).get(partition));
    }

    private static void offsets(JsonNode request, ObjectNode answer) {
        TopicPartition partition = partition(request);
        ArrayNode offsets = answer.putArray("offsets");
        for (JsonNode time : request.get("times")) {
            var found = consumer(request).offsetsForTimes(Map.of(partition, time.asLong())).get(partition);
            offsets.add(found == null ? -1 : found.offset());
        }
    }

    @SuppressWarnings("unchecked")
    private static void create(JsonNode request) throws Exception {
        Map<String, String> configs = JSON.convertValue(request.get("configs"), Map.class);
        JsonNode replication = request.get("replication");
        NewTopic topic = new NewTopic(request.get("topic").asText(),
            Optional.of(request.get("partitions").asInt()),
            Optional.ofNullable(replication).map(factor -> (short) factor.asInt())).configs(configs);
        try (Admin admin = Admin.create(config(request))) {
            admin.createTopics(List.of(topic)).all().get(30, TimeUnit.SECONDS);
        }
    }

    private static void delete(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            admin.deleteTopics(List.of(request.get("topic").asText())).all().get(30, TimeUnit.SECONDS);
        }
    }

    private static void topics(JsonNode request, ObjectNode answer) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            ArrayNode topics = answer.putArray("topics");
            admin.listTopics().names().get(30, TimeUnit.SECONDS).forEach(topics::add);
        }
    }

    private static void configs(JsonNode request, ObjectNode answer) throws Exception {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, request.get("topic").asText());
        try (Admin admin = Admin.create(config(request))) {
            ObjectNode configs = answer.putObject("configs");
            admin.describeConfigs(List.of(topic)).all().get(30, TimeUnit.SECONDS).get(topic).entries()
                .forEach(entry -> configs.put(entry.name(), entry.value()));
        }
    }

    private static void setConfigs(JsonNode request) throws Exception {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, request.get("topic").asText());
        List<AlterConfigOp> changes = new ArrayList<>();
        request.get("configs").fields().forEachRemaining(config -> changes.add(new AlterConfigOp(
            new ConfigEntry(config.getKey(), config.getValue().asText()), AlterConfigOp.OpType.SET)));
        try (Admin admin = Admin.create(config(request))) {
            admin.incrementalAlterConfigs(Map.of(topic, changes)).all().get(30, TimeUnit.SECONDS);
        }
    }

    private static void partitions(JsonNode request, ObjectNode answer) {
        Properties config = config(request);
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        // A client of its own: one that knows the topic would answer from what it knows.
        try (var asking = new KafkaConsumer<>(config, bytes, bytes)) {
            answer.put("partitions", asking.partitionsFor(request.get("topic").asText()).size());
        }
    }

    private static void addPartitions(JsonNode request) throws Exception {
        NewPartitions more = NewPartitions.increaseTo(request.get("partitions").asInt());
        try (Admin admin = Admin.create(config(request))) {
            admin.createPartitions(Map.of(request.get("topic").asText(), more)).all().get(30, TimeUnit.SECONDS);
        }
    }

    private static void deleteRecords(JsonNode request, ObjectNode answer) throws Exception {
        TopicPartition partition = partition(request);
        var before = RecordsToDelete.beforeOffset(request.get("before").asLong());
        try (Admin admin = Admin.create(config(request))) {
            answer.put("low", admin.deleteRecords(Map.of(partition, before)).lowWatermarks().get(partition)
                .get(30, TimeUnit.SECONDS).lowWatermark());
        }
    }

    private static void groups(ObjectNode answer, JsonNode request) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            ArrayNode groups = answer.putArray("groups");
            admin.listConsumerGroups().all().get(30, TimeUnit.SECONDS).forEach(group -> groups.add(group.groupId()));
        }
    }

    private static void describeGroup(JsonNode request, ObjectNode answer) throws Exception {
        String group = request.get("group").asText();
        try (Admin admin = Admin.create(config(request))) {
            var described = admin.describeConsumerGroups(List.of(group)).all().get(30, TimeUnit.SECONDS).get(group);
            answer.put("state", described.state().toString());
            ArrayNode members = answer.putArray("members");
            for (var member : described.members()) {
                ArrayNode partitions = members.addArray();
                member.assignment().topicPartitions().forEach(partition -> partitions.add(partition.toString()));
            }
        }
    }

    private static void committed(JsonNode request, ObjectNode answer) throws Exception {
        String topic = request.get("topic").asText();
        try (Admin admin = Admin.create(config(request))) {
            ObjectNode offsets = answer.putObject("offsets");
            admin.listConsumerGroupOffsets(request.get("group").asText()).partitionsToOffsetAndMetadata()
                .get(30, TimeUnit.SECONDS).forEach((partition, offset) -> {
                    if (partition.topic().equals(topic) && offset != null) {
                        offsets.put(String.valueOf(partition.partition()), offset.offset());
                    }
                });
        }
    }

    private static void commit(JsonNode request) throws Exception {
        String topic = request.get("topic").asText();
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        request.get("offsets").fields().forEachRemaining(offset -> offsets.put(
            new TopicPartition(topic, Integer.parseInt(offset.getKey())),
            new OffsetAndMetadata(offset.getValue().asLong())));
        try (Admin admin = Admin.create(config(request))) {
            admin.alterConsumerGroupOffsets(request.get("group").asText(), offsets).all().get(30, TimeUnit.SECONDS);
        }
    }

    private static void deleteGroup(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(config(request))) {
            admin.deleteConsumerGroups(List.of(request.get("group").asText())).all().get(30, TimeUnit.SECONDS);
        }
    }

    /** A group member that polls in a thread of its own, and commits whatever it was given. */
    private static final class Member extends Thread {
        private static final Map<String, Member> MEMBERS = new HashMap<>();

        private final KafkaConsumer<byte[], byte[]> member;
        private final ArrayNode consumed = JSON.createArrayNode();
        private volatile List<String> assignment = List.of();
        private volatile String error;
        private volatile boolean leaving;

        private Member(JsonNode request) {
            Properties config = config(request);
            config.put("group.id", request.get("group").asText());
            config.put("session.timeout.ms", request.get("session").asText());
            config.put("heartbeat.interval.ms", "300");
            config.put("enable.auto.commit", "false");
            config.put("auto.offset.reset", "earliest");
            config.put("metadata.max.age.ms", "1000");
            config.put("partition.assignment.strategy", switch (request.get("assignor").asText()) {
                case "cooperative-sticky" -> "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
                case "roundrobin" -> "org.apache.kafka.clients.consumer.RoundRobinAssignor";
                default -> "org.apache.kafka.clients.consumer.RangeAssignor";
            });
            if (!request.get("instance").isNull()) {
                config.put("group.instance.id", request.get("instance").asText());
            }
            member = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
            member.subscribe(List.of(request.get("topic").asText()));
            setDaemon(true);
        }

        static void join(JsonNode request) {
            Member member = new Member(request);
            MEMBERS.put(request.get("member").asText(), member);
            member.start();
        }

        static Member of(JsonNode request) {
            return MEMBERS.get(request.get("member").asText());
        }

        @Override
        public void run() {
            while (!leaving) {
                try {
                    var records = member.poll(Duration.ofMillis(100));
                    assignment = member.assignment().stream().map(TopicPartition::toString).toList();
                    synchronized (consumed) {
                        records.forEach(record -> Adapter.describe(record, consumed.addObject()));
                    }
                    if (!records.isEmpty()) {
                        member.commitSync(Duration.ofSeconds(5));
                    }
                } catch (Exception failed) {
                    // A commit may come too late for its generation, or find no broker: others follow.
                    error = failed.toString();
                }
            }
            member.close();
        }

        void describe(ObjectNode answer) {
            assignment.forEach(answer.putArray("assignment")::add);
            answer.put("note", error);
            synchronized (consumed) {
                answer.put("count", consumed.size());
            }
        }

        void consumed(ObjectNode answer) {
            synchronized (consumed) {
                answer.putArray("records").addAll(consumed);
            }
        }

        void leave() throws InterruptedException {
            leaving = true;
            join(30_000);
        }
    }

    private static final class Exited extends Error {
        Exited() {
            super("the tool ended", null, false, false);
        }
    }

    /** Calls a tool's main method as its start script would, in this process. */
    private static void tool(JsonNode request, ObjectNode answer) throws Exception {
        List<String> arguments = new ArrayList<>();
        request.get("arguments").forEach(argument -> arguments.add(argument.asText()));
        List<Runnable> hooks = new ArrayList<>();
        // A tool may exit inside a try that catches everything and exits again: the first one counts.
        List<Integer> exits = new ArrayList<>();
        Exit.setExitProcedure((status, message) -> {
            exits.add(status);
            throw new Exited();
        });
        Exit.setShutdownHookAdder((name, hook) -> hooks.add(hook));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        ByteArrayOutputStream err = new ByteArrayOutputStream();
        InputStream input = System.in;
        PrintStream output = System.out;
        PrintStream errors = System.err;
        System.setIn(new ByteArrayInputStream(bytes(request.get("input"))));
        System.setOut(new PrintStream(out, true));
        System.setErr(new PrintStream(err, true));
        boolean threw = false;
        try {
            Class.forName(request.get("class").asText()).getMethod("main", String[].class)
                .invoke(null, (Object) arguments.toArray(String[]::new));
        } catch (InvocationTargetException thrown) {
            threw = !(thrown.getCause() instanceof Exited);
            if (threw) {
                thrown.getCause().printStackTrace();
            }
        } finally {
            // What would run when the tool's process ends; the console producer flushes here.
            hooks.forEach(Runnable::run);
            System.setIn(input);
            System.setOut(output);
            System.setErr(errors);
        }
        answer.put("status", !exits.isEmpty() ? exits.get(0) : threw ? 1 : 0);
        answer.put("out", out.toString(StandardCharsets.UTF_8));
        answer.put("err", err.toString(StandardCharsets.UTF_8));
    }

    /** One for all requests: it has to find its way back after the broker was killed. */
    private static KafkaConsumer<byte[], byte[]> consumer(JsonNode request) {
        if (consumer != null) {
            return consumer;
        }
        Properties config = config(request);
        config.put("retry.backoff.ms", "20");
        // A read-ahead parked at one partition's end holds up the next partition's fetch.
        config.put("fetch.max.wait.ms", "50");
        config.put("enable.auto.commit", "false");
        config.put("auto.offset.reset", "none");
        consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        return consumer;
    }

    private static Properties config(JsonNode request) {
        Properties config = new Properties();
        config.put("bootstrap.servers", request.get("bootstrap").asText());
        return config;
    }

    private static TopicPartition partition(JsonNode request) {
        return new TopicPartition(request.get("topic").asText(), request.get("partition").asInt());
    }

    private static byte[] bytes(JsonNode hex) {
        return hex == null || hex.isNull() ? null : HEX.parseHex(hex.asText());
    }

    private static String hex(byte[] bytes) {
        return bytes == null ? null : HEX.formatHex(bytes);
    }
}
