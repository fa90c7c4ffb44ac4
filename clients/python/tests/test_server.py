"""The blocking interface with a running server."""

import gc
import os
import threading
import time
import tracemalloc
import unittest
from typing import Any

import rustydb
from rustydb._wire import compression

from .server import (
    PREFIX,
    SELF_SIGNED_CERT,
    SELF_SIGNED_URL,
    TLS_CA,
    TLS_URL,
    URL,
    ServerTest,
    with_options,
)


class QueryTest(ServerTest):
    def test_rows(self) -> None:
        result = self.client.query("SELECT 1 AS id, 'x' AS name UNION ALL SELECT 2, 'y'")
        self.assertEqual([dict(row) for row in result][1], {"id": 2, "name": "y"})
        self.assertEqual([column.name for column in result.columns], ["id", "name"])
        self.assertEqual([column.type_name for column in result.columns], ["int4", "text"])
        self.assertEqual((result.row_count, result.command), (2, "SELECT 2"))
        self.assertEqual(result[1]["name"], "y")
        twice = self.client.query("SELECT 1 AS id, 2 AS id").one()
        self.assertEqual((dict(twice), list(twice), twice["id"]), ({"id": 1}, [1, 2], 1))
        self.assertEqual(self.client.query("SELECT 1 WHERE false").rows, [])
        self.assertIn("server_version", self.client.parameters)

    def test_affected_rows(self) -> None:
        with self.table("id int4 PRIMARY KEY") as table:
            sql = f"INSERT INTO {table} SELECT generate_series(1, $1::int4)"
            self.assertEqual(self.client.execute(sql, [5]), 5)
            self.assertEqual(self.client.execute(f"UPDATE {table} SET id = -id"), 5)
            self.assertEqual(self.client.execute(f"DELETE FROM {table} WHERE id > 0"), 0)

    def test_several_statements(self) -> None:
        results = self.client.query_all("SELECT 1; SELECT 2 WHERE false; SELECT 3")
        self.assertEqual([[row[0] for row in result] for result in results], [[1], [], [3]])
        self.assertEqual(self.client.query("SELECT 1; SELECT 2").scalar(), 2)
        with self.refused("42601"):
            self.client.query("SELECT 1; SELECT $1::int4", [1])

    def test_a_large_result_in_parts(self) -> None:
        sql = "SELECT i, repeat('x', 1000) FROM generate_series(1, 40000) i"
        rows = self.client.query(sql).rows
        self.assertEqual([row[0] for row in rows], list(range(1, 40001)))
        self.assertEqual(self.client.query("SELECT 1").scalar(), 1)

    def test_at_most_so_many_rows(self) -> None:
        result = self.client.query("SELECT generate_series(1, 1000)", max_rows=7)
        self.assertEqual((len(result), result.row_count), (7, 7))
        self.assertEqual(self.client.query("SELECT 1").scalar(), 1)

    def test_read_only(self) -> None:
        with self.table("id int4") as table, self.refused("25006"):
            self.client.query(f"INSERT INTO {table} VALUES (1)", read_only=True)
        self.assertEqual(self.client.query("SELECT 1", read_only=True).scalar(), 1)

    def test_ping(self) -> None:
        self.assertLess(self.client.ping(), 5)

    def test_notices(self) -> None:
        notices: list[rustydb.Notice] = []
        with rustydb.connect(URL, on_notice=notices.append) as client:
            client.query("DO $$ BEGIN RAISE WARNING 'careful'; END $$")
            client.ping()
        self.assertIn("careful", [notice.message for notice in notices])
        (notice,) = [notice for notice in notices if notice.message == "careful"]
        self.assertEqual((notice.severity.name, notice.sqlstate), ("Warning", "01000"))


