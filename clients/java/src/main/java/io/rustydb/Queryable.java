// What a client, a transaction and a session can all do.
package io.rustydb;

import java.util.List;

/**
 * Runs statements with parameters {@code $1}, {@code $2}, …, which {@link Value#of} takes.
 *
 * <p>Every method may throw a {@link RustyDBException}: what the server answered, 57014 when the
 * time-out is over or the thread was interrupted, 08006 when the connection was lost, 22023, 22003
 * or 22P02 for a parameter that cannot be sent.
 */
public sealed interface Queryable permits Statements {
    /** Runs a statement and returns its rows; of several, without parameters, those of the last. */
    ResultSet query(String sql, Object... params);

    /** As {@link #query(String, Object...)}, with options. */
    ResultSet query(QueryOptions options, String sql, Object... params);

    /** Runs several statements, separated by semicolons, in one implicit transaction. */
    List<ResultSet> queryAll(String sql);

    /** Runs a statement and returns how many rows it touched. */
    long execute(String sql, Object... params);

    /** As {@link #execute(String, Object...)}, with options. */
    long execute(QueryOptions options, String sql, Object... params);

    /** Runs a query and returns its rows one by one; the stream has to be closed. */
    RowStream stream(String sql, Object... params);

    /** As {@link #stream(String, Object...)}, with options. */
    RowStream stream(QueryOptions options, String sql, Object... params);

    /**
     * Inserts many rows at once, all or none, and returns how many.
     *
     * @param columns the columns that the rows have values for; none for all of the table's
     * @param rows taken one after the other, so they need not fit into memory
     */
    long bulkInsert(String table, List<String> columns, Iterable<? extends Object[]> rows);

    /** As {@link #bulkInsert(String, List, Iterable)}, into a schema or around existing rows. */
    long bulkInsert(BulkTarget target, List<String> columns, Iterable<? extends Object[]> rows);

    /**
     * Runs several statements in one round trip.
     *
     * @return what became of each statement that ran, in order
     * @throws RustyDBException the first error of an atomic batch
     */
    List<BatchResult> batch(Batch batch);

    /** Prepares a statement that is to run often. */
    PreparedStatement prepare(String sql);
}
