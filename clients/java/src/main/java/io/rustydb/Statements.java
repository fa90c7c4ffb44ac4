// The requests that need nothing but a connection, wherever it comes from.
package io.rustydb;

import java.time.Duration;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import java.util.function.Supplier;

/** Subclasses say which connection, for how long, and whether a lost request is repeated. */
abstract sealed class Statements implements Queryable permits Client, Pinned {
    /**
     * Runs the work on a connection that nobody else uses meanwhile.
     *
     * @param mayRepeat asked before the work is run a second time
     */
    abstract <T> T on(
            QueryOptions options, BooleanSupplier mayRepeat, Function<Connection, T> work);

    /** Runs work that can be repeated. */
    <T> T on(QueryOptions options, Function<Connection, T> work) {
        return on(options, () -> true, work);
    }

    /** As {@link #on}, but the connection stays taken until {@link #endUse}. */
    abstract <T> T keepOn(QueryOptions options, Function<Connection, T> work);

    /** A stream of this connection has ended. */
    abstract void endUse(Connection connection);

    /** Has a statement forgotten. */
    abstract void closeStatement(String name);

    abstract Duration timeout();

    @Override
    public ResultSet query(String sql, Object... params) {
        return query(QueryOptions.DEFAULT, sql, params);
    }

    @Override
    public ResultSet query(QueryOptions options, String sql, Object... params) {
        Message.Query query = Requests.query(options, sql, params);
        return on(options, connection ->
                Requests.last(Requests.results(connection, query, options, timeout())));
    }

    @Override
    public List<ResultSet> queryAll(String sql) {
        Message.Query query = Requests.query(QueryOptions.DEFAULT, sql);
        return on(QueryOptions.DEFAULT, connection ->
                Requests.results(connection, query, QueryOptions.DEFAULT, timeout()));
    }

    @Override
    public long execute(String sql, Object... params) {
        return execute(QueryOptions.DEFAULT, sql, params);
    }

    @Override
    public long execute(QueryOptions options, String sql, Object... params) {
        return query(options, sql, params).affectedRows();
    }

    @Override
    public RowStream stream(String sql, Object... params) {
        return stream(QueryOptions.DEFAULT, sql, params);
    }

    @Override
    public RowStream stream(QueryOptions options, String sql, Object... params) {
        Message.Query query = Requests.query(options, sql, params);
        return keepOn(options, connection ->
                RowStream.open(connection, query, options, timeout(), this::endUse));
    }

    @Override
    public long bulkInsert(
            String table, List<String> columns, Iterable<? extends Object[]> rows) {
        return bulkInsert(BulkTarget.table(table), columns, rows);
    }

    @Override
    public long bulkInsert(
            BulkTarget target, List<String> columns, Iterable<? extends Object[]> rows) {
        AtomicBoolean begun = new AtomicBoolean();
        Supplier<Iterator<? extends Object[]>> watched = () -> {
            begun.set(true);
            return rows.iterator();
        };
        // Rows that were taken may not come a second time.
        return on(QueryOptions.DEFAULT, () -> !begun.get(), connection ->
                Requests.bulkInsert(connection, target, columns, watched, timeout()));
    }

    @Override
    public List<BatchResult> batch(Batch batch) {
        if (batch.size() == 0) {
            return List.of();
        }
        return on(QueryOptions.DEFAULT, connection ->
                Requests.batch(connection, batch, timeout()));
    }

    @Override
    public PreparedStatement prepare(String sql) {
        PreparedMessage.Prepare statement =
                new PreparedMessage.Prepare(Requests.newStatementName(), sql, List.of());
        Message.StatementInfo info = on(QueryOptions.DEFAULT, connection ->
                Requests.prepare(connection, statement, timeout()));
        return new PreparedStatement(this, statement, info);
    }
}
