// Flow control, repetition, cancellation and signs of life, against a server that misbehaves to
// order.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class FakeServerTest {
    private static final Duration SHORT = Duration.ofMillis(300);

    private static String stateOf(org.junit.jupiter.api.function.Executable work) {
        return assertThrows(RustyDBException.class, work).getSqlState();
    }

    private static int number(ResultSet result) {
        assertTrue(result.next());
        return result.getInt("n");
    }

    @Test
    void aResultInSeveralPartsIsOne() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            Frame request = peer.request();
            peer.answerInPart(request, FakeServer.rows(
                    0, TransactionStatus.IDLE, new Value.Int4(1)));
            Message.QueryResponse rest = new Message.QueryResponse(0, List.of(),
                    List.of(List.of(Value.NULL)), 2, "SELECT 2", 5, TransactionStatus.IDLE);
            peer.answerInPart(request, rest);
            peer.answer(request, FakeServer.rows(1, TransactionStatus.IDLE));
            peer.request();
        }); Client client = server.client().build().connect()) {
            List<ResultSet> results = client.queryAll("a; b");
            assertEquals(2, results.size());
            ResultSet first = results.get(0);
            assertEquals(2, first.affectedRows());
            assertEquals(1, number(first));
            assertTrue(first.next());
            assertEquals(0, first.getInt(1));
            assertTrue(first.wasNull());
            assertFalse(first.next());
            assertFalse(first.next());
            assertEquals("55000", stateOf(first::row));
            assertEquals("42703", stateOf(() -> first.iterator().next().getInt("x")));
        }
    }

    @Test
    void aStreamGetsCreditOnlyAsRowsAreTaken() throws Exception {
        AtomicLong sent = new AtomicLong();
        List<Value> row = List.of(new Value.Text("x".repeat(1000)));
        int total = 2000;
        try (FakeServer server = new FakeServer(peer -> {
            Frame open = peer.request();
            peer.answerInPart(open, new StreamingMessage.Header(List.of(FakeServer.NUMBER)));
            long streamCredit = 65_536;
            long connectionCredit = 65_536 - 100;
            for (int i = 0; i < total; i++) {
                while (streamCredit <= 0 || connectionCredit <= 0) {
                    Message message = peer.read().message();
                    Message.WindowUpdate update = (Message.WindowUpdate) message;
                    if (update.stream() == open.id()) {
                        streamCredit += update.credit();
                    } else {
                        connectionCredit += update.credit();
                    }
                }
                peer.answerInPart(open, new StreamingMessage.Chunk(i, List.of(row)));
                streamCredit -= 1011;
                connectionCredit -= 1011;
                sent.incrementAndGet();
            }
            peer.answer(open, new StreamingMessage.End(total, "SELECT", TransactionStatus.IDLE));
            peer.request();
        });
                Client client = server.client().windows(65_536, 65_536).build().connect();
                RowStream stream = client.stream("x")) {
            assertTrue(stream.next().getString(1).startsWith("xxx"));
            Thread.sleep(300);
            assertTrue(sent.get() <= 66, "sent " + sent.get());
            int count = 1;
            for (Row ignored : stream) {
                count++;
                assertTrue(sent.get() - count <= 70, "sent " + sent.get() + " at " + count);
            }
            assertEquals(total, count);
            assertEquals("SELECT", stream.commandTag());
        }
    }

    @Test
    void aServerThatSendsWithoutCreditIsLeft() throws Exception {
        List<Value> row = List.of(new Value.Text("x".repeat(40_000)));
        try (FakeServer server = new FakeServer(peer -> {
            Frame open = peer.request();
            peer.answerInPart(open, new StreamingMessage.Header(List.of(FakeServer.NUMBER)));
            for (int i = 0; i < 10; i++) {
                peer.answerInPart(open, new StreamingMessage.Chunk(i, List.of(row)));
            }
            peer.read();
        });
                Client client = server.client().windows(65_536, 1 << 20).build().connect();
                RowStream stream = client.stream("x")) {
            Thread.sleep(300);
            RustyDBException error = assertThrows(RustyDBException.class, () -> {
                while (stream.hasNext()) {
                    stream.next();
                }
            });
            assertEquals("FLOW_CONTROL_ERROR", error.getCode());
        }
    }

    @Test
    void aStreamThatIsClosedEarlyTellsTheServerAndFreesItsConnection() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            Frame open = peer.request();
            peer.answerInPart(open, new StreamingMessage.Header(List.of(FakeServer.NUMBER)));
            peer.answerInPart(open, new StreamingMessage.Chunk(
                    0, List.of(List.of(new Value.Int4(1)), List.of(new Value.Int4(2)))));
            Frame cancel = peer.request();
            assertEquals(new StreamingMessage.Cancel(), cancel.message());
            assertEquals(open.id(), cancel.id());
            assertEquals(Frame.ONEWAY, cancel.flags());
            peer.answer(open, new StreamingMessage.End(2, "SELECT", TransactionStatus.IDLE));
            peer.answerNumber(peer.request(), 7);
            peer.request();
        }); Client client = server.client().poolSize(1).build().connect()) {
            try (RowStream stream = client.stream("x")) {
                assertEquals(1, stream.next().getInt(1));
            }
            assertEquals(7, number(client.query("y")));
            assertEquals(1, server.connections.get());
        }
    }

    @Test
    void aBulkInsertWaitsForCredit() throws Exception {
        AtomicLong received = new AtomicLong();
        CountDownLatch go = new CountDownLatch(1);
        try (FakeServer server = new FakeServer(peer -> {
            Frame start = peer.request();
            long id = start.id();
            assertTrue(start.has(Frame.MORE));
            assertEquals(new BulkMessage.Start("s", "t", List.of("a"), OnConflict.SKIP),
                    start.message());
            long rows = 0;
            long used = start.wireBytes();
            long sequence = 0;
            while (true) {
                Frame frame = peer.request();
                assertEquals(id, frame.id());
                if (frame.message() instanceof BulkMessage.End) {
                    assertFalse(frame.has(Frame.MORE));
                    peer.answer(frame, new Message.Ok(rows, "COPY", TransactionStatus.IDLE));
                    break;
                }
                BulkMessage.Rows part = (BulkMessage.Rows) frame.message();
                assertEquals(sequence++, part.sequence());
                rows += part.rows().size();
                assertTrue(used < FakeServer.WINDOW, "frame without credit");
                used += frame.wireBytes();
                received.addAndGet(frame.wireBytes());
                if (used >= FakeServer.WINDOW) {
                    go.await();
                    peer.send(new Message.WindowUpdate(id, used), Frame.URGENT | Frame.ONEWAY, 0);
                    peer.send(new Message.WindowUpdate(0, used), Frame.URGENT | Frame.ONEWAY, 0);
                    used = 0;
                }
            }
            peer.request();
        }); Client client = server.client().build().connect()) {
            AtomicInteger taken = new AtomicInteger();
            Iterable<Object[]> rows = () -> new Iterator<>() {
                @Override
                public boolean hasNext() {
                    return taken.get() < 10_000;
                }

                @Override
                public Object[] next() {
                    taken.incrementAndGet();
                    return new Object[] {"y".repeat(100)};
                }
            };
            Thread later = new Thread(() -> {
                try {
                    Thread.sleep(300);
                    assertTrue(received.get() < 3 * FakeServer.WINDOW);
                    assertTrue(taken.get() < 2500);
                    go.countDown();
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            });
            later.start();
            assertEquals(10_000, client.bulkInsert(
                    BulkTarget.table("s", "t").onConflict(OnConflict.SKIP), List.of("a"), rows));
        }
    }

    @Test
    void aBulkInsertStopsWhereTheServerRefusesAndAbortsWhereItsRowsFail() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            Frame next = peer.request();
            peer.refuse(next, Severity.ERROR, "42P01", false);
            peer.send(new Message.WindowUpdate(0, 1 << 20), Frame.URGENT | Frame.ONEWAY, 0);
            peer.send(new Message.WindowUpdate(next.id(), 1 << 20),
                    Frame.URGENT | Frame.ONEWAY, 0);
            while (!(next.message() instanceof BulkMessage.Abort)) {
                next = peer.request();
            }
            next = peer.request();
            assertTrue(next.message() instanceof BulkMessage.Start);
            while (!(next.message() instanceof BulkMessage.Abort abort)) {
                next = peer.request();
            }
            assertEquals("row 3", abort.reason());
            peer.refuse(next, Severity.ERROR, "57014", false);
            peer.answerNumber(peer.request(), 7);
            peer.request();
        }); Client client = server.client().poolSize(1).build().connect()) {
            List<Object[]> many = Collections.nCopies(100_000, new Object[] {"z".repeat(100)});
            assertEquals("42P01", stateOf(() -> client.bulkInsert("t", List.of("a"), many)));
            Iterable<Object[]> failing = () -> new Iterator<>() {
                private int row;

                @Override
                public boolean hasNext() {
                    return true;
                }

                @Override
                public Object[] next() {
                    if (++row == 3) {
                        throw new IllegalStateException("row 3");
                    }
                    return new Object[] {row};
                }
            };
            assertThrows(IllegalStateException.class,
                    () -> client.bulkInsert("t", List.of("a"), failing));
            assertEquals(7, number(client.query("x")));
            assertEquals(1, server.connections.get());
        }
    }

    @Test
    void whatTheServerCallsRetryableIsSentAgain() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            peer.refuse(peer.request(), Severity.ERROR, "40001", true);
            peer.refuse(peer.request(), Severity.ERROR, "40001", true);
            peer.answerNumber(peer.request(), 3);
            peer.refuse(peer.request(), Severity.ERROR, "42P01", false);
            peer.request();
        }); Client client = server.client().build().connect()) {
            assertEquals(3, number(client.query("x")));
            assertEquals("42P01", stateOf(() -> client.query("y")));
        }
    }

    @Test
    void nothingIsRepeatedInATransaction() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            peer.answer(peer.request(), new Message.TransactionStarted(5));
            peer.refuse(peer.request(), Severity.ERROR, "40001", true);
            Frame end = peer.request();
            assertEquals(new Message.Rollback(null, false), end.message());
            peer.answer(end, new Message.Ok(0, "ROLLBACK", TransactionStatus.IDLE));
            peer.answerNumber(peer.request(), 1);
            peer.request();
        }); Client client = server.client().poolSize(1).build().connect()) {
            try (Transaction transaction = client.beginTransaction()) {
                assertEquals(5, transaction.id());
                assertEquals("40001", stateOf(() -> transaction.execute("x")));
            }
            assertEquals(1, number(client.query("y")));
        }
    }

    @Test
    void aCommitThatRolledBackIsAnError() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            peer.answer(peer.request(), new Message.TransactionStarted(5));
            peer.answer(peer.request(), new Message.Ok(0, "ROLLBACK", TransactionStatus.IDLE));
            peer.request();
        }); Client client = server.client().build().connect()) {
            Transaction transaction = client.beginTransaction();
            assertEquals("25P02", stateOf(transaction::commit));
            assertFalse(transaction.isOpen());
            assertEquals("55000", stateOf(() -> transaction.execute("x")));
        }
    }

    @Test
    void aLostConnectionIsReplacedAndOnlyWhatMayBeRepeatedIs() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            Frame request = peer.request();
            if (peer.number % 2 == 0) {
                peer.answerNumber(request, peer.number);
                peer.request();
            }
        }); Client client = server.client().build().connect()) {
            // Connection 1 takes the request and dies.
            assertEquals("08006", stateOf(() -> client.query("write")));
            assertEquals(2, number(client.query("write")));
        }
        try (FakeServer server = new FakeServer(peer -> {
            Frame request = peer.request();
            if (peer.number % 2 == 0) {
                peer.answerNumber(request, peer.number);
                peer.request();
            }
        }); Client client = server.client().build().connect()) {
            assertEquals(2, number(client.query(QueryOptions.DEFAULT.readOnly(), "read")));
        }
    }

    @Test
    void anIdleConnectionThatDiedIsNotUsed() throws Exception {
        try (FakeServer server = new FakeServer(peer -> {
            if (peer.number > 1) {
                peer.answerNumber(peer.request(), peer.number);
                peer.request();
            }
        }); Client client = server.client().build().connect()) {
            Thread.sleep(200);
            assertEquals(2, number(client.query("write")));
        }
    }

    @Test
    void aRequestThatTakesTooLongIsCancelled() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            Frame slow = peer.request();
            Frame cancel = peer.request();
            assertEquals(new Message.Cancel(slow.id()), cancel.message());
            assertEquals(Frame.URGENT | Frame.ONEWAY, cancel.flags());
            peer.refuse(slow, Severity.ERROR, "57014", false);
            peer.answerNumber(peer.request(), 4);
            peer.request();
        }); Client client = server.client().poolSize(1).timeout(SHORT).build().connect()) {
            RustyDBException error =
                    assertThrows(RustyDBException.class, () -> client.query("slow"));
            assertEquals("57014", error.getSqlState());
            assertEquals("TIMEOUT", error.getCode());
            assertEquals(4, number(client.query("next")));
            assertEquals(1, server.connections.get());
        }
    }

    @Test
    void aTokenAndAnInterruptCancel() throws Exception {
        SynchronousQueue<Boolean> running = new SynchronousQueue<>();
        try (FakeServer server = new FakeServer(peer -> {
            for (int i = 0; i < 2; i++) {
                Frame slow = peer.request();
                running.put(true);
                assertEquals(new Message.Cancel(slow.id()), peer.request().message());
                peer.refuse(slow, Severity.ERROR, "57014", false);
            }
            peer.request();
        }); Client client = server.client().build().connect()) {
            CancelToken token = new CancelToken();
            Thread other = new Thread(() -> {
                try {
                    running.take();
                    client.cancel(token);
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            });
            other.start();
            QueryOptions options = QueryOptions.DEFAULT.cancelToken(token);
            assertEquals("57014", stateOf(() -> client.query(options, "slow")));
            // The token is used up: nothing is even sent.
            assertEquals("57014", stateOf(() -> client.query(options, "slow")));
            Thread main = Thread.currentThread();
            Thread interrupter = new Thread(() -> {
                try {
                    running.take();
                    main.interrupt();
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            });
            interrupter.start();
            assertEquals("57014", stateOf(() -> client.query("slow")));
            assertTrue(Thread.interrupted());
        }
    }

    @Test
    void heartbeatsAreEchoedAndSent() throws Exception {
        CountDownLatch echoed = new CountDownLatch(1);
        CountDownLatch asked = new CountDownLatch(1);
        try (FakeServer server = new FakeServer(peer -> {
            long id = Long.MIN_VALUE + 1;
            peer.send(new Message.Heartbeat(77, 0), Frame.URGENT, id);
            Frame echo = peer.request();
            assertEquals(id, echo.id());
            assertEquals(77, ((Message.Heartbeat) echo.message()).sentAtUs());
            assertTrue(echo.has(Frame.URGENT));
            echoed.countDown();
            Frame own = peer.request();
            assertTrue(own.id() > 0);
            assertTrue(own.has(Frame.URGENT));
            peer.answer(own, own.message());
            peer.answer(peer.request(), own.message());
            asked.countDown();
            // From here on the server is silent.
            while (true) {
                peer.request();
            }
        }, 1000); Client client = server.client().build().connect()) {
            assertTrue(echoed.await(5, TimeUnit.SECONDS));
            assertTrue(asked.await(10, TimeUnit.SECONDS));
            RustyDBException error =
                    assertThrows(RustyDBException.class, () -> client.query("x"));
            assertEquals("08006", error.getSqlState());
            assertTrue(error.getMessage().contains("heartbeats"), error.getMessage());
        }
    }

    @Test
    void thePoolIsBoundedAndShared() throws Exception {
        CountDownLatch go = new CountDownLatch(1);
        try (FakeServer server = new FakeServer(peer -> {
            while (true) {
                Frame request = peer.request();
                go.await();
                peer.answerNumber(request, 1);
            }
        }); Client client = server.client().poolSize(2).build().connect()) {
            List<Thread> threads = new ArrayList<>();
            AtomicInteger done = new AtomicInteger();
            for (int i = 0; i < 6; i++) {
                Thread thread = new Thread(() -> done.addAndGet(number(client.query("x"))));
                thread.start();
                threads.add(thread);
            }
            Thread.sleep(200);
            RustyDBException error = assertThrows(RustyDBException.class,
                    () -> client.query(QueryOptions.DEFAULT.timeout(SHORT), "x"));
            assertEquals("POOL_EXHAUSTED", error.getCode());
            go.countDown();
            for (Thread thread : threads) {
                thread.join();
            }
            assertEquals(6, done.get());
            assertEquals(2, server.connections.get());
        }
    }

    @Test
    void idleConnectionsAreClosedDownToTheMinimumWhichIsKept() throws Exception {
        try (FakeServer server = new FakeServer(peer -> {
            if (peer.number == 1) {
                Thread.sleep(500);
                return;
            }
            while (!(peer.request().message() instanceof Message.Close)) {
                Thread.yield();
            }
        }); Client client = server.client().minPoolSize(2).idleTimeout(Duration.ZERO).build()
                .connect()) {
            assertEquals(2, server.connections.get());
            for (int i = 0; i < 100 && server.connections.get() < 3; i++) {
                Thread.sleep(50);
            }
            assertEquals(3, server.connections.get());
        }
    }

    @Test
    void aTransactionOpenedAsTextDoesNotStayOpen() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            Frame begin = peer.request();
            peer.answer(begin, new Message.QueryResponse(0, List.of(), List.of(), 0, "BEGIN", 1,
                    TransactionStatus.IN_TRANSACTION));
            Frame end = peer.request();
            assertEquals(new Message.Rollback(null, false), end.message());
            peer.answer(end, new Message.Ok(0, "ROLLBACK", TransactionStatus.IDLE));
            // "BEGIN; fails" is found out, too, although an error tells no status.
            Frame both = peer.request();
            peer.answerInPart(both, new Message.QueryResponse(0, List.of(), List.of(), 0, "BEGIN",
                    1, TransactionStatus.IDLE));
            peer.refuse(both, Severity.ERROR, "22012", false);
            end = peer.request();
            assertEquals(new Message.Rollback(null, false), end.message());
            peer.refuse(end, Severity.ERROR, "25P01", false);
            peer.answerNumber(peer.request(), 1);
            peer.request();
        }); Client client = server.client().poolSize(1).build().connect()) {
            assertEquals("25001", stateOf(() -> client.execute("BEGIN")));
            assertEquals("22012", stateOf(() -> client.execute("BEGIN; SELECT 1/0")));
            assertEquals(1, number(client.query("x")));
            assertEquals(1, server.connections.get());
        }
    }

    @Test
    void preparedStatementsAreMadeWhereTheyAreMissing() throws Exception {
        Message.StatementInfo info =
                new Message.StatementInfo("s", List.of(23L), List.of(FakeServer.NUMBER));
        try (FakeServer server = new FakeServer(peer -> {
            Frame prepare = peer.request();
            PreparedMessage.Prepare statement = (PreparedMessage.Prepare) prepare.message();
            peer.answer(prepare, info);
            Frame execute = peer.request();
            assertEquals(new PreparedMessage.Execute(
                    statement.name(), List.of(new Value.Int4(300)), null), execute.message());
            peer.answerNumber(execute, 1);
            if (peer.number == 1) {
                return;
            }
            // It vanished: the client prepares it again.
            peer.refuse(peer.request(), Severity.ERROR, "26000", false);
            Frame again = peer.request();
            assertEquals(statement, again.message());
            peer.answer(again, info);
            peer.answerNumber(peer.request(), 2);
            Frame deallocate = peer.request();
            assertEquals(new PreparedMessage.Deallocate(statement.name()), deallocate.message());
            peer.answer(deallocate, new Message.Ok(0, null, TransactionStatus.IDLE));
            peer.answer(peer.request(), new Message.Pong());
            peer.request();
        }); Client client = server.client().poolSize(1).build().connect()) {
            PreparedStatement statement = client.prepare("SELECT $1");
            assertEquals(List.of(23L), statement.parameterTypes());
            assertEquals(1, number(statement.query(300)));
            Thread.sleep(200);
            assertEquals(1, number(statement.query(300)));
            assertEquals(2, number(statement.query(300)));
            statement.close();
            assertEquals("55000", stateOf(() -> statement.query(300)));
            client.ping();
        }
    }

    @Test
    void aStreamBlocksItsTransaction() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            peer.answer(peer.request(), new Message.TransactionStarted(5));
            Frame open = peer.request();
            peer.answerInPart(open, new StreamingMessage.Header(List.of(FakeServer.NUMBER)));
            peer.answerInPart(open, new StreamingMessage.Chunk(
                    0, List.of(List.of(new Value.Int4(1)))));
            peer.answer(open, new StreamingMessage.End(
                    1, "SELECT 1", TransactionStatus.IN_TRANSACTION));
            peer.answer(peer.request(), new Message.Ok(0, "COMMIT", TransactionStatus.IDLE));
            peer.request();
        });
                Client client = server.client().build().connect();
                Transaction transaction = client.beginTransaction()) {
            try (RowStream stream = transaction.stream("x")) {
                assertEquals("55000", stateOf(() -> transaction.query("y")));
                assertEquals("55000", stateOf(transaction::commit));
                assertTrue(transaction.isOpen());
                assertEquals(1, stream.next().getInt(1));
                assertFalse(stream.hasNext());
            }
            transaction.commit();
        }
    }

    @Test
    void notificationsSurviveALostConnection() throws Exception {
        try (FakeServer server = new FakeServer(peer -> {
            if (peer.number == 1) {
                peer.request();
                return;
            }
            Frame listen = peer.request();
            assertEquals(new NotificationMessage.Listen("jobs"), listen.message());
            peer.answer(listen, new Message.Ok(0, "LISTEN", TransactionStatus.IDLE));
            peer.send(new NotificationMessage.Event("jobs", "from " + peer.number, 77),
                    Frame.RESPONSE, 0);
            if (peer.number > 2) {
                peer.send(new NotificationMessage.SessionEvent("events_dropped", "12"),
                        Frame.RESPONSE, 0);
                Frame unlisten = peer.request();
                assertEquals(new NotificationMessage.Unlisten("jobs"), unlisten.message());
                peer.answer(unlisten, new Message.Ok(0, "UNLISTEN", TransactionStatus.IDLE));
                peer.request();
            }
        }); Client client = server.client().build().connect()) {
            Listener listener = client.listen("jobs");
            assertEquals(new Notification("jobs", "from 2", 77),
                    listener.poll(Duration.ofSeconds(5)));
            assertEquals("from 3", listener.poll(Duration.ofSeconds(5)).payload());
            assertNull(listener.poll(Duration.ofMillis(200)));
            assertEquals(1, listener.reconnects());
            assertEquals(12, listener.dropped());
            listener.close();
            assertNull(listener.poll(Duration.ofSeconds(5)));
        }
    }

    @Test
    void aSubscriptionRunsUntilItIsClosed() throws Exception {
        try (FakeServer server = new FakeServer(peer -> {
            if (peer.number == 1) {
                peer.request();
                return;
            }
            Frame subscribe = peer.request();
            assertEquals(new Message.Subscribe("table", List.of(new Setting("name", "jobs"))),
                    subscribe.message());
            peer.answerInPart(subscribe, new Message.Ok(0, null, TransactionStatus.IDLE));
            peer.answerInPart(subscribe, new Message.Event("table", 1, 0, "{}"));
            Frame unsubscribe = peer.request();
            assertEquals(new Message.Unsubscribe(subscribe.id()), unsubscribe.message());
            peer.answer(unsubscribe, new Message.Ok(0, null, TransactionStatus.IDLE));
            peer.request();
        }); Client client = server.client().build().connect()) {
            Subscription subscription =
                    client.subscribe("table", java.util.Map.of("name", "jobs"));
            assertEquals("{}", subscription.poll(Duration.ofSeconds(5)).body());
            assertNull(subscription.poll(Duration.ofMillis(100)));
            subscription.close();
            assertEquals("55000", stateOf(() -> subscription.poll(SHORT)));
        }
    }

    @Test
    void whatIsNoAnswerEndsTheConnection() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            Frame request = peer.request();
            switch (peer.number) {
                case 1 -> peer.answer(request, new Message.Pong());
                case 2 -> peer.send(new Message.WindowUpdate(0, 0x7fff_ffffL),
                        Frame.URGENT | Frame.ONEWAY, 0);
                case 3 -> peer.refuse(request, Severity.FATAL, "57P01", false);
                default -> peer.answer(request, new Message.QueryResponse(0,
                        List.of(FakeServer.NUMBER), List.of(List.of()), 1, "SELECT 1", 1,
                        TransactionStatus.IDLE));
            }
            peer.request();
        }); Client client = server.client().poolSize(1).build().connect()) {
            assertEquals("08P01", stateOf(() -> client.query("x")));
            assertEquals("08P01", stateOf(() -> client.query("x")));
            assertEquals("57P01", stateOf(() -> client.query("x")));
            assertEquals("08P01", stateOf(() -> client.query("x")));
            assertEquals(4, server.connections.get());
        }
    }

    @Test
    void disconnectingEndsWhatRuns() throws Exception {
        CountDownLatch running = new CountDownLatch(1);
        try (FakeServer server = new FakeServer(peer -> {
            peer.request();
            running.countDown();
            peer.request();
        })) {
            Client client = server.client().build().connect();
            Thread other = new Thread(() -> {
                try {
                    running.await();
                    client.disconnect();
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            });
            other.start();
            assertEquals("08003", stateOf(() -> client.query("x")));
            assertEquals("08003", stateOf(() -> client.query("x")));
        }
    }

    @Test
    void urgentFramesArePaced() {
        UrgentPacer pacer = new UrgentPacer();
        long second = TimeUnit.SECONDS.toNanos(1);
        long start = System.nanoTime();
        int inFirstSecond = 0;
        for (int i = 0; i < 200; i++) {
            if (pacer.reserve(start) < second) {
                inFirstSecond++;
            }
        }
        assertTrue(inFirstSecond > 80 && inFirstSecond <= 92, "" + inFirstSecond);
    }

    @Test
    void aHostThatIsNotThereIsPassedOver() throws IOException {
        try (FakeServer server = new FakeServer(peer -> {
            peer.answer(peer.request(), new Message.Pong());
            peer.request();
        })) {
            String url = "rustydb://u@127.0.0.1:1,127.0.0.1:" + server.port() + "?tls=disable";
            try (Client client = new Client.Builder().url(url).build().connect()) {
                assertTrue(client.ping().toNanos() > 0);
            }
        }
        RustyDBException error = assertThrows(RustyDBException.class,
                () -> new Client.Builder().url("rustydb://u@127.0.0.1:1").build().connect());
        assertEquals("08001", error.getSqlState());
    }
}
