// The block format of LZ4: sequences of literals, each but the last followed by a match.

import { decompressionFailed } from "./fault.js";

const MIN_MATCH = 4;
// A match may neither begin in the last 12 bytes nor reach into the last 5.
const NO_MATCH_BEGINS = 12;
const LAST_LITERALS = 5;
const HASH_BITS = 13;

/** One block; it may be larger than `input` if that does not compress. */
export function lz4Compress(input: Buffer): Buffer {
  const out = Buffer.allocUnsafe(input.length + Math.ceil(input.length / 255) + 16);
  const seen = new Int32Array(1 << HASH_BITS).fill(-1);
  const lastStart = input.length - NO_MATCH_BEGINS;
  const matchLimit = input.length - LAST_LITERALS;
  let at = 0;
  let anchor = 0;
  let length = 0;
  while (at < lastStart) {
    const word = input.readUInt32LE(at);
    const slot = Math.imul(word, 0x9e37_79b1) >>> (32 - HASH_BITS);
    const candidate = seen[slot]!;
    seen[slot] = at;
    const near = candidate >= 0 && at - candidate <= 0xffff;
    if (!near || input.readUInt32LE(candidate) !== word) {
      // The longer nothing was found, the larger the steps.
      at += 1 + ((at - anchor) >> 6);
      continue;
    }
    let end = at + MIN_MATCH;
    for (let from = candidate + MIN_MATCH; end < matchLimit && input[end] === input[from]; from++) {
      end++;
    }
    length = writeSequence(out, length, input, anchor, at, end - at);
    out.writeUInt16LE(at - candidate, length);
    length = writeExtra(out, length + 2, end - at - MIN_MATCH);
    at = end;
    anchor = end;
  }
  length = writeSequence(out, length, input, anchor, input.length, MIN_MATCH);
  return out.subarray(0, length);
}

/** The token and the literals; gives where the offset goes. */
function writeSequence(
  out: Buffer, start: number, input: Buffer, from: number, to: number, match: number,
): number {
  const literals = to - from;
  out[start] = (Math.min(literals, 15) << 4) | Math.min(match - MIN_MATCH, 15);
  const at = writeExtra(out, start + 1, literals);
  input.copy(out, at, from, to);
  return at + literals;
}

/** What of a length did not fit the four bits of the token. */
function writeExtra(out: Buffer, start: number, length: number): number {
  let at = start;
  if (length < 15) return at;
  let rest = length - 15;
  for (; rest >= 255; rest -= 255) out[at++] = 255;
  out[at++] = rest;
  return at;
}

/** The `size` bytes that a block stands for; anything else is an error. */
export function lz4Decompress(input: Buffer, size: number): Buffer {
  // No byte of a block stands for more than 255.
  if (size > input.length * 255) throw decompressionFailed("LZ4");
  const out = Buffer.allocUnsafe(size);
  let from = 0;
  let to = 0;

  const byte = (): number => {
    if (from >= input.length) throw decompressionFailed("LZ4");
    return input[from++]!;
  };
  const extended = (nibble: number): number => {
    let length = nibble;
    if (nibble === 15) {
      let more: number;
      do {
        more = byte();
        length += more;
      } while (more === 255);
    }
    return length;
  };

  for (;;) {
    const token = byte();
    const literals = extended(token >> 4);
    if (literals > input.length - from || literals > size - to) throw decompressionFailed("LZ4");
    input.copy(out, to, from, from + literals);
    from += literals;
    to += literals;
    if (from === input.length) break;
    const offset = byte() | (byte() << 8);
    const length = extended(token & 15) + MIN_MATCH;
    if (offset === 0 || offset > to || length > size - to) throw decompressionFailed("LZ4");
    copyWithin(out, to, offset, length);
    to += length;
  }
  if (to !== size) throw decompressionFailed("LZ4");
  return out;
}

/** Copies what lies `offset` bytes back, which may overlap what is being written. */
export function copyWithin(out: Buffer, to: number, offset: number, length: number): void {
  if (offset >= length) {
    out.copyWithin(to, to - offset, to - offset + length);
    return;
  }
  for (let i = 0; i < length; i++) out[to + i] = out[to - offset + i]!;
}
