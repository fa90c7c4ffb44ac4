// A server that says what a test tells it to: for what a real one does only rarely.

import { once } from "node:events";
import * as net from "node:net";
import {
  capability, decodeMessage, encodeMessage, type ErrorBody, type Message, type QueryResponse,
  type ServerHello,
} from "../src/wire/message.js";
import {
  encodeFrame, flag, frameBody, FrameReader, HEADER_SIZE, MAX_PAYLOAD, PREFACE, type Agreement,
} from "../src/wire/frame.js";

/** What the client asked: a message and where it came from. */
export interface Request {
  peer: FakePeer;
  id: bigint;
  flags: number;
  message: Message;
  /** Payload of its frame, in bytes. */
  size: number;
}

const HELLO: ServerHello = {
  version: { major: 1, minor: 0 },
  serverName: "fake",
  serverVersion: "0",
  connectionId: 1n,
  compression: "None",
  capabilities: 0xff & ~capability.CHECKSUM,
  extensions: [],
  maxMessageSize: MAX_PAYLOAD,
  maxSqlLength: 1 << 20,
  maxPendingRequests: 10_000,
  maxQueuedRequests: 1000,
  maxBatchStatements: 1000,
  streamWindow: 1 << 20,
  connectionWindow: 1 << 24,
  heartbeatIntervalMs: 30_000,
  authMethods: ["Trust"],
};

/** One connection of a client. */
export class FakePeer {
  readonly socket: net.Socket;
  readonly hello: ServerHello;
  readonly #reader = new FrameReader();
  #agreement: Agreement = { checksum: false, maxMessageSize: MAX_PAYLOAD };
  #preface = Buffer.alloc(0);

  constructor(socket: net.Socket, hello: ServerHello, onRequest: (request: Request) => void) {
    this.socket = socket;
    this.hello = hello;
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      let rest = chunk;
      if (this.#preface.length < PREFACE.length) {
        const missing = PREFACE.length - this.#preface.length;
        this.#preface = Buffer.concat([this.#preface, chunk.subarray(0, missing)]);
        rest = chunk.subarray(missing);
      }
      this.#reader.push(rest);
      for (let frame = this.#reader.next(); frame; frame = this.#reader.next()) {
        const message = decodeMessage(frameBody(frame, this.#agreement));
        const { id, flags, payload } = frame;
        onRequest({ peer: this, id, flags, message, size: payload.length });
      }
    });
  }

  send(id: bigint, message: Message, flags: number = flag.RESPONSE): void {
    const bytes = encodeMessage(message, HEADER_SIZE);
    this.socket.write(encodeFrame(flags, id, bytes, this.#agreement));
    const isHello = message.kind === "Handshake";
    if (isHello && this.hello.capabilities & capability.CHECKSUM) this.#agreement.checksum = true;
  }

  /** Bytes as they are. */
  raw(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  ok(id: bigint, affectedRows = 0n, commandTag = "OK"): void {
    this.send(id, {
      kind: "Ok",
      value: { affectedRows, commandTag, transactionStatus: "Idle" },
    });
  }

  /** One row with one int4. */
  one(id: bigint, number = 1): void {
    this.result(id, { rows: [[{ kind: "Int4", value: number }]], affectedRows: 1n });
  }

  /** A result, as far as it is another than an empty `SELECT 1`. */
  result(id: bigint, fields: Partial<QueryResponse>, flags: number = flag.RESPONSE): void {
    this.send(id, { kind: "QueryResponse", value: { ...RESPONSE, ...fields } }, flags);
  }

  error(id: bigint, fields: Partial<ErrorBody>, flags: number = flag.RESPONSE): void {
    this.send(id, { kind: "Error", value: { ...ERROR, ...fields } }, flags);
  }
}

export const COLUMN = {
  name: "n", typeOid: 23, typeName: "int4", typeModifier: -1, typeSize: 4, tableOid: 0,
  columnNumber: 0, nullable: null,
};

const RESPONSE: QueryResponse = {
  statementIndex: 0, columns: [COLUMN], rows: [], affectedRows: 0n, commandTag: "SELECT 1",
  executionTimeUs: 7n, transactionStatus: "Idle",
};

const ERROR: ErrorBody = {
  severity: "Error", sqlstate: "XX000", code: "INTERNAL_ERROR", message: "no", detail: null,
  hint: null, position: null, context: null, schema: null, table: null, column: null,
  dataType: null, constraint: null, retryable: false, retryAfterMs: null, traceId: null,
};

/** Listens on loopback; shakes hands and logs everybody in, and gives the rest to `onRequest`. */
export class FakeServer {
  readonly peers: FakePeer[] = [];
  onRequest: (request: Request) => void = () => undefined;
  /** Fields of the ServerHello that are not the usual ones. */
  hello: Partial<ServerHello> = {};
  /** If set, answers the log-in instead of a Success. */
  onAuth: ((request: Request) => void) | undefined;
  readonly #server: net.Server;

  private constructor() {
    this.#server = net.createServer((socket) => {
      const hello = { ...HELLO, ...this.hello };
      this.peers.push(new FakePeer(socket, hello, (request) => this.#onRequest(request)));
    });
  }

  static async start(): Promise<FakeServer> {
    const server = new FakeServer();
    server.#server.listen(0, "127.0.0.1");
    await once(server.#server, "listening");
    return server;
  }

  get port(): number {
    return (this.#server.address() as net.AddressInfo).port;
  }

  url(options = ""): string {
    return `rustydb://u@127.0.0.1:${this.port}/d?tls=disable&compression=none${options}`;
  }

  #onRequest(request: Request): void {
    const { peer, id, message } = request;
    if (message.kind === "Handshake") {
      peer.send(id, { kind: "Handshake", value: { kind: "ServerHello", value: peer.hello } });
    } else if (message.kind === "Auth" && this.onAuth !== undefined) {
      this.onAuth(request);
    } else if (message.kind === "Auth") {
      const value = { sessionId: 1n, user: "u", roles: [], parameters: [] };
      peer.send(id, { kind: "AuthReply", value: { kind: "Success", value } });
    } else if (message.kind === "Close") {
      peer.socket.end();
    } else {
      this.onRequest(request);
    }
  }

  async stop(): Promise<void> {
    for (const { socket } of this.peers) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }
}
