// Writes golden bytes with Apache Kafka's own classes: each message and record in each version, once as it is when
// new, once with every field that the version has set to a made-up value, once with every null that it can say.
//
//     java -cp 'KAFKA_LIBS/*' Golden.java KAFKA_LIBS > kafka-4.3.1.txt
//
// Lines of the output:
//     api KEY NAME LOW HIGH LATEST_UNSTABLE LISTENERS REQUEST_HEADERS RESPONSE_HEADERS   (a header version per version)
//     new NAME VERSION HEX
//     filled NAME VERSION HEX
//     null NAME VERSION HEX                         (only where it differs from filled)
//     metadata NAME VERSION HEX                     (the value of a record in __cluster_metadata)
//     coordinator LOG NAME VERSION KEY_HEX VALUE_HEX

import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.nio.ByteBuffer;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.jar.JarFile;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;
import org.apache.kafka.common.record.internal.MemoryRecords;
import org.apache.kafka.coordinator.common.runtime.CoordinatorRecord;
import org.apache.kafka.coordinator.common.runtime.CoordinatorRecordSerde;
import org.apache.kafka.coordinator.group.GroupCoordinatorRecordSerde;
import org.apache.kafka.coordinator.share.ShareCoordinatorRecordSerde;
import org.apache.kafka.coordinator.transaction.TransactionCoordinatorRecordSerde;
import org.apache.kafka.metadata.MetadataRecordSerde;
import org.apache.kafka.server.common.ApiMessageAndVersion;

public class Golden {
    static final HexFormat HEX = HexFormat.of();
    static final String[] TEXTS = {"", "a", "topic-1", "größer", "日本", "x".repeat(130)};
    static final long[] NUMBERS = {0, 1, -1, -2, 7, 127, 128, 300, 32767, 65535, 1L << 31, Long.MAX_VALUE, Long.MIN_VALUE};

    /** How often a field that can be null is null. */
    static int nullOneIn = 4;

    public static void main(String[] arguments) throws Exception {
        apis();
        Map<String, Class<?>> classes = new TreeMap<>();
        try (DirectoryStream<Path> jars = Files.newDirectoryStream(Path.of(arguments[0]), "kafka-*.jar")) {
            for (Path jar : jars) collect(jar, classes);
        }
        for (Map.Entry<String, Class<?>> entry : classes.entrySet()) {
            messages(entry.getKey(), entry.getValue());
        }
        for (Map.Entry<String, Class<?>> entry : classes.entrySet()) {
            records(entry.getKey(), entry.getValue(), classes);
        }
    }

    static void apis() {
        for (ApiKeys api : ApiKeys.values()) {
            if (!api.hasValidVersion()) continue;
            String listeners = api.messageType.listeners().stream()
                .map(listener -> listener.name().toLowerCase()).sorted().collect(Collectors.joining(","));
            short low = api.messageType.lowestSupportedVersion();
            short high = api.messageType.highestSupportedVersion(true);
            System.out.println(String.join(" ", "api", "" + api.id, api.name, "" + low, "" + high,
                "" + api.messageType.latestVersionUnstable(), listeners,
                versions(low, high, v -> api.requestHeaderVersion((short) v)),
                versions(low, high, v -> api.responseHeaderVersion((short) v))));
        }
    }

    interface HeaderVersion {
        short of(int version);
    }

    static String versions(int low, int high, HeaderVersion header) {
        return IntStream.rangeClosed(low, high).mapToObj(v -> "" + header.of(v)).collect(Collectors.joining(","));
    }

