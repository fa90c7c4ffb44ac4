// Where a bulk insert goes.
package io.rustydb;

/** A table, and what happens to rows that exist. */
public final class BulkTarget {
    private final String schema;
    private final String table;
    private final OnConflict onConflict;

    private BulkTarget(String schema, String table, OnConflict onConflict) {
        this.schema = schema;
        this.table = table;
        this.onConflict = onConflict;
    }

    /** The table as the session's search path finds it; the name needs no quotes. */
    public static BulkTarget table(String table) {
        return new BulkTarget(null, table, OnConflict.FAIL);
    }

    /** The table of a schema. */
    public static BulkTarget table(String schema, String table) {
        return new BulkTarget(schema, table, OnConflict.FAIL);
    }

    /** What happens to rows that break a unique constraint; at first {@link OnConflict#FAIL}. */
    public BulkTarget onConflict(OnConflict value) {
        return new BulkTarget(schema, table, value);
    }

    BulkMessage.Start onWire(java.util.List<String> columns) {
        return new BulkMessage.Start(schema, table, columns, onConflict);
    }
}
