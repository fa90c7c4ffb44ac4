// What the tests against a running server have in common.
package io.rustydb;

import java.util.concurrent.ThreadLocalRandom;

/** The server of RUSTYDB_URL. */
final class EndToEnd {
    static final String URL = "RUSTYDB_URL";
    static final String TLS_URL = "RUSTYDB_TLS_URL";
    static final String TLS_CA = "RUSTYDB_TLS_CA";
    static final String SELF_SIGNED_URL = "RUSTYDB_SELF_SIGNED_URL";
    static final String SELF_SIGNED_CERT = "RUSTYDB_SELF_SIGNED_CERT";

    private EndToEnd() {
    }

    static Client.Builder builder() {
        return new Client.Builder().url(System.getenv(URL));
    }

    static Config config() {
        Config config = new Config();
        ConnectionUrl.apply(System.getenv(URL), config);
        return config;
    }

    /** A name that no other test on the same server has. */
    static String name(String what) {
        return "java_" + what + "_"
                + Long.toHexString(ThreadLocalRandom.current().nextLong(1L << 40));
    }
}
