// Bulk insert: rows to a table in one statement, as fast as the server takes them.

import { unexpected, type Connection, type Limits } from "./connection.js";
import { toValue, type Parameter } from "./encode.js";
import { timedOut, usageError } from "./errors.js";
import { ReplyQueue } from "./replies.js";
import { Turns } from "./turns.js";
import { flag } from "./wire/frame.js";
import type { Message } from "./wire/message.js";
import type { Value } from "./wire/value.js";
import type { RequestOptions } from "./result.js";

/** Options of a bulk insert. */
export interface BulkOptions extends RequestOptions {
  /** The schema of the table; by default the search path finds it. */
  schema?: string;
  /** What happens to a row that is there already: the whole insert fails, or the row is skipped. */
  onConflict?: "fail" | "skip";
}

/** A row by position or by name of the column. */
export type BulkRow = readonly Parameter[] | { [column: string]: Parameter };

// A message of this size is large enough to be quick and small beside a window.
const MESSAGE_BYTES = 65_536;
// All replies to a bulk insert are an Ok or an Error.
const MOST_REPLY_BYTES = 1 << 20;

/** Where the rows go. */
export interface BulkTarget {
  table: string;
  columns: readonly string[];
  options: BulkOptions;
}

/** Inserts all rows, or none if anything fails; gives how many were inserted. */
export async function bulkInsert(
  connection: Connection, { table, columns, options }: BulkTarget,
  rows: Iterable<BulkRow> | AsyncIterable<BulkRow>, limits: Limits,
): Promise<number> {
  const replies = new ReplyQueue(MOST_REPLY_BYTES);
  const start: Message = {
    kind: "BulkInsert",
    value: {
      kind: "Start",
      value: {
        schema: options.schema ?? null,
        table,
        columns: [...columns],
        onConflict: options.onConflict === "skip" ? "Skip" : "Fail",
      },
    },
  };
  const flags = limits.flags ?? 0;
  const id = connection.start(start, replies, flag.MORE | flags, true);
  const watchdog = new Watchdog(connection, id, limits, replies);
  try {
    const isComplete = await sendRows(connection, id, flags, columns, rows, watchdog);
    connection.conclude(id, isComplete ? END : abort("the server ended it"), flags);
    const { message } = await watchdog.during(replies.take());
    if (message.kind !== "Ok") throw unexpected(message, "Ok");
    return Number(message.value.affectedRows);
  } finally {
    watchdog.stop();
  }
}

const END: Message = { kind: "BulkInsert", value: { kind: "End" } };

function abort(reason: string): Message {
  return { kind: "BulkInsert", value: { kind: "Abort", value: { reason } } };
}

/** Whether all rows went out; the server may have ended the request before, with an error. */
async function sendRows(
  connection: Connection, id: bigint, flags: number, columns: readonly string[],
  rows: Iterable<BulkRow> | AsyncIterable<BulkRow>, watchdog: Watchdog,
): Promise<boolean> {
  let sequence = 0;
  let waiting: Value[][] = [];
  let bytes = 0;
  const turns = new Turns();
  const send = async (): Promise<boolean> => {
    await turns.yield();
    const mayGo = connection.canSend(id, () => watchdog.hasGivenUp);
    if (!(await watchdog.during(mayGo))) return false;
    const value = { sequence, rows: waiting };
    const message: Message = { kind: "BulkInsert", value: { kind: "Rows", value } };
    connection.proceed(id, message, flag.MORE | flags);
    sequence += 1;
    waiting = [];
    bytes = 0;
    return true;
  };
  try {
    for await (const row of rows) {
      const values = rowValues(row, columns);
      waiting.push(values);
      bytes += roughSize(values);
      if (bytes >= MESSAGE_BYTES && !(await send())) return false;
    }
    return waiting.length === 0 || (await send());
  } catch (error) {
    connection.conclude(id, abort(error instanceof Error ? error.message : String(error)), flags);
    throw error;
  }
}

function rowValues(row: BulkRow, columns: readonly string[]): Value[] {
  if (!Array.isArray(row)) {
    const byName = row as { [column: string]: Parameter };
    return columns.map((column) => toValue(byName[column]));
  }
  if (row.length !== columns.length) {
    throw usageError(`a row has ${row.length} values for ${columns.length} columns`);
  }
  return row.map((value) => toValue(value));
}

/** About what the row takes on the wire. */
function roughSize(values: Value[]): number {
  let size = 1;
  for (const { value } of values) {
    size += 4;
    if (typeof value === "string") size += value.length;
    else if (value instanceof Uint8Array) size += value.length;
    else if (typeof value === "object" && "values" in value) size += roughSize(value.values);
    else if (typeof value === "object" && "bytes" in value) size += value.bytes.length;
  }
  return size;
}

/** Cancels the insert when the server lets it wait too long, or when the program says so. */
class Watchdog {
  hasGivenUp = false;
  readonly #timeoutMs: number;
  readonly #giveUp: (error: unknown) => void;
  readonly #stop: () => void;

  constructor(connection: Connection, id: bigint, limits: Limits, replies: ReplyQueue) {
    this.#timeoutMs = limits.timeoutMs ?? 0;
    const fail = (error: unknown): void => {
      this.hasGivenUp = true;
      replies.fail(error);
    };
    this.#giveUp = (error) => {
      fail(error);
      connection.cancel(id);
    };
    this.#stop = connection.watch(id, { signal: limits.signal }, fail);
  }

  /** Waits for what the server does, not longer than the time-out. */
  async during<T>(work: Promise<T>): Promise<T> {
    const seconds = this.#timeoutMs / 1000;
    const timer = this.#timeoutMs === 0 ? undefined : setTimeout(() => {
      this.#giveUp(timedOut(`the bulk insert did not go on within ${seconds} s`));
    }, this.#timeoutMs);
    try {
      return await work;
    } finally {
      clearTimeout(timer);
    }
  }

  stop(): void {
    this.#stop();
  }
}
