// A statement that is prepared once and run often.
package io.rustydb;

import java.util.List;

/**
 * A prepared statement. One of a client is prepared on each connection that comes to run it, and
 * serves several threads; one of a transaction or session lives as long as that.
 */
public final class PreparedStatement implements AutoCloseable {
    private final Statements owner;
    private final PreparedMessage.Prepare statement;
    private final Message.StatementInfo info;
    private volatile boolean isClosed;

    PreparedStatement(
            Statements owner, PreparedMessage.Prepare statement, Message.StatementInfo info) {
        this.owner = owner;
        this.statement = statement;
        this.info = info;
    }

    /** The OIDs of the parameters' types. */
    public List<Long> parameterTypes() {
        return info.paramTypes();
    }

    /** The columns of the result; none for a statement without one. */
    public List<Column> columns() {
        return info.columns();
    }

    /**
     * The same statement, run inside a transaction or session. It need not be closed: that is done
     * with the original.
     */
    public PreparedStatement in(Queryable place) {
        return new PreparedStatement((Statements) place, statement, info);
    }

    /** Runs the statement and returns its rows. */
    public ResultSet query(Object... params) {
        return query(QueryOptions.DEFAULT, params);
    }

    /** As {@link #query(Object...)}, with options. */
    public ResultSet query(QueryOptions options, Object... params) {
        if (isClosed) {
            throw RustyDBException.invalidUse("the prepared statement is closed");
        }
        List<Value> values = Requests.query(options, "", params).params();
        PreparedMessage.Execute execute =
                new PreparedMessage.Execute(statement.name(), values, options.onWire());
        return owner.on(options, connection -> Requests.execute(
                connection, statement, execute, options, owner.timeout()));
    }

    /** Runs the statement and returns how many rows it touched. */
    public long execute(Object... params) {
        return query(params).affectedRows();
    }

    /** Deallocates the statement. */
    @Override
    public void close() {
        if (!isClosed) {
            isClosed = true;
            owner.closeStatement(statement.name());
        }
    }
}
