// Requests of the protocol's first form.
package io.rustydb;

/** This library never sends them; they are part of the byte vectors. */
sealed interface SimpleRequest extends Message {
    /** SQL without parameters. */
    record Query(String sql) implements SimpleRequest {
        @Override
        public void write(WireWriter out) {
            begin(out, 0);
            out.string(sql);
        }
    }

    /** Opens a transaction. */
    record BeginTransaction() implements SimpleRequest {
        @Override
        public void write(WireWriter out) {
            begin(out, 1);
        }
    }

    /** Commits. */
    record Commit() implements SimpleRequest {
        @Override
        public void write(WireWriter out) {
            begin(out, 2);
        }
    }

    /** Rolls back. */
    record Rollback() implements SimpleRequest {
        @Override
        public void write(WireWriter out) {
            begin(out, 3);
        }
    }

    /** Asks whether the server is there. */
    record Ping() implements SimpleRequest {
        @Override
        public void write(WireWriter out) {
            begin(out, 4);
        }
    }

    private static void begin(WireWriter out, int variant) {
        out.variant(27);
        out.variant(variant);
    }

    static SimpleRequest read(WireReader in) {
        return switch (in.variant(5, "SimpleRequest")) {
            case 0 -> new Query(in.string());
            case 1 -> new BeginTransaction();
            case 2 -> new Commit();
            case 3 -> new Rollback();
            default -> new Ping();
        };
    }
}
