// JavaScript's values as parameters and as rows of a bulk insert.

import {
  dateFromText, timeFromText, timestampFromText, timestampTzFromDate, timeTzFromText,
} from "./datetime.js";
import { malformedValue, outOfRange, usageError } from "./errors.js";
import {
  bitFromText, Composite, Interval, macaddrFromText, Money, Multirange, oid, OtherValue, Range,
  uuidFromText, type RangeEnd,
} from "./types.js";
import { NULL, type Bound, type Dimension, type RangeValue, type Value } from "./wire/value.js";

/** A value whose PostgreSQL type is said, by one of the functions of `pg`. */
export class Typed {
  constructor(
    readonly value: Value,
    /** The number of the type; 0 if it is not known. */
    readonly oid: number,
  ) {}
}

/**
 * What can be a parameter. Without `pg`: booleans, numbers, bigints, strings (the text form of any
 * type), Dates, bytes, arrays, and other objects as JSON.
 */
export type Parameter =
  | null | undefined | boolean | number | bigint | string | Date | Uint8Array
  | Interval | Money | Range<any> | Multirange<any> | Composite | OtherValue | Typed
  | Parameter[] | { [key: string]: unknown };

const INT4_MAX = 0x7fff_ffff;
const INT8_MAX = (1n << 63n) - 1n;
// The protocol nests values to 32 levels; a cyclic array must not get further.
const MAX_NESTING = 32;

/** The parameters of a statement, and their types as far as `pg` said them. */
export function toParameters(params: readonly Parameter[]): {
  params: Value[];
  paramTypes: number[];
} {
  const typed = params.map((param) => toTyped(param));
  const lastKnown = typed.findLastIndex(({ oid: type }) => type !== 0);
  return {
    params: typed.map(({ value }) => value),
    paramTypes: typed.slice(0, lastKnown + 1).map(({ oid: type }) => type),
  };
}

/** A value in the form of the protocol. */
export function toValue(param: Parameter, depth = 0): Value {
  return toTyped(param, depth).value;
}

function toTyped(param: Parameter, depth = 0): Typed {
  if (param instanceof Typed) return param;
  return new Typed(untyped(param, depth), 0);
}

function untyped(param: Exclude<Parameter, Typed>, depth: number): Value {
  if (depth > MAX_NESTING) throw usageError("a parameter is nested too deep");
  switch (typeof param) {
    case "undefined": return NULL;
    case "boolean": return { kind: "Bool", value: param };
    case "number": return fromNumber(param);
    case "bigint": return fromBigint(param);
    case "string": return { kind: "Text", value: param };
    case "object": return param === null ? NULL : fromObject(param, depth);
    default: throw usageError(`a ${typeof param} cannot be a parameter`);
  }
}

function fromNumber(value: number): Value {
  if (!Number.isSafeInteger(value) || Object.is(value, -0)) return { kind: "Float8", value };
  if (Math.abs(value) <= INT4_MAX) return { kind: "Int4", value };
  return { kind: "Int8", value: BigInt(value) };
}

function fromBigint(value: bigint): Value {
  if (value >= -INT8_MAX - 1n && value <= INT8_MAX) return { kind: "Int8", value };
  return { kind: "Numeric", value: String(value) };
}

