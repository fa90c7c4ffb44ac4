// Prepared statements on the wire.
package io.rustydb;

import java.util.List;

/** Names belong to the session and are at most 63 bytes long. */
sealed interface PreparedMessage extends Message {
    /** Prepares. */
    record Prepare(String name, String sql, List<Long> paramTypes) implements PreparedMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 0);
            out.string(name);
            out.string(sql);
            out.list(paramTypes, WireWriter::u32);
        }
    }

    /** Runs. */
    record Execute(String name, List<Value> params, Message.Options options)
            implements PreparedMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 1);
            out.string(name);
            out.list(params, ValueWire::write);
            out.option(options, (to, it) -> it.write(to));
        }
    }

    /** Asks for parameters and columns. */
    record Describe(String name) implements PreparedMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 2);
            out.string(name);
        }
    }

    /** Forgets. */
    record Deallocate(String name) implements PreparedMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 3);
            out.string(name);
        }
    }

    private static void begin(WireWriter out, int variant) {
        out.variant(5);
        out.variant(variant);
    }

    static PreparedMessage read(WireReader in) {
        return switch (in.variant(4, "Prepared")) {
            case 0 -> new Prepare(in.string(), in.string(), in.list(WireReader::u32));
            case 1 -> new Execute(in.string(), in.list(ValueWire::read),
                    in.option(Message.Options::read));
            case 2 -> new Describe(in.string());
            default -> new Deallocate(in.string());
        };
    }
}
