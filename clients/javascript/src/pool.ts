// The connections of a client: few, kept, handed out one at a time.

import { Connection, cancelled, type ConnectionHooks, type Limits } from "./connection.js";
import { connectionLost, RustyDBError, timedOut } from "./errors.js";
import type { Settings } from "./options.js";

/** A connection that is one's own until it is released. */
export interface Lease {
  readonly connection: Connection;
  release(): void;
}

interface Waiter {
  resolve(connection: Connection): void;
  reject(error: unknown): void;
}

/** Who may wait for a connection at the same time. */
const MOST_WAITERS = 10_000;
/** How long an unfinished request may take to end before its connection is given up. */
const SETTLE_MS = 5000;

/** Opens a connection to the first server that lets us. */
export async function openConnection(
  settings: Settings, hooks: ConnectionHooks,
): Promise<Connection> {
  let failure: unknown;
  for (const endpoint of settings.endpoints) {
    const limit = new AbortController();
    const where = `${endpoint.host}:${endpoint.port}`;
    const seconds = settings.timeoutMs / 1000;
    const timer = settings.timeoutMs === 0 ? undefined : setTimeout(() => {
      limit.abort(timedOut(`no connection to ${where} within ${seconds} s`));
    }, settings.timeoutMs);
    try {
      return await Connection.open(endpoint, settings, limit.signal, hooks);
    } catch (error) {
      failure = reachError(error, where);
      // Another server would not know the client either.
      if (error instanceof RustyDBError && error.sqlstate.startsWith("28")) break;
    } finally {
      clearTimeout(timer);
    }
  }
  throw failure;
}

function reachError(error: unknown, where: string): RustyDBError {
  if (error instanceof RustyDBError) return error;
  const message = `cannot connect to ${where}: ${(error as Error).message}`;
  return new RustyDBError("08001", "SERVICE_UNAVAILABLE", message, {
    retryable: true,
    cause: error,
  });
}

/** At most `poolSize` connections. */
export class Pool {
  readonly #settings: Settings;
  readonly #hooks: ConnectionHooks;
  readonly #all = new Set<Connection>();
  /** The one used last is taken first, so that the others grow old. */
  #idle: { connection: Connection; since: number }[] = [];
  #waiters: Waiter[] = [];
  #opening = 0;
  #isClosed = false;
  #reaper: NodeJS.Timeout | undefined;

  constructor(settings: Settings, hooks: Pick<ConnectionHooks, "onNotification">) {
    this.#settings = settings;
    this.#hooks = { onNotification: hooks.onNotification, onClosed: () => this.#sweep() };
    if (settings.idleTimeoutMs > 0) {
      const every = Math.max(10, Math.min(settings.idleTimeoutMs / 2, 30_000));
      this.#reaper = setInterval(() => this.#reap(), every);
      this.#reaper.unref();
    }
  }

