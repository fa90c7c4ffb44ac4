// What each request sends and which answers it takes, on one connection.
package io.rustydb;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Supplier;

/** Knows neither pools nor transactions. */
final class Requests {
    private static final int CHUNK_BYTES = 64 << 10;
    private static final int CHUNK_ROWS = 1000;
    private static final Duration END_GRACE = Duration.ofSeconds(5);
    private static final AtomicLong LAST_STATEMENT = new AtomicLong();

    private Requests() {
    }

    static Message.Query query(QueryOptions options, String sql, Object... params) {
        List<Value> values = new ArrayList<>();
        List<Long> types = new ArrayList<>();
        // A lone null comes as no array at all.
        for (Object param : params == null ? new Object[] {null} : params) {
            if (param instanceof Parameter typed) {
                while (types.size() < values.size()) {
                    types.add(0L);
                }
                types.add(typed.typeOid());
                values.add(Value.of(typed.value()));
            } else {
                values.add(Value.of(param));
            }
        }
        return new Message.Query(sql, values, types, options.onWire());
    }

    // ---- Answers ----

    /** The results of a query, one for each statement. */
    static List<ResultSet> results(
            Connection connection, Message message, QueryOptions options, Duration timeout) {
        CancelToken token = options.cancelToken();
        if (token != null && token.isCancelled()) {
            throw RustyDBException.local("57014", "CANCELLED", "the request was cancelled");
        }
        Deadline deadline = Deadline.in(options.timeoutOr(timeout));
        Exchange exchange = connection.request(message);
        Runnable cancel = () -> connection.sendCancel(exchange);
        if (token != null) {
            token.attach(cancel);
        }
        try {
            return collect(connection, exchange, deadline);
        } finally {
            if (token != null) {
                token.detach(cancel);
            }
        }
    }

    private static List<ResultSet> collect(
            Connection connection, Exchange exchange, Deadline deadline) {
        List<ResultSet> results = new ArrayList<>();
        ResultSet.Builder current = null;
        while (true) {
            Connection.Reply reply = connection.next(exchange, deadline);
            if (reply.message() instanceof Message.Error error) {
                if (current != null || connection.status() == TransactionStatus.IN_TRANSACTION) {
                    // An earlier statement of the same text may have opened a transaction.
                    connection.status(TransactionStatus.FAILED);
                }
                throw refused(connection, exchange, error, reply);
            }
            Message.QueryResponse part =
                    expect(connection, reply.message(), Message.QueryResponse.class);
            connection.status(part.transactionStatus());
            if (current == null || !current.isOf(part)) {
                if (current != null) {
                    results.add(current.build());
                }
                current = new ResultSet.Builder(part);
            } else {
                current.add(part);
            }
            if (reply.isLast()) {
                results.add(current.build());
                return results;
            }
        }
    }

    private static RustyDBException refused(Connection connection, Exchange exchange,
            Message.Error error, Connection.Reply reply) {
        if (!reply.isLast()) {
            connection.abandon(exchange);
        }
        return RustyDBException.fromServer(error.value());
    }

    private static <T extends Message> T expect(
            Connection connection, Message message, Class<T> type) {
        if (!type.isInstance(message)) {
            RustyDBException error = RustyDBException.protocol("the server answered with "
                    + message.getClass().getSimpleName() + ", not " + type.getSimpleName());
            connection.fail(error);
            throw error;
        }
        return type.cast(message);
    }

    /** The one answer of a request. */
    static <T extends Message> T single(
            Connection connection, Message message, Class<T> type, Duration timeout) {
        return answer(connection, connection.request(message), type, timeout);
    }

    static <T extends Message> T answer(
            Connection connection, Exchange exchange, Class<T> type, Duration timeout) {
        Connection.Reply reply = connection.next(exchange, Deadline.in(timeout));
        if (reply.message() instanceof Message.Error error) {
            if (connection.status() == TransactionStatus.IN_TRANSACTION) {
                connection.status(TransactionStatus.FAILED);
            }
            throw refused(connection, exchange, error, reply);
        }
        T answer = expect(connection, reply.message(), type);
        if (answer instanceof Message.Ok ok) {
            connection.status(ok.transactionStatus());
        } else if (answer instanceof Message.TransactionStarted) {
            connection.status(TransactionStatus.IN_TRANSACTION);
        }
        return answer;
    }

