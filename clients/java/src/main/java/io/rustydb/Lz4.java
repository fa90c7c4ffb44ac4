// LZ4's block format.
package io.rustydb;

/** Compresses greedily, which is what the fast LZ4 encoders do. */
final class Lz4 implements Compressor {
    private static final int MIN_MATCH = 4;
    private static final int NIBBLE = 15;

    @Override
    public byte[] compress(byte[] source, int offset, int length) {
        Output out = new Output(length + length / 255 + 16);
        int anchor = Matches.scan(source, offset, length, (literals, end, distance, match) -> {
            writeToken(out, end - literals, match - MIN_MATCH);
            writeLiterals(out, source, literals, end);
            out.put(distance);
            out.put(distance >>> 8);
            writeLength(out, match - MIN_MATCH);
        });
        int end = offset + length;
        writeToken(out, end - anchor, 0);
        writeLiterals(out, source, anchor, end);
        return out.toByteArray();
    }

    private static void writeToken(Output out, int literals, int match) {
        out.put(Math.min(literals, NIBBLE) << 4 | Math.min(match, NIBBLE));
    }

    private static void writeLiterals(Output out, byte[] source, int from, int to) {
        writeLength(out, to - from);
        out.put(source, from, to - from);
    }

    private static void writeLength(Output out, int length) {
        int rest = length - NIBBLE;
        for (; rest >= 255; rest -= 255) {
            out.put(255);
        }
        if (rest >= 0) {
            out.put(rest);
        }
    }

    @Override
    public byte[] decompress(byte[] source, int offset, int length, int size) {
        Input in = new Input(source, offset, length);
        Output out = new Output(size);
        while (true) {
            int token = in.next();
            out.copy(in, readLength(in, token >>> 4, size));
            if (in.isEmpty()) {
                break;
            }
            int distance = in.next() | in.next() << 8;
            out.repeat(distance, readLength(in, token & NIBBLE, size) + MIN_MATCH);
        }
        return out.complete();
    }

    private static int readLength(Input in, int nibble, int size) {
        int length = nibble;
        if (nibble == NIBBLE) {
            int next;
            do {
                next = in.next();
                length += next;
                if (length > size) {
                    throw Compressor.broken("a run is longer than the whole");
                }
            } while (next == 255);
        }
        return length;
    }
}
