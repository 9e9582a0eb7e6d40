package suite;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;

/**
 * The program that started this one, at the other end of standard input and output: it takes the results, and starts
 * and stops brokers when asked to. One JSON object a line; only {@code do} lines are answered.
 */
public final class Harness {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final BufferedReader ANSWERS =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    private static final PrintStream OUT = System.out;

    private Harness() {
    }

    /** Tests and clients print to System.out, which must not mix with what we tell. */
    static void takeStandardOutput() {
        System.setOut(System.err);
    }

    public static ObjectNode message() {
        return JSON.createObjectNode();
    }

    public static synchronized void tell(ObjectNode message) {
        OUT.println(message);
        OUT.flush();
    }

    /** Sends a request and waits for its answer; an error in the answer is thrown. */
    public static synchronized JsonNode ask(ObjectNode request) {
        tell(request);
        try {
            String line = ANSWERS.readLine();
            if (line == null) {
                // Whoever started us is gone: there is nobody left to run for.
                Runtime.getRuntime().halt(1);
            }
            JsonNode answer = JSON.readTree(line);
            if (answer.has("error")) {
                throw new IllegalStateException(answer.get("error").asText());
            }
            return answer;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }
}