function fromObject(param: object, depth: number): Value {
  if (param instanceof Date) return { kind: "TimestampTz", value: timestampTzFromDate(param) };
  if (param instanceof Uint8Array) return { kind: "Bytea", value: param };
  if (Array.isArray(param)) return fromArray(param, depth).value;
  if (param instanceof Interval) {
    const { months, days, micros } = param;
    return { kind: "Interval", value: { months, days, micros } };
  }
  if (param instanceof Money) return { kind: "Money", value: param.units };
  if (param instanceof Range) {
    const value = { elementOid: elementOidOf(param), range: rangeFrom(param, depth) };
    return { kind: "Range", value };
  }
  if (param instanceof Multirange) {
    const elementOid = param.elementOid || (param.ranges[0] ? elementOidOf(param.ranges[0]) : 0);
    const ranges = param.ranges.map((range) => rangeFrom(range, depth));
    return { kind: "Multirange", value: { elementOid, ranges } };
  }
  if (param instanceof Composite) {
    const fields = param.fields.map((field) => toValue(field as Parameter, depth + 1));
    return { kind: "Composite", value: { typeOid: param.typeOid, fields } };
  }
  if (param instanceof OtherValue) {
    const { typeOid, isBinary, bytes } = param;
    return { kind: "Other", value: { typeOid, binary: isBinary, bytes } };
  }
  return { kind: "Jsonb", value: jsonText(param) };
}

function jsonText(value: unknown): string {
  const text = JSON.stringify(value);
  if (text === undefined) throw malformedValue("the value has no form in JSON");
  return text;
}

function elementOidOf(range: Range): number {
  if (range.elementOid !== 0) return range.elementOid;
  const end = range.lower ?? range.upper;
  return end === null ? 0 : naturalOid(toTyped(end.value as Parameter));
}

function rangeFrom(range: Range, depth: number): RangeValue {
  const bound = (end: RangeEnd | null): Bound => {
    if (end === null) return { kind: "Unbounded" };
    const value = toValue(end.value as Parameter, depth + 1);
    return end.inclusive ? { kind: "Inclusive", value } : { kind: "Exclusive", value };
  };
  return { empty: range.isEmpty, lower: bound(range.lower), upper: bound(range.upper) };
}

/** The type that a value is, where its form says so. Text can be of any type. */
const NATURAL_OIDS: Partial<Record<Value["kind"], number>> = {
  Bool: oid.bool, Int2: oid.int2, Int4: oid.int4, Int8: oid.int8, Float4: oid.float4,
  Float8: oid.float8, Numeric: oid.numeric, Bytea: oid.bytea, Date: oid.date,
  Time: oid.time, TimeTz: oid.timetz, Timestamp: oid.timestamp, TimestampTz: oid.timestamptz,
  Interval: oid.interval, Uuid: oid.uuid, Json: oid.json, Jsonb: oid.jsonb, Inet: oid.inet,
  Cidr: oid.cidr, MacAddr: oid.macaddr, Bit: oid.varbit, Oid: oid.oid, Money: oid.money,
};

function naturalOid({ value, oid: type }: Typed): number {
  if (type !== 0) return type;
  if (value.kind === "Composite" || value.kind === "Other") return value.value.typeOid;
  return NATURAL_OIDS[value.kind] ?? 0;
}

// What numbers of different kinds in one array become.
const NUMERIC_ORDER: Value["kind"][] = ["Int4", "Int8", "Float8"];

/** An array of the type that its elements have. */
function fromArray(param: readonly unknown[], depth: number): Typed {
  const { dims, leaves } = flatten(param, depth);
  const typed = leaves.map((leaf) => toTyped(leaf, depth + 1));
  const kinds = new Set<Value["kind"]>(typed.map(({ value }) => value.kind));
  kinds.delete("Null");
  if (kinds.size > 1 && [...kinds].every((kind) => NUMERIC_ORDER.includes(kind))) {
    const widest = NUMERIC_ORDER.findLast((kind) => kinds.has(kind)) as "Int8" | "Float8";
    return arrayOf(dims, typed.map(({ value }) => new Typed(widen(value, widest), 0)));
  }
  return arrayOf(dims, typed);
}

function widen(value: Value, kind: "Int8" | "Float8"): Value {
  if (value.kind === "Null" || value.kind === kind) return value;
  if (kind === "Int8") return { kind, value: BigInt(value.value as number) };
  return { kind, value: Number(value.value) };
}

