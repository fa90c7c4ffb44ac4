// The connections of a client, and who has them.
package io.rustydb;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/** At most {@code pool_size} connections; the one used last is lent first. */
final class Pool implements Connection.Observer {
    private static final long UPKEEP_MILLIS = 1000;

    private final Config config;
    private final Connector connector;
    private final ReentrantLock lock = new ReentrantLock(true);
    private final Condition freed = lock.newCondition();
    private final Deque<Connection> idle = new ArrayDeque<>();
    private final Set<Connection> all = new HashSet<>();
    private int opening;
    private boolean isClosed;

    Pool(Config config, Connector connector) {
        this.config = config;
        this.connector = connector;
        connector.every(UPKEEP_MILLIS, this::upkeep);
    }

    /** Connects {@code min_pool_size} times, and once at least. */
    void fill() {
        Deadline deadline = Deadline.in(config.timeout);
        List<Connection> connections = new ArrayList<>();
        try {
            do {
                connections.add(acquire(deadline));
            } while (connections.size() < config.minPoolSize);
        } finally {
            connections.forEach(this::release);
        }
    }

    /** A connection for the caller alone, to be given back with {@link #release}. */
    Connection acquire(Deadline deadline) {
        Connection connection = takeOrReserve(deadline);
        return connection != null ? connection : open(deadline);
    }

    /** An idle connection, or null where the caller has to open one. */
    private Connection takeOrReserve(Deadline deadline) {
        lock.lock();
        try {
            while (true) {
                if (isClosed) {
                    throw RustyDBException.local("08003", "CONNECTION_FAILURE",
                            "the client is not connected: call connect() first");
                }
                for (Connection it; (it = idle.pollFirst()) != null; ) {
                    if (it.isUsable()) {
                        return it;
                    }
                    all.remove(it);
                }
                if (all.size() + opening < config.poolSize) {
                    opening++;
                    return null;
                }
                await(deadline);
            }
        } finally {
            lock.unlock();
        }
    }

    private void await(Deadline deadline) {
        try {
            if (freed.awaitNanos(deadline.remainingNanos()) <= 0) {
                throw RustyDBException.local("53300", "POOL_EXHAUSTED", "all " + config.poolSize
                        + " connections of the client stayed in use for the whole time-out");
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw RustyDBException.local("57014", "CANCELLED", "the thread was interrupted");
        }
    }

    private Connection open(Deadline deadline) {
        Connection connection = null;
        boolean tooLate = false;
        try {
            connection = connector.connect(deadline, this);
            return connection;
        } finally {
            lock.lock();
            try {
                opening--;
                tooLate = isClosed;
                if (connection != null && !isClosed) {
                    all.add(connection);
                }
                freed.signal();
            } finally {
                lock.unlock();
            }
            if (connection != null && tooLate) {
                connection.close();
            }
        }
    }

    /** Takes a connection back; one that is of no use any more is closed. */
    void release(Connection connection) {
        boolean keep = connection.isUsable()
                && connection.status() == TransactionStatus.IDLE;
        lock.lock();
        try {
            keep &= !isClosed && all.contains(connection);
            if (keep) {
                connection.becomeIdle();
                idle.addFirst(connection);
            } else {
                all.remove(connection);
            }
            freed.signal();
        } finally {
            lock.unlock();
        }
        if (!keep) {
            connection.close();
        }
    }

    /** Has a prepared statement deallocated wherever it is. */
    void closeStatement(String name) {
        lock.lock();
        try {
            all.forEach(connection -> connection.closeStatement(name));
        } finally {
            lock.unlock();
        }
    }

    private void upkeep() {
        List<Connection> surplus = new ArrayList<>();
        boolean tooFew;
        lock.lock();
        try {
            for (Iterator<Connection> it = idle.descendingIterator(); it.hasNext(); ) {
                Connection connection = it.next();
                boolean isTooOld = all.size() > config.minPoolSize
                        && connection.idleNanos() > config.idleTimeout.toNanos();
                if (isTooOld || !connection.isUsable()) {
                    it.remove();
                    all.remove(connection);
                    surplus.add(connection);
                }
            }
            tooFew = !isClosed && opening == 0 && all.size() < config.minPoolSize;
        } finally {
            lock.unlock();
        }
        surplus.forEach(Connection::close);
        if (tooFew) {
            // Not on the timer, which must not wait for a server that does not answer.
            Thread filler = new Thread(this::tryToFill, "rustydb-fill");
            filler.setDaemon(true);
            filler.start();
        }
    }

    private boolean reserveSpare() {
        lock.lock();
        try {
            boolean isNeeded = !isClosed && all.size() + opening < config.minPoolSize;
            opening += isNeeded ? 1 : 0;
            return isNeeded;
        } finally {
            lock.unlock();
        }
    }

    private void tryToFill() {
        try {
            Deadline deadline = Deadline.in(config.timeout);
            while (reserveSpare()) {
                release(open(deadline));
            }
        } catch (RustyDBException e) {
            // The next upkeep tries again; whoever needs a connection meanwhile hears why.
        }
    }

    /** Closes every connection, those in use as well. */
    void close() {
        List<Connection> connections;
        lock.lock();
        try {
            isClosed = true;
            connections = new ArrayList<>(all);
            all.clear();
            idle.clear();
            freed.signalAll();
        } finally {
            lock.unlock();
        }
        connections.forEach(Connection::close);
    }

    @Override
    public void onNotification(Connection from, NotificationMessage message) {
        if (message instanceof NotificationMessage.NoticeEvent it) {
            try {
                config.noticeHandler.accept(
                        new Notice(it.severity(), it.sqlstate(), it.message()));
            } catch (RuntimeException e) {
                // The reading thread has to go on; Java reports the error as it is told to.
                Thread thread = Thread.currentThread();
                thread.getUncaughtExceptionHandler().uncaughtException(thread, e);
            }
        }
    }

    @Override
    public void onClosed(Connection connection) {
        lock.lock();
        try {
            all.remove(connection);
            idle.remove(connection);
            freed.signal();
        } finally {
            lock.unlock();
        }
    }
}
