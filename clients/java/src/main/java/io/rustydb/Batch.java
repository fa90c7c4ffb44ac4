// Several statements in one round trip.
package io.rustydb;

import java.util.ArrayList;
import java.util.List;

/** Collects statements for {@link Queryable#batch}; the server takes at most 1,000. */
public final class Batch {
    private final List<Message.Query> statements = new ArrayList<>();
    private boolean atomic;
    private boolean stopOnError;

    /** Adds a statement. */
    public Batch add(String sql, Object... params) {
        statements.add(Requests.query(QueryOptions.DEFAULT, sql, params));
        return this;
    }

    /** All statements are one transaction: the first error undoes everything. */
    public Batch atomic() {
        atomic = true;
        return this;
    }

    /** The first error ends the batch; what ran before stays. */
    public Batch stopOnError() {
        stopOnError = true;
        return this;
    }

    /** How many statements there are. */
    public int size() {
        return statements.size();
    }

    boolean isAtomic() {
        return atomic;
    }

    Message.Batch onWire() {
        return new Message.Batch(List.copyOf(statements), atomic, stopOnError);
    }
}
