// Bincode 2 (`config::standard()`): little-endian, integers of variable length, signed ones zigzag.

import { isUtf8 } from "node:buffer";
import { outOfRange, protocolViolation, RustyDBError } from "../errors.js";

// How a variable-length integer begins when it is not one byte; 2, 4 or 8 bytes follow.
const TWO = 251;
const FOUR = 252;
const EIGHT = 253;

const U64_MAX = 0xffff_ffff_ffff_ffffn;
const I64_MIN = -(1n << 63n);
const I64_MAX = (1n << 63n) - 1n;

/** Builds one message body. */
export class Writer {
  #buffer: Buffer;
  #length = 0;

  /** `reserve` bytes at the front are left for a header. */
  constructor(reserve = 0) {
    this.#buffer = Buffer.allocUnsafe(256);
    this.#length = reserve;
  }

  /** How many bytes there are, the reserved ones included. */
  get length(): number {
    return this.#length;
  }

  /** All that was written. The writer must not be used afterwards. */
  finish(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  #room(count: number): number {
    const at = this.#length;
    const needed = at + count;
    if (needed > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, this.#buffer.length * 2));
      this.#buffer.copy(larger, 0, 0, at);
      this.#buffer = larger;
    }
    this.#length = needed;
    return at;
  }

  #byte(value: number): void {
    // The room first: it may replace the buffer.
    const at = this.#room(1);
    this.#buffer[at] = value;
  }

  u8(value: number): void {
    checkInteger(value, 0, 0xff);
    this.#byte(value);
  }

  i8(value: number): void {
    checkInteger(value, -0x80, 0x7f);
    this.#byte(value & 0xff);
  }

  u16(value: number): void {
    checkInteger(value, 0, 0xffff);
    this.#varint(value);
  }

  u32(value: number): void {
    checkInteger(value, 0, 0xffff_ffff);
    this.#varint(value);
  }

  u64(value: bigint): void {
    if (value < 0n || value > U64_MAX) throw outOfRange(`${value} does not fit 64 unsigned bits`);
    if (value <= 0xffff_ffffn) return this.#varint(Number(value));
    const at = this.#room(9);
    this.#buffer[at] = EIGHT;
    this.#buffer.writeBigUInt64LE(value, at + 1);
  }

  i16(value: number): void {
    checkInteger(value, -0x8000, 0x7fff);
    this.#varint(zigzag(value));
  }

  i32(value: number): void {
    checkInteger(value, -0x8000_0000, 0x7fff_ffff);
    this.#varint(zigzag(value));
  }

  i64(value: bigint): void {
    if (value < I64_MIN || value > I64_MAX) throw outOfRange(`${value} does not fit 64 bits`);
    this.u64(value >= 0n ? value * 2n : -value * 2n - 1n);
  }

  bool(value: boolean): void {
    this.#byte(value ? 1 : 0);
  }

  f32(value: number): void {
    const at = this.#room(4);
    this.#buffer.writeFloatLE(value, at);
  }

  f64(value: number): void {
    const at = this.#room(8);
    this.#buffer.writeDoubleLE(value, at);
  }

  /** The number of elements that follow, or of a variant. */
  count(value: number): void {
    this.#varint(value);
  }

  str(value: string): void {
    const size = Buffer.byteLength(value);
    this.#varint(size);
    const at = this.#room(size);
    this.#buffer.write(value, at, size, "utf8");
  }

  /** A count, then the bytes. */
  bytes(value: Uint8Array): void {
    this.#varint(value.length);
    this.raw(value);
  }

  /** The bytes alone. */
  raw(value: Uint8Array): void {
    const at = this.#room(value.length);
    this.#buffer.set(value, at);
  }

  /** 0 ≤ value < 2^32, or a length, which is smaller still. */
  #varint(value: number): void {
    if (value < TWO) {
      this.#byte(value);
    } else if (value <= 0xffff) {
      const at = this.#room(3);
      this.#buffer[at] = TWO;
      this.#buffer.writeUInt16LE(value, at + 1);
    } else {
      const at = this.#room(5);
      this.#buffer[at] = FOUR;
      this.#buffer.writeUInt32LE(value, at + 1);
    }
  }
}

function checkInteger(value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw outOfRange(`${value} is not an integer between ${least} and ${most}`);
  }
}

