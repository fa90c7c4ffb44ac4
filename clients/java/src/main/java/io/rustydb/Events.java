// The connection for notifications and subscriptions, beside the pool.
package io.rustydb;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArraySet;
import java.util.concurrent.locks.ReentrantLock;

/** Made when it is first needed, and made again when it is lost while somebody listens. */
final class Events implements Connection.Observer {
    private static final long FIRST_PAUSE_MILLIS = 100;
    private static final long LONGEST_PAUSE_MILLIS = 5000;

    private final Config config;
    private final Connector connector;
    private final Pool notices;
    private final ReentrantLock lock = new ReentrantLock();
    private final Map<String, Set<Listener>> listeners = new ConcurrentHashMap<>();
    private Connection connection;
    private boolean isReconnecting;
    private volatile boolean isClosed;

    Events(Config config, Connector connector, Pool notices) {
        this.config = config;
        this.connector = connector;
        this.notices = notices;
    }

    Listener listen(String channel) {
        lock.lock();
        try {
            Connection current = connected();
            Listener listener = new Listener(this, channel);
            Set<Listener> others =
                    listeners.computeIfAbsent(channel, key -> new CopyOnWriteArraySet<>());
            boolean isFirst = others.isEmpty();
            others.add(listener);
            if (isFirst) {
                try {
                    send(current, new NotificationMessage.Listen(channel));
                } catch (RustyDBException e) {
                    listeners.remove(channel);
                    throw e;
                }
            }
            return listener;
        } finally {
            lock.unlock();
        }
    }

    private void send(Connection to, Message message) {
        Requests.command(to, message, config.timeout);
    }

    void unlisten(Listener listener) {
        lock.lock();
        try {
            Set<Listener> others = listeners.get(listener.channel());
            if (others == null || !others.remove(listener) || !others.isEmpty()) {
                return;
            }
            listeners.remove(listener.channel());
            if (connection != null && connection.isUsable()) {
                send(connection, new NotificationMessage.Unlisten(listener.channel()));
            }
        } finally {
            lock.unlock();
        }
    }

    Subscription subscribe(String stream, Map<String, String> params) {
        List<Setting> settings = new ArrayList<>();
        params.forEach((name, value) -> settings.add(new Setting(name, value)));
        lock.lock();
        try {
            Connection current = connected();
            Exchange exchange = current.requestStream(new Message.Subscribe(stream, settings));
            Requests.answer(current, exchange, Message.Ok.class, config.timeout);
            return new Subscription(this, current, exchange);
        } finally {
            lock.unlock();
        }
    }

    void unsubscribe(Connection from, Exchange exchange) {
        try {
            if (from.isUsable() && !exchange.hasEnded()) {
                send(from, new Message.Unsubscribe(exchange.id()));
            }
        } finally {
            from.forget(exchange, RustyDBException.invalidUse("the subscription is closed"));
        }
    }

    private Connection connected() {
        if (isClosed) {
            throw RustyDBException.local("08003", "CONNECTION_FAILURE",
                    "the client is not connected: call connect() first");
        }
        if (connection == null || !connection.isUsable()) {
            Connection fresh = connector.connect(Deadline.in(config.timeout), this);
            for (String channel : listeners.keySet()) {
                send(fresh, new NotificationMessage.Listen(channel));
            }
            connection = fresh;
        }
        return connection;
    }

    @Override
    public void onNotification(Connection from, NotificationMessage message) {
        if (message instanceof NotificationMessage.Event event) {
            Notification notification =
                    new Notification(event.channel(), event.payload(), event.processId());
            listeners.getOrDefault(event.channel(), Set.of())
                    .forEach(listener -> listener.offer(notification));
        } else if (message instanceof NotificationMessage.SessionEvent event
                && event.event().equals("events_dropped")) {
            countDropped(event.detail());
        } else {
            notices.onNotification(from, message);
        }
    }

    private void countDropped(String detail) {
        long number = detail.matches("\\d{1,18}") ? Long.parseLong(detail) : 1;
        listeners.values().forEach(
                each -> each.forEach(listener -> listener.countDropped(number)));
    }

    @Override
    public void onClosed(Connection lost) {
        // Not here: this may be the thread that has the lock, or one that writes.
        if (!isClosed) {
            Thread thread = new Thread(() -> reconnect(lost), "rustydb-events");
            thread.setDaemon(true);
            thread.start();
        }
    }

    private void reconnect(Connection lost) {
        lock.lock();
        try {
            if (isReconnecting || connection != lost) {
                return;
            }
            isReconnecting = true;
        } finally {
            lock.unlock();
        }
        try {
            long pause = FIRST_PAUSE_MILLIS;
            while (!isClosed && !listeners.isEmpty() && !tryToReconnect()) {
                Thread.sleep(pause);
                pause = Math.min(2 * pause, LONGEST_PAUSE_MILLIS);
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        } finally {
            lock.lock();
            isReconnecting = false;
            lock.unlock();
        }
    }

    private boolean tryToReconnect() {
        lock.lock();
        try {
            connected();
            listeners.values().forEach(each -> each.forEach(Listener::countReconnect));
            return true;
        } catch (RustyDBException e) {
            if (!e.getSqlState().startsWith("28")) {
                return false;
            }
            // Nobody is helped by trying a wrong password again and again.
            listeners.values().forEach(each -> each.forEach(listener -> listener.fail(e)));
            return true;
        } finally {
            lock.unlock();
        }
    }

    void close() {
        isClosed = true;
        lock.lock();
        try {
            if (connection != null) {
                connection.close();
            }
            RustyDBException end = RustyDBException.local(
                    "08003", "CONNECTION_FAILURE", "the client is disconnected");
            listeners.values().forEach(each -> each.forEach(listener -> listener.fail(end)));
            listeners.clear();
        } finally {
            lock.unlock();
        }
    }
}
