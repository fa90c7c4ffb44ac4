// Stands between client and server, and cuts connections when it is told to.
package io.rustydb;

import java.io.Closeable;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/** Copies bytes both ways. */
final class CuttingProxy implements Closeable {
    private final ServerSocket socket;
    private final Config.Host server;
    private final Set<Socket> open = ConcurrentHashMap.newKeySet();

    CuttingProxy(Config.Host server) throws IOException {
        this.server = server;
        socket = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        start(this::accept);
    }

    int port() {
        return socket.getLocalPort();
    }

    private static void start(Runnable work) {
        Thread thread = new Thread(work, "proxy");
        thread.setDaemon(true);
        thread.start();
    }

    private void accept() {
        try {
            while (true) {
                Socket client = socket.accept();
                Socket upstream = new Socket(server.name(), server.port());
                open.add(client);
                open.add(upstream);
                start(() -> copy(client, upstream));
                start(() -> copy(upstream, client));
            }
        } catch (IOException e) {
            // Closed at the end of the test.
        }
    }

    private static void copy(Socket from, Socket to) {
        try (from; to) {
            InputStream in = from.getInputStream();
            OutputStream out = to.getOutputStream();
            in.transferTo(out);
        } catch (IOException e) {
            // Cut.
        }
    }

    /** Cuts every connection there is. */
    void cut() throws IOException {
        for (Socket each : open) {
            each.close();
            open.remove(each);
        }
    }

    @Override
    public void close() throws IOException {
        socket.close();
        cut();
    }
}
