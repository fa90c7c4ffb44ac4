// Flow control: what may be sent, and what credit is owed to the server. Amounts are payload bytes.

import { protocolViolation } from "./errors.js";

/** The stream number that stands for the whole connection. */
export const CONNECTION = 0n;

const MAX_WINDOW = 2 ** 31 - 1;

/** What the server is ready to receive. A frame may be sent while all its windows are above 0. */
export class SendWindows {
  #windows = new Map<bigint, number>();

  constructor(connection: number) {
    this.#windows.set(CONNECTION, connection);
  }

  open(stream: bigint, window: number): void {
    this.#windows.set(stream, window);
  }

  close(stream: bigint): void {
    this.#windows.delete(stream);
  }

  /** Whether a frame may go; `stream` counts only if it has a window. */
  hasCredit(stream: bigint): boolean {
    const own = this.#windows.get(stream) ?? 1;
    return own > 0 && this.#windows.get(CONNECTION)! > 0;
  }

  sent(stream: bigint, bytes: number): void {
    this.#add(CONNECTION, -bytes);
    if (stream !== CONNECTION) this.#add(stream, -bytes);
  }

  /** Credit for a stream that is over is ignored: it was under way. */
  credit(stream: bigint, bytes: number): void {
    this.#add(stream, bytes);
    if ((this.#windows.get(stream) ?? 0) > MAX_WINDOW) {
      throw protocolViolation("the server gives more credit than it may", "FLOW_CONTROL_ERROR");
    }
  }

  #add(stream: bigint, bytes: number): void {
    const window = this.#windows.get(stream);
    if (window !== undefined) this.#windows.set(stream, window + bytes);
  }
}

// The protocol allows 100 urgent frames a second. Never more than these two together.
const BURST = 40;
const PER_SECOND = 50;

/**
 * What was received and used, and is to be given back as credit: when half of a window is used up,
 * and not more often than urgent frames may be sent.
 */
export class ReceiveCredit {
  readonly #owed = new Map<bigint, number>();
  readonly #halfWindow: (stream: bigint) => number;
  readonly #send: (stream: bigint, credit: number) => void;
  #tokens = BURST;
  #refilledAt = performance.now();
  #timer: NodeJS.Timeout | undefined;

  constructor(
    streamWindow: number, connectionWindow: number,
    send: (stream: bigint, credit: number) => void,
  ) {
    this.#halfWindow = (stream) => (stream === CONNECTION ? connectionWindow : streamWindow) / 2;
    this.#send = send;
  }

  /** Bytes of a stream, or of the connection, that hold no memory any more. */
  used(stream: bigint, bytes: number): void {
    this.#owed.set(stream, (this.#owed.get(stream) ?? 0) + bytes);
    this.#flush();
  }

  /** A stream is over: it needs no credit. */
  forget(stream: bigint): void {
    this.#owed.delete(stream);
  }

  /** Another urgent frame was sent, which counts too. */
  urgentSent(): void {
    this.#tokens -= 1;
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#owed.clear();
  }

  #flush(): void {
    for (const [stream, owed] of this.#owed) {
      if (owed < this.#halfWindow(stream)) continue;
      if (!this.#maySend()) return;
      this.#tokens -= 1;
      this.#owed.delete(stream);
      this.#send(stream, owed);
    }
  }

  /** Whether there is a token; if not, comes back when there is. */
  #maySend(): boolean {
    const now = performance.now();
    this.#tokens = Math.min(BURST, this.#tokens + ((now - this.#refilledAt) * PER_SECOND) / 1000);
    this.#refilledAt = now;
    if (this.#tokens >= 1) return true;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#flush();
    }, Math.ceil(((1 - this.#tokens) * 1000) / PER_SECOND));
    return false;
  }
}
