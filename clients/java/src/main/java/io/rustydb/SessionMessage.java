// Commands to the session on the wire.
package io.rustydb;

/** Settings, and borrowing sessions of a connection class. */
sealed interface SessionMessage extends Message {
    /** Sets a setting, for the transaction only if local. */
    record Set(String name, String value, boolean local) implements SessionMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 0);
            out.string(name);
            out.string(value);
            out.bool(local);
        }
    }

    /** Asks for a setting. */
    record Show(String name) implements SessionMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 1);
            out.string(name);
        }
    }

    /** Takes a setting back to its default, or all. */
    record Reset(String name) implements SessionMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 2);
            out.option(name, WireWriter::string);
        }
    }

    /** Forgets everything the session holds. */
    record DiscardAll() implements SessionMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 3);
        }
    }

    /** Borrows a session. */
    record Acquire(String connectionClass, String tag, Purity purity) implements SessionMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 4);
            out.option(connectionClass, WireWriter::string);
            out.option(tag, WireWriter::string);
            out.variant(purity);
        }
    }

    /** Gives it back. */
    record Release(String tag) implements SessionMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 5);
            out.option(tag, WireWriter::string);
        }
    }

    private static void begin(WireWriter out, int variant) {
        out.variant(22);
        out.variant(variant);
    }

    static SessionMessage read(WireReader in) {
        return switch (in.variant(6, "SessionCommand")) {
            case 0 -> new Set(in.string(), in.string(), in.bool());
            case 1 -> new Show(in.string());
            case 2 -> new Reset(in.option(WireReader::string));
            case 3 -> new DiscardAll();
            case 4 -> new Acquire(in.option(WireReader::string), in.option(WireReader::string),
                    in.variant(Purity.values()));
            default -> new Release(in.option(WireReader::string));
        };
    }
}
