// Notifications and event streams: one connection of their own, opened when first needed.

import { setTimeout as sleep } from "node:timers/promises";
import { unexpected, type Connection } from "./connection.js";
import { connectionLost, usageError, type RustyDBError } from "./errors.js";
import type { Settings } from "./options.js";
import { openConnection } from "./pool.js";
import { ReplyQueue } from "./replies.js";
import { MAX_PAYLOAD } from "./wire/frame.js";
import type { Message, ServerNotification } from "./wire/message.js";

/** What `NOTIFY` sent. */
export interface Notification {
  channel: string;
  payload: string;
  /** The PostgreSQL process that sent it. */
  processId: number;
}

export type NotificationHandler = (notification: Notification) => void;

/** One event of a stream. */
export interface StreamEvent {
  stream: string;
  /** Counts the events of the stream. */
  sequence: bigint;
  time: Date;
  /** The parsed JSON of the event. */
  data: any;
}

/** Who listens to a channel, and whether the server knows already. */
interface Channel {
  handlers: Set<NotificationHandler>;
  accepted: Promise<void>;
}

const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 10_000;

/** The connection for everything that the server says by itself. */
export class Events {
  readonly #settings: Settings;
  readonly #onOther: (notification: ServerNotification) => void;
  /** After a loss the channels are listened to again; what was sent meanwhile is missing. */
  readonly #onRelisten: () => void;
  readonly #channels = new Map<string, Channel>();
  #connection: Promise<Connection> | undefined;
  #isClosed = false;
  #isRelistening = false;
  readonly #closing = new AbortController();

  constructor(
    settings: Settings, onOther: (notification: ServerNotification) => void,
    onRelisten: () => void,
  ) {
    this.#settings = settings;
    this.#onOther = onOther;
    this.#onRelisten = onRelisten;
  }

  /** Calls `handler` for each notification of the channel, until the result is called. */
  async listen(channel: string, handler: NotificationHandler): Promise<() => Promise<void>> {
    const entry = this.#channels.get(channel) ?? this.#addChannel(channel);
    if (entry.handlers.has(handler)) throw usageError(`the handler listens to ${channel} already`);
    entry.handlers.add(handler);
    try {
      await entry.accepted;
    } catch (error) {
      if (this.#channels.get(channel) === entry) this.#channels.delete(channel);
      throw error;
    }
    return () => this.unlisten(channel, handler);
  }

  #addChannel(channel: string): Channel {
    const accepted = this.#connected().then((connection) => this.#listenOn(connection, channel));
    const entry = { handlers: new Set<NotificationHandler>(), accepted };
    this.#channels.set(channel, entry);
    return entry;
  }

  async #listenOn(connection: Connection, channel: string): Promise<void> {
    const value = { kind: "Listen", value: { channel } } as const;
    const [reply] = await connection.call({ kind: "Notification", value }, this.#limits());
    if (reply?.kind !== "Ok") throw unexpected(reply, "Ok");
  }

  /** Ends one handler of a channel, or all of them. */
  async unlisten(channel: string, handler?: NotificationHandler): Promise<void> {
    const entry = this.#channels.get(channel);
    if (entry === undefined) return;
    if (handler !== undefined) entry.handlers.delete(handler);
    if (handler !== undefined && entry.handlers.size > 0) return;
    this.#channels.delete(channel);
    // A connection that is lost listens to nothing.
    const connection = await this.#connection?.catch(() => undefined);
    if (connection === undefined || connection.isClosed) return;
    const value = { kind: "Unlisten", value: { channel } } as const;
    await connection.call({ kind: "Notification", value }, this.#limits());
  }

  /** Begins a stream of events. */
  async subscribe(stream: string, params: Record<string, string>): Promise<Subscription> {
    const connection = await this.#connected();
    const most = this.#settings.streamWindow + MAX_PAYLOAD;
    const subscription = new Subscription(connection, new ReplyQueue(most));
    await subscription.open(stream, Object.entries(params), this.#settings.timeoutMs);
    return subscription;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#closing.abort();
    this.#channels.clear();
    const connection = await this.#connection?.catch(() => undefined);
    connection?.destroy("the client is disconnected");
  }

  #limits() {
    return { timeoutMs: this.#settings.timeoutMs };
  }

  async #connected(): Promise<Connection> {
    if (this.#isClosed) throw connectionLost("the client is disconnected", false);
    this.#connection ??= this.#open();
    return this.#connection;
  }

  async #open(): Promise<Connection> {
    try {
      return await openConnection(this.#settings, {
        onNotification: (notification) => this.#onNotification(notification),
        onClosed: () => this.#onClosed(),
      });
    } catch (error) {
      this.#connection = undefined;
      throw error;
    }
  }

