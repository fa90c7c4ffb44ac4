"""The library's own logic against a scripted server: pool, retries, time-outs, cancellation."""

import asyncio
import gc
import threading
import time
import unittest
import unittest.mock
from typing import Any

import rustydb
from rustydb import (
    CancelToken,
    ConnectionFailed,
    Error,
    QueryCanceled,
    RequestTimeout,
    ServerError,
    UsageError,
    aio,
)
from rustydb._wire import messages as m
from rustydb._wire.frames import Flag

from . import fake
from .fake import Connection, Hangup, Server, serve_queries

MORE = int(Flag.MORE)
Failed, InTransaction = m.TxStatus.Failed, m.TxStatus.InTransaction


class RetryTest(unittest.TestCase):
    def test_a_connection_that_was_lost_while_idle_is_replaced(self) -> None:
        def script(connection: Connection) -> None:
            number, _ = connection.request()
            connection.send(number, fake.answer(connection.number))

        with Server(script) as server, rustydb.connect(server.url) as client:
            for number in range(3):
                self.assertEqual(client.query("SELECT 1").scalar(), number)
                time.sleep(0.05)

    def test_what_was_sent_is_not_sent_again(self) -> None:
        def script(connection: Connection) -> None:
            connection.request()

        with Server(script) as server, rustydb.connect(server.url) as client:
            with self.assertRaises(ConnectionFailed) as lost:
                client.execute("INSERT")
            self.assertTrue(lost.exception.request_sent)
            self.assertEqual(server.connections, 1)

    def test_unless_that_is_harmless(self) -> None:
        def script(connection: Connection) -> None:
            number, query = connection.request()
            if connection.number < 2:
                raise Hangup
            connection.send(number, fake.answer(query.options is not None))

        with Server(script) as server, rustydb.connect(server.url) as client:
            self.assertIs(client.query("SELECT 1", read_only=True).scalar(), True)
            self.assertEqual(server.connections, 3)

    def test_retryable_errors(self) -> None:
        def script(connection: Connection) -> None:
            for attempt in range(10):
                number, _ = connection.request()
                if attempt < 2:
                    retry = fake.error("40001", retryable=True, retry_after_ms=30)
                    connection.send(number, retry)
                else:
                    connection.send(number, fake.answer(attempt))

        with Server(script) as server, rustydb.connect(server.url) as client:
            start = time.monotonic()
            self.assertEqual(client.query("UPDATE").scalar(), 2)
            self.assertGreaterEqual(time.monotonic() - start, 0.06)

    def test_attempts_have_an_end(self) -> None:
        tries = []

        def script(connection: Connection) -> None:
            while True:
                number, _ = connection.request()
                tries.append(number)
                connection.send(number, fake.error("40P01", retryable=True, retry_after_ms=1))

        with Server(script) as server, rustydb.connect(server.url) as client:
            with self.assertRaises(rustydb.TransactionConflict):
                client.query("UPDATE")
            self.assertEqual(len(tries), 4)

    def test_not_inside_a_transaction(self) -> None:
        def script(connection: Connection) -> None:
            number, _begin = connection.request()
            connection.send(number, m.TransactionStarted(5))
            number, _ = connection.request()
            connection.send(number, fake.error("40001", retryable=True))
            number, rollback = connection.request()
            assert isinstance(rollback, m.Rollback)
            connection.send(number, fake.ok("ROLLBACK"))
            serve_queries(connection)

        with Server(script) as server, rustydb.connect(server.url) as client:
            with self.assertRaises(rustydb.TransactionConflict), client.transaction() as txn:
                self.assertEqual(txn.id, 5)
                txn.query("UPDATE")
            self.assertEqual(client.query("SELECT 1").scalar(), 1)

    def test_no_server(self) -> None:
        with Server(serve_queries) as server:
            url = server.url
        with self.assertRaises(ConnectionFailed) as refused:
            rustydb.connect(url)
        self.assertEqual(refused.exception.sqlstate, "08001")

    def test_the_next_host(self) -> None:
        with Server(serve_queries) as gone:
            host = gone.url.split("@")[1].split("/")[0]
        with Server(serve_queries) as server:
            url = server.url.replace("u@", f"u@{host},")
            with rustydb.connect(url) as client:
                self.assertEqual(client.query("SELECT 1").scalar(), 1)

    def test_the_log_in_is_refused(self) -> None:
        with Server(serve_queries, auth_methods=[m.AuthMethod.Token]) as server:
            with self.assertRaises(rustydb.AuthenticationError) as refused:
                rustydb.connect(server.url)
            self.assertIn("Token", str(refused.exception))


