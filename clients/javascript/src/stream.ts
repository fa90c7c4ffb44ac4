// Results, large objects and events that arrive piece by piece, as fast as the program takes them.

import { cancelled, unexpected, type Connection, type Limits } from "./connection.js";
import { timedOut, type RustyDBError } from "./errors.js";
import type { ValueFormat } from "./options.js";
import type { Lease } from "./pool.js";
import { ReplyQueue } from "./replies.js";
import { rowMaker, type Column, type QueryRequestOptions, type Row } from "./result.js";
import { Turns } from "./turns.js";
import { MAX_PAYLOAD } from "./wire/frame.js";
import type { Message, Query } from "./wire/message.js";
import type { Value } from "./wire/value.js";

/** Options of a stream. */
export interface StreamOptions extends QueryRequestOptions {
  /** Most rows of one message; 0 lets the server choose. */
  chunkRows?: number;
}

/** Where a stream gets its connection, and its limits. */
export interface StreamSource {
  lease(limits: Limits): Promise<Lease>;
  format: ValueFormat;
  streamWindow: number;
  limits: Limits;
}

/** The replies to one request, taken one by one; the connection is given back at the end. */
class Replies {
  readonly #source: StreamSource;
  readonly #message: Message;
  readonly #queue: ReplyQueue;
  readonly #turns = new Turns();
  #lease: Lease | undefined;
  #id = 0n;
  #isDone = false;
  /** Of the reply that the program is using: its bytes become credit when it asks for the next. */
  #inUse = 0;

  constructor(source: StreamSource, message: Message) {
    this.#source = source;
    this.#message = message;
    this.#queue = new ReplyQueue(source.streamWindow + MAX_PAYLOAD);
  }

  get isDone(): boolean {
    return this.#isDone;
  }

  /** The next reply; `isLast` says whether it ends the stream. */
  async next(isLast: (message: Message) => boolean): Promise<Message> {
    try {
      const connection = (this.#lease ?? (await this.#open())).connection;
      if (this.#inUse > 0) connection.consumed(this.#id, this.#inUse);
      this.#inUse = 0;
      await this.#turns.yield();
      const { message, size } = this.#queue.takeNow() ?? (await this.#wait(connection));
      this.#inUse = size;
      if (isLast(message)) this.#release();
      return message;
    } catch (error) {
      this.stop(error);
      throw error;
    }
  }

  async #open(): Promise<Lease> {
    this.#lease = await this.#source.lease(this.#source.limits);
    const { connection } = this.#lease;
    this.#id = connection.start(this.#message, this.#queue, this.#source.limits.flags);
    return this.#lease;
  }

  /** Waits for a reply, not longer than the limits allow. */
  async #wait(connection: Connection) {
    const { timeoutMs = 0, signal } = this.#source.limits;
    const giveUp = (error: RustyDBError): void => {
      this.#queue.fail(error, (size) => connection.consumed(this.#id, size));
    };
    const abort = (): void => giveUp(cancelled(signal!));
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
    const timer = timeoutMs === 0 ? undefined : setTimeout(() => {
      giveUp(timedOut(`the stream did not go on within ${timeoutMs / 1000} s`));
    }, timeoutMs);
    try {
      return await this.#queue.take();
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Ends the stream early: the server stops, and what is under way is dropped. */
  stop(reason: unknown): void {
    if (this.#isDone) return;
    const connection = this.#lease?.connection;
    if (connection !== undefined && !this.#queue.isOver) {
      const drop = (size: number): void => connection.consumed(this.#id, size);
      connection.endStream(this.#id);
      if (this.#inUse > 0) drop(this.#inUse);
      this.#queue.fail(reason, drop);
    }
    this.#release();
  }

  #release(): void {
    this.#isDone = true;
    this.#lease?.release();
    this.#lease = undefined;
  }
}

/**
 * The rows of a query, one by one: `for await (const row of stream)`. No more than the window of
 * the stream is held in memory. Leaving the loop early ends the query.
 */
export class RowStream<R = Row> implements AsyncIterableIterator<R> {
  /** The columns; known once the first row, or the end, has come. */
  columns: Column[] = [];
  /** At the end: how many rows there were. */
  rowCount: number | undefined;
  /** At the end: PostgreSQL's command tag. */
  commandTag: string | undefined;

  readonly #replies: Replies;
  readonly #format: ValueFormat;
  readonly #mode: StreamOptions["rowMode"];
  #makeRow: (values: Value[]) => R = () => undefined as R;
  #rows: Value[][] = [];
  #at = 0;

  /** @internal */
  constructor(source: StreamSource, query: Query, options: StreamOptions) {
    const open = { query, chunkRows: options.chunkRows ?? 0 };
    this.#replies = new Replies(source, {
      kind: "Streaming",
      value: { kind: "Open", value: open },
    });
    this.#format = source.format;
    this.#mode = options.rowMode;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<R>> {
    while (this.#at >= this.#rows.length) {
      if (this.#replies.isDone) return { done: true, value: undefined };
      await this.#nextReply();
    }
    const values = this.#rows[this.#at]!;
    this.#at += 1;
    return { done: false, value: this.#makeRow(values) };
  }

  async #nextReply(): Promise<void> {
    this.#rows = [];
    this.#at = 0;
    const message = await this.#replies.next(isStreamEnd);
    if (message.kind !== "Streaming") throw unexpected(message, "a part of a stream");
    const part = message.value;
    if (part.kind === "Header") {
      this.columns = part.value.columns;
      this.#makeRow = rowMaker(this.columns, this.#format, this.#mode);
    } else if (part.kind === "Chunk") {
      this.#rows = part.value.rows;
    } else if (part.kind === "End") {
      this.rowCount = Number(part.value.rows);
      this.commandTag = part.value.commandTag;
    }
  }

  /** Ends the stream; the query is cancelled if it has not ended. */
  async return(): Promise<IteratorResult<R>> {
    this.#rows = [];
    this.#replies.stop(new Error("the stream was closed"));
    return { done: true, value: undefined };
  }
}

function isStreamEnd(message: Message): boolean {
  return message.kind === "Streaming" && message.value.kind === "End";
}

/** The bytes of a large object, piece by piece. */
export async function* objectStream(
  source: StreamSource, oid: number, offset: bigint, length: bigint | null,
): AsyncGenerator<Uint8Array, void, undefined> {
  const value = { oid, offset, length };
  const replies = new Replies(source, { kind: "Streaming", value: { kind: "OpenObject", value } });
  try {
    while (!replies.isDone) {
      const message = await replies.next(isStreamEnd);
      if (message.kind !== "Streaming") throw unexpected(message, "a part of a large object");
      if (message.value.kind === "Data") yield message.value.value.bytes;
    }
  } finally {
    replies.stop(new Error("the stream was closed"));
  }
}