class ErrorTest(ServerTest):
    def test_a_syntax_error(self) -> None:
        with self.refused("42601") as caught:
            self.client.query("SELECT é, FROM x")
        self.assertEqual(caught.error.position, 11)
        self.assertEqual(caught.error.severity, "ERROR")
        self.assertFalse(caught.error.retryable)

    def test_a_constraint(self) -> None:
        with self.table("id int4 CONSTRAINT positive CHECK (id > 0), n int4 NOT NULL") as table:
            with self.refused("23514") as caught:
                self.client.execute(f"INSERT INTO {table} VALUES (-1, 1)")
            error = caught.error
            self.assertIsInstance(error, rustydb.IntegrityError)
            self.assertEqual((error.table, error.constraint), (table, "positive"))
            self.assertEqual(error.schema, "public")
            assert error.detail is not None
            self.assertIn("-1", error.detail)
            with self.refused("23502") as caught:
                self.client.execute(f"INSERT INTO {table} VALUES (1, NULL)")
            self.assertEqual(caught.error.column, "n")

    def test_hint_and_context(self) -> None:
        with self.refused("P0001") as caught:
            self.client.query(
                "DO $$ BEGIN RAISE EXCEPTION 'no' USING HINT = 'try', DETAIL = 'because',"
                " DATATYPE = 'int4', COLUMN = 'c'; END $$"
            )
        error = caught.error
        self.assertEqual((error.message, error.hint, error.detail), ("no", "try", "because"))
        self.assertEqual((error.data_type, error.column), ("int4", "c"))
        self.assertIn("PL/pgSQL", error.context or "")

    def test_statements_go_on_after_an_error(self) -> None:
        for _ in range(5):
            with self.refused("22012"):
                self.client.query("SELECT 1 / $1::int4", [0])
            self.assertEqual(self.client.query("SELECT 1").scalar(), 1)

    def test_limits(self) -> None:
        with self.refused("54000"):
            self.client.query(f"SELECT '{'x' * (1 << 20)}'")
        with self.refused("54000"):
            self.client.query("SELECT length($1)", ["x" * (17 << 20)])
        self.assertEqual(
            self.client.query("SELECT length($1)", ["x" * (2 << 20)]).scalar(), 2 << 20
        )

    def test_wrong_credentials(self) -> None:
        if ":" not in URL.partition("//")[2].partition("@")[0]:
            self.skipTest("the URL has no password")
        with self.refused("28P01") as caught:
            rustydb.connect(URL, password="wrong")
        self.assertIsInstance(caught.error, rustydb.AuthenticationError)
        with self.refused("3D000"):
            rustydb.connect(URL, database=f"{PREFIX}_nowhere")


