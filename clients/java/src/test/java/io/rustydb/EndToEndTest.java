// The library against a running server: RUSTYDB_URL=rustydb://user:password@host:port/db
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeFalse;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

@EnabledIfEnvironmentVariable(named = EndToEnd.URL, matches = ".+")
@Timeout(120)
class EndToEndTest {
    private static final Duration SOON = Duration.ofSeconds(10);

    private Client client;
    private String table;

    @BeforeEach
    void connect() {
        client = EndToEnd.builder().build().connect();
        table = EndToEnd.name("t");
        client.execute("CREATE TABLE " + table + " (id int8 PRIMARY KEY, name text)");
    }

    @AfterEach
    void disconnect() {
        client.execute("DROP TABLE IF EXISTS " + table);
        client.disconnect();
    }

    private static RustyDBException failure(Executable work) {
        return assertThrows(RustyDBException.class, work);
    }

    private static String stateOf(Executable work) {
        return failure(work).getSqlState();
    }

    private long count(Queryable place) {
        ResultSet result = place.query("SELECT count(*) AS n FROM " + table);
        assertTrue(result.next());
        return result.getLong("n");
    }

    private String insert() {
        return "INSERT INTO " + table + " VALUES ($1, $2)";
    }

    @Test
    void queriesAndCommandsTellWhatTheyDid() {
        assertEquals(1, client.execute(insert(), 1L, "Ann"));
        assertEquals(2, client.execute(
                "INSERT INTO " + table + " SELECT g, 'x' FROM generate_series(2, 3) g"));
        assertEquals(3, client.execute("UPDATE " + table + " SET name = name || '!'"));
        ResultSet result = client.query("SELECT * FROM " + table + " ORDER BY id");
        assertEquals(3, result.size());
        assertEquals("SELECT 3", result.commandTag());
        assertTrue(result.next());
        assertEquals(1, result.getLong("id"));
        assertEquals("Ann!", result.getString("NAME"));
        assertEquals("Ann!", result.row().getString(2));
        assertEquals(Map.of("id", 1L, "name", "Ann!"), result.row().toMap());
        List<Long> ids = new ArrayList<>();
        result.forEach(row -> ids.add(row.getLong(1)));
        assertEquals(List.of(1L, 2L, 3L), ids);
        result.close();
        assertEquals("55000", stateOf(result::next));
        assertEquals(2, client.query(QueryOptions.DEFAULT.maxRows(2),
                "SELECT * FROM " + table).size());
        assertEquals(0, client.query("").size());
    }

    @Test
    void severalStatementsHaveSeveralResults() {
        List<ResultSet> results = client.queryAll("SELECT 1 AS a; SELECT 2 AS b, 3 AS c; "
                + "INSERT INTO " + table + " VALUES (1, 'x')");
        assertEquals(3, results.size());
        assertEquals("c", results.get(1).columns().get(1).name());
        assertEquals(1, results.get(2).affectedRows());
        assertEquals("22012", stateOf(() -> client.queryAll(
                "INSERT INTO " + table + " VALUES (2, 'x'); SELECT 1/0")));
        assertEquals(1, count(client));
    }

    @Test
    void errorsHaveAllFields() {
        RustyDBException unknown = failure(() -> client.query("SELECT 1 FROM no_such_table"));
        assertTrue(unknown.isFromServer());
        assertEquals(Severity.ERROR, unknown.getSeverity());
        assertEquals("42P01", unknown.getSqlState());
        assertEquals(15, unknown.getPosition());
        assertNotNull(unknown.getCode());
        assertTrue(unknown.getMessage().contains("no_such_table"));
        assertFalse(unknown.isRetryable());
        client.execute(insert(), 1L, "Ann");
        RustyDBException twice = failure(() -> client.execute(insert(), 1L, "Bob"));
        assertEquals("23505", twice.getSqlState());
        assertEquals("public", twice.getSchema());
        assertEquals(table, twice.getTable());
        assertEquals(table + "_pkey", twice.getConstraint());
        assertTrue(twice.getDetail().contains("(1)"));
        RustyDBException all = failure(() -> client.execute("DO $$ BEGIN RAISE EXCEPTION USING "
                + "ERRCODE = '40001', MESSAGE = 'm', DETAIL = 'd', HINT = 'h', COLUMN = 'c', "
                + "CONSTRAINT = 'k', DATATYPE = 't', TABLE = 'b', SCHEMA = 's'; END $$"));
        assertEquals("40001", all.getSqlState());
        assertTrue(all.isRetryable());
        assertEquals(List.of("m", "d", "h", "c", "k", "t", "b", "s"),
                List.of(all.getMessage(), all.getDetail(), all.getHint(), all.getColumn(),
                        all.getConstraint(), all.getDataType(), all.getTable(), all.getSchema()));
        assertTrue(all.getContext().contains("RAISE"));
    }

