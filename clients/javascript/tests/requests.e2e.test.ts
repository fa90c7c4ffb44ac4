// Everything that can be asked of a server.

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  RustyDBError, type Notification, type QueryResult, type RustyDBClient,
} from "../src/index.js";
import { connect, own, Proxy, skip } from "./e2e.js";
import { until } from "./harness.js";

/** `count` numbers, from `first` on. */
const counting = (count: number, first = 0): number[] =>
  Array.from({ length: count }, (_, i) => first + i);

describe("with a server", { skip }, () => {
  let client: RustyDBClient;
  const table = own("t");

  before(async () => {
    client = await connect().connect();
    await client.execute(
      `create table ${table} (id int4 primary key, name text not null check (name <> 'bad'))`,
    );
  });

  after(async () => {
    await client.execute(`drop table ${table}`);
    await client.disconnect();
  });

  const clear = () => client.execute(`delete from ${table}`);
  const count = async (): Promise<number> =>
    (await client.query(`select count(*)::int4 as n from ${table}`)).rows[0]!["n"];

  describe("queries", () => {
    it("give rows, columns, counts and the command", async () => {
      const result = await client.query("select 1 as a, 'x' as b union all select 2, 'y'");
      assert.deepEqual(result.rows, [{ a: 1, b: "x" }, { a: 2, b: "y" }]);
      assert.deepEqual(result.columns.map(({ name, typeOid }) => [name, typeOid]),
        [["a", 23], ["b", 25]]);
      assert.deepEqual([result.rowCount, result.command], [2, "SELECT"]);
      assert.equal(result.commandTag, "SELECT 2");
      assert.equal(await client.execute(`insert into ${table} values (1, 'a'), (2, 'b')`), 2);
      const deleted = await client.query(`delete from ${table} returning id`, [], {
        rowMode: "array",
      });
      assert.deepEqual(deleted.rows.sort(), [[1], [2]]);
      const twice = "select 1 as id, 2 as id";
      assert.deepEqual((await client.query(twice)).rows, [{ id: 2 }]);
      assert.deepEqual((await client.query(twice, [], { rowMode: "array" })).rows, [[1, 2]]);
    });

    it("several statements in one text", async () => {
      const results = await client.script("select 1 as a; select 2 as b; create temp table x ()");
      assert.deepEqual(results.map(({ command }) => command), ["SELECT", "SELECT", "CREATE TABLE"]);
      assert.deepEqual((await client.query("select 1; select 2 as b")).rows, [{ b: 2 }]);
      await assert.rejects(client.query("select $1; select 2", [1]), { sqlstate: "42601" });
    });

    it("at most as many rows as were asked for, read-only if so", async () => {
      const cut = await client.query("select generate_series(1, 1000) as n", [], { maxRows: 3 });
      assert.deepEqual(cut.rows.map(({ n }) => n), [1, 2, 3]);
      const write = client.query(`insert into ${table} values (9, 'x')`, [], { readOnly: true });
      await assert.rejects(write, { sqlstate: "25006" });
      assert.equal(await count(), 0);
    });

    it("a large result, in one or many frames", async () => {
      const sql = "select n, repeat('x', 1000) as t from generate_series(1, 30000) n";
      const { rows } = await client.query(sql);
      assert.equal(rows.length, 30_000);
      assert.equal(rows[29_999]!["n"], 30_000);
      assert.ok(rows.every(({ t }) => t.length === 1000));
    });

    it("a column named __proto__, and an empty result", async () => {
      const { rows } = await client.query('select 1 as "__proto__", 2 as b');
      assert.deepEqual(Object.entries(rows[0]!), [["__proto__", 1], ["b", 2]]);
      const none = await client.query("select 1 as a where false");
      assert.deepEqual([none.rows, none.columns.length, none.rowCount], [[], 1, 0]);
    });

    it("ping", async () => assert.ok((await client.ping()) >= 0));
  });

  describe("errors", () => {
    it("carry every field", async () => {
      await assert.rejects(client.query("select *\nfrom nowhere_at_all"), {
        name: "RustyDBError", severity: "Error", sqlstate: "42P01", code: "NOT_FOUND",
        message: 'relation "nowhere_at_all" does not exist', position: 15, retryable: false,
      });
      await client.execute(`insert into ${table} values (1, 'a')`);
      await assert.rejects(client.execute(`insert into ${table} values (1, 'b')`), {
        sqlstate: "23505", code: "CONFLICT", detail: "Key (id)=(1) already exists.",
        schema: "public", table, constraint: `${table}_pkey`,
      });
      await assert.rejects(client.execute(`insert into ${table} values (2, null)`), {
        sqlstate: "23502", table, column: "name",
      });
      await assert.rejects(
        client.query(`do $$ begin raise exception 'boo' using hint = 'h', detail = 'd',
          errcode = 'P0123', datatype = 'dt'; end $$`),
        (error: RustyDBError) => {
          assert.deepEqual(
            [error.sqlstate, error.message, error.hint, error.detail, error.dataType],
            ["P0123", "boo", "h", "d", "dt"],
          );
          assert.match(error.context!, /inline_code_block/);
          return true;
        },
      );
      await clear();
    });

    it("leave the client usable", async () => {
      const made = connect({ poolSize: 1 });
      for (let i = 0; i < 20; i++) {
        await assert.rejects(made.query("select 1/0"), { sqlstate: "22012" });
        assert.equal((await made.query("select 1 as a")).rows[0]!["a"], 1);
      }
      assert.equal(made.poolCounts.total, 1);
      await made.disconnect();
    });
  });

  describe("prepared statements", () => {
    it("run on every connection, with the types the server tells", async () => {
      const statement = await client.prepare("select $1::int4 + $2 as sum");
      assert.deepEqual(statement.parameterTypes, [23, 23]);
      assert.deepEqual(statement.columns.map(({ name }) => name), ["sum"]);
      const sums = await Promise.all(
        counting(50).map((i) => statement.query([i, 1])),
      );
      assert.deepEqual(sums.map(({ rows }) => rows[0]!["sum"]), counting(50, 1));
      await client.transaction(async (txn) => {
        const { rows } = await statement.within(txn).query([1, 1]);
        assert.deepEqual(rows, [{ sum: 2 }]);
      });
      await statement.close();
      await assert.rejects(statement.query([1, 1]), { sqlstate: "22023" });
    });

    it("change rows, fail, and go on", async () => {
      const insert = await client.prepare(`insert into ${table} values ($1, $2)`);
      assert.equal(await insert.execute([1, "a"]), 1);
      await assert.rejects(insert.execute([1, "a"]), { sqlstate: "23505" });
      assert.equal(await insert.execute([2, "b"]), 1);
      await insert.close();
      await clear();
      await assert.rejects(client.prepare("selec 1"), { sqlstate: "42601" });
    });
  });

  describe("transactions", () => {
    it("commit, roll back, and give what their function gives", async () => {
      const id = await client.transaction(async (txn) => {
        assert.ok(txn.id > 0n);
        await txn.execute(`insert into ${table} values (1, 'a')`);
        return 1;
      });
      assert.deepEqual([id, await count()], [1, 1]);
      const failing = client.transaction(async (txn) => {
        await txn.execute(`insert into ${table} values (2, 'b')`);
        throw new Error("no");
      });
      await assert.rejects(failing, { message: "no" });
      assert.equal(await count(), 1);
      const txn = await client.begin();
      await txn.execute(`insert into ${table} values (3, 'c')`);
      assert.equal(await count(), 1);
      await txn.commit();
      assert.equal(await count(), 2);
      await assert.rejects(txn.query("select 1"), { sqlstate: "25P01" });
      await clear();
    });

    it("cannot commit after an error", async () => {
      const work = client.transaction(async (txn) => {
        await txn.execute(`insert into ${table} values (1, 'a')`);
        await txn.query("select 1/0").catch(() => undefined);
        await assert.rejects(txn.query("select 1"), { sqlstate: "25P02" });
      });
      await assert.rejects(work, { sqlstate: "25P02", code: "TRANSACTION_FAILED" });
      assert.equal(await count(), 0);
    });

    it("have savepoints", async () => {
      await client.transaction(async (txn) => {
        await txn.execute(`insert into ${table} values (1, 'a')`);
        await txn.savepoint("sp1");
        await assert.rejects(txn.execute(`insert into ${table} values (2, 'bad')`), {
          sqlstate: "23514",
        });
        await txn.rollbackTo("sp1");
        await txn.execute(`insert into ${table} values (3, 'c')`);
        await txn.releaseSavepoint("sp1");
        const nested = txn.nested(async () => {
          await txn.execute(`insert into ${table} values (4, 'd')`);
          await txn.query("select 1/0");
        });
        await assert.rejects(nested, { sqlstate: "22012" });
        await txn.nested(() => txn.execute(`insert into ${table} values (5, 'e')`));
      });
      const { rows } = await client.query(`select id from ${table} order by id`);
      assert.deepEqual(rows.map(({ id }) => id), [1, 3, 5]);
      await clear();
    });

    it("have an isolation level, and may be read-only", async () => {
      await client.transaction(async (txn) => {
        const { rows } = await txn.query("show transaction_isolation");
        assert.deepEqual(rows, [{ transaction_isolation: "serializable" }]);
        const write = txn.execute(`insert into ${table} values (1, 'a')`);
        await assert.rejects(write, { sqlstate: "25006" });
        await txn.rollback();
      }, { isolation: "serializable", readOnly: true, deferrable: true });
    });

    it("may go on in a chain", async () => {
      const txn = await client.begin({ isolation: "repeatable read" });
      await txn.execute(`insert into ${table} values (1, 'a')`);
      await txn.commit({ andChain: true });
      assert.ok(txn.isOpen);
      const { rows } = await txn.query("show transaction_isolation");
      assert.deepEqual(rows, [{ transaction_isolation: "repeatable read" }]);
      await txn.execute(`insert into ${table} values (2, 'b')`);
      await txn.rollback();
      assert.equal(await count(), 1);
      await clear();
    });

    it("take requests that do not wait for each other", async () => {
      const numbers = await client.transaction(async (txn) => {
        const queries = counting(3000).map((i) => txn.query("select $1::int4 as n", [i]));
        return (await Promise.all(queries)).map(({ rows }) => rows[0]!["n"]);
      });
      assert.deepEqual(numbers, counting(3000));
    });
  });

  describe("streams", () => {
    it("a million rows in flat memory", { timeout: 300_000 }, async () => {
      const sql = "select n, repeat('x', 100) as t from generate_series(1, 1000000) n";
      let rows = 0;
      let sum = 0;
      let most = 0;
      const before = process.memoryUsage().rss;
      const stream = client.stream<{ n: number; t: string }>(sql);
      for await (const { n, t } of stream) {
        rows += 1;
        sum += n + t.length;
        if (rows % 10_000 === 0) most = Math.max(most, process.memoryUsage().rss);
      }
      assert.equal(rows, 1_000_000);
      assert.equal(sum, 500_000_500_000 + 100_000_000);
      assert.equal(stream.rowCount, 1_000_000);
      assert.equal(stream.columns.length, 2);
      const grown = (most - before) / 2 ** 20;
      // The collector is in no hurry; the rows would be ten times this.
      assert.ok(grown < 300, `${grown} MiB more`);
    });

    it("a slow reader holds the server back", async () => {
      const sql = "select repeat('x', 10000) as t from generate_series(1, 2000)";
      let rows = 0;
      for await (const _ of client.stream(sql, [], { chunkRows: 10 })) {
        rows += 1;
        if (rows % 500 === 0) await sleep(100);
      }
      assert.equal(rows, 2000);
    });

    it("can be left, and the connection is used again", async () => {
      const made = connect({ poolSize: 1 });
      for (let i = 0; i < 5; i++) {
        let rows = 0;
        for await (const { n } of made.stream("select generate_series(1, $1) as n", [10_000_000])) {
          rows += 1;
          assert.equal(n, rows);
          if (rows === 1000) break;
        }
        assert.equal((await made.query("select 1 as a")).rows[0]!["a"], 1);
      }
      assert.equal(made.poolCounts.total, 1);
      await made.disconnect();
    });

    it("fail where the query fails", async () => {
      let rows = 0;
      const sql = "select 1 / (5000 - n) as x from generate_series(1, 10000) n";
      await assert.rejects(async () => {
        for await (const _ of client.stream(sql)) rows += 1;
      }, { sqlstate: "22012" });
      assert.ok(rows < 5000);
      await assert.rejects(client.stream("selec").next(), { sqlstate: "42601" });
    });

    it("run in a transaction, several one after the other, also when they are left", async () => {
      await client.transaction(async (txn) => {
        for await (const _ of txn.stream("select generate_series(1, 1000000)")) break;
        for (let i = 0; i < 3; i++) {
          let rows = 0;
          for await (const _ of txn.stream("select generate_series(1, 5000)")) rows += 1;
          assert.equal(rows, 5000);
        }
        await txn.execute(`insert into ${table} values (1, 'a')`);
      });
      assert.equal(await count(), 1);
      await clear();
    });
  });

  describe("bulk insert", () => {
    it("a hundred thousand rows", async () => {
      function* rows() {
        for (const id of counting(100_000)) yield id % 2 === 0 ? [id, `n${id}`] : { id, name: "é" };
      }
      assert.equal(await client.bulkInsert(table, ["id", "name"], rows()), 100_000);
      assert.equal(await count(), 100_000);
      await clear();
    });

    it("all types", async () => {
      const all = own("all");
      await client.execute(
        `create table ${all} (a bool, b int2, c int4, d int8, e float4, f float8, g numeric, h text,
           i bytea, j date, k timestamptz, l jsonb, m int4[], n uuid, o text[])`,
      );
      const columns = "abcdefghijklmno".split("");
      const when = new Date("2026-01-01T00:00:00Z");
      const uuid = "123e4567-e89b-12d3-a456-426614174000";
      const row = [
        true, 1, 2, 3n, 1.5, 2.5, "12.50", "x", Buffer.from([1]), "2026-01-01", when, { a: 1 },
        [1, 2], uuid, ["p", "q"],
      ];
      const nulls = columns.map(() => null);
      assert.equal(await client.bulkInsert(all, columns, [row, nulls]), 2);
      const { rows } = await client.query(`select * from ${all}`, [], { rowMode: "array" });
      assert.deepEqual(rows, [row, nulls]);
      await client.execute(`drop table ${all}`);
    });

    it("all or nothing, or without what is there already", async () => {
      await client.execute(`insert into ${table} values (5, 'old')`);
      const rows = Array.from({ length: 10 }, (_, id) => [id, "new"]);
      await assert.rejects(client.bulkInsert(table, ["id", "name"], rows), { sqlstate: "23505" });
      assert.equal(await count(), 1);
      const options = { onConflict: "skip", schema: "public" } as const;
      assert.equal(await client.bulkInsert(table, ["id", "name"], rows, options), 9);
      assert.equal(await count(), 10);
      const { rows: kept } = await client.query(`select name from ${table} where id = 5`);
      assert.deepEqual(kept, [{ name: "old" }]);
      await clear();
    });

    it("errors of the table and of the program", async () => {
      const nowhere = client.bulkInsert(own("nowhere"), ["a"], [[1]]);
      await assert.rejects(nowhere, { sqlstate: "42P01" });
      function* failing() {
        for (let id = 0; id < 5000; id++) yield [id, "x".repeat(100)];
        throw new Error("source failed");
      }
      await assert.rejects(client.bulkInsert(table, ["id", "name"], failing()), {
        message: "source failed",
      });
      assert.equal(await count(), 0);
    });

    it("is part of a transaction", async () => {
      const txn = await client.begin();
      assert.equal(await txn.bulkInsert(table, ["id", "name"], [[1, "a"]]), 1);
      await txn.rollback();
      assert.equal(await count(), 0);
    });
  });

  describe("batches", () => {
    it("are atomic, or not", async () => {
      const insert = (id: number, name: string) => ({
        sql: `insert into ${table} values ($1, $2)`, params: [id, name],
      });
      const results = await client.batch([insert(1, "a"), insert(2, "b"), "select 3 as c"]);
      const counts = results.map((result) => (result as QueryResult).rowCount);
      assert.deepEqual(counts, [1, 1, 1]);
      await assert.rejects(client.batch([insert(3, "c"), insert(1, "a")]), { sqlstate: "23505" });
      assert.equal(await count(), 2);
      const mixed = [insert(3, "c"), insert(1, "a"), insert(4, "d")];
      const outcome = await client.batch(mixed, { atomic: false });
      assert.equal(outcome.length, 3);
      assert.ok(outcome[1] instanceof RustyDBError);
      assert.equal(await count(), 4);
      const stopping = [insert(5, "e"), insert(1, "a"), insert(6, "f")];
      const stopped = await client.batch(stopping, { atomic: false, stopOnError: true });
      assert.equal(stopped.length, 2);
      assert.equal(await count(), 5);
      await clear();
    });

    it("take rows of a statement that fails for no result", async () => {
      // Long enough for its first rows to be sent before it fails.
      const fails =
        "select 1 / (100000 - g), repeat('y', 50) from generate_series(1, 200000) g";
      const outcome = await client.batch(["select 7 as n", fails, "select 8 as n"], { atomic: false });
      const found = outcome.map((result) =>
        result instanceof RustyDBError ? result.sqlstate : result.rows[0]!["n"]);
      assert.deepEqual(found, [7, "22012", 8]);
    });
  });

  describe("cancel and time-outs", () => {
    it("a signal ends the statement on the server", async () => {
      const made = connect({ poolSize: 1 });
      await made.connect();
      const abort = new AbortController();
      const begun = performance.now();
      setTimeout(() => abort.abort(), 100);
      const slow = made.query("select pg_sleep(20)", [], { signal: abort.signal });
      await assert.rejects(slow, { sqlstate: "57014", code: "CANCELLED" });
      assert.equal((await made.query("select 1 as a")).rows[0]!["a"], 1);
      assert.ok(performance.now() - begun < 5000);
      assert.equal(made.poolCounts.total, 1);
      await made.disconnect();
    });

    it("a time-out does too", async () => {
      const made = connect({ poolSize: 1, timeout: 0.3 });
      const slow = made.query("select pg_sleep(20)");
      await assert.rejects(slow, { sqlstate: "57014", code: "TIMEOUT" });
      const own = made.query("select pg_sleep(20)", [], { timeout: 0.1 });
      await assert.rejects(own, { sqlstate: "57014", code: "TIMEOUT" });
      assert.equal((await made.query("select 1 as a", [], { timeout: 5 })).rows[0]!["a"], 1);
      await made.disconnect();
    });
  });

  describe("sessions", () => {
    it("keep settings and temporary tables, and leave none behind", async () => {
      const made = connect({ poolSize: 1, parameters: { application_name: "js test" } });
      await made.session(async (session) => {
        await session.set("work_mem", "8MB");
        assert.equal(await session.show("work_mem"), "8MB");
        await session.reset("work_mem");
        assert.notEqual(await session.show("work_mem"), "8MB");
        await session.set("work_mem", "9MB");
        await session.execute("create temp table only_here (a int4)");
        assert.equal(await session.execute("insert into only_here values (1)"), 1);
        await session.transaction(async (txn) => {
          assert.equal((await txn.query("select a from only_here")).rowCount, 1);
        });
        assert.ok(session.parameters.get("server_version"));
      });
      await made.session(async (session) => {
        assert.notEqual(await session.show("work_mem"), "9MB");
        await assert.rejects(session.query("select a from only_here"), { sqlstate: "42P01" });
      });
      await made.disconnect();
    });
  });

  describe("notifications", () => {
    it("reach those who listen", async () => {
      const channel = own("channel");
      const heard: Notification[] = [];
      const stop = await client.listen(channel, (notification) => heard.push(notification));
      await client.query(`notify ${channel}, 'one'`);
      await client.query("select pg_notify($1, $2)", [channel, "twö"]);
      await until(() => heard.length === 2, "two notifications");
      assert.deepEqual(heard.map(({ payload }) => payload), ["one", "twö"]);
      assert.ok(heard.every((notification) => notification.channel === channel));
      assert.ok(heard[0]!.processId !== 0);
      await stop();
      await client.query(`notify ${channel}, 'three'`);
      await sleep(200);
      assert.equal(heard.length, 2);
    });

    it("notices of the server", async () => {
      const told = new Promise<{ message: string }>((resolve) => client.on("notice", resolve));
      await client.query("do $$ begin raise notice 'hello'; end $$");
      assert.equal((await told).message, "hello");
    });
  });

  describe("large objects", () => {
    it("are read piece by piece", async () => {
      const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i % 251));
      const { rows } = await client.query("select lo_from_bytea(0, $1) as id", [bytes]);
      const { id } = rows[0]!;
      const read = async (options = {}): Promise<Buffer> => {
        const parts: Uint8Array[] = [];
        for await (const part of client.readLargeObject(id, options)) parts.push(part);
        return Buffer.concat(parts);
      };
      assert.ok((await read()).equals(bytes));
      const part = await read({ offset: 1000, length: 70_000 });
      assert.ok(part.equals(bytes.subarray(1000, 71_000)));
      await client.query("select lo_unlink($1)", [id]);
      await assert.rejects(read(), { sqlstate: "42704" });
    });
  });

  describe("the pool, and lost connections", () => {
    it("many requests share few connections", async () => {
      const made = connect({ poolSize: 3 });
      const results = await Promise.all(
        counting(300).map((i) => made.query("select $1::int4 as n", [i])),
      );
      assert.deepEqual(results.map(({ rows }) => rows[0]!["n"]), counting(300));
      assert.ok(made.poolCounts.total <= 3);
      await made.disconnect();
    });

    it("reconnects", async () => {
      const proxy = await Proxy.start();
      const made = connect({ ...proxy.options, poolSize: 2 });
      const one = async (): Promise<number> => (await made.query("select 1 as a")).rows[0]!["a"];
      try {
        assert.equal(await one(), 1);
        proxy.cut();
        await until(() => made.poolCounts.total === 0, "the loss is noticed");
        assert.equal(await one(), 1);
        const slow = made.query("select pg_sleep(0.4), 3 as a", [], { readOnly: true });
        await sleep(150);
        proxy.cut();
        assert.equal((await slow).rows[0]!["a"], 3);
        const write = assert.rejects(made.query("select pg_sleep(0.4)"), { sqlstate: "08006" });
        await sleep(150);
        proxy.cut();
        await write;
        const txn = await made.begin();
        proxy.cut();
        await assert.rejects(txn.query("select 1"), { sqlstate: "08006" });
        await assert.rejects(txn.commit(), { sqlstate: "08006" });
        assert.equal(await one(), 1);
        assert.ok(proxy.count >= 5);
      } finally {
        await proxy.stop();
        await made.disconnect();
      }
    });

    it("listens again", async () => {
      const proxy = await Proxy.start();
      const made = connect(proxy.options);
      try {
        const channel = own("again");
        const heard: string[] = [];
        await made.listen(channel, ({ payload }) => heard.push(payload));
        const again = new Promise<void>((resolve) => made.on("relisten", resolve));
        proxy.cut();
        await again;
        await client.query(`notify ${channel}, 'back'`);
        await until(() => heard.length === 1, "a notification");
        assert.deepEqual(heard, ["back"]);
      } finally {
        await proxy.stop();
        await made.disconnect();
      }
    });
  });

  describe("compression and checksums", () => {
    const text = "all work and no play ".repeat(5000);
    for (const checksum of [false, true]) {
      for (const algorithm of ["none", "lz4", "zstd", "snappy"] as const) {
        it(`${algorithm}${checksum ? " with checksums" : ""}`, async () => {
          const compression = algorithm === "none" ? [] : [algorithm];
          const made = connect({ compression, checksum, poolSize: 2 });
          const { rows } = await made.query("select $1::text as t, length($1) as n", [text]);
          assert.deepEqual(rows, [{ t: text, n: text.length }]);
          let seen = 0;
          const sql = "select $1::text as t from generate_series(1, 50)";
          for await (const { t } of made.stream(sql, [text])) {
            assert.equal(t, text);
            seen += 1;
          }
          assert.equal(seen, 50);
          const insert = Array.from({ length: 2000 }, (_, i) => [i, "the same text again"]);
          await made.bulkInsert(table, ["id", "name"], insert);
          assert.equal(await count(), 2000);
          await clear();
          await made.disconnect();
        });
      }
    }
  });
});
