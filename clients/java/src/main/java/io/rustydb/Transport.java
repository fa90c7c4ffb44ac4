// The byte streams of a connection: TCP, TLS over TCP, or a Unix socket.
package io.rustydb;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.StandardSocketOptions;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import javax.net.ssl.SSLSocket;

/** One thread may read while another writes; closing ends both. */
final class Transport {
    private static final int READ_AHEAD = 64 << 10;

    private final AutoCloseable socket;
    private final InputStream in;
    private final OutputStream out;
    private final boolean isTls;
    private final boolean isLocal;
    private final byte[] endPoint;

    private Transport(AutoCloseable socket, InputStream in, OutputStream out, SSLSocket tls,
            boolean isLocal) throws IOException {
        this.socket = socket;
        this.in = new java.io.BufferedInputStream(in, READ_AHEAD);
        this.out = out;
        this.isTls = tls != null;
        this.isLocal = isLocal;
        this.endPoint = tls == null ? null : Tls.endPoint(tls);
    }

    /**
     * Connects, with TLS where the configuration and the server have it.
     *
     * @param tls null for a plain connection
     */
    static Transport open(Config.Host host, TlsMode mode, Tls tls, Deadline deadline)
            throws IOException {
        if (host.isUnixSocket()) {
            return openUnixSocket(host);
        }
        if (mode == TlsMode.DISABLE) {
            return openPlain(host, deadline);
        }
        try {
            return openTls(host, tls, deadline);
        } catch (RefusedTls e) {
            if (mode != TlsMode.PREFER) {
                throw (IOException) e.getCause();
            }
            return openPlain(host, deadline);
        }
    }

    /** The handshake failed after TCP had connected. */
    private static final class RefusedTls extends IOException {
        private static final long serialVersionUID = 1L;

        RefusedTls(IOException cause) {
            super(cause);
        }
    }

    private static Socket openTcp(Config.Host host, Deadline deadline) throws IOException {
        Socket socket = new Socket();
        try {
            socket.setTcpNoDelay(true);
            socket.setKeepAlive(true);
            socket.connect(
                    new InetSocketAddress(host.name(), host.port()), deadline.remainingMillis());
            return socket;
        } catch (IOException e) {
            socket.close();
            throw e;
        }
    }

    private static Transport openPlain(Config.Host host, Deadline deadline) throws IOException {
        Socket socket = openTcp(host, deadline);
        return new Transport(socket, socket.getInputStream(), socket.getOutputStream(), null,
                socket.getInetAddress().isLoopbackAddress());
    }

    private static Transport openTls(Config.Host host, Tls tls, Deadline deadline)
            throws IOException {
        Socket socket = openTcp(host, deadline);
        try {
            SSLSocket secure = tls.wrap(socket, host);
            socket.setSoTimeout(deadline.remainingMillis());
            secure.startHandshake();
            socket.setSoTimeout(0);
            return new Transport(
                    socket, secure.getInputStream(), secure.getOutputStream(), secure, false);
        } catch (IOException e) {
            socket.close();
            throw new RefusedTls(e);
        }
    }

    private static Transport openUnixSocket(Config.Host host) throws IOException {
        SocketChannel channel = SocketChannel.open(
                UnixDomainSocketAddress.of(host.name() + "/.s.PGSQL." + host.port()));
        channel.setOption(StandardSocketOptions.SO_SNDBUF, READ_AHEAD);
        return new Transport(
                channel, new ChannelInput(channel), new ChannelOutput(channel), null, true);
    }

    InputStream in() {
        return in;
    }

    OutputStream out() {
        return out;
    }

    boolean isTls() {
        return isTls;
    }

    /** Whether nobody on the way can read along. */
    boolean isPrivate() {
        return isTls || isLocal;
    }

    /** What SCRAM can be bound to, or null. */
    byte[] endPoint() {
        return endPoint;
    }

    void close() {
        try {
            socket.close();
        } catch (Exception e) {
            // It is closed as far as this side can close it.
        }
    }

    // The streams of java.nio.channels.Channels lock reading against writing.
    private static final class ChannelInput extends InputStream {
        private final SocketChannel channel;

        ChannelInput(SocketChannel channel) {
            this.channel = channel;
        }

        @Override
        public int read() throws IOException {
            byte[] one = new byte[1];
            return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
        }

        @Override
        public int read(byte[] bytes, int offset, int length) throws IOException {
            return channel.read(ByteBuffer.wrap(bytes, offset, length));
        }
    }

    private static final class ChannelOutput extends OutputStream {
        private final SocketChannel channel;

        ChannelOutput(SocketChannel channel) {
            this.channel = channel;
        }

        @Override
        public void write(int one) throws IOException {
            write(new byte[] {(byte) one}, 0, 1);
        }

        @Override
        public void write(byte[] bytes, int offset, int length) throws IOException {
            ByteBuffer left = ByteBuffer.wrap(bytes, offset, length);
            while (left.hasRemaining()) {
                channel.write(left);
            }
        }
    }
}