class LoginTest(unittest.TestCase):
    """A server that asks for more than nothing."""

    def check(self, methods: list[m.AuthMethod], steps: list[Any], **options: Any) -> None:
        """Plays the steps after Start: what the client must send, and what is answered."""

        def login(connection: Connection) -> None:
            number, start = connection.request()
            assert isinstance(start, m.AuthStart)
            for index, (expected, reply) in enumerate(steps):
                if expected is not None:
                    got, message = connection.request()
                    assert got == number, "all frames of a log-in have one id"
                    assert message == expected, message
                more = 0 if index == len(steps) - 1 else MORE
                connection.send(number, reply, more)

        with Server(serve_queries, login=login, auth_methods=methods) as server:
            with rustydb.connect(server.url, **options) as client:
                self.assertEqual(client.query("SELECT 1").scalar(), 1)

    success = m.AuthSuccess(1, "u", [], [])

    def test_methods(self) -> None:
        method = m.AuthMethod
        success = self.success
        for offered, expected, options in [
            ([method.Token], m.AuthToken("t"), {"token": "t"}),
            ([method.Trust, method.ApiKey], m.AuthApiKey("k"), {"api_key": "k"}),
            ([method.Password], m.AuthPassword("p"), {"password": "p", "auth": "password"}),
            ([method.Ldap], m.AuthPassword("p"), {"password": "p", "auth": "ldap"}),
            ([method.Saml], m.AuthSaml("a"), {"token": "a", "auth": "saml"}),
            ([method.Certificate], m.AuthCertificate(), {"auth": "certificate", "tls_cert": "c"}),
            ([method.ScramSha256, method.Trust], None, {}),
            ([method.ApiKey, method.Token], m.AuthToken("t"), {"token": "t", "api_key": "k"}),
            ([method.Password, method.Trust], None, {"password": "p"}),
        ]:
            with self.subTest(options):
                self.check(offered, [(expected, success)], **options)

    def test_a_second_factor(self) -> None:
        question = m.MfaRequired("c1", ["totp"], 120)
        steps = [(m.AuthToken("t"), question), (m.AuthMfaCode("c1", "123456"), self.success)]
        asked: list[list[str]] = []

        def ask(methods: list[str]) -> str:
            asked.append(methods)
            return "123456"

        self.check([m.AuthMethod.Token], steps, token="t", ask_code=ask)
        self.assertEqual(asked, [["totp"]])
        with self.assertRaises(rustydb.AuthenticationError):
            self.check([m.AuthMethod.Token], steps[:1], token="t")

    def test_a_password_is_not_sent_in_the_clear(self) -> None:
        with Server(serve_queries, auth_methods=[m.AuthMethod.Password]) as server:
            with self.assertRaises(rustydb.AuthenticationError):
                rustydb.connect(server.url, password="p")

    def test_secrets_stay_here_without_tls(self) -> None:
        options = [{"token": "t"}, {"api_key": "k"}, {"password": "p", "auth": "password"}]
        methods = [m.AuthMethod.Token, m.AuthMethod.ApiKey, m.AuthMethod.Password]
        elsewhere = unittest.mock.patch("rustydb._blocking.is_local", lambda peer: False)
        with elsewhere, Server(serve_queries, auth_methods=methods) as server:
            for given in options:
                with self.subTest(given), self.assertRaises(rustydb.AuthenticationError) as refused:
                    rustydb.connect(server.url, **given)  # type: ignore[arg-type]
                self.assertEqual(refused.exception.code, "TLS_REQUIRED")

    def test_a_server_that_asks_for_no_proof(self) -> None:
        def login(connection: Connection) -> None:
            number, _ = connection.request()
            connection.request()
            connection.send(number, self.success)

        methods = [m.AuthMethod.ScramSha256]
        with Server(serve_queries, login=login, auth_methods=methods) as server:
            with rustydb.connect(server.url, password="p") as client:
                self.assertEqual(client.query("SELECT 1").scalar(), 1)
            with self.assertRaises(rustydb.Error):
                rustydb.connect(server.url, password="p", auth="scram-sha-256")

    def test_settings_of_the_session(self) -> None:
        settings = []

        def login(connection: Connection) -> None:
            number, start = connection.request()
            settings.append(start.parameters)
            connection.send(number, self.success)

        with Server(serve_queries, login=login) as server:
            rustydb.connect(server.url, parameters={"TimeZone": "UTC"}).close()
        self.assertEqual(settings, [[("TimeZone", "UTC")]])

    def test_a_server_that_does_not_know_the_password(self) -> None:
        def login(connection: Connection) -> None:
            number, _ = connection.request()
            _, first = connection.request()
            nonce = first.data.decode().rpartition("r=")[2]
            challenge = f"r={nonce}x,s=c2FsdA==,i=4096".encode()
            connection.send(number, m.SaslContinue(challenge), MORE)
            connection.request()
            connection.send(number, m.SaslFinal(b"v=bm90aGluZw=="), MORE)
            connection.send(number, self.success)

        methods = [m.AuthMethod.ScramSha256]
        with Server(serve_queries, login=login, auth_methods=methods) as server:
            with self.assertRaises(rustydb.AuthenticationError):
                rustydb.connect(server.url, password="p")


