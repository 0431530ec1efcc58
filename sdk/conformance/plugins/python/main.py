"""The reference plugin of the conformance suite; ../README.md says what it must do."""

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../python"))

from typing import Literal

from palisade_plugin import Call, CommandResult, Event, PalisadeError, Plugin, Veto

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