    static void collect(Path jar, Map<String, Class<?>> classes) throws Exception {
        try (JarFile file = new JarFile(jar.toFile())) {
            for (String name : file.stream().map(Object::toString).sorted().toList()) {
                boolean candidate = name.matches("org/apache/kafka/.*/(generated|message|metadata|internals/.*)/[A-Z]\\w*\\.class");
                if (!candidate) continue;
                Class<?> found = Class.forName(name.replace(".class", "").replace('/', '.'), false, Golden.class.getClassLoader());
                if (!Message.class.isAssignableFrom(found) || Modifier.isAbstract(found.getModifiers())) continue;
                String simple = found.getSimpleName().replaceFirst("(?<=Request|Response|Header)Data$", "");
                classes.put(simple, found);
            }
        }
    }

    static void messages(String name, Class<?> type) throws Exception {
        Message fresh = create(type);
        for (short v = fresh.lowestSupportedVersion(); v <= fresh.highestSupportedVersion(); v++) {
            try {
                System.out.println("new " + name + " " + v + " " + hex(bytes(fresh, v)));
            } catch (NullPointerException nothingToWrite) {
                // Records that are neither set nor nullable.
            }
            String filled = hex(bytes(fill(name, type, v), v));
            System.out.println("filled " + name + " " + v + " " + filled);
            nullOneIn = 1;
            String nulls = hex(bytes(fill(name, type, v), v));
            nullOneIn = 4;
            if (!nulls.equals(filled)) System.out.println("null " + name + " " + v + " " + nulls);
        }
    }

    static void records(String name, Class<?> type, Map<String, Class<?>> classes) throws Exception {
        Message fresh = create(type);
        if (type.getPackageName().equals("org.apache.kafka.common.metadata")) {
            for (short v = fresh.lowestSupportedVersion(); v <= fresh.highestSupportedVersion(); v++) {
                ApiMessageAndVersion record = new ApiMessageAndVersion((ApiMessage) fill(name, type, v), v);
                ObjectSerializationCache cache = new ObjectSerializationCache();
                ByteBuffer buffer = ByteBuffer.allocate(MetadataRecordSerde.INSTANCE.recordSize(record, cache));
                MetadataRecordSerde.INSTANCE.write(record, cache, new ByteBufferAccessor(buffer));
                System.out.println("metadata " + name + " " + v + " " + hex(buffer.array()));
            }
        }
        CoordinatorRecordSerde serde = switch (type.getPackageName()) {
            case "org.apache.kafka.coordinator.group.generated" -> new GroupCoordinatorRecordSerde();
            case "org.apache.kafka.coordinator.share.generated" -> new ShareCoordinatorRecordSerde();
            case "org.apache.kafka.coordinator.transaction.generated" -> new TransactionCoordinatorRecordSerde();
            default -> null;
        };
        if (serde == null || !name.endsWith("Key")) return;
        String record = name.substring(0, name.length() - 3);
        Class<?> valueType = classes.get(record + "Value");
        Message value = create(valueType);
        String log = type.getPackageName().replace(".generated", "").replaceFirst(".*\\.", "");
        for (short v = value.lowestSupportedVersion(); v <= value.highestSupportedVersion(); v++) {
            ApiMessage key = (ApiMessage) fill(name, type, (short) 0);
            ApiMessageAndVersion filled = new ApiMessageAndVersion((ApiMessage) fill(record + "Value", valueType, v), v);
            CoordinatorRecord pair = CoordinatorRecord.record(key, filled);
            System.out.println(String.join(" ", "coordinator", log, record, "" + v,
                hex(serde.serializeKey(pair)), hex(serde.serializeValue(pair))));
        }
    }

    static Message create(Class<?> type) throws Exception {
        return (Message) type.getDeclaredConstructor().newInstance();
    }

