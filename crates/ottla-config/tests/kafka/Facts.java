// Asks Apache Kafka for the facts that ../kafka_agrees.rs compares the tables with.
//
//   java -cp 'DIRECTORY_OF_KAFKA_4.3.1_JARS/*' Facts.java .
//
// writes properties.tsv (every property), synonyms.tsv (what a topic or group falls back to),
// values.tsv (what Kafka says to good and bad values), described.tsv (DescribeConfigs of a broker
// and a topic) and syntax.tsv (what Java reads from random .properties text).

import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.*;
import kafka.server.ConfigHelper;
import kafka.server.KafkaConfig;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.common.message.DescribeConfigsResponseData.DescribeConfigsResourceResult;
import org.apache.kafka.coordinator.group.GroupConfig;
import org.apache.kafka.server.config.AbstractKafkaConfig;
import org.apache.kafka.server.config.DynamicBrokerConfig;
import org.apache.kafka.server.config.DynamicConfig;
import org.apache.kafka.server.config.ServerTopicConfigSynonyms;
import org.apache.kafka.server.metrics.ClientMetricsConfigs;
import org.apache.kafka.storage.internals.log.LogConfig;

public class Facts {
    static final Map<String, Collection<ConfigDef.ConfigKey>> SCOPES = new LinkedHashMap<>();

    public static void main(String[] args) throws Exception {
        Map<String, ConfigDef.ConfigKey> broker = new TreeMap<>(AbstractKafkaConfig.CONFIG_DEF.configKeys());
        DynamicConfig.Broker.configKeys().forEach(broker::putIfAbsent);
        SCOPES.put("broker", broker.values());
        SCOPES.put("topic", new TreeMap<>(LogConfig.configKeys()).values());
        SCOPES.put("group", new TreeMap<>(GroupConfig.CONFIG_DEF.configKeys()).values());
        SCOPES.put("client-metrics", new TreeMap<>(clientMetrics().configKeys()).values());
        Path directory = Path.of(args[0]);
        try (var out = writer(directory, "properties.tsv")) { properties(out); }
        try (var out = writer(directory, "synonyms.tsv")) { synonyms(out); }
        try (var out = writer(directory, "values.tsv")) { values(out); }
        try (var out = writer(directory, "described.tsv")) { described(out); }
        try (var out = writer(directory, "syntax.tsv")) { syntax(out); }
    }

    static PrintWriter writer(Path directory, String name) throws Exception {
        return new PrintWriter(directory.resolve(name).toFile(), "UTF-8");
    }

