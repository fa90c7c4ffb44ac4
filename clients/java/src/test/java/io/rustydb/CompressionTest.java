// Every compression on every kind of input, and on damaged bytes.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class CompressionTest {
    private static List<byte[]> inputs() {
        Random random = new Random(7);
        List<byte[]> inputs = new ArrayList<>();
        for (int length : new int[] {0, 1, 4, 12, 13, 17, 60, 61, 64, 65, 255, 256, 257, 270,
            65_535, 65_536, 65_537, 300_000}) {
            byte[] noise = new byte[length];
            random.nextBytes(noise);
            inputs.add(noise);
            inputs.add(new byte[length]);
            byte[] text = new byte[length];
            for (int i = 0; i < length; i++) {
                text[i] = (byte) "the quick brown fox ".charAt((i * 7 + i / 100) % 20);
            }
            inputs.add(text);
            byte[] mixed = noise.clone();
            for (int i = 0; i + 40 < length; i += 100) {
                System.arraycopy(mixed, random.nextInt(i + 1), mixed, i + 10, 30);
            }
            inputs.add(mixed);
        }
        return inputs;
    }

    @ParameterizedTest
    @EnumSource(value = CompressionType.class, mode = EnumSource.Mode.EXCLUDE, names = "NONE")
    void whatIsCompressedComesBack(CompressionType type) {
        Compressor compressor = Compressor.of(type);
        for (byte[] input : inputs()) {
            byte[] around = new byte[input.length + 7];
            System.arraycopy(input, 0, around, 3, input.length);
            byte[] packed = compressor.compress(around, 3, input.length);
            assertArrayEquals(input, compressor.decompress(packed, 0, packed.length, input.length));
        }
        byte[] zeros = new byte[100_000];
        assertTrue(compressor.compress(zeros, 0, zeros.length).length < 6_000);
    }

    @ParameterizedTest
    @EnumSource(value = CompressionType.class, mode = EnumSource.Mode.EXCLUDE, names = "NONE")
    void aWrongSizeIsRefused(CompressionType type) {
        Compressor compressor = Compressor.of(type);
        byte[] input = "abcabcabcabcabcabcabcabcabcabc-abcabc".repeat(9)
                .getBytes(StandardCharsets.US_ASCII);
        byte[] packed = compressor.compress(input, 0, input.length);
        for (int size : new int[] {0, input.length - 1, input.length + 1, 1 << 20}) {
            RustyDBException error = assertThrows(RustyDBException.class,
                    () -> compressor.decompress(packed, 0, packed.length, size));
            assertEquals("DECOMPRESSION_FAILED", error.getCode());
        }
        for (int cut = 0; cut < packed.length; cut++) {
            int length = cut;
            assertThrows(RustyDBException.class,
                    () -> compressor.decompress(packed, 0, length, input.length));
        }
    }

    @ParameterizedTest
    @EnumSource(value = CompressionType.class, names = {"LZ4", "SNAPPY"})
    void damagedBytesGiveAnErrorOrOtherBytesButNothingWorse(CompressionType type) {
        Compressor compressor = Compressor.of(type);
        Random random = new Random(11);
        byte[] input = "some text that repeats itself, repeats itself".repeat(20)
                .getBytes(StandardCharsets.US_ASCII);
        byte[] packed = compressor.compress(input, 0, input.length);
        for (int round = 0; round < 50_000; round++) {
            byte[] damaged = packed.clone();
            for (int i = 0; i <= round % 4; i++) {
                damaged[random.nextInt(damaged.length)] = (byte) random.nextInt();
            }
            try {
                assertEquals(input.length,
                        compressor.decompress(damaged, 0, damaged.length, input.length).length);
            } catch (RustyDBException e) {
                assertEquals("DECOMPRESSION_FAILED", e.getCode());
            }
        }
    }

    @Test
    void snappyReadsEveryKindOfElement() {
        // A literal, copies with distances of one, two and four bytes, and a long literal.
        byte[] packed = VectorsTest.hex("12" + "0c61626364" + "0104" + "060400" + "0704000000"
                + "f005" + "313233343536");
        byte[] plain = new Snappy().decompress(packed, 0, packed.length, 18);
        assertEquals("abcdabcdabcd123456", new String(plain, StandardCharsets.US_ASCII));
    }

    @ParameterizedTest
    @EnumSource(CompressionType.class)
    void framesComeBackWithAndWithoutChecksum(CompressionType type) throws IOException {
        for (boolean checksum : new boolean[] {false, true}) {
            FrameCodec codec = new FrameCodec();
            codec.agree(type, checksum, Frame.MAX_PAYLOAD);
            for (String sql : new String[] {"SELECT 1", "SELECT '" + "x".repeat(5000) + "'"}) {
                Message query = Requests.query(QueryOptions.DEFAULT, sql);
                byte[] bytes = codec.encode(query, 0, 9);
                Frame frame = codec.read(new ByteArrayInputStream(bytes));
                assertEquals(query, frame.message());
                assertEquals(sql.length() > 1024 && type != CompressionType.NONE,
                        frame.has(Frame.COMPRESSED));
                assertEquals(checksum, frame.has(Frame.CHECKSUM));
                assertEquals(bytes.length - Frame.HEADER_BYTES, frame.wireBytes());
            }
        }
    }

    @Test
    void secretsAreNeverCompressed() {
        FrameCodec codec = new FrameCodec();
        codec.agree(CompressionType.LZ4, false, Frame.MAX_PAYLOAD);
        byte[] frame = codec.encode(new AuthMessage.Password("p".repeat(5000)), 0, 2);
        assertEquals(0, frame[4] & Frame.COMPRESSED);
    }

    @Test
    void aMessageLargerThanAgreedIsNotSent() {
        FrameCodec codec = new FrameCodec();
        codec.agree(CompressionType.LZ4, false, 65_536);
        Message message = Requests.query(QueryOptions.DEFAULT, "x".repeat(70_000));
        RustyDBException error =
                assertThrows(RustyDBException.class, () -> codec.encode(message, 0, 3));
        assertEquals("54000", error.getSqlState());
    }

    @Test
    void aFrameWithoutTheAgreedChecksumIsRefused() {
        FrameCodec plain = new FrameCodec();
        byte[] bytes = plain.encode(new Message.Ping(), Frame.URGENT, 3);
        FrameCodec checking = new FrameCodec();
        checking.agree(CompressionType.NONE, true, Frame.MAX_PAYLOAD);
        assertThrows(RustyDBException.class,
                () -> checking.read(new ByteArrayInputStream(bytes)));
        byte[] checked = checking.encode(new Message.Ping(), Frame.URGENT, 3);
        for (int i = 0; i < checked.length * 8; i++) {
            byte[] damaged = Arrays.copyOf(checked, checked.length);
            damaged[i / 8] ^= (byte) (1 << i % 8);
            assertThrows(Exception.class,
                    () -> checking.read(new ByteArrayInputStream(damaged)));
        }
    }
}
