// Flow control and bulk inserts, against a fake server.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { flag } from "../src/wire/frame.js";
import type { Message } from "../src/wire/message.js";
import { COLUMN, type Request } from "./fake.js";
import { client, recorded, server, sqlOf, until, useFakeServer } from "./harness.js";

useFakeServer();

describe("flow control", () => {
  const rows = (count: number, text: string): Message => ({
    kind: "Streaming",
    value: {
      kind: "Chunk",
      value: {
        sequence: 0,
        rows: Array.from({ length: count }, () => [{ kind: "Text", value: text }]),
      },
    },
  });
  const header: Message = {
    kind: "Streaming",
    value: { kind: "Header", value: { columns: [COLUMN] } },
  };
  const end: Message = {
    kind: "Streaming",
    value: { kind: "End", value: { rows: 1n, commandTag: "SELECT", transactionStatus: "Idle" } },
  };
  const MORE = flag.RESPONSE | flag.MORE;

  it("a stream gets credit as its rows are taken, and no sooner", async () => {
    const window = 65_536;
    const credits: [bigint, number][] = [];
    let available = window;
    let id = 0n;
    let sent = 0;
    const total = 40;
    const chunk = rows(10, "x".repeat(1000));
    const pump = (request: Request): void => {
      for (; available > 0 && sent < total; sent++) {
        request.peer.send(id, chunk, MORE);
        available -= 10_040;
      }
      if (sent === total && available > 0) {
        sent += 1;
        request.peer.send(id, end);
      }
    };
    recorded((request) => {
      const { message } = request;
      if (message.kind === "Streaming") {
        id = request.id;
        request.peer.send(id, header, MORE);
      } else if (message.kind === "WindowUpdate") {
        const { stream, credit } = message.value;
        credits.push([stream, credit]);
        assert.equal(request.flags, flag.URGENT | flag.ONEWAY);
        if (stream === id) available += credit;
      }
      pump(request);
    });
    const stream = client(`&stream_window=${window}`).stream("x");
    await stream.next();
    await sleep(50);
    assert.ok(sent <= 7, `${sent} chunks without credit`);
    assert.equal(credits.filter(([of]) => of === id).length, 0);
    let count = 1;
    for await (const _ of stream) count += 1;
    assert.equal(count, total * 10);
    assert.equal(stream.commandTag, "SELECT");
    const ofStream = credits.filter(([of]) => of === id);
    assert.ok(ofStream.length >= 5);
    for (const [, credit] of ofStream) assert.ok(credit >= window / 2);
  });

  it("the connection's window is given back as frames come", async () => {
    const credits: number[] = [];
    recorded(({ peer, id, message }) => {
      if (message.kind === "Query") peer.one(id);
      if (message.kind === "WindowUpdate" && message.value.stream === 0n) {
        credits.push(message.value.credit);
      }
    });
    const made = client("&connection_window=65536&pool_size=1");
    for (let i = 0; i < 1500; i++) await made.query("x");
    assert.equal(credits.length, 1);
    assert.ok(credits[0]! >= 32_768);
  });

  it("credit is not given more often than urgent frames may come", async () => {
    let urgent = 0;
    const chunk = rows(60, "x".repeat(1000));
    const requests = recorded(({ peer, id, message, flags }) => {
      if (flags & flag.URGENT) urgent += 1;
      if (message.kind !== "Streaming") return;
      peer.send(id, header, MORE);
      for (let i = 0; i < 300; i++) peer.send(id, chunk, MORE);
      peer.send(id, end);
    });
    const begun = performance.now();
    let count = 0;
    for await (const _ of client("&stream_window=65536").stream("x")) count += 1;
    const seconds = (performance.now() - begun) / 1000;
    assert.equal(count, 18_000);
    assert.ok(requests.length > 1);
    assert.ok(urgent <= 41 + 50 * seconds, `${urgent} urgent frames in ${seconds} s`);
  });

  it("a server that sends far more than its window is refused", async () => {
    const chunk = rows(1000, "x".repeat(1000));
    recorded(({ peer, id, message }) => {
      if (message.kind !== "Streaming") return;
      peer.send(id, header, MORE);
      for (let i = 0; i < 30; i++) peer.send(id, chunk, MORE);
    });
    const stream = client().stream("x");
    await stream.next();
    await until(() => server.peers[0]!.socket.destroyed, "the connection is closed");
    await assert.rejects(async () => {
      for await (const _ of stream) await sleep(0);
    }, { sqlstate: "08P01", code: "FLOW_CONTROL_ERROR" });
  });

  it("leaving a stream cancels it, and what is under way is dropped with its credit", async () => {
    let streamId = 0n;
    let credit = 0;
    let isCancelled = false;
    recorded((request) => {
      const { peer, id, message } = request;
      if (message.kind === "Streaming" && message.value.kind === "Cancel") {
        isCancelled = id === streamId;
      } else if (message.kind === "Streaming") {
        streamId = id;
        peer.send(id, header, MORE);
        for (let i = 0; i < 7; i++) peer.send(id, rows(10, "x".repeat(1000)), MORE);
      } else if (message.kind === "WindowUpdate" && message.value.stream === streamId) {
        credit += message.value.credit;
      } else {
        peer.one(id);
      }
      // As a server whose window is used up: the last reply needs credit.
      if (isCancelled && credit > 0) {
        isCancelled = false;
        peer.error(streamId, { sqlstate: "57014", code: "CANCELLED" });
      }
    });
    const made = client("&stream_window=65536&pool_size=1");
    for await (const _ of made.stream("x")) {
      await sleep(20);
      break;
    }
    assert.equal((await made.query("next")).rowCount, 1);
    assert.equal(server.peers.length, 1);
    assert.ok(credit >= 65_536 / 2);
  });

  it("a bulk insert waits for the server's credit", async () => {
    server.hello = { streamWindow: 65_536 };
    let id = 0n;
    let inserted = 0;
    let bytes = 0;
    let most = 0;
    let granted = 65_536;
    const requests = recorded((request) => {
      const { message, peer } = request;
      if (message.kind !== "BulkInsert") return;
      id = request.id;
      bytes += request.size;
      most = Math.max(most, bytes - granted);
      const { kind, value } = message.value;
      if (kind === "Start") {
        assert.equal(request.flags, flag.MORE);
        const target = { schema: null, table: "t", columns: ["a", "b"], onConflict: "Skip" };
        assert.deepEqual(value, target);
      }
      if (kind === "Rows") {
        inserted += value.rows.length;
        setTimeout(() => {
          const credit = 65_536;
          granted += credit;
          const update: Message = { kind: "WindowUpdate", value: { stream: id, credit } };
          peer.send(0n, update, flag.URGENT | flag.ONEWAY);
        }, 2);
      }
      if (kind === "End") {
        assert.equal(request.flags, 0);
        peer.ok(id, BigInt(inserted), `INSERT 0 ${inserted}`);
      }
    });
    function* source() {
      for (let i = 0; i < 20_000; i++) yield i % 2 === 0 ? [i, "text"] : { a: i, b: "text" };
    }
    const count = await client().bulkInsert("t", ["a", "b"], source(), { onConflict: "skip" });
    assert.equal(count, 20_000);
    const ofRows = requests.flatMap(({ message }) =>
      message.kind === "BulkInsert" && message.value.kind === "Rows" ? [message.value.value] : [],
    );
    assert.ok(ofRows.length > 3);
    assert.deepEqual(ofRows.map(({ sequence }) => sequence), ofRows.map((_, i) => i));
    // One frame may take a window below zero.
    assert.ok(most < 2 * 65_536 + 4096, `${most} bytes beyond the credit`);
  });

  it("requests wait for the connection's credit, in order", async () => {
    server.hello = { connectionWindow: 65_536 };
    const requests = recorded();
    const made = client("&pool_size=1");
    const all = made.session(async (session) => {
      const names = Array.from({ length: 8 }, (_, i) => `${i}${" ".repeat(20_000)}`);
      const running = Promise.all(names.map((name) => session.query(name)));
      await sleep(50);
      const before = requests.length;
      assert.ok(before <= 4, `${before} requests without credit`);
      for (const { peer, id } of requests) peer.one(id);
      server.onRequest = (request) => {
        requests.push(request);
        if (request.message.kind === "Query") request.peer.one(request.id);
        else request.peer.ok(request.id);
      };
      const update: Message = { kind: "WindowUpdate", value: { stream: 0n, credit: 1 << 20 } };
      server.peers[0]!.send(0n, update, flag.URGENT | flag.ONEWAY);
      return running;
    });
    assert.equal((await all).length, 8);
    const order = requests.flatMap((request) => sqlOf(request)?.[0] ?? []);
    assert.deepEqual(order, ["0", "1", "2", "3", "4", "5", "6", "7"]);
  });
});

