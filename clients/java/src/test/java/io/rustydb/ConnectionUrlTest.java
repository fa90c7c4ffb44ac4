// Connection strings, and settings that cannot be.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class ConnectionUrlTest {
    private static Config parse(String url) {
        Config config = new Config();
        ConnectionUrl.apply(url, config);
        return config.complete();
    }

    @Test
    void theExampleOfTheManual() {
        Config config =
                parse("rustydb://admin:secret@localhost:5432/mydb?timeout=30&pool_size=10");
        assertEquals(List.of(new Config.Host("localhost", 5432)), config.hosts);
        assertEquals("admin", config.user);
        assertEquals("secret", config.password);
        assertEquals("mydb", config.database);
        assertEquals(Duration.ofSeconds(30), config.timeout);
        assertEquals(10, config.poolSize);
    }

    @Test
    void everythingHasADefault() {
        Config config = parse("rustydb://u@");
        assertEquals(List.of(new Config.Host("localhost", 5432)), config.hosts);
        assertNull(config.password);
        assertEquals(TlsMode.PREFER, config.tls);
        assertNull(config.auth);
        assertEquals(Duration.ofSeconds(600), config.idleTimeout);
        assertEquals(0, config.minPoolSize);
        assertEquals(1_048_576, config.streamWindow);
        assertEquals(16_777_216, config.connectionWindow);
        assertEquals(
                List.of(CompressionType.ZSTD, CompressionType.LZ4, CompressionType.SNAPPY),
                config.compression);
        assertEquals("alice", parse("rustydb://alice@h").database);
    }

    @Test
    void everyPartIsPercentEncoded() {
        Config config = parse("rustydb://a%40b:p%3A%2F%20%C3%A9%25@h/my%2Fdb?tag=x%26y%3D");
        assertEquals("a@b", config.user);
        assertEquals("p:/ \u00e9%", config.password);
        assertEquals("my/db", config.database);
        assertEquals("x&y=", config.tag);
    }

    @Test
    void hostsOfEveryKind() {
        Config config = parse("rustydb://u@[::1]:1,h:2,%2Fvar%2Frun:3,[fe80::1],:7,last/db");
        assertEquals(List.of(new Config.Host("::1", 1), new Config.Host("h", 2),
                new Config.Host("/var/run", 3), new Config.Host("fe80::1", 5432),
                new Config.Host("localhost", 7), new Config.Host("last", 5432)), config.hosts);
        assertEquals("[::1]:1", config.hosts.get(0).toString());
        assertEquals(true, config.hosts.get(2).isUnixSocket());
    }

    @Test
    void everyOption() {
        Config config = parse("rustydb://u:p@h/d?timeout=5&pool_size=3&min_pool_size=2"
                + "&idle_timeout=7&tls=verify-full&tls_ca=ca.pem&tls_cert=c.pem&tls_key=k.pem"
                + "&auth=password&token=t&api_key=k&compression=lz4,snappy&checksum=true"
                + "&application_name=app&connection_class=web&purity=any&tag=x"
                + "&stream_window=65536&connection_window=131072");
        assertEquals(Duration.ofSeconds(5), config.timeout);
        assertEquals(3, config.poolSize);
        assertEquals(2, config.minPoolSize);
        assertEquals(Duration.ofSeconds(7), config.idleTimeout);
        assertEquals(TlsMode.VERIFY_FULL, config.tls);
        assertEquals(Path.of("ca.pem"), config.tlsCa);
        assertEquals(Path.of("c.pem"), config.tlsCert);
        assertEquals(Path.of("k.pem"), config.tlsKey);
        assertEquals(AuthMethod.PASSWORD, config.auth);
        assertEquals(List.of(CompressionType.LZ4, CompressionType.SNAPPY), config.compression);
        assertEquals(true, config.checksum);
        assertEquals("app", config.applicationName);
        assertEquals("web", config.connectionClass);
        assertEquals(Purity.ANY, config.purity);
        assertEquals(65_536, config.streamWindow);
        assertEquals(131_072, config.connectionWindow);
        assertEquals("", parse("rustydb://h?token=t").user);
        assertEquals("", parse("rustydb://h?api_key=t").user);
        assertEquals(List.of(), parse("rustydb://u@h?compression=none").compression);
    }

    @Test
    void zeroSecondsAreNoLimit() {
        Config config = parse("rustydb://u@h?timeout=0&idle_timeout=0");
        assertTrue(config.timeout.toDays() > 36_000);
        assertTrue(config.idleTimeout.toNanos() > 0);
        assertEquals(Duration.ofMillis(1500), parse("rustydb://u@h?timeout=1.5").timeout);
        assertTrue(new Client.Builder().username("u").timeout(Duration.ofSeconds(Long.MAX_VALUE))
                .build() != null);
    }

    @ParameterizedTest
    @CsvSource({"scram-sha-256,a password", "password,a password", "ldap,a password",
        "token,the option token", "saml,the option token", "apikey,the option api_key",
        "certificate,the options tls_cert and tls_key"})
    void whatTheLogInTakesMustBeThere(String auth, String missing) {
        IllegalArgumentException error = assertThrows(IllegalArgumentException.class,
                () -> parse("rustydb://u@h?auth=" + auth));
        assertEquals("auth=" + auth + " needs " + missing, error.getMessage());
    }

    @ParameterizedTest
    @ValueSource(strings = {"require", "verify-ca", "verify-full"})
    void thereIsNoTlsOnAUnixSocket(String tls) {
        for (String hosts : List.of("%2Frun", "h,%2Frun")) {
            IllegalArgumentException error = assertThrows(IllegalArgumentException.class,
                    () -> parse("rustydb://u@" + hosts + "/d?tls=" + tls));
            assertTrue(error.getMessage().startsWith("there is no TLS on a Unix socket"));
            parse("rustydb://u@" + hosts + "/d?tls=prefer");
        }
    }

    @Test
    void aUserMustBeNamed() {
        IllegalArgumentException error = assertThrows(
                IllegalArgumentException.class, () -> parse("rustydb://h/d"));
        assertTrue(error.getMessage().startsWith("no user is named"));
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "postgresql://h", "h:5432", "rustydb://h?colour=red", "rustydb://h?timeout",
        "rustydb://h?timeout=x", "rustydb://h?timeout=-1",
        "rustydb://h?pool_size=0", "rustydb://h?pool_size=1&min_pool_size=2", "rustydb://h:0",
        "rustydb://h:65536", "rustydb://h:port", "rustydb://[::1", "rustydb://[::1]5432",
        "rustydb://h?tls=maybe", "rustydb://h?auth=none", "rustydb://h?auth=kerberos",
        "rustydb://h?compression=gzip", "rustydb://h?compression=none,lz4",
        "rustydb://h?checksum=yes", "rustydb://h?purity=clean", "rustydb://h?stream_window=1",
        "rustydb://h?tls_cert=c.pem", "rustydb://u%4@h", "rustydb://u%zz@h", "rustydb://u%ff@h"})
    void whatCannotBeIsRefused(String url) {
        String withUser = url.replace("://h", "://u@h");
        assertThrows(IllegalArgumentException.class, () -> parse(withUser));
    }

    @Test
    void aBuilderSaysTheSame() {
        Client client = new Client.Builder().host("h").port(7).username("u").password("p")
                .database("d").build();
        RustyDBException error =
                assertThrows(RustyDBException.class, () -> client.query("SELECT 1"));
        assertEquals("08003", error.getSqlState());
        assertThrows(IllegalArgumentException.class,
                () -> new Client.Builder().username("u").poolSize(0).build());
    }
}
