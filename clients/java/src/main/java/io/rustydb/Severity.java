// How bad an error is; the order is that of the wire.
package io.rustydb;

/** What an error means for its connection. */
public enum Severity {
    /** The request failed, the connection stays. */
    ERROR,
    /** The connection closes. */
    FATAL,
    /** As fatal; PostgreSQL said so. */
    PANIC
}
