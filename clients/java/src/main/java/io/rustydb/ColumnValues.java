// The getters of a row, for both ways to read one.
package io.rustydb;

import java.math.BigDecimal;

/**
 * The values of a row, by the number of the column, from 1, or by its name: as Java's own types.
 *
 * <p>Whoever asks for a type that the value cannot be is told so by a {@link RustyDBException}, as {@link Row} says.
 */
public sealed interface ColumnValues permits Row, ResultSet {
    /** The exact value. */
    Value getValue(int column);

    /** The exact value. */
    Value getValue(String column);

    /** PostgreSQL's text form of a value of any type, or null. */
    default String getString(int column) {
        return getValue(column).asText();
    }

    /** PostgreSQL's text form of a value of any type, or null. */
    default String getString(String column) {
        return getValue(column).asText();
    }

    /** A bool. */
    default boolean getBoolean(int column) {
        return Convert.toBoolean(getValue(column));
    }

    /** A bool. */
    default boolean getBoolean(String column) {
        return Convert.toBoolean(getValue(column));
    }

    /** A whole number of 32 bits. */
    default int getInt(int column) {
        return Convert.toInt(getValue(column));
    }

    /** A whole number of 32 bits. */
    default int getInt(String column) {
        return Convert.toInt(getValue(column));
    }

    /** A whole number of 64 bits. */
    default long getLong(int column) {
        return Convert.toLong(getValue(column));
    }

    /** A whole number of 64 bits. */
    default long getLong(String column) {
        return Convert.toLong(getValue(column));
    }

    /** The nearest floating-point number. */
    default double getDouble(int column) {
        return Convert.toDouble(getValue(column));
    }

    /** The nearest floating-point number. */
    default double getDouble(String column) {
        return Convert.toDouble(getValue(column));
    }

    /** A number with its scale, or null. */
    default BigDecimal getBigDecimal(int column) {
        return Convert.toBigDecimal(getValue(column));
    }

    /** A number with its scale, or null. */
    default BigDecimal getBigDecimal(String column) {
        return Convert.toBigDecimal(getValue(column));
    }

    /** A bytea, or null. */
    default byte[] getBytes(int column) {
        return Convert.toBytes(getValue(column));
    }

    /** A bytea, or null. */
    default byte[] getBytes(String column) {
        return Convert.toBytes(getValue(column));
    }

    /** The natural Java object of the value, or null. */
    default Object getObject(int column) {
        return Convert.to(getValue(column), Object.class);
    }

    /** The natural Java object of the value, or null. */
    default Object getObject(String column) {
        return Convert.to(getValue(column), Object.class);
    }

    /** The value as an object of the class, or null. */
    default <T> T getObject(int column, Class<T> type) {
        return Convert.to(getValue(column), type);
    }

    /** The value as an object of the class, or null. */
    default <T> T getObject(String column, Class<T> type) {
        return Convert.to(getValue(column), type);
    }
}
