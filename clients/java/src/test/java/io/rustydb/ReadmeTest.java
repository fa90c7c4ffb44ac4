// Compiles and runs every snippet of the README against a running server.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.StringWriter;
import java.lang.reflect.InvocationTargetException;
import java.net.URI;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.io.TempDir;

class ReadmeTest {
    private static final Pattern SNIPPET = Pattern.compile("```java\n(.*?)```", Pattern.DOTALL);

    private static List<String> snippets() throws IOException {
        String basedir = System.getProperty("basedir", System.getProperty("user.dir"));
        Matcher matcher = SNIPPET.matcher(Files.readString(Path.of(basedir, "README.md")));
        List<String> snippets = new ArrayList<>();
        while (matcher.find()) {
            snippets.add(matcher.group(1));
        }
        assertTrue(snippets.size() > 10);
        return snippets;
    }

    /** A class with a method for each snippet, which share a client. */
    private static String source(List<String> snippets) {
        StringBuilder source = new StringBuilder("import io.rustydb.*;\nimport java.time.*;\n"
                + "import java.util.*;\nimport java.util.stream.*;\n"
                + "public class Snippets {\n    public static Client client;\n");
        for (int i = 0; i < snippets.size(); i++) {
            if (!isProgram(snippets.get(i))) {
                source.append("    public static void s").append(i)
                        .append("() throws Exception {\n").append(snippets.get(i))
                        .append("    }\n");
            }
        }
        return source.append("}\n").toString();
    }

    private static boolean isProgram(String snippet) {
        return snippet.startsWith("import ");
    }

    private static Class<?> compile(String name, String source, Path directory) throws Exception {
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        URI uri = URI.create("string:///" + name + ".java");
        JavaFileObject file = new SimpleJavaFileObject(uri, JavaFileObject.Kind.SOURCE) {
            @Override
            public CharSequence getCharContent(boolean ignoreEncodingErrors) {
                return source;
            }
        };
        StringWriter messages = new StringWriter();
        Path library = Path.of(
                Client.class.getProtectionDomain().getCodeSource().getLocation().toURI());
        boolean compiled = compiler.getTask(messages, null, null, List.of("-d",
                directory.toString(), "-cp", library.toString()), null, List.of(file)).call();
        assertTrue(compiled, messages::toString);
        return new URLClassLoader(new URL[] {directory.toUri().toURL()},
                ReadmeTest.class.getClassLoader()).loadClass(name);
    }

    @Test
    void everySnippetCompiles(@TempDir Path directory) throws Exception {
        compile("Snippets", source(snippets()), directory);
        for (String snippet : snippets()) {
            if (isProgram(snippet)) {
                compile("App", snippet, directory);
            }
        }
    }

    /** The snippet, for the server of the tests instead of that of the README. */
    private static String adapted(String snippet, String channel) {
        Config config = EndToEnd.config().complete();
        Config.Host host = config.hosts.get(0);
        return snippet.replace("rustydb://alice:secret@localhost:5432/mydb?", url())
                .replace("rustydb://alice:secret@localhost:5432/mydb", url())
                .replace(".host(\"localhost\").port(5432)",
                        ".host(\"" + host.name() + "\").port(" + host.port() + ")")
                .replace("\"alice\"", "\"" + config.user + "\"")
                .replace("\"secret\"", "\"" + config.password + "\"")
                .replace("\"mydb\"", "\"" + config.database + "\"")
                .replace("jobs", channel);
    }

    @Test
    @EnabledIfEnvironmentVariable(named = EndToEnd.URL, matches = ".+")
    void everySnippetRuns(@TempDir Path directory) throws Exception {
        List<String> snippets = new ArrayList<>();
        String channel = EndToEnd.name("jobs");
        snippets().forEach(snippet -> snippets.add(adapted(snippet, channel)));
        Class<?> type = compile("Snippets", source(snippets), directory);
        String schema = EndToEnd.name("readme");
        try (Client admin = EndToEnd.builder().build().connect();
                Client client = EndToEnd.builder().parameter("search_path", schema).build()) {
            admin.execute("CREATE SCHEMA " + schema);
            try {
                type.getField("client").set(null, client.connect());
                for (int i = 0; i < snippets.size(); i++) {
                    if (isProgram(snippets.get(i))) {
                        compile("App", snippets.get(i), directory)
                                .getMethod("main", String[].class)
                                .invoke(null, (Object) new String[0]);
                    } else {
                        run(type, i);
                    }
                }
                // Ann, 11 prepared ones, and what the batch left of the bulk insert.
                assertEquals(1 + 11 + 901, client.query("SELECT * FROM readme_users").size());
            } finally {
                admin.execute("DROP SCHEMA " + schema + " CASCADE");
            }
        }
    }

    private static String url() {
        String url = System.getenv(EndToEnd.URL);
        return url + (url.contains("?") ? "&" : "?");
    }

    private static void run(Class<?> type, int number) throws Exception {
        try {
            type.getMethod("s" + number).invoke(null);
        } catch (InvocationTargetException e) {
            throw new AssertionError("snippet " + number, e.getCause());
        }
    }
}
