// A point in time by which something must have happened.
package io.rustydb;

import java.time.Duration;

/** Measured with the clock that nobody sets. */
final class Deadline {
    private final long end;

    private Deadline(long end) {
        this.end = end;
    }

    static Deadline in(Duration duration) {
        // A century is as good as never, and cannot overflow.
        long nanos = Math.min(duration.toSeconds(), 3_000_000_000L) * 1_000_000_000L
                + duration.getNano();
        return new Deadline(System.nanoTime() + nanos);
    }

    long remainingNanos() {
        return Math.max(0, end - System.nanoTime());
    }

    /** At least 1, because 0 means "for ever" to sockets and monitors. */
    int remainingMillis() {
        return (int) Math.max(1, Math.min(Integer.MAX_VALUE, remainingNanos() / 1_000_000));
    }

    boolean isOver() {
        return remainingNanos() == 0;
    }
}
