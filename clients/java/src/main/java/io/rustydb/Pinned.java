// Statements that all run on one connection.
package io.rustydb;

import java.time.Duration;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.function.Function;

/** What transactions and sessions have in common: they take a connection and give it back. */
abstract sealed class Pinned extends Statements permits Transaction, Session {
    private final Connection connection;
    private final Duration timeout;
    private final Consumer<Connection> giveBack;
    private final ReentrantLock lock = new ReentrantLock();
    private boolean isStreaming;
    private boolean isOver;

    Pinned(Connection connection, Duration timeout, Consumer<Connection> giveBack) {
        this.connection = connection;
        this.timeout = timeout;
        this.giveBack = giveBack;
    }

    /** What this is, for messages. */
    abstract String what();

    @Override
    Duration timeout() {
        return timeout;
    }

    @Override
    <T> T on(
            QueryOptions options, BooleanSupplier mayRepeat, Function<Connection, T> work) {
        lock.lock();
        try {
            if (isOver) {
                throw RustyDBException.invalidUse("the " + what() + " is over");
            }
            if (isStreaming) {
                // The server would run it after the stream, which waits for us.
                throw RustyDBException.invalidUse("the " + what()
                        + " is busy with a stream: read it to its end or close it first");
            }
            Requests.deallocateClosed(connection, timeout);
            return work.apply(connection);
        } finally {
            lock.unlock();
        }
    }

    @Override
    <T> T keepOn(QueryOptions options, Function<Connection, T> work) {
        lock.lock();
        try {
            T result = on(options, work);
            isStreaming = true;
            return result;
        } finally {
            lock.unlock();
        }
    }

    @Override
    void endUse(Connection used) {
        lock.lock();
        try {
            isStreaming = false;
        } finally {
            lock.unlock();
        }
    }

    @Override
    void closeStatement(String name) {
        connection.closeStatement(name);
    }

    /** Whether it can be used. */
    public boolean isOpen() {
        lock.lock();
        try {
            return !isOver;
        } finally {
            lock.unlock();
        }
    }

    /** Runs the last work, after which the connection is given back whatever comes of it. */
    <T> T finish(Function<Connection, T> work) {
        lock.lock();
        try {
            T result = on(QueryOptions.DEFAULT, work);
            giveBackNow();
            return result;
        } catch (RustyDBException e) {
            if (!isStreaming) {
                giveBackNow();
            }
            throw e;
        } finally {
            lock.unlock();
        }
    }

    /** Gives the connection back after the work; a stream that is open ends the connection. */
    void finishQuietly(Consumer<Connection> work) {
        lock.lock();
        try {
            if (isOver) {
                return;
            }
            if (isStreaming) {
                connection.fail(RustyDBException.local("08003", "CONNECTION_FAILURE",
                        "the " + what() + " was closed before its stream"));
            } else if (connection.isUsable()) {
                work.accept(connection);
            }
            giveBackNow();
        } finally {
            lock.unlock();
        }
    }

    private void giveBackNow() {
        if (!isOver) {
            isOver = true;
            giveBack.accept(connection);
        }
    }
}
