// Prepared statements. The name belongs to a session, so each connection prepares for itself.

import { randomBytes } from "node:crypto";
import { unexpected, type Connection } from "./connection.js";
import { toParameters, type Parameter } from "./encode.js";
import { RustyDBError, usageError } from "./errors.js";
import type { Queries } from "./queries.js";
import {
  queryOptions, resultsFrom, type Column, type QueryRequestOptions, type QueryResult,
  type RequestOptions, type Row,
} from "./result.js";

/** Options of a prepared statement. */
export interface PrepareOptions extends RequestOptions {
  /** Types of the parameters by their numbers (`oid.int4`); 0 or nothing lets the server infer. */
  types?: readonly number[];
}

// A session may be handed on by the server with the statements of an earlier client.
const PREFIX = `js_${randomBytes(6).toString("hex")}_`;
let lastNumber = 0;

/** A statement that is parsed once and run many times. */
export class PreparedStatement {
  readonly sql: string;
  /** Columns of its result; none for a statement that returns nothing. */
  columns: Column[] = [];
  /** Types of its parameters, by their numbers. */
  parameterTypes: number[] = [];

  readonly #name: string;
  readonly #owner: Queries;
  readonly #types: readonly number[];
  #isClosed = false;

  /** @internal */
  constructor(owner: Queries, sql: string, types: readonly number[], name?: string) {
    this.#owner = owner;
    this.sql = sql;
    this.#types = types;
    lastNumber += 1;
    this.#name = name ?? PREFIX + lastNumber;
  }

  /** Runs it and gives its rows. */
  async query<R = Row>(
    params: readonly Parameter[] = [], options: QueryRequestOptions = {},
  ): Promise<QueryResult<R>> {
    if (this.#isClosed) throw usageError("the prepared statement is closed");
    const limits = this.#owner.limits(options);
    const execute = {
      name: this.#name,
      params: toParameters(params).params,
      options: queryOptions(options),
    };
    return this.#owner.use(
      async (connection) => {
        const run = () =>
          connection.call(
            { kind: "PreparedStatement", value: { kind: "Execute", value: execute } }, limits,
          );
        await this.#prepareOn(connection, options);
        const replies = await run().catch(async (error: unknown) => {
          if (!isForgotten(error) || connection.transactionStatus !== "Idle") throw error;
          connection.prepared.delete(this.#name);
          await this.#prepareOn(connection, options);
          return run();
        });
        return resultsFrom(replies, this.#owner.settings, options.rowMode).at(-1)!;
      },
      limits,
      options.readOnly,
    );
  }

  /** Runs it and gives the number of rows that it changed (or returned). */
  async execute(
    params: readonly Parameter[] = [], options: QueryRequestOptions = {},
  ): Promise<number> {
    return (await this.query(params, options)).rowCount;
  }

  /** The same statement in a transaction or session. */
  within(owner: Queries): PreparedStatement {
    const statement = new PreparedStatement(owner, this.sql, this.#types, this.#name);
    statement.columns = this.columns;
    statement.parameterTypes = this.parameterTypes;
    return statement;
  }

  /** @internal Prepares it on some connection. */
  async describe(options: RequestOptions): Promise<void> {
    const limits = this.#owner.limits(options);
    await this.#owner.use((connection) => this.#prepareOn(connection, options), limits);
  }

  async #prepareOn(connection: Connection, options: RequestOptions): Promise<void> {
    if (connection.prepared.has(this.#name)) return;
    const value = { name: this.#name, sql: this.sql, paramTypes: [...this.#types] };
    const [reply] = await connection.call(
      { kind: "PreparedStatement", value: { kind: "Prepare", value } },
      this.#owner.limits(options),
    );
    if (reply?.kind !== "StatementInfo") throw unexpected(reply, "a StatementInfo");
    connection.prepared.add(this.#name);
    this.columns = reply.value.columns;
    this.parameterTypes = reply.value.paramTypes;
  }

  /** Ends it on every connection. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#owner.deallocate(this.#name);
  }
}

function isForgotten(error: unknown): boolean {
  return error instanceof RustyDBError && error.sqlstate === "26000";
}
