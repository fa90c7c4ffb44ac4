"""The state of a connection: flow control, heartbeats, cancellation, what a server may not do."""

import unittest
from typing import Any

from rustydb import ConnectionFailed, Error, ProtocolError
from rustydb._engine.login import Connector
from rustydb._wire import frames
from rustydb._wire import messages as m
from rustydb._wire.bincode import Violation
from rustydb._wire.flow import ReceiveWindow, UrgentLimit
from rustydb._wire.frames import Flag
from rustydb._wire.protocol import Protocol, Request, State
from rustydb._wire.url import parse

from . import fake

RESPONSE, MORE, URGENT = int(Flag.RESPONSE), int(Flag.MORE), int(Flag.URGENT)
CONTROL = int(Flag.URGENT | Flag.ONEWAY)


class Peer:
    """A protocol, and the server at its other end."""

    def __init__(self, url: str = "rustydb://u@h/d?compression=none", **changes: Any):
        self.now = 1000.0
        self.events: list[m.Message] = []
        config = parse(url)
        hello = Connector._hello(_Configured(config))  # type: ignore[arg-type]
        self.protocol = Protocol(hello, self.events.append, lambda: self.now)
        self._splitter = frames.Splitter()
        data = self.protocol.output()
        assert data.startswith(frames.PREFACE)
        self._splitter.feed(data[8:])
        assert isinstance(self.sent()[0][2], m.ClientHello)
        self.give(1, fake.hello(**changes))
        start = self.protocol.submit(
            m.AuthStart("u", "d", m.AuthMethod.Trust, "a", None, None, None, [])
        )
        self.give(start.id, m.AuthSuccess(1, "u", [], []))
        self.sent()

    def give(self, number: int, message: m.Message, flags: int = RESPONSE) -> int:
        body = m.encode(message)
        self.protocol.receive(frames.build(frames.Agreed(), flags, number, body))
        return len(body)

    def sent(self) -> list[tuple[int, int, Any]]:
        """Flags, id and message of what the client sends."""
        self._splitter.feed(self.protocol.output())
        return [(frame.flags, frame.id, m.decode(frame.body)) for frame in self._splitter.frames()]


class _Configured:
    def __init__(self, config: Any):
        self._config = config


def select(sql: str = "SELECT 1") -> m.Query:
    return m.Query(sql, [], [], None)


def chunk(sequence: int, size: int) -> m.StreamChunk:
    return m.StreamChunk(sequence, [["x" * size]])


