// The vectors that all client libraries share, `clients/vectors.json`.

import { readFileSync } from "node:fs";

/** A value or message in serde's form: `"Ping"`, `{"Text": "a"}`, `{"Query": {"sql": …}}`. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Vectors {
  primitives: { type: string; value: Json; bytes: string }[];
  values: { name: string; value: Json; bytes: string }[];
  frames: {
    name: string;
    preface: boolean;
    flags: number;
    id: string;
    compression?: "Lz4" | "Zstd" | "Snappy";
    message: Json;
    bytes: string;
  }[];
  invalid: { name: string; what: string; bytes: string; sqlstate: string; code: string }[];
}

const path = process.env["RUSTYDB_VECTORS"];
if (path === undefined) throw new Error("RUSTYDB_VECTORS must name clients/vectors.json");

// JavaScript's JSON loses integers of more than 53 bits, so long ones become strings first.
const text = readFileSync(path, "utf8").replace(/(?<=[:[,]\s*)-?\d{16,}(?=\s*[,}\]])/g, '"$&"');
export const vectors = JSON.parse(text) as Vectors;

export function fromHex(hex: string): Buffer {
  return Buffer.from(hex.replaceAll(" ", ""), "hex");
}

/** What the codecs read, in serde's form, so that it can be compared with a vector. */
export function toJson(value: unknown): Json {
  if (value === undefined || value === null) return null;
  if (typeof value === "bigint") return String(value);
  if (value instanceof Uint8Array) return [...value];
  if (Array.isArray(value)) return value.map(toJson);
  if (typeof value !== "object") return value as Json;
  if ("kind" in value) {
    const { kind, value: inner } = value as { kind: string; value?: unknown };
    return inner === undefined ? kind : { [kind]: toJson(inner) };
  }
  const entries = Object.entries(value).map(([name, field]) => [
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    toJson(field),
  ]);
  return Object.fromEntries(entries);
}

/** Integers as strings, whatever their size: 64 bits are a bigint here and a number in JSON. */
export function normalised(value: Json): Json {
  if (typeof value === "number") return String(value);
  if (Array.isArray(value)) return value.map(normalised);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, normalised(part)]));
}
