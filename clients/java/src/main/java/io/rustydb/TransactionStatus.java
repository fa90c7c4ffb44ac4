// How a session stands to transactions; the order is that of the wire.
package io.rustydb;

/** Whether a session is inside a transaction. */
public enum TransactionStatus {
    /** Outside. */
    IDLE,
    /** Inside. */
    IN_TRANSACTION,
    /** Inside one that failed: only a rollback is accepted. */
    FAILED
}
