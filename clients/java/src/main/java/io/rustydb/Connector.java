// Makes connections, and looks whether they live.
package io.rustydb;

import java.io.IOException;
import java.net.ConnectException;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import javax.net.ssl.SSLException;

/** One for each client. */
final class Connector {
    private static final long TICK_MILLIS = 500;

    private final Config config;
    private final Tls tls;
    private final ScheduledThreadPoolExecutor timer;
    private final Set<Connection> live = ConcurrentHashMap.newKeySet();

    Connector(Config config) {
        this.config = config;
        this.tls = config.tls == TlsMode.DISABLE ? null : new Tls(config);
        this.timer = new ScheduledThreadPoolExecutor(1, task -> {
            Thread thread = new Thread(task, "rustydb-timer");
            thread.setDaemon(true);
            return thread;
        });
        timer.setRemoveOnCancelPolicy(true);
        every(TICK_MILLIS, this::checkHeartbeats);
    }

    /** Runs something short again and again, until {@link #stop}. */
    void every(long millis, Runnable task) {
        timer.scheduleWithFixedDelay(task, millis, millis, TimeUnit.MILLISECONDS);
    }

    void stop() {
        timer.shutdownNow();
    }

    private void checkHeartbeats() {
        live.removeIf(connection -> !connection.isOpen());
        live.forEach(Connection::checkHeartbeat);
    }

    /**
     * A connection to the first host that takes us.
     *
     * @throws RustyDBException why the last host did not
     */
    Connection connect(Deadline deadline, Connection.Observer observer) {
        RustyDBException last = null;
        for (Config.Host host : config.hosts) {
            try {
                Connection connection = connect(host, deadline, observer);
                live.add(connection);
                connection.start();
                return connection;
            } catch (RustyDBException e) {
                // Another host would not know better who we are.
                if (e.getSqlState().startsWith("28")) {
                    throw e;
                }
                last = e;
            }
        }
        throw last;
    }

    private Connection connect(
            Config.Host host, Deadline deadline, Connection.Observer observer) {
        Transport transport = null;
        ScheduledFuture<?> watch = null;
        boolean done = false;
        AtomicBoolean isLate = new AtomicBoolean();
        try {
            Transport opened = Transport.open(host, config.tls, tls, deadline);
            transport = opened;
            watch = timer.schedule(() -> {
                isLate.set(true);
                opened.close();
            }, deadline.remainingMillis(), TimeUnit.MILLISECONDS);
            Login login = Login.perform(config, transport);
            // If the watch has fired, the socket is closed, and the first reading says so.
            watch.cancel(false);
            Connection connection = new Connection(config, transport, login, observer);
            done = true;
            return connection;
        } catch (IOException e) {
            throw unreachable(host, isLate.get() || deadline.isOver(), e);
        } catch (java.util.concurrent.RejectedExecutionException e) {
            throw RustyDBException.local(
                    "08003", "CONNECTION_FAILURE", "the client is disconnected", e);
        } finally {
            if (!done && watch != null) {
                watch.cancel(false);
            }
            if (!done && transport != null) {
                transport.close();
            }
        }
    }

    private static RustyDBException unreachable(
            Config.Host host, boolean isLate, IOException e) {
        if (isLate) {
            return RustyDBException.local("08001", "TIMEOUT",
                    "connecting to " + host + " took longer than the time-out", e);
        }
        RustyDBException error = RustyDBException.local("08001", "SERVICE_UNAVAILABLE",
                "cannot connect to " + host + ": " + e.getMessage(), e);
        boolean mayPass = e instanceof ConnectException || !(e instanceof SSLException);
        return mayPass ? error.beforeSending() : error;
    }
}
