// The wire format against the vectors, and against damage.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { RustyDBError } from "../src/errors.js";
import { Reader, Writer } from "../src/wire/buffer.js";
import {
  bytes, f32, f64, i16, i32, i64, i8, option, pair, str, u16, u32, u64, u8, vec, type Codec,
} from "../src/wire/codec.js";
import { compressors, type Compressor } from "../src/wire/compression.js";
import { crc32c } from "../src/wire/crc32c.js";
import {
  encodeFrame, flag, frameBody, FrameReader, HEADER_SIZE, MAX_PAYLOAD, PREFACE, type Agreement,
} from "../src/wire/frame.js";
import { decodeMessage, encodeMessage, type CompressionType } from "../src/wire/message.js";
import { valueCodec } from "../src/wire/value.js";
import { frameContentSize } from "../src/wire/zstd.js";
import { fromHex, normalised, toJson, vectors } from "./vectors.js";

const ALL: CompressionType[] = ["Zstd", "Lz4", "Snappy"];
const available = await compressors(ALL);

function encodeWith<T>(codec: Codec<T>, value: T): Buffer {
  const writer = new Writer();
  codec.write(writer, value);
  return writer.finish();
}

function decodeWith<T>(codec: Codec<T>, input: Buffer): T {
  const reader = new Reader(input);
  const value = codec.read(reader);
  reader.finish();
  return value;
}

function agreement(flags: number, compression?: CompressionType): Agreement {
  return {
    checksum: (flags & flag.CHECKSUM) !== 0,
    compressor: available.get(compression ?? "Lz4"),
    maxMessageSize: MAX_PAYLOAD,
  };
}

describe("primitives", () => {
  const fourBytes: Codec<Uint8Array> = { write: (w, v) => w.raw(v), read: (r) => r.raw(4) };
  const codecs: Record<string, Codec<any>> = {
    u8, i8, u16, u32, u64, i16, i32, i64, f32, f64,
    String: str,
    "Option<u32>": option(u32),
    "Vec<u8>": bytes,
    "Vec<u32>": vec(u32),
    "[u8;4]": fourBytes,
    "(String,String)": pair(str, str),
  };
  for (const { type, value, bytes: hex } of vectors.primitives) {
    it(`${type} ${JSON.stringify(value)}`, () => {
      const codec = codecs[type];
      assert.ok(codec, `no codec for ${type}`);
      const decoded = decodeWith(codec, fromHex(hex));
      assert.deepEqual(normalised(toJson(decoded)), normalised(value));
      assert.deepEqual(encodeWith(codec, decoded), fromHex(hex));
    });
  }

  it("grow over any border", () => {
    const codec = vec(u16);
    for (let count = 240; count < 270; count++) {
      const values = Array.from({ length: count }, (_, i) => i);
      assert.deepEqual(decodeWith(codec, encodeWith(codec, values)), values);
    }
  });

  it("refuses numbers that do not fit", () => {
    const cases: [Codec<any>, unknown][] = [
      [u8, 256], [i8, -129], [u16, 65_536], [u16, 1.5], [u32, -1], [u32, 2 ** 32],
      [i16, 32_768], [i32, 2 ** 31], [i32, NaN], [i64, 1n << 63n], [u64, -1n], [u64, 1n << 64n],
    ];
    for (const [codec, value] of cases) {
      assert.throws(() => encodeWith(codec, value), { sqlstate: "22003" }, String(value));
    }
  });
});

describe("values", () => {
  for (const { name, value, bytes: hex } of vectors.values) {
    it(name, () => {
      const decoded = decodeWith(valueCodec, fromHex(hex));
      assert.deepEqual(normalised(toJson(decoded)), normalised(value));
      assert.deepEqual(encodeWith(valueCodec, decoded), fromHex(hex));
    });
  }
});

describe("frames", () => {
  for (const vector of vectors.frames) {
    it(vector.name, () => {
      const input = fromHex(vector.bytes);
      const reader = new FrameReader();
      reader.push(input);
      const frame = reader.next();
      assert.ok(frame);
      assert.equal(frame.flags, vector.flags);
      assert.equal(String(frame.id), vector.id);
      const agreed = agreement(frame.flags, vector.compression);
      const message = decodeMessage(frameBody(frame, agreed));
      assert.deepEqual(normalised(toJson(message)), normalised(vector.message));
      const flags = frame.flags & ~(flag.CHECKSUM | flag.COMPRESSED);
      const again = encodeFrame(flags, frame.id, encodeMessage(message, HEADER_SIZE), agreed);
      // Compressed bodies are the encoder's own choice.
      if (vector.compression === undefined) assert.deepEqual(again, input);
    });
  }

  it("follow a preface", () => {
    assert.deepEqual(PREFACE, fromHex("52 55 53 54 59 44 42 01"));
  });

  it("come out whole, however the bytes arrive", () => {
    const reader = new FrameReader();
    const inputs = vectors.frames.map((frame) => fromHex(frame.bytes));
    const all = Buffer.concat(inputs);
    const found: Buffer[] = [];
    for (let at = 0, step = 1; at < all.length; at += step, step = (step % 37) + 1) {
      reader.push(all.subarray(at, at + step));
      for (let frame = reader.next(); frame; frame = reader.next()) {
        found.push(Buffer.concat([frame.header, frame.payload]));
      }
    }
    assert.deepEqual(found, inputs);
    assert.equal(reader.isInsideFrame, false);
  });

  it("are not waited for by their announced length", () => {
    const reader = new FrameReader();
    reader.push(fromHex("00 00 00 01 00 00 01 00 00 00 00 00 00 00 10"));
    assert.equal(reader.next(), undefined);
    assert.equal(reader.isInsideFrame, true);
  });

  it("are refused when they are larger than was agreed, before they are sent", () => {
    const message = encodeMessage({ kind: "Close", value: { reason: "x".repeat(70_000) } }, 14);
    const agreed = { checksum: false, maxMessageSize: 65_536 };
    assert.throws(() => encodeFrame(0, 1n, message, agreed), {
      sqlstate: "54000",
      code: "PAYLOAD_TOO_LARGE",
    });
  });
});

