// Building blocks for the types of the protocol: each knows how to write and to read itself.

import { protocolViolation } from "../errors.js";
import type { Reader, Writer } from "./buffer.js";

/** A type with a place on the wire. */
export interface Codec<T> {
  write(w: Writer, value: T): void;
  read(r: Reader): T;
}

/** What a codec reads and writes. */
export type TypeOf<C> = C extends Codec<infer T> ? T : never;

export const u8: Codec<number> = { write: (w, v) => w.u8(v), read: (r) => r.u8() };
export const i8: Codec<number> = { write: (w, v) => w.i8(v), read: (r) => r.i8() };
export const u16: Codec<number> = { write: (w, v) => w.u16(v), read: (r) => r.u16() };
export const u32: Codec<number> = { write: (w, v) => w.u32(v), read: (r) => r.u32() };
export const u64: Codec<bigint> = { write: (w, v) => w.u64(v), read: (r) => r.u64() };
export const i16: Codec<number> = { write: (w, v) => w.i16(v), read: (r) => r.i16() };
export const i32: Codec<number> = { write: (w, v) => w.i32(v), read: (r) => r.i32() };
export const i64: Codec<bigint> = { write: (w, v) => w.i64(v), read: (r) => r.i64() };
export const f32: Codec<number> = { write: (w, v) => w.f32(v), read: (r) => r.f32() };
export const f64: Codec<number> = { write: (w, v) => w.f64(v), read: (r) => r.f64() };
export const bool: Codec<boolean> = { write: (w, v) => w.bool(v), read: (r) => r.bool() };
export const str: Codec<string> = { write: (w, v) => w.str(v), read: (r) => r.str() };
export const bytes: Codec<Uint8Array> = { write: (w, v) => w.bytes(v), read: (r) => r.bytes() };

/** Nothing: a variant without fields. */
export const unit: Codec<undefined> = { write: () => undefined, read: () => undefined };

/** `null` for None. */
export function option<T>(inner: Codec<T>): Codec<T | null> {
  return {
    write(w, value) {
      w.bool(value !== null);
      if (value !== null) inner.write(w, value);
    },
    read: (r) => (r.bool() ? inner.read(r) : null),
  };
}

export function vec<T>(inner: Codec<T>): Codec<T[]> {
  return {
    write(w, values) {
      w.count(values.length);
      for (const value of values) inner.write(w, value);
    },
    read(r) {
      const count = r.count();
      const values: T[] = [];
      for (let i = 0; i < count; i++) values.push(inner.read(r));
      return values;
    },
  };
}

export function pair<A, B>(first: Codec<A>, second: Codec<B>): Codec<[A, B]> {
  return {
    write(w, [a, b]) {
      first.write(w, a);
      second.write(w, b);
    },
    read: (r) => [first.read(r), second.read(r)],
  };
}

type Fields = Record<string, Codec<any>>;
type Struct<F extends Fields> = { [K in keyof F]: TypeOf<F[K]> };

/** The fields in this order. */
export function struct<F extends Fields>(fields: F): Codec<Struct<F>> {
  const entries = Object.entries(fields);
  return {
    write(w, value) {
      for (const [name, codec] of entries) codec.write(w, value[name]);
    },
    read(r) {
      const value: Record<string, unknown> = {};
      for (const [name, codec] of entries) value[name] = codec.read(r);
      return value as Struct<F>;
    },
  };
}

type Tagged<K, T> = T extends undefined ? { kind: K; value?: undefined } : { kind: K; value: T };
type Union<F extends Fields> = { [K in keyof F]: Tagged<K, TypeOf<F[K]>> }[keyof F];

/** An enum with fields: the variants in this order, numbered from 0. */
export function variants<F extends Fields>(cases: F): Codec<Union<F>> {
  const kinds = Object.keys(cases);
  const codecs = Object.values(cases);
  const numbers = new Map(kinds.map((kind, number) => [kind, number]));
  return {
    write(w, { kind, value }) {
      const number = numbers.get(kind as string)!;
      w.count(number);
      codecs[number]!.write(w, value);
    },
    read(r) {
      const number = r.u32();
      const codec = codecs[number];
      if (codec === undefined) throw protocolViolation(`there is no variant ${number}`);
      const kind = kinds[number];
      return (codec === unit ? { kind } : { kind, value: codec.read(r) }) as Union<F>;
    },
  };
}

/** An enum without fields, as its name. */
export function names<N extends string>(...all: N[]): Codec<N> {
  return {
    write: (w, name) => w.count(all.indexOf(name)),
    read(r) {
      const number = r.u32();
      const name = all[number];
      if (name === undefined) throw protocolViolation(`there is no variant ${number}`);
      return name;
    },
  };
}
