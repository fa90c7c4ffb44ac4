// One row of a result.
package io.rustydb;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A row; its columns are found by number from 1, as in JDBC, or by name.
 *
 * <p>Getters of primitive types return 0 or false for null; {@link #isNull} tells. Every getter may
 * throw a {@link RustyDBException}: 42703 for a column that is not there, 42804 for a type that
 * does not convert, 22003 for a number that does not fit.
 */
public final class Row implements ColumnValues {
    private final Header header;
    private final List<Value> values;

    Row(Header header, List<Value> values) {
        if (values.size() != header.columns().size()) {
            throw RustyDBException.protocol("a row has " + values.size() + " values for "
                    + header.columns().size() + " columns");
        }
        this.header = header;
        this.values = values;
    }

    int find(String column) {
        return header.find(column) + 1;
    }

    /** The columns of the row. */
    public List<Column> columns() {
        return header.columns();
    }

    /** The exact value. */
    @Override
    public Value getValue(int column) {
        if (column < 1 || column > values.size()) {
            throw RustyDBException.local("42703", "NOT_FOUND",
                    "the result has no column " + column + ", but 1 to " + values.size());
        }
        return values.get(column - 1);
    }

    /** The exact value. */
    @Override
    public Value getValue(String column) {
        return values.get(header.find(column));
    }

    /** Whether the value is null. */
    public boolean isNull(int column) {
        return getValue(column) instanceof Value.Null;
    }

    /** Whether the value is null. */
    public boolean isNull(String column) {
        return getValue(column) instanceof Value.Null;
    }

    /** The natural Java objects by the columns' names, in their order. */
    public Map<String, Object> toMap() {
        Map<String, Object> map = new LinkedHashMap<>();
        for (int i = 0; i < values.size(); i++) {
            map.putIfAbsent(header.columns().get(i).name(),
                    Convert.to(values.get(i), Object.class));
        }
        return map;
    }

    @Override
    public String toString() {
        StringBuilder text = new StringBuilder("{");
        for (int i = 0; i < values.size(); i++) {
            text.append(i == 0 ? "" : ", ").append(header.columns().get(i).name()).append('=')
                    .append(values.get(i).asText());
        }
        return text.append('}').toString();
    }
}
