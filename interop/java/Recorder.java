import java.io.BufferedReader;
import java.io.BufferedOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Apache Kafka's Java clients as recorders, see "Recorders" in interop/README.md. */
public final class Recorder {
    private static final PrintStream OUT = new PrintStream(
        new BufferedOutputStream(new FileOutputStream(FileDescriptor.out), 1 << 16), false, StandardCharsets.UTF_8);
    private static final BlockingQueue<String> LINES = new LinkedBlockingQueue<>();
    private static final Duration POLL = Duration.ofMillis(50);
    private static final long COMMIT_EVERY_MS = 200;
    private static final int IN_FLIGHT_MAX = 2000;

    private static String topic;
    private static int partitions;
    private static String name;

    public static void main(String[] arguments) throws Exception {
        Thread reader = new Thread(Recorder::readLines);
        reader.setDaemon(true);
        reader.start();
        String bootstrap = arguments[1];
        topic = arguments[2];
        partitions = Integer.parseInt(arguments[3]);
        name = arguments[4];
        Properties config = new Properties();
        config.put("bootstrap.servers", bootstrap);
        switch (arguments[0]) {
            case "write" -> write(config, Integer.parseInt(arguments[5]));
            case "read" -> read(config);
            case "group" -> group(config);
            case "one" -> one(config);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        OUT.flush();
        System.exit(0);
    }

    private static void readLines() {
        try (var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                LINES.add(line);
            }
        } catch (Exception error) {
            error.printStackTrace();
        }
        // Whoever started us has gone.
        System.exit(1);
    }

    private static synchronized void say(String line) {
        OUT.println(line);
    }

    private static synchronized void flush() {
        OUT.flush();
    }

    private static String value(long number) {
        String letter = String.valueOf((char) ('a' + number % 26));
        return name + " " + number + " " + letter.repeat((int) (number % 211));
    }

    private static KafkaProducer<String, String> producer(Properties config) {
        config.put("acks", "all");
        return new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
    }

    private static void write(Properties config, int rate) throws Exception {
        config.put("linger.ms", "5");
        config.put("request.timeout.ms", "5000");
        config.put("delivery.timeout.ms", "120000");
        config.put("max.block.ms", "120000");
        long started = System.nanoTime();
        long number = 0;
        var inFlight = new java.util.concurrent.atomic.AtomicInteger();
        try (var producer = producer(config)) {
            while (LINES.peek() == null) {
                long due = (System.nanoTime() - started) / 1_000_000 * rate / 1000;
                while (number < due && inFlight.get() < IN_FLIGHT_MAX) {
                    send(producer, number, inFlight);
                    number++;
                }
                flush();
                Thread.sleep(5);
            }
            producer.flush();
        }
        say("sent " + number);
    }

    private static void send(KafkaProducer<String, String> producer, long number,
            java.util.concurrent.atomic.AtomicInteger inFlight) {
        inFlight.incrementAndGet();
        int partition = (int) (number % partitions);
        producer.send(new ProducerRecord<>(topic, partition, null, value(number)), (metadata, error) -> {
            inFlight.decrementAndGet();
            say(error == null
                ? "a " + number + " " + metadata.partition() + " " + (metadata.hasOffset() ? metadata.offset() : -1)
                : "e " + number + " " + error);
        });
    }

    /** "w PARTITION" writes a record; the answer comes when it is acknowledged. "new" goes on with a new producer. */
    private static void one(Properties config) throws Exception {
        var producer = producer(config);
        for (String line = LINES.take(); !line.equals("end"); line = LINES.take()) {
            if (line.equals("new")) {
                producer.close();
                producer = producer(config);
                continue;
            }
            int partition = Integer.parseInt(line.substring(2));
            try {
                producer.send(new ProducerRecord<>(topic, partition, null, "record")).get();
                say("ok");
            } catch (ExecutionException error) {
                say("e 0 " + error.getCause());
            }
            flush();
        }
        producer.close();
    }

    private static KafkaConsumer<String, String> consumer(Properties config, String reset) {
        config.put("enable.auto.commit", "false");
        config.put("auto.offset.reset", reset);
        config.put("fetch.max.wait.ms", "100");
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    private static List<TopicPartition> all() {
        List<TopicPartition> all = new ArrayList<>();
        for (int partition = 0; partition < partitions; partition++) {
            all.add(new TopicPartition(topic, partition));
        }
        return all;
    }

    private static void read(Properties config) {
        try (var consumer = consumer(config, "none")) {
            consumer.assign(all());
            consumer.seekToBeginning(all());
            Map<Integer, Long> positions = new HashMap<>();
            while (!hasReached(positions)) {
                for (ConsumerRecord<String, String> record : consumer.poll(POLL)) {
                    positions.put(record.partition(), record.offset() + 1);
                    say("r " + record.partition() + " " + record.offset() + " " + record.value());
                }
                flush();
            }
        }
        say("done");
    }

    /** Commits again and again; says so when it is given again what it has committed. */
    private static void group(Properties config) {
        config.put("group.id", name);
        try (var consumer = consumer(config, "earliest")) {
            Map<Integer, Long> reached = new HashMap<>();
            Map<Integer, Long> positions = new HashMap<>();
            Map<Integer, Long> committed = new HashMap<>();
            // Who joins anew begins where it has committed, and must not commit where it was.
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
                    positions.clear();
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
                    positions.clear();
                }
            });
            long latest = System.nanoTime();
            while (!hasReached(reached)) {
                for (ConsumerRecord<String, String> record : consumer.poll(POLL)) {
                    long before = committed.getOrDefault(record.partition(), 0L);
                    if (record.offset() < before) {
                        say("back " + record.partition() + " " + record.offset() + " " + before);
                    }
                    positions.put(record.partition(), record.offset() + 1);
                    reached.put(record.partition(), record.offset() + 1);
                }
                if (System.nanoTime() - latest > COMMIT_EVERY_MS * 1_000_000 && !positions.isEmpty()) {
                    latest = System.nanoTime();
                    commit(consumer, positions, committed);
                }
                flush();
            }
        }
        say("done");
    }

    private static void commit(KafkaConsumer<String, String> consumer, Map<Integer, Long> positions,
            Map<Integer, Long> committed) {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        positions.forEach((partition, offset) ->
            offsets.put(new TopicPartition(topic, partition), new OffsetAndMetadata(offset)));
        try {
            consumer.commitSync(offsets, Duration.ofSeconds(10));
        } catch (KafkaException error) {
            complain(error);
            return; // A commit that fails is no promise.
        }
        committed.putAll(positions);
        positions.forEach((partition, offset) -> say("c " + partition + " " + offset));
    }

    /** What a poll throws ends this program, and fails the test: the consumer tries again itself what is retriable. */
    private static void complain(KafkaException error) {
        short code = Errors.forException(error).code();
        if (error instanceof CommitFailedException) {
            // It stands for the answers to a member that is one no more.
            code = Errors.UNKNOWN_MEMBER_ID.code();
        } else if (code == Errors.UNKNOWN_SERVER_ERROR.code() && error instanceof RetriableException) {
            code = 0;
        }
        say("x " + code + " " + error.toString().replace('\n', ' '));
    }

    /** "end OFFSET…", one for each partition. */
    private static boolean hasReached(Map<Integer, Long> positions) {
        String line = LINES.peek();
        if (line == null) {
            return false;
        }
        String[] ends = line.split(" ");
        for (int partition = 0; partition < partitions; partition++) {
            if (positions.getOrDefault(partition, 0L) < Long.parseLong(ends[partition + 1])) {
                return false;
            }
        }
        return true;
    }
}
