// Snappy's raw block format.
package io.rustydb;

/** Compresses greedily with copies of at most 64 bytes and two-byte distances. */
final class Snappy implements Compressor {
    private static final int LITERAL = 0;
    private static final int COPY_1 = 1;
    private static final int COPY_2 = 2;
    private static final int LONGEST_COPY = 64;

    @Override
    public byte[] compress(byte[] source, int offset, int length) {
        Output out = new Output(32 + length + length / 6);
        int rest = length;
        for (; rest >= 0x80; rest >>>= 7) {
            out.put(rest | 0x80);
        }
        out.put(rest);
        int anchor = Matches.scan(source, offset, length, (literals, end, distance, match) -> {
            writeLiterals(out, source, literals, end);
            for (int left = match; left > 0; left -= LONGEST_COPY) {
                out.put((Math.min(left, LONGEST_COPY) - 1) << 2 | COPY_2);
                out.put(distance);
                out.put(distance >>> 8);
            }
        });
        writeLiterals(out, source, anchor, offset + length);
        return out.toByteArray();
    }

    private static void writeLiterals(Output out, byte[] source, int from, int to) {
        int length = to - from;
        if (length == 0) {
            return;
        }
        int stated = length - 1;
        if (stated < 60) {
            out.put(stated << 2 | LITERAL);
        } else {
            int bytes = (39 - Integer.numberOfLeadingZeros(stated)) / 8;
            out.put((59 + bytes) << 2 | LITERAL);
            for (int i = 0; i < bytes; i++) {
                out.put(stated >>> 8 * i);
            }
        }
        out.put(source, from, length);
    }

    @Override
    public byte[] decompress(byte[] source, int offset, int length, int size) {
        Input in = new Input(source, offset, length);
        if (readSize(in) != size) {
            throw Compressor.broken("the size inside differs from the stated one");
        }
        Output out = new Output(size);
        while (!in.isEmpty()) {
            readElement(in, out);
        }
        return out.complete();
    }

    private static long readSize(Input in) {
        long size = 0;
        for (int shift = 0; shift < 35; shift += 7) {
            int next = in.next();
            size |= (next & 0x7fL) << shift;
            if (next < 0x80) {
                return size;
            }
        }
        throw Compressor.broken("the size inside has no end");
    }

    private static void readElement(Input in, Output out) {
        int tag = in.next();
        int high = tag >>> 2;
        switch (tag & 3) {
            case LITERAL -> out.copy(in, high < 60 ? high + 1 : longLiteral(in, high - 59));
            case COPY_1 -> out.repeat((high >>> 3) << 8 | in.next(), (high & 7) + 4);
            case COPY_2 -> out.repeat(in.next() | in.next() << 8, high + 1);
            default -> out.repeat(
                    in.next() | in.next() << 8 | in.next() << 16 | in.next() << 24, high + 1);
        }
    }

    private static int longLiteral(Input in, int bytes) {
        int length = 0;
        for (int i = 0; i < bytes; i++) {
            length |= in.next() << 8 * i;
        }
        if (length < 0 || length == Integer.MAX_VALUE) {
            throw Compressor.broken("a run is longer than the whole");
        }
        return length + 1;
    }
}
