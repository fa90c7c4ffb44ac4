// TLS against a running server: RUSTYDB_TLS_URL, and RUSTYDB_TLS_CA with the CA's certificate.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.io.TempDir;

@EnabledIfEnvironmentVariable(named = EndToEnd.TLS_URL, matches = ".+")
@EnabledIfEnvironmentVariable(named = EndToEnd.TLS_CA, matches = ".+")
@Timeout(60)
class TlsEndToEndTest {
    private static Client.Builder builder() {
        return new Client.Builder().url(System.getenv(EndToEnd.TLS_URL));
    }

    private static Path ca() {
        return Path.of(System.getenv(EndToEnd.TLS_CA));
    }

    private static void works(Client.Builder builder) {
        try (Client client = builder.build().connect()) {
            assertEquals(1, client.query("SELECT 1").size());
            assertEquals(100_000, client.query(
                    "SELECT g, md5(g::text) FROM generate_series(1, 100000) g").size());
            boolean isTls = client.<Boolean>on(QueryOptions.DEFAULT, Connection::isTls);
            assertTrue(isTls);
        }
    }

    @Test
    void everyModeWorks() {
        works(builder().tls(TlsMode.PREFER));
        works(builder().tls(TlsMode.REQUIRE));
        works(builder().tls(TlsMode.REQUIRE).tlsCa(ca()));
        works(builder().tls(TlsMode.VERIFY_CA).tlsCa(ca()));
        works(builder().tls(TlsMode.VERIFY_FULL).tlsCa(ca()));
    }

    @Test
    @EnabledIfEnvironmentVariable(named = EndToEnd.SELF_SIGNED_URL, matches = ".+")
    @EnabledIfEnvironmentVariable(named = EndToEnd.SELF_SIGNED_CERT, matches = ".+")
    void aSelfSignedCertificateIsItsOwnAuthority() {
        Client.Builder own = new Client.Builder().url(System.getenv(EndToEnd.SELF_SIGNED_URL))
                .tls(TlsMode.VERIFY_FULL);
        assertEquals("08001", assertThrows(RustyDBException.class,
                () -> own.build().connect()).getSqlState());
        works(own.tlsCa(Path.of(System.getenv(EndToEnd.SELF_SIGNED_CERT))));
    }

    @Test
    void aServerThatNobodyVouchesForIsRefused(@TempDir Path directory) throws IOException {
        for (TlsMode mode : new TlsMode[] {TlsMode.VERIFY_CA, TlsMode.VERIFY_FULL}) {
            RustyDBException error = assertThrows(RustyDBException.class,
                    () -> builder().tls(mode).build().connect());
            assertEquals("08001", error.getSqlState());
        }
        Path noCertificate = Files.writeString(directory.resolve("ca.pem"), "nothing");
        assertEquals("08001", assertThrows(RustyDBException.class, () -> builder()
                .tls(TlsMode.VERIFY_CA).tlsCa(noCertificate).build().connect()).getSqlState());
    }
}
