// The rows of a query, as they come.
package io.rustydb;

import java.time.Duration;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.function.Consumer;

/**
 * A result that is never in memory as a whole: the server sends more only as rows are taken.
 *
 * <p>The stream holds a connection until its last row was taken or it is closed; use it in a
 * try-with-resources statement. Not for several threads at once, but for {@link #cancel}.
 */
public final class RowStream implements Iterator<Row>, Iterable<Row>, AutoCloseable {
    private static final Duration CLOSE_GRACE = Duration.ofSeconds(5);

    private final Connection connection;
    private final Exchange exchange;
    private final Duration timeout;
    private final CancelToken token;
    private final Runnable cancel;
    private final Consumer<Connection> onEnd;
    private Header header;
    private Iterator<List<Value>> chunk = List.<List<Value>>of().iterator();
    private long nextSequence;
    private boolean hasEnded;
    private String commandTag;

    private RowStream(Connection connection, Exchange exchange, QueryOptions options,
            Duration timeout, Consumer<Connection> onEnd) {
        this.connection = connection;
        this.exchange = exchange;
        this.timeout = options.timeoutOr(timeout);
        this.token = options.cancelToken();
        this.cancel = () -> connection.sendCancel(exchange);
        this.onEnd = onEnd;
    }

    /** Sends the query and waits for the columns. */
    static RowStream open(Connection connection, Message.Query query, QueryOptions options,
            Duration timeout, Consumer<Connection> onEnd) {
        Exchange exchange = connection.requestStream(
                new StreamingMessage.Open(query, options.chunkRows()));
        RowStream stream = new RowStream(connection, exchange, options, timeout, onEnd);
        if (stream.token != null) {
            stream.token.attach(stream.cancel);
        }
        try {
            stream.readHeader();
            return stream;
        } catch (RustyDBException e) {
            // The caller keeps the connection, so nobody is told of an end.
            stream.detach();
            throw e;
        }
    }

    private void detach() {
        if (token != null) {
            token.detach(cancel);
        }
    }

    private void readHeader() {
        Message message = receive();
        if (!(message instanceof StreamingMessage.Header it)) {
            throw unexpected(message);
        }
        header = new Header(it.columns());
    }

    private Message receive() {
        Connection.Reply reply = connection.next(exchange, Deadline.in(timeout));
        if (reply.message() instanceof Message.Error error) {
            if (!reply.isLast()) {
                connection.abandon(exchange);
            }
            if (connection.status() == TransactionStatus.IN_TRANSACTION) {
                connection.status(TransactionStatus.FAILED);
            }
            throw RustyDBException.fromServer(error.value());
        }
        return reply.message();
    }

    private RustyDBException unexpected(Message message) {
        RustyDBException error = RustyDBException.protocol(
                "unexpected in a stream: " + message.getClass().getSimpleName());
        connection.fail(error);
        return error;
    }

    /** The columns of the rows. */
    public List<Column> columns() {
        return header.columns();
    }

    /** PostgreSQL's command tag, for example {@code SELECT 5}; null before the last row. */
    public String commandTag() {
        return commandTag;
    }

    @Override
    public Iterator<Row> iterator() {
        return this;
    }

    @Override
    public boolean hasNext() {
        while (!chunk.hasNext() && !hasEnded) {
            try {
                readChunk();
            } catch (RustyDBException e) {
                end();
                throw e;
            }
        }
        return chunk.hasNext();
    }

    private void readChunk() {
        Message message = receive();
        if (message instanceof StreamingMessage.Chunk it) {
            if (it.sequence() != (nextSequence++ & 0xffff_ffffL)) {
                throw unexpected(message);
            }
            chunk = it.rows().iterator();
        } else if (message instanceof StreamingMessage.End it) {
            commandTag = it.commandTag();
            connection.status(it.transactionStatus());
            end();
        } else {
            throw unexpected(message);
        }
    }

    @Override
    public Row next() {
        if (!hasNext()) {
            throw new NoSuchElementException("the stream has no more rows");
        }
        return new Row(header, chunk.next());
    }

    /** Cancels the query; the next row fails with SQLSTATE 57014. For any thread. */
    public void cancel() {
        cancel.run();
    }

    /** Ends the stream, wherever it is, and gives its connection back. */
    @Override
    public void close() {
        chunk = List.<List<Value>>of().iterator();
        if (hasEnded) {
            return;
        }
        try {
            connection.sendStreamCancel(exchange);
            readToEnd(Deadline.in(CLOSE_GRACE));
        } catch (RustyDBException e) {
            if (!exchange.hasEnded()) {
                connection.fail(RustyDBException.lost("a stream could not be ended", e));
            }
        } finally {
            end();
        }
    }

    private void readToEnd(Deadline deadline) {
        while (true) {
            Connection.Reply reply = connection.poll(exchange, deadline);
            if (reply == null) {
                connection.fail(RustyDBException.lost("a stream did not end", null));
                return;
            }
            if (reply.message() instanceof StreamingMessage.End it) {
                connection.status(it.transactionStatus());
            } else if (reply.message() instanceof Message.Error
                    && connection.status() == TransactionStatus.IN_TRANSACTION) {
                connection.status(TransactionStatus.FAILED);
            }
            if (reply.isLast()) {
                return;
            }
        }
    }

    private void end() {
        if (!hasEnded) {
            hasEnded = true;
            detach();
            onEnd.accept(connection);
        }
    }
}
