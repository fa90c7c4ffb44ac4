// A request and its answers.
package io.rustydb;

import java.util.ArrayDeque;
import java.util.Deque;

/**
 * The reading thread offers frames, the requesting thread polls them.
 *
 * <p>The queue is bounded by flow control: by the exchange's own window for a stream, by that of
 * the connection otherwise.
 */
final class Exchange {
    private final long id;
    private final ReceiveWindow window;
    private final Deque<Frame> frames = new ArrayDeque<>();
    private RustyDBException failure;
    private boolean ended;

    /** @param window null for a request that is no stream */
    Exchange(long id, ReceiveWindow window) {
        this.id = id;
        this.window = window;
    }

    long id() {
        return id;
    }

    ReceiveWindow window() {
        return window;
    }

    synchronized void offer(Frame frame) {
        frames.add(frame);
        ended |= frame.isFinal();
        notifyAll();
    }

    synchronized void fail(RustyDBException error) {
        failure = error;
        ended = true;
        notifyAll();
    }

    /** Whether the server has sent its last answer, or the connection is gone. */
    synchronized boolean hasEnded() {
        return ended;
    }

    /**
     * The next frame, or null when the time is over.
     *
     * @throws RustyDBException if the connection was lost
     */
    synchronized Frame poll(Deadline deadline) throws InterruptedException {
        while (frames.isEmpty()) {
            if (failure != null) {
                throw failure.again();
            }
            if (deadline.isOver()) {
                return null;
            }
            wait(deadline.remainingMillis());
        }
        return frames.remove();
    }
}
