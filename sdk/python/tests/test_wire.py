import socket
import threading
import time
import unittest

from palisade_plugin import PalisadeError
from palisade_plugin._json import FRAME_BYTES, Breach, frame, parse, to_json
from palisade_plugin._wire import QUEUE_BYTES, Lines, Wire


def nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


class Frames(unittest.TestCase):
    def test_lines_are_found_however_the_stream_is_cut(self):
        stream = b'{"a":1}\n\n\r\n{"b":2}\r\n' + b"x" * 100 + b"\n"
        for size in range(1, 30):
            lines, found = Lines(), []
            for at in range(0, len(stream), size):
                found += lines.feed(stream[at : at + size])
            self.assertEqual(found, [b'{"a":1}', b'{"b":2}\r', b"x" * 100], size)

    def test_a_line_that_is_too_long_is_a_breach_before_it_ends(self):
        lines = Lines()
        lines.feed(b"x" * FRAME_BYTES)
        with self.assertRaises(Breach):
            lines.feed(b"xx")

    def test_nesting_counts_levels_not_brackets(self):
        self.assertEqual(to_json([[]] * 100), "[" + ",".join(["[]"] * 100) + "]")
        to_json(nested(63))
        to_json("[" * 1000)
        for value in (nested(64), {"a": nested(63)}, nested(100000)):
            with self.assertRaises(PalisadeError) as caught:
                to_json(value)
            self.assertEqual(caught.exception.code, "PAL-PARAMS")

    def test_what_is_not_json_is_refused(self):
        ring = []
        ring.append(ring)
        for value in (float("nan"), float("inf"), {1, 2}, b"x", ring, {(1, 2): 3}):
            with self.assertRaises(PalisadeError) as caught:
                to_json(value)
            self.assertEqual(caught.exception.code, "PAL-PARAMS")
        with self.assertRaises(PalisadeError):
            frame(to_json("\ud83d"))

    def test_a_frame_has_a_bound(self):
        self.assertEqual(len(frame("x" * FRAME_BYTES)), FRAME_BYTES + 1)
        with self.assertRaises(PalisadeError) as caught:
            frame("ä" * (FRAME_BYTES // 2 + 1))
        self.assertEqual(caught.exception.code, "PAL-LIMIT")

    def test_a_number_that_python_refuses_leaves_the_id_readable(self):
        message, long_number = parse(b'{"id":7,"params":-' + b"9" * 20000 + b"}")
        self.assertEqual(message["id"], 7)
        # Versions before the bound on digits read it.
        self.assertTrue(long_number or message["params"] < 0)
        self.assertEqual(parse(b'{"id":9007199254740993}'), ({"id": 9007199254740993}, False))

    def test_what_is_no_message_is_a_breach(self):
        for line in (b"{", b"\xff", b"nonsense", b"[" * 100000):
            with self.assertRaises(Breach):
                parse(line)


class Sending(unittest.TestCase):
    def setUp(self):
        self.ours, theirs = socket.socketpair()
        self.wire = Wire(theirs)
        self.reader = threading.Thread(target=self.wire.read, args=(lambda line: None,))
        self.reader.start()

    def tearDown(self):
        self.wire.close()
        self.reader.join(10)
        self.wire.dispose()
        self.ours.close()

    def fill(self):
        block = frame("x" * (1 << 20))
        with self.assertRaises(PalisadeError) as caught:
            for _ in range(2 * QUEUE_BYTES // len(block) + 20):
                self.wire.send(block)
        return caught.exception

    def test_a_host_that_does_not_read_costs_requests_not_memory(self):
        self.assertEqual(self.fill().code, "PAL-LIMIT")
        self.wire.send(frame("urgent"), bounded=False)

    def test_a_waiting_sender_goes_on_when_the_host_reads(self):
        self.fill()
        done = threading.Event()

        def send():
            self.wire.send(frame("y" * (1 << 20)), wait=True)
            done.set()

        sender = threading.Thread(target=send)
        sender.start()
        self.assertFalse(done.wait(0.1), "there was room")
        received = bytearray()
        self.ours.settimeout(10)
        while b"y\n" not in received[-2:]:
            received += self.ours.recv(1 << 20)
        sender.join(10)
        self.assertTrue(done.is_set())
        self.assertEqual(received.count(b"x") % (1 << 20), 0, "a frame was torn")

    def test_closing_releases_a_waiting_sender(self):
        self.fill()
        errors = []

        def send():
            try:
                self.wire.send(frame("y" * (1 << 20)), wait=True)
            except PalisadeError as e:
                errors.append(e.code)

        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(0.05)
        self.wire.close()
        sender.join(10)
        self.assertEqual(errors, ["PAL-UNAVAILABLE"])


if __name__ == "__main__":
    unittest.main()
