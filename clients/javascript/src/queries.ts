// What can be asked of a client, a session and a transaction alike.

import { bulkInsert, type BulkOptions, type BulkRow } from "./bulk.js";
import { unexpected, type Connection, type Limits } from "./connection.js";
import { type Parameter } from "./encode.js";
import { RustyDBError, usageError } from "./errors.js";
import type { Settings } from "./options.js";
import type { Lease } from "./pool.js";
import { PreparedStatement, type PrepareOptions } from "./prepared.js";
import {
  limitsFrom, queryFrom, resultsFrom, type QueryRequestOptions, type QueryResult,
  type RequestOptions, type Row,
} from "./result.js";
import { objectStream, RowStream, type StreamOptions, type StreamSource } from "./stream.js";
import type { Message } from "./wire/message.js";

/** A statement of a batch. */
export type BatchStatement = string | { sql: string; params?: readonly Parameter[] };

/** Options of a batch. */
export interface BatchOptions extends RequestOptions {
  /** All in one transaction: the first error undoes everything and is thrown. Default true. */
  atomic?: boolean;
  /** If not atomic: whether the first error ends the batch. Default false. */
  stopOnError?: boolean;
  rowMode?: QueryRequestOptions["rowMode"];
}

/** Which part of a large object. */
export interface ObjectOptions extends RequestOptions {
  /** Where to begin, in bytes. Default 0. */
  offset?: number | bigint;
  /** How many bytes; by default all that follow. */
  length?: number | bigint;
}

export abstract class Queries {
  /** @internal */
  readonly settings: Settings;

  /** @internal */
  constructor(settings: Settings) {
    this.settings = settings;
  }

  /** @internal Runs `work` on a connection of this owner. */
  abstract use<T>(
    work: (connection: Connection) => Promise<T>, limits: Limits, readOnly?: boolean,
  ): Promise<T>;

  /** @internal A connection of this owner, for longer. */
  abstract lease(limits: Limits): Promise<Lease>;

  /** @internal The limits that the options of a request set. */
  limits(options: RequestOptions): Limits {
    return limitsFrom(options, this.settings.timeoutMs);
  }

  /**
   * Runs a statement and gives its rows. With `params` (`$1`, `$2`, …) it is exactly one;
   * without, several may be separated by `;`, and the last one's result is given.
   */
  async query<R = Row>(
    sql: string, params: readonly Parameter[] = [], options: QueryRequestOptions = {},
  ): Promise<QueryResult<R>> {
    const results = await this.#run(sql, params, options);
    return results.at(-1)!;
  }

  /** Runs a statement and gives the number of rows that it changed (or returned). */
  async execute(
    sql: string, params: readonly Parameter[] = [], options: QueryRequestOptions = {},
  ): Promise<number> {
    return (await this.query(sql, params, options)).rowCount;
  }

  /** Runs several statements separated by `;`, in one transaction, and gives the result of each. */
  script(sql: string, options: QueryRequestOptions = {}): Promise<QueryResult[]> {
    return this.#run(sql, [], options);
  }

