// A server of a few lines, which does exactly what a test tells it.
package io.rustydb;

import java.io.BufferedInputStream;
import java.io.Closeable;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/** Shakes hands, trusts everybody, and hands each connection to the test's script. */
final class FakeServer implements Closeable {
    static final int WINDOW = 65_536;

    /** What the server does on one connection, which it then closes. */
    interface Script {
        void run(Peer peer) throws Exception;
    }

    private static final Script TRUST = peer -> {
        peer.read();
        peer.welcome();
    };

    private final ServerSocket socket;
    private final List<AuthMethod> methods;
    private final Script login;
    private final Script script;
    private final long heartbeatMillis;
    private final Set<Socket> open = ConcurrentHashMap.newKeySet();
    final AtomicInteger connections = new AtomicInteger();
    volatile Throwable failure;

    FakeServer(Script script) throws IOException {
        this(script, 30_000);
    }

    FakeServer(Script script, long heartbeatMillis) throws IOException {
        this(List.of(AuthMethod.TRUST), TRUST, script, heartbeatMillis);
    }

    FakeServer(List<AuthMethod> methods, Script login, Script script, long heartbeatMillis)
            throws IOException {
        this.methods = methods;
        this.login = login;
        this.script = script;
        this.heartbeatMillis = heartbeatMillis;
        socket = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        start("accept", this::accept);
    }

    private static void start(String name, Runnable work) {
        Thread thread = new Thread(work, "fake-" + name);
        thread.setDaemon(true);
        thread.start();
    }

    int port() {
        return socket.getLocalPort();
    }

    Client.Builder client() {
        return new Client.Builder().host("127.0.0.1").port(port())
                .username("u").tls(TlsMode.DISABLE);
    }

    private void accept() {
        try {
            while (true) {
                Socket client = socket.accept();
                open.add(client);
                start("serve", () -> serve(client));
            }
        } catch (IOException e) {
            // Closed at the end of the test.
        }
    }

    /** Serves one client that came by another way. */
    void serve(InputStream in, OutputStream out) throws Exception {
        Peer peer = new Peer(in, out, connections.incrementAndGet());
        peer.greet(methods, heartbeatMillis);
        login.run(peer);
        script.run(peer);
    }

    private void serve(Socket client) {
        try (client) {
            serve(client.getInputStream(), client.getOutputStream());
        } catch (IOException e) {
            // The client went away, which is up to it.
        } catch (Throwable e) {
            failure = e;
        }
    }

    @Override
    public void close() throws IOException {
        socket.close();
        for (Socket client : open) {
            client.close();
        }
        if (failure != null) {
            throw new AssertionError("the script of the fake server failed", failure);
        }
    }

    /** One connection. */
    static final class Peer {
        final int number;
        private final FrameCodec codec = new FrameCodec();
        private final InputStream in;
        private final OutputStream out;

        Peer(InputStream in, OutputStream out, int number) {
            this.in = new BufferedInputStream(in);
            this.out = out;
            this.number = number;
        }

        void greet(List<AuthMethod> methods, long heartbeatMillis) throws IOException {
            in.readNBytes(8);
            read();
            send(new HandshakeMessage.ServerHello(new HandshakeMessage.Version(1, 0), "fake", "1",
                    number, CompressionType.NONE, 0x7b, List.of(), Frame.MAX_PAYLOAD, 1 << 20,
                    10_000, 1000, 1000, WINDOW, 4 * WINDOW, heartbeatMillis,
                    methods), Frame.RESPONSE, 1);
        }

        void welcome() throws IOException {
            send(new AuthReply.Success(1, "u", List.of(), List.of()), Frame.RESPONSE, 2);
        }

        Frame read() throws IOException {
            Frame frame = codec.read(in);
            if (frame == null) {
                throw new IOException("the client went away");
            }
            return frame;
        }

        /** The next frame that is neither a credit nor a heartbeat's echo. */
        Frame request() throws IOException {
            while (true) {
                Frame frame = read();
                if (!(frame.message() instanceof Message.WindowUpdate)) {
                    return frame;
                }
            }
        }

        void send(Message message, int flags, long id) throws IOException {
            byte[] bytes = codec.encode(message, flags, id);
            synchronized (this) {
                out.write(bytes);
            }
        }

        void answer(Frame request, Message message) throws IOException {
            send(message, Frame.RESPONSE, request.id());
        }

        void answerInPart(Frame request, Message message) throws IOException {
            send(message, Frame.RESPONSE | Frame.MORE, request.id());
        }

        void answerNumber(Frame request, int number) throws IOException {
            answer(request, rows(0, TransactionStatus.IDLE, new Value.Int4(number)));
        }

        void refuse(Frame request, Severity severity, String sqlState, boolean retryable)
                throws IOException {
            answer(request, new Message.Error(new ErrorBody(severity, sqlState, "CODE", "no",
                    null, null, null, null, null, null, null, null, null, retryable, 1L, null)));
        }
    }

    static final Column NUMBER =
            new Column("n", 23, "int4", -1, (short) 4, 0, (short) 0, null);

    /** A result of rows with one value each. */
    static Message.QueryResponse rows(
            long statement, TransactionStatus status, Value... values) {
        return new Message.QueryResponse(statement, List.of(NUMBER),
                Arrays.stream(values).map(List::of).toList(), values.length,
                "SELECT " + values.length, 1, status);
    }
}
