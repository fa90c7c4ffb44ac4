// The client's part of a log-in.
package io.rustydb;

import java.util.List;

/** All frames of one attempt carry the same message id. */
sealed interface AuthMessage extends Message {
    /** Who logs in, where to, and how. */
    record Start(String user, String database, AuthMethod method, String applicationName,
            String connectionClass, Purity purity, String tag, List<Setting> parameters)
            implements AuthMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 0);
            out.string(user);
            out.string(database);
            out.variant(method);
            out.string(applicationName);
            out.option(connectionClass, WireWriter::string);
            out.option(purity, WireWriter::variant);
            out.option(tag, WireWriter::string);
            out.list(parameters, Setting::write);
        }
    }

    /** The first message of SASL. */
    record SaslInitial(String mechanism, byte[] data) implements AuthMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 1);
            out.string(mechanism);
            out.bytes(data);
        }
    }

    /** A further message of SASL. */
    record SaslResponse(byte[] data) implements AuthMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 2);
            out.bytes(data);
        }
    }

    /** The password itself. */
    record Password(String password) implements AuthMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 3);
            out.string(password);
        }
    }

    /** A token. */
    record Token(String token) implements AuthMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 4);
            out.string(token);
        }
    }

    /** An API key. */
    record ApiKey(String key) implements AuthMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 5);
            out.string(key);
        }
    }

    /** The TLS certificate is the proof. */
    record Certificate() implements AuthMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 6);
        }
    }

    /** A message of GSSAPI. */
    record Gss(byte[] data) implements AuthMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 7);
            out.bytes(data);
        }
    }

    /** A SAML assertion. */
    record Saml(String assertion) implements AuthMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 8);
            out.string(assertion);
        }
    }

    /** A code of a second factor. */
    record MfaCode(String challengeId, String code) implements AuthMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 9);
            out.string(challengeId);
            out.string(code);
        }
    }

    private static void begin(WireWriter out, int variant) {
        out.variant(1);
        out.variant(variant);
    }

    static AuthMessage read(WireReader in) {
        return switch (in.variant(10, "Auth")) {
            case 0 -> new Start(in.string(), in.string(), in.variant(AuthMethod.values()),
                    in.string(), in.option(WireReader::string),
                    in.option(it -> it.variant(Purity.values())), in.option(WireReader::string),
                    in.list(Setting::read));
            case 1 -> new SaslInitial(in.string(), in.bytes());
            case 2 -> new SaslResponse(in.bytes());
            case 3 -> new Password(in.string());
            case 4 -> new Token(in.string());
            case 5 -> new ApiKey(in.string());
            case 6 -> new Certificate();
            case 7 -> new Gss(in.bytes());
            case 8 -> new Saml(in.string());
            default -> new MfaCode(in.string(), in.string());
        };
    }
}
