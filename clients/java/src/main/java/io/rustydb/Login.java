// Handshake and log-in, before a connection is used for anything else.
package io.rustydb;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/** Runs on the thread that connects; nobody else reads or writes yet. */
final class Login {
    static final long FIRST_FREE_ID = 3;

    private static final byte[] PREFACE = {'R', 'U', 'S', 'T', 'Y', 'D', 'B', 1};
    private static final HandshakeMessage.Version VERSION = new HandshakeMessage.Version(1, 0);
    private static final String CLIENT_NAME = "rustydb-java";
    private static final String CLIENT_VERSION = "0.1.0";
    // Ways to log in that give the secret itself to the server.
    private static final Set<AuthMethod> SECRETS = EnumSet.of(AuthMethod.PASSWORD,
            AuthMethod.LDAP, AuthMethod.TOKEN, AuthMethod.API_KEY, AuthMethod.SAML);
    private static final long HELLO_ID = 1;
    private static final long AUTH_ID = 2;

    private final Config config;
    private final Transport transport;
    private final FrameCodec codec = new FrameCodec();
    private HandshakeMessage.ServerHello hello;
    private AuthReply.Success success;
    private long sentBytes;

    private Login(Config config, Transport transport) {
        this.config = config;
        this.transport = transport;
    }

    /** Both steps; the connection is ready afterwards. */
    static Login perform(Config config, Transport transport) throws IOException {
        Login login = new Login(config, transport);
        login.shakeHands();
        login.authenticate();
        return login;
    }

    FrameCodec codec() {
        return codec;
    }

    HandshakeMessage.ServerHello hello() {
        return hello;
    }

    AuthReply.Success success() {
        return success;
    }

    /** What the server may have counted against our window so far. */
    long sentBytes() {
        return sentBytes;
    }

    private void send(long id, Message message) throws IOException {
        byte[] frame = codec.encode(message, 0, id);
        sentBytes += frame.length - Frame.HEADER_BYTES;
        transport.out().write(frame);
        transport.out().flush();
    }

    private Message receive() throws IOException {
        while (true) {
            Frame frame = codec.read(transport.in());
            if (frame == null) {
                throw new IOException("the server closed the connection during the log-in");
            }
            Message message = frame.message();
            if (message instanceof Message.Error error) {
                throw RustyDBException.fromServer(error.value());
            }
            if (!frame.has(Frame.URGENT) && !(message instanceof NotificationMessage)) {
                return message;
            }
        }
    }

    private void shakeHands() throws IOException {
        transport.out().write(PREFACE);
        long capabilities = HandshakeMessage.STREAMING | HandshakeMessage.PIPELINING
                | HandshakeMessage.NOTIFICATIONS | HandshakeMessage.BULK_INSERT
                | HandshakeMessage.PREPARED | HandshakeMessage.SUBSCRIPTIONS
                | (config.checksum ? HandshakeMessage.CHECKSUM : 0);
        send(HELLO_ID, new HandshakeMessage.ClientHello(VERSION, VERSION, CLIENT_NAME,
                CLIENT_VERSION, config.compression, capabilities, List.of(), Frame.MAX_PAYLOAD,
                config.streamWindow, config.connectionWindow));
        Message answer = receive();
        if (!(answer instanceof HandshakeMessage.ServerHello serverHello)) {
            throw unexpected(answer);
        }
        hello = serverHello;
        boolean sane = hello.version().equals(VERSION)
                && hello.maxMessageSize() <= Frame.MAX_PAYLOAD
                && hello.maxMessageSize() >= Config.MIN_WINDOW
                && (hello.compression() == CompressionType.NONE
                        || config.compression.contains(hello.compression()));
        if (!sane) {
            throw RustyDBException.protocol("the server chose what was not offered");
        }
        boolean checksum = (hello.capabilities() & HandshakeMessage.CHECKSUM) != 0;
        codec.agree(hello.compression(), checksum, (int) hello.maxMessageSize());
    }

