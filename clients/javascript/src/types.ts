// Types of PostgreSQL that JavaScript has no counterpart for.

import { malformedValue, usageError } from "./errors.js";

/** Numbers of PostgreSQL's built-in types, for `param_types` and elements of arrays. */
export const oid = {
  bool: 16, bytea: 17, char: 18, name: 19, int8: 20, int2: 21, int4: 23, text: 25, oid: 26,
  xid: 28, cid: 29, json: 114, xml: 142, point: 600, path: 602, cidr: 650, float4: 700,
  float8: 701, macaddr8: 774, money: 790, macaddr: 829, inet: 869, bpchar: 1042, varchar: 1043,
  date: 1082, time: 1083, timestamp: 1114, timestamptz: 1184, interval: 1186, timetz: 1266,
  bit: 1560, varbit: 1562, numeric: 1700, record: 2249, uuid: 2950, pg_lsn: 3220,
  tsvector: 3614, tsquery: 3615, jsonb: 3802,
} as const;

const MICROS_PER_SECOND = 1_000_000;

/** What an interval can be made of; everything that is left out is 0. */
export interface IntervalParts {
  years?: number;
  months?: number;
  days?: number;
  hours?: number;
  minutes?: number;
  /** May have a fraction, to the microsecond. */
  seconds?: number;
  micros?: bigint;
}

/** An interval: months, days and microseconds, which do not convert into each other. */
export class Interval {
  readonly months: number;
  readonly days: number;
  readonly micros: bigint;

  constructor(parts: IntervalParts) {
    this.months = (parts.years ?? 0) * 12 + (parts.months ?? 0);
    this.days = parts.days ?? 0;
    const seconds = (parts.hours ?? 0) * 3600 + (parts.minutes ?? 0) * 60 + (parts.seconds ?? 0);
    this.micros = (parts.micros ?? 0n) + BigInt(Math.round(seconds * MICROS_PER_SECOND));
  }

  /** ISO 8601, for example `P1M2DT3.5S`, which PostgreSQL reads. */
  toString(): string {
    const infinity = this.#infinity();
    if (infinity !== undefined) return infinity;
    const months = this.months === 0 ? "" : `${this.months}M`;
    const date = this.days === 0 ? months : `${months}${this.days}D`;
    if (this.micros === 0n) return date === "" ? "PT0S" : `P${date}`;
    const sign = this.micros < 0n ? "-" : "";
    const micros = this.micros < 0n ? -this.micros : this.micros;
    const fraction = String(micros % 1_000_000n).padStart(6, "0").replace(/0+$/, "");
    const seconds = `${micros / 1_000_000n}${fraction === "" ? "" : `.${fraction}`}`;
    return `P${date}T${sign}${seconds}S`;
  }

  toJSON(): string {
    return this.toString();
  }

  /** PostgreSQL 17 has intervals without end; all three numbers are the largest or smallest. */
  #infinity(): string | undefined {
    if (this.months === 0x7fff_ffff && this.days === 0x7fff_ffff) return "infinity";
    if (this.months === -0x8000_0000 && this.days === -0x8000_0000) return "-infinity";
    return undefined;
  }
}

/** An amount of money in the smallest unit of the database's currency (`lc_monetary`). */
export class Money {
  constructor(readonly units: bigint) {}

  toJSON(): string {
    return String(this.units);
  }
}

/** One end of a range. */
export interface RangeEnd<T = unknown> {
  value: T;
  inclusive: boolean;
}

/** A range, for example `[1,5)`. An end that is null is unbounded. */
export class Range<T = unknown> {
  constructor(
    readonly lower: RangeEnd<T> | null,
    readonly upper: RangeEnd<T> | null,
    readonly isEmpty = false,
    /** The type of the ends; 0 lets the server infer it. */
    readonly elementOid = 0,
  ) {}

  /** `lower` belongs to it, `upper` does not; null is unbounded. */
  static from<T>(lower: T | null, upper: T | null, bounds = "[)"): Range<T> {
    if (!/^[[(][\])]$/.test(bounds)) throw usageError("bounds are [], [), (] or ()");
    const end = (value: T | null, inclusive: boolean): RangeEnd<T> | null =>
      value === null ? null : { value, inclusive };
    return new Range(end(lower, bounds[0] === "["), end(upper, bounds[1] === "]"));
  }

  /** The range without any value. */
  static empty<T = never>(): Range<T> {
    return new Range<T>(null, null, true);
  }
}

/** Ranges of one type, ascending. */
export class Multirange<T = unknown> {
  constructor(readonly ranges: Range<T>[], readonly elementOid = 0) {}
}

/** A row as a value: its type (2249 for an anonymous record), and its fields in order. */
export class Composite {
  constructor(readonly fields: unknown[], readonly typeOid: number = oid.record) {}
}

/** A value of a type without a form of its own here: points, text search, extensions. */
export class OtherValue {
  constructor(
    readonly typeOid: number,
    /** The text form, or with `isBinary` what the type's send function gives. */
    readonly bytes: Uint8Array,
    readonly isBinary = false,
  ) {}

  /** The text form; of a binary one, `\x` and hexadecimal digits. */
  toString(): string {
    const buffer = Buffer.from(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength);
    return this.isBinary ? `\\x${buffer.toString("hex")}` : buffer.toString("utf8");
  }

  toJSON(): string {
    return this.toString();
  }
}

/** `8-4-4-4-12` hexadecimal digits. */
export function uuidToText(bytes: Uint8Array): string {
  const hex = Buffer.from(bytes).toString("hex");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

export function uuidFromText(text: string): Uint8Array {
  const hex = text.replace(/^\{(.*)\}$/, "$1").replaceAll("-", "");
  if (!/^[0-9a-f]{32}$/i.test(hex)) throw malformedValue(`${JSON.stringify(text)} is no UUID`);
  return Buffer.from(hex, "hex");
}

/** `08:00:2b:01:02:03`, 6 or 8 bytes. */
export function macaddrToText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

export function macaddrFromText(text: string): Uint8Array {
  const hex = text.replace(/[:.-]/g, "");
  if (!/^([0-9a-f]{12}|[0-9a-f]{16})$/i.test(hex)) {
    throw malformedValue(`${JSON.stringify(text)} is no MAC address`);
  }
  return Buffer.from(hex, "hex");
}

/** A string of `0` and `1`. */
export function bitToText({ len, bytes }: { len: number; bytes: Uint8Array }): string {
  let text = "";
  for (const byte of bytes) text += byte.toString(2).padStart(8, "0");
  return text.slice(0, len);
}

export function bitFromText(text: string): { len: number; bytes: Uint8Array } {
  if (!/^[01]*$/.test(text)) throw malformedValue("a bit string has digits 0 and 1 only");
  const bytes = new Uint8Array(Math.ceil(text.length / 8));
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "1") bytes[i >> 3]! |= 0x80 >> (i & 7);
  }
  return { len: text.length, bytes };
}