class TimeoutTest(unittest.TestCase):
    def test_the_server_is_told(self) -> None:
        canceled = threading.Event()

        def script(connection: Connection) -> None:
            number, _ = connection.request()
            _, cancel = connection.request()
            assert cancel == m.Cancel(number)
            canceled.set()
            time.sleep(0.05)
            connection.send(number, fake.error("57014"))
            serve_queries(connection)

        with Server(script) as server, rustydb.connect(server.url) as client:
            with self.assertRaises(RequestTimeout) as late:
                client.query("SELECT pg_sleep(9)", timeout=0.5)
            self.assertIsInstance(late.exception, TimeoutError)
            self.assertEqual(late.exception.sqlstate, "57014")
            self.assertTrue(canceled.wait(2))
            # The same connection is used again, behind the end of the canceled request.
            self.assertEqual(client.query("SELECT 1").scalar(), 1)
            self.assertEqual(server.connections, 1)

    def test_a_connection_that_stays_silent_is_given_up(self) -> None:
        def script(connection: Connection) -> None:
            if connection.number:
                serve_queries(connection)
            while True:
                connection.request()

        with Server(script) as server, rustydb.connect(server.url) as client:
            with self.assertRaises(RequestTimeout):
                client.query("SELECT 1", timeout=0.5)
            # 5 s for the canceled request to end, then another connection.
            self.assertEqual(client.query("SELECT 1", timeout=20).scalar(), 1)
            self.assertEqual(server.connections, 2)

    def test_the_pool_is_exhausted(self) -> None:
        with Server(serve_queries) as server:
            with rustydb.connect(server.url, pool_size=1) as client, client.session():
                with self.assertRaises(Error) as full:
                    client.query("SELECT 1", timeout=0.05)
                self.assertEqual(full.exception.code, "POOL_EXHAUSTED")

    def test_a_server_that_does_not_answer_the_handshake(self) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"rustydb://u@127.0.0.1:{silent.getsockname()[1]}/d"
            for tls in ["disable", "prefer"]:
                with self.subTest(tls), self.assertRaises(ConnectionFailed):
                    rustydb.connect(url, tls=tls, timeout=0.2)