    private void authenticate() throws IOException {
        AuthMethod method = chooseMethod();
        List<Setting> parameters = new ArrayList<>();
        config.parameters.forEach((name, value) -> parameters.add(new Setting(name, value)));
        send(AUTH_ID, new AuthMessage.Start(config.user, config.database, method,
                config.applicationName, config.connectionClass, config.purity, config.tag,
                parameters));
        Scram scram = null;
        switch (method) {
            case SCRAM_SHA256, SCRAM_SHA256_PLUS -> {
                boolean binds = method == AuthMethod.SCRAM_SHA256_PLUS;
                scram = new Scram(require(config.password, "password"),
                        binds ? transport.endPoint() : null);
                send(AUTH_ID, new AuthMessage.SaslInitial(scram.mechanism(), scram.first()));
            }
            case PASSWORD, LDAP -> send(AUTH_ID,
                    new AuthMessage.Password(require(config.password, "password")));
            case TOKEN -> send(AUTH_ID, new AuthMessage.Token(require(config.token, "token")));
            case SAML -> send(AUTH_ID, new AuthMessage.Saml(require(config.token, "token")));
            case API_KEY -> send(AUTH_ID,
                    new AuthMessage.ApiKey(require(config.apiKey, "api_key")));
            case CERTIFICATE -> send(AUTH_ID, new AuthMessage.Certificate());
            case TRUST -> { }
            default -> throw RustyDBException.local("28000", "AUTHENTICATION_FAILED",
                    "this library does not support the method " + method);
        }
        finish(scram);
    }

    /** Answers until the server is content; it may be at once, where it trusts the user anyway. */
    private void finish(Scram scram) throws IOException {
        boolean isVerified = false;
        boolean hasProved = false;
        while (true) {
            Message answer = receive();
            if (answer instanceof AuthReply.Success done) {
                // Who asks for SCRAM wants the server's proof; else it may trust the user.
                boolean mustProve = hasProved || scram != null && config.auth != null;
                if (mustProve && !isVerified) {
                    throw RustyDBException.protocol("the server did not prove itself");
                }
                success = done;
                return;
            } else if (answer instanceof AuthReply.MfaRequired challenge) {
                answer(challenge);
            } else if (answer instanceof AuthReply.SaslContinue it && scram != null && !hasProved) {
                send(AUTH_ID, new AuthMessage.SaslResponse(scram.proof(it.data())));
                hasProved = true;
            } else if (answer instanceof AuthReply.SaslFinal it && hasProved && !isVerified) {
                scram.verify(it.data());
                isVerified = true;
            } else {
                throw unexpected(answer);
            }
        }
    }

    private void answer(AuthReply.MfaRequired challenge) throws IOException {
        if (config.mfaHandler == null) {
            throw RustyDBException.local("28000", "AUTHENTICATION_FAILED",
                    "the server asks for a second factor, and there is no mfaHandler");
        }
        String code = config.mfaHandler.apply(new MfaChallenge(challenge.challengeId(),
                challenge.methods(), Duration.ofSeconds(challenge.expiresInSecs())));
        send(AUTH_ID, new AuthMessage.MfaCode(challenge.challengeId(), code));
    }

    private AuthMethod chooseMethod() {
        AuthMethod method = config.auth != null ? config.auth : byCredentials();
        boolean binds = transport.endPoint() != null
                && hello.authMethods().contains(AuthMethod.SCRAM_SHA256_PLUS);
        if (method == AuthMethod.SCRAM_SHA256 && binds) {
            method = AuthMethod.SCRAM_SHA256_PLUS;
        }
        requireOffered(method);
        if (SECRETS.contains(method) && !transport.isPrivate()) {
            throw RustyDBException.local("28000", "TLS_REQUIRED",
                    "a password, token or key is not sent to another host without TLS");
        }
        return method;
    }

    /** The first way that is offered and needs only what is there; no password in clear. */
    private AuthMethod byCredentials() {
        List<AuthMethod> ways = new ArrayList<>();
        if (config.token != null) {
            ways.add(AuthMethod.TOKEN);
        }
        if (config.apiKey != null) {
            ways.add(AuthMethod.API_KEY);
        }
        if (config.password != null) {
            ways.add(AuthMethod.SCRAM_SHA256);
        }
        if (config.tlsCert != null && transport.isTls()) {
            ways.add(AuthMethod.CERTIFICATE);
        }
        ways.add(AuthMethod.TRUST);
        ways.retainAll(hello.authMethods());
        if (ways.isEmpty()) {
            throw RustyDBException.local("28000", "AUTHENTICATION_FAILED", "no way to log in fits "
                    + "what was given; the server offers " + hello.authMethods());
        }
        return ways.get(0);
    }

    private void requireOffered(AuthMethod method) {
        if (!hello.authMethods().contains(method)) {
            throw RustyDBException.local("28000", "AUTHENTICATION_FAILED",
                    "the server does not offer " + method + ", but " + hello.authMethods());
        }
    }

    private static String require(String secret, String option) {
        if (secret == null) {
            throw RustyDBException.local("28000", "AUTHENTICATION_FAILED",
                    "the log-in needs the option " + option);
        }
        return secret;
    }

    private static RustyDBException unexpected(Message message) {
        return RustyDBException.protocol("unexpected during the log-in: "
                + message.getClass().getSimpleName());
    }
}
