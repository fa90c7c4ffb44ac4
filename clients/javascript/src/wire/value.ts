// A value of PostgreSQL as it travels: as a parameter to the server, in a row to the client.
// Dates count from 2000-01-01; the largest and smallest numbers are infinity and -infinity.

import type { Reader, Writer } from "./buffer.js";
import {
  bool, bytes, f32, f64, i16, i32, i64, str, struct, u32, unit, variants, vec,
  type Codec,
} from "./codec.js";

/** One dimension of an array: how many elements, and the subscript of the first. */
export interface Dimension {
  len: number;
  lower: number;
}

/** One end of a range. */
export type Bound =
  | { kind: "Unbounded"; value?: undefined }
  | { kind: "Inclusive"; value: Value }
  | { kind: "Exclusive"; value: Value };

/** The ends of a range; both unbounded if it is empty. */
export interface RangeValue {
  empty: boolean;
  lower: Bound;
  upper: Bound;
}

/** A value in the form of the protocol, exact for every type. */
export type Value =
  | { kind: "Null"; value?: undefined }
  | { kind: "Bool"; value: boolean }
  | { kind: "Int2" | "Int4" | "Date" | "Oid"; value: number }
  | { kind: "Float4" | "Float8"; value: number }
  | { kind: "Int8" | "Time" | "Timestamp" | "TimestampTz" | "Money"; value: bigint }
  | { kind: "Numeric" | "Text" | "Json" | "Jsonb" | "Inet" | "Cidr"; value: string }
  | { kind: "Bytea" | "Uuid" | "MacAddr"; value: Uint8Array }
  | { kind: "TimeTz"; value: { micros: bigint; offsetSecs: number } }
  | { kind: "Interval"; value: { months: number; days: number; micros: bigint } }
  | { kind: "Bit"; value: { len: number; bytes: Uint8Array } }
  | { kind: "Array"; value: { elementOid: number; dims: Dimension[]; values: Value[] } }
  | { kind: "Range"; value: { elementOid: number; range: RangeValue } }
  | { kind: "Multirange"; value: { elementOid: number; ranges: RangeValue[] } }
  | { kind: "Composite"; value: { typeOid: number; fields: Value[] } }
  | { kind: "Other"; value: { typeOid: number; binary: boolean; bytes: Uint8Array } };

/** NULL of any type. */
export const NULL: Value = { kind: "Null" };

const uuid: Codec<Uint8Array> = { write: (w, v) => w.raw(v), read: (r) => r.raw(16) };

const value: Codec<Value> = {
  write: (w, v) => body.write(w, v),
  read(r) {
    r.enter();
    const read = body.read(r);
    r.leave();
    return read;
  },
};

const bound = variants({ Unbounded: unit, Inclusive: value, Exclusive: value });
const range = struct({ empty: bool, lower: bound, upper: bound });
const dimension = struct({ len: u32, lower: i32 });

const body = variants({
  Null: unit,
  Bool: bool,
  Int2: i16,
  Int4: i32,
  Int8: i64,
  Float4: f32,
  Float8: f64,
  Numeric: str,
  Text: str,
  Bytea: bytes,
  Date: i32,
  Time: i64,
  TimeTz: struct({ micros: i64, offsetSecs: i32 }),
  Timestamp: i64,
  TimestampTz: i64,
  Interval: struct({ months: i32, days: i32, micros: i64 }),
  Uuid: uuid,
  Json: str,
  Jsonb: str,
  Inet: str,
  Cidr: str,
  MacAddr: bytes,
  Bit: struct({ len: u32, bytes }),
  Oid: u32,
  Money: i64,
  Array: struct({ elementOid: u32, dims: vec(dimension), values: vec(value) }),
  Range: struct({ elementOid: u32, range }),
  Multirange: struct({ elementOid: u32, ranges: vec(range) }),
  Composite: struct({ typeOid: u32, fields: vec(value) }),
  Other: struct({ typeOid: u32, binary: bool, bytes }),
}) as { write(w: Writer, v: Value): void; read(r: Reader): Value };

/** The codec of a value. */
export const valueCodec: Codec<Value> = value;
