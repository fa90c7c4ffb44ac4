// pgjdbc with HikariCP: a program that uses what the driver has, and tells what it saw.

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

public class WithJdbc {
    static final Map<String, String> ENV = System.getenv();
    static final int CLIENTS = Integer.parseInt(ENV.get("DRIVER_CLIENTS"));
    static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    interface Action {
        Object run() throws Exception;
    }

    static String url(String database) {
        return "jdbc:postgresql://" + ENV.get("PGHOST") + ":" + ENV.get("PGPORT") + "/" + database;
    }

    static Properties properties(String... pairs) {
        Properties properties = new Properties();
        properties.setProperty("user", ENV.get("PGUSER"));
        properties.setProperty("password", ENV.get("PGPASSWORD"));
        for (int i = 0; i < pairs.length; i += 2) {
            properties.setProperty(pairs[i], pairs[i + 1]);
        }
        return properties;
    }

    static Connection connect(String... pairs) throws SQLException {
        return DriverManager.getConnection(url(ENV.get("PGDATABASE")), properties(pairs));
    }

    static List<String> cases(String name) throws Exception {
        return Files.readAllLines(Path.of(ENV.get("DRIVER_CASES"), name));
    }

    /** A line of the transcript; it must not depend on time, process or object numbers. */
    static void say(Object... what) {
        StringBuilder line = new StringBuilder();
        for (Object word : what) {
            line.append(line.length() == 0 ? "" : " ").append(shown(word));
        }
        OUT.println(line);
    }

    static void section(String name) {
        OUT.println("--- " + name);
    }

    static String shown(Object value) {
        if (value instanceof byte[] bytes) {
            return bytes.length < 100 ? HexFormat.of().formatHex(bytes) : digest(bytes);
        }
        if (value instanceof Object[] array) {
            return Arrays.deepToString(array);
        }
        try {
            if (value instanceof java.sql.Array array) {
                return shown(array.getArray());
            }
            if (value instanceof java.sql.SQLXML xml) {
                return xml.getString();
            }
        } catch (SQLException error) {
            return shown(describe(error));
        }
        return String.valueOf(value);
    }

