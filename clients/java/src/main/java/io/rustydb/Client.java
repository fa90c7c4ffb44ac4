// The entrance: a pool of connections with the API of the library.
package io.rustydb;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.function.Function;

/**
 * A client of RustyDB, for any number of threads.
 *
 * <p>A request that certainly did not run, or that the server calls retryable, is sent again a few
 * times within its time-out; see {@link QueryOptions#readOnly} for requests whose connection was
 * lost. {@link #disconnect} ends everything; {@link #connect} may be called again afterwards.
 */
public final class Client extends Statements implements AutoCloseable {
    private static final int MAX_REPEATS = 5;
    private static final long FIRST_PAUSE_MILLIS = 100;

    private final Config config;
    private volatile State state;

    /** What a connected client has. */
    private record State(Connector connector, Pool pool, Events events) {
    }

    private Client(Config config) {
        this.config = config;
    }

    /**
     * Connects, so that errors show now, with {@code min_pool_size} connections and one at least.
     *
     * @return this client
     * @throws RustyDBException 08001 if no server can be reached, 28P01 if it refuses us
     */
    public synchronized Client connect() {
        if (state != null) {
            return this;
        }
        Connector connector = new Connector(config);
        Pool pool = new Pool(config, connector);
        try {
            pool.fill();
        } catch (RuntimeException e) {
            connector.stop();
            pool.close();
            throw e;
        }
        state = new State(connector, pool, new Events(config, connector, pool));
        return this;
    }

    /** Closes all connections; requests that still run fail, open transactions are rolled back. */
    public synchronized void disconnect() {
        State old = state;
        if (old != null) {
            state = null;
            old.events().close();
            old.pool().close();
            old.connector().stop();
        }
    }

    /** As {@link #disconnect}. */
    @Override
    public void close() {
        disconnect();
    }

    private State connected() {
        State current = state;
        if (current == null) {
            throw RustyDBException.local("08003", "CONNECTION_FAILURE",
                    "the client is not connected: call connect() first");
        }
        return current;
    }

    @Override
    Duration timeout() {
        return config.timeout;
    }

    // ---- Connections for requests ----

    @Override
    <T> T on(
            QueryOptions options, BooleanSupplier mayRepeat, Function<Connection, T> work) {
        return attempt(options, mayRepeat, connection -> {
            T result = work.apply(connection);
            requireOutside(connection);
            return result;
        }, false);
    }

    @Override
    <T> T keepOn(QueryOptions options, Function<Connection, T> work) {
        return attempt(options, () -> true, work, true);
    }

    private <T> T attempt(QueryOptions options, BooleanSupplier mayRepeat,
            Function<Connection, T> work, boolean keeps) {
        Deadline deadline = Deadline.in(options.timeoutOr(config.timeout));
        for (int repeats = 0; ; repeats++) {
            Pool pool = connected().pool();
            Connection connection = null;
            try {
                connection = pool.acquire(deadline);
                Requests.deallocateClosed(connection, config.timeout);
                T result = work.apply(connection);
                if (keeps) {
                    connection = null;
                }
                return result;
            } catch (RustyDBException e) {
                long pause = pauseMillis(e, repeats);
                boolean again = repeats < MAX_REPEATS && isWorthRepeating(e, options)
                        && mayRepeat.getAsBoolean() && deadline.remainingMillis() > pause;
                if (!again) {
                    throw e;
                }
                sleep(pause, e);
            } finally {
                if (connection != null) {
                    giveBack(pool, connection);
                }
            }
        }
    }

    private static boolean isWorthRepeating(RustyDBException e, QueryOptions options) {
        return e.isRetryable() || !e.wasSent()
                || options.isReadOnly() && e.getSqlState().equals("08006");
    }

    private static long pauseMillis(RustyDBException e, int repeats) {
        if (e.getRetryAfterMillis() != null) {
            return e.getRetryAfterMillis();
        }
        // A connection that was found dead needs no pause, another one is made at once.
        long pause = !e.wasSent() && repeats == 0 ? 0 : FIRST_PAUSE_MILLIS << repeats;
        return pause / 2 + ThreadLocalRandom.current().nextLong(pause / 2 + 1);
    }

