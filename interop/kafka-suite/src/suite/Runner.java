package suite;

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.platform.engine.FilterResult;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.UniqueId;
import org.junit.platform.engine.discovery.DiscoverySelectors;
import org.junit.platform.engine.support.descriptor.MethodSource;
import org.junit.platform.launcher.PostDiscoveryFilter;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

/**
 * Runs one test class ({@code CLASS [METHOD…]}) and tells the harness of every test when it starts and when it ends.
 * A test is named {@code Class.method[I]}, I being the number of its invocation.
 */
public final class Runner {
    private Runner() {
    }

    public static void main(String[] arguments) {
        Harness.takeStandardOutput();
        Set<String> methods = Set.copyOf(List.of(arguments).subList(1, arguments.length));
        PostDiscoveryFilter chosen = test -> {
            boolean runs = methods.isEmpty()
                || !(test.getSource().orElse(null) instanceof MethodSource method)
                || methods.contains(method.getMethodName());
            return FilterResult.includedIf(runs);
        };
        var request = LauncherDiscoveryRequestBuilder.request()
            .selectors(DiscoverySelectors.selectClass(arguments[0]))
            .filters(chosen)
            .configurationParameter("junit.jupiter.extensions.autodetection.enabled", "true")
            .configurationParameter("junit.jupiter.execution.timeout.default", "120s")
            .build();
        LauncherFactory.create().execute(request, new Listener());
        Harness.tell(Harness.message().put("ended", true));
        System.exit(0);
    }

    private static final class Listener implements TestExecutionListener {
        private final Map<String, Long> started = new HashMap<>();

        @Override
        public void executionStarted(TestIdentifier test) {
            if (test.isTest()) {
                started.put(test.getUniqueId(), System.nanoTime());
                Harness.tell(Harness.message().put("started", name(test)));
            }
        }

        @Override
        public void executionSkipped(TestIdentifier test, String reason) {
            if (!test.getParentId().isEmpty()) {
                Harness.tell(result(test, "skipped").put("message", reason));
            }
        }

        @Override
        public void executionFinished(TestIdentifier test, TestExecutionResult end) {
            boolean failedAround = !test.isTest() && end.getStatus() != TestExecutionResult.Status.SUCCESSFUL;
            if (!test.isTest() && !failedAround) {
                return;
            }
            ObjectNode result = result(test, switch (end.getStatus()) {
                case SUCCESSFUL -> "passed";
                case ABORTED -> "skipped";
                case FAILED -> "failed";
            });
            end.getThrowable().ifPresent(error -> {
                result.put("message", error.toString());
                error.printStackTrace();
            });
            Harness.tell(result);
        }

        private ObjectNode result(TestIdentifier test, String result) {
            long since = started.getOrDefault(test.getUniqueId(), System.nanoTime());
            return Harness.message().put("test", name(test)).put("result", result)
                .put("seconds", (System.nanoTime() - since) / 1e9);
        }

        /** What failed outside of a test has its container's name. */
        private static String name(TestIdentifier test) {
            if (!(test.getSource().orElse(null) instanceof MethodSource method)) {
                return test.getLegacyReportingName();
            }
            String simple = method.getClassName().substring(method.getClassName().lastIndexOf('.') + 1);
            UniqueId.Segment last = test.getUniqueIdObject().getLastSegment();
            String invocation = last.getType().endsWith("-invocation") ? "[" + last.getValue().substring(1) + "]" : "";
            return simple + "." + method.getMethodName() + invocation;
        }
    }
}
