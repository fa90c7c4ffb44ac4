// The byte vectors that all client libraries and the server share.
package io.rustydb;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.ByteArrayInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

class VectorsTest {
    private static final byte[] PREFACE = {'R', 'U', 'S', 'T', 'Y', 'D', 'B', 1};

    private static final JsonObject VECTORS = load();

    private static JsonObject load() {
        try {
            String basedir = System.getProperty("basedir", System.getProperty("user.dir"));
            return JsonParser.parseString(Files.readString(Path.of(basedir, "..", "vectors.json")))
                    .getAsJsonObject();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static byte[] hex(String text) {
        return HexFormat.of().parseHex(text.replace(" ", ""));
    }

    private static byte[] bytes(JsonObject vector) {
        return hex(vector.get("bytes").getAsString());
    }

    private static Stream<DynamicTest> each(String kind, Check check) {
        JsonArray vectors = VECTORS.getAsJsonArray(kind);
        assertTrue(vectors.size() > 0);
        return StreamSupport.stream(vectors.spliterator(), false)
                .map(JsonElement::getAsJsonObject)
                .map(vector -> DynamicTest.dynamicTest(
                        (vector.has("name") ? vector.get("name") : vector.get("type")) + " "
                                + vector.get("bytes"),
                        () -> check.run(vector)));
    }

    private interface Check {
        void run(JsonObject vector) throws Exception;
    }

    @TestFactory
    Stream<DynamicTest> primitives() {
        return each("primitives", vector -> {
            JsonElement value = vector.get("value");
            String type = vector.get("type").getAsString();
            WireReader in = new WireReader(bytes(vector));
            WireWriter out = new WireWriter(1);
            String read = primitive(type, in, out);
            in.requireEnd();
            String expected = value.isJsonPrimitive() ? value.getAsString() : value.toString();
            assertEquals(expected, read);
            assertArrayEquals(bytes(vector), out.toByteArray());
        });
    }

    private static String primitive(String type, WireReader in, WireWriter out) {
        switch (type) {
            case "u8" -> {
                int it = in.u8();
                out.u8(it);
                return Integer.toString(it);
            }
            case "i8" -> {
                byte it = in.i8();
                out.i8(it);
                return Byte.toString(it);
            }
            case "u16" -> {
                int it = in.u16();
                out.u16(it);
                return Integer.toString(it);
            }
            case "u64" -> {
                long it = in.u64();
                out.u64(it);
                return Long.toUnsignedString(it);
            }
            case "i32" -> {
                int it = in.i32();
                out.i32(it);
                return Integer.toString(it);
            }
            case "i64" -> {
                long it = in.i64();
                out.i64(it);
                return Long.toString(it);
            }
            case "f32" -> {
                float it = in.f32();
                out.f32(it);
                return Float.toString(it);
            }
            case "f64" -> {
                double it = in.f64();
                out.f64(it);
                return Double.toString(it);
            }
            default -> {
                return compound(type, in, out);
            }
        }
    }

    private static String compound(String type, WireReader in, WireWriter out) {
        switch (type) {
            case "String" -> {
                String it = in.string();
                out.string(it);
                return it;
            }
            case "Option<u32>" -> {
                Long it = in.option(WireReader::u32);
                out.option(it, WireWriter::u32);
                return String.valueOf(it);
            }
            case "Vec<u8>" -> {
                byte[] it = in.bytes();
                out.bytes(it);
                return JsonForm.of(it).toString();
            }
            case "Vec<u32>" -> {
                List<Long> it = in.list(WireReader::u32);
                out.list(it, WireWriter::u32);
                return JsonForm.of(it).toString();
            }
            case "[u8;4]" -> {
                int[] it = {in.u8(), in.u8(), in.u8(), in.u8()};
                Arrays.stream(it).forEach(out::u8);
                return Arrays.toString(it).replace(" ", "");
            }
            case "(String,String)" -> {
                Setting it = Setting.read(in);
                Setting.write(out, it);
                return JsonForm.of(it).toString();
            }
            default -> throw new AssertionError("no test for " + type);
        }
    }

    @TestFactory
    Stream<DynamicTest> values() {
        return each("values", vector -> {
            WireReader in = new WireReader(bytes(vector));
            Value value = ValueWire.read(in);
            in.requireEnd();
            JsonElement actual = JsonForm.of(value);
            assertTrue(JsonForm.same(vector.get("value"), actual), actual::toString);
            WireWriter out = new WireWriter(1);
            ValueWire.write(out, value);
            assertArrayEquals(bytes(vector), out.toByteArray());
        });
    }

    @TestFactory
    Stream<DynamicTest> frames() {
        return each("frames", vector -> {
            byte[] bytes = bytes(vector);
            if (Arrays.equals(PREFACE, 0, 8, bytes, 0, Math.min(8, bytes.length))) {
                bytes = Arrays.copyOfRange(bytes, 8, bytes.length);
            }
            int flags = vector.get("flags").getAsInt();
            FrameCodec codec = codec(flags);
            Frame frame = codec.read(new ByteArrayInputStream(bytes));
            assertEquals(flags, frame.flags());
            assertEquals(vector.get("id").getAsString(), Long.toUnsignedString(frame.id()));
            Message message = frame.message();
            JsonElement actual = JsonForm.ofMessage(message);
            assertTrue(JsonForm.same(vector.get("message"), actual), actual::toString);
            if (frame.has(Frame.COMPRESSED)) {
                byte[] again = codec(0).encode(message, 0, frame.id());
                assertArrayEquals(frame.body(), Arrays.copyOfRange(again, 14, again.length));
            } else {
                int plain = flags & ~Frame.CHECKSUM;
                assertArrayEquals(bytes, codec.encode(message, plain, frame.id()));
            }
        });
    }

    private static FrameCodec codec(int flags) {
        FrameCodec codec = new FrameCodec();
        codec.agree((flags & Frame.COMPRESSED) != 0 ? CompressionType.LZ4 : CompressionType.NONE,
                (flags & Frame.CHECKSUM) != 0, Frame.MAX_PAYLOAD);
        return codec;
    }

    @TestFactory
    Stream<DynamicTest> invalid() {
        return each("invalid", vector -> {
            byte[] bytes = bytes(vector);
            String what = vector.get("what").getAsString();
            Exception error = assertThrows(Exception.class, () -> decode(what, bytes));
            if (error instanceof EOFException) {
                assertTrue(vector.get("name").getAsString().endsWith("then the end"));
                return;
            }
            RustyDBException refusal = (RustyDBException) error;
            assertEquals(vector.get("sqlstate").getAsString(), refusal.getSqlState());
            assertEquals(vector.get("code").getAsString(), refusal.getCode());
        });
    }

    private static Object decode(String what, byte[] bytes) throws IOException {
        switch (what) {
            case "frame" -> {
                FrameCodec codec = new FrameCodec();
                codec.agree(CompressionType.LZ4, false, Frame.MAX_PAYLOAD);
                return codec.read(new ByteArrayInputStream(bytes)).message();
            }
            case "message" -> {
                return Message.decode(bytes);
            }
            case "value" -> {
                WireReader in = new WireReader(bytes);
                Value value = ValueWire.read(in);
                in.requireEnd();
                return value;
            }
            default -> throw new AssertionError("no test for " + what);
        }
    }

    @Test
    void everyPrefixOfAFrameIsRefused() {
        byte[] frame = hex("270000000800030000000000000004000108"
                + "3f636f6c756d6e3f1704696e74340108000000010103020108"
                + "53454c4543542031fa00");
        Message message = Message.decode(Arrays.copyOfRange(frame, 14, frame.length));
        assertTrue(message instanceof Message.QueryResponse);
        for (int length = 1; length < frame.length; length++) {
            byte[] prefix = Arrays.copyOf(frame, length);
            assertThrows(IOException.class,
                    () -> new FrameCodec().read(new ByteArrayInputStream(prefix)));
        }
        for (int length = 14; length < frame.length; length++) {
            byte[] prefix = Arrays.copyOfRange(frame, 14, length);
            assertThrows(RustyDBException.class, () -> Message.decode(prefix));
        }
    }

    @Test
    void longerFormsOfNumbersAreRead() {
        assertEquals(1, new WireReader(hex("fb0100")).u64());
        assertEquals(1, new WireReader(hex("fd0100000000000000")).u64());
        assertThrows(RustyDBException.class, () -> new WireReader(hex("fc01000000")).u16());
    }
}