    @Test
    void transactionsCommitAndRollBack() {
        try (Transaction transaction = client.beginTransaction()) {
            transaction.execute(insert(), 1L, "kept");
            assertEquals(1, count(transaction));
            assertEquals(0, count(client));
            transaction.commit();
        }
        assertEquals(1, count(client));
        try (Transaction transaction = client.beginTransaction()) {
            transaction.execute(insert(), 2L, "dropped");
        }
        Transaction explicit = client.beginTransaction();
        explicit.execute(insert(), 3L, "dropped");
        explicit.rollback();
        assertEquals("55000", stateOf(() -> explicit.execute("SELECT 1")));
        assertEquals(1, count(client));
        assertEquals(5, client.<Integer>inTransaction(transaction -> {
            transaction.execute(insert(), 4L, "kept");
            return 5;
        }));
        assertThrows(IllegalStateException.class, () -> client.inTransaction(transaction -> {
            transaction.execute(insert(), 5L, "dropped");
            throw new IllegalStateException();
        }));
        assertEquals(2, count(client));
    }

    @Test
    void aFailedTransactionSaysSo() {
        Transaction transaction = client.beginTransaction();
        assertEquals("22012", stateOf(() -> transaction.query("SELECT 1/0")));
        assertEquals("25P02", stateOf(() -> transaction.query("SELECT 1")));
        assertEquals("25P02", stateOf(transaction::commit));
        assertFalse(transaction.isOpen());
        assertEquals(0, count(client));
    }

    @Test
    void transactionsHaveCharacteristics() {
        TransactionOptions options =
                new TransactionOptions(Isolation.SERIALIZABLE, true, true);
        try (Transaction transaction = client.beginTransaction(options)) {
            ResultSet result = transaction.query("SELECT current_setting('transaction_isolation')"
                    + " AS i, current_setting('transaction_read_only') AS r,"
                    + " current_setting('transaction_deferrable') AS d");
            assertTrue(result.next());
            assertEquals("serializable", result.getString("i"));
            assertEquals("on", result.getString("r"));
            assertEquals("on", result.getString("d"));
            assertEquals("25006", stateOf(() -> transaction.execute(insert(), 1L, "x")));
        }
        try (Transaction transaction = client.beginTransaction()) {
            transaction.execute(insert(), 1L, "x");
            transaction.commitAndChain();
            transaction.execute(insert(), 2L, "x");
            transaction.rollbackAndChain();
            transaction.execute(insert(), 3L, "x");
            transaction.commit();
        }
        assertEquals(2, count(client));
    }

    @Test
    void savepointsGoBack() {
        try (Transaction transaction = client.beginTransaction()) {
            transaction.execute(insert(), 1L, "kept");
            Savepoint savepoint = transaction.savepoint("Sp \"1\"");
            transaction.execute(insert(), 2L, "dropped");
            assertEquals("23505", stateOf(() -> transaction.execute(insert(), 1L, "x")));
            savepoint.rollback();
            transaction.execute(insert(), 3L, "kept");
            savepoint.release();
            assertEquals("3B001", stateOf(savepoint::rollback));
            transaction.rollback();
        }
        try (Transaction transaction = client.beginTransaction()) {
            Savepoint savepoint = transaction.savepoint("s");
            assertEquals("22012", stateOf(() -> transaction.query("SELECT 1/0")));
            savepoint.rollback();
            transaction.execute(insert(), 1L, "kept");
            transaction.commit();
        }
        assertEquals(1, count(client));
    }

