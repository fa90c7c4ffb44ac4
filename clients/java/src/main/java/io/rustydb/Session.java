// A session of one's own: settings, temporary tables, DRCP-like borrowing.
package io.rustydb;

import java.time.Duration;
import java.util.function.Consumer;

/**
 * A connection taken from the pool, so that what belongs to the session stays in place. Closing it
 * discards all of that and gives the connection back.
 */
public final class Session extends Pinned implements AutoCloseable {
    Session(Connection connection, Duration timeout, Consumer<Connection> giveBack) {
        super(connection, timeout, giveBack);
    }

    @Override
    String what() {
        return "session";
    }

    private void command(SessionMessage message) {
        on(QueryOptions.DEFAULT,
                connection -> Requests.command(connection, message, timeout()));
    }

    /** Sets a setting for the rest of the session. */
    public void set(String name, String value) {
        command(new SessionMessage.Set(name, value, false));
    }

    /** Sets a setting for the rest of the transaction that is open. */
    public void setLocal(String name, String value) {
        command(new SessionMessage.Set(name, value, true));
    }

    /** The value of a setting. */
    public String show(String name) {
        ResultSet result = on(QueryOptions.DEFAULT, connection -> Requests.last(Requests.results(
                connection, new SessionMessage.Show(name), QueryOptions.DEFAULT, timeout())));
        result.next();
        return result.getString(1);
    }

    /** Takes a setting back to its default. */
    public void reset(String name) {
        command(new SessionMessage.Reset(name));
    }

    /** Takes all settings back to their defaults. */
    public void resetAll() {
        command(new SessionMessage.Reset(null));
    }

    /** Forgets settings, temporary tables, prepared statements, and whatever else there is. */
    public void discardAll() {
        on(QueryOptions.DEFAULT, connection -> {
            connection.forgetAllPrepared();
            return Requests.command(connection, new SessionMessage.DiscardAll(), timeout());
        });
    }

    /**
     * Borrows a pooled session of a connection class in place of the present one.
     *
     * @param connectionClass null for the one of the log-in
     * @param tag a tag that the session should have, or null
     */
    public void acquire(String connectionClass, String tag, Purity purity) {
        on(QueryOptions.DEFAULT, connection -> {
            connection.forgetAllPrepared();
            return Requests.single(connection,
                    new SessionMessage.Acquire(connectionClass, tag, purity),
                    AuthReply.Success.class, timeout());
        });
    }

    /** Gives the borrowed session back, with a tag for the next borrower, or null. */
    public void release(String tag) {
        on(QueryOptions.DEFAULT, connection -> {
            connection.forgetAllPrepared();
            return Requests.command(connection, new SessionMessage.Release(tag), timeout());
        });
    }

    /** Discards everything and gives the connection back. */
    @Override
    public void close() {
        finishQuietly(connection -> {
            try {
                if (connection.status() != TransactionStatus.IDLE) {
                    Requests.rollBack(connection, timeout());
                }
                connection.forgetAllPrepared();
                Requests.command(connection, new SessionMessage.DiscardAll(), timeout());
            } catch (RustyDBException e) {
                // Nobody may get what could not be cleaned.
                connection.fail(e);
            }
        });
    }
}