    static String digest(byte[] data) {
        try {
            byte[] hash = MessageDigest.getInstance("MD5").digest(data);
            return data.length + " bytes, " + HexFormat.of().formatHex(hash);
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    /** Everything that PostgreSQL said about an error. */
    static List<Object> describe(SQLException error) {
        if (!(error instanceof PSQLException known) || known.getServerErrorMessage() == null) {
            return Arrays.asList(error.getClass().getSimpleName(), error.getSQLState());
        }
        return fields(known.getServerErrorMessage());
    }

    static List<Object> fields(ServerErrorMessage m) {
        return Arrays.asList(
                m.getSeverity(), m.getSQLState(), m.getMessage(), m.getDetail(), m.getHint(),
                m.getPosition(), m.getInternalPosition(), m.getInternalQuery(), m.getWhere(),
                m.getSchema(), m.getTable(), m.getColumn(), m.getDatatype(), m.getConstraint());
    }

    static void attempt(String what, Action action) throws Exception {
        try {
            say(what, "->", action.run());
        } catch (SQLException error) {
            say(what, "->", describe(error));
        }
    }

    static List<List<String>> all(ResultSet found) throws SQLException {
        List<List<String>> rows = new ArrayList<>();
        int columns = found.getMetaData().getColumnCount();
        while (found.next()) {
            List<String> row = new ArrayList<>();
            for (int i = 1; i <= columns; i++) {
                row.add(shown(found.getObject(i)));
            }
            rows.add(row);
        }
        return rows;
    }

    static Object run(Connection conn, String sql) throws SQLException {
        try (Statement statement = conn.createStatement()) {
            statement.setEscapeProcessing(false);
            return results(statement, statement.execute(sql));
        }
    }

    static Object results(Statement statement, boolean more) throws SQLException {
        List<Object> results = new ArrayList<>();
        while (true) {
            if (more) {
                results.add(all(statement.getResultSet()));
            } else if (statement.getUpdateCount() < 0) {
                return results;
            } else {
                results.add(statement.getUpdateCount());
            }
            more = statement.getMoreResults();
        }
    }

    static Object ask(Connection conn, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement statement = conn.prepareStatement(sql)) {
            for (int i = 0; i < parameters.length; i++) {
                statement.setObject(i + 1, parameters[i]);
            }
            return results(statement, statement.execute());
        }
    }

    static PGobject typed(String kind, String literal) throws SQLException {
        PGobject object = new PGobject();
        object.setType(kind);
        object.setValue(literal);
        return object;
    }

    static void checkValues() throws Exception {
        section("values");
        for (String mode : List.of("extended", "simple", "extendedForPrepared")) {
            try (Connection conn = connect("preferQueryMode", mode, "prepareThreshold", "-1")) {
                for (String line : cases("values.txt")) {
                    String kind = line.split("\t")[0];
                    String literal = line.substring(kind.length() + 1);
                    String quoted = literal.replace("'", "''");
                    attempt(line, () -> run(conn, "select '" + quoted + "'::" + kind));
                    String back = "select (?::text::" + kind + ")::text, ?::text::" + kind;
                    attempt("back", () -> ask(conn, back, literal, literal));
                }
                Object[] sent = {
                    7, 1L << 40, 1.5f, 2.5, new BigDecimal("1e-30"), "é", true, new byte[] {0, -1},
                    OffsetDateTime.parse("2024-03-31T01:30:00.000007+05:30"),
                    java.time.LocalDate.of(1, 1, 1), java.time.LocalTime.of(23, 59, 59, 999000),
                    java.time.LocalDateTime.of(2024, 2, 29, 12, 0), UUID.fromString(
                            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
                    conn.createArrayOf("int4", new Object[] {1, null, 3}),
                    conn.createArrayOf("text", new Object[] {"a", "NULL", "b c"}),
                    typed("jsonb", "{\"a\": [1]}"), typed("interval", "1 mon -3 days"),
                    typed("mood", "sad"), typed("box", "(1,2),(3,4)"),
                };
                for (Object value : sent) {
                    attempt("sent", () -> ask(conn, "select ?, ?", value, value));
                }
            }
        }
    }

    static void checkTransactions(Connection conn) throws Exception {
        section("transactions");
        String count = "select count(*) from people";
        conn.setAutoCommit(false);
        run(conn, "insert into people values (10, 'Edsger', 72, null)");
        say(run(conn, count));
        conn.rollback();
        say(run(conn, count));
        run(conn, "insert into people values (11, 'Barbara', 80, 1)");
        Savepoint savepoint = conn.setSavepoint("s");
        attempt("twice", () -> run(conn, "insert into people values (11, 'B', 80, 1)"));
        attempt("aborted", () -> run(conn, count));
        conn.rollback(savepoint);
        say(run(conn, count));
        conn.releaseSavepoint(savepoint);
        conn.commit();
        run(conn, "delete from people where id = 11");
        conn.commit();
        for (int level : List.of(8, 4, 2, 1)) {
            conn.setTransactionIsolation(level);
            say(run(conn, "show transaction_isolation"), conn.getTransactionIsolation());
            conn.commit();
        }
        conn.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        conn.setReadOnly(true);
        attempt("read only", () -> run(conn, "delete from people"));
        conn.rollback();
        conn.setReadOnly(false);
        attempt("broken", () -> run(conn, "select 1 / 0"));
        attempt("commit of it", () -> {
            conn.commit();
            return null;
        });
        conn.rollback();
        conn.setAutoCommit(true);
        // The driver's own savepoint before every statement.
        try (Connection saving = connect("autosave", "always")) {
            saving.setAutoCommit(false);
            run(saving, "insert into people values (12, 'Donald', 86, 1)");
            attempt("saved from", () -> run(saving, "select 1 / 0"));
            say(run(saving, count));
            saving.rollback();
        }
    }

    static void checkPrepared() throws Exception {
        section("prepared statements");
        String[] few = {"prepareThreshold", "2", "preparedStatementCacheQueries", "50"};
        try (Connection conn = connect(few)) {
            conn.setAutoCommit(false);
            for (int turn = 0; turn < 5; turn++) {
                for (int n = 0; n < 120; n++) {
                    String sql = "select " + n + " + ?::int, name from people where id = ?";
                    say(turn, ask(conn, sql, turn, 1 + n % 2));
                    conn.commit();
                }
                for (int n = 0; n < 10; n++) {
                    say(ask(conn, "select ?::int4 + " + n, turn));
                    conn.commit();
                }
            }
            conn.setAutoCommit(true);
            run(conn, "create table shape (a int); insert into shape values (1)");
            for (int n = 0; n < 4; n++) {
                say(ask(conn, "select * from shape"));
            }
            run(conn, "alter table shape add b text default 'new'");
            for (int n = 0; n < 2; n++) {
                attempt("a changed table", () -> ask(conn, "select * from shape"));
            }
            try (PreparedStatement kept = conn.prepareStatement("select ?::int, ?::text")) {
                say(kept.getParameterMetaData().getParameterTypeName(2));
                say(kept.getMetaData().getColumnTypeName(1));
                for (int n = 0; n < 8; n++) {
                    kept.setInt(1, n);
                    kept.setString(2, "x" + n);
                    say(all(kept.executeQuery()));
                }
            }
            attempt("a wrong value", () -> ask(conn, "select ?::text::int", "x"));
            attempt("deallocate", () -> run(conn, "deallocate all"));
            run(conn, "drop table shape");
            attempt("then", () -> ask(conn, "select ?::int, ?::text", 1, "x"));
            attempt("then", () -> ask(conn, "select ?::int, ?::text", 1, "x"));
        }
    }

    static void checkSession() throws Exception {
        section("session");
        for (String mode : List.of("extended", "simple")) {
            try (Connection conn = connect("preferQueryMode", mode)) {
                for (String sql : cases("session.sql")) {
                    // The driver itself closes a connection whose date style it cannot read.
                    if (!sql.contains("datestyle")) {
                        attempt(sql, () -> run(conn, sql));
                    }
                }
                PGConnection pg = conn.unwrap(PGConnection.class);
                for (String name : List.of("TimeZone", "application_name", "server_version")) {
                    say(name, pg.getParameterStatus(name));
                }
            }
        }
        String[] options = {"options", "-c search_path=other", "ApplicationName", "of its own"};
        try (Connection conn = connect(options)) {
            say(run(conn, "select * from people"), run(conn, "show application_name"));
            conn.setSchema("public");
            conn.setClientInfo("ApplicationName", "another");
            say(run(conn, "select id from people order by id"), conn.getSchema());
            say(run(conn, "show application_name"), conn.isValid(5));
            run(conn, "reset all");
            say(run(conn, "show search_path"), run(conn, "show application_name"));
        }
        try (Connection conn = connect("currentSchema", "other", "readOnly", "true")) {
            say(run(conn, "select * from people"));
            conn.setAutoCommit(false);
            attempt("read only", () -> run(conn, "delete from people"));
        }
    }

    static void checkCursors(Connection conn) throws Exception {
        section("cursors");
        conn.setAutoCommit(false);
        for (int size : List.of(1, 7, 100)) {
            try (PreparedStatement statement = conn.prepareStatement(
                    "select i, repeat('x', i % 9) from generate_series(1, ?) i")) {
                statement.setFetchSize(size);
                statement.setInt(1, 300);
                long sum = 0;
                try (ResultSet found = statement.executeQuery()) {
                    while (found.next()) {
                        sum += found.getInt(1) + found.getString(2).length();
                        if (found.getInt(1) == 150) {
                            say("in between", run(conn, "select 'another statement'"));
                        }
                    }
                }
                say(size, sum);
            }
        }
        try (Statement statement = conn.createStatement()) {
            statement.setFetchSize(3);
            ResultSet first = statement.executeQuery("select generate_series(1, 100)");
            first.next();
            say(first.getInt(1));
        }
        Statement open = conn.createStatement();
        open.setFetchSize(2);
        ResultSet lost = open.executeQuery("select generate_series(1, 10)");
        lost.next();
        conn.commit();
        attempt("after the end", () -> {
            while (lost.next()) {
                say(lost.getInt(1));
            }
            return "no more";
        });
        conn.rollback();
        open.setFetchSize(2);
        attempt("an error later", () -> {
            String sql = "select 10 / (5 - i) from generate_series(1, 9) i";
            ResultSet failing = open.executeQuery(sql);
            while (failing.next()) {
                say(failing.getInt(1));
            }
            return null;
        });
        conn.rollback();
        open.close();
        conn.setAutoCommit(true);
        try (Statement statement = conn.createStatement(
                ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
            ResultSet found = statement.executeQuery("select id, name from people order by id");
            found.last();
            say(found.getRow(), found.getString("name"));
            found.updateString("name", "Grace H.");
            found.updateRow();
            found.updateString("name", "Grace");
            found.updateRow();
        }
        try (Statement statement = conn.createStatement()) {
            statement.setMaxRows(5);
            say(all(statement.executeQuery("select generate_series(1, 100)")));
        }
    }

    static void checkBatches(Connection conn) throws Exception {
        section("batches");
        for (String rewrite : List.of("false", "true")) {
            try (Connection own = connect("reWriteBatchedInserts", rewrite);
                    PreparedStatement insert = own.prepareStatement(
                            "insert into things (n, t) values (?, ?)")) {
                for (int n = 0; n < 1000; n++) {
                    insert.setBigDecimal(1, BigDecimal.valueOf(n));
                    insert.setString(2, "t" + n);
                    insert.addBatch();
                }
                say(insert.executeBatch().length, run(own, "select count(*), sum(n) from things"));
            }
        }
        try (PreparedStatement insert = conn.prepareStatement(
                "insert into things (n) values (?)", new String[] {"n"})) {
            for (int n = 0; n < 3; n++) {
                insert.setInt(1, n);
                insert.addBatch();
            }
            insert.executeBatch();
            say(all(insert.getGeneratedKeys()));
        }
        try (Statement statement = conn.createStatement()) {
            statement.addBatch("delete from things");
            statement.addBatch("insert into things (n) values (1)");
            statement.addBatch("select 1 / 0");
            statement.addBatch("insert into things (n) values (2)");
            statement.executeBatch();
        } catch (BatchUpdateException error) {
            say(error.getUpdateCounts().length, describe((SQLException) error.getCause()));
        }
        say(run(conn, "select count(*) from things"));
        attempt("several", () -> run(conn, "select 1; select 2; select 3, 4"));
        attempt("several", () -> run(conn, "select 1; select 1 / 0; select 3"));
        run(conn, "delete from things");
    }

    static void checkCopy(Connection conn) throws Exception {
        section("copy");
        CopyManager copy = conn.unwrap(PGConnection.class).getCopyAPI();
        run(conn, "create table copied (id int, name text)");
        StringBuilder lines = new StringBuilder();
        for (int n = 0; n < 5000; n++) {
            lines.append(n).append("\tn").append(n).append('\n');
        }
        say(copy.copyIn("copy copied from stdin", new StringReader(lines.toString())));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        say(copy.copyOut("copy (select * from copied order by id) to stdout", out));
        say(digest(out.toByteArray()));
        StringReader wrong = new StringReader("x\ty\n");
        attempt("malformed", () -> copy.copyIn("copy copied from stdin", wrong));
        attempt("nowhere", () -> copy.copyOut("copy nowhere to stdout", out));
        var given = copy.copyIn("copy copied from stdin");
        given.writeToCopy("1\tx\n".getBytes(), 0, 4);
        given.cancelCopy();
        say(run(conn, "select count(*), sum(id) from copied"));
        run(conn, "drop table copied");
    }

    static void checkErrors(Connection conn) throws Exception {
        section("errors");
        for (String sql : cases("errors.sql")) {
            attempt(sql, () -> run(conn, sql));
            for (int n = 0; n < 6; n++) {
                attempt("prepared", () -> ask(conn, sql));
            }
        }
        say(run(conn, "select 'still here'"));
    }

    static void checkNotices(Connection conn) throws Exception {
        section("notices");
        try (PreparedStatement statement = conn.prepareStatement("select chat(?)")) {
            statement.setString(1, "you");
            say(all(statement.executeQuery()));
            for (SQLWarning w = statement.getWarnings(); w != null; w = w.getNextWarning()) {
                say(fields(((org.postgresql.util.PSQLWarning) w).getServerErrorMessage()));
            }
        }
        try (Statement statement = conn.createStatement()) {
            statement.execute("drop table if exists never_there");
            say(statement.getWarnings().getMessage());
        }
    }

    static void checkNotify(Connection sender) throws Exception {
        section("notifications");
        try (Connection listener = connect()) {
            PGConnection pg = listener.unwrap(PGConnection.class);
            run(listener, "listen news; listen \"Other News\"");
            String[] said = {"notify news, 'one'", "select pg_notify('Other News', 'two é')",
                "begin; notify news, 'three'; commit"};
            for (String sql : said) {
                run(sender, sql);
                hear(pg);
            }
            run(listener, "notify news, 'to myself'");
            hear(pg);
            say(run(listener, "select * from pg_listening_channels()"));
            run(listener, "unlisten news");
            run(sender, "notify news, 'unheard'; notify \"Other News\", 'heard'");
            hear(pg);
        }
    }

    static void hear(PGConnection pg) throws SQLException {
        for (PGNotification heard : pg.getNotifications(10_000)) {
            say(heard.getName(), heard.getParameter());
        }
    }

    static void checkCancel(Connection conn) throws Exception {
        section("cancel");
        for (boolean transaction : new boolean[] {false, true}) {
            conn.setAutoCommit(!transaction);
            try (Statement statement = conn.createStatement()) {
                Thread canceller = new Thread(() -> {
                    try {
                        Thread.sleep(300);
                        statement.cancel();
                    } catch (Exception error) {
                        say("cancel", error);
                    }
                });
                canceller.start();
                attempt("cancelled", () -> statement.execute("select pg_sleep(30)"));
                canceller.join();
            }
            if (transaction) {
                attempt("aborted", () -> run(conn, "select 1"));
                conn.rollback();
            }
            say(run(conn, "select 'still here'"));
        }
        conn.setAutoCommit(true);
        try (Statement statement = conn.createStatement()) {
            statement.setQueryTimeout(1);
            attempt("timed out", () -> statement.execute("select pg_sleep(30)"));
        }
        run(conn, "set statement_timeout = '200ms'");
        attempt("timed out", () -> run(conn, "select pg_sleep(30)"));
        run(conn, "reset statement_timeout");
        say(run(conn, "select 'still here'"));
    }

    static void checkBig(Connection conn) throws Exception {
        section("big values");
        for (int size : List.of(1 << 20, 20 << 20)) {
            String text = "0123456789abcdef".repeat(size / 16);
            say(ask(conn, "select length(?::text), md5(?::text)", text, text));
            say(ask(conn, "select ?::bytea", (Object) text.getBytes()));
            String wide = ask(conn, "select repeat('é', ?)", size / 2).toString();
            say(digest(wide.getBytes(StandardCharsets.UTF_8)));
        }
    }

    /** Must see what it set itself and nothing of the others. */
    static Object oneOfMany(HikariDataSource pool, int number) throws Exception {
        List<Object> seen = new ArrayList<>();
        String[] zones = {"UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York"};
        String zone = zones[number % 4];
        try (Connection conn = pool.getConnection()) {
            run(conn, "set time zone '" + zone + "'; set my.number = " + number);
            conn.setSchema(number % 2 == 1 ? "other" : "public");
            run(conn, "prepare mine as select " + number);
            boolean temporary = number % 8 == 0;
            if (temporary) {
                run(conn, "create temporary table mine as select " + number + " as n");
            }
            for (int turn = 0; turn < 7; turn++) {
                conn.setAutoCommit(false);
                seen.add(run(conn, "show timezone"));
                seen.add(run(conn, "show my.number"));
                seen.add(ask(conn, "select name from people order by id limit ?", 1));
                conn.commit();
                conn.setAutoCommit(true);
                seen.add(run(conn, "execute mine"));
                seen.add(ask(conn, "select ?::int + ?::int", number, turn));
                seen.add(run(conn, "select to_regclass('mine') is null"));
                if (temporary) {
                    seen.add(run(conn, "select * from mine"));
                }
                try {
                    run(conn, "select 1 / 0");
                } catch (SQLException error) {
                    seen.add(error.getSQLState());
                }
            }
            run(conn, "deallocate mine; discard temp; reset all");
        }
        return seen;
    }

    static void checkMany() throws Exception {
        section("many clients");
        HikariConfig config = new HikariConfig();
        config.setJdbcUrl(url(ENV.get("PGDATABASE")));
        config.setDataSourceProperties(properties("prepareThreshold", "2"));
        config.setMaximumPoolSize(CLIENTS);
        config.setConnectionTimeout(60_000);
        try (HikariDataSource pool = new HikariDataSource(config)) {
            var executor = Executors.newFixedThreadPool(CLIENTS);
            List<Callable<Object>> clients = new ArrayList<>();
            for (int n = 0; n < CLIENTS; n++) {
                int number = n;
                clients.add(() -> oneOfMany(pool, number));
            }
            int number = 0;
            for (Future<Object> seen : executor.invokeAll(clients)) {
                say(number++, seen.get());
            }
            executor.shutdown();
        }
    }

    static void checkReconnect(Connection other) throws Exception {
        section("reconnect");
        for (boolean busy : new boolean[] {true, false}) {
            Connection conn = connect();
            conn.setAutoCommit(false);
            Object pid = ask(conn, "select pg_backend_pid()::text");
            String number = pid.toString().replaceAll("\\D", "");
            Thread terminator = new Thread(() -> {
                try {
                    Thread.sleep(busy ? 300 : 0);
                    run(other, "select pg_terminate_backend(" + number + ")");
                    Thread.sleep(busy ? 0 : 200);
                } catch (Exception error) {
                    say("terminate", error);
                }
            });
            terminator.start();
            if (!busy) {
                terminator.join();
            }
            attempt("terminated", () -> run(conn, "select pg_sleep(30)"));
            terminator.join();
            say(conn.isClosed(), conn.isValid(1));
            attempt("closed", () -> run(conn, "select 1"));
            try (Connection again = connect()) {
                say(run(again, "select 'a new one works'"));
            }
        }
        Connection conn = connect();
        attempt("by itself", () -> run(conn, "select pg_terminate_backend(pg_backend_pid())"));
        say(run(other, "select 'the other one too'"));
        attempt("no such database", () -> DriverManager.getConnection(url("nosuch"), properties()));
    }

    public static void main(String[] arguments) throws Exception {
        try (Connection conn = connect()) {
            for (String sql : cases("schema.sql")) {
                run(conn, sql);
            }
            checkValues();
            checkTransactions(conn);
            checkPrepared();
            checkSession();
            checkCursors(conn);
            checkBatches(conn);
            checkCopy(conn);
            checkErrors(conn);
            checkNotices(conn);
            checkNotify(conn);
            checkCancel(conn);
            checkBig(conn);
        }
        checkMany();
        try (Connection other = connect()) {
            checkReconnect(other);
        }
        section("end");
    }
}