class CancelTest(unittest.TestCase):
    @staticmethod
    def script(connection: Connection) -> None:
        while True:
            number, message = connection.request(m.Cancel)
            if "sleep" not in message.sql:
                connection.send(number, fake.answer())
                continue
            _, cancel = connection.request()
            assert cancel == m.Cancel(number)
            connection.send(number, fake.error("57014"))

    def test_from_another_thread(self) -> None:
        with Server(self.script) as server, rustydb.connect(server.url) as client:
            token = CancelToken()
            threading.Timer(0.05, token.cancel).start()
            with self.assertRaises(QueryCanceled):
                client.query("SELECT pg_sleep(9)", cancel=token, timeout=5)
            self.assertEqual(client.query("SELECT 1").scalar(), 1)
            # Once canceled, always canceled.
            with self.assertRaises(QueryCanceled):
                client.query("SELECT pg_sleep(9)", cancel=token, timeout=5)

    def test_a_task(self) -> None:
        async def check(url: str) -> None:
            async with aio.connect(url) as client:
                with self.assertRaises(asyncio.TimeoutError):
                    await asyncio.wait_for(client.query("SELECT pg_sleep(9)"), 0.05)
                self.assertEqual((await client.query("SELECT 1")).scalar(), 1)
                self.assertEqual(client.pool_size, 1)

        with Server(self.script) as server:
            asyncio.run(check(server.url))
            self.assertEqual(server.connections, 1)


