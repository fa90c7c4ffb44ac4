// What the library does when things go other than usual, against a fake server.

import assert from "node:assert/strict";
import { once } from "node:events";
import * as net from "node:net";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { RustyDBClient, RustyDBError } from "../src/index.js";
import { flag } from "../src/wire/frame.js";
import { capability, type Message } from "../src/wire/message.js";
import { COLUMN, type Request } from "./fake.js";
import { client, clients, recorded, server, sqlOf, until, useFakeServer } from "./harness.js";

useFakeServer();

describe("requests", () => {
  it("are answered", async () => {
    recorded(({ peer, id }) => peer.one(id, 42));
    const result = await client().query("select 42 as n");
    assert.deepEqual(result, {
      rows: [{ n: 42 }],
      columns: [COLUMN],
      rowCount: 1,
      command: "SELECT",
      commandTag: "SELECT 1",
      executionTimeUs: 7,
    });
  });

  it("may be answered in another order and in several frames", async () => {
    const requests = recorded();
    const txn = client();
    const session = txn.session(async (s) => {
      const both = Promise.all([s.query("a"), s.query("b", [], { rowMode: "array" })]);
      await until(() => requests.length === 2, "two requests");
      const [a, b] = requests as [Request, Request];
      b.peer.one(b.id, 2);
      for (const i of [1, 2, 3]) {
        const columns = i === 1 ? [COLUMN] : [];
        const flags = flag.RESPONSE | (i < 3 ? flag.MORE : 0);
        a.peer.result(a.id, { columns, rows: [[{ kind: "Int4", value: i }]] }, flags);
      }
      server.onRequest = ({ peer, id }) => peer.ok(id);
      return both;
    });
    const [a, b] = await session;
    assert.deepEqual(a.rows, [{ n: 1 }, { n: 2 }, { n: 3 }]);
    assert.deepEqual(b.rows, [[2]]);
  });

  it("that fail carry every field of the error", async () => {
    const fields = {
      sqlstate: "23505", code: "CONFLICT", message: "m", detail: "d", hint: "h", position: 5,
      context: "c", schema: "s", table: "t", column: "co", dataType: "dt", constraint: "k",
      retryAfterMs: 9, traceId: "tr",
    };
    recorded(({ peer, id }) => peer.error(id, fields));
    const expected = { name: "RustyDBError", severity: "Error", ...fields };
    await assert.rejects(client().query("x"), expected);
  });

  it("time out, and are cancelled on the server", async () => {
    const requests = recorded();
    const waiting = client().query("slow", [], { timeout: 0.5 });
    await assert.rejects(waiting, { sqlstate: "57014", code: "TIMEOUT" });
    await until(() => requests.length === 2, "a cancel");
    const [query, cancel] = requests as [Request, Request];
    assert.deepEqual(cancel.message, { kind: "Cancel", value: { target: query.id } });
    assert.equal(cancel.flags, flag.URGENT | flag.ONEWAY);
    assert.equal(cancel.id, 0n);
    const { value } = query.message as Extract<Message, { kind: "Query" }>;
    assert.equal(value.options?.timeoutMs, 500);
  });

  it("can be cancelled by a signal, and the connection is used again", async () => {
    const requests = recorded(({ peer, id, message }) => {
      if (message.kind === "Cancel") {
        peer.error(message.value.target, { sqlstate: "57014", code: "CANCELLED" });
      } else if (message.kind === "Query" && message.value.sql === "quick") {
        peer.one(id);
      }
    });
    const made = client("&pool_size=1");
    const abort = new AbortController();
    const waiting = made.query("slow", [], { signal: abort.signal });
    await until(() => requests.length === 1, "the query");
    abort.abort();
    await assert.rejects(waiting, { sqlstate: "57014", code: "CANCELLED" });
    assert.equal((await made.query("quick")).rowCount, 1);
    assert.equal(server.peers.length, 1);
    await assert.rejects(made.query("x", [], { signal: abort.signal }), { code: "CANCELLED" });
  });

  it("carry their priority and their options", async () => {
    const requests = recorded(({ peer, id }) => peer.one(id));
    await client().query("x", [1], { priority: "critical", maxRows: 5, readOnly: true });
    assert.equal(requests[0]!.flags, 0x00c0);
    const { value } = requests[0]!.message as Extract<Message, { kind: "Query" }>;
    assert.deepEqual(value.options, {
      timeoutMs: 0, maxRows: 5, readOnly: true, traceparent: null, tracestate: null,
    });
  });

  it("that are too large are refused before they leave", async () => {
    server.hello = { maxMessageSize: 65_536 };
    const requests = recorded(({ peer, id }) => peer.one(id));
    const made = client();
    await assert.rejects(made.query("x", ["y".repeat(70_000)]), { code: "PAYLOAD_TOO_LARGE" });
    assert.equal((await made.query("x")).rowCount, 1);
    assert.equal(requests.length, 1);
  });
});

