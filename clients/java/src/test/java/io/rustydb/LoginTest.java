// Ways to log in, and to reach a server, that need no real one.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

@Timeout(30)
class LoginTest {
    private static final FakeServer.Script IDLE = peer -> peer.request();

    /** Logs in with what the builder says, to a server that does what the script says. */
    private static void logIn(List<AuthMethod> methods, FakeServer.Script login,
            UnaryOperator<Client.Builder> settings) throws IOException {
        try (FakeServer server = new FakeServer(methods, login, IDLE, 30_000);
                Client client = settings.apply(server.client()).build().connect()) {
            assertEquals(1, server.connections.get());
        }
    }

    private static FakeServer.Script expecting(
            AuthMethod method, Message second, Consumer<AuthMessage.Start> check) {
        return peer -> {
            AuthMessage.Start start = (AuthMessage.Start) peer.read().message();
            assertEquals(method, start.method());
            check.accept(start);
            if (second != null) {
                assertEquals(second, peer.read().message());
            }
            peer.welcome();
        };
    }

    @Test
    void theMethodIsTheOneThatFits() throws IOException {
        Consumer<AuthMessage.Start> any = start -> { };
        List<AuthMethod> all = List.of(AuthMethod.values());
        logIn(all, expecting(AuthMethod.TRUST, null, any), builder -> builder);
        logIn(all, expecting(AuthMethod.TOKEN, new AuthMessage.Token("t"), any),
                builder -> builder.token("t"));
        logIn(all, expecting(AuthMethod.API_KEY, new AuthMessage.ApiKey("k"), any),
                builder -> builder.apiKey("k"));
        logIn(all, expecting(AuthMethod.PASSWORD, new AuthMessage.Password("p"), any),
                builder -> builder.auth(AuthMethod.PASSWORD).password("p"));
        logIn(all, expecting(AuthMethod.LDAP, new AuthMessage.Password("p"), any),
                builder -> builder.auth(AuthMethod.LDAP).password("p"));
        logIn(all, expecting(AuthMethod.SAML, new AuthMessage.Saml("PHg+"), any),
                builder -> builder.auth(AuthMethod.SAML).token("PHg+"));
        logIn(all, expecting(AuthMethod.CERTIFICATE, new AuthMessage.Certificate(), any),
                builder -> builder.auth(AuthMethod.CERTIFICATE)
                        .tlsCertificate(Path.of("c"), Path.of("k")));
        logIn(all, expecting(AuthMethod.TOKEN, new AuthMessage.Token("t"), any),
                builder -> builder.token("t").apiKey("k").password("p"));
        logIn(List.of(AuthMethod.PASSWORD, AuthMethod.TRUST),
                expecting(AuthMethod.TRUST, null, any), builder -> builder.password("p"));
        // A server that trusts this user, although it asks others for passwords.
        logIn(List.of(AuthMethod.SCRAM_SHA256), peer -> {
            peer.read();
            assertTrue(peer.read().message() instanceof AuthMessage.SaslInitial);
            peer.welcome();
        }, builder -> builder.password("p"));
        // A cleartext password is never sent where only SCRAM was asked for.
        assertEquals("28000", assertThrows(RustyDBException.class, () -> logIn(
                List.of(AuthMethod.PASSWORD), peer -> peer.read(),
                builder -> builder.password("p"))).getSqlState());
    }

    @Test
    void whoAsksForScramWantsTheServersProof() {
        RustyDBException error = assertThrows(RustyDBException.class, () -> logIn(
                List.of(AuthMethod.SCRAM_SHA256), peer -> {
                    peer.read();
                    peer.read();
                    peer.welcome();
                }, builder -> builder.password("p").auth(AuthMethod.SCRAM_SHA256)));
        assertEquals("08P01", error.getSqlState());
    }

    @Test
    void theStartSaysWhoAndWhat() throws IOException {
        logIn(List.of(AuthMethod.TRUST), expecting(AuthMethod.TRUST, null, start -> {
            assertEquals(new AuthMessage.Start("u", "d", AuthMethod.TRUST, "app", "web",
                    Purity.SELF, "x", List.of(new Setting("TimeZone", "UTC"))), start);
        }), builder -> builder.database("d").applicationName("app")
                .connectionClass("web", Purity.SELF, "x").parameter("TimeZone", "UTC"));
    }

