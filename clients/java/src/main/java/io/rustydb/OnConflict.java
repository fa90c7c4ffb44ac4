// What a bulk insert does with rows that exist; the order is that of the wire.
package io.rustydb;

/** What happens to a row that breaks a unique constraint. */
public enum OnConflict {
    /** The whole bulk insert fails. */
    FAIL,
    /** The row is left out. */
    SKIP
}