    @Test
    void aTransactionOpenedAsTextIsRefused() {
        assertEquals("25001", stateOf(() -> client.execute("BEGIN")));
        assertEquals("22012", stateOf(() -> client.queryAll("BEGIN; SELECT 1/0")));
        assertEquals(1, client.execute(insert(), 1L, "x"));
        assertEquals(1, count(client));
    }

    @Test
    void preparedStatementsRunEverywhere() throws Exception {
        try (PreparedStatement statement = client.prepare(insert());
                PreparedStatement select = client.prepare(
                        "SELECT name FROM " + table + " WHERE id = $1")) {
            assertEquals(List.of(20L, 25L), statement.parameterTypes());
            assertEquals(List.of(), statement.columns());
            assertEquals("name", select.columns().get(0).name());
            List<Thread> threads = new ArrayList<>();
            for (int i = 0; i < 8; i++) {
                int from = i * 50;
                Thread thread = new Thread(() -> IntStream.range(from, from + 50)
                        .forEach(id -> statement.execute((long) id, "n" + id)));
                thread.start();
                threads.add(thread);
            }
            for (Thread thread : threads) {
                thread.join();
            }
            assertEquals(400, count(client));
            ResultSet result = select.query(17L);
            assertTrue(result.next());
            assertEquals("n17", result.getString(1));
            try (Transaction transaction = client.beginTransaction()) {
                statement.in(transaction).execute(1000L, "dropped");
                assertEquals(1, select.in(transaction).query(1000L).size());
            }
            assertEquals(0, select.query(1000L).size());
        }
        assertEquals("42601", stateOf(() -> client.prepare("SELEC 1")));
    }

    @Test
    void aPreparedStatementSurvivesDiscard() {
        try (Client one = EndToEnd.builder().poolSize(1).build().connect();
                PreparedStatement statement = one.prepare("SELECT $1::int4 + 1 AS n")) {
            one.execute("DISCARD ALL");
            ResultSet result = statement.query(1);
            assertTrue(result.next());
            assertEquals(2, result.getInt(1));
        }
    }

    @Test
    void aMillionRowsStreamThroughLittleMemory() {
        long sum = 0;
        long rows = 0;
        // 300 MB, more than the heap of the tests.
        try (RowStream stream = client.stream(
                "SELECT g AS n, repeat(md5(g::text), 8) AS t FROM generate_series(1, $1::int8) g",
                1_000_000L)) {
            assertEquals("n", stream.columns().get(0).name());
            for (Row row : stream) {
                sum += row.getLong("n");
                rows++;
            }
            assertEquals("SELECT 1000000", stream.commandTag());
        }
        assertEquals(1_000_000, rows);
        assertEquals(500_000_500_000L, sum);
    }

    @Test
    void aStreamWaitsForItsReader() throws Exception {
        try (Client one = EndToEnd.builder().poolSize(1).windows(65_536, 65_536).build()
                .connect();
                RowStream stream = one.stream(QueryOptions.DEFAULT.chunkRows(10),
                        "SELECT g, repeat('x', 1000) FROM generate_series(1, 5000) g")) {
            for (int i = 1; i <= 5000; i++) {
                if (i == 100) {
                    Thread.sleep(1500);
                }
                assertEquals(i, stream.next().getInt(1));
            }
            assertFalse(stream.hasNext());
        }
    }

