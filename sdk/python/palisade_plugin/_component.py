"""A plugin as a WebAssembly component: Palisade calls what it exports, and it calls what it imports.

A component has no threads and one call at a time, so handlers run where they are called; those that are
async run on a loop that can wait for nothing but time. `python -m palisade_plugin build` makes the
component; the modules `wit_world` and `componentize_py_types` are made by it from the world.
"""

import asyncio
import base64
import importlib
import io
import json
import linecache
import os
import random
import sys
import time
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Dict, List, Optional, Tuple

from ._call import Call, current
from ._errors import MAX_TEXT, PalisadeError, from_exception
from ._json import FRAME_BYTES, to_json
from ._parts import Handler

if TYPE_CHECKING:
    from ._plugin import Plugin


_IMPORTS = (
    "clock", "event_bus", "host_call", "http", "log", "plugin_call", "random", "secrets", "storage",
)  # fmt: skip
_EXPORTS = ("commands", "events", "guest", "hooks", "state")


def _bindings(name: str) -> Optional[ModuleType]:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# All of them now, while the component is made: afterwards there is no file to import from. None: the world
# does not have it.
_imports = {name: _bindings(f"wit_world.imports.{name}") for name in _IMPORTS}
_exports = {name: _bindings(f"wit_world.exports.{name}") for name in _EXPORTS}
_types: Any = _bindings("wit_world.imports.types")
_err: Any = getattr(_bindings("componentize_py_types"), "Err", None)


def _needed(name: str) -> Any:
    module = _imports[name]
    if module is None:
        wit = name.replace("_", "-")
        message = f"the component does not import palisade:plugin/{wit}"
        hint = f"add `import palisade:plugin/{wit}@0.1.0;` to its world, and build it again"
        raise PalisadeError("PAL-UNAVAILABLE", message, hint=hint)
    return module


class _Loop(asyncio.base_events.BaseEventLoop):
    """A loop without files: where nothing is ready, it sleeps until something is due."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self
        self._slept = 0.0
        self.clock: Any = None  # the import, once the component runs

    def time(self) -> float:
        return self.clock.monotonic_ns() / 1e9 if self.clock else self._slept

    def select(self, timeout: Optional[float]) -> List[Any]:
        if timeout is None:
            raise RuntimeError("the handler waits for something that a component does not have")
        if timeout > 0:
            self._slept += timeout
            _needed("clock").sleep(round(timeout * 1000))
        return []

    def _process_events(self, event_list: List[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


class ComponentCall(Call):
    """The call under way. Nobody can tell it anything while it runs."""

    __slots__ = ()

    def __init__(self, method: str) -> None:
        super().__init__(0, method, lambda id, done, total, message: None)

    def wait(self, seconds: float) -> bool:
        _needed("clock").sleep(round(seconds * 1000))
        return False


class ComponentSession:
    """Stands where a program has its connection with the host."""

    def __init__(self, plugin: "Plugin") -> None:
        self._plugin = plugin
        self._loop = _Loop()
        # What the loop imports when it runs for the first time, it imports now.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._outcome: Tuple[Any, Optional[BaseException]] = (None, None)

    def begin(self) -> None:
        """Before the first call: the imports can be called now."""
        self._loop.clock = _imports["clock"]

    def ask(self, method: str, params: Dict[str, Any]) -> Any:
        """Answers a request of the host; raises what failed."""
        call = ComponentCall(method)
        if method == "shutdown":
            self.start(call, self._stop(), on_loop=True)
        else:
            self._plugin._dispatch(self, call, method, params)
        result, error = self._outcome
        self._outcome = (None, None)
        if error is not None:
            raise error
        return result

    async def _stop(self) -> None:
        failed: Optional[BaseException] = None
        for handler in self._plugin._stop_handlers:
            try:
                await self.run_handler(handler, True)
            except BaseException as e:
                failed = failed or e
        if failed is not None:
            raise failed

    # What `Plugin` asks of its session.

    def start(self, call: Call, work: Coroutine[Any, Any, Any], on_loop: bool) -> None:
        """Does ``work`` at once."""
        token = current.set(call)
        try:
            if on_loop:
                self._outcome = (self._loop.run_until_complete(work), None)
            else:
                work.send(None)
                raise RuntimeError("a handler suspended outside the event loop")
        except StopIteration as e:
            self._outcome = (e.value, None)
        except BaseException as e:  # sys.exit() in a handler is a failed call, not the end
            self._outcome = (None, e)
        finally:
            work.close()
            current.reset(token)

    def finish(self, call: Call, result: Any, error: Optional[BaseException]) -> None:
        self._outcome = (result, error)

    async def run_handler(self, handler: Handler, on_loop: bool, *args: Any, **named: Any) -> Any:
        if handler.call_name is not None:
            named[handler.call_name] = current.get()
        result = handler.function(*args, **named)
        return await result if handler.is_async else result

    async def request(self, method: str, params: Any, timeout: Optional[float]) -> Any:
        return self.request_sync(method, params, timeout)

    def request_sync(self, method: str, params: Any, timeout: Optional[float]) -> Any:
        """Asks the host. How long it may take is the host's to say."""
        try:
            return _SERVICES[method](params)
        except _err as e:
            raise _error(e.value) from None

    def notify(self, method: str, params: Any) -> bool:
        log: Any = _imports["log"] if method == "log" else None
        if log is None:
            return False
        level = getattr(log.Level, params["level"].upper())
        fields = [(name, _json(value)) for name, value in params.get("fields", {}).items()]
        return bool(log.write(level, _whole(params["message"]), fields))


