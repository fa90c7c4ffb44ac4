// A bulk insert on the wire.
package io.rustydb;

import java.util.List;

/** All frames of one insert carry the same message id, and MORE but for the last. */
sealed interface BulkMessage extends Message {
    /** Where the rows go. */
    record Start(String schema, String table, List<String> columns, OnConflict onConflict)
            implements BulkMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 0);
            out.option(schema, WireWriter::string);
            out.string(table);
            out.list(columns, WireWriter::string);
            out.variant(onConflict);
        }
    }

    /** Some rows; sequences begin at 0 and have no gaps. */
    record Rows(long sequence, List<List<Value>> rows) implements BulkMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 1);
            out.u32(sequence);
            out.list(rows, ValueWire::writeRow);
        }
    }

    /** No more rows. */
    record End() implements BulkMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 2);
        }
    }

    /** Nothing is inserted. */
    record Abort(String reason) implements BulkMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 3);
            out.string(reason);
        }
    }

    private static void begin(WireWriter out, int variant) {
        out.variant(7);
        out.variant(variant);
    }

    static BulkMessage read(WireReader in) {
        return switch (in.variant(4, "Bulk")) {
            case 0 -> new Start(in.option(WireReader::string), in.string(),
                    in.list(WireReader::string), in.variant(OnConflict.values()));
            case 1 -> new Rows(in.u32(), in.list(ValueWire::readRow));
            case 2 -> new End();
            default -> new Abort(in.string());
        };
    }
}
