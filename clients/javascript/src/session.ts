// A session of one's own: settings and temporary tables that outlast a statement.

import { unexpected, type Connection, type Limits } from "./connection.js";
import { connectionLost } from "./errors.js";
import type { Settings } from "./options.js";
import type { Lease } from "./pool.js";
import { deallocateOn } from "./queries.js";
import { resultsFrom, type RequestOptions } from "./result.js";
import { Transactional } from "./transaction.js";
import type { SessionCommand } from "./wire/message.js";

/** Which used session is welcome. */
export interface AcquireOptions extends RequestOptions {
  connectionClass?: string;
  tag?: string;
  purity?: "new" | "self" | "any";
}

const PURITIES = { new: "New", self: "Self", any: "Any" } as const;

/** One connection of the pool, kept until the work on it is done, and then reset. */
export class Session extends Transactional {
  readonly #lease: Lease;
  #isOpen = true;

  /** @internal */
  constructor(settings: Settings, lease: Lease) {
    super(settings);
    this.#lease = lease;
  }

  /** What the server reports about the session: `server_version`, `TimeZone` and so on. */
  get parameters(): ReadonlyMap<string, string> {
    return this.#lease.connection.parameters;
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
    const { connection } = this.#lease;
    if (!this.#isOpen) throw connectionLost("the session has ended", false);
    if (connection.isClosed) throw connectionLost("the session's connection is lost", false);
    return connection;
  }

  /** Sets a parameter: of the session, or with `local` of the transaction. */
  async set(name: string, value: string, options: { local?: boolean } = {}): Promise<void> {
    await this.#ok({ kind: "Set", value: { name, value, local: options.local ?? false } });
  }

  /** The value of a parameter. */
  async show(name: string): Promise<string> {
    const value = { kind: "Show", value: { name } } as const;
    const replies = await this.#connection().call({ kind: "Session", value }, this.limits({}));
    const [result] = resultsFrom(replies, this.settings, "array");
    return String(result?.rows[0]?.[0]);
  }

  /** Gives a parameter, or all, the value it had at first. */
  async reset(name?: string): Promise<void> {
    await this.#ok({ kind: "Reset", value: { name: name ?? null } });
  }

  /** Makes the session as new: no settings, temporary tables, prepared statements. */
  async discardAll(): Promise<void> {
    const connection = this.#connection();
    await this.#ok({ kind: "DiscardAll" });
    connection.prepared.clear();
  }

  /** Changes to a session of the server's session pool. */
  async acquire(options: AcquireOptions = {}): Promise<void> {
    const connection = this.#connection();
    const value = {
      connectionClass: options.connectionClass ?? null,
      tag: options.tag ?? null,
      purity: PURITIES[options.purity ?? "self"],
    };
    const [reply] = await connection.call(
      { kind: "Session", value: { kind: "Acquire", value } }, this.limits(options),
    );
    connection.prepared.clear();
    if (reply?.kind !== "AuthReply") throw unexpected(reply, "a session");
  }

  /** Gives the session back to the server's session pool, with a tag for whoever gets it next. */
  async release(options: { tag?: string } = {}): Promise<void> {
    const connection = this.#connection();
    await this.#ok({ kind: "Release", value: { tag: options.tag ?? null } });
    connection.prepared.clear();
  }

  async #ok(value: SessionCommand): Promise<void> {
    const [reply] = await this.#connection().call({ kind: "Session", value }, this.limits({}));
    if (reply?.kind !== "Ok") throw unexpected(reply, "Ok");
  }

  /** @internal Resets the connection and gives it back. */
  async end(): Promise<void> {
    const { connection } = this.#lease;
    try {
      if (connection.isUsable && connection.transactionStatus !== "Idle") {
        await connection.call({
          kind: "Rollback",
          value: { toSavepoint: null, andChain: false },
        });
      }
      if (connection.isUsable) await this.discardAll();
    } catch {
      connection.destroy("the session could not be reset");
    } finally {
      this.#isOpen = false;
      this.#lease.release();
    }
  }
}
