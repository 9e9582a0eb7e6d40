// Asks Apache Kafka 4.3.1 for the truth that the tests of ottla-records compare with:
//
//   *.bin          batches as Kafka's own builder writes them
//   verdicts.txt   batches, good and bad, with what a Kafka log makes of each
//
// Run from this directory, with the jars of org.apache.kafka:kafka_2.13:4.3.1 and its dependencies:
//
//   java -cp '/path/to/jars/*' Golden.java .
//   java -cp '/path/to/jars/*' Golden.java verify DIR     (reads every *.bin in DIR, prints its records)

import java.io.File;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.ScheduledFuture;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.zip.CRC32C;

import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.KRaftVersionRecord;
import org.apache.kafka.common.message.LeaderChangeMessage;
import org.apache.kafka.common.message.SnapshotFooterRecord;
import org.apache.kafka.common.message.SnapshotHeaderRecord;
import org.apache.kafka.common.message.VotersRecord;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.CompressionType;
import org.apache.kafka.common.record.internal.ControlRecordType;
import org.apache.kafka.common.record.internal.EndTransactionMarker;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.common.record.internal.MemoryRecordsBuilder;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.record.internal.RecordBatch;
import org.apache.kafka.common.requests.ProduceRequest;
import org.apache.kafka.common.requests.ProduceResponse.RecordError;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.util.Scheduler;
import org.apache.kafka.storage.internals.log.AppendOrigin;
import org.apache.kafka.storage.internals.log.LogConfig;
import org.apache.kafka.storage.internals.log.LogDirFailureChannel;
import org.apache.kafka.storage.internals.log.ProducerStateManagerConfig;
import org.apache.kafka.storage.internals.log.RecordValidationException;
import org.apache.kafka.storage.internals.log.UnifiedLog;
import org.apache.kafka.storage.log.metrics.BrokerTopicStats;

public class Golden {
    static final long NOW = 1_700_000_000_000L;

    public static void main(String[] args) throws Exception {
        if (args[0].equals("verify")) {
            verify(Path.of(args[1]));
            return;
        }
        Path out = Path.of(args[0]);
        writeBatches(out);
        try (PrintStream verdicts = new PrintStream(out.resolve("verdicts.txt").toFile(), StandardCharsets.UTF_8)) {
            new Golden(verdicts).judgeAll();
        }
    }

    // ---- batches ----

    static void writeBatches(Path out) throws Exception {
        for (CompressionType type : CompressionType.values()) {
            write(out, "records-" + type.name, build(type, b -> various(b)));
            if (type != CompressionType.NONE)
                write(out, "large-" + type.name, build(type, b -> large(b)));
        }
        write(out, "transactional", build(new Shape() {{
            baseOffset = 42; producerId = 4_000_000_000L; producerEpoch = 7; sequence = Integer.MAX_VALUE - 1;
            transactional = true; leaderEpoch = 9;
        }}, b -> various(b)));
        write(out, "log-append-time", build(new Shape() {{ timestampType = TimestampType.LOG_APPEND_TIME; }}, b -> various(b)));

        for (ControlRecordType type : List.of(ControlRecordType.ABORT, ControlRecordType.COMMIT))
            write(out, "control-" + type.name().toLowerCase(),
                bytes(MemoryRecords.withEndTransactionMarker(5, NOW, 3, 77, (short) 2, new EndTransactionMarker(type, 11))));
        ByteBuffer room = ByteBuffer.allocate(512);
        write(out, "control-leader-change", bytes(MemoryRecords.withLeaderChangeMessage(5, NOW, 3, room.clear(),
            new LeaderChangeMessage().setLeaderId(1)
                .setVoters(List.of(new LeaderChangeMessage.Voter().setVoterId(1)))
                .setGrantingVoters(List.of(new LeaderChangeMessage.Voter().setVoterId(1))))));
        write(out, "control-snapshot-header", bytes(MemoryRecords.withSnapshotHeaderRecord(5, NOW, 3, room.clear(),
            new SnapshotHeaderRecord().setLastContainedLogTimestamp(NOW))));
        write(out, "control-snapshot-footer", bytes(MemoryRecords.withSnapshotFooterRecord(5, NOW, 3, room.clear(),
            new SnapshotFooterRecord())));
        write(out, "control-kraft-version", bytes(MemoryRecords.withKRaftVersionRecord(5, NOW, 3, room.clear(),
            new KRaftVersionRecord().setKRaftVersion((short) 1))));
        write(out, "control-kraft-voters", bytes(MemoryRecords.withVotersRecord(5, NOW, 3, room.clear(),
            new VotersRecord())));
    }

