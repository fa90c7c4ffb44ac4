// One connection: a thread that reads, and requests that wait for what it reads.
package io.rustydb;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * Sends frames, gives answers to the requests they belong to, and keeps the windows of both
 * directions. Everything above frames is elsewhere.
 */
final class Connection {
    /** How long a cancelled request may still take to end. */
    private static final Duration CANCEL_GRACE = Duration.ofSeconds(5);
    private static final int MAX_PREPARED = 512;
    private static final long MAX_WINDOW = Integer.MAX_VALUE;

    /** What others want to hear from a connection; called on its reading thread. */
    interface Observer {
        /** The server said something unasked. */
        void onNotification(Connection from, NotificationMessage message);

        /** The connection has ended. */
        void onClosed(Connection connection);
    }

    private final Transport transport;
    private final FrameCodec codec;
    private final HandshakeMessage.ServerHello hello;
    private final long streamWindow;
    private final ReceiveWindow receiveWindow;
    private final Observer observer;
    private final UrgentPacer pacer = new UrgentPacer();
    private final AtomicLong nextId = new AtomicLong(Login.FIRST_FREE_ID);
    private final Map<Long, Exchange> pending = new ConcurrentHashMap<>();
    private final Map<String, String> parameters = new ConcurrentHashMap<>();

    /** Held while a frame is written; the reading thread never waits for it. */
    private final ReentrantLock writing = new ReentrantLock();
    private final Queue<byte[]> urgent = new ConcurrentLinkedQueue<>();
    private final ReentrantLock crediting = new ReentrantLock();
    private final Condition credited = crediting.newCondition();
    private final Map<Long, Long> streamCredit = new HashMap<>();
    private long sendCredit;

    private volatile RustyDBException failure;
    private volatile String farewell;
    private volatile RustyDBException closing;
    private volatile long lastReceived = System.nanoTime();
    private int unansweredHeartbeats;

    /** The prepared statements of the session by name, the least recently used first. */
    private final LinkedHashMap<String, Boolean> prepared = new LinkedHashMap<>(16, 0.75f, true);
    private final Queue<String> closedStatements = new ConcurrentLinkedQueue<>();
    private volatile TransactionStatus status = TransactionStatus.IDLE;
    private volatile long idleSince = System.nanoTime();

    Connection(Config config, Transport transport, Login login, Observer observer) {
        this.transport = transport;
        this.codec = login.codec();
        this.hello = login.hello();
        this.streamWindow = config.streamWindow;
        this.receiveWindow = new ReceiveWindow(config.connectionWindow);
        this.observer = observer;
        this.sendCredit = hello.connectionWindow() - login.sentBytes();
        login.success().parameters().forEach(it -> parameters.put(it.name(), it.value()));
    }

    /** Starts reading. */
    void start() {
        Thread reader = new Thread(this::readAll, "rustydb-" + hello.connectionId());
        reader.setDaemon(true);
        reader.start();
    }

    HandshakeMessage.ServerHello hello() {
        return hello;
    }

    /** The server's parameters, as it last reported them. */
    Map<String, String> parameters() {
        return Map.copyOf(parameters);
    }

    boolean isTls() {
        return transport.isTls();
    }

    boolean isOpen() {
        return failure == null;
    }

    /** Whether the connection may serve another request. */
    boolean isUsable() {
        return failure == null && farewell == null;
    }

    TransactionStatus status() {
        return status;
    }

    void status(TransactionStatus status) {
        this.status = status;
    }

    long idleNanos() {
        return System.nanoTime() - idleSince;
    }

    void becomeIdle() {
        idleSince = System.nanoTime();
    }

    // ---- Reading ----

    private void readAll() {
        try {
            Frame frame;
            while ((frame = codec.read(transport.in())) != null) {
                lastReceived = System.nanoTime();
                dispatch(frame);
            }
            fail(RustyDBException.lost(farewell == null
                    ? "the server closed the connection" : "the server said: " + farewell, null));
        } catch (IOException e) {
            fail(RustyDBException.lost("the connection was lost: " + e.getMessage(), e));
        } catch (RustyDBException e) {
            fail(e);
        } catch (RuntimeException | Error e) {
            fail(RustyDBException.lost("the connection cannot be read any more", e));
            throw e;
        }
    }

    private void dispatch(Frame frame) {
        if (!frame.has(Frame.URGENT)) {
            receiveWindow.receive(frame.wireBytes());
        }
        // Id 0 and ids with bit 63 are the server's own.
        if (frame.id() <= 0) {
            grantConnection(frame);
            handle(frame.id(), frame.message());
            return;
        }
        Exchange exchange = frame.isFinal() ? pending.remove(frame.id()) : pending.get(frame.id());
        if (exchange == null) {
            grantConnection(frame);
            return;
        }
        if (exchange.window() != null) {
            // The last frame is let in without credit: nothing can come after it.
            if (!frame.has(Frame.URGENT) && !frame.isFinal()) {
                exchange.window().receive(frame.wireBytes());
            }
            grantConnection(frame);
        }
        exchange.offer(frame);
        if (frame.isFinal()) {
            wakeUploads();
        }
    }