  #onNotification(notification: ServerNotification): void {
    if (notification.kind !== "Event") return this.#onOther(notification);
    const handlers = this.#channels.get(notification.value.channel)?.handlers ?? [];
    for (const handler of [...handlers]) {
      // A handler that throws is the program's error, not the connection's.
      queueMicrotask(() => handler(notification.value));
    }
  }

  #onClosed(): void {
    this.#connection = undefined;
    if (!this.#isClosed && !this.#isRelistening && this.#channels.size > 0) void this.#relisten();
  }

  /** Listens again to everything, on a new connection, however long that takes. */
  async #relisten(): Promise<void> {
    this.#isRelistening = true;
    for (let wait = FIRST_RETRY_MS; ; wait = Math.min(wait * 2, LONGEST_RETRY_MS)) {
      try {
        await sleep(wait, undefined, { signal: this.#closing.signal });
        if (this.#channels.size === 0) break;
        const connection = await this.#connected();
        for (const channel of this.#channels.keys()) await this.#listenOn(connection, channel);
        if (connection.isUsable) break;
      } catch {
        if (this.#isClosed) break;
      }
    }
    this.#isRelistening = false;
    if (!this.#isClosed && this.#channels.size > 0) this.#onRelisten();
  }
}

/** The events of a stream: `for await (const event of subscription)`. */
export class Subscription implements AsyncIterableIterator<StreamEvent> {
  readonly #connection: Connection;
  readonly #queue: ReplyQueue;
  #id = 0n;
  #inUse = 0;
  #isOver = false;

  /** @internal */
  constructor(connection: Connection, queue: ReplyQueue) {
    this.#connection = connection;
    this.#queue = queue;
  }

  /** @internal Sends the request and waits until it is accepted. */
  async open(stream: string, params: [string, string][], timeoutMs: number): Promise<void> {
    const message: Message = { kind: "Subscribe", value: { stream, params } };
    this.#id = this.#connection.start(message, this.#queue);
    const giveUp = (error: unknown): void => this.#queue.fail(error);
    const stop = this.#connection.watch(this.#id, { timeoutMs }, giveUp);
    try {
      const { message: reply } = await this.#queue.take();
      if (reply.kind !== "Ok") throw unexpected(reply, "Ok");
    } finally {
      stop();
    }
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next event. */
  async next(): Promise<IteratorResult<StreamEvent>> {
    if (this.#isOver) return { done: true, value: undefined };
    if (this.#inUse > 0) this.#connection.consumed(this.#id, this.#inUse);
    this.#inUse = 0;
    try {
      const { message, size } = await this.#queue.take();
      this.#inUse = size;
      if (message.kind !== "StreamEvent") throw unexpected(message, "an event");
      const { stream, sequence, timeUs, body } = message.value;
      const time = new Date(Number(timeUs / 1000n));
      return { done: false, value: { stream, sequence, time, data: JSON.parse(body) } };
    } catch (error) {
      if (this.#isOver) return { done: true, value: undefined };
      this.#isOver = true;
      throw error;
    }
  }

  /** Ends the stream; a loop over it ends too. */
  async unsubscribe(): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    const id = this.#id;
    const drop = (size: number): void => this.#connection.consumed(id, size);
    this.#queue.fail(new Error("unsubscribed"), drop);
    try {
      await this.#connection.call({ kind: "Unsubscribe", value: { target: id } });
    } finally {
      this.#connection.forget(id);
    }
  }

  async return(): Promise<IteratorResult<StreamEvent>> {
    await this.unsubscribe().catch((error: RustyDBError) => {
      if (!this.#connection.isClosed) throw error;
    });
    return { done: true, value: undefined };
  }
}