describe("retries", () => {
  it("happen for errors that are retryable, on a fresh attempt", async () => {
    const requests = recorded(({ peer, id }) => {
      if (requests.length < 3) peer.error(id, { sqlstate: "40001", retryable: true });
      else peer.one(id);
    });
    assert.equal((await client().query("x")).rowCount, 1);
    assert.equal(requests.length, 3);
  });

  it("end after a few attempts", async () => {
    const requests = recorded(({ peer, id }) => {
      peer.error(id, { sqlstate: "53400", retryable: true, retryAfterMs: 1 });
    });
    await assert.rejects(client().query("x"), { sqlstate: "53400" });
    assert.equal(requests.length, 5);
  });

  it("happen for a lost connection only if the statement changes nothing", async () => {
    const requests = recorded(({ peer, id }) => {
      if (requests.length === 1 || requests.length === 3) peer.socket.destroy();
      else peer.one(id);
    });
    const made = client();
    const write = made.query("insert");
    await assert.rejects(write, { sqlstate: "08006", retryable: false });
    assert.equal((await made.query("select")).rowCount, 1);
    assert.equal((await made.query("select", [], { readOnly: true })).rowCount, 1);
    assert.deepEqual(requests.map(sqlOf), ["insert", "select", "select", "select"]);
  });

  it("never happen inside a transaction", async () => {
    const requests = recorded(({ peer, id, message }) => {
      if (message.kind === "Begin") {
        peer.send(id, { kind: "TransactionStarted", value: { transactionId: 5n } });
      } else if (message.kind === "Query") {
        peer.error(id, { sqlstate: "40001", retryable: true });
      } else {
        peer.ok(id);
      }
    });
    const work = client().transaction((txn) => txn.query("x"));
    await assert.rejects(work, { sqlstate: "40001" });
    const kinds = requests.map(({ message }) => message.kind);
    assert.deepEqual(kinds, ["Begin", "Query", "Rollback"]);
  });

  it("a connection that ended while idle is replaced without notice", async () => {
    recorded(({ peer, id }) => peer.one(id));
    const made = client("&pool_size=1");
    for (let i = 0; i < 3; i++) {
      assert.equal((await made.query("x")).rowCount, 1);
      server.peers.at(-1)!.socket.destroy();
      await until(() => made.poolCounts.total === 0, "the loss is noticed");
    }
    assert.equal(server.peers.length, 3);
  });

  it("the next host is tried, and a server that comes up late is reached", async () => {
    recorded(({ peer, id }) => peer.one(id));
    const free = net.createServer().listen(0, "127.0.0.1");
    await once(free, "listening");
    const { port } = free.address() as net.AddressInfo;
    free.close();
    await once(free, "close");
    const hosts = [{ host: "127.0.0.1", port }, { host: "127.0.0.1", port: server.port }];
    const made = new RustyDBClient({ hosts, tls: "disable", username: "u" });
    clients.push(made);
    assert.equal((await made.query("x")).rowCount, 1);
    const alone = new RustyDBClient({ hosts: hosts.slice(0, 1), tls: "disable", username: "u" });
    clients.push(alone);
    await assert.rejects(alone.connect(), { sqlstate: "08001", retryable: true });
  });

  it("a wrong password is not tried on the next host", async () => {
    let attempts = 0;
    server.onAuth = ({ peer, id }) => {
      attempts += 1;
      peer.error(id, { severity: "Fatal", sqlstate: "28P01", code: "AUTHENTICATION_FAILED" });
    };
    const host = { host: "127.0.0.1", port: server.port };
    const made = new RustyDBClient({ hosts: [host, host], tls: "disable", username: "u" });
    clients.push(made);
    await assert.rejects(made.connect(), { sqlstate: "28P01", severity: "Fatal" });
    assert.equal(attempts, 1);
  });
});

