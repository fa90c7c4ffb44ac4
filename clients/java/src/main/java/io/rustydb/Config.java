// Everything that can be set about a client, with its default and its bounds.
package io.rustydb;

import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.Function;

/** A builder changes one; a client has a copy of its own, which nobody changes. */
final class Config {
    static final int DEFAULT_PORT = 5432;
    static final int MIN_WINDOW = 65_536;
    private static final int MAX_POOL = 10_000;
    // As good as no limit, and far from what nanoseconds in a long can be.
    private static final Duration CENTURY = Duration.ofDays(36_500);

    /** A server; a host that begins with a slash is the directory of a Unix socket. */
    record Host(String name, int port) {
        boolean isUnixSocket() {
            return name.startsWith("/");
        }

        @Override
        public String toString() {
            return name.contains(":") ? "[" + name + "]:" + port : name + ":" + port;
        }
    }

    List<Host> hosts = List.of();
    String user = "";
    String password;
    String database = "";
    Duration timeout = Duration.ofSeconds(30);
    int poolSize = 10;
    int minPoolSize;
    Duration idleTimeout = Duration.ofSeconds(600);
    TlsMode tls = TlsMode.PREFER;
    Path tlsCa;
    Path tlsCert;
    Path tlsKey;
    // Null: whatever the credentials allow.
    AuthMethod auth;
    String token;
    String apiKey;
    List<CompressionType> compression =
            List.of(CompressionType.ZSTD, CompressionType.LZ4, CompressionType.SNAPPY);
    boolean checksum;
    String applicationName = "rustydb-java";
    String connectionClass;
    Purity purity;
    String tag;
    long streamWindow = 1 << 20;
    long connectionWindow = 16 << 20;
    Map<String, String> parameters = new LinkedHashMap<>();
    Consumer<Notice> noticeHandler = notice -> { };
    Function<MfaChallenge, String> mfaHandler;

    Config copy() {
        Config copy = new Config();
        copy.hosts = hosts;
        copy.user = user;
        copy.password = password;
        copy.database = database;
        copy.timeout = timeout;
        copy.poolSize = poolSize;
        copy.minPoolSize = minPoolSize;
        copy.idleTimeout = idleTimeout;
        copy.tls = tls;
        copy.tlsCa = tlsCa;
        copy.tlsCert = tlsCert;
        copy.tlsKey = tlsKey;
        copy.auth = auth;
        copy.token = token;
        copy.apiKey = apiKey;
        copy.compression = compression;
        copy.checksum = checksum;
        copy.applicationName = applicationName;
        copy.connectionClass = connectionClass;
        copy.purity = purity;
        copy.tag = tag;
        copy.streamWindow = streamWindow;
        copy.connectionWindow = connectionWindow;
        copy.parameters = new LinkedHashMap<>(parameters);
        copy.noticeHandler = noticeHandler;
        copy.mfaHandler = mfaHandler;
        return copy;
    }

    /** Fills in what depends on other settings, and refuses what cannot be. */
    Config complete() {
        Config config = copy();
        if (config.hosts.isEmpty()) {
            config.hosts = List.of(new Host("localhost", DEFAULT_PORT));
        }
        if (config.database.isEmpty()) {
            config.database = user;
        }
        require(!timeout.isNegative(), "timeout must not be negative");
        config.timeout = limit(timeout);
        require(poolSize >= 1 && poolSize <= MAX_POOL, "pool_size must be 1 to " + MAX_POOL);
        require(minPoolSize >= 0 && minPoolSize <= poolSize,
                "min_pool_size must be 0 to pool_size");
        require(!idleTimeout.isNegative(), "idle_timeout must not be negative");
        config.idleTimeout = limit(idleTimeout);
        require(inWindow(streamWindow) && inWindow(connectionWindow),
                "windows must be " + MIN_WINDOW + " to " + Integer.MAX_VALUE + " bytes");
        require((tlsCert == null) == (tlsKey == null),
                "tls_cert and tls_key must be given together");
        config.compression = available(compression);
        requireLogin();
        boolean needsTls = tls != TlsMode.DISABLE && tls != TlsMode.PREFER;
        require(!needsTls || config.hosts.stream().noneMatch(Host::isUnixSocket),
                "there is no TLS on a Unix socket: use tls=disable or tls=prefer");
        require(!user.isEmpty() || token != null || apiKey != null,
                "no user is named: rustydb://user@host/database, or username()");
        return config;
    }

    /** What the way to log in takes must be there. */
    private void requireLogin() {
        if (auth == null) {
            return;
        }
        require(auth != AuthMethod.KERBEROS, "this library does not support auth=kerberos");
        switch (auth) {
            case SCRAM_SHA256, SCRAM_SHA256_PLUS, PASSWORD, LDAP ->
                    require(password != null, "auth=" + name(auth) + " needs a password");
            case TOKEN, SAML ->
                    require(token != null, "auth=" + name(auth) + " needs the option token");
            case API_KEY -> require(apiKey != null, "auth=apikey needs the option api_key");
            case CERTIFICATE -> require(tlsCert != null,
                    "auth=certificate needs the options tls_cert and tls_key");
            default -> { }
        }
    }

    private static String name(AuthMethod method) {
        return switch (method) {
            case SCRAM_SHA256, SCRAM_SHA256_PLUS -> "scram-sha-256";
            default -> method.name().toLowerCase(Locale.ROOT);
        };
    }

    private static Duration limit(Duration duration) {
        return duration.isZero() || duration.compareTo(CENTURY) > 0 ? CENTURY : duration;
    }

    private static boolean inWindow(long bytes) {
        return bytes >= MIN_WINDOW && bytes <= Integer.MAX_VALUE;
    }

    private static List<CompressionType> available(List<CompressionType> wanted) {
        List<CompressionType> types = new ArrayList<>(wanted);
        types.remove(CompressionType.NONE);
        if (!Zstd.isAvailable()) {
            types.remove(CompressionType.ZSTD);
        }
        return List.copyOf(types);
    }

    private static void require(boolean condition, String message) {
        if (!condition) {
            throw new IllegalArgumentException(message);
        }
    }
}