function zigzag(value: number): number {
  return value >= 0 ? value * 2 : -value * 2 - 1;
}

function unzigzag(value: number): number {
  return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
}

/** How many values may lie inside each other: arrays, ranges, composites. */
const MAX_NESTING = 32;

/** No message that is within the limits of the protocol has this many elements. */
const MAX_COUNT = 1n << 26n;

/** Reads one message body. What it reads comes from a stranger: nothing is believed unseen. */
export class Reader {
  readonly #buffer: Buffer;
  #at = 0;
  #depth = 0;

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  /** Refuses bytes that nobody asked for. */
  finish(): void {
    if (this.#at !== this.#buffer.length) {
      throw protocolViolation("bytes are left over after the message");
    }
  }

  /** Begins a value inside of what is being read. */
  enter(): void {
    if (this.#depth > MAX_NESTING) {
      const message = `values are nested deeper than ${MAX_NESTING}`;
      throw new RustyDBError("54000", "PAYLOAD_TOO_LARGE", message);
    }
    this.#depth += 1;
  }

  /** Ends it. */
  leave(): void {
    this.#depth -= 1;
  }

  #take(count: number): number {
    const at = this.#at;
    if (count > this.#buffer.length - at) {
      throw protocolViolation("the message ends inside a value");
    }
    this.#at = at + count;
    return at;
  }

  u8(): number {
    return this.#buffer[this.#take(1)]!;
  }

  i8(): number {
    return (this.u8() << 24) >> 24;
  }

  u16(): number {
    const first = this.u8();
    if (first < TWO) return first;
    if (first === TWO) return this.#buffer.readUInt16LE(this.#take(2));
    throw protocolViolation("an integer is wider than its type");
  }

  u32(): number {
    const first = this.u8();
    if (first < TWO) return first;
    if (first === TWO) return this.#buffer.readUInt16LE(this.#take(2));
    if (first === FOUR) return this.#buffer.readUInt32LE(this.#take(4));
    throw protocolViolation("an integer is wider than its type");
  }

  u64(): bigint {
    const first = this.u8();
    if (first < TWO) return BigInt(first);
    if (first === TWO) return BigInt(this.#buffer.readUInt16LE(this.#take(2)));
    if (first === FOUR) return BigInt(this.#buffer.readUInt32LE(this.#take(4)));
    if (first === EIGHT) return this.#buffer.readBigUInt64LE(this.#take(8));
    throw protocolViolation("an integer is wider than its type");
  }

  i16(): number {
    return unzigzag(this.u16());
  }

  i32(): number {
    return unzigzag(this.u32());
  }

  i64(): bigint {
    const value = this.u64();
    return (value & 1n) === 0n ? value >> 1n : -((value >> 1n) + 1n);
  }

  bool(): boolean {
    const byte = this.u8();
    if (byte > 1) throw protocolViolation("a truth value is neither 0 nor 1");
    return byte === 1;
  }

  f32(): number {
    return this.#buffer.readFloatLE(this.#take(4));
  }

  f64(): number {
    return this.#buffer.readDoubleLE(this.#take(8));
  }

  /** The number of elements that follow; each takes a byte at least. */
  count(): number {
    const value = this.u64();
    if (value > MAX_COUNT) {
      const message = `${value} elements in one message are too many`;
      throw new RustyDBError("54000", "PAYLOAD_TOO_LARGE", message);
    }
    if (value > BigInt(this.#buffer.length - this.#at)) {
      throw protocolViolation("more elements are announced than there are bytes");
    }
    return Number(value);
  }

  str(): string {
    const size = this.count();
    const at = this.#take(size);
    const text = this.#buffer.toString("utf8", at, at + size);
    // Invalid bytes become U+FFFD; only then the bytes need a second look.
    if (text.includes("\ufffd") && !isUtf8(this.#buffer.subarray(at, at + size))) {
      throw protocolViolation("a string is not UTF-8");
    }
    return text;
  }

  /** Bytes after their count, as a copy, so that they do not hold on to a whole frame. */
  bytes(): Buffer {
    return this.raw(this.count());
  }

  /** `size` bytes, as a copy. */
  raw(size: number): Buffer {
    const at = this.#take(size);
    return Buffer.from(this.#buffer.subarray(at, at + size));
  }
}
