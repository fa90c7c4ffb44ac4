// The server's part of a log-in.
package io.rustydb;

import java.util.List;

/** All but {@link Success} ask for another message of the client. */
sealed interface AuthReply extends Message {
    /** The server's message of SASL. */
    record SaslContinue(byte[] data) implements AuthReply {
        @Override
        public void write(WireWriter out) {
            begin(out, 0);
            out.bytes(data);
        }
    }

    /** The server's proof. */
    record SaslFinal(byte[] data) implements AuthReply {
        @Override
        public void write(WireWriter out) {
            begin(out, 1);
            out.bytes(data);
        }
    }

    /** A message of GSSAPI. */
    record GssContinue(byte[] data) implements AuthReply {
        @Override
        public void write(WireWriter out) {
            begin(out, 2);
            out.bytes(data);
        }
    }

    /** A second factor is needed. */
    record MfaRequired(String challengeId, List<String> methods, long expiresInSecs)
            implements AuthReply {
        @Override
        public void write(WireWriter out) {
            begin(out, 3);
            out.string(challengeId);
            out.list(methods, WireWriter::string);
            out.u32(expiresInSecs);
        }
    }

    /** The client is in. */
    record Success(long sessionId, String user, List<String> roles, List<Setting> parameters)
            implements AuthReply {
        @Override
        public void write(WireWriter out) {
            begin(out, 4);
            out.u64(sessionId);
            out.string(user);
            out.list(roles, WireWriter::string);
            out.list(parameters, Setting::write);
        }
    }

    private static void begin(WireWriter out, int variant) {
        out.variant(2);
        out.variant(variant);
    }

    static AuthReply read(WireReader in) {
        return switch (in.variant(5, "AuthReply")) {
            case 0 -> new SaslContinue(in.bytes());
            case 1 -> new SaslFinal(in.bytes());
            case 2 -> new GssContinue(in.bytes());
            case 3 -> new MfaRequired(in.string(), in.list(WireReader::string), in.u32());
            default -> new Success(in.u64(), in.string(), in.list(WireReader::string),
                    in.list(Setting::read));
        };
    }
}
