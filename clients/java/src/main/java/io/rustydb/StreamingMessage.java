// Streams of rows and large objects on the wire.
package io.rustydb;

import java.util.List;

/** The message id of a stream is its number for flow control, too. */
sealed interface StreamingMessage extends Message {
    /** Opens a stream of rows; 0 chunk rows are the server's choice. */
    record Open(Message.Query query, long chunkRows) implements StreamingMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 0);
            query.writeFields(out);
            out.u32(chunkRows);
        }
    }

    /** The columns. */
    record Header(List<Column> columns) implements StreamingMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 1);
            out.list(columns, (to, column) -> column.write(to));
        }
    }

    /** Some rows. */
    record Chunk(long sequence, List<List<Value>> rows) implements StreamingMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 2);
            out.u32(sequence);
            out.list(rows, ValueWire::writeRow);
        }
    }

    /** The client wants no more. */
    record Cancel() implements StreamingMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 3);
        }
    }

    /** All was sent. */
    record End(long rows, String commandTag, TransactionStatus transactionStatus)
            implements StreamingMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 4);
            out.u64(rows);
            out.string(commandTag);
            out.variant(transactionStatus);
        }
    }

    /** Opens a large object; no length means to its end. */
    record OpenObject(long oid, long offset, Long length) implements StreamingMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 5);
            out.u32(oid);
            out.u64(offset);
            out.option(length, WireWriter::u64);
        }
    }

    /** Some bytes of a large object. */
    record Data(long sequence, byte[] bytes) implements StreamingMessage {
        @Override
        public void write(WireWriter out) {
            begin(out, 6);
            out.u32(sequence);
            out.bytes(bytes);
        }
    }

    private static void begin(WireWriter out, int variant) {
        out.variant(8);
        out.variant(variant);
    }

    static StreamingMessage read(WireReader in) {
        return switch (in.variant(7, "Streaming")) {
            case 0 -> new Open(Message.Query.read(in), in.u32());
            case 1 -> new Header(in.list(Column::read));
            case 2 -> new Chunk(in.u32(), in.list(ValueWire::readRow));
            case 3 -> new Cancel();
            case 4 -> new End(in.u64(), in.string(), in.variant(TransactionStatus.values()));
            case 5 -> new OpenObject(in.u32(), in.u64(), in.option(WireReader::u64));
            default -> new Data(in.u32(), in.bytes());
        };
    }
}
