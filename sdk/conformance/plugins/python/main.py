"""The reference plugin of the conformance suite; ../README.md says what it must do."""

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../python"))

from typing import Literal

from palisade_plugin import (
    Call,
    CommandResult,
    Event,
    Operation,
    PalisadeError,
    Plugin,
    Response,
    Veto,
)

plugin = Plugin(name="conformance", version="1.0.0")
cancelled = 0
events: List[Dict[str, Any]] = []
kept: Any = None


@dataclass
class Size:
    width: int
    height: int = 1


@plugin.tool
def echo(value: Any = None) -> Any:
    """Gives back what it gets."""
    return value


@plugin.tool
async def add(a: int, b: int = 1) -> int:
    """Adds two whole numbers."""
    return a + b


@plugin.tool(name="shape", description="Says what it was given.")
def say_shape(
    text: str,
    kind: Literal["a", "b"],
    tags: Optional[List[str]] = None,
    size: Optional[Size] = None,
) -> Any:
    return {"text": text, "kind": kind, "tags": tags, "size": size}


@plugin.tool
def fail(message: str, code: Optional[str] = None, hint: Optional[str] = None) -> None:
    """Fails."""
    if code is None:
        raise ValueError(message)
    raise PalisadeError(code, message, hint=hint, retry_after=1.5)


@plugin.tool
async def sleep(ms: int) -> Any:
    """Takes its time, and lets others work."""
    await asyncio.sleep(ms / 1000)
    return {"slept": ms}


@plugin.tool
def block(ms: int) -> Any:
    """Takes its time, and its thread's."""
    time.sleep(ms / 1000)
    return {"slept": ms}


@plugin.tool
async def wait() -> None:
    """Waits until it is cancelled."""
    global cancelled
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        cancelled += 1
        raise


@plugin.tool
def wait_blocking(call: Call) -> None:
    """Waits until it is cancelled, on a thread."""
    global cancelled
    if call.wait(3600):
        cancelled += 1
    call.check()


@plugin.tool(name="cancelled")
def count_cancelled() -> int:
    """How many calls were cancelled."""
    return cancelled


def told(error: PalisadeError) -> Any:
    return {
        "code": error.code,
        "message": error.message,
        "rule": error.rule,
        "hint": error.hint,
        "retry_after": error.retry_after,
    }


@plugin.tool
async def publish(subject: str, data: Any = None) -> Any:
    """Publishes an event."""
    try:
        return (await plugin.publish(subject, data))._asdict()
    except PalisadeError as e:
        return told(e)


@plugin.tool
def publish_blocking(subject: str, data: Any = None) -> Any:
    """Publishes an event, from a thread."""
    try:
        return plugin.publish_sync(subject, data)._asdict()
    except PalisadeError as e:
        return told(e)


@plugin.tool
async def host(method: str, params: Any = None, timeout_ms: int = 30000) -> Any:
    """Calls a service of the application."""
    try:
        return await plugin.host.call(method, params, timeout=timeout_ms / 1000)
    except PalisadeError as e:
        return told(e)


@plugin.tool
def host_blocking(method: str, params: Any = None, timeout_ms: int = 30000) -> Any:
    """Calls a service of the application, from a thread."""
    try:
        return plugin.host.call_sync(method, params, timeout=timeout_ms / 1000)
    except PalisadeError as e:
        return told(e)


def operations(key: str, value: Any) -> List[Operation]:
    return [
        Operation.set(key, value, version=0, ttl=1.0),
        Operation.delete("old"),
        Operation.check("c", 4),
    ]


def shown(value: Any) -> Any:
    """Named tuples as objects."""
    if hasattr(value, "_asdict"):
        return {name: shown(field) for name, field in value._asdict().items()}
    return [shown(item) for item in value] if isinstance(value, list) else value


METHODS = ("get", "entry", "set", "compare_and_set", "delete", "list")


@plugin.tool(input_schema={"type": "object"})
async def storage(**args: Any) -> Any:
    """Keeps something."""
    does, given = args["does"], args["with"]
    try:
        if does == "transaction":
            return shown(await plugin.storage.transaction(operations(**given)))
        assert does in METHODS
        return shown(await getattr(plugin.storage, does)(**given))
    except PalisadeError as e:
        return told(e)


