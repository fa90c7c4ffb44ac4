// Notifications on the wire.
package io.rustydb;

/** What the server says unasked, and how a client asks for some of it. */
sealed interface NotificationMessage extends Message {
    /** Listens on a channel. */
    record Listen(String channel) implements NotificationMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 0);
            out.string(channel);
        }
    }

    /** Listens no more, on no channel if none is named. */
    record Unlisten(String channel) implements NotificationMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 1);
            out.option(channel, WireWriter::string);
        }
    }

    /** Somebody sent a NOTIFY. */
    record Event(String channel, String payload, int processId) implements NotificationMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 2);
            out.string(channel);
            out.string(payload);
            out.i32(processId);
        }
    }

    /** A notice of PostgreSQL. */
    record NoticeEvent(NoticeSeverity severity, String sqlstate, String message)
            implements NotificationMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 3);
            out.variant(severity);
            out.string(sqlstate);
            out.string(message);
        }
    }

    /** A reported parameter changed. */
    record ParameterStatus(String name, String value) implements NotificationMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 4);
            out.string(name);
            out.string(value);
        }
    }

    /** Something happened to the session. */
    record SessionEvent(String event, String detail) implements NotificationMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 5);
            out.string(event);
            out.string(detail);
        }
    }

    /** The server is about to stop. */
    record Shutdown(long graceMs, String reason) implements NotificationMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 6);
            out.u32(graceMs);
            out.string(reason);
        }
    }

    private static void begin(WireWriter out, int variant) {
        out.variant(10);
        out.variant(variant);
    }

    static NotificationMessage read(WireReader in) {
        return switch (in.variant(7, "Notification")) {
            case 0 -> new Listen(in.string());
            case 1 -> new Unlisten(in.option(WireReader::string));
            case 2 -> new Event(in.string(), in.string(), in.i32());
            case 3 -> new NoticeEvent(
                    in.variant(NoticeSeverity.values()), in.string(), in.string());
            case 4 -> new ParameterStatus(in.string(), in.string());
            case 5 -> new SessionEvent(in.string(), in.string());
            default -> new Shutdown(in.u32(), in.string());
        };
    }
}
