"""The socket: lines in, lines out.

One thread reads; any thread sends. Reading never waits for writing, so the plugin hears the host
also while the host does not read. This module knows frames, not what they mean.
"""

import json
import os
import re
import select
import socket
import threading
from collections import deque
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Callable, Deque, List, Tuple

from ._errors import PalisadeError

FRAME_BYTES = 4 << 20  # one message, without the line break
DEPTH_LEVELS = 64  # the message itself is the first
QUEUE_BYTES = 8 << 20  # what may wait for the host to read
SEND_SECONDS = 30.0  # how long a thread waits for room there
READ_BYTES = 1 << 16


class Breach(Exception):
    """The other side broke the protocol; the connection is over."""


def _plain(value: Any) -> Any:
    """What json does not know."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} is not JSON")


_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode


def _too_deep(value: Any, levels: int) -> bool:
    row: List[Any] = [value]
    for _ in range(levels + 1):
        below: List[Any] = []
        for item in row:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, (list, tuple)):
                below.extend(item)
            elif is_dataclass(item) and not isinstance(item, type):
                below.extend(getattr(item, field.name) for field in fields(item))
            else:
                continue
            if not below:
                below.append(None)  # an empty list is a level too
        if not below:
            return False
        row = below
    return True


def to_json(value: Any, inside: int = 1) -> str:
    """JSON text that may stand ``inside`` levels deep in a message, or PAL-PARAMS."""
    try:
        text = _encode(value)
    except RecursionError:
        raise PalisadeError("PAL-PARAMS", "not sendable: nested too deep") from None
    except (TypeError, ValueError) as e:
        raise PalisadeError("PAL-PARAMS", f"not sendable: {e}") from None
    levels = DEPTH_LEVELS - inside
    if text.count("{") + text.count("[") > levels and _too_deep(value, levels):
        raise PalisadeError("PAL-PARAMS", f"not sendable: nested more than {levels} deep")
    return text


def frame(text: str) -> bytes:
    """A message as it is sent, or PAL-LIMIT, PAL-PARAMS."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:  # it would end the connection; better one failed request
        raise PalisadeError("PAL-PARAMS", "not sendable: half a surrogate pair") from None
    if len(data) > FRAME_BYTES:
        raise PalisadeError("PAL-LIMIT", f"the message is longer than {FRAME_BYTES} bytes")
    return data + b"\n"


_LONG_NUMBER = re.compile(r"-?[0-9]{4000,}")


def parse(line: bytes) -> Tuple[Any, bool]:
    """A message, and whether it holds a number that Python refuses to read (over 4300 digits).

    Such a number stands as 0 then, so that at least the id is known.
    """
    try:
        text = line.decode("utf-8")
        try:
            return json.loads(text), False
        except json.JSONDecodeError:
            raise
        except ValueError:

            def short(digits: str) -> int:
                return 0 if _LONG_NUMBER.match(digits) else int(digits)

            return json.loads(text, parse_int=short), True
    except (ValueError, RecursionError) as e:
        raise Breach(f"not a message: {e}") from None


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


def closed() -> PalisadeError:
    """What a request fails with once the host is gone."""
    return PalisadeError("PAL-UNAVAILABLE", "the connection with the host is closed")
