// A frame: a header of 14 bytes, the body of one message, perhaps a checksum.

import { protocolViolation, RustyDBError } from "../errors.js";
import { COMPRESSION_THRESHOLD, type Compressor } from "./compression.js";
import { crc32c } from "./crc32c.js";
import { decompressionFailed } from "./fault.js";

/** What a client says before its first frame: `RUSTYDB` and the format, 1. */
export const PREFACE = Buffer.from("RUSTYDB\x01", "latin1");

export const HEADER_SIZE = 14;
const CHECKSUM_SIZE = 4;

/** The largest payload there may be, in bytes. */
export const MAX_PAYLOAD = 16_777_216;

/** The largest payload of an urgent frame, in bytes. */
const MAX_URGENT = 64;

/** Bits of a frame's flags. */
export const flag = {
  COMPRESSED: 0x0001,
  CHECKSUM: 0x0002,
  MORE: 0x0004,
  RESPONSE: 0x0008,
  URGENT: 0x0010,
  ONEWAY: 0x0020,
  ORDERED: 0x0100,
  RESERVED: 0xfe00,
} as const;

/** Bits 6 and 7 of a frame's flags. */
export const priority = { normal: 0x0000, low: 0x0040, high: 0x0080, critical: 0x00c0 } as const;

/** A frame as it came. */
export interface Frame {
  flags: number;
  id: bigint;
  /** The body, and the checksum if there is one. */
  payload: Buffer;
  /** The 14 bytes before it. */
  header: Buffer;
}

/** What was agreed for the bodies of one connection. */
export interface Agreement {
  compressor?: Compressor | undefined;
  checksum: boolean;
  /** The largest payload, and the largest body after decompression, in bytes. */
  maxMessageSize: number;
}

/**
 * A frame ready to be sent. `message` is an encoded message with `HEADER_SIZE` bytes left in front,
 * which are overwritten.
 */
export function encodeFrame(
  flags: number, id: bigint, message: Buffer, agreement: Agreement,
): Buffer {
  const compressed = compress(message, agreement);
  let frame = compressed ?? message;
  let bits = flags | (compressed === undefined ? 0 : flag.COMPRESSED);
  const size = frame.length - HEADER_SIZE + (agreement.checksum ? CHECKSUM_SIZE : 0);
  const rawSize = message.length - HEADER_SIZE;
  if (Math.max(size, rawSize) > agreement.maxMessageSize) {
    const text = `a message of ${Math.max(size, rawSize)} bytes is larger than the server accepts`;
    const hint = `The limit is ${agreement.maxMessageSize} bytes; send fewer rows per message.`;
    throw new RustyDBError("54000", "PAYLOAD_TOO_LARGE", text, { hint });
  }
  if (agreement.checksum) {
    bits |= flag.CHECKSUM;
    frame = Buffer.concat([frame, Buffer.alloc(CHECKSUM_SIZE)]);
  }
  frame.writeUInt32LE(size, 0);
  frame.writeUInt16LE(bits, 4);
  frame.writeBigUInt64LE(id, 6);
  if (agreement.checksum) {
    const end = frame.length - CHECKSUM_SIZE;
    frame.writeUInt32LE(crc32c(frame.subarray(0, end)), end);
  }
  return frame;
}

/** Header space, size and compressed body, if that is worth it. */
function compress(message: Buffer, { compressor }: Agreement): Buffer | undefined {
  const body = message.subarray(HEADER_SIZE);
  if (compressor === undefined || body.length < COMPRESSION_THRESHOLD) return undefined;
  const compressed = compressor.compress(body);
  if (compressed.length + 4 >= body.length) return undefined;
  const frame = Buffer.allocUnsafe(HEADER_SIZE + 4 + compressed.length);
  frame.writeUInt32LE(body.length, HEADER_SIZE);
  frame.set(compressed, HEADER_SIZE + 4);
  return frame;
}

/** The encoded message in a frame: its checksum verified, decompressed. */
export function frameBody(frame: Frame, agreement: Agreement): Buffer {
  let body = frame.payload;
  if (frame.flags & flag.CHECKSUM) {
    if (body.length < CHECKSUM_SIZE) throw protocolViolation("a checksum is missing");
    const end = body.length - CHECKSUM_SIZE;
    const stated = body.readUInt32LE(end);
    body = body.subarray(0, end);
    if (crc32c(frame.header, body) !== stated) {
      throw protocolViolation("the checksum of a frame is wrong", "CHECKSUM_MISMATCH");
    }
  } else if (agreement.checksum) {
    throw protocolViolation("a frame has no checksum, although checksums were agreed");
  }
  if (!(frame.flags & flag.COMPRESSED)) return body;
  if (agreement.compressor === undefined) {
    throw protocolViolation("a body is compressed, although no compression was agreed");
  }
  if (body.length < 4) throw decompressionFailed("an unknown size");
  const size = body.readUInt32LE(0);
  if (size > agreement.maxMessageSize) throw decompressionFailed("too large a size");
  return agreement.compressor.decompress(body.subarray(4), size);
}

/** Cuts the bytes of a connection into frames. Holds no more than what really came. */
export class FrameReader {
  /** The largest payload that is accepted, in bytes. */
  maxMessageSize = MAX_PAYLOAD;
  #chunks: Buffer[] = [];
  #available = 0;
  #header: Buffer | undefined;

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#available += chunk.length;
  }

  /** The next frame, if all of it has come. */
  next(): Frame | undefined {
    if (this.#header === undefined) {
      if (this.#available < HEADER_SIZE) return undefined;
      this.#header = this.#take(HEADER_SIZE);
      this.#checkHeader(this.#header);
    }
    const header = this.#header;
    const length = header.readUInt32LE(0);
    if (this.#available < length) return undefined;
    this.#header = undefined;
    const payload = this.#take(length);
    return { flags: header.readUInt16LE(4), id: header.readBigUInt64LE(6), payload, header };
  }

  #checkHeader(header: Buffer): void {
    const length = header.readUInt32LE(0);
    if (length > this.maxMessageSize) {
      throw protocolViolation(`a frame of ${length} bytes is too large`, "PAYLOAD_TOO_LARGE");
    }
    const flags = header.readUInt16LE(4);
    if (flags & flag.RESERVED) throw protocolViolation("a reserved flag is set");
    if (flags & flag.URGENT && length > MAX_URGENT) {
      throw protocolViolation(`an urgent frame is larger than ${MAX_URGENT} bytes`);
    }
  }

  /** Whether a frame has begun and is not complete. */
  get isInsideFrame(): boolean {
    return this.#available > 0 || this.#header !== undefined;
  }

  #take(count: number): Buffer {
    this.#available -= count;
    const first = this.#chunks[0];
    if (first !== undefined && first.length >= count) {
      if (first.length === count) this.#chunks.shift();
      else this.#chunks[0] = first.subarray(count);
      return first.subarray(0, count);
    }
    const parts: Buffer[] = [];
    let missing = count;
    while (missing > 0) {
      const chunk = this.#chunks.shift()!;
      parts.push(chunk.subarray(0, missing));
      if (chunk.length > missing) this.#chunks.unshift(chunk.subarray(missing));
      missing -= Math.min(missing, chunk.length);
    }
    return Buffer.concat(parts);
  }
}