    @Test
    void aStreamCanEndEarly() {
        try (Client one = EndToEnd.builder().poolSize(1).build().connect()) {
            for (int i = 0; i < 5; i++) {
                try (RowStream stream = one.stream("SELECT generate_series(1, 10000000)")) {
                    assertEquals(1, stream.next().getInt(1));
                }
                assertEquals(1, one.query("SELECT 1").size());
            }
            try (Transaction transaction = one.beginTransaction()) {
                transaction.execute(insert(), 1L, "kept");
                try (RowStream stream = transaction.stream(
                        "SELECT generate_series(1, 1000000)")) {
                    assertEquals(1, stream.next().getInt(1));
                    assertEquals("55000", stateOf(() -> transaction.query("SELECT 1")));
                }
                transaction.commit();
            }
            assertEquals(1, count(one));
        }
    }

    @Test
    void aStreamCanFailAtOnceAndInItsMidst() {
        assertEquals("42601", stateOf(() -> client.stream("SELEC 1")));
        try (RowStream stream = client.stream(
                "SELECT 1 / (5000 - g) FROM generate_series(1, 10000) g")) {
            assertEquals("22012", stateOf(() -> stream.forEachRemaining(row -> { })));
            assertFalse(stream.hasNext());
        }
        try (RowStream stream = client.stream(
                "SELECT g, pg_sleep(CASE WHEN g > 500 THEN 30 ELSE 0 END) "
                        + "FROM generate_series(1, 1000) g")) {
            stream.next();
            Thread canceller = new Thread(() -> {
                pause(300);
                stream.cancel();
            });
            canceller.start();
            long start = System.nanoTime();
            assertEquals("57014", stateOf(() -> stream.forEachRemaining(row -> { })));
            assertTrue(System.nanoTime() - start < SOON.toNanos());
        }
        assertEquals(1, client.query("SELECT 1").size());
    }

