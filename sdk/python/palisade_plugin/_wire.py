"""The socket: lines in, lines out.

One thread reads; any thread sends. Reading never waits for writing, so the plugin hears the host
also while the host does not read. This module knows frames, not what they mean.
"""

import os
import select
import socket
import threading
from collections import deque
from typing import Callable, Deque, List

from ._errors import PalisadeError
from ._json import FRAME_BYTES, Breach, closed

QUEUE_BYTES = 8 << 20  # what may wait for the host to read
SEND_SECONDS = 30.0  # how long a thread waits for room there
READ_BYTES = 1 << 16


class Lines:
    """Cuts a stream into lines, at most FRAME_BYTES each. Copies each byte once or twice."""

    def __init__(self) -> None:
        self._parts: List[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> List[bytes]:
        """The lines that end in ``data``."""
        lines = data.split(b"\n")
        self._parts.append(lines[0])
        self._size += len(lines[0])
        if self._size > FRAME_BYTES + 1:  # room for a \r
            raise Breach(f"a message is longer than {FRAME_BYTES} bytes")
        if len(lines) == 1:
            return []
        lines[0] = b"".join(self._parts)
        rest = lines.pop()
        self._parts = [rest]
        self._size = len(rest)
        return [line for line in lines if line and line != b"\r"]


class Wire:
    """Frames over a Unix stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.set_inheritable(False)
        self._sock = sock
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._queue: Deque[memoryview] = deque()
        self._queued = 0
        self._closed = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def send(self, data: bytes, bounded: bool = True, wait: bool = False) -> None:
        """Sends a frame, or queues what the socket does not take.

        ``bounded``: fails with PAL-LIMIT where QUEUE_BYTES wait already; with ``wait``, after
        SEND_SECONDS. Fails with PAL-UNAVAILABLE once the connection is closed.
        """
        with self._lock:
            if bounded and not self._fits(data):
                if not (wait and self._room.wait_for(lambda: self._fits(data), SEND_SECONDS)):
                    raise PalisadeError("PAL-LIMIT", "the host does not read")
            if self._closed:
                raise closed()
            rest = memoryview(data)
            if not self._queue:
                try:
                    rest = rest[self._sock.send(rest) :]
                except (BlockingIOError, InterruptedError):
                    pass
                except OSError:
                    raise closed() from None  # the reading thread sees it too, and ends
            if len(rest):
                self._queue.append(rest)
                self._queued += len(rest)
                self._wake()

    def _fits(self, data: bytes) -> bool:
        # One frame of any length fits an empty queue.
        return self._closed or not self._queue or self._queued + len(data) <= QUEUE_BYTES

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except OSError:
            pass  # full: it will wake anyway; closed: nobody is there

    def _flush(self) -> None:
        with self._lock:
            while self._queue:
                first = self._queue[0]
                try:
                    sent = self._sock.send(first)
                except (BlockingIOError, InterruptedError):
                    break
                self._queued -= sent
                if sent == len(first):
                    self._queue.popleft()
                else:
                    self._queue[0] = first[sent:]
            self._room.notify_all()

    def read(self, on_line: Callable[[bytes], None]) -> None:
        """Reads until the end of the stream or `close`; raises Breach."""
        lines, poll = Lines(), select.poll()
        fd = self._sock.fileno()
        poll.register(fd, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        writing = False
        while not self._closed:
            if writing != bool(self._queue):
                writing = not writing
                poll.modify(fd, select.POLLIN | (select.POLLOUT if writing else 0))
            for ready, events in poll.poll():
                try:
                    if ready == self._wake_read:
                        os.read(ready, 4096)
                        continue
                    if events & select.POLLOUT:
                        self._flush()
                    if events & ~select.POLLOUT:
                        data = self._sock.recv(READ_BYTES)
                        if not data:
                            return
                        for line in lines.feed(data):
                            on_line(line)
                except (BlockingIOError, InterruptedError):
                    pass
                except OSError:
                    return

    def drained(self, seconds: float) -> None:
        """Waits until all is sent, at most so long. Not for the reading thread."""
        with self._lock:
            self._room.wait_for(lambda: self._closed or not self._queue, seconds)

    def close(self) -> None:
        """Ends the connection: senders fail, `read` returns. May be called twice, by any thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.clear()
            self._room.notify_all()
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._wake()

    def dispose(self) -> None:
        """Gives the descriptors back, once nobody reads any more."""
        self.close()
        with self._lock:
            self._sock.close()
            for fd in (self._wake_read, self._wake_write):
                os.close(fd)