def _whole(text: str) -> str:
    """Halves of surrogate pairs become question marks."""
    return text.encode("utf-8", "replace").decode()


def _error(failure: Any) -> PalisadeError:
    wait = failure.retry_after_ms
    return PalisadeError(
        failure.code,
        failure.message,
        failure.rule,
        failure.hint,
        None if wait is None else wait / 1000,
    )


def _failure(error: BaseException) -> Any:
    """What a handler failed with, as it is answered."""
    if not isinstance(error, PalisadeError):
        traceback.print_exception(type(error), error, error.__traceback__)
    told = from_exception(error)

    def text(value: Optional[str]) -> Optional[str]:
        return None if value is None else _whole(value[:MAX_TEXT])

    wait = told.retry_after
    failure = _types.Failure(
        code=_whole(told.code),
        message=text(told.message),
        rule=text(told.rule),
        hint=text(told.hint),
        retry_after_ms=None if wait is None else max(0, round(wait * 1000)),
    )
    return _err(failure)


def _json(value: Any) -> str:
    """Sendable JSON text, or PAL-PARAMS."""
    text = to_json(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise PalisadeError("PAL-PARAMS", "not sendable: half a surrogate pair") from None
    return text


def _result(value: Any) -> str:
    """As `_json`, of a result: what cannot be sent is the plugin's own fault."""
    try:
        text = _json(value)
        if len(text) > FRAME_BYTES // 4 and len(text.encode("utf-8")) > FRAME_BYTES:
            raise PalisadeError("PAL-LIMIT", f"the message is longer than {FRAME_BYTES} bytes")
    except PalisadeError as e:
        raise PalisadeError("PAL-PLUGIN", f"the result: {e.message}") from None
    return text


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        # Valid JSON: a number with more digits than Python reads.
        raise PalisadeError("PAL-PARAMS", "a number has more digits than Python reads") from None


# The host's services: parameters and results as they stand on the wire of a program.


def _publish(params: Dict[str, Any]) -> Any:
    told = _needed("event_bus").publish(params["subject"], _json(params["data"]))
    return {"queued": told.queued, "dropped": told.dropped, "blocked": told.blocked}


def _host_call(params: Dict[str, Any]) -> Any:
    return _read(_needed("host_call").call(params["method"], _json(params["params"])))


def _secret(params: Dict[str, Any]) -> Any:
    return {"value": _needed("secrets").get(params["name"])}


def _storage_get(params: Dict[str, Any]) -> Any:
    entry = _needed("storage").get(params["key"])
    if entry is None:
        return {"found": False}
    row = {"found": True, "value": _read(entry.value), "version": entry.version}
    return {**row, "ttl_ms": entry.ttl_ms}


def _storage_set(params: Dict[str, Any]) -> Any:
    storage, ttl = _needed("storage"), params.get("ttl_ms")
    return {"version": storage.set(params["key"], _json(params["value"]), ttl)}


def _storage_compare_and_set(params: Dict[str, Any]) -> Any:
    storage, value = _needed("storage"), _json(params["value"])
    done = storage.compare_and_set(params["key"], params["version"], value, params.get("ttl_ms"))
    return {"stored": done.stored, "version": done.version}


def _storage_delete(params: Dict[str, Any]) -> Any:
    return {"deleted": _needed("storage").delete(params["key"])}


def _storage_list(params: Dict[str, Any]) -> Any:
    storage = _needed("storage")
    page = storage.list(
        storage.Query(
            params.get("prefix", ""), params.get("after"), params.get("limit"), params["values"]
        )
    )
    rows = []
    for entry in page.entries:
        row = {"key": entry.key, "version": entry.version, "ttl_ms": entry.ttl_ms}
        rows.append(row if entry.value is None else {**row, "value": _read(entry.value)})
    return {"entries": rows, "next": page.next}


def _storage_transaction(params: Dict[str, Any]) -> Any:
    storage = _needed("storage")

    def operation(fields: Dict[str, Any]) -> Any:
        key, version = fields["key"], fields.get("version")
        if fields["op"] == "set":
            value, ttl = _json(fields["value"]), fields.get("ttl_ms")
            return storage.Operation_Set(storage.SetOperation(key, value, version, ttl))
        kind = storage.Operation_Delete if fields["op"] == "delete" else storage.Operation_Check
        return kind(storage.KeyOperation(key, version))

    done = storage.transaction([operation(fields) for fields in params["operations"]])
    if isinstance(done, storage.Committed_Done):
        return {"committed": True, "versions": done.value}
    conflict = done.value
    return {"committed": False, "conflict": conflict.operation, "found": conflict.found}


def _fetch(params: Dict[str, Any]) -> Any:
    http, body = _needed("http"), params.get("body")
    if "body_base64" in params:
        body = base64.b64decode(params["body_base64"])
    answer = http.fetch(
        http.Request(
            url=params["url"],
            method=params.get("method"),
            headers=[(name, value) for name, value in params.get("headers", [])],
            body=body.encode("utf-8") if isinstance(body, str) else body,
            follow_redirects=params.get("redirect", True),
            timeout_ms=params.get("timeout_ms"),
        )
    )
    names = ("status", "headers", "body", "url", "redirects")
    return {name: getattr(answer, name) for name in names}


_SERVICES: Dict[str, Callable[[Dict[str, Any]], Any]] = {
    "event.publish": _publish,
    "host.call": _host_call,
    "secret.get": _secret,
    "storage.get": _storage_get,
    "storage.set": _storage_set,
    "storage.compare_and_set": _storage_compare_and_set,
    "storage.delete": _storage_delete,
    "storage.list": _storage_list,
    "storage.transaction": _storage_transaction,
    "http.fetch": _fetch,
}


class _LogStream(io.TextIOBase):
    """Lines of a stream that a component does not have, for its log."""

    def __init__(self, session: ComponentSession, level: str) -> None:
        self._session, self._level, self._begun = session, level, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._session.notify("log", {"level": self._level, "message": line[:8192]})
        return len(text)


def _settle(session: ComponentSession) -> None:
    """Replaces what traps where WASI is left out: standard streams, clocks, files behind imports and
    tracebacks, the source of random numbers."""
    sys.stdout, sys.stderr = _LogStream(session, "info"), _LogStream(session, "warn")
    sys.path.clear()
    sys.meta_path[:] = [each for each in sys.meta_path if "Path" not in getattr(each, "__name__", "")]
    replaced: Any = linecache
    replaced.checkcache = lambda filename=None: None
    replaced.updatecache = lambda filename, module_globals=None: []
    linecache.clearcache()
    clock: Any = _imports["clock"]
    if clock is not None:
        replaced = time
        replaced.time = lambda: clock.now_ms() / 1000
        replaced.time_ns = lambda: clock.now_ms() * 1_000_000
        replaced.monotonic_ns = replaced.perf_counter_ns = clock.monotonic_ns
        replaced.monotonic = replaced.perf_counter = lambda: clock.monotonic_ns() / 1e9
        replaced.sleep = lambda seconds: clock.sleep(round(seconds * 1000))
    source: Any = _imports["random"]
    if source is not None:
        replaced = os
        replaced.urandom = source.bytes
        random.seed(source.bytes(32))


def exports(module: ModuleType, without_wasi: bool) -> Tuple[type, ...]:
    """The classes that answer for the handler interfaces, for the one plugin of a module."""
    from ._plugin import Plugin

    plugins = {id(each): each for each in vars(module).values() if isinstance(each, Plugin)}
    if len(plugins) != 1:
        raise TypeError(f"{module.__name__} has {len(plugins)} plugins, and should have one")
    (plugin,) = plugins.values()
    plugin._read_hints()
    session = ComponentSession(plugin)
    plugin._session = session

    def ask(
        method: str, params: Callable[[], Dict[str, Any]], read: Callable[[Any], Any]
    ) -> Any:
        try:
            return read(session.ask(method, params()))
        except BaseException as e:
            raise _failure(e) from None

    class Guest:
        def initialize(self, context: Any) -> Any:
            session.begin()
            if without_wasi:
                _settle(session)

            def read(answer: Dict[str, Any]) -> Any:
                types: Any = _exports["guest"]
                about = answer["plugin"]
                return types.Introduction(
                    name=about["name"],
                    version=about["version"],
                    tools=[
                        types.Tool(
                            tool["name"], tool.get("description"), _json(tool["input_schema"])
                        )
                        for tool in answer["tools"]
                    ],
                    state_schemas=answer.get("state_schemas", []),
                )

            def params() -> Dict[str, Any]:
                return {
                    "protocol": {"min": 1, "max": 1},
                    "plugin": {"id": context.plugin},
                    "config": _read(context.config),
                    "rights": context.rights,
                }

            return ask("initialize", params, read)

        def call(self, tool: str, args: str) -> str:
            def params() -> Dict[str, Any]:
                return {"tool": tool, "args": _read(args)}

            return str(ask("call", params, _result))

    class Events:
        def handle_event(self, event: Any) -> None:
            def params() -> Dict[str, Any]:
                return {
                    "subject": event.subject,
                    "delivery": event.delivery,
                    "data": _read(event.data),
                    "hops": event.hops,
                    "traceparent": event.traceparent,
                }

            ask("handle_event", params, lambda result: None)

    class Hooks:
        def hook(self, name: str, data: str) -> Any:
            def read(answer: Dict[str, Any]) -> Any:
                types: Any = _exports["hooks"]
                if "veto" in answer:
                    return types.Decision_Veto(_whole(answer["veto"]))
                if "data" in answer:
                    return types.Decision_Replace(_result(answer["data"]))
                return types.Decision_Pass()

            return ask("hook", lambda: {"hook": name, "data": _read(data)}, read)

    class Commands:
        def run_command(self, command: str, args: List[str]) -> Any:
            def read(answer: Dict[str, Any]) -> Any:
                output = _whole(answer["output"])
                types: Any = _exports["commands"]
                return types.Outcome(status=answer["status"], output=output)

            return ask("run_command", lambda: {"command": command, "args": args}, read)

    class Configure:
        def configure(self, config: str) -> None:
            ask("configure", lambda: {"config": _read(config)}, lambda result: None)

    class State:
        def save_state(self) -> Any:
            def read(answer: Dict[str, Any]) -> Any:
                state = _result(answer["state"])
                types: Any = _exports["state"]
                return types.Saved(schema=answer["schema"], state=state)

            return ask("save_state", dict, read)

        def restore_state(self, saved: Any) -> None:
            def params() -> Dict[str, Any]:
                return {"schema": saved.schema, "state": _read(saved.state)}

            ask("restore_state", params, lambda result: None)

    class Shutdown:
        def shutdown(self, reason: str, grace_ms: int) -> None:
            try:
                session.ask("shutdown", {})
            except BaseException as e:
                traceback.print_exception(type(e), e, e.__traceback__)

    return Guest, Events, Hooks, Commands, Configure, State, Shutdown

