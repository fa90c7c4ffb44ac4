// One connection: frames in and out, requests and their replies, flow control, heartbeats.

import type { Socket } from "node:net";
import { connectionLost, protocolViolation, RustyDBError, timedOut } from "./errors.js";
import { CONNECTION, ReceiveCredit, SendWindows } from "./flow.js";
import type { Endpoint, Settings } from "./options.js";
import { authenticate, greet, type Greeting } from "./login.js";
import { openTransport } from "./transport.js";
import {
  encodeFrame, flag, frameBody, FrameReader, HEADER_SIZE, MAX_PAYLOAD, PREFACE,
  type Agreement, type Frame,
} from "./wire/frame.js";
import {
  decodeMessage, encodeMessage, type Message, type ServerNotification, type TxStatus,
} from "./wire/message.js";

/** Who gets the replies to one request. */
export interface Exchange {
  /**
   * One reply that is not the last, not decoded yet: so it takes no more memory than its window
   * says until it is used. Without this method it goes to `onReply`.
   */
  onPart?(decode: () => Message, size: number): void;
  /** One reply; `size` is its payload, for a stream's window. Without `more` it is the last. */
  onReply(message: Message, more: boolean, size: number): void;
  /** The connection is gone before the last reply. */
  onLost(error: RustyDBError): void;
}

/** Limits of one request. */
export interface Limits {
  /** Milliseconds until it is cancelled; 0 for none. */
  timeoutMs?: number;
  /** Cancels it. */
  signal?: AbortSignal | undefined;
  /** Bits of the frame's flags: the priority. */
  flags?: number;
}

/** What a connection tells its owner. */
export interface ConnectionHooks {
  onNotification(notification: ServerNotification): void;
  onClosed(error: RustyDBError): void;
}

interface Pending {
  exchange: Exchange;
  sent: boolean;
  /** Its own frames end with a last one, also after the server's last reply. */
  isSequence: boolean;
}

interface Outgoing {
  id: bigint;
  frame: Buffer;
  /** The last of a sequence. */
  isLast: boolean;
}

/** How long the peer may take to finish when a connection is closed, in milliseconds. */
const CLOSE_GRACE_MS = 5000;
const UNANSWERED_HEARTBEATS = 2;

/** A connection that is logged in. */
export class Connection {
  /** How the session stands, as of the last reply. */
  transactionStatus: TxStatus = "Idle";
  /** Names of the prepared statements that this session has. */
  readonly prepared = new Set<string>();
  /** What the server reports: `server_version`, `TimeZone` and so on. */
  readonly parameters = new Map<string, string>();
  /** Set at the log-in. */
  greeting!: Greeting;

  readonly #socket: Socket;
  readonly #hooks: ConnectionHooks;
  readonly #reader = new FrameReader();
  readonly #pending = new Map<bigint, Pending>();
  readonly #outbox: Outgoing[] = [];
  #agreement: Agreement = { checksum: false, maxMessageSize: MAX_PAYLOAD };
  /** Before the handshake nothing is counted. */
  #windows = new SendWindows(Infinity);
  #credit: ReceiveCredit;
  #nextId = 1n;
  /** Requests that were sent and have not had their last reply. */
  #inFlight = 0;
  #failure: RustyDBError | undefined;
  #draining = false;
  #corked = false;
  #waiters: (() => void)[] = [];
  #heartbeat: NodeJS.Timeout | undefined;
  #heardAt = performance.now();
  #unanswered = 0;

  private constructor(socket: Socket, settings: Settings, hooks: ConnectionHooks) {
    this.#socket = socket;
    this.#hooks = hooks;
    const { streamWindow, connectionWindow } = settings;
    this.#credit = new ReceiveCredit(streamWindow, connectionWindow, (stream, credit) =>
      this.#control({ kind: "WindowUpdate", value: { stream, credit } }),
    );
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    socket.on("drain", () => this.#wake());
    socket.on("error", (error) => {
      this.#fail(connectionLost(`the connection failed: ${error.message}`, false, error));
    });
    socket.on("close", () => {
      this.#fail(connectionLost("the server closed the connection", false));
    });
  }