class PoolTest(unittest.TestCase):
    def test_threads_share_the_connections(self) -> None:
        with Server(serve_queries) as server:
            with rustydb.connect(server.url, pool_size=3) as client:

                def work() -> None:
                    for _ in range(50):
                        self.assertEqual(client.query("SELECT 1").scalar(), 1)

                threads = [threading.Thread(target=work) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                self.assertLessEqual(client.pool_size, 3)
                self.assertEqual(client.pool_idle, client.pool_size)
            self.assertLessEqual(server.connections, 3)

    def test_tasks_share_the_connections(self) -> None:
        async def check(url: str) -> None:
            async with aio.connect(url, pool_size=3) as client:

                async def work() -> None:
                    for _ in range(50):
                        self.assertEqual((await client.query("SELECT 1")).scalar(), 1)

                await asyncio.gather(*(work() for _ in range(8)))
                self.assertLessEqual(client.pool_size, 3)
                self.assertEqual(client.pool_idle, client.pool_size)

        with Server(serve_queries) as server:
            asyncio.run(check(server.url))

    def test_smallest_size_and_idle_connections(self) -> None:
        with Server(serve_queries) as server:
            options: dict[str, Any] = {"min_pool_size": 2, "idle_timeout": 0.1}
            with rustydb.connect(server.url, **options) as client:
                self.assertEqual(client.pool_size, 2)
                with client.session(), client.session(), client.session():
                    self.assertEqual(client.pool_size, 3)
                deadline = time.monotonic() + 5
                while client.pool_size > 2 and time.monotonic() < deadline:
                    time.sleep(0.02)
                self.assertEqual(client.pool_size, 2)

    def test_idle_connections_may_stay_for_ever(self) -> None:
        with Server(serve_queries) as server, rustydb.connect(server.url, idle_timeout=0) as client:
            with client.session(), client.session():
                self.assertEqual(client.pool_size, 2)
            time.sleep(0.2)
            self.assertEqual(client.pool_size, 2)

    def test_a_closed_client(self) -> None:
        with Server(serve_queries) as server:
            client = rustydb.connect(server.url)
            client.close()
            client.close()
            with self.assertRaises(UsageError):
                client.query("SELECT 1")

    def test_closing_ends_requests_in_other_threads(self) -> None:
        def script(connection: Connection) -> None:
            while True:
                connection.request()

        with Server(script) as server:
            client = rustydb.connect(server.url)
            threading.Timer(0.1, client.close).start()
            start = time.monotonic()
            with self.assertRaises(Error):
                client.query("SELECT 1")
            self.assertLess(time.monotonic() - start, 3)

    def test_a_client_that_was_forgotten(self) -> None:
        with Server(serve_queries) as server:
            client = rustydb.connect(server.url)
            client.query("SELECT 1")
            with self.assertWarns(ResourceWarning):
                del client
                gc.collect()

    def test_heartbeats_while_idle(self) -> None:
        echoes = []
        enough = threading.Event()

        def script(connection: Connection) -> None:
            beat = (1 << 63) + 1
            connection.send(beat, m.Heartbeat(7, 0), int(Flag.URGENT))
            while True:
                frame = connection.receive()
                message = m.decode(frame.body)
                if isinstance(message, m.Heartbeat):
                    echoes.append(frame.id)
                    if frame.id < beat:
                        flags = int(Flag.URGENT)
                        connection.send(frame.id, message, flags)
                    if len(echoes) > 3:
                        enough.set()

        with Server(script, heartbeat_interval_ms=100) as server:
            with rustydb.connect(server.url) as client:
                self.assertTrue(enough.wait(3))
                self.assertEqual(client.pool_size, 1)
        self.assertIn((1 << 63) + 1, echoes)
        self.assertGreater(len([number for number in echoes if number < 1 << 63]), 1)

    def test_a_server_that_is_gone_without_a_word(self) -> None:
        def script(connection: Connection) -> None:
            while True:
                connection.request()

        with Server(script, heartbeat_interval_ms=50) as server:
            with rustydb.connect(server.url) as client:
                with self.assertRaises(ConnectionFailed) as lost:
                    client.query("SELECT 1")
                self.assertIn("heartbeats", str(lost.exception))

    def test_a_server_that_shuts_down_gets_no_new_requests(self) -> None:
        def script(connection: Connection) -> None:
            if connection.number == 0:
                connection.send(0, m.Shutdown(1000, "bye"))
            serve_queries(connection)

        with Server(script) as server, rustydb.connect(server.url) as client:
            time.sleep(0.1)
            self.assertEqual(client.query("SELECT 1").scalar(), 1)
            self.assertEqual(server.connections, 2)

    def test_a_transaction_that_sql_left_open_is_rolled_back(self) -> None:
        seen: list[m.Message] = []

        def script(connection: Connection) -> None:
            while True:
                number, message = connection.request()
                seen.append(message)
                if isinstance(message, m.Rollback):
                    connection.send(number, fake.ok("ROLLBACK"))
                elif message.sql == "BEGIN":
                    connection.send(number, fake.answer(status=InTransaction))
                elif message.sql == "BEGIN; x":
                    connection.send(number, fake.error())
                else:
                    connection.send(number, fake.answer())

        with Server(script) as server, rustydb.connect(server.url) as client:
            client.query("BEGIN")
            with self.assertRaises(ServerError):
                client.query("BEGIN; x")
            client.query("SELECT 1")
            time.sleep(0.02)
        kinds = [type(message) for message in seen]
        self.assertEqual(kinds[:5], [m.Query, m.Rollback, m.Query, m.Rollback, m.Query])


class BatchTest(unittest.TestCase):
    def test_an_error_ends_it_only_on_request(self) -> None:
        stops = []

        def script(connection: Connection) -> None:
            while True:
                number, batch = connection.request()
                stops.append((batch.atomic, batch.stop_on_error))
                connection.send(number, fake.answer())

        with Server(script) as server, rustydb.connect(server.url) as client:
            client.batch(["SELECT 1"])
            client.batch(["SELECT 1"], atomic=False)
            client.batch(["SELECT 1"], atomic=False, stop_on_error=True)
        self.assertEqual(stops, [(True, False), (False, False), (False, True)])


class PreparedTest(unittest.TestCase):
    @staticmethod
    def script(connection: Connection) -> None:
        known: set[str] = set()
        while True:
            number, message = connection.request(m.WindowUpdate)
            if isinstance(message, m.Prepare):
                assert message.name not in known
                known.add(message.name)
                connection.send(number, m.StatementInfo(message.name, [23], []))
            elif isinstance(message, m.Deallocate):
                known.remove(message.name)
                connection.send(number, fake.ok("DEALLOCATE"))
            elif isinstance(message, m.SessionDiscardAll):
                known.clear()
                connection.send(number, fake.ok("DISCARD ALL"))
            elif isinstance(message, m.Query) and message.sql == "drop":
                known.clear()
                connection.send(number, fake.answer())
            elif isinstance(message, m.Execute) and message.name not in known:
                connection.send(number, fake.error("26000"))
            else:
                connection.send(number, fake.answer(len(known)))

    def test_on_every_connection(self) -> None:
        with Server(self.script) as server, rustydb.connect(server.url) as client:
            statement = client.prepare("SELECT $1")
            self.assertEqual(statement.param_types, [23])
            self.assertEqual(statement.query([1]).scalar(), 1)
            with client.session():
                self.assertEqual(statement.query([1]).scalar(), 1)
            # What the server has forgotten is prepared again.
            client.query("drop")
            self.assertEqual(statement.query([1]).scalar(), 1)
            statement.close()
            self.assertEqual(client.query("count").scalar(), 0)
            with self.assertRaises(UsageError):
                statement.query([1])

    def test_not_too_many(self) -> None:
        with Server(self.script) as server, rustydb.connect(server.url) as client:
            statements = [client.prepare("SELECT $1") for _ in range(300)]
            self.assertEqual(client.query("count").scalar(), 256)
            # The first was pushed out, and comes back.
            statements[0].query([1])
            self.assertEqual(client.query("count").scalar(), 256)


class ListenerTest(unittest.TestCase):
    @staticmethod
    def script(connection: Connection) -> None:
        while True:
            number, message = connection.request(m.WindowUpdate)
            connection.send(number, fake.ok("LISTEN"))
            if isinstance(message, m.Listen):
                connection.send(0, m.Event(message.channel, str(connection.number), 7))
                if connection.number < 2:
                    time.sleep(0.05)
                    raise Hangup

    def test_a_lost_connection_is_replaced(self) -> None:
        with Server(self.script) as server, rustydb.connect(server.url) as client:
            with client.listen("c") as listener:
                payloads = [next(listener).payload for _ in range(3)]
                self.assertEqual(payloads, ["0", "1", "2"])
                self.assertEqual(listener.reconnects, 2)
                self.assertIsNone(listener.get(timeout=0))
                self.assertIsNone(listener.get(timeout=0.02))

    def test_a_server_that_comes_back(self) -> None:
        with Server(self.script) as server, rustydb.connect(server.url) as client:
            with client.listen("c") as listener:
                next(listener)
                server.refuse(True)
                threading.Timer(1.2, server.refuse, [False]).start()
                # It fails more often than a request is tried.
                self.assertIsNotNone(listener.get(timeout=5))
                self.assertEqual(listener.reconnects, 1)
                self.assertGreater(server.refused, 4)

    def test_closing_wakes_who_waits(self) -> None:
        with Server(self.script) as server, rustydb.connect(server.url) as client:
            listener = client.listen("c")
            for _ in range(3):
                next(listener)
            threading.Timer(0.05, listener.close).start()
            start = time.monotonic()
            self.assertEqual(list(listener), [])
            self.assertLess(time.monotonic() - start, 3)

    def test_in_asyncio(self) -> None:
        async def check(url: str) -> None:
            async with aio.connect(url) as client, client.listen("c") as listener:
                payloads = []
                async for notification in listener:
                    payloads.append(notification.payload)
                    if len(payloads) == 3:
                        break
                self.assertEqual(payloads, ["0", "1", "2"])
                self.assertIsNone(await listener.get(timeout=0.02))

        with Server(self.script) as server:
            asyncio.run(check(server.url))


class SubscriptionTest(unittest.TestCase):
    @staticmethod
    def script(connection: Connection) -> None:
        number, message = connection.request()
        assert message == m.Subscribe("s", [("table", "t")])
        connection.send(number, fake.ok(), MORE)
        for sequence in range(3):
            connection.send(number, m.StreamEvent("s", sequence, 5, f"[{sequence}]"), MORE)
        ending, message = connection.request(m.WindowUpdate)
        assert message == m.Unsubscribe(number)
        connection.send(ending, fake.ok())
        serve_queries(connection)

    def test_events(self) -> None:
        with Server(self.script) as server, rustydb.connect(server.url) as client:
            with client.subscribe("s", {"table": "t"}) as events:
                self.assertEqual([next(events).data for _ in range(3)], [[0], [1], [2]])
                self.assertIsNone(events.get(timeout=0))
                self.assertIsNone(events.get(timeout=0.02))
            self.assertEqual(client.query("SELECT 1").scalar(), 1)
            self.assertEqual(server.connections, 1)

    def test_in_asyncio(self) -> None:
        async def check(url: str) -> None:
            async with aio.connect(url) as client:
                async with client.subscribe("s", {"table": "t"}) as events:
                    self.assertEqual((await events.__anext__()).data, [0])
                self.assertEqual((await client.query("SELECT 1")).scalar(), 1)

        with Server(self.script) as server:
            asyncio.run(check(server.url))


class ResultTest(unittest.TestCase):
    def test_parts_of_large_results_and_of_batches(self) -> None:
        columns = fake.answer().columns

        def part(index: int, rows: int, tag: str, head: bool) -> m.QueryResponse:
            return m.QueryResponse(
                index, columns if head else [], [["x"]] * rows, rows, tag, 1, m.TxStatus.Idle
            )

        def script(connection: Connection) -> None:
            number, _ = connection.request()
            for message, more in [
                (part(0, 2, "", True), MORE),
                (part(0, 2, "", False), MORE),
                (part(0, 1, "SELECT 5", False), MORE),
                (part(1, 0, "INSERT 0 7", False), MORE),
                (part(2, 0, "SELECT 0", True), 0),
            ]:
                connection.send(number, message, more)
            number, _ = connection.request()
            connection.send(number, part(0, 1, "SELECT 1", True), MORE)
            connection.send(number, fake.error(), MORE)
            connection.send(number, part(2, 0, "INSERT 0 1", False))

        with Server(script) as server, rustydb.connect(server.url) as client:
            results = client.query_all("several")
            self.assertEqual([len(result) for result in results], [5, 0, 0])
            tags = [result.command for result in results]
            self.assertEqual(tags, ["SELECT 5", "INSERT 0 7", "SELECT 0"])
            first, second, third = client.batch(["a", "b", ("c", [1])], atomic=False)
            assert isinstance(first, rustydb.Result) and isinstance(third, rustydb.Result)
            self.assertEqual((len(first), third.command), (1, "INSERT 0 1"))
            self.assertIsInstance(second, ServerError)

    def test_rows(self) -> None:
        row = rustydb.Row([1, "a", None], {"id": 0, "name": 1, "x": 2})
        self.assertEqual((row[0], row["name"], row[-1], row[:2]), (1, "a", None, [1, "a"]))
        self.assertEqual(dict(row), {"id": 1, "name": "a", "x": None})
        number, name, _ = row
        self.assertEqual((number, name, len(row)), (1, "a", 3))
        self.assertEqual(row, (1, "a", None))
        self.assertEqual(repr(row), "Row(id=1, name='a', x=None)")
        self.assertEqual(row.get("y", 5), 5)
        with self.assertRaises(KeyError):
            row["y"]
        with self.assertRaises(IndexError):
            row[3]


if __name__ == "__main__":
    unittest.main()