    private void handle(long id, Message message) {
        if (message instanceof Message.WindowUpdate update) {
            addCredit(update);
        } else if (message instanceof Message.Heartbeat heartbeat) {
            sendUrgent(new Message.Heartbeat(heartbeat.sentAtUs(), pending.size()), 0, id);
        } else if (message instanceof Message.Error error) {
            throw RustyDBException.fromServer(error.value());
        } else if (message instanceof Message.Close close) {
            farewell = close.reason();
        } else if (message instanceof NotificationMessage notification) {
            if (notification instanceof NotificationMessage.Shutdown shutdown) {
                farewell = shutdown.reason();
            } else if (notification instanceof NotificationMessage.ParameterStatus changed) {
                parameters.put(changed.name(), changed.value());
            }
            observer.onNotification(this, notification);
        }
    }

    private void addCredit(Message.WindowUpdate update) {
        crediting.lock();
        try {
            if (update.stream() == 0) {
                sendCredit = sum(sendCredit, update.credit());
            } else {
                streamCredit.computeIfPresent(
                        update.stream(), (id, left) -> sum(left, update.credit()));
            }
            credited.signalAll();
        } finally {
            crediting.unlock();
        }
    }

    private static long sum(long left, long more) {
        if (left + more > MAX_WINDOW) {
            throw RustyDBException.local("08P01", "FLOW_CONTROL_ERROR",
                    "the server granted more credit than a window can hold");
        }
        return left + more;
    }

    private void wakeUploads() {
        crediting.lock();
        try {
            credited.signalAll();
        } finally {
            crediting.unlock();
        }
    }

    // ---- Credit of what was received ----

    private void grantConnection(Frame frame) {
        if (!frame.has(Frame.URGENT)) {
            grant(0, receiveWindow.consume(frame.wireBytes()));
        }
    }

    /** Gives credit back for an answer that somebody has taken. */
    private void taken(Exchange exchange, Frame frame) {
        if (frame.has(Frame.URGENT)) {
            return;
        }
        if (exchange.window() == null) {
            grantConnection(frame);
        } else if (!exchange.hasEnded()) {
            grant(exchange.id(), exchange.window().consume(frame.wireBytes()));
        }
    }

    private void grant(long stream, long bytes) {
        if (bytes > 0) {
            sendUrgent(new Message.WindowUpdate(stream, bytes), Frame.ONEWAY, 0);
        }
    }

    // ---- Sending ----

    private void sendUrgent(Message message, int flags, long id) {
        pacer.await();
        if (isOpen()) {
            urgent.add(codec.encode(message, Frame.URGENT | flags, id));
            flushUrgent();
        }
    }

    /** Writes what is urgent, unless somebody is writing: then they do, when they are done. */
    private void flushUrgent() {
        while (!urgent.isEmpty() && writing.tryLock()) {
            try {
                byte[] frame;
                while ((frame = urgent.poll()) != null) {
                    writeLocked(frame);
                }
            } catch (RustyDBException e) {
                // The connection is gone, which everybody who waits for an answer is told.
                urgent.clear();
            } finally {
                writing.unlock();
            }
        }
    }

    private void write(byte[] frame) {
        writing.lock();
        try {
            writeLocked(frame);
        } finally {
            writing.unlock();
        }
        flushUrgent();
    }

    private void writeLocked(byte[] frame) {
        RustyDBException gone = failure;
        if (gone != null) {
            throw gone.beforeSending();
        }
        try {
            transport.out().write(frame);
            transport.out().flush();
        } catch (IOException e) {
            // Not all of the frame left, and a server drops frames that are cut.
            fail(RustyDBException.lost("the connection was lost: " + e.getMessage(), e));
            throw failure.beforeSending();
        }
    }

    /** Sends a request. */
    Exchange request(Message message) {
        return request(message, null);
    }

    /** Sends a request whose answer is a stream, to be read as fast as the user takes it. */
    Exchange requestStream(Message message) {
        return request(message, new ReceiveWindow(streamWindow));
    }

    private Exchange request(Message message, ReceiveWindow window) {
        boolean isUrgent = message instanceof Message.Ping;
        long id = nextId.getAndIncrement();
        byte[] frame = codec.encode(message, isUrgent ? Frame.URGENT : 0, id);
        Exchange exchange = new Exchange(id, window);
        register(exchange);
        if (isUrgent) {
            pacer.await();
        }
        sendCounted(exchange, frame, isUrgent);
        return exchange;
    }

