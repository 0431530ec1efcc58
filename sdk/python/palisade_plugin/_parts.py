"""The small parts of a plugin: what handlers get and give, the log, the host, the state."""

import inspect
import json
import sys
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    NamedTuple,
    Optional,
    Tuple,
    TypeVar,
)

from . import _schema
from ._call import Call

if TYPE_CHECKING:
    from ._plugin import Plugin

F = TypeVar("F", bound=Callable[..., Any])


class Handler:
    """A function of the plugin's author."""

    __slots__ = ("call_name", "function", "is_async")

    def __init__(self, function: Callable[..., Any], call_name: Optional[str] = None) -> None:
        self.function = function
        self.call_name = call_name
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)
        )


class Event(NamedTuple):
    """An event as it is delivered. A repeated delivery has the same ``delivery``."""

    subject: str
    data: Any
    delivery: str
    hops: int
    traceparent: Optional[str]


class CommandResult(NamedTuple):
    """What a command gives: an exit status from 0 to 255 and the text to show."""

    status: int = 0
    output: str = ""


class Published(NamedTuple):
    """In how many subscriptions an event is queued, replaced another one, or was refused."""

    queued: int
    dropped: int
    blocked: int


class Tool:
    """A tool, once its hints were read."""

    def __init__(
        self,
        name: str,
        description: Optional[str],
        schema: Optional[Dict[str, Any]],
        function: Callable[..., Any],
    ) -> None:
        self.name = name
        self.description = description
        self._given = schema
        self._function = function

    def read(self) -> None:
        """Reads the hints. TypeError where they say nothing in JSON."""
        if self._given is None:
            self.shape, call_name = _schema.parameters(self._function)
        else:
            # A schema of the author's own is the host's to check.
            _, call_name = call_parameter(self._function)
            self.shape = _schema.Shape(self._given, lambda value, path: value)
        self.handler = Handler(self._function, call_name)


class Log:
    """Lines for the plugin's log. Never waits: a line that the host has no room for is lost."""

    def __init__(self, plugin: "Plugin") -> None:
        self._plugin = plugin

    def trace(self, message: object, **fields: Any) -> None:
        self._write("trace", message, fields)

    def debug(self, message: object, **fields: Any) -> None:
        self._write("debug", message, fields)

    def info(self, message: object, **fields: Any) -> None:
        self._write("info", message, fields)

    def warn(self, message: object, **fields: Any) -> None:
        self._write("warn", message, fields)

    def error(self, message: object, **fields: Any) -> None:
        self._write("error", message, fields)

    def _write(self, level: str, message: object, fields: Dict[str, Any]) -> None:
        text = str(message)[:8192]
        session = self._plugin._session
        if session is None:
            print(f"{level}: {text}", file=sys.stderr)  # kept as log too
            return
        params: Dict[str, Any] = {"level": level, "message": text}
        if fields:
            params["fields"] = {name: _loggable(value) for name, value in fields.items()}
        session.notify("log", params)


def _loggable(value: Any) -> Any:
    try:
        text = json.dumps(value, allow_nan=False)
        return value if len(text) <= 1024 else text[:1024]
    except (TypeError, ValueError, RecursionError):
        return str(value)[:1024]


class Host:
    """The services of the application that runs the plugin."""

    def __init__(self, plugin: "Plugin") -> None:
        self._plugin = plugin

    async def call(
        self, method: str, params: Any = None, *, timeout: Optional[float] = 30.0
    ) -> Any:
        """Calls a service. Needs the capability ``host.call:METHOD``. ``timeout`` in seconds."""
        return await self._plugin._live().request(*self._request(method, params), timeout)

    def call_sync(self, method: str, params: Any = None, *, timeout: Optional[float] = 30.0) -> Any:
        """As `call`, for functions that are not async."""
        return self._plugin._live().request_sync(*self._request(method, params), timeout)

    @staticmethod
    def _request(method: str, params: Any) -> Tuple[str, Any]:
        return "host.call", {"method": method, "params": params}


class State:
    """What survives a reload. Both are decorators."""

    def __init__(self, plugin: "Plugin") -> None:
        self._plugin = plugin

    def save(self, schema: int) -> Callable[[F], F]:
        """The function without parameters that gives the state; ``schema`` is its form's version."""

        def decorate(function: F) -> F:
            self._plugin._save = (schema, Handler(function))
            return function

        return decorate

    def restore(self, accepts: Iterable[int]) -> Callable[[F], F]:
        """The function ``(state, schema)`` that takes the state back; ``accepts`` are the versions
        that it can read."""
        versions = sorted(set(accepts))

        def decorate(function: F) -> F:
            self._plugin._restore = (versions, Handler(function))
            return function

        return decorate


def first_paragraph(function: Callable[..., Any]) -> Optional[str]:
    text = inspect.getdoc(function)
    first = text.split("\n\n")[0].strip() if text else ""
    return " ".join(first.split())[:2000] or None


def call_parameter(function: F) -> Tuple[F, Optional[str]]:
    """The function, and the name of its parameter of type Call."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return function, None
    names = [name for name, p in parameters.items() if p.annotation in (Call, "Call")]
    return function, names[0] if names else None


def published(result: Any) -> Published:
    counts = result if isinstance(result, dict) else {}
    return Published(*(int(counts.get(name, 0)) for name in Published._fields))


def command_result(value: Any) -> Dict[str, Any]:
    if value is None:
        value = CommandResult()
    elif isinstance(value, str):
        value = CommandResult(output=value)
    elif isinstance(value, int) and not isinstance(value, bool):
        value = CommandResult(status=value)
    if not isinstance(value, CommandResult):
        raise TypeError("a command gives a text, a status, a CommandResult, or None")
    if not 0 <= value.status <= 255:
        raise ValueError("a command's status goes from 0 to 255")
    return {"status": value.status, "output": value.output}