  #run(
    sql: string, params: readonly Parameter[], options: QueryRequestOptions,
  ): Promise<QueryResult<any>[]> {
    const message: Message = { kind: "Query", value: queryFrom(sql, params, options) };
    const limits = this.limits(options);
    return this.use(
      async (connection) => {
        const replies = await connection.call(message, limits);
        return resultsFrom(replies, this.settings, options.rowMode);
      },
      limits,
      options.readOnly,
    );
  }

  /**
   * The rows of a query one by one, with flat memory:
   * `for await (const row of client.stream(sql))`. The time-out counts for each wait.
   */
  stream<R = Row>(
    sql: string, params: readonly Parameter[] = [], options: StreamOptions = {},
  ): RowStream<R> {
    const { timeout: _, ...rest } = options;
    return new RowStream<R>(this.#source(options), queryFrom(sql, params, rest), options);
  }

  /** The bytes of a large object, piece by piece. */
  readLargeObject(oid: number, options: ObjectOptions = {}): AsyncIterable<Uint8Array> {
    const { offset = 0, length } = options;
    const source = this.#source(options);
    return objectStream(source, oid, BigInt(offset), length === undefined ? null : BigInt(length));
  }

  #source(options: RequestOptions): StreamSource {
    return {
      lease: (limits) => this.lease(limits),
      format: this.settings,
      streamWindow: this.settings.streamWindow,
      limits: this.limits(options),
    };
  }

  /**
   * Inserts rows, each an array in the order of `columns` or an object by their names, in one
   * statement: all of them or none. Gives how many were inserted. The time-out counts for each
   * wait.
   */
  async bulkInsert(
    table: string, columns: readonly string[], rows: Iterable<BulkRow> | AsyncIterable<BulkRow>,
    options: BulkOptions = {},
  ): Promise<number> {
    if (columns.length === 0) throw usageError("a bulk insert needs the names of its columns");
    const limits = this.limits(options);
    const lease = await this.lease(limits);
    try {
      return await bulkInsert(lease.connection, { table, columns, options }, rows, limits);
    } finally {
      lease.release();
    }
  }

  /**
   * Runs statements in one round trip. An atomic batch gives the result of each or throws the first
   * error; otherwise errors stand in the place of results.
   */
  batch(
    statements: readonly BatchStatement[], options?: BatchOptions & { atomic?: true },
  ): Promise<QueryResult[]>;
  batch(
    statements: readonly BatchStatement[], options: BatchOptions,
  ): Promise<(QueryResult | RustyDBError)[]>;
  async batch(
    statements: readonly BatchStatement[], options: BatchOptions = {},
  ): Promise<(QueryResult | RustyDBError)[]> {
    const atomic = options.atomic ?? true;
    const queries = statements.map((statement) =>
      typeof statement === "string"
        ? queryFrom(statement, [], {})
        : queryFrom(statement.sql, statement.params ?? [], {}),
    );
    const value = { statements: queries, atomic, stopOnError: options.stopOnError ?? false };
    const limits = this.limits(options);
    const replies = await this.use(
      (connection) => connection.call({ kind: "Batch", value }, limits), limits,
    );
    const results = batchResults(replies, this.settings, options.rowMode);
    const failed = results.find((result) => result instanceof RustyDBError);
    if (atomic && failed !== undefined) throw failed;
    return results;
  }

  /**
   * A statement to be run many times. It is prepared now, and again on every other connection that
   * it is run on.
   */
  async prepare(sql: string, options: PrepareOptions = {}): Promise<PreparedStatement> {
    const statement = new PreparedStatement(this, sql, options.types ?? []);
    await statement.describe(options);
    return statement;
  }

  /** A round trip to the server; gives how long it took, in milliseconds. */
  async ping(options: RequestOptions = {}): Promise<number> {
    const limits = this.limits(options);
    return this.use(
      async (connection) => {
        const begun = performance.now();
        const [reply] = await connection.call({ kind: "Ping" }, limits);
        if (reply?.kind !== "Pong") throw unexpected(reply, "Pong");
        return performance.now() - begun;
      },
      limits,
      true,
    );
  }

  /** @internal Ends a prepared statement wherever it is. */
  abstract deallocate(name: string): Promise<void>;
}

/**
 * Replies before an error, without the rows that came of the statement that has failed: only the
 * last part of a result with columns says what the command was.
 */
function withoutParts(replies: Message[]): Message[] {
  const last = replies.at(-1);
  if (last?.kind !== "QueryResponse") return replies;
  const { statementIndex, commandTag } = last.value;
  const isOfFailed = (reply: Message): boolean =>
    reply.kind === "QueryResponse" && reply.value.statementIndex === statementIndex;
  const hasColumns = replies.some(
    (reply) => reply.kind === "QueryResponse" && isOfFailed(reply) && reply.value.columns.length > 0,
  );
  return commandTag === "" && hasColumns ? replies.filter((reply) => !isOfFailed(reply)) : replies;
}

/** Results and errors, each in the place of its statement. */
function batchResults(
  replies: Message[], settings: Settings, mode: QueryRequestOptions["rowMode"],
): (QueryResult | RustyDBError)[] {
  const results: (QueryResult | RustyDBError)[] = [];
  let ofOne: Message[] = [];
  const finish = (): void => {
    if (ofOne.length > 0) results.push(...resultsFrom(ofOne, settings, mode));
    ofOne = [];
  };
  for (const reply of replies) {
    if (reply.kind === "Error") {
      ofOne = withoutParts(ofOne);
      finish();
      results.push(RustyDBError.fromBody(reply.value));
    } else {
      ofOne.push(reply);
    }
  }
  finish();
  return results;
}

/** Ends a prepared statement on one connection; a connection that fails has none any more. */
export async function deallocateOn(connection: Connection, name: string): Promise<void> {
  if (!connection.prepared.delete(name)) return;
  const value = { kind: "Deallocate", value: { name } } as const;
  await connection.call({ kind: "PreparedStatement", value }).catch(() => undefined);
}
