// The client: a pool of connections, and everything that can be asked of it.

import { EventEmitter } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection, Limits } from "./connection.js";
import { cancelled } from "./connection.js";
import { RustyDBError } from "./errors.js";
import { Events, type NotificationHandler, type Subscription } from "./events.js";
import { settingsFrom, type ClientOptions } from "./options.js";
import { Pool, type Lease } from "./pool.js";
import { deallocateOn } from "./queries.js";
import { Session } from "./session.js";
import { Transactional, type Transaction, type TransactionOptions } from "./transaction.js";
import type { RequestOptions } from "./result.js";
import type { ServerNotification } from "./wire/message.js";

/** A message of the server that is no error, for example of `RAISE NOTICE`. */
export interface Notice {
  severity: "Debug" | "Log" | "Info" | "Notice" | "Warning";
  sqlstate: string;
  message: string;
}

/** Events of a client and what their listeners get. */
export interface ClientEvents {
  notice: [Notice];
  /** Something about a session, for example that events were dropped. */
  sessionEvent: [{ event: string; detail: string }];
  /** The server is about to stop; requests go to new connections. */
  shutdown: [{ graceMs: number; reason: string }];
  /** Channels are listened to again after a loss: notifications may be missing. */
  relisten: [];
}

/** How often a request is made at most, if its failure allows another try. */
const MOST_ATTEMPTS = 5;
const FIRST_PAUSE_MS = 50;

/** A client of one database. It connects when needed; `connect` does it at once. */
export class RustyDBClient extends Transactional {
  readonly #pool: Pool;
  readonly #events: Events;
  readonly #emitter = new EventEmitter();

  /** `{ url }`, or `{ host, port, username, password, database, … }`, or the URL alone. */
  constructor(options: ClientOptions | string = {}) {
    super(settingsFrom(typeof options === "string" ? { url: options } : options));
    const onNotification = (n: ServerNotification): void => this.#onNotification(n);
    this.#pool = new Pool(this.settings, { onNotification });
    this.#events = new Events(this.settings, onNotification, () => this.#emitter.emit("relisten"));
  }

  /** Opens the first connection, so that wrong settings show now. */
  async connect(): Promise<this> {
    await this.#pool.warmUp();
    return this;
  }

  /** Closes all connections; requests under way get a few seconds. The client is used up then. */
  async disconnect(): Promise<void> {
    await Promise.all([this.#events.close(), this.#pool.close()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.disconnect();
  }

  /** How many connections the pool has, how many are idle, how many requests wait for one. */
  get poolCounts(): { total: number; idle: number; waiting: number } {
    return this.#pool.counts;
  }

  /** Runs `work` on one connection, so that settings and temporary tables last through it. */
  async session<T>(
    work: (session: Session) => Promise<T>, options: RequestOptions = {},
  ): Promise<T> {
    const session = new Session(this.settings, await this.lease(this.limits(options)));
    try {
      return await work(session);
    } finally {
      await session.end();
    }
  }

  /**
   * Calls `handler` for each notification (`NOTIFY`) of a channel, also after a lost connection was
   * replaced. The function that is returned ends that.
   */
  listen(channel: string, handler: NotificationHandler): Promise<() => Promise<void>> {
    return this.#events.listen(channel, handler);
  }

  /** Ends one handler of a channel, or all of them. */
  unlisten(channel: string, handler?: NotificationHandler): Promise<void> {
    return this.#events.unlisten(channel, handler);
  }

  /** Begins one of the server's streams of events. There are none yet: it answers 0A000. */
  subscribe(stream: string, params: Record<string, string> = {}): Promise<Subscription> {
    return this.#events.subscribe(stream, params);
  }

  /** Calls `listener` for each event of the client. */
  on<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this {
    this.#emitter.on(event, listener as (...args: unknown[]) => void);
    return this;
  }

  off<E extends keyof ClientEvents>(event: E, listener: (...args: ClientEvents[E]) => void): this {
    this.#emitter.off(event, listener as (...args: unknown[]) => void);
    return this;
  }

  #onNotification({ kind, value }: ServerNotification): void {
    if (kind === "Notice") this.#emitter.emit("notice", value);
    if (kind === "SessionEvent") this.#emitter.emit("sessionEvent", value);
    if (kind === "Shutdown") this.#emitter.emit("shutdown", value);
  }

  override begin(options: TransactionOptions = {}): Promise<Transaction> {
    // A transaction that was lost before its first statement has done nothing.
    return this.#retrying(() => super.begin(options), this.limits(options), true);
  }

  /** @internal */
  override lease(limits: Limits): Promise<Lease> {
    return this.#retrying(() => this.#pool.lease(limits), limits, false);
  }

  /** @internal */
  override use<T>(
    work: (connection: Connection) => Promise<T>, limits: Limits, readOnly = false,
  ): Promise<T> {
    const attempt = async (): Promise<T> => {
      const { connection, release } = await this.#pool.lease(limits);
      try {
        return await work(connection);
      } finally {
        release();
      }
    };
    return this.#retrying(attempt, limits, readOnly);
  }

  /** Tries again, on another connection, what certainly did not happen or changes nothing. */
  async #retrying<T>(
    attempt: () => Promise<T>, { timeoutMs = 0, signal }: Limits, readOnly: boolean,
  ): Promise<T> {
    const until = timeoutMs === 0 ? Infinity : performance.now() + timeoutMs;
    for (let made = 1; ; made++) {
      try {
        return await attempt();
      } catch (error) {
        if (made === MOST_ATTEMPTS || !mayRetry(error, readOnly)) throw error;
        const pause = error.retryAfterMs ?? FIRST_PAUSE_MS * 2 ** (made - 1);
        if (performance.now() + pause >= until) throw error;
        await sleep(pause, undefined, { signal }).catch(() => {
          throw cancelled(signal!);
        });
      }
    }
  }

  /** @internal */
  override async deallocate(name: string): Promise<void> {
    const holders = [...this.#pool.withStatement(name)];
    await Promise.all(holders.map((connection) => deallocateOn(connection, name)));
  }
}

function mayRetry(error: unknown, readOnly: boolean): error is RustyDBError {
  if (!(error instanceof RustyDBError)) return false;
  return error.retryable || (readOnly && error.sqlstate === "08006");
}
