// Keeps urgent frames below the protocol's limit.
package io.rustydb;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;

/**
 * The server closes a connection that sends more than 100 urgent frames in a second; this lets 90
 * pass in any second, 10 of them at once. Waiting is what a receiver may do anyway: it only delays
 * new credit.
 */
final class UrgentPacer {
    private static final long NANOS_EACH = TimeUnit.SECONDS.toNanos(1) / 80;
    private static final long BURST = 10;

    private long nextFree = System.nanoTime() - BURST * NANOS_EACH;

    /** Waits until one more frame may be sent. */
    void await() {
        long wait = reserve(System.nanoTime());
        long end = System.nanoTime() + wait;
        while (wait > 0) {
            LockSupport.parkNanos(wait);
            if (Thread.currentThread().isInterrupted()) {
                return;
            }
            wait = end - System.nanoTime();
        }
    }

    /** Takes a place, and returns the nanoseconds until it is there. */
    synchronized long reserve(long now) {
        nextFree = Math.max(nextFree, now - BURST * NANOS_EACH) + NANOS_EACH;
        return Math.max(0, nextFree - now);
    }
}
