// The first message of either side.
package io.rustydb;

import java.util.List;

/** What the two sides can do, and what they agree on. */
sealed interface HandshakeMessage extends Message {
    int STREAMING = 0x01;
    int PIPELINING = 0x02;
    int CHECKSUM = 0x04;
    int NOTIFICATIONS = 0x08;
    int BULK_INSERT = 0x10;
    int PREPARED = 0x20;
    int SUBSCRIPTIONS = 0x40;

    /** A version of the protocol. */
    record Version(int major, int minor) {
        static Version read(WireReader in) {
            return new Version(in.u16(), in.u16());
        }

        void write(WireWriter out) {
            out.u16(major);
            out.u16(minor);
        }
    }

    /** An extension of the protocol. */
    record ExtensionVersion(String name, int version) {
        static ExtensionVersion read(WireReader in) {
            return new ExtensionVersion(in.string(), in.u16());
        }

        void write(WireWriter out) {
            out.string(name);
            out.u16(version);
        }
    }

    /** What the client offers. */
    record ClientHello(Version version, Version minVersion, String clientName,
            String clientVersion, List<CompressionType> compression, long capabilities,
            List<ExtensionVersion> extensions, long maxMessageSize, long streamWindow,
            long connectionWindow) implements HandshakeMessage {
        @Override
        public void write(WireWriter out) {
            out.variant(0);
            out.variant(0);
            version.write(out);
            minVersion.write(out);
            out.string(clientName);
            out.string(clientVersion);
            out.list(compression, WireWriter::variant);
            out.u32(capabilities);
            out.list(extensions, (to, it) -> it.write(to));
            out.u32(maxMessageSize);
            out.u32(streamWindow);
            out.u32(connectionWindow);
        }
    }

    /** What the server chose. */
    record ServerHello(Version version, String serverName, String serverVersion, long connectionId,
            CompressionType compression, long capabilities, List<ExtensionVersion> extensions,
            long maxMessageSize, long maxSqlLength, long maxPendingRequests,
            long maxQueuedRequests, long maxBatchStatements, long streamWindow,
            long connectionWindow, long heartbeatIntervalMs, List<AuthMethod> authMethods)
            implements HandshakeMessage {
        @Override
        public void write(WireWriter out) {
            out.variant(0);
            out.variant(1);
            version.write(out);
            out.string(serverName);
            out.string(serverVersion);
            out.u64(connectionId);
            out.variant(compression);
            out.u32(capabilities);
            out.list(extensions, (to, it) -> it.write(to));
            out.u32(maxMessageSize);
            out.u32(maxSqlLength);
            out.u32(maxPendingRequests);
            out.u32(maxQueuedRequests);
            out.u32(maxBatchStatements);
            out.u32(streamWindow);
            out.u32(connectionWindow);
            out.u32(heartbeatIntervalMs);
            out.list(authMethods, WireWriter::variant);
        }
    }

    static HandshakeMessage read(WireReader in) {
        if (in.variant(2, "Handshake") == 0) {
            return new ClientHello(Version.read(in), Version.read(in), in.string(), in.string(),
                    in.list(HandshakeMessage::compression), in.u32(),
                    in.list(ExtensionVersion::read), in.u32(), in.u32(), in.u32());
        }
        return new ServerHello(Version.read(in), in.string(), in.string(), in.u64(),
                compression(in), in.u32(), in.list(ExtensionVersion::read), in.u32(), in.u32(),
                in.u32(), in.u32(), in.u32(), in.u32(), in.u32(), in.u32(),
                in.list(it -> it.variant(AuthMethod.values())));
    }

    private static CompressionType compression(WireReader in) {
        return in.variant(CompressionType.values());
    }
}
