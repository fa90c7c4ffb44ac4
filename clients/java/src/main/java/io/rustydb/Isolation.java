// PostgreSQL's isolation levels; the order is that of the wire.
package io.rustydb;

/** How much a transaction sees of others. */
public enum Isolation {
    /** In PostgreSQL the same as {@link #READ_COMMITTED}. */
    READ_UNCOMMITTED,
    /** Every statement sees what was committed before it began. */
    READ_COMMITTED,
    /** The whole transaction sees what was committed before its first statement. */
    REPEATABLE_READ,
    /** As if transactions ran one after the other; fails with 40001 where they cannot. */
    SERIALIZABLE
}
