// Notifications of a channel.
package io.rustydb;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.function.Consumer;

/**
 * Collects the notifications of one channel, at most {@value #CAPACITY} that nobody has taken: the
 * oldest gives way to the newest. When the connection is lost, it is made again and the channel
 * listened to again; what was sent meanwhile is lost, and {@link #reconnects} tells.
 */
public final class Listener implements AutoCloseable {
    private static final int CAPACITY = 10_000;

    private final Events events;
    private final String channel;
    private final Deque<Notification> queue = new ArrayDeque<>();
    private long dropped;
    private long reconnects;
    private boolean isClosed;
    private RustyDBException failure;

    Listener(Events events, String channel) {
        this.events = events;
        this.channel = channel;
    }

    /** The channel. */
    public String channel() {
        return channel;
    }

    /**
     * The next notification, or null when the time is over or the listener was closed.
     *
     * @throws RustyDBException why the channel cannot be listened to any more
     */
    public synchronized Notification poll(Duration timeout) throws InterruptedException {
        Deadline deadline = Deadline.in(timeout);
        while (queue.isEmpty() && !isClosed) {
            if (failure != null) {
                throw failure.again();
            }
            if (deadline.isOver()) {
                return null;
            }
            wait(deadline.remainingMillis());
        }
        return queue.poll();
    }

    /** How many notifications were lost because nobody took them in time. */
    public synchronized long dropped() {
        return dropped;
    }

    /** How often the connection was lost, with what was sent meanwhile. */
    public synchronized long reconnects() {
        return reconnects;
    }

    synchronized void offer(Notification notification) {
        if (queue.size() == CAPACITY) {
            queue.remove();
            dropped++;
        }
        queue.add(notification);
        notifyAll();
    }

    synchronized void countDropped(long number) {
        dropped += number;
    }

    synchronized void countReconnect() {
        reconnects++;
    }

    synchronized void fail(RustyDBException error) {
        failure = error;
        notifyAll();
    }

    /** Hands every notification to the handler, on a thread for this listener. */
    void handTo(Consumer<Notification> handler) {
        Thread thread = new Thread(() -> {
            try {
                while (!isOver()) {
                    Notification notification = poll(Duration.ofDays(1));
                    if (notification != null) {
                        hand(notification, handler);
                    }
                }
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            } catch (RustyDBException e) {
                // Disconnecting the client is the normal end.
                if (!e.getSqlState().equals("08003")) {
                    throw e;
                }
            }
        }, "rustydb-listen-" + channel);
        thread.setDaemon(true);
        thread.start();
    }

    private static void hand(Notification notification, Consumer<Notification> handler) {
        try {
            handler.accept(notification);
        } catch (RuntimeException e) {
            // The next notification is not to be lost for this one.
            Thread thread = Thread.currentThread();
            thread.getUncaughtExceptionHandler().uncaughtException(thread, e);
        }
    }

    private synchronized boolean isOver() {
        return isClosed;
    }

    /** Listens no more. */
    @Override
    public void close() {
        synchronized (this) {
            if (isClosed) {
                return;
            }
            isClosed = true;
            notifyAll();
        }
        events.unlisten(this);
    }
}
