// Replies that a program takes one by one, at its own speed.

import type { Exchange } from "./connection.js";
import { protocolViolation, RustyDBError } from "./errors.js";
import type { Message } from "./wire/message.js";

/** One reply, and its payload in bytes. */
export interface Reply {
  message: Message;
  size: number;
}

/** Keeps the replies to one request until they are asked for. */
export class ReplyQueue implements Exchange {
  /** Whether the last reply has come, or none will. */
  isOver = false;
  readonly #mostBytes: number;
  readonly #replies: { decode: () => Message; size: number }[] = [];
  #bytes = 0;
  #failure: unknown;
  #wake: (() => void) | undefined;
  #dropped: (size: number) => void = () => undefined;

  /** `mostBytes` may wait here; a server that sends more breaks the flow control. */
  constructor(mostBytes: number) {
    this.#mostBytes = mostBytes;
  }

  onReply(message: Message, more: boolean, size: number): void {
    if (!more) this.isOver = true;
    this.#add(() => message, size);
  }

  onPart(decode: () => Message, size: number): void {
    if (this.#failure === undefined && this.#bytes + size > this.#mostBytes) {
      throw protocolViolation("the server sent more than its window", "FLOW_CONTROL_ERROR");
    }
    this.#add(decode, size);
  }

  #add(decode: () => Message, size: number): void {
    if (this.#failure !== undefined) return this.#dropped(size);
    this.#bytes += size;
    this.#replies.push({ decode, size });
    this.#wakeUp();
  }

  onLost(error: RustyDBError): void {
    this.isOver = true;
    this.fail(error);
  }

  /**
   * Ends the wait for replies. Those that have not been taken and those that still come are
   * dropped, and `dropped` is told their sizes.
   */
  fail(error: unknown, dropped?: (size: number) => void): void {
    this.#failure ??= error;
    if (dropped !== undefined) this.#dropped = dropped;
    for (const { size } of this.#replies.splice(0)) this.#dropped(size);
    this.#wakeUp();
  }

  /** The next reply, if it is there already. An Error is thrown. */
  takeNow(): Reply | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    const reply = this.#replies.shift();
    if (reply === undefined) return undefined;
    this.#bytes -= reply.size;
    const message = reply.decode();
    if (message.kind === "Error") throw RustyDBError.fromBody(message.value);
    return { message, size: reply.size };
  }

  /** The next reply. An Error is thrown. */
  async take(): Promise<Reply> {
    for (;;) {
      const reply = this.takeNow();
      if (reply !== undefined) return reply;
      if (this.isOver) throw protocolViolation("there is no further reply to the request");
      await new Promise<void>((wake) => (this.#wake = wake));
    }
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}