  /** Connects to one server and logs in. `signal` gives up. */
  static async open(
    endpoint: Endpoint, settings: Settings, signal: AbortSignal, hooks: ConnectionHooks,
  ): Promise<Connection> {
    const socket = await openTransport(endpoint, settings, signal);
    const connection = new Connection(socket, settings, hooks);
    const abort = (): void => connection.#fail(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    try {
      socket.write(PREFACE);
      const greeting = await greet(connection, settings);
      connection.#agree(greeting);
      await authenticate(connection, socket, settings);
      connection.#beat(greeting.hello.heartbeatIntervalMs);
      return connection;
    } catch (error) {
      connection.#fail(connectionLost("the log-in failed", false, error));
      throw error;
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  #agree(greeting: Greeting): void {
    const { hello, compressor, checksum } = greeting;
    this.greeting = greeting;
    this.#agreement = { compressor, checksum, maxMessageSize: hello.maxMessageSize };
    this.#reader.maxMessageSize = hello.maxMessageSize;
    this.#windows = new SendWindows(hello.connectionWindow);
  }

  /** Whether a request can be made. */
  get isUsable(): boolean {
    return this.#failure === undefined && !this.#draining;
  }

  /** Whether it is gone. */
  get isClosed(): boolean {
    return this.#failure !== undefined;
  }