    static Message.Ok command(Connection connection, Message message, Duration timeout) {
        return single(connection, message, Message.Ok.class, timeout);
    }

    /** Brings a connection that somebody used out of any transaction. */
    static void rollBack(Connection connection, Duration timeout) {
        try {
            command(connection, new Message.Rollback(null, false), timeout);
        } catch (RustyDBException e) {
            if (!e.getSqlState().equals("25P01")) {
                connection.fail(e);
                return;
            }
        }
        connection.status(TransactionStatus.IDLE);
    }

    static Duration ping(Connection connection, Duration timeout) {
        long start = System.nanoTime();
        single(connection, new Message.Ping(), Message.Pong.class, timeout);
        return Duration.ofNanos(System.nanoTime() - start);
    }

    // ---- Batches ----

    static List<BatchResult> batch(Connection connection, Batch batch, Duration timeout) {
        Exchange exchange = connection.request(batch.onWire());
        Deadline deadline = Deadline.in(timeout);
        List<BatchResult> results = new ArrayList<>();
        ResultSet.Builder current = null;
        while (true) {
            Connection.Reply reply = connection.next(exchange, deadline);
            boolean goesOn = reply.message() instanceof Message.QueryResponse part
                    && current != null && current.isOf(part);
            if (current != null && !goesOn) {
                // Rows that came of a statement that has failed are no result.
                if (current.isWhole()) {
                    results.add(new BatchResult(current.build(), null));
                }
                current = null;
            }
            if (reply.message() instanceof Message.Error error) {
                RustyDBException failure = RustyDBException.fromServer(error.value());
                if (batch.isAtomic()) {
                    throw refused(connection, exchange, error, reply);
                }
                results.add(new BatchResult(null, failure));
            } else {
                Message.QueryResponse part =
                        expect(connection, reply.message(), Message.QueryResponse.class);
                connection.status(part.transactionStatus());
                if (goesOn) {
                    current.add(part);
                } else {
                    current = new ResultSet.Builder(part);
                }
            }
            if (reply.isLast()) {
                if (current != null) {
                    results.add(new BatchResult(current.build(), null));
                }
                return results;
            }
        }
    }

    // ---- Bulk inserts ----

    static long bulkInsert(Connection connection, BulkTarget target, List<String> columns,
            Supplier<Iterator<? extends Object[]>> rows, Duration timeout) {
        Exchange upload = connection.openUpload();
        boolean isWanted;
        try {
            isWanted = connection.sendPart(upload, target.onWire(columns), Deadline.in(timeout))
                    && sendRows(connection, upload, columns.size(), rows.get(), timeout);
            if (isWanted) {
                connection.sendLast(upload, new BulkMessage.End(), Deadline.in(timeout));
            }
        } catch (RuntimeException | Error e) {
            abort(connection, upload, e, timeout);
            throw e;
        }
        try {
            return answer(connection, upload, Message.Ok.class, timeout).affectedRows();
        } catch (RustyDBException e) {
            if (!isWanted) {
                endRefused(connection, upload, e);
            }
            throw e;
        }
    }

    /** Ends an upload that the server refused in its midst: it still waits for the last part. */
    private static void endRefused(
            Connection connection, Exchange upload, RustyDBException e) {
        // What was not even accepted has no last part.
        boolean wasAccepted = switch (e.getCode()) {
            case "QUEUE_FULL", "TOO_MANY_PENDING_REQUESTS", "NOT_SUPPORTED" -> false;
            default -> true;
        };
        if (!wasAccepted || !connection.isOpen()) {
            connection.forgetUpload(upload);
            return;
        }
        try {
            connection.sendLast(upload, new BulkMessage.Abort("refused"), Deadline.in(END_GRACE));
        } catch (RustyDBException other) {
            e.addSuppressed(other);
            connection.fail(RustyDBException.lost("a bulk insert could not be ended", other));
        }
    }