describe("the pool", () => {
  it("has no more connections than it may, and serves those who wait in turn", async () => {
    const order: (string | undefined)[] = [];
    recorded((request) => {
      order.push(sqlOf(request));
      setTimeout(() => request.peer.one(request.id), 5);
    });
    const made = client("&pool_size=2");
    const names = Array.from({ length: 20 }, (_, i) => `q${i}`);
    await Promise.all(names.map((name) => made.query(name)));
    assert.equal(server.peers.length, 2);
    assert.deepEqual([...order].sort(), [...names].sort());
    assert.deepEqual(made.poolCounts, { total: 2, idle: 2, waiting: 0 });
  });

  it("lets nobody wait longer than the time-out", async () => {
    recorded();
    const made = client("&pool_size=1");
    const first = made.query("never", [], { timeout: 1.5 });
    const second = made.query("waits", [], { timeout: 0.05 });
    await assert.rejects(second, { sqlstate: "53300", code: "POOL_EXHAUSTED" });
    await assert.rejects(first, { code: "TIMEOUT" });
  });

  it("closes what is idle for too long, but keeps the least", async () => {
    recorded(({ peer, id }) => setTimeout(() => peer.one(id), 20));
    const made = client("&pool_size=3&min_pool_size=1&idle_timeout=0.1");
    await Promise.all([made.query("a"), made.query("b"), made.query("c")]);
    assert.equal(made.poolCounts.total, 3);
    await until(() => made.poolCounts.total === 1, "two are closed");
    await sleep(150);
    assert.equal(made.poolCounts.total, 1);
  });

  it("rolls back what was left open", async () => {
    const requests = recorded(({ peer, id, message }) => {
      if (message.kind !== "Query") return peer.ok(id);
      peer.result(id, { columns: [], commandTag: "BEGIN", transactionStatus: "InTransaction" });
    });
    const made = client("&pool_size=1");
    await made.query("begin");
    await until(() => made.poolCounts.idle === 1, "the connection is back");
    assert.deepEqual(requests.map(({ message }) => message.kind), ["Query", "Rollback"]);
  });

  it("does not use a server that is about to stop", async () => {
    recorded(({ peer, id }) => peer.one(id));
    const made = client("&pool_size=1");
    await made.query("a");
    const told = new Promise((resolve) => made.on("shutdown", resolve));
    const value = { kind: "Shutdown", value: { graceMs: 1000, reason: "restart" } } as const;
    server.peers[0]!.send(0n, { kind: "Notification", value });
    assert.deepEqual(await told, { graceMs: 1000, reason: "restart" });
    await made.query("b");
    assert.equal(server.peers.length, 2);
  });

  it("ends with the client", async () => {
    recorded();
    const made = client("&pool_size=1");
    const running = made.query("never");
    const waiting = made.query("never", [], { readOnly: true });
    await until(() => server.peers.length === 1, "a connection");
    const ended = assert.rejects(running, { sqlstate: "08006" });
    const refused = assert.rejects(waiting, { sqlstate: "08006" });
    const closing = made.disconnect();
    server.peers[0]!.socket.destroy();
    await Promise.all([ended, refused, closing]);
    await assert.rejects(made.query("x"), { sqlstate: "08006" });
  });
});