    /** Registers a request that the client sends in several frames, {@link #sendLast} last. */
    Exchange openUpload() {
        Exchange exchange = new Exchange(nextId.getAndIncrement(), null);
        register(exchange);
        crediting.lock();
        try {
            streamCredit.put(exchange.id(), hello.streamWindow());
        } finally {
            crediting.unlock();
        }
        return exchange;
    }

    /**
     * Sends one frame of an upload when the server has room for it.
     *
     * @return false if the server has answered already, and so wants no more
     */
    boolean sendPart(Exchange upload, Message message, Deadline deadline) {
        byte[] frame = codec.encode(message, Frame.MORE, upload.id());
        if (!takeUploadCredit(upload, frame, false, deadline)) {
            return false;
        }
        write(frame);
        return true;
    }

    /** Sends the last frame of an upload, which the server waits for even if it has answered. */
    void sendLast(Exchange upload, Message message, Deadline deadline) {
        byte[] frame = codec.encode(message, 0, upload.id());
        takeUploadCredit(upload, frame, true, deadline);
        forgetUpload(upload);
        write(frame);
    }

    /** No more of the upload will be sent. */
    void forgetUpload(Exchange upload) {
        crediting.lock();
        try {
            streamCredit.remove(upload.id());
        } finally {
            crediting.unlock();
        }
    }

    private boolean takeUploadCredit(
            Exchange upload, byte[] frame, boolean isLast, Deadline deadline) {
        crediting.lock();
        try {
            while (isOpen() && (isLast || !upload.hasEnded())
                    && (sendCredit <= 0 || streamCredit.getOrDefault(upload.id(), 1L) <= 0)) {
                awaitCredit(deadline);
            }
            if (upload.hasEnded() && !isLast) {
                return false;
            }
            long bytes = frame.length - Frame.HEADER_BYTES;
            sendCredit -= bytes;
            streamCredit.computeIfPresent(upload.id(), (id, left) -> left - bytes);
            return true;
        } finally {
            crediting.unlock();
        }
    }

    /** Tells the server that the rest of a stream is not wanted. */
    void sendStreamCancel(Exchange stream) {
        byte[] frame = codec.encode(new StreamingMessage.Cancel(), Frame.ONEWAY, stream.id());
        sendCounted(stream, frame, false);
    }

    private void sendCounted(Exchange exchange, byte[] frame, boolean isUrgent) {
        try {
            if (!isUrgent) {
                takeCredit(frame.length - Frame.HEADER_BYTES);
            }
            write(frame);
        } catch (RustyDBException e) {
            pending.remove(exchange.id());
            throw e;
        }
    }

    private void takeCredit(int bytes) {
        Deadline deadline = Deadline.in(CANCEL_GRACE);
        crediting.lock();
        try {
            while (isOpen() && sendCredit <= 0) {
                awaitCredit(deadline);
            }
            sendCredit -= bytes;
        } finally {
            crediting.unlock();
        }
    }

