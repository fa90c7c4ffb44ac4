// A place in a transaction to go back to.
package io.rustydb;

/** A savepoint. */
public final class Savepoint {
    private final Transaction transaction;
    private final String name;

    Savepoint(Transaction transaction, String name) {
        this.transaction = transaction;
        this.name = name;
    }

    /** Its name. */
    public String name() {
        return name;
    }

    /** Undoes everything since the savepoint, which stays; a failed transaction works again. */
    public void rollback() {
        transaction.rollbackTo(name);
    }

    /** Forgets the savepoint, and keeps what was done since. */
    public void release() {
        transaction.release(name);
    }
}