    private static void sleep(long millis, RustyDBException reason) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw reason;
        }
    }

    // The next user of the connection would otherwise be inside somebody else's transaction.
    private void requireOutside(Connection connection) {
        if (connection.status() != TransactionStatus.IDLE) {
            Requests.rollBack(connection, config.timeout);
            throw RustyDBException.local("25001", "VALIDATION_ERROR", "the statement opened a "
                    + "transaction, which was rolled back: use beginTransaction() instead");
        }
    }

    private void giveBack(Pool pool, Connection connection) {
        if (connection.isUsable() && connection.status() != TransactionStatus.IDLE) {
            Requests.rollBack(connection, config.timeout);
        }
        pool.release(connection);
    }

    @Override
    void endUse(Connection connection) {
        State current = state;
        if (current != null) {
            giveBack(current.pool(), connection);
        } else {
            connection.close();
        }
    }

    @Override
    void closeStatement(String name) {
        State current = state;
        if (current != null) {
            current.pool().closeStatement(name);
        }
    }

    // ---- Beyond single statements ----

    /** Begins a transaction with the session's defaults. */
    public Transaction beginTransaction() {
        return beginTransaction(TransactionOptions.DEFAULT);
    }

    /** Begins a transaction. */
    public Transaction beginTransaction(TransactionOptions options) {
        Message.Begin begin = new Message.Begin(
                options.isolation(), options.readOnly(), options.deferrable());
        return keepOn(QueryOptions.DEFAULT, connection -> {
            long id = Requests.single(connection, begin, Message.TransactionStarted.class,
                    config.timeout).transactionId();
            return new Transaction(connection, id, config.timeout, this::endUse);
        });
    }

    /** Runs the work in a transaction: commits at its end, rolls back if it throws. */
    public <T> T inTransaction(Function<Transaction, T> work) {
        try (Transaction transaction = beginTransaction()) {
            T result = work.apply(transaction);
            transaction.commit();
            return result;
        }
    }

    /** Takes a connection out of the pool, for settings and temporary tables. */
    public Session openSession() {
        return keepOn(QueryOptions.DEFAULT,
                connection -> new Session(connection, config.timeout, this::endUse));
    }

    /** Asks the server for a sign of life, and returns how long that took. */
    public Duration ping() {
        return on(QueryOptions.DEFAULT,
                connection -> Requests.ping(connection, config.timeout));
    }

    /** Cancels the requests that have the token; the same as {@link CancelToken#cancel}. */
    public void cancel(CancelToken token) {
        token.cancel();
    }

    /** Listens on a channel; notifications wait in the listener until they are polled. */
    public Listener listen(String channel) {
        return connected().events().listen(channel);
    }

    /** Listens on a channel; notifications are handed to the handler, on a thread of their own. */
    public Listener listen(String channel, Consumer<Notification> handler) {
        Listener listener = listen(channel);
        listener.handTo(handler);
        return listener;
    }

    /**
     * Subscribes to a stream of events of the server, with that stream's parameters. There are none
     * yet: the server answers 0A000.
     */
    public Subscription subscribe(String stream, Map<String, String> params) {
        return connected().events().subscribe(stream, params);
    }

    /** The parameters that PostgreSQL reports, for example {@code server_version}. */
    public Map<String, String> serverParameters() {
        return on(QueryOptions.DEFAULT, Connection::parameters);
    }

    /** The version of RustyDB that the client is connected to. */
    public String serverVersion() {
        return on(QueryOptions.DEFAULT, connection -> connection.hello().serverVersion());
    }

    /** Settings of a client; every one has a default. */
    public static final class Builder {
        private final Config config = new Config();

        /**
         * Everything that a connection string says:
         * {@code rustydb://user:password@host:port/database?options}.
         *
         * @throws IllegalArgumentException what is wrong with it
         */
        public Builder url(String url) {
            ConnectionUrl.apply(url, config);
            return this;
        }

        private Config.Host firstHost() {
            return config.hosts.isEmpty()
                    ? new Config.Host("localhost", Config.DEFAULT_PORT) : config.hosts.get(0);
        }

        /** The server's name or address, or the directory of its Unix socket; first localhost. */
        public Builder host(String host) {
            config.hosts = List.of(new Config.Host(host, firstHost().port()));
            return this;
        }

        /** The server's port; at first 5432. */
        public Builder port(int port) {
            config.hosts = List.of(new Config.Host(firstHost().name(), port));
            return this;
        }

        /** The user. */
        public Builder username(String username) {
            config.user = username;
            return this;
        }

        /** The password. */
        public Builder password(String password) {
            config.password = password;
            return this;
        }

        /** The database; at first named as the user. */
        public Builder database(String database) {
            config.database = database;
            return this;
        }

        /** How long connecting and each request may take; at first 30 seconds, 0 for no limit. */
        public Builder timeout(Duration timeout) {
            config.timeout = timeout;
            return this;
        }

        /** How many connections there may be; at first 10. */
        public Builder poolSize(int connections) {
            config.poolSize = connections;
            return this;
        }

        /** How many connections are kept; at first 0. */
        public Builder minPoolSize(int connections) {
            config.minPoolSize = connections;
            return this;
        }

        /** How long a connection above that may be idle; at first 10 minutes, 0 for ever. */
        public Builder idleTimeout(Duration timeout) {
            config.idleTimeout = timeout;
            return this;
        }

        /** How much TLS is needed; at first {@link TlsMode#PREFER}. */
        public Builder tls(TlsMode mode) {
            config.tls = mode;
            return this;
        }

        /** A PEM file with the CAs to trust; at first those of Java. */
        public Builder tlsCa(Path file) {
            config.tlsCa = file;
            return this;
        }

        /** PEM files with the client's certificate and its unencrypted PKCS#8 key. */
        public Builder tlsCertificate(Path certificate, Path key) {
            config.tlsCert = certificate;
            config.tlsKey = key;
            return this;
        }

        /** The way to log in; at first the one that fits what is given. */
        public Builder auth(AuthMethod method) {
            config.auth = method;
            return this;
        }

        /** A token, or a SAML assertion in base64. */
        public Builder token(String token) {
            config.token = token;
            return this;
        }

        /** An API key. */
        public Builder apiKey(String key) {
            config.apiKey = key;
            return this;
        }

        /** Compression, the best first; at first zstd, LZ4, Snappy. */
        public Builder compression(CompressionType... types) {
            config.compression = List.copyOf(Arrays.asList(types));
            return this;
        }

        /** Whether every message carries a checksum. */
        public Builder checksum(boolean checksum) {
            config.checksum = checksum;
            return this;
        }

        /** What the server's lists of connections show. */
        public Builder applicationName(String name) {
            config.applicationName = name;
            return this;
        }

        /** The class of pooled sessions to borrow from, with purity and tag, each or null. */
        public Builder connectionClass(String connectionClass, Purity purity, String tag) {
            config.connectionClass = connectionClass;
            config.purity = purity;
            config.tag = tag;
            return this;
        }

        /** How many bytes may come unread, for each stream and for each connection. */
        public Builder windows(int stream, int connection) {
            config.streamWindow = stream;
            config.connectionWindow = connection;
            return this;
        }

        /** A setting of every session, for example {@code TimeZone}. */
        public Builder parameter(String name, String value) {
            config.parameters.put(name, value);
            return this;
        }

        /** Gets PostgreSQL's notices; must be quick and must not use the client. */
        public Builder noticeHandler(Consumer<Notice> handler) {
            config.noticeHandler = handler;
            return this;
        }

        /** Answers a demand for a second factor with a code. */
        public Builder mfaHandler(Function<MfaChallenge, String> handler) {
            config.mfaHandler = handler;
            return this;
        }

        /**
         * The client, not connected yet.
         *
         * @throws IllegalArgumentException which settings cannot be
         */
        public Client build() {
            return new Client(config.complete());
        }
    }
}
