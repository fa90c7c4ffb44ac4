// How a transaction is to be.
package io.rustydb;

/**
 * Characteristics of a transaction; what is null is the session's default.
 *
 * @param isolation how much it sees of others
 * @param readOnly whether it may not write
 * @param deferrable whether a serializable read-only one may wait for a safe snapshot
 */
public record TransactionOptions(Isolation isolation, Boolean readOnly, Boolean deferrable) {
    /** The session's defaults. */
    public static final TransactionOptions DEFAULT = new TransactionOptions(null, null, null);
}
