"""Streams and loads against a scripted server: flat memory, credit, what goes wrong."""

import asyncio
import contextlib
import gc
import tracemalloc
import unittest
from typing import Any

import rustydb
from rustydb import ServerError, aio
from rustydb._wire import messages as m
from rustydb._wire.frames import Flag

from . import fake
from .fake import Connection, Server, serve_queries

MORE = int(Flag.MORE)


class StreamTest(unittest.TestCase):
    ROWS = 20_000

    def rows(self, connection: Connection) -> None:
        """Sends rows as fast as the windows allow, and never faster."""
        number, message = connection.request()
        assert isinstance(message, m.StreamOpen)
        credit = {0: 16 << 20, number: connection.hello.stream_window}
        self.most = 0
        sequence = 0
        credit[number] -= connection.send(number, m.StreamHeader(fake.answer().columns), MORE)
        while sequence < self.ROWS // 100:
            if credit[number] <= 0 or credit[0] <= 0:
                _, update = connection.request()
                if isinstance(update, m.Cancel):
                    connection.send(number, fake.error("57014"))
                    return serve_queries(connection)
                if isinstance(update, m.StreamCancel):
                    break
                assert isinstance(update, m.WindowUpdate)
                credit[update.stream] += update.credit
                continue
            rows = [[f"{sequence * 100 + n:0100}"] for n in range(100)]
            size = connection.send(number, m.StreamChunk(sequence, rows), MORE)
            credit[number] -= size
            credit[0] -= size
            sequence += 1
        rows_sent = sequence * 100
        connection.send(number, m.StreamEnd(rows_sent, f"SELECT {rows_sent}", m.TxStatus.Idle))
        return serve_queries(connection)

    def test_memory_stays_flat(self) -> None:
        with Server(self.rows) as server:
            with rustydb.connect(server.url, stream_window=65_536) as client:
                tracemalloc.start()
                with client.stream("SELECT") as stream:
                    self.assertEqual(stream.columns[0].name, "v")
                    for number, row in enumerate(stream):
                        self.assertEqual(int(row[0]), number)
                    self.assertEqual(stream.row_count, self.ROWS)
                    self.assertEqual(stream.command, f"SELECT {self.ROWS}")
                _, most = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                # All rows together have more than 2 MB; the client and the server run here.
                self.assertLess(most, 1_500_000)
                self.assertEqual(client.query("SELECT 1").scalar(), 1)
                self.assertEqual(server.connections, 1)

    def test_a_stream_can_end_early(self) -> None:
        with Server(self.rows) as server:
            with rustydb.connect(server.url, stream_window=65_536) as client:
                with client.stream("SELECT") as stream:
                    next(stream)
                self.assertEqual(list(stream), [])
                self.assertEqual(client.query("SELECT 1").scalar(), 1)
                self.assertEqual(server.connections, 1)

    def test_a_stream_that_was_forgotten(self) -> None:
        with Server(self.rows) as server:
            options: dict[str, Any] = {"stream_window": 65_536, "pool_size": 1}
            with rustydb.connect(server.url, **options) as client:
                next(client.stream("SELECT"))
                gc.collect()
                self.assertEqual(client.query("SELECT 1", timeout=3).scalar(), 1)
                self.assertEqual(server.connections, 1)

    def test_in_asyncio(self) -> None:
        async def check(url: str) -> None:
            async with aio.connect(url, stream_window=65_536) as client:
                count = 0
                async for row in client.stream("SELECT"):
                    self.assertEqual(int(row["v"]), count)
                    count += 1
                self.assertEqual(count, self.ROWS)
                self.assertEqual((await client.query("SELECT 1")).scalar(), 1)

        with Server(self.rows) as server:
            asyncio.run(check(server.url))

    def test_a_missing_chunk(self) -> None:
        def script(connection: Connection) -> None:
            number, _ = connection.request()
            connection.send(number, m.StreamHeader([]), MORE)
            connection.send(number, m.StreamChunk(1, [[1]]), MORE)
            connection.request()

        with Server(script) as server, rustydb.connect(server.url) as client:
            with self.assertRaises(rustydb.ProtocolError):
                list(client.stream("SELECT"))


