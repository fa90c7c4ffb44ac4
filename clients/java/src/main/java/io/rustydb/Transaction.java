// A transaction on a connection of its own.
package io.rustydb;

import java.time.Duration;
import java.util.function.Consumer;

/**
 * Everything between {@link Client#beginTransaction()} and {@link #commit} or {@link #rollback}.
 * Closing it without either rolls back. Nothing in it is ever repeated by itself.
 */
public final class Transaction extends Pinned implements AutoCloseable {
    private final long id;

    Transaction(
            Connection connection, long id, Duration timeout, Consumer<Connection> giveBack) {
        super(connection, timeout, giveBack);
        this.id = id;
    }

    @Override
    String what() {
        return "transaction";
    }

    /** The server's number of the transaction; not PostgreSQL's xid. */
    public long id() {
        return id;
    }

    /**
     * Commits.
     *
     * @throws RustyDBException 25P02 if a statement had failed, so that it was rolled back instead;
     *     or why PostgreSQL could not commit. The transaction is over in any case.
     */
    public void commit() {
        finish(connection -> {
            requireCommitted(Requests.command(
                    connection, new Message.Commit(false), timeout()));
            return null;
        });
    }

    /** Commits, and begins another transaction with the same characteristics. */
    public void commitAndChain() {
        on(QueryOptions.DEFAULT, connection -> {
            requireCommitted(Requests.command(connection, new Message.Commit(true), timeout()));
            return null;
        });
    }

    private static void requireCommitted(Message.Ok ok) {
        if ("ROLLBACK".equals(ok.commandTag())) {
            throw RustyDBException.local("25P02", "TRANSACTION_FAILED",
                    "a statement of the transaction had failed, so it was rolled back");
        }
    }

    /** Rolls back. */
    public void rollback() {
        finish(connection ->
                Requests.command(connection, new Message.Rollback(null, false), timeout()));
    }

    /** Rolls back, and begins another transaction with the same characteristics. */
    public void rollbackAndChain() {
        on(QueryOptions.DEFAULT, connection ->
                Requests.command(connection, new Message.Rollback(null, true), timeout()));
    }

    /** Sets a savepoint. */
    public Savepoint savepoint(String name) {
        on(QueryOptions.DEFAULT, connection ->
                Requests.command(connection, new Message.Savepoint(name, false), timeout()));
        return new Savepoint(this, name);
    }

    void rollbackTo(String name) {
        on(QueryOptions.DEFAULT, connection ->
                Requests.command(connection, new Message.Rollback(name, false), timeout()));
    }

    void release(String name) {
        on(QueryOptions.DEFAULT, connection ->
                Requests.command(connection, new Message.Savepoint(name, true), timeout()));
    }

    /** Rolls back, unless the transaction is over. */
    @Override
    public void close() {
        finishQuietly(connection -> Requests.rollBack(connection, timeout()));
    }
}
