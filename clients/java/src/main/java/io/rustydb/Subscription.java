// Events of a stream.
package io.rustydb;

import java.time.Duration;

/**
 * A subscription; the server sends more only as events are taken. It ends with its connection: then
 * {@link #poll} fails, and one has to subscribe again.
 */
public final class Subscription implements AutoCloseable {
    private final Events events;
    private final Connection connection;
    private final Exchange exchange;
    private volatile boolean isClosed;

    Subscription(Events events, Connection connection, Exchange exchange) {
        this.events = events;
        this.connection = connection;
        this.exchange = exchange;
    }

    /**
     * The next event, or null when the time is over; closing wakes who waits here.
     *
     * @throws RustyDBException why the server ended the subscription, or that it is closed
     */
    public StreamEvent poll(Duration timeout) {
        if (isClosed) {
            throw RustyDBException.invalidUse("the subscription is closed");
        }
        Connection.Reply reply = connection.poll(exchange, Deadline.in(timeout));
        if (reply == null) {
            return null;
        }
        if (reply.message() instanceof Message.Error error) {
            throw RustyDBException.fromServer(error.value());
        }
        if (!(reply.message() instanceof Message.Event event)) {
            throw RustyDBException.protocol("unexpected in a subscription: "
                    + reply.message().getClass().getSimpleName());
        }
        return new StreamEvent(event.stream(), event.sequence(),
                Times.timestampTz(event.timeUs()), event.body());
    }

    /** Unsubscribes. */
    @Override
    public void close() {
        if (!isClosed) {
            isClosed = true;
            events.unsubscribe(connection, exchange);
        }
    }
}