    static byte[] bytes(Message message, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer buffer = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(buffer), cache, version);
        if (buffer.hasRemaining()) throw new IllegalStateException("size and write differ");
        return buffer.array();
    }

    static String hex(byte[] bytes) {
        return bytes.length == 0 ? "-" : HEX.formatHex(bytes);
    }

    static Message fill(String name, Class<?> type, short version) throws Exception {
        return fill(type, version, new Random(name.hashCode() * 31L + version));
    }

    /** An instance of a generated class with all fields set that its schema of this version names. */
    static Message fill(Class<?> type, short version, Random random) throws Exception {
        Message message = create(type);
        Schema schema = ((Schema[]) type.getField("SCHEMAS").get(null))[version];
        for (BoundField field : schema.fields()) {
            if (field.def.type instanceof TaggedFields tagged) {
                for (org.apache.kafka.common.protocol.types.Field one : tagged.fields().values()) {
                    set(message, one, version, random);
                }
            } else {
                set(message, field.def, version, random);
            }
        }
        return message;
    }

    static void set(Message message, org.apache.kafka.common.protocol.types.Field field, short version, Random random)
            throws Exception {
        Field place = null;
        for (Field candidate : message.getClass().getDeclaredFields()) {
            boolean same = candidate.getName().equalsIgnoreCase(field.name.replace("_", ""));
            if (same && !Modifier.isStatic(candidate.getModifiers())) place = candidate;
        }
        if (place == null) throw new IllegalStateException(message.getClass() + " has no " + field.name);
        place.setAccessible(true);
        boolean makeNull = field.type.isNullable() && random.nextInt(nullOneIn) == 0;
        place.set(message, makeNull ? null : value(place, field.type, version, random));
    }

    static Object value(Field place, Type type, short version, Random random) throws Exception {
        Class<?> kind = place.getType();
        if (Collection.class.isAssignableFrom(kind)) {
            return list(place, type, version, random);
        } else if (Message.class.isAssignableFrom(kind)) {
            return fill(kind, version, random);
        } else if (kind == ByteBuffer.class) {
            return ByteBuffer.wrap(TEXTS[random.nextInt(TEXTS.length)].getBytes("UTF-8"));
        } else if (kind.getSimpleName().equals("BaseRecords")) {
            return MemoryRecords.readableRecords(ByteBuffer.wrap(TEXTS[random.nextInt(TEXTS.length)].getBytes("UTF-8")));
        }
        return scalar(kind, type.toString(), random);
    }

    static Object scalar(Class<?> kind, String type, Random random) throws Exception {
        long number = NUMBERS[random.nextInt(NUMBERS.length)];
        if (kind == boolean.class) return random.nextBoolean();
        if (kind == byte.class || kind == Byte.class) return (byte) number;
        if (kind == short.class || kind == Short.class) return (short) number;
        if (kind == int.class && type.equals("UINT16")) return (int) (number & 0xffff);
        if (kind == int.class || kind == Integer.class) return (int) number;
        if (kind == long.class && type.equals("UINT32")) return number & 0xffffffffL;
        if (kind == long.class || kind == Long.class) return number;
        if (kind == double.class) return number / 3.0;
        if (kind == Uuid.class) return new Uuid(random.nextLong(), random.nextLong());
        if (kind == String.class) return TEXTS[random.nextInt(TEXTS.length)];
        if (kind == byte[].class) return TEXTS[random.nextInt(TEXTS.length)].getBytes("UTF-8");
        throw new IllegalStateException("no value for " + kind);
    }

    @SuppressWarnings("unchecked")
    static Object list(Field place, Type type, short version, Random random) throws Exception {
        int size = 1 + random.nextInt(2);
        Collection<Object> list;
        Class<?> element;
        if (place.getGenericType() instanceof ParameterizedType generic) {
            list = new ArrayList<>();
            element = (Class<?>) generic.getActualTypeArguments()[0];
        } else {
            list = (Collection<Object>) place.getType().getDeclaredConstructor().newInstance();
            element = Class.forName(place.getType().getName().replaceFirst("Collection$", ""));
        }
        for (int i = 0; i < size; i++) {
            list.add(Message.class.isAssignableFrom(element)
                ? fill(element, version, random)
                : scalar(element, type.arrayElementType().get().toString(), random));
        }
        return list;
    }
}
