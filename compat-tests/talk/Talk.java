import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;

/** How a client program written in Java talks to the runner: see README.md beside this file. */
final class Talk {
    static final String BOOTSTRAP = System.getenv("BOOTSTRAP");

    private static final BufferedReader IN = new BufferedReader(new InputStreamReader(System.in));
    private static final PrintStream ANSWERS = System.out;

    private Talk() {}

    /** Is given its topic; fails by any exception. */
    interface Scenario {
        void run(String topic) throws Exception;
    }

    /** `cannot`: scenario to why this client has no such thing. */
    static void answerScenarios(Map<String, Scenario> scenarios, Map<String, String> cannot) throws IOException {
        System.setOut(System.err);
        for (String name = IN.readLine(); name != null; name = IN.readLine()) {
            Scenario scenario = scenarios.get(name);
            if (scenario == null) {
                answer("NONE", cannot.getOrDefault(name, "not a thing this client does"));
                continue;
            }
            try {
                scenario.run(name);
                answer("PASS", "");
            } catch (Exception | AssertionError failure) {
                failure.printStackTrace();
                answer("FAIL", failure.toString());
            }
        }
    }

    private static void answer(String outcome, String detail) {
        ANSWERS.println(outcome + " " + detail.replaceAll("\\s+", " "));
        ANSWERS.flush();
    }

    /** Have the runner end the broker ("restart": in order, "kill": at once) and start it again. */
    static void broker(String what) throws IOException {
        ANSWERS.println("BROKER " + what);
        ANSWERS.flush();
        IN.readLine();
    }

    static void same(Object got, Object wanted) {
        if (!Objects.equals(got, wanted)) {
            throw new AssertionError("got " + shorten(got) + ", wanted " + shorten(wanted));
        }
    }

    private static String shorten(Object value) {
        String text = String.valueOf(value);
        return text.length() < 200 ? text : text.substring(0, 200) + "...";
    }

    /**
     * What `attempt` returns once it no longer fails. Apache Kafka answers a client before all parts of the broker know
     * of a new topic, or lead their partitions after a start: there clients try again, and so here.
     */
    static <T> T eventually(Callable<T> attempt) throws Exception {
        long deadline = System.nanoTime() + 60_000_000_000L;
        while (true) {
            try {
                return attempt.call();
            } catch (Exception | AssertionError failure) {
                if (deadline < System.nanoTime()) {
                    throw failure;
                }
                Thread.sleep(20);
            }
        }
    }
}
