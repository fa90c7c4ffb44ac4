// A frame as it was received.
package io.rustydb;

/**
 * Header fields and payload; the checksum has been taken off. A compressed payload stays so until
 * somebody wants it, so that what waits in a queue is no larger than flow control counts it.
 *
 * @param wireBytes the size that flow control counts
 */
record Frame(int flags, long id, byte[] payload, int wireBytes, FrameCodec codec) {
    static final int HEADER_BYTES = 14;
    /** The largest payload that the protocol knows. */
    static final int MAX_PAYLOAD = 16 << 20;

    static final int COMPRESSED = 0x0001;
    static final int CHECKSUM = 0x0002;
    static final int MORE = 0x0004;
    static final int RESPONSE = 0x0008;
    static final int URGENT = 0x0010;
    static final int ONEWAY = 0x0020;
    static final int RESERVED = 0xfe00;

    boolean has(int flag) {
        return (flags & flag) != 0;
    }

    /** Whether a request's answer ends with this frame. */
    boolean isFinal() {
        return !has(MORE);
    }

    byte[] body() {
        return has(COMPRESSED) ? codec.decompress(payload) : payload;
    }

    Message message() {
        return Message.decode(body());
    }
}
