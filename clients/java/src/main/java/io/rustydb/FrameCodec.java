// Frames: header, compression and checksum.
package io.rustydb;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.util.Arrays;
import java.util.zip.CRC32C;

/** Turns messages into frames and back, as the handshake agreed; one thread may read. */
final class FrameCodec {
    private static final int COMPRESSION_THRESHOLD = 1024;
    private static final int CHECKSUM_BYTES = 4;
    private static final int MAX_URGENT = 64;

    private volatile Compressor compressor;
    private volatile boolean checksum;
    private volatile int maxPayload = Frame.MAX_PAYLOAD;

    /** Sets what the handshake agreed; not before the handshake's own frames have passed. */
    void agree(CompressionType compression, boolean checksum, int maxPayload) {
        this.compressor = Compressor.of(compression);
        this.checksum = checksum;
        this.maxPayload = maxPayload;
    }

    /**
     * The whole frame.
     *
     * @throws RustyDBException 54000 if it is larger than was agreed
     */
    byte[] encode(Message message, int flags, long id) {
        WireWriter out = new WireWriter(256);
        out.skip(Frame.HEADER_BYTES);
        message.write(out);
        if (out.length() - Frame.HEADER_BYTES > maxPayload - CHECKSUM_BYTES) {
            throw RustyDBException.tooLarge("a message of " + (out.length() - Frame.HEADER_BYTES)
                    + " bytes is larger than the " + maxPayload + " that were agreed");
        }
        int allFlags = flags;
        WireWriter packed = compress(message, out);
        if (packed != null) {
            out = packed;
            allFlags |= Frame.COMPRESSED;
        }
        if (checksum) {
            out.skip(CHECKSUM_BYTES);
            allFlags |= Frame.CHECKSUM;
        }
        out.setU32(0, out.length() - Frame.HEADER_BYTES);
        out.setU16(4, allFlags);
        out.setU64(6, id);
        if (checksum) {
            int end = out.length() - CHECKSUM_BYTES;
            CRC32C crc = new CRC32C();
            crc.update(out.buffer(), 0, end);
            out.setU32(end, (int) crc.getValue());
        }
        return out.toByteArray();
    }

    /** The compressed frame, or null where it is forbidden or does not pay. */
    private WireWriter compress(Message message, WireWriter plain) {
        int size = plain.length() - Frame.HEADER_BYTES;
        boolean secret = message instanceof HandshakeMessage || message instanceof AuthMessage
                || message instanceof AuthReply;
        if (compressor == null || secret || size < COMPRESSION_THRESHOLD) {
            return null;
        }
        byte[] body = compressor.compress(plain.buffer(), Frame.HEADER_BYTES, size);
        if (body.length + 4 >= size) {
            return null;
        }
        WireWriter out = new WireWriter(Frame.HEADER_BYTES + 4 + body.length + CHECKSUM_BYTES);
        out.skip(Frame.HEADER_BYTES + 4);
        out.setU32(Frame.HEADER_BYTES, size);
        out.raw(body);
        return out;
    }

    /**
     * The next frame, or null where the stream ends between two frames.
     *
     * @throws RustyDBException 08P01 for what is no frame
     */
    Frame read(InputStream in) throws IOException {
        byte[] header = in.readNBytes(Frame.HEADER_BYTES);
        if (header.length == 0) {
            return null;
        }
        if (header.length < Frame.HEADER_BYTES) {
            throw new EOFException("the connection ended inside a frame");
        }
        long length = littleEndian(header, 0, 4);
        int flags = (int) littleEndian(header, 4, 2);
        long id = littleEndian(header, 6, 8);
        if (length > maxPayload) {
            throw RustyDBException.local("08P01", "PAYLOAD_TOO_LARGE",
                    "the server announced a message of " + length + " bytes");
        }
        if ((flags & Frame.RESERVED) != 0) {
            throw RustyDBException.protocol(String.format("reserved flags are set: %04x", flags));
        }
        if ((flags & Frame.URGENT) != 0 && length > MAX_URGENT) {
            throw RustyDBException.protocol("an urgent frame of " + length + " bytes");
        }
        byte[] payload = in.readNBytes((int) length);
        if (payload.length < length) {
            throw new EOFException("the connection ended inside a frame");
        }
        byte[] checked = check(header, flags, payload);
        return new Frame(flags, id, checked, payload.length, this);
    }

    private byte[] check(byte[] header, int flags, byte[] payload) {
        if ((flags & Frame.CHECKSUM) != 0) {
            int end = payload.length - CHECKSUM_BYTES;
            verify(header, payload, end);
            return Arrays.copyOf(payload, end);
        }
        if (checksum) {
            throw RustyDBException.local("08P01", "CHECKSUM_MISMATCH",
                    "a frame came without the agreed checksum");
        }
        return payload;
    }

    private static void verify(byte[] header, byte[] payload, int end) {
        if (end < 0) {
            throw RustyDBException.protocol("a frame is too short for its checksum");
        }
        CRC32C crc = new CRC32C();
        crc.update(header);
        crc.update(payload, 0, end);
        if (crc.getValue() != littleEndian(payload, end, CHECKSUM_BYTES)) {
            throw RustyDBException.local("08P01", "CHECKSUM_MISMATCH",
                    "a frame was damaged on its way: its checksum is wrong");
        }
    }

    /** The body of a compressed payload. */
    byte[] decompress(byte[] payload) {
        if (compressor == null) {
            throw Compressor.broken("no compression was agreed");
        }
        if (payload.length < 4) {
            throw Compressor.broken("it ends too early");
        }
        long size = littleEndian(payload, 0, 4);
        if (size > maxPayload) {
            throw Compressor.broken("it would be larger than was agreed");
        }
        return compressor.decompress(payload, 4, payload.length - 4, (int) size);
    }

    private static long littleEndian(byte[] bytes, int at, int width) {
        long value = 0;
        for (int i = width - 1; i >= 0; i--) {
            value = value << 8 | bytes[at + i] & 0xff;
        }
        return value;
    }
}