    private static void pause(long millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static Iterable<Object[]> rows(long from, long to) {
        return () -> new Iterator<>() {
            private long next = from;

            @Override
            public boolean hasNext() {
                return next <= to;
            }

            @Override
            public Object[] next() {
                return new Object[] {next, "name of number " + next++};
            }
        };
    }

    @Test
    void bulkInsertsAreFastAndWhole() {
        assertEquals(300_000, client.bulkInsert(table, List.of("id", "name"), rows(1, 300_000)));
        assertEquals(300_000, count(client));
        assertEquals("23505", stateOf(() ->
                client.bulkInsert(table, List.of("id", "name"), rows(300_000, 600_000))));
        assertEquals(300_000, count(client));
        BulkTarget skip = BulkTarget.table("public", table).onConflict(OnConflict.SKIP);
        assertEquals(10, client.bulkInsert(skip, List.of("id", "name"), rows(299_991, 300_010)));
        assertEquals(300_010, count(client));
        assertEquals("42P01", stateOf(() ->
                client.bulkInsert("no_such_table", List.of("id", "name"), rows(1, 100_000))));
        assertEquals("42703", stateOf(() ->
                client.bulkInsert(table, List.of("no_such_column", "name"), rows(1, 3))));
        assertEquals("22023", stateOf(() -> client.bulkInsert(table, List.of("id"), rows(1, 3))));
        assertEquals(300_010, count(client));
        assertEquals(0, client.bulkInsert(table, List.of("id", "name"), List.of()));
        try (Transaction transaction = client.beginTransaction()) {
            transaction.bulkInsert(table, List.of("id", "name"), rows(400_001, 400_002));
            assertEquals(300_012, count(transaction));
        }
        assertEquals(300_010, count(client));
    }

    @Test
    void refusedBulkInsertsLeaveNothingBehind() {
        try (Client one = EndToEnd.builder().poolSize(1).build().connect()) {
            for (int i = 0; i < 20; i++) {
                assertEquals("42P01", stateOf(() ->
                        one.bulkInsert("no_such_table", List.of("id", "name"), rows(1, 50_000))));
                Iterable<Object[]> failing = () -> {
                    throw new IllegalStateException("no rows");
                };
                assertThrows(IllegalStateException.class,
                        () -> one.bulkInsert(table, List.of("id"), failing));
            }
            assertEquals(2, one.bulkInsert(table, List.of("id", "name"), rows(1, 2)));
        }
    }

    @Test
    void batchesRunInOneRoundTrip() {
        List<BatchResult> results = client.batch(new Batch()
                .add(insert(), 1L, "a").add(insert(), 1L, "twice").add(insert(), 2L, "b")
                .add("SELECT count(*) FROM " + table));
        assertEquals(4, results.size());
        assertEquals(1, results.get(0).result().affectedRows());
        assertEquals("23505", results.get(1).error().getSqlState());
        assertEquals("23505", stateOf(() -> results.get(1).result()));
        ResultSet last = results.get(3).result();
        assertTrue(last.next());
        assertEquals(2, last.getInt(1));
        List<BatchResult> stopped = client.batch(new Batch().stopOnError()
                .add(insert(), 1L, "twice").add(insert(), 3L, "c"));
        assertTrue(stopped.get(0).isError());
        assertEquals(2, count(client));
        assertEquals("23505", stateOf(() -> client.batch(new Batch().atomic()
                .add(insert(), 4L, "d").add(insert(), 1L, "twice"))));
        assertEquals(2, count(client));
        Batch many = new Batch().atomic();
        IntStream.range(10, 510).forEach(id -> many.add(insert(), (long) id, "many"));
        assertEquals(500, client.batch(many).size());
        assertEquals(502, count(client));
        assertEquals(List.of(), client.batch(new Batch()));
    }

    @Test
    void rowsOfAStatementThatFailsAreNoResult() {
        // Long enough for its first rows to be sent before it fails.
        List<BatchResult> results = client.batch(new Batch().add("SELECT 7")
                .add("SELECT 1 / (100000 - g), repeat('y', 50) FROM generate_series(1, 200000) g")
                .add("SELECT 8"));
        assertEquals(3, results.size());
        assertEquals("22012", results.get(1).error().getSqlState());
        ResultSet last = results.get(2).result();
        assertTrue(last.next());
        assertEquals(8, last.getInt(1));
    }

    @Test
    void requestsAreCancelled() throws Exception {
        long start = System.nanoTime();
        String sleep = "SELECT pg_sleep(30) /* " + table + " */";
        CancelToken token = new CancelToken();
        Thread canceller = new Thread(() -> {
            pause(500);
            client.cancel(token);
        });
        canceller.start();
        assertEquals("57014", stateOf(
                () -> client.query(QueryOptions.DEFAULT.cancelToken(token), sleep)));
        assertEquals("57014", stateOf(() -> client.query(
                QueryOptions.DEFAULT.timeout(Duration.ofMillis(500)), sleep)));
        Thread main = Thread.currentThread();
        Thread interrupter = new Thread(() -> {
            pause(500);
            main.interrupt();
        });
        interrupter.start();
        assertEquals("57014", stateOf(() -> client.query(sleep)));
        assertTrue(Thread.interrupted());
        assertTrue(System.nanoTime() - start < SOON.toNanos());
        // Nothing of it runs on in PostgreSQL.
        ResultSet running = client.query("SELECT count(*) FROM pg_stat_activity "
                + "WHERE state = 'active' AND query = $1", sleep);
        assertTrue(running.next());
        assertEquals(0, running.getInt(1));
    }

    @Test
    void notificationsArrive() throws Exception {
        String channel = EndToEnd.name("ch");
        BlockingQueue<Notification> handed = new LinkedBlockingQueue<>();
        try (Listener listener = client.listen(channel);
                Listener second = client.listen(channel, handed::add)) {
            client.query("SELECT pg_notify($1, $2)", channel, "42");
            Notification notification = listener.poll(SOON);
            assertEquals(channel, notification.channel());
            assertEquals("42", notification.payload());
            assertTrue(notification.processId() != 0);
            assertEquals("42", handed.poll(10, TimeUnit.SECONDS).payload());
            second.close();
            client.execute("NOTIFY " + channel);
            assertEquals("", listener.poll(SOON).payload());
            assertNull(handed.poll(300, TimeUnit.MILLISECONDS));
        }
        try (Listener listener = client.listen(EndToEnd.name("other"))) {
            client.execute("NOTIFY " + channel);
            assertNull(listener.poll(Duration.ofMillis(300)));
        }
    }

    @Test
    void noticesArrive() throws Exception {
        BlockingQueue<Notice> notices = new LinkedBlockingQueue<>();
        try (Client other = EndToEnd.builder().noticeHandler(notices::add).build().connect()) {
            other.execute("DO $$ BEGIN RAISE NOTICE 'hello'; RAISE WARNING 'take care'; END $$");
            Notice hello = notices.poll(10, TimeUnit.SECONDS);
            assertEquals(new Notice(NoticeSeverity.NOTICE, "00000", "hello"), hello);
            assertEquals(NoticeSeverity.WARNING, notices.poll(10, TimeUnit.SECONDS).severity());
        }
    }

    @Test
    void subscriptionsAreThereOrRefusedInGoodOrder() {
        try (Subscription subscription =
                client.subscribe("query.execution", Map.of())) {
            client.query("SELECT 1");
            assertNotNull(subscription.poll(SOON));
        } catch (RustyDBException e) {
            assertEquals("0A000", e.getSqlState());
        }
        assertEquals(1, client.query("SELECT 1").size());
    }

    @Test
    void sessionsKeepWhatIsSet() {
        try (Client one = EndToEnd.builder().poolSize(1).build().connect()) {
            try (Session session = one.openSession()) {
                String before = session.show("work_mem");
                session.set("work_mem", "7MB");
                assertEquals("7MB", session.show("work_mem"));
                session.reset("work_mem");
                assertEquals(before, session.show("work_mem"));
                session.set("work_mem", "7MB");
                session.resetAll();
                assertEquals(before, session.show("work_mem"));
                session.set("work_mem", "7MB");
                session.execute("CREATE TEMP TABLE private_to_java (a int4)");
                session.execute("INSERT INTO private_to_java VALUES (1)");
                assertEquals(1, session.query("SELECT * FROM private_to_java").size());
            }
            assertEquals("42P01", stateOf(() -> one.query("SELECT * FROM private_to_java")));
            ResultSet result = one.query("SHOW work_mem");
            assertTrue(result.next());
            assertFalse(result.getString(1).equals("7MB"));
        }
        try (Client other = EndToEnd.builder().parameter("application_name", "from-parameters")
                .parameter("search_path", "pg_catalog").build().connect()) {
            ResultSet result = other.query("SHOW search_path");
            assertTrue(result.next());
            assertEquals("pg_catalog", result.getString(1));
        }
    }

    @Test
    void thePoolServesManyThreads() throws Exception {
        try (Client small = EndToEnd.builder().poolSize(3).minPoolSize(2).build().connect()) {
            AtomicInteger sum = new AtomicInteger();
            CountDownLatch done = new CountDownLatch(12);
            for (int i = 0; i < 12; i++) {
                new Thread(() -> {
                    for (int j = 0; j < 50; j++) {
                        ResultSet result = small.query("SELECT $1::int4 AS n", 1);
                        result.next();
                        sum.addAndGet(result.getInt(1));
                    }
                    done.countDown();
                }).start();
            }
            assertTrue(done.await(60, TimeUnit.SECONDS));
            assertEquals(600, sum.get());
        }
    }

    @Test
    void lostConnectionsAreReplaced() throws Exception {
        Config config = EndToEnd.config();
        assumeFalse(config.hosts.get(0).isUnixSocket());
        try (CuttingProxy proxy = new CuttingProxy(config.hosts.get(0));
                Client through = EndToEnd.builder().host("127.0.0.1").port(proxy.port()).poolSize(2)
                        .build().connect()) {
            String channel = EndToEnd.name("cut");
            Listener listener = through.listen(channel);
            for (int i = 0; i < 3; i++) {
                proxy.cut();
                pause(200);
                assertEquals(1, through.query("SELECT 1").size());
            }
            Thread cutter = new Thread(() -> {
                pause(500);
                try {
                    proxy.cut();
                } catch (IOException e) {
                    throw new IllegalStateException(e);
                }
            });
            cutter.start();
            // A write may have happened, so it is not repeated; a read is.
            assertEquals("08006", stateOf(() -> through.query("SELECT pg_sleep(1)")));
            Thread again = new Thread(() -> {
                pause(500);
                try {
                    proxy.cut();
                } catch (IOException e) {
                    throw new IllegalStateException(e);
                }
            });
            again.start();
            assertEquals(1, through.query(
                    QueryOptions.DEFAULT.readOnly(), "SELECT pg_sleep(1)").size());
            Transaction transaction = through.beginTransaction();
            proxy.cut();
            pause(200);
            assertEquals("08006", stateOf(() -> transaction.query("SELECT 1")));
            transaction.close();
            for (int i = 0; i < 50 && listener.reconnects() == 0; i++) {
                pause(100);
            }
            assertTrue(listener.reconnects() > 0);
            pause(500);
            client.query("SELECT pg_notify($1, 'after')", channel);
            assertEquals("after", listener.poll(SOON).payload());
        }
    }

    @ParameterizedTest
    @EnumSource(CompressionType.class)
    void everyCompressionWorks(CompressionType type) {
        for (boolean checksum : new boolean[] {false, true}) {
            try (Client other = EndToEnd.builder().compression(type).checksum(checksum).build()
                    .connect()) {
                assertEquals(type, other.<CompressionType>on(
                        QueryOptions.DEFAULT, it -> it.hello().compression()));
                long capabilities =
                        other.<Long>on(QueryOptions.DEFAULT, it -> it.hello().capabilities());
                assertEquals(checksum, (capabilities & HandshakeMessage.CHECKSUM) != 0);
                String large = "some text, \u00e9 ".repeat(100_000);
                ResultSet result = other.query("SELECT $1::text AS t, length($1::text) AS n",
                        large);
                assertTrue(result.next());
                assertEquals(large, result.getString("t"));
                assertEquals(large.length(), result.getInt("n"));
                assertEquals(1000, other.query(
                        "SELECT g, md5(g::text) FROM generate_series(1, 1000) g").size());
                long rows = 0;
                try (RowStream stream = other.stream(
                        "SELECT g, md5(g::text) FROM generate_series(1, 20000) g")) {
                    for (Row row : stream) {
                        rows++;
                        assertEquals(32, row.getString(2).length());
                    }
                }
                assertEquals(20_000, rows);
                other.execute("DELETE FROM " + table);
                assertEquals(5000,
                        other.bulkInsert(table, List.of("id", "name"), rows(1, 5000)));
            }
        }
    }

    @Test
    void aResultLargerThanAMessageArrives() {
        ResultSet result = client.query(
                "SELECT g, repeat('x', 200000) AS t FROM generate_series(1, 120) g");
        assertEquals(120, result.size());
        int next = 1;
        for (Row row : result) {
            assertEquals(next++, row.getInt(1));
            assertEquals(200_000, row.getString(2).length());
        }
        assertEquals("54000", stateOf(() -> client.query("SELECT $1::text",
                "x".repeat(17 << 20))));
        assertEquals("54000", stateOf(() ->
                client.query("SELECT '" + "x".repeat(1 << 20) + "'")));
    }

    @Test
    void pingAndParametersTellAboutTheServer() {
        assertTrue(client.ping().compareTo(SOON) < 0);
        assertTrue(client.serverParameters().containsKey("server_version"));
        assertFalse(client.serverVersion().isEmpty());
    }

    @Test
    void aWrongPasswordIsRefused() {
        if (EndToEnd.config().password == null) {
            return;
        }
        RustyDBException error = failure(
                () -> EndToEnd.builder().password("certainly wrong").build().connect());
        assertEquals("28P01", error.getSqlState());
        RustyDBException unknown = failure(() -> EndToEnd.builder()
                .username(EndToEnd.name("nobody")).password("x").build().connect());
        assertEquals("28P01", unknown.getSqlState());
    }
}