  /** How many connections there are, and how many of them nobody uses. */
  get counts(): { total: number; idle: number; waiting: number } {
    const { size: total } = this.#all;
    return { total, idle: this.#idle.length, waiting: this.#waiters.length };
  }

  /** Connections that have a prepared statement of this name. */
  *withStatement(name: string): Iterable<Connection> {
    for (const connection of this.#all) if (connection.prepared.has(name)) yield connection;
  }

  /** Opens connections until there are `minPoolSize`, and one at least: the settings are right. */
  async warmUp(): Promise<void> {
    const wanted = Math.max(1, this.#settings.minPoolSize);
    const leases = await Promise.allSettled(Array.from({ length: wanted }, () => this.lease({})));
    for (const lease of leases) if (lease.status === "fulfilled") lease.value.release();
    for (const lease of leases) if (lease.status === "rejected") throw lease.reason;
  }

  /** Waits for a connection, not longer than the limits allow. */
  async lease({ timeoutMs = this.#settings.timeoutMs, signal }: Limits): Promise<Lease> {
    if (this.#isClosed) throw connectionLost("the client is disconnected", false);
    if (signal?.aborted) throw cancelled(signal);
    if (this.#waiters.length >= MOST_WAITERS) {
      throw exhausted(`${MOST_WAITERS} requests wait for a connection`);
    }
    const connection = await new Promise<Connection>((resolve, reject) => {
      const leave = (error: unknown): void => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        waiter.reject(error);
      };
      const abort = (): void => leave(cancelled(signal!));
      const timer = timeoutMs === 0 ? undefined : setTimeout(() => {
        leave(exhausted(`no connection became free within ${timeoutMs / 1000} s`));
      }, timeoutMs);
      const settle = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      };
      const waiter: Waiter = {
        resolve(found) {
          settle();
          resolve(found);
        },
        reject(error) {
          settle();
          reject(error);
        },
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#waiters.push(waiter);
      this.#serve();
    });
    let isReleased = false;
    const release = (): void => {
      if (isReleased) return;
      isReleased = true;
      void this.#takeBack(connection);
    };
    return { connection, release };
  }

  /** Ends everything: those who wait get an error, unfinished requests a few seconds. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#reaper);
    for (const waiter of this.#waiters.splice(0)) {
      waiter.reject(connectionLost("the client is disconnected", false));
    }
    await Promise.all([...this.#all].map((connection) => connection.close()));
    this.#sweep();
  }

  /** Gives waiters what there is, and opens what may be opened for the others. */
  #serve(): void {
    while (this.#waiters.length > 0) {
      const entry = this.#idle.pop();
      if (entry === undefined) break;
      if (entry.connection.isUsable) this.#waiters.shift()!.resolve(entry.connection);
      else this.#drop(entry.connection);
    }
    const missing = this.#waiters.length - this.#opening;
    const room = this.#settings.poolSize - this.#all.size - this.#opening;
    for (let i = 0; i < Math.min(missing, room); i++) void this.#open();
  }

  async #open(): Promise<void> {
    this.#opening += 1;
    try {
      const connection = await openConnection(this.#settings, this.#hooks);
      this.#opening -= 1;
      this.#all.add(connection);
      if (this.#isClosed) await connection.close();
      else this.#offer(connection);
    } catch (error) {
      this.#opening -= 1;
      this.#waiters.shift()?.reject(error);
      this.#serve();
    }
  }

  #offer(connection: Connection): void {
    this.#idle.push({ connection, since: performance.now() });
    this.#serve();
  }

  /** A connection goes back clean, or not at all. */
  async #takeBack(connection: Connection): Promise<void> {
    const isClean = connection.isUsable && (await clean(connection));
    if (isClean && connection.isUsable && !this.#isClosed) return this.#offer(connection);
    this.#drop(connection);
    this.#serve();
  }

  #drop(connection: Connection): void {
    this.#all.delete(connection);
    if (!connection.isClosed) void connection.close();
  }

  /** Forgets connections that have failed. */
  #sweep(): void {
    for (const connection of this.#all) if (connection.isClosed) this.#all.delete(connection);
    this.#idle = this.#idle.filter(({ connection }) => !connection.isClosed);
    this.#serve();
  }

  /** Closes what was idle for too long. */
  #reap(): void {
    const oldest = performance.now() - this.#settings.idleTimeoutMs;
    let spare = this.#all.size - this.#settings.minPoolSize;
    for (const { connection, since } of [...this.#idle]) {
      if (since > oldest || spare <= 0) break;
      spare -= 1;
      this.#idle.shift();
      this.#drop(connection);
    }
  }
}

/** Waits for what is unfinished, and ends a transaction that was left open. */
async function clean(connection: Connection): Promise<boolean> {
  if (connection.pendingCount > 0 && !(await connection.settled(SETTLE_MS))) return false;
  if (connection.transactionStatus === "Idle") return true;
  try {
    const value = { toSavepoint: null, andChain: false };
    await connection.call({ kind: "Rollback", value }, { timeoutMs: SETTLE_MS });
    return true;
  } catch {
    return false;
  }
}

function exhausted(message: string): RustyDBError {
  return new RustyDBError("53300", "POOL_EXHAUSTED", message, { retryable: true });
}