describe("what is refused", () => {
  const decode: Record<string, (input: Buffer) => unknown> = {
    value: (input) => decodeWith(valueCodec, input),
    message: (input) => decodeMessage(input),
    frame(input) {
      const reader = new FrameReader();
      reader.push(input);
      const frame = reader.next();
      if (frame === undefined) {
        assert.ok(reader.isInsideFrame);
        throw new RustyDBError("08P01", "PROTOCOL_VIOLATION", "ends inside a frame");
      }
      return decodeMessage(frameBody(frame, agreement(frame.flags)));
    },
  };
  for (const { name, what, bytes: hex, sqlstate, code } of vectors.invalid) {
    it(`${what}: ${name}`, () => {
      assert.throws(() => decode[what]!(fromHex(hex)), { name: "RustyDBError", sqlstate, code });
    });
  }

  it("nothing but an error comes of damaged frames", () => {
    let seed = 1;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((seed / 2 ** 32) * below);
    };
    let decoded = 0;
    for (let round = 0; round < 20_000; round++) {
      const vector = vectors.frames[random(vectors.frames.length)]!;
      const input = fromHex(vector.bytes);
      input[random(input.length)] = random(256);
      try {
        decode["frame"]!(input);
        decoded += 1;
      } catch (error) {
        assert.ok(error instanceof RustyDBError, String(error));
      }
    }
    assert.ok(decoded > 1000);
  });
});

describe("checksum", () => {
  it("is CRC-32C", () => {
    assert.equal(crc32c(Buffer.from("123456789")), 0xe306_9283);
    assert.equal(crc32c(Buffer.from("1234"), Buffer.from("56789")), 0xe306_9283);
  });

  it("is demanded once it was agreed", () => {
    const reader = new FrameReader();
    reader.push(fromHex("01 00 00 00 10 00 08 00 00 00 00 00 00 00 10"));
    const frame = reader.next()!;
    const agreed = { checksum: true, maxMessageSize: MAX_PAYLOAD };
    assert.throws(() => frameBody(frame, agreed), { sqlstate: "08P01" });
  });
});

describe("compression", () => {
  const inputs: Record<string, Buffer> = {
    nothing: Buffer.alloc(0),
    "one byte": Buffer.from("a"),
    "thirteen bytes": Buffer.alloc(13, "ab"),
    "one byte, many times": Buffer.alloc(300_000, "a"),
    "a short period": Buffer.alloc(70_001, "abc"),
    "rows": Buffer.from(Array.from({ length: 9000 }, (_, i) => `${i};user ${i % 97};`).join("")),
    "noise": Buffer.from(Array.from({ length: 70_000 }, (_, i) => (i * i * 2_654_435_761) >>> 24)),
  };
  for (const name of ALL) {
    const compressor = available.get(name) as Compressor;
    it(`${name} is there`, () => assert.ok(compressor));
    for (const [what, input] of Object.entries(inputs)) {
      it(`${name} gives back ${what}`, () => {
        const compressed = Buffer.from(compressor.compress(input));
        assert.deepEqual(compressor.decompress(compressed, input.length), input);
      });
    }

    it(`${name} makes rows smaller, and refuses another size than the right one`, () => {
      const input = inputs["rows"]!;
      const compressed = Buffer.from(compressor.compress(input));
      assert.ok(compressed.length < input.length * 0.75);
      for (const size of [0, 1, input.length - 1, input.length + 1, MAX_PAYLOAD]) {
        const attempt = () => compressor.decompress(compressed, size);
        assert.throws(attempt, { sqlstate: "08P01", code: "DECOMPRESSION_FAILED" });
      }
    });

    it(`${name} refuses damage, or gives the stated size`, () => {
      const input = inputs["rows"]!;
      const compressed = Buffer.from(compressor.compress(input));
      for (let at = 0; at < compressed.length; at += 251) {
        const damaged = Buffer.from(compressed);
        damaged[at]! ^= 0x55;
        for (const bad of [damaged, compressed.subarray(0, at)]) {
          try {
            assert.equal(compressor.decompress(bad, input.length).length, input.length);
          } catch (error) {
            assert.ok(error instanceof RustyDBError, String(error));
          }
        }
      }
    });
  }

  it("is used for large bodies only, and only if it helps", () => {
    const agreed = agreement(0, "Lz4");
    const frame = (reason: string): Buffer =>
      encodeFrame(0, 1n, encodeMessage({ kind: "Close", value: { reason } }, HEADER_SIZE), agreed);
    assert.equal(frame("a".repeat(1000)).readUInt16LE(4), 0);
    assert.equal(frame("a".repeat(2000)).readUInt16LE(4), flag.COMPRESSED);
    const noise = inputs["noise"]!.subarray(0, 1500).toString("base64");
    assert.equal(frame(noise).readUInt16LE(4), 0);
  });

  it("reads the size that a Zstandard frame claims", () => {
    const zstd = available.get("Zstd")!;
    for (const size of [1, 255, 256, 300, 65_791, 65_792, 1_000_000]) {
      const claimed = frameContentSize(Buffer.from(zstd.compress(Buffer.alloc(size, "a"))));
      assert.equal(claimed, size);
    }
  });
});

