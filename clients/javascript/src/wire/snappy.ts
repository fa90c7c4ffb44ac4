// The raw block format of Snappy: the size, then literals and copies.

import { copyWithin } from "./lz4.js";
import { decompressionFailed } from "./fault.js";

// Copies do not reach out of a block of this size, so two bytes are enough for an offset.
const BLOCK = 0x1_0000;
const HASH_BITS = 13;
const LITERAL = 0;
const COPY_1 = 1;
const COPY_2 = 2;
const MAX_COPY = 64;

/** One block; it may be larger than `input` if that does not compress. */
export function snappyCompress(input: Buffer): Buffer {
  const out = Buffer.allocUnsafe(32 + input.length + Math.ceil(input.length / 6));
  let length = writeSize(out, input.length);
  for (let start = 0; start < input.length; start += BLOCK) {
    length = compressBlock(input, start, Math.min(start + BLOCK, input.length), out, length);
  }
  return out.subarray(0, length);
}

function writeSize(out: Buffer, size: number): number {
  let at = 0;
  let rest = size;
  for (; rest >= 0x80; rest >>>= 7) out[at++] = (rest & 0x7f) | 0x80;
  out[at++] = rest;
  return at;
}

function compressBlock(
  input: Buffer, start: number, stop: number, out: Buffer, written: number,
): number {
  const seen = new Int32Array(1 << HASH_BITS).fill(-1);
  let at = start;
  let anchor = start;
  let length = written;
  while (at + 4 <= stop) {
    const word = input.readUInt32LE(at);
    const slot = Math.imul(word, 0x1e35_a7bd) >>> (32 - HASH_BITS);
    const candidate = seen[slot]!;
    seen[slot] = at;
    if (candidate < 0 || input.readUInt32LE(candidate) !== word) {
      at += 1 + ((at - anchor) >> 6);
      continue;
    }
    let end = at + 4;
    for (let from = candidate + 4; end < stop && input[end] === input[from]; from++) end++;
    length = writeLiteral(input, anchor, at, out, length);
    length = writeCopy(at - candidate, end - at, out, length);
    at = end;
    anchor = end;
  }
  return writeLiteral(input, anchor, stop, out, length);
}

function writeLiteral(input: Buffer, from: number, to: number, out: Buffer, start: number): number {
  const count = to - from;
  let at = start;
  if (count === 0) return at;
  if (count <= 60) {
    out[at++] = ((count - 1) << 2) | LITERAL;
  } else if (count <= 0x100) {
    out[at++] = (60 << 2) | LITERAL;
    out[at++] = count - 1;
  } else {
    out[at++] = (61 << 2) | LITERAL;
    at = out.writeUInt16LE(count - 1, at);
  }
  input.copy(out, at, from, to);
  return at + count;
}

function writeCopy(offset: number, total: number, out: Buffer, start: number): number {
  let at = start;
  for (let rest = total; rest > 0; ) {
    const count = Math.min(rest, MAX_COPY);
    out[at++] = ((count - 1) << 2) | COPY_2;
    at = out.writeUInt16LE(offset, at);
    rest -= count;
  }
  return at;
}

/** The `size` bytes that a block stands for; anything else is an error. */
export function snappyDecompress(input: Buffer, size: number): Buffer {
  const fail = () => decompressionFailed("Snappy");
  let from = 0;
  const unsigned = (count: number): number => {
    if (count > input.length - from) throw fail();
    from += count;
    return input.readUIntLE(from - count, count);
  };

  if (readSize(unsigned, fail) !== size) throw fail();
  // Three bytes stand for 64 at most.
  if (size > input.length * 22 + MAX_COPY) throw fail();
  const out = Buffer.allocUnsafe(size);
  let to = 0;
  while (from < input.length) {
    const tag = unsigned(1);
    const kind = tag & 3;
    let length = (tag >> 2) + 1;
    if (kind === LITERAL) {
      if (length > 60) length = unsigned(length - 60) + 1;
      if (length > input.length - from || length > size - to) throw fail();
      input.copy(out, to, from, from + length);
      from += length;
    } else {
      let offset: number;
      if (kind === COPY_1) {
        length = ((tag >> 2) & 7) + 4;
        offset = ((tag >> 5) << 8) | unsigned(1);
      } else {
        offset = unsigned(kind === COPY_2 ? 2 : 4);
      }
      if (offset === 0 || offset > to || length > size - to) throw fail();
      copyWithin(out, to, offset, length);
    }
    to += length;
  }
  if (to !== size) throw fail();
  return out;
}

function readSize(unsigned: (count: number) => number, fail: () => Error): number {
  let size = 0;
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = unsigned(1);
    size += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return size;
  }
  throw fail();
}