    @Test
    void aSecondFactorIsAskedFor() throws IOException {
        FakeServer.Script login = peer -> {
            peer.read();
            assertEquals(new AuthMessage.Token("t"), peer.read().message());
            peer.send(new AuthReply.MfaRequired("c1", List.of("totp"), 120),
                    Frame.RESPONSE | Frame.MORE, 2);
            Frame code = peer.read();
            assertEquals(new AuthMessage.MfaCode("c1", "123456"), code.message());
            assertEquals(2, code.id());
            peer.welcome();
        };
        logIn(List.of(AuthMethod.TOKEN), login, builder -> builder.token("t")
                .mfaHandler(challenge -> {
                    assertEquals(new MfaChallenge(
                            "c1", List.of("totp"), Duration.ofSeconds(120)), challenge);
                    return "123456";
                }));
        assertEquals("28000", assertThrows(RustyDBException.class, () -> logIn(
                List.of(AuthMethod.TOKEN), peer -> {
                    peer.read();
                    peer.read();
                    peer.send(new AuthReply.MfaRequired("c1", List.of("totp"), 120),
                            Frame.RESPONSE | Frame.MORE, 2);
                    peer.read();
                }, builder -> builder.token("t"))).getSqlState());
    }

    @Test
    void aServerThatSkipsItsProofIsRefused() {
        assertThrows(RustyDBException.class, () -> logIn(
                List.of(AuthMethod.SCRAM_SHA256), peer -> {
                    peer.read();
                    AuthMessage.SaslInitial first =
                            (AuthMessage.SaslInitial) peer.read().message();
                    String nonce = new String(first.data()).replaceFirst(".*r=", "");
                    peer.send(new AuthReply.SaslContinue(("r=" + nonce
                            + "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").getBytes()),
                            Frame.RESPONSE | Frame.MORE, 2);
                    peer.read();
                    peer.welcome();
                }, builder -> builder.password("p")));
    }

    @Test
    void aServerThatSaysNothingIsLeft() {
        RustyDBException error = assertThrows(RustyDBException.class, () -> logIn(
                List.of(AuthMethod.TRUST), peer -> Thread.sleep(5000),
                builder -> builder.timeout(Duration.ofMillis(500))));
        assertEquals("TIMEOUT", error.getCode());
    }

    @Test
    void aServerWithoutTlsIsTakenAsTheModeSays() throws IOException {
        FakeServer.Script trust = expecting(AuthMethod.TRUST, null, start -> { });
        // The first connection brings a TLS handshake, which the fake server does not understand.
        FakeServer.Script script = peer -> peer.request();
        try (FakeServer server = new FakeServer(
                List.of(AuthMethod.TRUST), trust, script, 30_000)) {
            try (Client client = server.client().tls(TlsMode.PREFER).build().connect()) {
                assertTrue(client.<Boolean>on(
                        QueryOptions.DEFAULT, connection -> !connection.isTls()));
            }
            assertEquals("08001", assertThrows(RustyDBException.class, () -> server.client()
                    .tls(TlsMode.REQUIRE).build().connect()).getSqlState());
            server.failure = null;
        }
    }

    @Test
    void aUnixSocketWorksBothWaysAtOnce(@TempDir Path directory) throws Exception {
        Path path = directory.resolve(".s.PGSQL.5433");
        try (ServerSocketChannel listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
                FakeServer server = new FakeServer(peer -> {
                    for (int i = 0; i < 2; i++) {
                        peer.answerNumber(peer.request(), 7);
                    }
                    peer.request();
                })) {
            listener.bind(UnixDomainSocketAddress.of(path));
            Thread thread = new Thread(() -> {
                try (SocketChannel channel = listener.accept()) {
                    server.serve(Channels.newInputStream(channel),
                            Channels.newOutputStream(channel));
                } catch (Exception e) {
                    // The client has gone.
                }
            });
            thread.start();
            String host = directory.toString().replace("/", "%2F");
            try (Client client = new Client.Builder().url("rustydb://u@" + host + ":5433")
                    .build().connect()) {
                for (int i = 0; i < 2; i++) {
                    ResultSet result = client.query("SELECT 7");
                    assertTrue(result.next());
                    assertEquals(7, result.getInt(1));
                }
            }
        }
    }
}
