// The rows of one statement.
package io.rustydb;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;

/**
 * A complete result, in memory; {@link Queryable#stream} is for the ones that do not fit.
 *
 * <p>Read it with {@link #next} and getters, as in JDBC, or row by row with a for loop. The getters
 * and their errors are those of {@link Row}. Not for several threads at once.
 */
public final class ResultSet implements ColumnValues, Iterable<Row>, AutoCloseable {
    private final Header header;
    private final long affectedRows;
    private final String commandTag;
    private final Duration executionTime;
    private List<Row> rows;
    private int position = -1;
    private boolean wasNull;

    private ResultSet(Header header, List<Row> rows, Message.QueryResponse last) {
        this.header = header;
        this.rows = rows;
        this.affectedRows = last.affectedRows();
        this.commandTag = last.commandTag();
        this.executionTime = Duration.ofNanos(last.executionTimeUs() * 1000);
    }

    /** Puts a result together that came in parts. */
    static final class Builder {
        private final long statement;
        private final Header header;
        private final List<Row> rows = new ArrayList<>();
        private Message.QueryResponse last;

        Builder(Message.QueryResponse first) {
            statement = first.statementIndex();
            header = new Header(first.columns());
            add(first);
        }

        boolean isOf(Message.QueryResponse part) {
            return part.statementIndex() == statement;
        }

        void add(Message.QueryResponse part) {
            for (List<Value> values : part.rows()) {
                rows.add(new Row(header, values));
            }
            last = part;
        }

        /** Whether the last part is there, which alone says what the command was. */
        boolean isWhole() {
            return header.columns().isEmpty() || !last.commandTag().isEmpty();
        }

        ResultSet build() {
            return new ResultSet(header, rows, last);
        }
    }

    private List<Row> rows() {
        if (rows == null) {
            throw RustyDBException.invalidUse("the result is closed");
        }
        return rows;
    }

    /** The columns; none for a statement without a result. */
    public List<Column> columns() {
        return header.columns();
    }

    /** How many rows the result has. */
    public int size() {
        return rows().size();
    }

    /** How many rows the statement inserted, changed, deleted or returned. */
    public long affectedRows() {
        return affectedRows;
    }

    /** PostgreSQL's command tag, for example {@code INSERT 0 1}. */
    public String commandTag() {
        return commandTag;
    }

    /** How long the server worked on the statement. */
    public Duration executionTime() {
        return executionTime;
    }

    @Override
    public Iterator<Row> iterator() {
        return java.util.Collections.unmodifiableList(rows()).iterator();
    }

    /** Goes to the next row; false after the last one. */
    public boolean next() {
        if (position < rows().size()) {
            position++;
        }
        return position < rows().size();
    }

    /** The row that {@link #next} went to. */
    public Row row() {
        if (position < 0 || position >= rows().size()) {
            throw RustyDBException.invalidUse("there is no row here: call next() first");
        }
        return rows.get(position);
    }

    /** Whether the value of the last getter was null. */
    public boolean wasNull() {
        return wasNull;
    }

    /** Frees the rows. */
    @Override
    public void close() {
        rows = null;
    }

    /** The exact value. */
    @Override
    public Value getValue(int column) {
        Value value = row().getValue(column);
        wasNull = value instanceof Value.Null;
        return value;
    }

    /** The exact value. */
    @Override
    public Value getValue(String column) {
        return getValue(row().find(column));
    }}
