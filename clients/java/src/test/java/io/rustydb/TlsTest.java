// Who is trusted over TLS, with certificates that the JDK's keytool makes.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.Certificate;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

@Timeout(60)
class TlsTest {
    private static final char[] SECRET = "changeit".toCharArray();

    @TempDir
    private static Path directory;
    private static KeyStore serverKeys;
    private static KeyStore clientKeys;
    private static FakeServer server;
    private static SSLServerSocket listener;
    private static volatile byte[] boundTo;

    @BeforeAll
    static void start() throws Exception {
        serverKeys = keys("server", "RSA", "2048");
        clientKeys = keys("client", "EC", "256");
        writePem("server.pem", "CERTIFICATE", serverKeys.getCertificate("key").getEncoded());
        writePem("client.pem", "CERTIFICATE", clientKeys.getCertificate("key").getEncoded());
        writePem("client.key", "PRIVATE KEY", clientKeys.getKey("key", SECRET).getEncoded());
        server = new FakeServer(List.of(AuthMethod.SCRAM_SHA256_PLUS, AuthMethod.SCRAM_SHA256),
                TlsTest::logIn, peer -> peer.request(), 30_000);
        listener = (SSLServerSocket) context().getServerSocketFactory()
                .createServerSocket(0, 50, InetAddress.getByName("localhost"));
        listener.setNeedClientAuth(true);
        SSLParameters parameters = listener.getSSLParameters();
        parameters.setApplicationProtocols(new String[] {"rustydb/1"});
        listener.setSSLParameters(parameters);
        Thread thread = new Thread(TlsTest::accept, "tls");
        thread.setDaemon(true);
        thread.start();
    }

    @AfterAll
    static void stop() throws IOException {
        listener.close();
        server.close();
    }

    private static KeyStore keys(String name, String algorithm, String size) throws Exception {
        Path file = directory.resolve(name + ".p12");
        Process keytool = new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "keytool").toString(),
                "-genkeypair", "-alias", "key", "-keyalg", algorithm, "-keysize", size,
                "-dname", "CN=" + name, "-ext", "san=dns:localhost", "-validity", "2",
                "-storetype", "PKCS12", "-keystore", file.toString(), "-storepass", "changeit")
                .redirectErrorStream(true).redirectOutput(directory.resolve("log").toFile())
                .start();
        assertTrue(keytool.waitFor(30, TimeUnit.SECONDS));
        assertEquals(0, keytool.exitValue(), Files.readString(directory.resolve("log")));
        return KeyStore.getInstance(file.toFile(), SECRET);
    }

    private static void writePem(String name, String kind, byte[] der) throws IOException {
        String text = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(der);
        Files.writeString(directory.resolve(name),
                "-----BEGIN " + kind + "-----\n" + text + "\n-----END " + kind + "-----\n");
    }

    private static SSLContext context() throws Exception {
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(serverKeys, SECRET);
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        Certificate client = clientKeys.getCertificate("key");
        trusted.setCertificateEntry("client", client);
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    private static void accept() {
        while (!((ServerSocket) listener).isClosed()) {
            try (SSLSocket socket = (SSLSocket) listener.accept()) {
                socket.startHandshake();
                assertEquals("rustydb/1", socket.getApplicationProtocol());
                server.serve(socket.getInputStream(), socket.getOutputStream());
            } catch (Exception e) {
                // The client did not like us, or has gone; the next one may come.
            }
        }
    }

    private static void logIn(FakeServer.Peer peer) throws IOException {
        AuthMessage.Start start = (AuthMessage.Start) peer.read().message();
        assertEquals(AuthMethod.SCRAM_SHA256_PLUS, start.method());
        AuthMessage.SaslInitial first = (AuthMessage.SaslInitial) peer.read().message();
        assertEquals("SCRAM-SHA-256-PLUS", first.mechanism());
        String nonce = new String(first.data()).replaceFirst(".*r=", "");
        peer.send(new AuthReply.SaslContinue(("r=" + nonce
                + "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").getBytes()),
                Frame.RESPONSE | Frame.MORE, 2);
        AuthMessage.SaslResponse proof = (AuthMessage.SaslResponse) peer.read().message();
        String binding = new String(proof.data()).replaceFirst("^c=([^,]*),.*", "$1");
        boundTo = Base64.getDecoder().decode(binding);
        // A log-in is the server's business; what counts here is that it came that far.
        peer.refuse(new Frame(0, 2, new byte[0], 0, null), Severity.FATAL, "28P01", false);
    }

    /** Connects, and returns the SQLSTATE that ends it; 28P01 is the end of a good handshake. */
    private static String connect(
            TlsMode mode, String host, String ca, String certificate, String key) {
        Client.Builder builder = new Client.Builder().host(host).port(listener.getLocalPort())
                .username("u").password("p").tls(mode);
        if (ca != null) {
            builder.tlsCa(directory.resolve(ca));
        }
        if (certificate != null) {
            builder.tlsCertificate(directory.resolve(certificate), directory.resolve(key));
        }
        return assertThrows(RustyDBException.class, () -> builder.build().connect())
                .getSqlState();
    }

    @Test
    void certificatesAreCheckedAsTheModeSays() throws Exception {
        String cert = "client.pem";
        String key = "client.key";
        assertEquals("28P01", connect(TlsMode.REQUIRE, "localhost", null, cert, key));
        assertEquals("28P01", connect(TlsMode.REQUIRE, "localhost", "server.pem", cert, key));
        assertEquals("08001", connect(TlsMode.REQUIRE, "localhost", "client.pem", cert, key));
        assertEquals("28P01", connect(TlsMode.VERIFY_CA, "localhost", "server.pem", cert, key));
        assertEquals("08001", connect(TlsMode.VERIFY_CA, "localhost", "client.pem", cert, key));
        assertEquals("08001", connect(TlsMode.VERIFY_CA, "localhost", null, cert, key));
        assertEquals("28P01", connect(TlsMode.VERIFY_FULL, "localhost", "server.pem", cert, key));
        // The certificate is for the name, not for the address.
        String address = listener.getInetAddress().getHostAddress();
        assertEquals("28P01", connect(TlsMode.VERIFY_CA, address, "server.pem", cert, key));
        assertEquals("08001", connect(TlsMode.VERIFY_FULL, address, "server.pem", cert, key));
        byte[] hash = MessageDigest.getInstance("SHA-256")
                .digest(serverKeys.getCertificate("key").getEncoded());
        byte[] expected = java.util.Arrays.copyOf(
                "p=tls-server-end-point,,".getBytes(), 24 + hash.length);
        System.arraycopy(hash, 0, expected, 24, hash.length);
        assertArrayEquals(expected, boundTo);
    }

    @Test
    void aClientNeedsItsCertificate() {
        assertEquals("08001", connect(TlsMode.REQUIRE, "localhost", null, null, null));
    }

    @Test
    void aFileThatIsNoKeyIsRefused() throws IOException {
        Files.writeString(directory.resolve("old.key"),
                "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n");
        for (String key : new String[] {"old.key", "missing.key", "client.pem"}) {
            assertEquals("08001",
                    connect(TlsMode.REQUIRE, "localhost", null, "client.pem", key));
        }
    }
}