function arrayOf(dims: Dimension[], elements: Typed[]): Typed {
  const known = elements.filter(({ value }) => value.kind !== "Null");
  const types = new Set(known.map((element) => naturalOid(element)));
  if (types.size > 1 && !types.has(0)) {
    throw usageError(
      "the elements of an array are of several types",
      "Say the type with pg.array(pg.text, […]), or send the array as text: '{1,2}'.",
    );
  }
  // 0 lets the server infer the type.
  const elementOid = types.size === 1 ? [...types][0]! : 0;
  const values = elements.map(({ value }) => value);
  return new Typed({ kind: "Array", value: { elementOid, dims, values } }, 0);
}

/** The dimensions of nested arrays, and what lies innermost, row by row. */
function flatten(param: readonly unknown[], depth: number): {
  dims: Dimension[];
  leaves: Parameter[];
} {
  const dims: Dimension[] = [];
  let level: readonly unknown[] = param;
  while (level.length > 0) {
    if (depth + dims.length > MAX_NESTING) throw usageError("an array is nested too deep");
    const arrays = level.filter((element) => Array.isArray(element)).length;
    if (arrays > 0 && arrays < level.length) throw usageError("an array mixes arrays and others");
    dims.push({ len: level.length / countOf(dims), lower: 1 });
    if (arrays === 0) return { dims, leaves: level as Parameter[] };
    const rows = level as unknown[][];
    if (rows.some((row) => row.length !== rows[0]!.length)) {
      throw usageError("the arrays of one dimension have different lengths");
    }
    level = rows.flat(1);
  }
  return { dims: [], leaves: [] };
}

function countOf(dims: Dimension[]): number {
  return dims.reduce((product, { len }) => product * len, 1);
}

/** Makes a value of one type; null stays NULL. */
type Maker<T> = (value: T | null) => Typed;

function maker<T>(type: number, make: (value: T) => Value): Maker<T> {
  return (value) => new Typed(value === null ? NULL : make(value), type);
}

function integer(name: string, least: bigint, most: bigint): (value: number | bigint) => bigint {
  return (value) => {
    if (typeof value === "number" && !Number.isInteger(value)) {
      throw outOfRange(`${value} is no ${name}`);
    }
    const number = BigInt(value);
    if (number < least || number > most) throw outOfRange(`${value} does not fit ${name}`);
    return number;
  };
}

const int2 = integer("int2", -0x8000n, 0x7fffn);
const int4 = integer("int4", -0x8000_0000n, 0x7fff_ffffn);
const int8 = integer("int8", -INT8_MAX - 1n, INT8_MAX);
const unsigned = integer("oid", 0n, 0xffff_ffffn);