    static class Shape {
        CompressionType type = CompressionType.NONE;
        TimestampType timestampType = TimestampType.CREATE_TIME;
        long baseOffset = 0;
        long producerId = RecordBatch.NO_PRODUCER_ID;
        short producerEpoch = RecordBatch.NO_PRODUCER_EPOCH;
        int sequence = RecordBatch.NO_SEQUENCE;
        boolean transactional = false;
        boolean control = false;
        int leaderEpoch = RecordBatch.NO_PARTITION_LEADER_EPOCH;
    }

    static byte[] build(CompressionType type, Consumer<MemoryRecordsBuilder> records) {
        Shape shape = new Shape();
        shape.type = type;
        return build(shape, records);
    }

    static byte[] build(Shape shape, Consumer<MemoryRecordsBuilder> records) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1024), RecordBatch.MAGIC_VALUE_V2,
            Compression.of(shape.type).build(), shape.timestampType, shape.baseOffset, NOW, shape.producerId,
            shape.producerEpoch, shape.sequence, shape.transactional, shape.control, shape.leaderEpoch);
        records.accept(builder);
        return bytes(builder.build());
    }

    static void various(MemoryRecordsBuilder builder) {
        builder.append(NOW, utf8("k"), utf8("v"));
        builder.append(NOW + 5, null, utf8("only a value"));
        builder.append(NOW - 1000, utf8("only a key"), null);
        builder.append(NOW, utf8(""), utf8(""));
        builder.append(NOW + 70_000, utf8("with headers"), utf8("x"), new Header[] {
            new RecordHeader("twice", utf8("1")),
            new RecordHeader("twice", (byte[]) null),
            new RecordHeader("", utf8("")),
            new RecordHeader("ünï", new byte[] {(byte) 0xff, 0}),
        });
        builder.append(NOW + 70_000, (byte[]) null, (byte[]) null);
        byte[] longValue = new byte[3000];
        for (int i = 0; i < longValue.length; i++)
            longValue[i] = (byte) (i % 251);
        builder.append(NOW, utf8("long"), longValue);
    }

    static void large(MemoryRecordsBuilder builder) {
        for (int i = 0; i < 200; i++) {
            byte[] value = new byte[1000];
            for (int j = 0; j < value.length; j++)
                value[j] = (byte) ((i * 31 + j * 7) % 251);
            builder.append(NOW + i, utf8("key-" + i), value);
        }
    }

    // ---- verdicts ----

    final PrintStream out;
    final Path directory;
    int logs = 0;

    Golden(PrintStream out) throws Exception {
        this.out = out;
        this.directory = Files.createTempDirectory("golden");
        out.println("# name | produce version | topic configuration | code | wire message | record errors | batch | stored");
    }

    void judgeAll() throws Exception {
        byte[] plain = build(CompressionType.NONE, b -> three(b));
        byte[] gzip = build(CompressionType.GZIP, b -> three(b));

        judge("a sound batch", plain);
        for (CompressionType type : CompressionType.values()) {
            byte[] batch = build(type, b -> three(b));
            judge(type.name + " kept", batch);
            judge(type.name + " stamped", batch, "message.timestamp.type", "LogAppendTime");
            for (String target : List.of("uncompressed", "gzip", "snappy", "lz4", "zstd")) {
                judge(type.name + " to " + target, batch, "compression.type", target);
                judge(type.name + " to " + target + ", stamped", batch,
                    "compression.type", target, "message.timestamp.type", "LogAppendTime");
            }
            judge(type.name + " cut off inside", fixed(type == CompressionType.NONE ? plain : batch, b -> {
                b.putInt(8, b.getInt(8) - 3); b.limit(b.limit() - 3); }));
            judge(type.name + " with garbage for records", fixed(batch, b -> {
                for (int i = 61; i < b.limit(); i++) b.put(i, (byte) 0xff); }));
            judge(type.name + " with one record less than it says", fixed(batch, b -> { b.putInt(57, 4); b.putInt(23, 3); }));
            judge(type.name + " with one record more than it says", fixed(batch, b -> { b.putInt(57, 2); b.putInt(23, 1); }));
        }
        judge("zstd in Produce 6", 6, build(CompressionType.ZSTD, b -> three(b)));
        judge("zstd in Produce 7", 7, build(CompressionType.ZSTD, b -> three(b)));

        judge("no bytes", new byte[0]);
        judge("eleven bytes", head(plain, 11));
        judge("sixteen bytes", head(plain, 16));
        judge("all but one byte", head(plain, plain.length - 1));
        judge("one byte more", tail(plain, new byte[1]));
        judge("eleven bytes more", tail(plain, new byte[11]));
        judge("twelve zero bytes more", tail(plain, new byte[12]));
        judge("half a batch more", tail(plain, head(plain, 40)));
        judge("two batches", tail(plain, plain));

        for (int length : new int[] {Integer.MIN_VALUE, -1, 0, 13, 48, Integer.MAX_VALUE})
            judge("batch length " + length, fixed(plain, b -> b.putInt(8, length)));
        for (int magic : new int[] {-1, 0, 1, 3, 127})
            judge("magic " + magic, fixed(plain, b -> b.put(16, (byte) magic)));
        judge("wrong crc", changed(plain, b -> b.put(20, (byte) (b.get(20) ^ 1))));
        judge("base offset 1", fixed(plain, b -> b.putLong(0, 1)));
        judge("leader epoch 5", fixed(plain, b -> b.putInt(12, 5)));

        for (int id : new int[] {5, 6, 7})
            judge("compression " + id, fixed(plain, b -> b.putShort(21, (short) id)));
        judge("control", fixed(plain, b -> b.putShort(21, (short) 0x20)));
        judge("transactional without a producer id", fixed(plain, b -> b.putShort(21, (short) 0x10)));
        judge("delete horizon", fixed(plain, b -> b.putShort(21, (short) 0x40)));
        judge("delete horizon, stamped", fixed(plain, b -> b.putShort(21, (short) 0x40)), "message.timestamp.type", "LogAppendTime");
        judge("delete horizon to gzip", fixed(plain, b -> b.putShort(21, (short) 0x40)), "compression.type", "gzip");
        judge("unknown attributes", fixed(plain, b -> b.putShort(21, (short) 0x7f80)));
        judge("unknown attributes, stamped", fixed(plain, b -> b.putShort(21, (short) 0x7f80)), "message.timestamp.type", "LogAppendTime");

        for (int delta : new int[] {Integer.MIN_VALUE, -1, 0, 1, 3, Integer.MAX_VALUE})
            judge("last offset delta " + delta, fixed(plain, b -> b.putInt(23, delta)));
        for (int count : new int[] {Integer.MIN_VALUE, -1, 0, 2, 4, Integer.MAX_VALUE})
            judge("record count " + count, fixed(plain, b -> b.putInt(57, count)));
        judge("no records", fixed(head(plain, 61), b -> { b.putInt(57, 0); b.putInt(23, -1); b.putInt(8, 49); }));

        judge("idempotent", fixed(plain, b -> { b.putLong(43, 9); b.putShort(51, (short) 0); b.putInt(53, 0); }));
        judge("producer id without a sequence", fixed(plain, b -> { b.putLong(43, 9); b.putShort(51, (short) 0); }));
        judge("producer id -2", fixed(plain, b -> b.putLong(43, -2)));
        judge("sequence without a producer id", fixed(plain, b -> b.putInt(53, 5)));

        for (CompressionType type : List.of(CompressionType.NONE, CompressionType.GZIP, CompressionType.SNAPPY)) {
            byte[] batch = build(type, b -> three(b));
            byte[] keyless = build(type, b -> { three(b); b.append(NOW, null, utf8("v")); b.append(NOW, (byte[]) null, (byte[]) null);
                b.append(NOW, null, utf8("w")); b.append(NOW, null, utf8("x")); });
            String in = " in " + type.name;
            judge("no keys" + in, keyless);
            judge("no keys, compacted" + in, keyless, "cleanup.policy", "compact");
            judge("no keys, compacted and deleted" + in, keyless, "cleanup.policy", "compact,delete");
            judge("no keys, compacted, recompressed" + in, keyless, "cleanup.policy", "compact", "compression.type", "lz4");
            judge("keys, compacted" + in, batch, "cleanup.policy", "compact");

            byte[] late = build(type, b -> { b.append(NOW + 3_600_000, utf8("k"), null); b.append(NOW + 3_600_001, utf8("k"), null); });
            judge("an hour ahead" + in, late);
            judge("an hour ahead, stamped" + in, late, "message.timestamp.type", "LogAppendTime");
            judge("an hour ahead, allowed" + in, late, "message.timestamp.after.max.ms", "3600001");
            byte[] early = build(type, b -> { b.append(NOW - 1000, utf8("k"), null); b.append(NOW - 1001, utf8("k"), null);
                b.append(NOW - 1002, (byte[]) null, null); });
            judge("old" + in, early);
            judge("too old" + in, early, "message.timestamp.before.max.ms", "1000");
            judge("too old, compacted" + in, early, "message.timestamp.before.max.ms", "1000", "cleanup.policy", "compact");
            judge("timestamp 0" + in, build(type, b -> { b.append(0, utf8("k"), null); }), "message.timestamp.before.max.ms", "1000");
            judge("no timestamp" + in, build(type, b -> { b.append(-1, utf8("k"), null); }), "message.timestamp.before.max.ms", "1000");
            judge("timestamp before 1970" + in, fixed(build(type, b -> { b.append(0, utf8("k"), null); }), b -> b.putLong(27, -5000)));
            judge("timestamps that overflow" + in, fixed(batch, b -> b.putLong(27, Long.MAX_VALUE)));

            judge("stamped by the client" + in, fixed(batch, b -> b.putShort(21, (short) (b.getShort(21) | 8))));
            judge("stamped by both" + in, fixed(batch, b -> b.putShort(21, (short) (b.getShort(21) | 8))), "message.timestamp.type", "LogAppendTime");
            judge("stamped by both, recompressed" + in, fixed(batch, b -> b.putShort(21, (short) (b.getShort(21) | 8))),
                "message.timestamp.type", "LogAppendTime", "compression.type", "lz4");
            judge("stamped by the client with no time" + in, fixed(batch, b -> { b.putShort(21, (short) (b.getShort(21) | 8)); b.putLong(35, -1); }));
            judge("wrong max timestamp" + in, fixed(batch, b -> b.putLong(35, 12345)));
            judge("wrong max timestamp, unknown attributes" + in, fixed(batch, b -> { b.putLong(35, 12345); b.putShort(21, (short) (b.getShort(21) | 0x7f80)); }));

            int size = batch.length;
            judge("just small enough" + in, batch, "max.message.bytes", "" + size);
            judge("one byte too large" + in, batch, "max.message.bytes", "" + (size - 1));
            judge("too large with a wrong crc" + in, changed(batch, b -> b.put(20, (byte) (b.get(20) ^ 1))), "max.message.bytes", "" + (size - 1));
            judge("too large at offset 1" + in, fixed(batch, b -> b.putLong(0, 1)), "max.message.bytes", "" + (size - 1));
        }
        judge("too large only when recompressed", build(CompressionType.GZIP, b -> large(b)), "compression.type", "uncompressed", "max.message.bytes", "100000");

        // Byte 61 is the first record's length, then attributes, timestamp delta, offset delta, key length.
        for (int at : new int[] {61, 62, 63, 64, 65, 66, 67, 68, 69})
            for (int value : new int[] {0, 1, 2, 3, 0x7e, 0x7f, 0x80, 0xff})
                judge("byte " + at + " is " + value, fixed(plain, b -> b.put(at, (byte) value)));
        byte[] withHeader = build(CompressionType.NONE, b -> b.append(NOW, utf8("k"), utf8("v"), new Header[] {new RecordHeader("h", utf8("x"))}));
        // 61 length, 62 attributes, 63, 64 deltas, 65 key, 67 value, 69 header count, 70 header key, 72 header value.
        for (int at : new int[] {69, 70, 72})
            for (int value : new int[] {0, 1, 3, 4, 0x7e, 0x7f, 0xff})
                judge("header byte " + at + " is " + value, fixed(withHeader, b -> b.put(at, (byte) value)));
    }

    static void three(MemoryRecordsBuilder builder) {
        builder.append(NOW, utf8("a"), utf8("1"));
        builder.append(NOW + 10, utf8("b"), null);
        builder.append(NOW - 10, utf8("c"), utf8("a longer value, a longer value, a longer value, a longer value"));
    }

    void judge(String name, byte[] batch, String... config) throws Exception {
        judge(name, 12, batch, config);
    }

    void judge(String name, int produceVersion, byte[] batch, String... config) throws Exception {
        Properties properties = new Properties();
        for (int i = 0; i < config.length; i += 2)
            properties.put(config[i], config[i + 1]);
        // Messages name the partition, so each case has a directory of its own with a partition of the same name.
        File partition = directory.resolve(logs++ + "/topic-0").toFile();
        Files.createDirectories(partition.toPath());
        UnifiedLog log = UnifiedLog.create(partition, new LogConfig(properties), 0, 0, new NoScheduler(),
            new BrokerTopicStats(), new FixedTime(), 300_000, new ProducerStateManagerConfig(86_400_000, false), 600_000,
            new LogDirFailureChannel(1), true, Optional.empty());
        short code = 0;
        String message = "";
        List<RecordError> errors = List.of();
        try {
            MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(batch.clone()));
            ProduceRequest.validateRecords((short) produceVersion, records);
            log.appendAsLeader(records, 3, AppendOrigin.CLIENT);
        } catch (RecordValidationException e) {
            code = Errors.forException(e.invalidException()).code();
            message = e.invalidException().getMessage();
            errors = e.recordErrors();
        } catch (Exception e) {
            code = Errors.forException(e).code();
            if (Errors.forCode(code) == Errors.UNKNOWN_SERVER_ERROR)
                System.err.println(name + ": " + e);
        }
        log.closeHandlers();
        byte[] stored = code == 0 ? Files.readAllBytes(partition.toPath().resolve("00000000000000000000.log")) : new byte[0];
        List<String> errorTexts = new ArrayList<>();
        for (RecordError error : errors)
            errorTexts.add(error.batchIndex + ":" + error.message);
        List<String> configTexts = new ArrayList<>();
        for (int i = 0; i < config.length; i += 2)
            configTexts.add(config[i] + "=" + config[i + 1]);
        out.println(String.join(" | ", name, "" + produceVersion, String.join(";", configTexts), "" + code, message,
            String.join("; ", errorTexts), hex(batch), hex(stored)));
    }

    static byte[] changed(byte[] batch, Consumer<ByteBuffer> change) {
        ByteBuffer buffer = ByteBuffer.wrap(batch.clone());
        change.accept(buffer);
        byte[] result = new byte[buffer.limit()];
        buffer.get(0, result);
        return result;
    }

    /** Changes a batch and gives it the right checksum, so that it is refused for its own fault. */
    static byte[] fixed(byte[] batch, Consumer<ByteBuffer> change) {
        byte[] result = changed(batch, change);
        CRC32C crc = new CRC32C();
        crc.update(result, 21, result.length - 21);
        ByteBuffer.wrap(result).putInt(17, (int) crc.getValue());
        return result;
    }

    static byte[] head(byte[] bytes, int length) {
        return java.util.Arrays.copyOf(bytes, length);
    }

    static byte[] tail(byte[] bytes, byte[] more) {
        byte[] result = java.util.Arrays.copyOf(bytes, bytes.length + more.length);
        System.arraycopy(more, 0, result, bytes.length, more.length);
        return result;
    }

    // ---- reading back ----

    static void verify(Path directory) throws Exception {
        for (File file : directory.toFile().listFiles((d, name) -> name.endsWith(".bin"))) {
            MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(file.toPath())));
            int count = 0;
            int crc = 0;
            for (RecordBatch batch : records.batches()) {
                batch.ensureValid();
                for (Record record : batch) {
                    count++;
                    crc = crc * 31 + (int) (record.timestamp() * 31 + record.offset()) + record.keySize() * 7 + record.valueSize();
                }
            }
            System.out.println(file.getName() + ": " + count + " records, digest " + Integer.toHexString(crc));
        }
    }

    // ---- small things ----

    static byte[] bytes(MemoryRecords records) {
        ByteBuffer buffer = records.buffer().duplicate();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
    }

    static void write(Path out, String name, byte[] batch) throws Exception {
        Files.write(out.resolve(name + ".bin"), batch);
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }

    static class FixedTime implements Time {
        @Override public long milliseconds() { return NOW; }
        @Override public long nanoseconds() { return NOW * 1_000_000; }
        @Override public void sleep(long ms) { }
        @Override public void waitObject(Object object, Supplier<Boolean> condition, long deadlineMs) { }
    }

    static class NoScheduler implements Scheduler {
        @Override public void startup() { }
        @Override public void shutdown() { }
        @Override public ScheduledFuture<?> schedule(String name, Runnable task, long delayMs, long periodMs) { return null; }
        @Override public void resizeThreadPool(int newSize) { }
    }
}
