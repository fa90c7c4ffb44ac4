// Transactions and savepoints; what a client and a session have in common to begin them.

import { unexpected, type Connection, type Limits } from "./connection.js";
import { connectionLost, RustyDBError, usageError } from "./errors.js";
import type { Lease } from "./pool.js";
import { deallocateOn, Queries } from "./queries.js";
import type { RequestOptions } from "./result.js";
import type { Settings } from "./options.js";
import type { Message } from "./wire/message.js";

/** Options of a transaction; what is left out is the server's default. */
export interface TransactionOptions extends RequestOptions {
  isolation?: "read uncommitted" | "read committed" | "repeatable read" | "serializable";
  readOnly?: boolean;
  deferrable?: boolean;
}

const ISOLATIONS = {
  "read uncommitted": "ReadUncommitted",
  "read committed": "ReadCommitted",
  "repeatable read": "RepeatableRead",
  serializable: "Serializable",
} as const;

/** Options of the end of a transaction. */
export interface EndOptions extends RequestOptions {
  /** The next transaction begins at once, with the same properties. */
  andChain?: boolean;
}

/** What can begin a transaction. */
export abstract class Transactional extends Queries {
  /** Begins a transaction, which must be ended with `commit` or `rollback`. */
  async begin(options: TransactionOptions = {}): Promise<Transaction> {
    const limits = this.limits(options);
    const lease = await this.lease(limits);
    try {
      const isolation = options.isolation === undefined ? null : ISOLATIONS[options.isolation];
      if (isolation === undefined) throw usageError(`no isolation level ${options.isolation}`);
      const value = {
        isolation,
        readOnly: options.readOnly ?? null,
        deferrable: options.deferrable ?? null,
      };
      const [reply] = await lease.connection.call({ kind: "Begin", value }, limits);
      if (reply?.kind !== "TransactionStarted") throw unexpected(reply, "TransactionStarted");
      return new Transaction(this.settings, lease, reply.value.transactionId);
    } catch (error) {
      lease.release();
      throw error;
    }
  }

  /** Runs `work` in a transaction: commits when it returns, rolls back when it throws. */
  async transaction<T>(
    work: (txn: Transaction) => Promise<T>, options: TransactionOptions = {},
  ): Promise<T> {
    const txn = await this.begin(options);
    try {
      const result = await work(txn);
      if (txn.isOpen) await txn.commit();
      return result;
    } catch (error) {
      if (txn.isOpen) await txn.rollback().catch(() => undefined);
      throw error;
    } finally {
      txn.abandon();
    }
  }
}

/** An open transaction, on a connection of its own. Finish a stream before the next request. */
export class Transaction extends Queries {
  /** RustyDB's number of the transaction. */
  readonly id: bigint;
  readonly #lease: Lease;
  #isOpen = true;
  #savepoints = 0;

  /** @internal */
  constructor(settings: Settings, lease: Lease, id: bigint) {
    super(settings);
    this.#lease = lease;
    this.id = id;
  }

  /** Whether it was neither committed nor rolled back. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** @internal */
  override async use<T>(work: (connection: Connection) => Promise<T>): Promise<T> {
    return work(this.#connection());
  }

  /** @internal */
  override async lease(_limits: Limits): Promise<Lease> {
    return { connection: this.#connection(), release: () => undefined };
  }

  /** @internal */
  override async deallocate(name: string): Promise<void> {
    if (this.#isOpen) await deallocateOn(this.#lease.connection, name);
  }

  #connection(): Connection {
    if (!this.#isOpen) {
      throw new RustyDBError("25P01", "VALIDATION_ERROR", "the transaction has ended");
    }
    const { connection } = this.#lease;
    // The transaction is lost with it, so nothing can be tried again here.
    if (connection.isClosed) throw connectionLost("the transaction's connection is lost", false);
    return connection;
  }

  /** Makes the changes last. Throws `25P02` if an error had ended the transaction before. */
  async commit(options: EndOptions = {}): Promise<void> {
    const andChain = options.andChain ?? false;
    const tag = await this.#end({ kind: "Commit", value: { andChain } }, options);
    if (tag === "ROLLBACK") {
      const message = "the transaction had failed, so it was rolled back instead of committed";
      throw new RustyDBError("25P02", "TRANSACTION_FAILED", message);
    }
  }

  /** Undoes everything. */
  async rollback(options: EndOptions = {}): Promise<void> {
    const andChain = options.andChain ?? false;
    await this.#end({ kind: "Rollback", value: { toSavepoint: null, andChain } }, options);
  }

  async #end(message: Message, options: EndOptions): Promise<string | null> {
    const connection = this.#connection();
    try {
      const [reply] = await connection.call(message, this.limits(options));
      if (reply?.kind !== "Ok") throw unexpected(reply, "Ok");
      return reply.value.commandTag;
    } finally {
      if (connection.transactionStatus === "Idle" || !options.andChain) this.abandon();
    }
  }

  /** @internal Gives the connection back; a transaction that is still open there is rolled back. */
  abandon(): void {
    this.#isOpen = false;
    this.#lease.release();
  }

  /** Sets a savepoint. */
  async savepoint(name: string, options: RequestOptions = {}): Promise<void> {
    await this.#ok({ kind: "Savepoint", value: { name, release: false } }, options);
  }

  /** Forgets a savepoint; what was done since stays. */
  async releaseSavepoint(name: string, options: RequestOptions = {}): Promise<void> {
    await this.#ok({ kind: "Savepoint", value: { name, release: true } }, options);
  }

  /** Undoes what was done since a savepoint, which stays set; also after an error. */
  async rollbackTo(name: string, options: RequestOptions = {}): Promise<void> {
    await this.#ok({ kind: "Rollback", value: { toSavepoint: name, andChain: false } }, options);
  }

  /** Runs `work` under a savepoint: what it did stays when it returns, is undone when it throws. */
  async nested<T>(work: (txn: Transaction) => Promise<T>): Promise<T> {
    this.#savepoints += 1;
    const name = `nested_${this.#savepoints}`;
    await this.savepoint(name);
    try {
      const result = await work(this);
      await this.releaseSavepoint(name);
      return result;
    } catch (error) {
      await this.rollbackTo(name).catch(() => undefined);
      throw error;
    }
  }

  async #ok(message: Message, options: RequestOptions): Promise<void> {
    const [reply] = await this.#connection().call(message, this.limits(options));
    if (reply?.kind !== "Ok") throw unexpected(reply, "Ok");
  }
}