describe("bulk insert", () => {
  it("stops when the server says no", async () => {
    const requests = recorded(({ peer, id, message }) => {
      if (message.kind === "BulkInsert" && message.value.kind === "Start") {
        peer.error(id, { sqlstate: "42P01", code: "NOT_FOUND" });
      }
    });
    let made = 0;
    async function* source() {
      for (; made < 10_000_000; made++) {
        if (made % 1000 === 0) await sleep(0);
        yield [made, "x".repeat(100)];
      }
    }
    const insert = client().bulkInsert("t", ["a", "b"], source());
    await assert.rejects(insert, { sqlstate: "42P01" });
    assert.ok(made < 1_000_000);
    // The sequence of frames has an end all the same.
    const isAbort = ({ message, flags }: Request): boolean =>
      message.kind === "BulkInsert" && message.value.kind === "Abort" && flags === 0;
    await until(() => isAbort(requests.at(-1)!), "an abort");
  });

  it("is undone when the program's rows fail", async () => {
    const requests = recorded(({ peer, id, message }) => {
      const isAbort = message.kind === "BulkInsert" && message.value.kind === "Abort";
      if (isAbort) peer.error(id, { sqlstate: "57014", code: "CANCELLED" });
    });
    function* source() {
      yield [1];
      throw new Error("no more");
    }
    await assert.rejects(client().bulkInsert("t", ["a"], source()), { message: "no more" });
    await until(() => requests.length === 2, "an abort");
    assert.deepEqual(requests.at(-1)!.message, {
      kind: "BulkInsert",
      value: { kind: "Abort", value: { reason: "no more" } },
    });
    await assert.rejects(client().bulkInsert("t", ["a"], [[1, 2]]), { sqlstate: "22023" });
  });

  it("gives up a server that takes nothing", async () => {
    server.hello = { streamWindow: 65_536 };
    const requests = recorded();
    const source = Array.from({ length: 5000 }, () => ["x".repeat(100)]);
    const insert = client().bulkInsert("t", ["a"], source, { timeout: 0.1 });
    await assert.rejects(insert, { sqlstate: "57014", code: "TIMEOUT" });
    await until(() => requests.some(({ message }) => message.kind === "Cancel"), "a cancel");
  });
});
