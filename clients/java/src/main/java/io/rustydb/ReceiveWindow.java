// What the other side may still send.
package io.rustydb;

/** Credit in payload bytes; given back when half of it is used up. */
final class ReceiveWindow {
    private final long size;
    private long available;
    private long consumed;

    ReceiveWindow(long size) {
        this.size = size;
        this.available = size;
    }

    /** Counts what came in. */
    synchronized void receive(int bytes) {
        if (available <= 0) {
            throw RustyDBException.local("08P01", "FLOW_CONTROL_ERROR",
                    "the server sent more than it was allowed to");
        }
        available -= bytes;
    }

    /**
     * Counts what was taken.
     *
     * @return the credit to give back now, or 0
     */
    synchronized long consume(int bytes) {
        consumed += bytes;
        if (consumed < size / 2) {
            return 0;
        }
        long credit = consumed;
        consumed = 0;
        available += credit;
        return credit;
    }
}
