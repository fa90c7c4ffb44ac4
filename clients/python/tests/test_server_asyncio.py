"""The asyncio interface with a running server."""

import asyncio
import time
import unittest
from typing import Any

import rustydb
from rustydb import aio

from .server import PREFIX, TLS_CA, TLS_URL, URL


@unittest.skipUnless(URL, "RUSTYDB_URL is not set")
class AsyncioTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        # Its reports of slow steps depend on the machine.
        asyncio.get_running_loop().set_debug(False)
        self.client = await aio.connect(URL)
        self.addAsyncCleanup(self.client.close)
        self.name = f"{PREFIX}_aio_{self.id().rpartition('.')[2]}"[:63]

    async def table(self, columns: str) -> str:
        await self.client.execute(f"CREATE TABLE {self.name} ({columns})")
        self.addAsyncCleanup(self.client.execute, f"DROP TABLE {self.name}")
        return self.name

    async def test_queries(self) -> None:
        result = await self.client.query("SELECT $1::int4 AS n, $2::text AS t", [1, "é"])
        self.assertEqual(dict(result.one()), {"n": 1, "t": "é"})
        results = await self.client.query_all("SELECT 1; SELECT 2")
        self.assertEqual([each.scalar() for each in results], [1, 2])
        self.assertLess(await self.client.ping(), 5)
        with self.assertRaises(rustydb.ServerError) as caught:
            await self.client.query("SELECT 1 / 0")
        self.assertEqual(caught.exception.sqlstate, "22012")

    async def test_many_tasks(self) -> None:
        async def work(n: int) -> Any:
            return (await self.client.query("SELECT $1::int4", [n])).scalar()

        self.assertEqual(await asyncio.gather(*map(work, range(300))), list(range(300)))
        self.assertLessEqual(self.client.pool_size, 10)

    async def test_transactions(self) -> None:
        table = await self.table("id int4 PRIMARY KEY")
        async with self.client.transaction(isolation="serializable") as txn:
            await txn.execute(f"INSERT INTO {table} VALUES (1)")
            with self.assertRaises(rustydb.IntegrityError):
                async with txn.savepoint():
                    await txn.execute(f"INSERT INTO {table} VALUES (1)")
            await txn.execute(f"INSERT INTO {table} VALUES (2)")
        with self.assertRaises(KeyError):
            async with self.client.transaction() as txn:
                await txn.execute(f"INSERT INTO {table} VALUES (3)")
                raise KeyError
        rows = await self.client.query(f"SELECT id FROM {table} ORDER BY id")
        self.assertEqual([row[0] for row in rows], [1, 2])

    async def test_prepared(self) -> None:
        statement = await self.client.prepare("SELECT $1::int4 * 2")
        values = await asyncio.gather(*(statement.query([n]) for n in range(50)))
        self.assertEqual([each.scalar() for each in values], [2 * n for n in range(50)])
        statement.close()

    async def test_streams(self) -> None:
        count = 0
        async for row in self.client.stream("SELECT generate_series(1, $1::int4)", [100_000]):
            count += 1
            if row[0] != count:
                self.fail(f"{row} instead of {count}")
        self.assertEqual(count, 100_000)
        async with self.client.stream("SELECT generate_series(1, 10000000) AS n") as stream:
            self.assertEqual([column.name for column in stream.columns], ["n"])
            self.assertEqual((await stream.__anext__())["n"], 1)
        self.assertEqual((await self.client.query("SELECT 1")).scalar(), 1)
        data = b"large" * 50_000
        oid = (await self.client.query("SELECT lo_from_bytea(0, $1)", [data])).scalar()
        parts = [part async for part in self.client.stream_object(oid)]
        self.assertEqual(b"".join(parts), data)
        await self.client.query("SELECT lo_unlink($1)", [oid])

    async def test_bulk_insert(self) -> None:
        table = await self.table("id int4, name text")

        async def rows() -> Any:
            for n in range(50_000):
                yield n, f"name {n}"

        self.assertEqual(await self.client.bulk_insert(table, ["id", "name"], rows()), 50_000)
        self.assertEqual(await self.client.bulk_insert(table, ["id"], [[1], [2]]), 2)
        count = await self.client.query(f"SELECT count(*) FROM {table}")
        self.assertEqual(count.scalar(), 50_002)

    async def test_batch(self) -> None:
        results = await self.client.batch(["SELECT 1", ("SELECT $1::text", ["x"])])
        self.assertEqual([each.scalar() for each in results], [1, "x"])  # type: ignore[union-attr]

    async def test_canceled_tasks(self) -> None:
        start = time.monotonic()
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(self.client.query("SELECT pg_sleep(20)"), 0.3)
        with self.assertRaises(rustydb.RequestTimeout):
            await self.client.query("SELECT pg_sleep(20)", timeout=0.3)
        self.assertEqual((await self.client.query("SELECT 1")).scalar(), 1)
        self.assertLess(time.monotonic() - start, 5)
        self.assertLessEqual(self.client.pool_size, 2)
        async with self.client.transaction() as txn:
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(txn.query("SELECT pg_sleep(20)"), 0.3)
            await txn.rollback()

    async def test_notifications(self) -> None:
        async with self.client.listen(self.name) as listener:

            async def notify() -> None:
                for n in range(20):
                    await self.client.query("SELECT pg_notify($1, $2)", [self.name, str(n)])

            task = asyncio.create_task(notify())
            payloads = []
            async for notification in listener:
                payloads.append(notification.payload)
                if len(payloads) == 20:
                    break
            await task
            self.assertEqual(payloads, [str(n) for n in range(20)])
            self.assertIsNone(await listener.get(timeout=0.1))

    async def test_sessions(self) -> None:
        async with self.client.session() as session:
            await session.set("TimeZone", "Asia/Tokyo")
            self.assertEqual(await session.show("TimeZone"), "Asia/Tokyo")
            async with session.transaction() as txn:
                await txn.query("SELECT 1")

    async def test_notices(self) -> None:
        notices: list[rustydb.Notice] = []
        async with aio.connect(URL, on_notice=notices.append) as client:
            await client.query("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
            await client.ping()
        self.assertIn("hello", [notice.message for notice in notices])


@unittest.skipUnless(TLS_URL and TLS_CA, "RUSTYDB_TLS_URL and RUSTYDB_TLS_CA are not set")
class TlsTest(unittest.IsolatedAsyncioTestCase):
    async def test_verified(self) -> None:
        asyncio.get_running_loop().set_debug(False)
        async with aio.connect(TLS_URL, tls="verify-full", tls_ca=TLS_CA) as client:
            self.assertEqual((await client.query("SELECT $1::int4", [1])).scalar(), 1)
            rows = client.stream("SELECT generate_series(1, 100000)")
            self.assertEqual(sum([row[0] async for row in rows]), 100_000 * 100_001 // 2)
        with self.assertRaises(rustydb.ConnectionFailed):
            await aio.connect(TLS_URL, tls="verify-full")


if __name__ == "__main__":
    unittest.main()