  /** How many requests have not had their last reply. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /**
   * Begins a request; its number is what further frames and a cancel need. With `isSequence` frames
   * follow until `conclude`, in a window of their own beside that of the connection.
   */
  start(message: Message, exchange: Exchange, flags = 0, isSequence = false): bigint {
    if (this.#failure !== undefined) throw neverSent(this.#failure);
    const most = this.greeting?.hello.maxPendingRequests ?? 1;
    if (this.#pending.size >= most) {
      const text = `${most} requests of this connection wait for their replies`;
      throw new RustyDBError("53400", "TOO_MANY_PENDING_REQUESTS", text, { retryable: true });
    }
    const id = this.#nextId;
    const frame = encodeFrame(flags, id, encodeMessage(message, HEADER_SIZE), this.#agreement);
    this.#nextId += 1n;
    this.#pending.set(id, { exchange, sent: false, isSequence });
    if (isSequence) this.#windows.open(id, this.greeting.hello.streamWindow);
    this.#send(id, frame);
    return id;
  }

  /** One more frame of a request. Does nothing if the request is over. */
  proceed(id: bigint, message: Message, flags = 0): void {
    if (!this.#pending.has(id)) return;
    this.#send(id, encodeFrame(flags, id, encodeMessage(message, HEADER_SIZE), this.#agreement));
  }

  /** The last frame of a sequence: the server waits for it even if it has replied already. */
  conclude(id: bigint, message: Message, flags = 0): void {
    if (this.#failure !== undefined) return;
    const frame = encodeFrame(flags, id, encodeMessage(message, HEADER_SIZE), this.#agreement);
    this.#send(id, frame, true);
  }

  /** Sends a request and waits for its last reply; gives all of them. An Error is thrown. */
  call(message: Message, limits: Limits = {}): Promise<Message[]> {
    return new Promise((resolve, reject) => {
      const replies: Message[] = [];
      let stop = (): void => undefined;
      const exchange: Exchange = {
        onReply: (reply, more) => {
          replies.push(reply);
          if (more) return;
          stop();
          const error = message.kind === "Batch" ? undefined : errorIn(replies);
          if (error === undefined) resolve(replies);
          else reject(error);
        },
        onLost: (error) => {
          stop();
          reject(error);
        },
      };
      if (limits.signal?.aborted) return reject(cancelled(limits.signal));
      const id = this.start(message, exchange, limits.flags);
      stop = this.watch(id, limits, reject);
    });
  }

  /**
   * Cancels a request when its time is over or its signal aborts, and tells `gaveUp`. The function
   * that is returned ends the watch.
   */
  watch(id: bigint, limits: Limits, gaveUp: (error: unknown) => void): () => void {
    const { timeoutMs = 0, signal } = limits;
    const giveUp = (error: unknown): void => {
      stop();
      gaveUp(error);
      this.cancel(id);
    };
    const abort = (): void => giveUp(cancelled(signal!));
    const timer = timeoutMs === 0 ? undefined : setTimeout(() => {
      giveUp(timedOut(`no answer within ${timeoutMs / 1000} s`));
    }, timeoutMs);
    signal?.addEventListener("abort", abort, { once: true });
    const stop = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    };
    return stop;
  }

  /** Asks the server to end a request; its last reply still comes. */
  cancel(id: bigint): void {
    const pending = this.#pending.get(id);
    if (pending === undefined || this.#failure !== undefined) return;
    if (pending.sent) {
      this.#control({ kind: "Cancel", value: { target: id } });
      return this.#wake();
    }
    const kept = this.#outbox.filter((outgoing) => outgoing.id !== id);
    this.#outbox.splice(0, this.#outbox.length, ...kept);
    this.forget(id);
    pending.exchange.onLost(new RustyDBError("57014", "CANCELLED", "cancelled before it was sent"));
  }

  /** Asks the server to end a stream, which in a transaction does no harm as a cancel would. */
  endStream(id: bigint): void {
    const pending = this.#pending.get(id);
    if (pending !== undefined && !pending.sent) return this.cancel(id);
    this.proceed(id, { kind: "Streaming", value: { kind: "Cancel" } });
  }

  /** Waits until a frame of the request may be sent. False if it is over, or was given up. */
  async canSend(id: bigint, isGivenUp: () => boolean = () => false): Promise<boolean> {
    while (this.#pending.has(id) && !isGivenUp()) {
      const isFree = this.#outbox.length === 0 && !this.#socket.writableNeedDrain;
      if (isFree && this.#windows.hasCredit(id)) return true;
      await new Promise<void>((wake) => this.#waiters.push(wake));
    }
    return false;
  }

  /** The program has used rows or events of a stream: the server may send as many bytes again. */
  consumed(id: bigint, bytes: number): void {
    if (this.#pending.has(id)) this.#credit.used(id, bytes);
  }

  /** Ends a request that has no last reply of its own: a subscription. */
  forget(id: bigint): void {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    // A sequence that was begun keeps its window until its last frame.
    if (pending !== undefined && !(pending.isSequence && pending.sent)) this.#windows.close(id);
    this.#credit.forget(id);
    if (pending?.sent) this.#inFlight -= 1;
    this.#sendWaiting();
    this.#wake();
  }

  /** Waits until no request is unfinished; false if that takes too long or the connection fails. */
  async settled(timeoutMs = CLOSE_GRACE_MS): Promise<boolean> {
    const until = performance.now() + timeoutMs;
    const timer = setTimeout(() => this.#wake(), timeoutMs);
    while (this.#pending.size > 0 && !this.isClosed && performance.now() < until) {
      await new Promise<void>((wake) => this.#waiters.push(wake));
    }
    clearTimeout(timer);
    return this.#pending.size === 0 && !this.isClosed;
  }

  /** Lets unfinished requests end, says good-bye and closes. */
  async close(): Promise<void> {
    this.#draining = true;
    if (!(await this.settled())) return this.destroy("the connection was closed");
    const message = encodeMessage({ kind: "Close", value: { reason: "" } }, HEADER_SIZE);
    const id = this.#nextId++;
    this.#send(id, encodeFrame(0, id, message, this.#agreement));
    this.#flushSocket();
    const closed = new Promise<void>((resolve) => this.#socket.once("close", () => resolve()));
    this.#socket.end();
    const timer = setTimeout(() => this.#socket.destroy(), CLOSE_GRACE_MS);
    await closed;
    clearTimeout(timer);
  }

  /** Closes at once. */
  destroy(reason: string): void {
    this.#fail(connectionLost(reason, false));
  }

  #send(id: bigint, frame: Buffer, isLast = false): void {
    const outgoing = { id, frame, isLast };
    if (this.#outbox.length > 0 || !this.#mayGo(id)) this.#outbox.push(outgoing);
    else this.#write(outgoing);
  }

  /** Whether the server has room: in its windows, and for a new request in its queue. */
  #mayGo(id: bigint): boolean {
    const isNew = this.#pending.get(id)?.sent === false;
    const most = this.greeting?.hello.maxQueuedRequests ?? 1;
    return this.#windows.hasCredit(id) && !(isNew && this.#inFlight >= most);
  }

  #write({ id, frame, isLast }: Outgoing): void {
    this.#windows.sent(id, frame.length - HEADER_SIZE);
    if (isLast) this.#windows.close(id);
    const pending = this.#pending.get(id);
    if (pending?.sent === false) {
      pending.sent = true;
      this.#inFlight += 1;
    }
    // What is sent in one turn of the event loop goes out in one piece.
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
      process.nextTick(() => this.#flushSocket());
    }
    this.#socket.write(frame);
  }

  #flushSocket(): void {
    if (!this.#corked) return;
    this.#corked = false;
    this.#socket.uncork();
  }

  /** A frame that no window holds back. */
  #control(message: Message, id = CONNECTION, flags: number = flag.ONEWAY): void {
    if (this.#failure !== undefined || this.#socket.destroyed) return;
    const bytes = encodeMessage(message, HEADER_SIZE);
    this.#credit.urgentSent();
    this.#socket.write(encodeFrame(flag.URGENT | flags, id, bytes, this.#agreement));
  }

  #sendWaiting(): void {
    while (this.#outbox.length > 0 && this.#mayGo(this.#outbox[0]!.id)) {
      this.#write(this.#outbox.shift()!);
    }
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  #onData(chunk: Buffer): void {
    this.#heardAt = performance.now();
    this.#unanswered = 0;
    this.#reader.push(chunk);
    try {
      while (this.#failure === undefined) {
        const frame = this.#reader.next();
        if (frame === undefined) return;
        this.#onFrame(frame);
      }
    } catch (error) {
      this.#fail(
        error instanceof RustyDBError
          ? error
          : protocolViolation(`the client failed at a frame: ${(error as Error).message}`),
      );
    }
  }

  #onFrame(frame: Frame): void {
    const { flags, id } = frame;
    const exchange = flags & flag.MORE ? this.#pending.get(id)?.exchange : undefined;
    if (exchange?.onPart !== undefined) {
      this.#countReceived(frame);
      return exchange.onPart(() => this.#decodePart(frame), frame.payload.length);
    }
    const message = decodeMessage(frameBody(frame, this.#agreement));
    switch (message.kind) {
      case "WindowUpdate":
        this.#windows.credit(message.value.stream, message.value.credit);
        this.#sendWaiting();
        return this.#wake();
      case "Heartbeat":
        if (!(flags & flag.RESPONSE)) return this.#control(message, id);
        break;
      case "Notification":
        this.#countReceived(frame);
        return this.#onNotification(message.value);
      case "Close":
        this.#draining = true;
        return;
    }
    this.#onReply(frame, message);
    this.#countReceived(frame);
  }

  #decodePart(frame: Frame): Message {
    try {
      return decodeMessage(frameBody(frame, this.#agreement));
    } catch (error) {
      this.#fail(error as RustyDBError);
      throw error;
    }
  }

  #countReceived({ flags, payload }: Frame): void {
    // Before the log-in nobody has agreed on windows yet.
    if (!(flags & flag.URGENT) && this.greeting !== undefined) {
      this.#credit.used(CONNECTION, payload.length);
    }
  }

  #onReply({ flags, id, payload }: Frame, message: Message): void {
    const pending = this.#pending.get(id);
    const error = message.kind === "Error" ? RustyDBError.fromBody(message.value) : undefined;
    const isFatal = error !== undefined && error.severity !== "Error";
    if (pending === undefined) {
      if (error !== undefined && (isFatal || id === CONNECTION)) return this.#fail(error);
      throw protocolViolation(`a reply (${message.kind}) to no request, ${id}`);
    }
    const more = (flags & flag.MORE) !== 0 && !isFatal;
    if (!more) this.forget(id);
    this.#noteStatus(message);
    pending.exchange.onReply(message, more, payload.length);
    if (isFatal) this.#fail(error);
  }

  #noteStatus(message: Message): void {
    if (message.kind === "QueryResponse" || message.kind === "Ok") {
      this.transactionStatus = message.value.transactionStatus;
    } else if (message.kind === "TransactionStarted") {
      this.transactionStatus = "InTransaction";
    } else if (message.kind === "Streaming" && message.value.kind === "End") {
      this.transactionStatus = message.value.value.transactionStatus;
    } else if (message.kind === "Error" && this.transactionStatus === "InTransaction") {
      this.transactionStatus = "Failed";
    }
  }

  #onNotification(notification: ServerNotification): void {
    if (notification.kind === "Shutdown") this.#draining = true;
    if (notification.kind === "ParameterStatus") {
      this.parameters.set(notification.value.name, notification.value.value);
    }
    this.#hooks.onNotification(notification);
  }

  /** After silence asks whether the server is there; twice without an answer is the end. */
  #beat(intervalMs: number): void {
    if (intervalMs === 0) return;
    const exchange: Exchange = { onReply: () => undefined, onLost: () => undefined };
    this.#heartbeat = setInterval(() => {
      if (performance.now() - this.#heardAt < intervalMs) return;
      if (this.#unanswered >= UNANSWERED_HEARTBEATS) {
        return this.#fail(connectionLost("the server does not answer heartbeats", false));
      }
      this.#unanswered += 1;
      const id = this.#nextId++;
      const pending = this.#pending.size;
      this.#pending.set(id, { exchange, sent: true, isSequence: false });
      this.#inFlight += 1;
      const value = { sentAtUs: BigInt(Date.now()) * 1000n, pending };
      this.#control({ kind: "Heartbeat", value }, id, 0);
    }, intervalMs);
    this.#heartbeat.unref();
  }

  #fail(error: RustyDBError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    clearInterval(this.#heartbeat);
    this.#credit.stop();
    this.#socket.destroy();
    const lost = [...this.#pending.values()];
    this.#pending.clear();
    this.#outbox.length = 0;
    for (const { exchange, sent } of lost) exchange.onLost(sent ? error : neverSent(error));
    this.#wake();
    this.#hooks.onClosed(error);
  }
}

/** The request did not leave, so it may be tried again. */
function neverSent(failure: RustyDBError): RustyDBError {
  return connectionLost(`the connection is closed: ${failure.message}`, true, failure);
}

/** The error that a signal's abort is for the request. */
export function cancelled(signal: AbortSignal): RustyDBError {
  const message = "the request was cancelled";
  return new RustyDBError("57014", "CANCELLED", message, { cause: signal.reason });
}

/** The error among the replies to one request, if there is one. */
function errorIn(replies: Message[]): RustyDBError | undefined {
  const last = replies.at(-1)!;
  return last.kind === "Error" ? RustyDBError.fromBody(last.value) : undefined;
}

/** A reply that is not the one the protocol has for the request. */
export function unexpected(message: Message | undefined, wanted: string): RustyDBError {
  const got = message === undefined ? "nothing" : message.kind;
  return protocolViolation(`the server answered with ${got} instead of ${wanted}`);
}