function numericText(value: string | number | bigint): string {
  const text = String(value);
  if (!/^([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|NaN|-?Infinity)$/i.test(text)) {
    throw malformedValue(`${JSON.stringify(text)} is no number`);
  }
  return text;
}

/** Says the PostgreSQL type of a parameter, where that of the JavaScript value is another. */
export const pg = {
  bool: maker(oid.bool, (value: boolean) => ({ kind: "Bool", value })),
  int2: maker(oid.int2, (v: number | bigint) => ({ kind: "Int2", value: Number(int2(v)) })),
  int4: maker(oid.int4, (v: number | bigint) => ({ kind: "Int4", value: Number(int4(v)) })),
  int8: maker(oid.int8, (v: number | bigint) => ({ kind: "Int8", value: int8(v) })),
  float4: maker(oid.float4, (value: number) => ({ kind: "Float4", value })),
  float8: maker(oid.float8, (value: number) => ({ kind: "Float8", value })),
  numeric: maker(oid.numeric, (v: string | number | bigint) => ({
    kind: "Numeric",
    value: numericText(v),
  })),
  text: maker(oid.text, (value: string) => ({ kind: "Text", value })),
  bytea: maker(oid.bytea, (value: Uint8Array) => ({ kind: "Bytea", value })),
  /** `YYYY-MM-DD`, `infinity`, `-infinity`. */
  date: maker(oid.date, (v: string) => ({ kind: "Date", value: dateFromText(v) })),
  /** `HH:MM:SS.ffffff`. */
  time: maker(oid.time, (v: string) => ({ kind: "Time", value: timeFromText(v) })),
  /** `HH:MM:SS.ffffff+HH:MM`. */
  timetz: maker(oid.timetz, (v: string) => ({ kind: "TimeTz", value: timeTzFromText(v) })),
  /** `YYYY-MM-DD HH:MM:SS.ffffff`, `infinity`, `-infinity`. */
  timestamp: maker(oid.timestamp, (v: string) => ({
    kind: "Timestamp",
    value: timestampFromText(v),
  })),
  /** A Date, or text with its offset from UTC (`Z`, `+02:00`), `infinity`, `-infinity`. */
  timestamptz: maker(oid.timestamptz, (v: Date | string) => ({
    kind: "TimestampTz",
    value: v instanceof Date ? timestampTzFromDate(v) : timestampTzFromText(v),
  })),
  interval: maker(oid.interval, (v: Interval) => untyped(v, 0)),
  uuid: maker(oid.uuid, (v: string) => ({ kind: "Uuid", value: uuidFromText(v) })),
  /** Any value that has a form in JSON. */
  json: maker(oid.json, (v: unknown) => ({ kind: "Json", value: jsonText(v) })),
  jsonb: maker(oid.jsonb, (v: unknown) => ({ kind: "Jsonb", value: jsonText(v) })),
  inet: maker(oid.inet, (value: string) => ({ kind: "Inet", value })),
  cidr: maker(oid.cidr, (value: string) => ({ kind: "Cidr", value })),
  macaddr: maker(oid.macaddr, (v: string) => ({ kind: "MacAddr", value: macaddrFromText(v) })),
  macaddr8: maker(oid.macaddr8, (v: string) => ({ kind: "MacAddr", value: macaddrFromText(v) })),
  /** A string of `0` and `1`. */
  bit: maker(oid.bit, (v: string) => ({ kind: "Bit", value: bitFromText(v) })),
  varbit: maker(oid.varbit, (v: string) => ({ kind: "Bit", value: bitFromText(v) })),
  oid: maker(oid.oid, (v: number | bigint) => ({ kind: "Oid", value: Number(unsigned(v)) })),
  /** In the smallest unit of the currency. */
  money: maker(oid.money, (v: bigint | Money) => ({
    kind: "Money",
    value: v instanceof Money ? v.units : v,
  })),
  /** An array whose elements are made by one of these functions: `pg.array(pg.int2, [1, 2])`. */
  array<T>(element: Maker<T>, values: readonly (T | null | readonly unknown[])[]): Typed {
    const { dims, leaves } = flatten(values, 0);
    const elements = leaves.map((leaf) => element(leaf as T | null));
    const elementOid = elements[0]?.oid ?? element(null).oid;
    const made = elements.map(({ value }) => value);
    return new Typed({ kind: "Array", value: { elementOid, dims, values: made } }, 0);
  },
  /** The text form of a type that has no function here, by the number of the type. */
  other: (typeOid: number, value: string): Typed => new Typed({ kind: "Text", value }, typeOid),
} as const;

function timestampTzFromText(text: string): bigint {
  if (text.endsWith("infinity")) return timestampFromText(text);
  const parts = /^(.*?)(?:Z|([+-])(\d{1,2})(?::?(\d{2}))?)( BC)?$/.exec(text);
  if (!parts) throw malformedValue(`${JSON.stringify(text)} has no offset from UTC at its end`);
  const [, local, sign, hours = "0", minutes = "0", bc = ""] = parts;
  const offset = BigInt(Number(hours) * 3600 + Number(minutes) * 60) * 1_000_000n;
  return timestampFromText(local + bc) - (sign === "-" ? -offset : offset);
}
