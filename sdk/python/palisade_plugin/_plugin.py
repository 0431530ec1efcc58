"""What an author writes against: decorators, and the host's services."""

import json
import re
import sys
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    List,
    Optional,
    Tuple,
    Union,
    overload,
)

from . import _schema
from ._call import Call, current
from ._errors import PalisadeError, Veto
from ._parts import (
    Event,
    F,
    Handler,
    Host,
    Log,
    Published,
    State,
    Tool,
    call_parameter,
    command_result,
    first_paragraph,
    published,
)
from ._services import Http, Storage, secret

if TYPE_CHECKING:
    import socket

    from ._component import ComponentSession
    from ._session import Session as NativeSession

    Session = Union[NativeSession, ComponentSession]

VERSION = 1

MAX_NAME = 128
MAX_LIST = 256
_SUBJECT = re.compile(r"[A-Za-z0-9_\-$/:=]+")


class Plugin:
    """A plugin. Decorate functions, then `run`.

    Functions that are not async run on at most ``threads`` threads, started when needed. They count
    against ``resources.pids`` of the manifest, as does one more for reading where anything is async,
    and one for shutting down.
    """

    def __init__(
        self, name: Optional[str] = None, version: Optional[str] = None, *, threads: int = 8
    ) -> None:
        if threads < 1:
            raise ValueError("threads: at least 1")
        self.log = Log(self)
        self.host = Host(self)
        self.storage = Storage(self)
        self.http = Http(self)
        self.state = State(self)
        self.config: Dict[str, Any] = {}
        """The configuration; `configure` replaces it."""
        self.id = ""
        """The plugin's id from the manifest, once the host has told it."""
        self.rights: List[str] = []
        """The capabilities that the plugin has, as the host told them at the start."""
        self._name, self._version, self._threads = name, version, threads
        self._tools: Dict[str, Tool] = {}
        self._commands: Dict[str, Tuple[Handler, Optional[str]]] = {}
        self._events: List[Tuple[List[str], Handler]] = []
        self._hooks: Dict[str, List[Tuple[int, Handler]]] = {}
        self._start_handlers: List[Handler] = []
        self._stop_handlers: List[Handler] = []
        self._configure: List[Handler] = []
        self._save: Optional[Tuple[int, Handler]] = None
        self._restore: Optional[Tuple[List[int], Handler]] = None
        self._session: "Optional[Session]" = None

    # --- decorators

    @overload
    def tool(self, function: F, /) -> F: ...  # type: ignore[overload-overlap, unused-ignore]
    @overload
    def tool(
        self,
        *,
        name: Optional[str] = ...,
        description: Optional[str] = ...,
        input_schema: Optional[Dict[str, Any]] = ...,
    ) -> Callable[[F], F]: ...
    def tool(
        self,
        function: Optional[F] = None,
        *,
        name: Optional[str] = None,
        description: Optional[str] = None,
        input_schema: Optional[Dict[str, Any]] = None,
    ) -> Union[F, Callable[[F], F]]:
        """A tool. Its arguments are given by name and checked against the type hints.

        Without ``name`` the function's; without ``description`` the docstring's first paragraph.
        With ``input_schema`` that is announced and nothing is checked here.
        """

        def decorate(function: F) -> F:
            tool_name = _named(name or function.__name__, self._tools, "tool")
            text = description or first_paragraph(function)
            self._tools[tool_name] = Tool(tool_name, text, input_schema, function)
            return function

        return decorate if function is None else decorate(function)

    @overload
    def command(self, function: F, /) -> F: ...  # type: ignore[overload-overlap, unused-ignore]
    @overload
    def command(
        self, *, name: Optional[str] = ..., description: Optional[str] = ...
    ) -> Callable[[F], F]: ...
    def command(
        self,
        function: Optional[F] = None,
        *,
        name: Optional[str] = None,
        description: Optional[str] = None,
    ) -> Union[F, Callable[[F], F]]:
        """A command: ``(args: list of str)`` gives the text to show, an exit status, a
        `CommandResult`, or None."""

        def decorate(function: F) -> F:
            command_name = _named(name or function.__name__, self._commands, "command")
            handler = Handler(*call_parameter(function))
            self._commands[command_name] = (handler, description or first_paragraph(function))
            return function

        return decorate if function is None else decorate(function)

    def event(self, subject: str) -> Callable[[F], F]:
        """A handler ``(event)`` of the events whose subject fits: ``*`` stands for one token, a last
        ``>`` for one or more. The event is acknowledged unless a handler raises."""
        tokens = subject.split(".")
        for i, token in enumerate(tokens):
            last = i == len(tokens) - 1
            if not (token == "*" or token == ">" and last or _SUBJECT.fullmatch(token)):
                raise ValueError(f"not a subject: {subject!r}")

        def decorate(function: F) -> F:
            self._events.append((tokens, Handler(*call_parameter(function))))
            return function

        return decorate

    def hook(self, name: str, priority: int = 50) -> Callable[[F], F]:
        """A handler ``(data)`` of a hook. None leaves the data as it is, anything else replaces it,
        `Veto` refuses. Of several for one hook the lower priority (0 to 1000) comes first; the
        priority among plugins is the manifest's."""
        if not 0 <= priority <= 1000:
            raise ValueError("priority: 0 to 1000")

        def decorate(function: F) -> F:
            handlers = self._hooks.setdefault(name, [])
            handlers.append((priority, Handler(*call_parameter(function))))
            handlers.sort(key=lambda entry: entry[0])
            return function

        return decorate

    def start(self, function: F) -> F:
        """A function without parameters that runs before the plugin is ready; `config` is there."""
        self._start_handlers.append(Handler(function))
        return function

    def stop(self, function: F) -> F:
        """A function without parameters that runs at `shutdown`, after the running calls."""
        self._stop_handlers.append(Handler(function))
        return function

    def configure(self, function: F) -> F:
        """A function ``(config)`` that runs when the configuration changes. If it raises, the old
        configuration stays."""
        self._configure.append(Handler(function))
        return function

    # --- services

    async def publish(
        self, subject: str, data: Any = None, *, timeout: Optional[float] = 30.0
    ) -> Published:
        """Publishes an event. Needs the capability ``event.publish`` for the subject."""
        params = {"subject": subject, "data": data}
        return published(await self._live().request("event.publish", params, timeout))

    def publish_sync(
        self, subject: str, data: Any = None, *, timeout: Optional[float] = 30.0
    ) -> Published:
        """As `publish`, for functions that are not async."""
        params = {"subject": subject, "data": data}
        return published(self._live().request_sync("event.publish", params, timeout))

    async def secret(self, name: str, *, timeout: Optional[float] = 30.0) -> str:
        """The value of a secret that the operator has set. Needs the capability ``secret:NAME``."""
        method, params, read = secret(name)
        value: str = read(await self._live().request(method, params, timeout))
        return value

    def secret_sync(self, name: str, *, timeout: Optional[float] = 30.0) -> str:
        """As `secret`, for functions that are not async."""
        method, params, read = secret(name)
        value: str = read(self._live().request_sync(method, params, timeout))
        return value

    def current(self) -> Call:
        """The request that the running handler works on. RuntimeError outside a handler."""
        call = current.get()
        if call is None:
            raise RuntimeError("no handler runs here")
        return call

    def _live(self) -> "Session":
        if self._session is None:
            raise RuntimeError("the plugin does not run")
        return self._session

    # --- running

    def contributes(self) -> Dict[str, Any]:
        """What the manifest's `contributes` has to say, from the decorators."""
        result: Dict[str, Any] = {}
        self._read_hints()
        if self._tools:
            result["tools"] = [
                {"name": t.name, "description": t.description or t.name, "input": t.shape.schema}
                for t in self._tools.values()
            ]
        if self._commands:
            result["commands"] = [
                {"name": name, "description": text or name}
                for name, (_, text) in self._commands.items()
            ]
        if self._hooks:
            result["hooks"] = [
                {"event": name, "priority": handlers[0][0]}
                for name, handlers in self._hooks.items()
            ]
        return result

    def run(self, fd: int = 3) -> None:
        """Serves the host on the socket that Palisade opened, until the host ends the plugin.

        Started by hand with ``--contributes``: prints what belongs in the manifest. In a component
        it returns at once: Palisade calls what the component exports.
        """
        if sys.platform == "wasi":
            return
        # What a program needs and a component lacks is imported where it is used.
        import socket

        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            self._by_hand(fd)
        else:
            self.serve(sock)

    def _by_hand(self, fd: int) -> None:
        if sys.argv[1:] != ["--contributes"]:
            raise SystemExit(
                f"This is a Palisade plugin: there is no socket on descriptor {fd}. Start it with\n"
                "  palisade run DIR\nor print what belongs in its manifest with --contributes."
            )
        print(json.dumps(self.contributes(), indent=2))

    def serve(self, sock: "socket.socket") -> None:
        """As `run`, on a connected Unix stream socket. It is closed at the end."""
        try:
            self._read_hints()
        except TypeError:
            sock.close()
            raise
        from ._session import Session
        from ._wire import Wire

        self._session = session = Session(self, Wire(sock), self._threads)
        try:
            breach = session.run(with_loop=self._has_async())
        finally:
            self._session = None
        if breach is not None:
            raise SystemExit(f"palisade: the connection ended: {breach}")

    def _read_hints(self) -> None:
        for tool in self._tools.values():
            tool.read()

    def _has_async(self) -> bool:
        handlers = [tool.handler for tool in self._tools.values()]
        handlers += [handler for handler, _ in self._commands.values()]
        handlers += [handler for _, handler in self._events]
        handlers += [handler for chain in self._hooks.values() for _, handler in chain]
        handlers += self._start_handlers + self._stop_handlers + self._configure
        handlers += [pair[1] for pair in (self._save, self._restore) if pair is not None]
        return any(handler.is_async for handler in handlers)

    # --- requests of the host; called by the reading thread, must not wait

    def _dispatch(self, session: "Session", call: Call, method: str, params: Any) -> None:
        if method == "call":
            name, args = _get(params, "tool", str), params.get("args")
            tool = self._tools.get(name)
            if tool is None:
                raise PalisadeError("PAL-NOT-FOUND", f"there is no tool {name[:128]!r}")
            if not isinstance(args, dict) and args is not None:
                raise _schema.wrong("args", "object", args)
            on_loop = tool.handler.is_async
            session.start(call, self._call_tool(session, tool, args, on_loop), on_loop)
            return
        work = self._works.get(method)
        if work is None:
            raise PalisadeError("PAL-NOT-FOUND", f"there is no method {method[:128]!r}")
        work(self, session, call, params)

    @staticmethod
    async def _call_tool(session: "Session", tool: Tool, args: Any, on_loop: bool) -> Any:
        # Converted here, not by the thread that reads: it may run a dataclass's own code.
        named = tool.shape.convert({} if args is None else args, "args")
        return await session.run_handler(tool.handler, on_loop, **named)

    def _chain(
        self,
        session: "Session",
        call: Call,
        handlers: List[Handler],
        chain: Callable[[Callable[..., Any]], Any],
    ) -> None:
        """Starts a chain of handlers: on the loop if one of them is async."""
        on_loop = any(handler.is_async for handler in handlers)

        def run(handler: Handler, *args: Any) -> Any:
            return session.run_handler(handler, on_loop, *args)

        session.start(call, chain(run), on_loop)

    def _on_initialize(self, session: "Session", call: Call, params: Any) -> None:
        offered = _get(params, "protocol", dict)
        low, high = offered.get("min"), offered.get("max")
        if not (isinstance(low, int) and isinstance(high, int) and low <= VERSION <= high):
            raise PalisadeError(
                "PAL-PARAMS", f"this SDK speaks protocol {VERSION}; the host offers {low} to {high}"
            )
        config, about, rights = params.get("config"), params.get("plugin"), params.get("rights")
        self.config = config if isinstance(config, dict) else {}
        self.id = str(about.get("id", "")) if isinstance(about, dict) else ""
        self.rights = rights if isinstance(rights, list) else []
        result: Dict[str, Any] = {"protocol": VERSION, "features": []}
        result["plugin"] = {
            "name": (self._name or self.id or "plugin")[:MAX_NAME],
            "version": (self._version or "0.0.0")[:MAX_NAME],
        }
        tools = []
        for tool in self._tools.values():
            entry = {"name": tool.name, "input_schema": tool.shape.schema}
            if tool.description:
                entry["description"] = tool.description
            tools.append(entry)
        result["tools"] = tools
        if self._restore is not None:
            result["state_schemas"] = self._restore[0]

        async def chain(run: Callable[..., Any]) -> Any:
            for handler in self._start_handlers:
                await run(handler)
            return result

        if self._start_handlers:
            self._chain(session, call, self._start_handlers, chain)
        else:
            session.finish(call, result, None)

    def _on_event(self, session: "Session", call: Call, params: Any) -> None:
        trace, hops = params.get("traceparent"), params.get("hops", 0)
        event = Event(
            _get(params, "subject", str),
            params.get("data"),
            _get(params, "delivery", str),
            hops if isinstance(hops, int) else 0,
            trace if isinstance(trace, str) else None,
        )
        tokens = event.subject.split(".")
        handlers = [handler for pattern, handler in self._events if _fits(pattern, tokens)]
        if not handlers:
            raise PalisadeError("PAL-NOT-FOUND", f"nothing handles {event.subject[:256]!r}")

        async def chain(run: Callable[..., Any]) -> Any:
            for handler in handlers:
                await run(handler, event)
            return {}

        self._chain(session, call, handlers, chain)

    def _on_hook(self, session: "Session", call: Call, params: Any) -> None:
        name, data = _get(params, "hook", str), params.get("data")
        handlers = [handler for _, handler in self._hooks.get(name, [])]
        if not handlers:
            raise PalisadeError("PAL-NOT-FOUND", f"nothing handles the hook {name[:256]!r}")

        async def chain(run: Callable[..., Any]) -> Any:
            value, changed = data, False
            for handler in handlers:
                try:
                    new = await run(handler, value)
                except Veto as veto:
                    return {"veto": veto.reason[:2000]}
                if new is not None:
                    value, changed = new, True
            return {"data": value} if changed else {}

        self._chain(session, call, handlers, chain)

    def _on_command(self, session: "Session", call: Call, params: Any) -> None:
        name, args = _get(params, "command", str), params.get("args", [])
        if name not in self._commands:
            raise PalisadeError("PAL-NOT-FOUND", f"there is no command {name[:256]!r}")
        if not isinstance(args, list) or not all(isinstance(arg, str) for arg in args):
            raise PalisadeError("PAL-PARAMS", "args: expected a list of texts")
        handler = self._commands[name][0]

        async def chain(run: Callable[..., Any]) -> Any:
            return command_result(await run(handler, args))

        self._chain(session, call, [handler], chain)

    def _on_configure(self, session: "Session", call: Call, params: Any) -> None:
        new, old = _get(params, "config", dict), self.config

        async def chain(run: Callable[..., Any]) -> Any:
            self.config = new
            try:
                for handler in self._configure:
                    await run(handler, new)
            except BaseException:
                self.config = old
                raise
            return {}

        self._chain(session, call, self._configure, chain)

    def _on_save(self, session: "Session", call: Call, params: Any) -> None:
        if self._save is None:
            raise PalisadeError("PAL-NOT-FOUND", "the plugin saves no state")
        schema, handler = self._save

        async def chain(run: Callable[..., Any]) -> Any:
            return {"schema": schema, "state": await run(handler)}

        self._chain(session, call, [handler], chain)

    def _on_restore(self, session: "Session", call: Call, params: Any) -> None:
        if self._restore is None:
            raise PalisadeError("PAL-NOT-FOUND", "the plugin restores no state")
        accepts, handler = self._restore
        schema, state = _get(params, "schema", int), params.get("state")
        if schema not in accepts:
            raise PalisadeError("PAL-PARAMS", f"state of schema {schema} cannot be restored")

        async def chain(run: Callable[..., Any]) -> Any:
            await run(handler, state, schema)
            return {}

        self._chain(session, call, [handler], chain)

    _works: Dict[str, Callable[["Plugin", "Session", Call, Any], None]] = {
        "initialize": _on_initialize,
        "handle_event": _on_event,
        "hook": _on_hook,
        "run_command": _on_command,
        "configure": _on_configure,
        "save_state": _on_save,
        "restore_state": _on_restore,
    }


def _get(params: Any, name: str, cls: type) -> Any:
    if not isinstance(params, dict):
        raise _schema.wrong("params", "object", params)
    if not isinstance(params.get(name), cls):
        raise PalisadeError("PAL-PARAMS", f"{name}: missing or of the wrong type")
    return params[name]


def _fits(pattern: List[str], tokens: List[str]) -> bool:
    for i, token in enumerate(pattern):
        if token == ">":
            return len(tokens) > i
        if i >= len(tokens) or token not in ("*", tokens[i]):
            return False
    return len(pattern) == len(tokens)


def _named(name: str, taken: Dict[str, Any], what: str) -> str:
    if not 1 <= len(name) <= MAX_NAME:
        raise ValueError(f"{what}: a name has 1 to {MAX_NAME} characters")
    if name in taken:
        raise ValueError(f"there are two of the {what} {name!r}")
    if len(taken) >= MAX_LIST:
        raise ValueError(f"more than {MAX_LIST} of {what}")
    return name