    static void line(PrintWriter out, Object... fields) {
        List<String> cells = new ArrayList<>();
        for (Object field : fields) cells.add(field == null ? "<null>" : field.toString()
            .replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r"));
        out.print(String.join("\t", cells) + "\n");
    }

    static ConfigDef clientMetrics() throws Exception {
        for (var field : ClientMetricsConfigs.class.getDeclaredFields()) {
            if (field.getType() == ConfigDef.class) {
                field.setAccessible(true);
                return (ConfigDef) field.get(null);
            }
        }
        throw new IllegalStateException();
    }

    static String text(ConfigDef.ConfigKey key, Object value) {
        if (value instanceof Password) return ((Password) value).value();
        return ConfigDef.convertToString(value, key.type);
    }

    static void properties(PrintWriter out) {
        Map<String, String> modes = DynamicBrokerConfig.dynamicConfigUpdateModes();
        SCOPES.forEach((scope, keys) -> keys.forEach(key -> line(out, scope, key.name, key.type,
            key.hasDefault() ? text(key, key.defaultValue) : "<required>",
            key.importance.toString().toLowerCase(), key.internalConfig ? "internal" : "-",
            scope.equals("broker") ? modes.getOrDefault(key.name, "read-only") : "per-resource")));
    }

    static void synonyms(PrintWriter out) {
        new TreeMap<>(ServerTopicConfigSynonyms.ALL_TOPIC_CONFIG_SYNONYMS).forEach((name, list) ->
            list.forEach(s -> line(out, "topic", name, s.name(), s.converter().apply("1"))));
        new TreeMap<>(GroupConfig.ALL_GROUP_CONFIG_SYNONYMS).forEach((name, synonym) ->
            synonym.ifPresent(s -> line(out, "group", name, s, "1")));
    }

    static List<String> candidates(ConfigDef.Type type) {
        return switch (type) {
            case BOOLEAN -> List.of("true", " FALSE ", "yes", "", "1");
            case INT, SHORT, LONG -> List.of("", " 7\t", "+7", "-1", "-2", "-3", "0", "1", "2", "9", "10", "11", "25", "128",
                "1048576", "32768", "2147483648", "9223372036854775808", "1.5", "seven", "0x10", "1_000", "-131073");
            case DOUBLE -> List.of("", " 0.5 ", "-0.1", "1.1", "1e3", "1d", "NaN", "Infinity", "inf", "half", ".5", "5.", "-.5e-7", "12345678");
            case LIST -> List.of("", " ", "delete", "delete, compact", "compact,compact", "a,,b", ",", "DELETE", "broker",
                "*", "0:1", "0:1,1:x", "0:1,*", "1@h:9", "x@h:9", "1@h", "1h:9", "h:9", "h", "[::1]:9", "h:9,g:x", "classic,share");
            case STRING -> List.of("", " x ", "producer", "gzip", "GZIP", "CreateTime", "none", "PLAINTEXT", "rs256", "upgrade",
                "latest", "by_duration:P1D", "by_duration:PT1H30M", "by_duration:P1DT", "by_duration:-P1D", "by_duration:PT0.5S", "by_duration:P", "by_duration:1h", "read_committed");
            case PASSWORD -> List.of("", " x ");
            case CLASS -> List.of();
        };
    }

    /** One property for each kind of check: the others cannot differ. */
    static void values(PrintWriter out) {
        SCOPES.forEach((scope, keys) -> {
            Set<String> seen = new HashSet<>();
            for (ConfigDef.ConfigKey key : keys) {
                String check = key.validator == null ? "" : key.validator.getClass().getSimpleName();
                if (!check.equals("Range")) check += key.validator;
                if (!scope.equals("topic") && !seen.add(key.type + check)) continue;
                for (String candidate : candidates(key.type)) {
                    try {
                        Object value = new ConfigDef().define(key).parse(Map.of(key.name, candidate)).get(key.name);
                        line(out, scope, key.name, candidate, "ok", text(key, value));
                    } catch (Exception e) {
                        line(out, scope, key.name, candidate, "no", e.getMessage());
                    }
                }
            }
        });
    }

    static final String[][] CASES = {
        {"", ""},
        {"log.retention.hours=1", ""},
        {"log.retention.hours=1\nlog.retention.ms=5\nlog.roll.hours=2\nlog.flush.scheduler.interval.ms=9", "retention.ms=7\ncleanup.policy=compact, delete"},
        {"vendor.key=1\nssl.key.password=secret\nunstable.api.versions.enable=true\nmessage.max.bytes=2000000\ncompression.type=lz4", "internal.segment.bytes=10"},
    };

    static final Set<String> FIRST = new HashSet<>();

    /** The first case whole, of the others what differs from it. */
    static void described(PrintWriter out) throws Exception {
        for (int at = 0; at < CASES.length; at++) {
            Properties broker = new Properties();
            broker.load(new java.io.StringReader("process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n"
                + "controller.quorum.bootstrap.servers=localhost:9093\nlisteners=PLAINTEXT://:9092,CONTROLLER://:9093\n" + CASES[at][0]));
            Properties topic = new Properties();
            topic.load(new java.io.StringReader(CASES[at][1]));
            KafkaConfig config = new KafkaConfig(broker);
            ConfigHelper helper = new ConfigHelper(null, config, null);
            LogConfig log = LogConfig.fromProps(config.extractLogConfigMap(), topic);
            int number = at;
            shown(log.originals(), log.nonInternalValues()).forEach((name, value) ->
                entry(out, number, "topic", helper.createTopicConfigEntry(log, topic, true, false, name, value)));
            var method = ConfigHelper.class.getDeclaredMethod("createBrokerConfigEntry", boolean.class, boolean.class, boolean.class, String.class, Object.class);
            method.setAccessible(true);
            for (var e : shown(config.originals(), config.nonInternalValues()).entrySet())
                entry(out, number, "broker", (DescribeConfigsResourceResult) method.invoke(helper, true, true, false, e.getKey(), e.getValue()));
        }
    }

    /** What DescribeConfigs lists: everything that is set, and everything that is not internal. */
    static Map<String, Object> shown(Map<String, Object> originals, Map<String, ?> values) {
        Map<String, Object> all = new TreeMap<>(originals);
        all.values().removeIf(Objects::isNull);
        all.putAll(values);
        return all;
    }

    static void entry(PrintWriter out, int number, String scope, DescribeConfigsResourceResult r) {
        StringJoiner synonyms = new StringJoiner(" ");
        r.synonyms().forEach(s -> synonyms.add(s.name() + "=" + s.value() + "@" + s.source()));
        Object[] fields = {scope, r.name(), r.value(), r.configType(), r.configSource(), r.isSensitive(), r.readOnly(), synonyms};
        boolean known = FIRST.contains(Arrays.toString(fields));
        if (number == 0) FIRST.add(Arrays.toString(fields));
        if (known) return;
        List<Object> cells = new ArrayList<>(List.of(number));
        cells.addAll(Arrays.asList(fields));
        line(out, cells.toArray());
    }

    static void syntax(PrintWriter out) throws Exception {
        String[] pieces = {"a", "b", "=", ":", " ", "\\", "\\", "#", "!", "\n", "\r", "\t", "\f", "\\u00e9", "\\u", "é", "\r\n", "n"};
        Random random = new Random(43);
        for (int at = 0; at < 600; at++) {
            StringBuilder text = new StringBuilder();
            for (int n = 1 + random.nextInt(14); n > 0; n--) text.append(pieces[random.nextInt(pieces.length)]);
            // What a backslash at the very end means depends on the version of Java.
            text.append("\nz=1");
            Properties read = new Properties();
            List<Object> fields = new ArrayList<>(List.of(text.toString()));
            try {
                read.load(new java.io.StringReader(text.toString()));
                new TreeMap<>(read).forEach((key, value) -> { fields.add(key); fields.add(value); });
            } catch (IllegalArgumentException e) {
                fields.add("malformed");
            }
            line(out, fields.toArray());
        }
    }
}