describe("the connection", () => {
  it("echoes heartbeats, and sends its own", async () => {
    server.hello = { heartbeatIntervalMs: 50 };
    const requests = recorded(({ peer, id, message }) => {
      if (message.kind === "Query") peer.one(id);
      if (message.kind === "Heartbeat" && id < 1n << 63n) {
        peer.send(id, message, flag.RESPONSE | flag.URGENT);
      }
    });
    const made = client();
    await made.query("x");
    const id = (1n << 63n) + 1n;
    const beat: Message = { kind: "Heartbeat", value: { sentAtUs: 1_000_000n, pending: 0 } };
    server.peers[0]!.send(id, beat, flag.URGENT);
    await until(() => requests.some((request) => request.id === id), "an echo");
    const echo = requests.find((request) => request.id === id)!;
    assert.deepEqual(echo.message, beat);
    const beats = () => requests.filter(({ message }) => message.kind === "Heartbeat").length;
    await until(() => beats() >= 4, "its own");
    assert.equal(made.poolCounts.total, 1);
  });

  it("is closed when heartbeats stay unanswered", async () => {
    server.hello = { heartbeatIntervalMs: 40 };
    recorded();
    const made = client();
    const waiting = made.query("x");
    await assert.rejects(waiting, { sqlstate: "08006", message: /heartbeats/ });
  });

  it("ends at a fatal error, for all its requests", async () => {
    const requests = recorded();
    const made = client("&pool_size=1");
    const both = made.session(async (session) =>
      Promise.allSettled([session.query("a"), session.query("b")]),
    );
    await until(() => requests.length === 2, "two requests");
    const fields = { severity: "Fatal", sqlstate: "57P01", code: "SHUTTING_DOWN" } as const;
    server.peers[0]!.error(0n, fields);
    for (const outcome of await both) {
      assert.equal(outcome.status, "rejected");
      assert.equal((outcome as PromiseRejectedResult).reason.sqlstate, "57P01");
    }
  });

  const violations: [string, (request: Request) => void][] = [
    ["a reply to no request", ({ peer }) => peer.one(99n)],
    ["a reserved flag", ({ peer, id }) => peer.send(id, { kind: "Pong" }, flag.RESPONSE | 0x8000)],
    ["a frame that is too large", ({ peer }) => peer.raw(Buffer.alloc(14, 0xff))],
    ["an unknown message", ({ peer }) => {
      peer.raw(Buffer.from("010000000800010000000000000063", "hex"));
    }],
    ["another reply than the request has", ({ peer, id }) => peer.send(id, { kind: "Pong" })],
    ["too much credit", ({ peer }) => {
      const update: Message = { kind: "WindowUpdate", value: { stream: 0n, credit: 0xffff_ffff } };
      peer.send(0n, update, flag.URGENT | flag.ONEWAY);
    }],
  ];
  for (const [what, answer] of violations) {
    it(`does not accept ${what}`, async () => {
      recorded(answer);
      await assert.rejects(client().query("x"), { sqlstate: "08P01" });
    });
  }

  it("carries checksums when that was agreed", async () => {
    server.hello = { capabilities: 0xff };
    const requests = recorded(({ peer, id }) => peer.one(id));
    await client("&checksum=true").query("x");
    assert.ok(requests[0]!.flags & flag.CHECKSUM);
  });

  it("needs pipelining", async () => {
    server.hello = { capabilities: 0xff & ~capability.PIPELINING & ~capability.CHECKSUM };
    await assert.rejects(client().connect(), { sqlstate: "0A000" });
  });

  it("gives up a server that says nothing", async () => {
    const silent = net.createServer(() => undefined).listen(0, "127.0.0.1");
    await once(silent, "listening");
    const { port } = silent.address() as net.AddressInfo;
    const made = new RustyDBClient(`rustydb://u@127.0.0.1:${port}/d?timeout=0.1&tls=disable`);
    await assert.rejects(made.connect(), RustyDBError);
    await made.disconnect();
    silent.close();
  });

  it("does not send more than the server's queue can take", async () => {
    server.hello = { maxQueuedRequests: 3 };
    let waiting = 0;
    let most = 0;
    recorded(({ peer, id, message }) => {
      if (message.kind !== "Query") return peer.ok(id);
      waiting += 1;
      most = Math.max(most, waiting);
      setTimeout(() => {
        waiting -= 1;
        peer.one(id);
      }, 3);
    });
    const results = await client().session(async (session) =>
      Promise.all(Array.from({ length: 20 }, () => session.query("x"))),
    );
    assert.equal(results.length, 20);
    assert.equal(most, 3);
  });

  it("has no more unfinished requests than the server allows", async () => {
    server.hello = { maxPendingRequests: 3 };
    recorded(({ peer, id, message }) => {
      if (message.kind === "Session") peer.ok(id);
      else if (message.kind === "Query") setTimeout(() => peer.one(id), 20);
    });
    const outcomes = await client().session(async (session) => {
      const queries = Array.from({ length: 5 }, () => session.query("x"));
      return Promise.allSettled(queries);
    });
    const refused = outcomes.filter(({ status }) => status === "rejected");
    assert.equal(refused.length, 2);
    for (const outcome of refused) {
      const { reason } = outcome as PromiseRejectedResult;
      assert.equal(reason.code, "TOO_MANY_PENDING_REQUESTS");
    }
  });
});