@plugin.tool(input_schema={"type": "object"})
def storage_blocking(**args: Any) -> Any:
    """Keeps something, from a thread."""
    does, given = args["does"], args["with"]
    try:
        if does == "transaction":
            return shown(plugin.storage.transaction_sync(operations(**given)))
        assert does in METHODS
        return shown(getattr(plugin.storage, does + "_sync")(**given))
    except PalisadeError as e:
        return told(e)


@plugin.tool
async def fetch(
    url: str,
    method: Optional[str] = None,
    headers: Optional[Dict[str, str]] = None,
    body: Optional[str] = None,
    bytes: Optional[List[int]] = None,
    timeout_ms: int = 30000,
    redirect: bool = True,
) -> Any:
    """Requests something of the web."""
    answer: Response = await plugin.http.fetch(
        url,
        method=method,
        headers=headers,
        body=body if bytes is None else bytearray(bytes),
        timeout=timeout_ms / 1000,
        redirect=redirect,
    )
    return {
        "status": answer.status,
        "header": answer.header("X"),
        "text": answer.text(),
        "length": len(answer.body),
        "url": answer.url,
        "redirects": answer.redirects,
    }


@plugin.tool
async def secret(name: str) -> str:
    """Gives a secret away."""
    return await plugin.secret(name)


@plugin.tool
def log(level: str, message: str, fields: Optional[Dict[str, Any]] = None) -> None:
    """Writes a line of log."""
    getattr(plugin.log, level)(message, **(fields or {}))


@plugin.tool
def progress(call: Call) -> str:
    """Tells how far it is."""
    call.progress(1, 2, "half")
    return "done"


@plugin.tool
def noise() -> str:
    """Prints."""
    print("noise on stdout")
    print("noise on stderr", file=sys.stderr)
    return "quiet"


@plugin.tool
def text(length: int) -> str:
    """A long text."""
    return "x" * length


@plugin.tool
def deep(levels: int) -> Any:
    """Lists in lists."""
    value: List[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@plugin.tool
def half() -> str:
    """Half of a surrogate pair."""
    return "\ud83d"


@plugin.tool
def config() -> Any:
    """The configuration."""
    return plugin.config


@plugin.tool(name="events")
def list_events() -> Any:
    """The events that came."""
    return events


@plugin.tool
def keep(value: Any) -> None:
    """Changes the state."""
    global kept
    kept = value


@plugin.event("chat.>")
def on_chat(event: Event) -> None:
    events.append(
        {
            "subject": event.subject,
            "data": event.data,
            "delivery": event.delivery,
            "hops": event.hops,
        }
    )


@plugin.event("broken.*")
async def on_broken(event: Event) -> None:
    raise PalisadeError("PAL-UNAVAILABLE", "not now")


@plugin.hook("message.received", priority=60)
async def shout(data: Any) -> Any:
    return {**data, "text": data["text"] + "!"} if data["text"] == "HELLO" else None


@plugin.hook("message.received", priority=10)
def moderate(data: Any) -> Any:
    if data["text"] == "spam":
        raise Veto("spam is not welcome")
    return {**data, "text": data["text"].upper()} if data["text"] != "plain" else None


@plugin.command
def stats(args: List[str]) -> str:
    """Tells its arguments."""
    return "stats: " + ", ".join(args)


@plugin.command
async def leave(args: List[str]) -> CommandResult:
    """Gives a status."""
    return CommandResult(status=int(args[0]), output="left")


@plugin.configure
def on_configure(new: Dict[str, Any]) -> None:
    if new.get("bad"):
        raise PalisadeError("PAL-PARAMS", "a bad configuration")


@plugin.state.save(schema=2)
def save() -> Any:
    return {"kept": kept}


@plugin.state.restore(accepts=[1, 2])
def restore(state: Any, schema: int) -> None:
    global kept
    kept = [schema, state["kept"]]


@plugin.stop
def on_stop() -> None:
    plugin.log.info("stopped")


plugin.run()
