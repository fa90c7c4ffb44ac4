// Results of statements, and the requests they come from.

import { fromValue } from "./decode.js";
import { toParameters, type Parameter } from "./encode.js";
import { unexpected, type Limits } from "./connection.js";
import { milliseconds, type ValueFormat } from "./options.js";
import { priority } from "./wire/frame.js";
import type { Column, Message, Query, QueryOptions, QueryResponse } from "./wire/message.js";
import type { Value } from "./wire/value.js";

export type { Column } from "./wire/message.js";

/** A row as an object: names of columns and their values. */
export type Row = Record<string, any>;

/** What a statement gave. */
export interface QueryResult<R = Row> {
  rows: R[];
  columns: Column[];
  /** Rows that were inserted, changed, deleted or returned. */
  rowCount: number;
  /** The command without its numbers: `SELECT`, `INSERT`, `CREATE TABLE`. */
  command: string;
  /** PostgreSQL's command tag: `INSERT 0 5`. */
  commandTag: string;
  /** How long the statement ran on the server, in microseconds. */
  executionTimeUs: number;
}

/** Options of a request. */
export interface RequestOptions {
  /** Seconds until it is cancelled, also on the server; 0 for no limit. */
  timeout?: number;
  /** Cancels it, also on the server. */
  signal?: AbortSignal;
  /** Which requests of a connection go first when several wait. */
  priority?: keyof typeof priority;
}

/** Options of a statement. */
export interface QueryRequestOptions extends RequestOptions {
  /** The statement runs in a read-only transaction, and is tried again if the connection breaks. */
  readOnly?: boolean;
  /** No more rows than this are returned; 0 for all. */
  maxRows?: number;
  /** `object` (default): by name of the column; `array`: by position. */
  rowMode?: "object" | "array";
  /** W3C trace context. */
  traceparent?: string;
  tracestate?: string;
}

/** When to give up, and the flags of the frame. */
export function limitsFrom(options: RequestOptions, defaultTimeoutMs: number): Limits {
  const { timeout, signal } = options;
  return {
    timeoutMs: timeout === undefined ? defaultTimeoutMs : milliseconds("timeout", timeout),
    signal,
    flags: priority[options.priority ?? "normal"],
  };
}

/** What the server is told about a statement, or null for the defaults. */
export function queryOptions(options: QueryRequestOptions): QueryOptions | null {
  const { timeout, maxRows, readOnly, traceparent, tracestate } = options;
  const isPlain = !timeout && !maxRows && !readOnly && !traceparent && !tracestate;
  if (isPlain) return null;
  return {
    timeoutMs: timeout === undefined ? 0 : milliseconds("timeout", timeout),
    maxRows: maxRows ?? 0,
    readOnly: readOnly ?? false,
    traceparent: traceparent ?? null,
    tracestate: tracestate ?? null,
  };
}

export function queryFrom(
  sql: string, params: readonly Parameter[], options: QueryRequestOptions,
): Query {
  return { sql, ...toParameters(params), options: queryOptions(options) };
}

/** Makes rows of one result in the form that was asked for. */
export function rowMaker(
  columns: Column[], format: ValueFormat, mode: "object" | "array" = "object",
): (values: Value[]) => any {
  if (mode === "array") return (values) => values.map((value) => fromValue(value, format));
  const names = columns.map(({ name }) => name);
  // Assigned, this name would change the object's prototype.
  const hasProto = names.includes("__proto__");
  return (values) => {
    const row: Row = hasProto ? Object.create(null) : {};
    for (let i = 0; i < names.length; i++) row[names[i]!] = fromValue(values[i]!, format);
    return row;
  };
}

/** The results of statements: one that is large comes in several replies, its columns once. */
export function resultsFrom(
  replies: Message[], format: ValueFormat, mode: QueryRequestOptions["rowMode"],
): QueryResult<any>[] {
  const results: QueryResult<any>[] = [];
  let index = -1;
  let makeRow: (values: Value[]) => any = () => undefined;
  for (const reply of replies) {
    if (reply.kind !== "QueryResponse") throw unexpected(reply, "a QueryResponse");
    const response = reply.value;
    if (response.statementIndex !== index) {
      index = response.statementIndex;
      makeRow = rowMaker(response.columns, format, mode);
      results.push(resultFrom(response));
    }
    const result = results.at(-1)!;
    for (const values of response.rows) result.rows.push(makeRow(values));
    Object.assign(result, summary(response));
  }
  return results;
}

function resultFrom(response: QueryResponse): QueryResult<any> {
  return { rows: [], columns: response.columns, ...summary(response) };
}

function summary({ affectedRows, commandTag, executionTimeUs }: QueryResponse) {
  return {
    rowCount: Number(affectedRows),
    command: commandTag.replace(/( \d+)+$/, ""),
    commandTag,
    executionTimeUs: Number(executionTimeUs),
  };
}