describe("the log-in", () => {
  it("answers a request for a second factor", async () => {
    const sent: Message[] = [];
    server.hello = { authMethods: ["Password"] };
    server.onAuth = ({ peer, id, message }) => {
      sent.push(message);
      if (message.kind !== "Auth") return;
      if (message.value.kind === "Password") {
        const value = { challengeId: "c1", methods: ["totp"], expiresInSecs: 120 };
        const reply: Message = { kind: "AuthReply", value: { kind: "MfaRequired", value } };
        peer.send(id, reply, flag.RESPONSE | flag.MORE);
      } else if (message.value.kind === "MfaCode") {
        const value = { sessionId: 1n, user: "u", roles: [], parameters: [] };
        peer.send(id, { kind: "AuthReply", value: { kind: "Success", value: { ...value } } });
      }
    };
    const options = { url: server.url("&auth=password"), password: "p" };
    const made = new RustyDBClient({
      ...options,
      mfa: ({ methods, expiresInSeconds }) => `${methods[0]}:${expiresInSeconds}`,
    });
    clients.push(made);
    await made.connect();
    assert.deepEqual(sent.at(-1), {
      kind: "Auth",
      value: { kind: "MfaCode", value: { challengeId: "c1", code: "totp:120" } },
    });
    const without = new RustyDBClient(options);
    clients.push(without);
    await assert.rejects(without.connect(), { code: "MFA_REQUIRED" });
  });

  it("takes a server at its word that asks for no proof, unless one was asked for", async () => {
    server.hello = { authMethods: ["ScramSha256"] };
    server.onAuth = ({ peer, id, message }) => {
      if (message.kind !== "Auth" || message.value.kind !== "SaslInitial") return;
      const value = { sessionId: 1n, user: "u", roles: [], parameters: [] };
      peer.send(id, { kind: "AuthReply", value: { kind: "Success", value: { ...value } } });
    };
    const made = new RustyDBClient({ url: server.url(), password: "p" });
    clients.push(made);
    await made.connect();
    const strict = new RustyDBClient({ url: server.url("&auth=scram-sha-256"), password: "p" });
    clients.push(strict);
    await assert.rejects(strict.connect(), { sqlstate: "08P01" });
  });

  it("sends what the options say about the session", async () => {
    let start: unknown;
    server.onAuth = ({ peer, id, message }) => {
      if (message.kind === "Auth" && message.value.kind === "Start") start = message.value.value;
      const value = { sessionId: 1n, user: "u", roles: [], parameters: [] };
      peer.send(id, { kind: "AuthReply", value: { kind: "Success", value: { ...value } } });
    };
    const made = new RustyDBClient({
      url: server.url("&application_name=app&connection_class=web&purity=any&tag=t"),
      parameters: { TimeZone: "UTC" },
    });
    clients.push(made);
    await made.connect();
    assert.deepEqual(start, {
      user: "u", database: "d", method: "Trust", applicationName: "app", connectionClass: "web",
      purity: "Any", tag: "t", parameters: [["TimeZone", "UTC"]],
    });
  });
});

describe("events", () => {
  it("channels are listened to again after a loss", async () => {
    const requests = recorded(({ peer, id }) => peer.ok(id));
    const made = client();
    const heard: string[] = [];
    const stop = await made.listen("jobs", ({ payload }) => heard.push(payload));
    const notify = (payload: string): void => {
      const value = { channel: "jobs", payload, processId: 7 };
      const message: Message = { kind: "Notification", value: { kind: "Event", value } };
      server.peers.at(-1)!.send(0n, message);
    };
    notify("1");
    await until(() => heard.length === 1, "a notification");
    const again = new Promise<void>((resolve) => made.on("relisten", resolve));
    server.peers[0]!.socket.destroy();
    await again;
    notify("2");
    await until(() => heard.length === 2, "a notification");
    assert.deepEqual(heard, ["1", "2"]);
    await stop();
    const names = requests.map(({ message }) =>
      message.kind === "Notification" ? message.value.kind : message.kind,
    );
    assert.deepEqual(names, ["Listen", "Listen", "Unlisten"]);
  });

  it("streams of events, and their end", async () => {
    let id = 0n;
    recorded((request) => {
      const { peer, message } = request;
      if (message.kind === "Subscribe") {
        id = request.id;
        const ok = { affectedRows: 0n, commandTag: null, transactionStatus: "Idle" } as const;
        peer.send(id, { kind: "Ok", value: ok }, flag.RESPONSE | flag.MORE);
        for (let i = 1; i <= 3; i++) {
          const value = { stream: "s", sequence: BigInt(i), timeUs: 1_000n, body: `{"i":${i}}` };
          peer.send(id, { kind: "StreamEvent", value }, flag.RESPONSE | flag.MORE);
        }
      } else {
        assert.deepEqual(message, { kind: "Unsubscribe", value: { target: id } });
        peer.ok(request.id);
      }
    });
    const subscription = await client().subscribe("s", { table: "t" });
    const seen: unknown[] = [];
    for await (const event of subscription) {
      seen.push(event);
      if (seen.length === 3) break;
    }
    assert.deepEqual(seen[2], { stream: "s", sequence: 3n, time: new Date(1), data: { i: 3 } });
    assert.deepEqual(await subscription.next(), { done: true, value: undefined });
  });
});
