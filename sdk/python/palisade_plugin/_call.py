"""One request of the host while a handler works on it."""

import threading
from contextvars import ContextVar
from typing import Any, Callable, Optional

from ._errors import PalisadeError

current: "ContextVar[Optional[Call]]" = ContextVar("palisade_call", default=None)


class Call:
    """What a handler can learn about its request and do for it.

    A parameter of this type in a handler is filled in; ``plugin.current()`` gives it anywhere else.
    """

    __slots__ = ("id", "method", "task", "_cancelled", "_event", "_lock", "_progress")

    def __init__(self, id: Any, method: str, progress: Callable[..., None]) -> None:
        self.id = id
        self.method = method
        self.task: Any = None
        self._cancelled = False
        self._event: Optional[threading.Event] = None
        self._lock = threading.Lock()
        self._progress = progress

    @property
    def cancelled(self) -> bool:
        """Whether the host no longer wants the answer."""
        return self._cancelled

    def check(self) -> None:
        """Raises PAL-CANCELLED if the host no longer wants the answer."""
        if self._cancelled:
            raise PalisadeError("PAL-CANCELLED", "cancelled")

    def wait(self, seconds: float) -> bool:
        """Sleeps, for functions that are not async; ends early and gives True when cancelled."""
        with self._lock:
            if self._event is None:
                self._event = threading.Event()
                if self._cancelled:
                    self._event.set()
            event = self._event
        return event.wait(seconds)

    def progress(
        self, done: float, total: Optional[float] = None, message: Optional[str] = None
    ) -> None:
        """Tells the host how far the work has come, in units of your choice. Dropped when the host
        does not keep up."""
        self._progress(self.id, done, total, message)

    def cancel(self) -> None:
        """Marks the call as not wanted. The SDK does this; a handler has no need to."""
        with self._lock:
            self._cancelled = True
            if self._event is not None:
                self._event.set()
