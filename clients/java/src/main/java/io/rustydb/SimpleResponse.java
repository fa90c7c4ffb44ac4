// Responses of the protocol's first form.
package io.rustydb;

import java.util.List;

/** This library never gets them; they are part of the byte vectors. */
sealed interface SimpleResponse extends Message {
    /** Rows. */
    record QueryResult(List<String> columns, List<List<Value>> rows, long affectedRows)
            implements SimpleResponse {
        @Override
        public void write(WireWriter out) {
            begin(out, 0);
            out.list(columns, WireWriter::string);
            out.list(rows, ValueWire::writeRow);
            out.u64(affectedRows);
        }
    }

    /** The transaction is open. */
    record TransactionId(long value) implements SimpleResponse {
        @Override
        public void write(WireWriter out) {
            begin(out, 1);
            out.u64(value);
        }
    }

    /** Done. */
    record Ok() implements SimpleResponse {
        @Override
        public void write(WireWriter out) {
            begin(out, 2);
        }
    }

    /** Failed: SQLSTATE and message. */
    record Error(String value) implements SimpleResponse {
        @Override
        public void write(WireWriter out) {
            begin(out, 3);
            out.string(value);
        }
    }

    /** The server is there. */
    record Pong() implements SimpleResponse {
        @Override
        public void write(WireWriter out) {
            begin(out, 4);
        }
    }

    private static void begin(WireWriter out, int variant) {
        out.variant(28);
        out.variant(variant);
    }

    static SimpleResponse read(WireReader in) {
        return switch (in.variant(5, "SimpleResponse")) {
            case 0 -> new QueryResult(
                    in.list(WireReader::string), in.list(ValueWire::readRow), in.u64());
            case 1 -> new TransactionId(in.u64());
            case 2 -> new Ok();
            case 3 -> new Error(in.string());
            default -> new Pong();
        };
    }
}