    private void awaitCredit(Deadline deadline) {
        try {
            if (credited.awaitNanos(deadline.remainingNanos()) <= 0) {
                throw RustyDBException.timeout("the server takes no more data").beforeSending();
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw interrupted();
        }
    }

    private void register(Exchange exchange) {
        pending.put(exchange.id(), exchange);
        RustyDBException gone = failure;
        if (gone != null) {
            pending.remove(exchange.id());
            throw gone.beforeSending();
        }
    }

    /** Asks the server to cancel a request; it may end normally all the same. */
    void sendCancel(Exchange exchange) {
        sendUrgent(new Message.Cancel(exchange.id()), Frame.ONEWAY, 0);
    }

    // ---- Waiting for answers ----

    /** One message of an answer, and whether it is the last one. */
    record Reply(Message message, boolean isLast) {
    }

    /**
     * The next message of an answer.
     *
     * @return also an error that the server answered
     * @throws RustyDBException 57014 when the time is over or the thread was interrupted, after the
     *     request was cancelled; 08006 if the connection was lost
     */
    Reply next(Exchange exchange, Deadline deadline) {
        Frame frame = nextFrame(exchange, deadline);
        if (frame == null) {
            abandon(exchange);
            throw RustyDBException.timeout("the request took longer than its time-out");
        }
        return decode(frame);
    }

    /** As {@link #next}, but null when the time is over, and nothing is cancelled then. */
    Reply poll(Exchange exchange, Deadline deadline) {
        Frame frame = nextFrame(exchange, deadline);
        return frame == null ? null : decode(frame);
    }

    private Frame nextFrame(Exchange exchange, Deadline deadline) {
        try {
            Frame frame = exchange.poll(deadline);
            if (frame != null) {
                taken(exchange, frame);
            }
            return frame;
        } catch (InterruptedException e) {
            abandon(exchange);
            Thread.currentThread().interrupt();
            throw interrupted();
        }
    }

    private static RustyDBException interrupted() {
        return RustyDBException.local("57014", "CANCELLED", "the thread was interrupted");
    }

    private Reply decode(Frame frame) {
        Message message;
        try {
            message = frame.message();
        } catch (RustyDBException e) {
            fail(e);
            throw e;
        }
        if (message instanceof Message.Error error && error.value().severity() != Severity.ERROR) {
            fail(RustyDBException.fromServer(error.value()));
        }
        return new Reply(message, frame.isFinal());
    }

    /** Cancels a request and waits for its end; gives the connection up if that does not come. */
    void abandon(Exchange exchange) {
        if (exchange.hasEnded()) {
            return;
        }
        sendCancel(exchange);
        if (!drain(exchange, Deadline.in(CANCEL_GRACE))) {
            fail(RustyDBException.lost("a cancelled request did not end", null));
        }
    }

    /** Answers to this request are of no interest any more; whoever waits gets the error. */
    void forget(Exchange exchange, RustyDBException error) {
        pending.remove(exchange.id());
        exchange.fail(error);
    }

    /**
     * Drops answers until the last.
     *
     * @return false if it did not come in time
     */
    boolean drain(Exchange exchange, Deadline deadline) {
        boolean interrupted = false;
        try {
            while (true) {
                try {
                    Frame frame = exchange.poll(deadline);
                    if (frame == null) {
                        return false;
                    }
                    taken(exchange, frame);
                    if (frame.isFinal()) {
                        return true;
                    }
                } catch (InterruptedException e) {
                    interrupted = true;
                } catch (RustyDBException e) {
                    return true;
                }
            }
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    // ---- Prepared statements ----

    boolean isPrepared(String name) {
        return prepared.get(name) != null;
    }

    /**
     * Remembers a statement that the server has now.
     *
     * @return the names of statements that have to give way
     */
    List<String> rememberPrepared(String name) {
        prepared.put(name, true);
        List<String> surplus = new ArrayList<>();
        var names = prepared.keySet().iterator();
        for (int over = prepared.size() - MAX_PREPARED; over > 0; over--) {
            surplus.add(names.next());
            names.remove();
        }
        return surplus;
    }

    void forgetPrepared(String name) {
        prepared.remove(name);
    }

    void forgetAllPrepared() {
        prepared.clear();
    }

    /** Has the statement deallocated when the connection is used next. */
    void closeStatement(String name) {
        closedStatements.add(name);
    }

    /** A statement that this connection has and nobody wants, or null. */
    String nextClosedStatement() {
        String name;
        while ((name = closedStatements.poll()) != null) {
            if (prepared.remove(name) != null) {
                return name;
            }
        }
        return null;
    }

    // ---- Life ----

    /** Called now and then: asks for a sign of life where none came, and gives up after two. */
    void checkHeartbeat() {
        long interval = TimeUnit.MILLISECONDS.toNanos(Math.max(100, hello.heartbeatIntervalMs()));
        long silence = System.nanoTime() - lastReceived;
        if (silence < interval) {
            unansweredHeartbeats = 0;
            return;
        }
        if (silence < interval * (unansweredHeartbeats + 1)) {
            return;
        }
        if (unansweredHeartbeats == 2) {
            fail(RustyDBException.lost("the server did not answer two heartbeats", null));
            return;
        }
        unansweredHeartbeats++;
        long now = TimeUnit.MILLISECONDS.toMicros(System.currentTimeMillis());
        urgent.add(codec.encode(new Message.Heartbeat(now, pending.size()), Frame.URGENT,
                nextId.getAndIncrement()));
        flushUrgent();
    }

    /** Ends the connection in order. */
    void close() {
        RustyDBException end = RustyDBException.local(
                "08003", "CONNECTION_FAILURE", "the client closed the connection");
        closing = end;
        // Whoever writes now is not waited for: the connection ends under them.
        if (isOpen() && writing.tryLock()) {
            try {
                writeLocked(
                        codec.encode(new Message.Close("bye"), 0, nextId.getAndIncrement()));
            } catch (RustyDBException e) {
                // It is gone already.
            } finally {
                writing.unlock();
            }
        }
        fail(end);
    }

    /** Ends the connection; everybody who waits gets the error. */
    void fail(RustyDBException error) {
        synchronized (pending) {
            if (failure != null) {
                return;
            }
            // The server may hang up before we do, and must not be blamed for it.
            failure = closing != null ? closing : error;
        }
        transport.close();
        pending.values().forEach(exchange -> exchange.fail(failure));
        pending.clear();
        wakeUploads();
        observer.onClosed(this);
    }
}