class PreparedTest(ServerTest):
    def test_statement(self) -> None:
        with self.client.prepare("SELECT $1::int4 + $2::int8 AS sum") as statement:
            self.assertEqual(statement.param_types, [23, 20])
            self.assertEqual([column.name for column in statement.columns], ["sum"])
            for number in range(10):
                self.assertEqual(statement.query([number, 1]).scalar(), number + 1)
        with self.refused("42601"):
            self.client.prepare("SELEC 1")

    def test_stated_types(self) -> None:
        with self.client.prepare("SELECT $1", param_types=[1700]) as statement:
            self.assertEqual(statement.param_types, [1700])
            self.assertEqual(str(statement.query(["1.50"]).scalar()), "1.50")

    def test_from_many_threads(self) -> None:
        with self.client.prepare("SELECT $1::int4") as statement:
            wrong: list[Any] = []

            def work() -> None:
                wrong.extend(n for n in range(30) if statement.query([n]).scalar() != n)

            threads = [threading.Thread(target=work) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(wrong, [])

    def test_after_the_table_changed(self) -> None:
        with self.table("a int4") as table:
            self.client.execute(f"INSERT INTO {table} VALUES (1)")
            with self.client.prepare(f"SELECT * FROM {table}") as statement:
                self.assertEqual(statement.query().one(), (1,))
                self.client.execute(f"ALTER TABLE {table} ADD b text DEFAULT 'x'")
                self.assertEqual(statement.query().one(), (1, "x"))

    def test_in_a_transaction(self) -> None:
        with self.client.transaction() as txn, txn.prepare("SELECT $1::text") as statement:
            self.assertEqual(statement.query(["a"]).scalar(), "a")


class TransactionTest(ServerTest):
    def test_commit_and_rollback(self) -> None:
        with self.table("id int4") as table:
            with self.client.transaction() as txn:
                txn.execute(f"INSERT INTO {table} VALUES (1)")
                self.assertGreater(txn.id, 0)
            with self.client.transaction() as txn:
                txn.execute(f"INSERT INTO {table} VALUES (2)")
                txn.rollback()
            with self.assertRaises(KeyError), self.client.transaction() as txn:
                txn.execute(f"INSERT INTO {table} VALUES (3)")
                raise KeyError
            with self.client.transaction() as txn:
                txn.execute(f"INSERT INTO {table} VALUES (4)")
                txn.commit()
                with self.assertRaises(rustydb.UsageError):
                    txn.execute("SELECT 1")
            rows = self.client.query(f"SELECT id FROM {table} ORDER BY id")
            self.assertEqual([row[0] for row in rows], [1, 4])

    def test_savepoints(self) -> None:
        with self.table("id int4 PRIMARY KEY") as table:
            with self.client.transaction() as txn:
                txn.execute(f"INSERT INTO {table} VALUES (1)")
                with self.refused("23505"), txn.savepoint():
                    txn.execute(f"INSERT INTO {table} VALUES (2)")
                    txn.execute(f"INSERT INTO {table} VALUES (1)")
                with txn.savepoint("mine") as savepoint:
                    txn.execute(f"INSERT INTO {table} VALUES (3)")
                    savepoint.rollback()
                    txn.execute(f"INSERT INTO {table} VALUES (4)")
                    with txn.savepoint():
                        txn.execute(f"INSERT INTO {table} VALUES (5)")
            rows = self.client.query(f"SELECT id FROM {table} ORDER BY id")
            self.assertEqual([row[0] for row in rows], [1, 4, 5])

    def test_properties(self) -> None:
        with self.client.transaction(
            isolation="serializable", read_only=True, deferrable=True
        ) as txn:
            for setting, value in [
                ("transaction_isolation", "serializable"),
                ("transaction_read_only", "on"),
                ("transaction_deferrable", "on"),
            ]:
                self.assertEqual(txn.query(f"SHOW {setting}").scalar(), value)
            with self.refused("25006"):
                txn.execute(f"CREATE TABLE {self.name()} ()")
            txn.rollback()

    def test_a_failed_transaction(self) -> None:
        with self.refused("25P02"), self.client.transaction() as txn:
            with self.refused("22012"):
                txn.query("SELECT 1 / 0")
            with self.refused("25P02"):
                txn.query("SELECT 1")
            txn.commit()

    def test_one_after_another(self) -> None:
        with self.table("id int4") as table:
            with self.client.transaction(isolation="repeatable read") as txn:
                txn.execute(f"INSERT INTO {table} VALUES (1)")
                txn.commit(chain=True)
                self.assertEqual(
                    txn.query("SHOW transaction_isolation").scalar(), "repeatable read"
                )
                txn.execute(f"INSERT INTO {table} VALUES (2)")
                txn.rollback(chain=True)
                txn.execute(f"INSERT INTO {table} VALUES (3)")
            rows = self.client.query(f"SELECT id FROM {table} ORDER BY id")
            self.assertEqual([row[0] for row in rows], [1, 3])

    def test_conflicts_are_told(self) -> None:
        with self.table("id int4") as table:
            self.client.execute(f"INSERT INTO {table} VALUES (1)")
            with self.client.transaction(isolation="repeatable read") as first:
                first.query(f"SELECT * FROM {table}")
                self.client.execute(f"UPDATE {table} SET id = 2")
                with self.refused("40001") as caught:
                    first.execute(f"UPDATE {table} SET id = 3")
                self.assertTrue(caught.error.retryable)
                first.rollback()

    def test_a_begin_in_sql_does_not_stay(self) -> None:
        with rustydb.connect(URL, pool_size=1) as client:
            client.execute("BEGIN")
            self.assertEqual(client.query("SELECT pg_current_xact_id_if_assigned()").scalar(), None)
            with self.client.transaction():
                pass
            client.query("BEGIN; SELECT 1")
            with client.transaction() as txn:
                txn.query("SELECT 1")


class StreamTest(ServerTest):
    def test_a_million_rows_in_little_memory(self) -> None:
        sql = "SELECT i, 'row ' || i AS name FROM generate_series(1, 1000000) i"
        with self.client.stream(sql, timeout=60) as stream:
            self.assertEqual([column.name for column in stream.columns], ["i", "name"])
            next(stream)
            gc.collect()
            tracemalloc.start()
            for number, row in enumerate(stream, 2):
                if row[0] != number:
                    self.fail(f"{row} instead of {number}")
                if number == 10_000:
                    # Tracing takes long; what has not grown until here does not grow.
                    _, most = tracemalloc.get_traced_memory()
                    tracemalloc.stop()
            self.assertEqual(number, 1_000_000)
            self.assertEqual((stream.row_count, stream.command), (1_000_000, "SELECT 1000000"))
        self.assertLess(most, 24 << 20)

    @unittest.skipUnless(os.path.exists("/proc/self/statm"), "this system has no /proc")
    def test_memory_of_the_process(self) -> None:
        def resident() -> int:
            with open("/proc/self/statm", encoding="ascii") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        # 200 MB that are compressed to nearly nothing: the window does not bound the rows in them.
        sql = "SELECT i, repeat('x', 500) FROM generate_series(1, 400000) i"
        for compression in ("none", "lz4", "zstd"):
            with (
                self.subTest(compression),
                rustydb.connect(with_options(URL, compression=compression)) as client,
            ):
                gc.collect()
                before = most = resident()
                for number, _ in enumerate(client.stream(sql, timeout=60), 1):
                    if number % 1000 == 0:
                        most = max(most, resident())
                self.assertEqual(number, 400_000)
                self.assertLess(most - before, 24 << 20)

    def test_small_windows(self) -> None:
        url = with_options(URL, stream_window=65536, connection_window=65536)
        with rustydb.connect(url) as client:
            sql = "SELECT i, repeat('x', 100) FROM generate_series(1, 30000) i"
            self.assertEqual(sum(row[0] for row in client.stream(sql)), 30000 * 30001 // 2)

    def test_a_slow_reader(self) -> None:
        sql = "SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i"
        count = 0
        for _ in self.client.stream(sql):
            count += 1
            if count % 4000 == 0:
                time.sleep(0.2)
        self.assertEqual(count, 20_000)

    def test_parameters_and_parts(self) -> None:
        stream = self.client.stream("SELECT generate_series(1, $1::int4)", [1000], chunk_rows=7)
        self.assertEqual([row[0] for row in stream], list(range(1, 1001)))
        self.assertEqual(list(self.client.stream("SELECT 1 WHERE false")), [])

    def test_the_end_before_the_end(self) -> None:
        with rustydb.connect(URL, pool_size=1) as client:
            for _ in range(3):
                with client.stream("SELECT generate_series(1, 10000000)") as stream:
                    self.assertEqual(next(stream)[0], 1)
                self.assertEqual(client.query("SELECT 1").scalar(), 1)

    def test_in_a_transaction(self) -> None:
        with self.client.transaction() as txn:
            with txn.stream("SELECT generate_series(1, 1000000)") as stream:
                next(stream)
            self.assertEqual(txn.query("SELECT 1").scalar(), 1)
            self.assertEqual(sum(1 for _ in txn.stream("SELECT generate_series(1, 500)")), 500)

    def test_errors(self) -> None:
        with self.refused("42P01"):
            self.client.stream(f"SELECT * FROM {PREFIX}_nothing")
        with self.refused("22012"):
            for _ in self.client.stream("SELECT 1 / (5000 - i) FROM generate_series(1, 9999) i"):
                pass
        self.assertEqual(self.client.query("SELECT 1").scalar(), 1)

    def test_one_large_row(self) -> None:
        ((text,),) = self.client.stream("SELECT repeat('x', 5000000)")
        self.assertEqual(len(text), 5_000_000)

    def test_large_objects(self) -> None:
        data = bytes(range(256)) * 2000
        oid = self.client.query("SELECT lo_from_bytea(0, $1)", [data]).scalar()
        try:
            self.assertEqual(b"".join(self.client.stream_object(oid)), data)
            part = self.client.stream_object(oid, offset=100, length=1000)
            self.assertEqual(b"".join(part), data[100:1100])
        finally:
            self.client.query("SELECT lo_unlink($1)", [oid])
        with self.refused("42704"):
            list(self.client.stream_object(oid))


class BulkTest(ServerTest):
    def test_many_rows(self) -> None:
        with self.table("id int8, name text, at timestamptz DEFAULT now()") as table:
            rows = ((n, f"name {n}") for n in range(100_000))
            self.assertEqual(self.client.bulk_insert(table, ["id", "name"], rows), 100_000)
            sql = f"SELECT count(*), sum(id), max(name), count(at) FROM {table}"
            total = 99_999 * 100_000 // 2
            self.assertEqual(
                list(self.client.query(sql).one()), [100_000, total, "name 99999", 100_000]
            )

    def test_nothing(self) -> None:
        with self.table("id int4") as table:
            self.assertEqual(self.client.bulk_insert(table, ["id"], []), 0)

    def test_conflicts(self) -> None:
        with self.table("id int4 PRIMARY KEY") as table:
            self.client.execute(f"INSERT INTO {table} VALUES (3)")
            rows = [[n] for n in range(6)]
            with self.refused("23505"):
                self.client.bulk_insert(table, ["id"], rows, schema="public")
            count = self.client.query(f"SELECT count(*) FROM {table}").scalar()
            self.assertEqual(count, 1)
            self.assertEqual(self.client.bulk_insert(table, ["id"], rows, on_conflict="skip"), 5)

    def test_what_fails_is_undone(self) -> None:
        with self.table("id int4") as table:

            def failing() -> Any:
                for n in range(50_000):
                    yield [n]
                raise KeyError

            with self.assertRaises(KeyError):
                self.client.bulk_insert(table, ["id"], failing())
            with self.assertRaises(rustydb.Error):
                self.client.bulk_insert(table, ["id"], [[1], ["x"]])
            self.assertEqual(self.client.query(f"SELECT count(*) FROM {table}").scalar(), 0)
        with self.refused("42P01"):
            self.client.bulk_insert(f"{PREFIX}_nothing", ["id"], ([n] for n in range(500_000)))
        self.assertEqual(self.client.query("SELECT 1").scalar(), 1)

    def test_in_a_transaction(self) -> None:
        with self.table("id int4") as table:
            with self.client.transaction() as txn:
                self.assertEqual(txn.bulk_insert(table, ["id"], [[1], [2]]), 2)
                self.assertEqual(txn.query(f"SELECT count(*) FROM {table}").scalar(), 2)
                txn.rollback()
            self.assertEqual(self.client.query(f"SELECT count(*) FROM {table}").scalar(), 0)


class BatchTest(ServerTest):
    def test_atomic(self) -> None:
        with self.table("id int4 PRIMARY KEY") as table:
            insert = f"INSERT INTO {table} VALUES ($1)"
            results = self.client.batch([(insert, [1]), (insert, [2]), f"SELECT * FROM {table}"])
            commands = [each.command for each in results if isinstance(each, rustydb.Result)]
            self.assertEqual(commands, ["INSERT 0 1", "INSERT 0 1", "SELECT 2"])
            with self.refused("23505"):
                self.client.batch([(insert, [3]), (insert, [1])])
            self.assertEqual(self.client.query(f"SELECT count(*) FROM {table}").scalar(), 2)
        self.assertEqual(self.client.batch([]), [])

    def test_each_alone(self) -> None:
        with self.table("id int4 PRIMARY KEY") as table:
            insert = f"INSERT INTO {table} VALUES ($1)"
            statements = [(insert, [1]), (insert, [1]), (insert, [2])]
            results = self.client.batch(statements, atomic=False, stop_on_error=True)
            self.assertEqual(len(results), 2)
            self.assertIsInstance(results[1], rustydb.IntegrityError)
            self.client.execute(f"TRUNCATE {table}")
            results = self.client.batch(statements, atomic=False)
            self.assertEqual(
                [isinstance(each, rustydb.Result) for each in results], [True, False, True]
            )
            self.assertEqual(self.client.query(f"SELECT count(*) FROM {table}").scalar(), 2)

    def test_rows_of_a_statement_that_fails_are_no_result(self) -> None:
        # Long enough for its first rows to be sent before it fails.
        fails = "SELECT 1 / (100000 - g), repeat('y', 50) FROM generate_series(1, 200000) g"
        results = self.client.batch(["SELECT 7", fails, "SELECT 8"], atomic=False)
        found = [
            each.scalar() if isinstance(each, rustydb.Result) else each.sqlstate
            for each in results
            if isinstance(each, (rustydb.Result, rustydb.ServerError))
        ]
        self.assertEqual(found, [7, "22012", 8])

    def test_many(self) -> None:
        results = self.client.batch([("SELECT $1::int4", [n]) for n in range(1000)])
        numbers = [each.scalar() for each in results if isinstance(each, rustydb.Result)]
        self.assertEqual(numbers, list(range(1000)))
        with self.refused("54000"):
            self.client.batch(["SELECT 1"] * 1001)


class CancelTest(ServerTest):
    def test_time_out(self) -> None:
        start = time.monotonic()
        with self.assertRaises(rustydb.RequestTimeout):
            self.client.query("SELECT pg_sleep(20)", timeout=0.3)
        self.assertEqual(self.client.query("SELECT 1").scalar(), 1)
        self.assertLess(time.monotonic() - start, 5)

    def test_token(self) -> None:
        token = rustydb.CancelToken()
        threading.Timer(0.3, token.cancel).start()
        with self.refused("57014") as caught:
            self.client.query("SELECT pg_sleep(20)", cancel=token)
        self.assertIsInstance(caught.error, rustydb.QueryCanceled)

    def test_a_stream_and_a_transaction(self) -> None:
        with self.client.transaction() as txn:
            token = rustydb.CancelToken()
            threading.Timer(0.3, token.cancel).start()
            with self.refused("57014"):
                txn.query("SELECT pg_sleep(20)", cancel=token)
            txn.rollback()
        token = rustydb.CancelToken()
        stream = self.client.stream(
            "SELECT pg_sleep(0.01) FROM generate_series(1, 3000)", cancel=token
        )
        threading.Timer(0.3, token.cancel).start()
        with self.refused("57014"):
            list(stream)


class NotificationTest(ServerTest):
    def test_channels(self) -> None:
        one, two = self.name("_1"), self.name("_2")
        with self.client.listen(one, two) as listener:
            self.client.query("SELECT pg_notify($1, 'a')", [one])
            self.client.query("SELECT pg_notify($1, 'é')", [two])
            self.client.query("SELECT pg_notify($1, '')", [self.name("_3")])
            got = [listener.get(timeout=5) for _ in range(2)]
            assert got[0] is not None and got[1] is not None
            self.assertEqual(
                [(each.channel, each.payload) for each in got if each], [(one, "a"), (two, "é")]
            )
            self.assertGreater(got[0].process_id, 0)
            self.assertIsNone(listener.get(timeout=0.2))
        self.assertEqual(self.client.query("SELECT 1").scalar(), 1)

    def test_from_another_thread(self) -> None:
        channel = self.name()
        with self.client.listen(channel) as listener:

            def notify() -> None:
                for n in range(100):
                    self.client.query("SELECT pg_notify($1, $2)", [channel, str(n)])

            thread = threading.Thread(target=notify)
            thread.start()
            for number, notification in enumerate(listener):
                self.assertEqual(notification.payload, str(number))
                if number == 99:
                    break
            thread.join()
            self.assertEqual((listener.dropped, listener.reconnects), (0, 0))


class SessionTest(ServerTest):
    def test_settings(self) -> None:
        with self.client.session() as session:
            session.set("application_name", self.name())
            self.assertEqual(session.show("application_name"), self.name())
            session.set("TimeZone", "Asia/Tokyo")
            self.assertEqual(session.query("SHOW TimeZone").scalar(), "Asia/Tokyo")
            session.reset("TimeZone")
            self.assertNotEqual(session.show("TimeZone"), "Asia/Tokyo")
            with session.transaction() as txn:
                session.set("work_mem", "77MB", local=True)
                self.assertEqual(txn.query("SHOW work_mem").scalar(), "77MB")
            self.assertNotEqual(session.show("work_mem"), "77MB")
            session.execute(f"CREATE TEMPORARY TABLE {self.name()} (id int4)")
            session.execute(f"INSERT INTO {self.name()} VALUES (1)")
            self.assertEqual(session.query(f"SELECT * FROM {self.name()}").scalar(), 1)
            with self.refused("42704"):
                session.set("no_such_setting", "1")

    def test_nothing_is_left(self) -> None:
        with rustydb.connect(URL, pool_size=1) as client:
            zone = client.query("SHOW TimeZone").scalar()
            with client.session() as session:
                session.set("TimeZone", "Asia/Tokyo")
                session.execute("BEGIN")
            self.assertEqual(client.query("SHOW TimeZone").scalar(), zone)

    def test_pooled_sessions(self) -> None:
        with self.client.session() as session:
            session.acquire(self.name(), purity="new")
            session.set("TimeZone", "Asia/Tokyo")
            session.release(tag="city=tokyo")
            session.acquire(self.name(), tag="city=tokyo")
            self.assertEqual(session.query("SELECT 1").scalar(), 1)


class PoolTest(ServerTest):
    def test_threads(self) -> None:
        with rustydb.connect(URL, pool_size=4) as client:
            wrong: list[Any] = []

            def work(start: int) -> None:
                for n in range(start, start + 50):
                    got = client.query("SELECT $1::int4", [n]).scalar()
                    if got != n:
                        wrong.append((n, got))

            threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(12)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(wrong, [])
            self.assertLessEqual(client.pool_size, 4)

    def test_a_backend_that_dies(self) -> None:
        """Whatever connection of PostgreSQL's is killed, the client goes on."""
        with rustydb.connect(URL, pool_size=1) as client:
            for _ in range(3):
                with client.session() as session:
                    session.execute("BEGIN")
                    process = session.query("SELECT pg_backend_pid()").scalar()
                    self.client.query("SELECT pg_terminate_backend($1)", [process])
                    time.sleep(0.2)
                    with self.assertRaises(rustydb.Error):
                        session.query("SELECT 1")
                self.assertEqual(client.query("SELECT 1").scalar(), 1)


class CompressionTest(ServerTest):
    def check(self, url: str) -> None:
        large = "".join(chr(97 + n % 26) * 50 for n in range(4000))
        noise = bytes((n * 7919 + n // 256) % 256 for n in range(200_000))
        with rustydb.connect(url) as client:
            self.assertEqual(client.query("SELECT $1::text", [large]).scalar(), large)
            self.assertEqual(client.query("SELECT $1::bytea", [noise]).scalar(), noise)
            sql = "SELECT repeat('x', 100) FROM generate_series(1, 20000)"
            self.assertEqual(sum(len(row[0]) for row in client.stream(sql)), 2_000_000)
            name = self.name()
            client.execute(f"CREATE TABLE {name} (t text)")
            try:
                rows = (["y" * 200] for _ in range(5000))
                self.assertEqual(client.bulk_insert(name, ["t"], rows), 5000)
                self.assertEqual(client.query(f"SELECT sum(length(t)) FROM {name}").scalar(), 10**6)
            finally:
                client.execute(f"DROP TABLE {name}")

    def test_every_algorithm(self) -> None:
        for algorithm in ["none", "lz4", "zstd", "snappy"]:
            with self.subTest(algorithm):
                if algorithm != "none" and compression.cramjam is None:
                    self.skipTest("cramjam is not installed")
                with rustydb.connect(URL, compression=algorithm) as client:
                    with client.session() as session:
                        link: Any = session._core._link
                        chosen = link.protocol.server.compression.name.rstrip("_").lower()
                self.assertEqual(chosen, algorithm)
                self.check(with_options(URL, compression=algorithm))

    def test_checksums(self) -> None:
        for algorithm in ["none", "zstd"]:
            with self.subTest(algorithm):
                self.check(with_options(URL, compression=algorithm, checksum="true"))


@unittest.skipUnless(TLS_URL and TLS_CA, "RUSTYDB_TLS_URL and RUSTYDB_TLS_CA are not set")
class TlsTest(unittest.TestCase):
    def test_modes(self) -> None:
        for mode in ["prefer", "require", "verify-ca", "verify-full"]:
            with self.subTest(mode):
                with rustydb.connect(TLS_URL, tls=mode, tls_ca=TLS_CA) as client:
                    self.assertEqual(client.query("SELECT $1::int4", [1]).scalar(), 1)
                    with client.session() as session:
                        link: Any = session._core._link
                        self.assertTrue(link.transport.encrypted)

    @unittest.skipUnless(SELF_SIGNED_URL and SELF_SIGNED_CERT, "RUSTYDB_SELF_SIGNED_… are not set")
    def test_a_self_signed_certificate_is_its_own_authority(self) -> None:
        with self.assertRaises(rustydb.ConnectionFailed):
            rustydb.connect(SELF_SIGNED_URL, tls="verify-full")
        with rustydb.connect(
            SELF_SIGNED_URL, tls="verify-full", tls_ca=SELF_SIGNED_CERT
        ) as client:
            self.assertEqual(client.query("SELECT 1").scalar(), 1)

    def test_an_authority_that_is_not_trusted(self) -> None:
        with self.assertRaises(rustydb.ConnectionFailed):
            rustydb.connect(TLS_URL, tls="verify-full")

    def test_much_data(self) -> None:
        with rustydb.connect(TLS_URL, tls="require") as client:
            sql = "SELECT i, repeat('x', 100) FROM generate_series(1, 100000) i"
            self.assertEqual(sum(row[0] for row in client.stream(sql)), 100_000 * 100_001 // 2)
            text = "x" * 5_000_000
            self.assertEqual(client.query("SELECT $1::text", [text]).scalar(), text)
            token = rustydb.CancelToken()
            threading.Timer(0.3, token.cancel).start()
            with self.assertRaises(rustydb.QueryCanceled):
                client.query("SELECT pg_sleep(20)", cancel=token)


if __name__ == "__main__":
    unittest.main()