class ProtocolTest(unittest.TestCase):
    def test_states(self) -> None:
        peer = Peer()
        self.assertEqual(peer.protocol.state, State.READY)
        peer.protocol.end_of_input()
        self.assertEqual(peer.protocol.state, State.CLOSED)
        with self.assertRaises(ConnectionFailed):
            peer.protocol.submit(select())

    def test_ids_ascend(self) -> None:
        peer = Peer()
        requests = [peer.protocol.submit(select()) for _ in range(3)]
        self.assertEqual([request.id for request in requests], [3, 4, 5])
        self.assertEqual([number for _, number, _ in peer.sent()], [3, 4, 5])
        self.assertTrue(all(request.sent for request in requests))
        # Replies find their requests in whatever order they come.
        for request in reversed(requests):
            peer.give(request.id, fake.answer(str(request.id)))
        for request in requests:
            self.assertTrue(request.done)
            reply: Any = request.replies[0].message
            self.assertEqual(reply.rows, [[str(request.id)]])

    def test_cancel(self) -> None:
        peer = Peer()
        request = peer.protocol.submit(select())
        peer.sent()
        peer.protocol.cancel(request)
        self.assertEqual(peer.sent(), [(CONTROL, 0, m.Cancel(request.id))])
        peer.give(request.id, fake.error("57014"))
        peer.protocol.cancel(request)
        self.assertEqual(peer.sent(), [])

    def test_abandoned_replies_are_dropped(self) -> None:
        peer = Peer()
        request = peer.protocol.submit(select())
        peer.give(request.id, fake.answer(), RESPONSE | MORE)
        peer.protocol.abandon(request)
        self.assertEqual(peer.protocol.unfinished(), [request])
        peer.give(request.id, fake.error("57014"))
        self.assertEqual(peer.protocol.unfinished(), [])
        self.assertFalse(request.replies)

    def test_heartbeats_are_answered(self) -> None:
        peer = Peer()
        number = (1 << 63) + 1
        peer.give(number, m.Heartbeat(5, 0), URGENT)
        self.assertEqual(peer.sent(), [(URGENT, number, m.Heartbeat(5, 0))])

    def test_silence_is_broken_by_heartbeats(self) -> None:
        peer = Peer()
        self.assertEqual(peer.protocol.next_timer(), peer.now + 30)
        peer.now += 29.9
        peer.protocol.tick()
        self.assertEqual(peer.sent(), [])
        peer.now += 0.1
        peer.protocol.tick()
        ((flags, number, beat),) = peer.sent()
        self.assertEqual((flags, beat.pending, number >> 63), (URGENT, 0, 0))
        # An answer starts the count again.
        peer.give(number, beat, URGENT | RESPONSE)
        for _ in range(2):
            peer.now += 30
            peer.protocol.tick()
            self.assertEqual(len(peer.sent()), 1)
        self.assertIsNone(peer.protocol.failure)
        peer.now += 30
        peer.protocol.tick()
        self.assertIsInstance(peer.protocol.failure, ConnectionFailed)

    def test_sending_stops_without_credit(self) -> None:
        peer = Peer(connection_window=65_536)
        large = "x" * 70_000
        first = peer.protocol.submit(select(large))
        second = peer.protocol.submit(select())
        self.assertEqual([number for _, number, _ in peer.sent()], [first.id])
        self.assertFalse(second.sent)
        # A control frame needs no credit.
        peer.protocol.cancel(first)
        self.assertEqual(len(peer.sent()), 1)
        peer.give(0, m.WindowUpdate(0, 65_536), CONTROL)
        self.assertEqual([number for _, number, _ in peer.sent()], [second.id])

    def test_a_load_has_a_window_of_its_own(self) -> None:
        peer = Peer(stream_window=65_536)
        protocol = peer.protocol
        start = m.BulkStart(None, "t", ["a"], m.OnConflict.Fail)
        request = protocol.submit(start, more=True)
        self.assertTrue(protocol.may_send(request))
        protocol.proceed(request, m.BulkRows(0, [["x" * 70_000]]), more=True)
        self.assertFalse(protocol.may_send(request))
        peer.give(0, m.WindowUpdate(request.id, 65_536), CONTROL)
        self.assertTrue(protocol.may_send(request))
        self.assertEqual([flags for flags, _, _ in peer.sent()], [MORE, MORE])
        # Credit for a request that has ended in the meantime is no violation.
        peer.give(request.id, fake.ok())
        peer.give(0, m.WindowUpdate(request.id, 65_536), CONTROL)
        self.assertIsNone(protocol.failure)

    def _stream(self, peer: Peer) -> Request:
        request = peer.protocol.submit(m.StreamOpen(select(), 0))
        peer.sent()
        peer.give(request.id, m.StreamHeader([]), RESPONSE | MORE)
        peer.protocol.consumed(request, request.replies.popleft())
        return request

    def test_a_stream_gets_credit_as_it_is_used(self) -> None:
        peer = Peer("rustydb://u@h/d?compression=none&stream_window=65536")
        request = self._stream(peer)
        sizes = [peer.give(request.id, chunk(n, 20_000), RESPONSE | MORE) for n in range(4)]
        self.assertEqual(peer.sent(), [])
        peer.protocol.consumed(request, request.replies.popleft())
        self.assertEqual(peer.sent(), [])
        peer.protocol.consumed(request, request.replies.popleft())
        ((flags, number, update),) = peer.sent()
        self.assertEqual((flags, number, update.stream), (CONTROL, 0, request.id))
        # Header, and two chunks.
        self.assertEqual(update.credit, sum(sizes[:2]) + 3)

    def test_the_connection_gets_credit_at_once(self) -> None:
        peer = Peer("rustydb://u@h/d?compression=none&connection_window=65536")
        request = peer.protocol.submit(select())
        peer.sent()
        size = peer.give(request.id, fake.answer("x" * 40_000))
        self.assertEqual(peer.sent(), [(CONTROL, 0, m.WindowUpdate(0, size))])

    def test_an_abandoned_stream_gives_the_connection_its_credit(self) -> None:
        peer = Peer("rustydb://u@h/d?compression=none&connection_window=131072")
        request = self._stream(peer)
        peer.give(request.id, chunk(0, 50_000), RESPONSE | MORE)
        peer.protocol.abandon(request)
        peer.give(request.id, chunk(1, 50_000), RESPONSE | MORE)
        messages = [message for _, _, message in peer.sent()]
        self.assertEqual(messages[0], m.Cancel(request.id))
        updates = [message for message in messages if isinstance(message, m.WindowUpdate)]
        self.assertEqual([update.stream for update in updates], [0])
        # And so does the stream, since its end may be behind more of it.
        for sequence in range(2, 14):
            peer.give(request.id, chunk(sequence, 50_000), RESPONSE | MORE)
        updates = [message for _, _, message in peer.sent()]
        self.assertIn(request.id, [update.stream for update in updates])
        self.assertIsNone(peer.protocol.failure)

    def test_frames_without_credit_are_refused(self) -> None:
        peer = Peer("rustydb://u@h/d?compression=none&stream_window=65536")
        request = self._stream(peer)
        for sequence in range(5):
            peer.give(request.id, chunk(sequence, 20_000), RESPONSE | MORE)
        failure = peer.protocol.failure
        self.assertIsInstance(failure, ProtocolError)
        assert failure is not None
        self.assertEqual((failure.sqlstate, failure.code), ("08P01", "FLOW_CONTROL_ERROR"))

    def test_too_much_credit_is_refused(self) -> None:
        peer = Peer()
        peer.give(0, m.WindowUpdate(0, 2**31 - 1), CONTROL)
        failure = peer.protocol.failure
        assert failure is not None
        self.assertEqual(failure.code, "FLOW_CONTROL_ERROR")

    def test_control_frames_are_not_too_many(self) -> None:
        peer = Peer("rustydb://u@h/d?compression=none&connection_window=65536")
        request = peer.protocol.submit(m.Subscribe("s", []))
        peer.sent()
        updates = 0
        for sequence in range(400):
            event = m.StreamEvent("s", sequence, 0, "x" * 40_000)
            if peer.protocol._inbound._granted <= 0:
                # The credit waits for its time, which the engine asks for.
                self.assertGreater(peer.protocol.next_timer(), peer.now)
                self.assertLessEqual(peer.protocol.next_timer(), peer.now + 1)
                break
            peer.give(request.id, event, RESPONSE | MORE)
            peer.protocol.consumed(request, request.replies.popleft())
            updates += sum(isinstance(message, m.WindowUpdate) for _, _, message in peer.sent())
            self.assertLessEqual(updates, 100)
        peer.now += 1
        peer.protocol.tick()
        granted = {message.stream: message.credit for _, _, message in peer.sent()}
        self.assertIn(0, granted)

    def test_what_a_server_may_not_do(self) -> None:
        unknown = frames.build(frames.Agreed(), RESPONSE, 3, b"\x63")
        compressed = frames.build(frames.Agreed(), RESPONSE | Flag.COMPRESSED, 3, b"\x00" * 9)
        answered = frames.build(frames.Agreed(), RESPONSE, 99, m.encode(fake.answer()))
        for data in [unknown, compressed, answered, b"\xff" * 14]:
            with self.subTest(data):
                peer = Peer()
                peer.protocol.submit(select())
                peer.protocol.receive(data)
                self.assertIsInstance(peer.protocol.failure, ProtocolError)

    def test_the_handshake_is_checked(self) -> None:
        wrong: list[dict[str, Any]] = [
            {"version": m.Version(2, 0)},
            {"version": m.Version(0, 9)},
            {"compression": m.CompressionType.Lz4},
            {"max_message_size": (16 << 20) + 1},
        ]
        for changes in wrong:
            with self.subTest(changes), self.assertRaises(Error):
                Peer(**changes)

    def test_checksums(self) -> None:
        peer = Peer("rustydb://u@h/d?compression=none&checksum=true")
        # The frames of `Peer` have none, so the first one after the handshake is refused.
        failure = peer.protocol.failure
        assert failure is not None
        self.assertEqual(failure.code, "CHECKSUM_MISMATCH")

    def test_events(self) -> None:
        peer = Peer()
        event = m.Event("c", "p", 1)
        peer.give(0, event)
        peer.give(0, m.Shutdown(1000, "bye"))
        self.assertEqual(peer.events[0], event)
        self.assertTrue(peer.protocol.draining)

    def test_a_fatal_error_closes(self) -> None:
        peer = Peer()
        first, second = peer.protocol.submit(select()), peer.protocol.submit(select())
        peer.give(first.id, fake.error("57P01", fatal=True))
        self.assertEqual(len(first.replies), 1)
        self.assertTrue(second.done)
        failure = peer.protocol.failure
        assert failure is not None
        self.assertEqual(failure.sqlstate, "57P01")

    def test_a_message_that_is_too_long(self) -> None:
        peer = Peer(max_message_size=65_536)
        with self.assertRaises(Error) as refused:
            peer.protocol.submit(select("x" * 65_536))
        self.assertEqual(refused.exception.sqlstate, "54000")
        self.assertIsNone(peer.protocol.failure)
        peer.protocol.submit(select("x"))

    def test_the_transaction_status(self) -> None:
        peer = Peer()
        status = m.TxStatus
        request = peer.protocol.submit(m.Begin(None, None, None))
        peer.give(request.id, m.TransactionStarted(5))
        self.assertEqual(peer.protocol.transaction_status, status.InTransaction)
        request = peer.protocol.submit(select())
        peer.give(request.id, fake.error())
        self.assertEqual(peer.protocol.transaction_status, status.Failed)
        request = peer.protocol.submit(m.Rollback(None, False))
        peer.give(request.id, fake.ok("ROLLBACK"))
        self.assertEqual(peer.protocol.transaction_status, status.Idle)


class FlowTest(unittest.TestCase):
    def test_half_a_window(self) -> None:
        window = ReceiveWindow(100)
        window.receive(60)
        self.assertEqual(window.consume(49), 0)
        self.assertEqual(window.consume(11), 60)
        window.receive(150)
        with self.assertRaises(Violation):
            window.receive(1)

    def test_urgent_frames_in_a_second(self) -> None:
        limit, now, sent = UrgentLimit(), 50.0, []
        for _ in range(1000):
            now += 0.003
            if limit.due() <= now:
                limit.count(now)
                sent.append(now)
        for start in sent:
            self.assertLessEqual(sum(start <= time < start + 1 for time in sent), 100)
        self.assertGreater(len(sent), 150)


if __name__ == "__main__":
    unittest.main()