    private static boolean sendRows(Connection connection, Exchange upload, int columns,
            Iterator<? extends Object[]> rows, Duration timeout) {
        boolean isWanted = true;
        for (long sequence = 0; isWanted && rows.hasNext(); sequence++) {
            List<List<Value>> chunk = new ArrayList<>();
            long bytes = 0;
            while (rows.hasNext() && bytes < CHUNK_BYTES && chunk.size() < CHUNK_ROWS) {
                List<Value> row = values(rows.next(), columns);
                for (Value value : row) {
                    bytes += roughSize(value);
                }
                chunk.add(row);
            }
            Message part = new BulkMessage.Rows(sequence, chunk);
            isWanted = connection.sendPart(upload, part, Deadline.in(timeout));
        }
        return isWanted;
    }

    private static List<Value> values(Object[] row, int columns) {
        if (columns != 0 && row.length != columns) {
            throw RustyDBException.local("22023", "VALIDATION_ERROR",
                    "a row has " + row.length + " values for " + columns + " columns");
        }
        List<Value> values = new ArrayList<>(row.length);
        for (Object value : row) {
            values.add(Value.of(value));
        }
        return values;
    }

    private static long roughSize(Value value) {
        if (value instanceof Value.Text it) {
            return 8 + it.value().length();
        } else if (value instanceof Value.Bytea it) {
            return 8 + it.value().length;
        } else if (value instanceof Value.Json it) {
            return 8 + it.value().length();
        } else if (value instanceof Value.Jsonb it) {
            return 8 + it.value().length();
        } else if (value instanceof Value.Array it) {
            return it.values().stream().mapToLong(Requests::roughSize).sum() + 8;
        }
        return 8;
    }

    private static void abort(
            Connection connection, Exchange upload, Throwable cause, Duration timeout) {
        try {
            String reason = String.valueOf(cause.getMessage());
            Message abort = new BulkMessage.Abort(
                    reason.substring(0, Math.min(200, reason.length())));
            connection.sendLast(upload, abort, Deadline.in(timeout));
            if (connection.drain(upload, Deadline.in(timeout))) {
                if (connection.status() == TransactionStatus.IN_TRANSACTION) {
                    connection.status(TransactionStatus.FAILED);
                }
                return;
            }
        } catch (RustyDBException e) {
            cause.addSuppressed(e);
        }
        connection.fail(RustyDBException.lost("a bulk insert could not be ended", cause));
    }

    // ---- Prepared statements ----

    static String newStatementName() {
        return "java_" + LAST_STATEMENT.incrementAndGet();
    }

    static Message.StatementInfo prepare(
            Connection connection, PreparedMessage.Prepare statement, Duration timeout) {
        Message.StatementInfo info =
                single(connection, statement, Message.StatementInfo.class, timeout);
        for (String surplus : connection.rememberPrepared(statement.name())) {
            command(connection, new PreparedMessage.Deallocate(surplus), timeout);
        }
        return info;
    }

    static ResultSet execute(Connection connection, PreparedMessage.Prepare statement,
            PreparedMessage.Execute execute, QueryOptions options, Duration timeout) {
        boolean wasPrepared = connection.isPrepared(statement.name());
        if (!wasPrepared) {
            prepare(connection, statement, timeout);
        }
        try {
            return last(results(connection, execute, options, timeout));
        } catch (RustyDBException e) {
            // DISCARD or DEALLOCATE as SQL text may have removed it behind our back.
            boolean vanished = wasPrepared && e.isFromServer() && e.getSqlState().equals("26000");
            if (vanished) {
                connection.forgetPrepared(statement.name());
            }
            if (!vanished || connection.status() != TransactionStatus.IDLE) {
                throw e;
            }
        }
        prepare(connection, statement, timeout);
        return last(results(connection, execute, options, timeout));
    }

    static ResultSet last(List<ResultSet> results) {
        return results.get(results.size() - 1);
    }

    /** Deallocates what was closed while other connections were in use. */
    static void deallocateClosed(Connection connection, Duration timeout) {
        String name;
        while ((name = connection.nextClosedStatement()) != null) {
            try {
                command(connection, new PreparedMessage.Deallocate(name), timeout);
            } catch (RustyDBException e) {
                if (!connection.isUsable()) {
                    throw e.beforeSending();
                }
            }
        }
    }
}