class PinnedStreamTest(unittest.TestCase):
    """Streams on the connection of a transaction, which other statements want as well."""

    def script(self, connection: Connection) -> None:
        self.seen: list[type[m.Message]] = []
        columns = fake.answer().columns
        while True:
            number, message = connection.request(m.WindowUpdate)
            self.seen.append(type(message))
            if isinstance(message, m.Begin):
                connection.send(number, m.TransactionStarted(1))
            elif isinstance(message, m.StreamOpen):
                connection.send(number, m.StreamHeader(columns), MORE)
                connection.send(number, m.StreamChunk(0, [[1], [2]]), MORE)
            elif isinstance(message, m.StreamCancel):
                connection.send(number, m.StreamEnd(2, "SELECT 2", m.TxStatus.InTransaction))
            elif isinstance(message, m.BulkStart):
                pass
            elif isinstance(message, m.BulkAbort):
                connection.send(number, fake.error("57014"))
            elif isinstance(message, m.Commit):
                connection.send(number, fake.ok("COMMIT"))
            elif isinstance(message, m.Rollback):
                connection.send(number, fake.ok("ROLLBACK"))
            else:
                connection.send(number, fake.answer(status=m.TxStatus.InTransaction))

    def test_other_statements_do_not_wait_for_ever(self) -> None:
        with Server(self.script) as server, rustydb.connect(server.url) as client:
            with client.transaction() as txn:
                with txn.stream("SELECT") as stream:
                    next(stream)
                    with self.assertRaises(rustydb.UsageError):
                        txn.query("SELECT 1")
                self.assertEqual(txn.query("SELECT 1").scalar(), 1)

                def rows() -> Any:
                    yield [txn.query("SELECT 1").scalar()]

                with self.assertRaises(rustydb.UsageError):
                    txn.bulk_insert("t", ["a"], rows())
                txn.query("SELECT 1")
        self.assertIn(m.StreamCancel, self.seen)
        self.assertIn(m.BulkAbort, self.seen)

    def test_the_transaction_ends_first(self) -> None:
        with Server(self.script) as server, rustydb.connect(server.url) as client:
            with client.transaction() as txn:
                stream = txn.stream("SELECT")
                next(stream)
            next(stream)
            with self.assertRaises(rustydb.UsageError):
                next(stream)
        # It is ended so that the transaction can still be committed.
        self.assertEqual(self.seen, [m.Begin, m.StreamOpen, m.StreamCancel, m.Commit])

    def test_a_loop_that_is_left(self) -> None:
        with Server(self.script) as server, rustydb.connect(server.url) as client:
            with client.transaction() as txn:
                for _ in txn.stream("SELECT"):
                    break
                gc.collect()
                txn.query("SELECT 1")
        self.assertEqual(self.seen, [m.Begin, m.StreamOpen, m.StreamCancel, m.Query, m.Commit])


class BulkTest(unittest.TestCase):
    def load(self, connection: Connection) -> None:
        """Takes rows, grants credit late, and checks that none are sent without."""
        number, start = connection.request()
        assert isinstance(start, m.BulkStart)
        credit = 65_536
        rows, sequence = 0, 0
        while True:
            if credit <= 0:
                connection.sock.settimeout(0.02)
                with contextlib.suppress(TimeoutError):
                    self.assertEqual(connection.sock.recv(1, 2), b"", "sent without credit")
                connection.sock.settimeout(None)
                connection.send(0, m.WindowUpdate(number, 200_000), 0x30)
                credit += 200_000
            frame = connection.receive()
            message = m.decode(frame.body)
            credit -= frame.size
            if isinstance(message, m.BulkRows):
                assert message.sequence == sequence
                sequence += 1
                assert isinstance(message.rows, list)
                rows += len(message.rows)
                assert frame.id == number and frame.flags & MORE
            elif isinstance(message, m.BulkEnd):
                assert not frame.flags & MORE
                connection.send(number, fake.ok("COPY", rows))
                return serve_queries(connection)
            else:
                assert isinstance(message, m.BulkAbort), message
                connection.send(number, fake.error("57014"))
                return serve_queries(connection)

    def test_credit_is_obeyed(self) -> None:
        with Server(self.load, stream_window=65_536) as server:
            with rustydb.connect(server.url) as client:
                rows = ([n, "x" * 100] for n in range(10_000))
                self.assertEqual(client.bulk_insert("t", ["a", "b"], rows), 10_000)
                self.assertEqual(client.query("SELECT 1").scalar(), 1)

    def test_in_asyncio(self) -> None:
        async def check(url: str) -> None:
            async def rows() -> Any:
                for n in range(10_000):
                    yield n, "x" * 100

            async with aio.connect(url) as client:
                self.assertEqual(await client.bulk_insert("t", ["a", "b"], rows()), 10_000)

        with Server(self.load, stream_window=65_536) as server:
            asyncio.run(check(server.url))

    def test_rows_that_are_wrong(self) -> None:
        def failing() -> Any:
            yield 1, 2
            raise KeyError("mine")

        for rows, expected in [
            ([(1, 2), (1,)], ValueError),
            ([(1, object())], TypeError),
            (failing(), KeyError),
        ]:
            with self.subTest(expected), Server(self.load) as server:
                with rustydb.connect(server.url) as client:
                    with self.assertRaises(expected):
                        client.bulk_insert("t", ["a", "b"], rows)
                    self.assertEqual(client.query("SELECT 1").scalar(), 1)
                    self.assertEqual(server.connections, 1)

    def test_the_server_ends_it(self) -> None:
        def script(connection: Connection) -> None:
            number, _ = connection.request()
            connection.send(number, fake.error("42P01"))
            serve_queries_but_rows(connection)

        def serve_queries_but_rows(connection: Connection) -> None:
            while True:
                number, _message = connection.request(m.BulkRows, m.BulkEnd, m.WindowUpdate)
                connection.send(number, fake.answer())

        with Server(script, stream_window=65_536) as server:
            with rustydb.connect(server.url) as client:
                rows = ((n, "x" * 1000) for n in range(1_000_000))
                with self.assertRaises(ServerError):
                    client.bulk_insert("t", ["a", "b"], rows)
                self.assertLess(next(rows)[0], 10_000)
                self.assertEqual(client.query("SELECT 1").scalar(), 1)


if __name__ == "__main__":
    unittest.main()
