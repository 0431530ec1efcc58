"""One connection with the host: who asked what, and who waits for which answer.

The thread that reads dispatches and never runs a handler, so `ping` is answered whatever the
handlers do. Functions run on the pool's threads; coroutines on the asyncio loop of the main thread,
which exists only if the plugin has any.
"""

import itertools
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Coroutine, Dict, Optional

from ._call import Call, current
from ._errors import PalisadeError, from_exception
from ._json import Breach, closed, frame, parse, to_json
from ._parts import Handler
from ._pool import Pool
from ._wire import Wire

if TYPE_CHECKING:
    import asyncio

    from ._plugin import Plugin

# asyncio is imported where it is used: it takes longer to load than all the rest, and a plugin
# without coroutines has no need of it.

IN_FLIGHT = 256  # requests of ours; the host refuses more
HOST_IN_FLIGHT = 1024  # requests of the host; the SDK refuses more
GRACE_SHARE = 0.8  # of the grace of `shutdown` that running calls have


class Reply:
    """The answer to a request of ours, once it is there."""

    __slots__ = ("_callback", "_done", "_lock", "error", "value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._callback: Optional[Callable[[], None]] = None
        self.value: Any = None
        self.error: Optional[PalisadeError] = None

    def set(self, value: Any, error: Optional[PalisadeError]) -> None:
        with self._lock:
            if self._done.is_set():
                return
            self.value, self.error = value, error
            self._done.set()
            callback = self._callback
        if callback is not None:
            callback()

    def wait(self, seconds: Optional[float]) -> bool:
        return self._done.wait(seconds)

    def on_done(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self._done.is_set():
                self._callback = callback
                return
        callback()

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class Session:
    """Serves one plugin over one socket, until the host closes it."""

    def __init__(self, plugin: "Plugin", wire: Wire, threads: int) -> None:
        self._plugin = plugin
        self._wire = wire
        self._pool = Pool(threads)
        self._loop: "Optional[asyncio.AbstractEventLoop]" = None
        self._loop_thread: Optional[int] = None
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._calls: Dict[Any, Call] = {}
        self._replies: Dict[int, Optional[Reply]] = {}  # None: nobody waits for it any more
        self._ids = itertools.count(1)
        self._initialized = False
        self._stopping = False
        self._over = False
        self._breach: Optional[str] = None

    # --- running

    def run(self, with_loop: bool) -> Optional[str]:
        """Reads until the end; gives what was wrong with the stream, if anything was."""
        try:
            if with_loop:
                self._run_loop()
            else:
                self._read()
        finally:
            self._pool.close()
            self._wire.dispose()
        return self._breach

    def _run_loop(self) -> None:
        import asyncio

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self._loop, self._loop_thread = loop, threading.get_ident()
        ended = asyncio.Event()

        def read() -> None:
            try:
                self._read()
            finally:
                loop.call_soon_threadsafe(ended.set)

        reader = threading.Thread(target=read, name="palisade-reader", daemon=True)

        async def main() -> None:
            reader.start()
            await ended.wait()
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in rest:
                task.cancel()
            if rest:
                await asyncio.wait(rest, timeout=1.0)

        try:
            loop.run_until_complete(main())
        finally:
            # Not asyncio.run: it would wait for the threads of run_in_executor.
            reader.join()
            self._loop = self._loop_thread = None
            asyncio.set_event_loop(None)
            loop.close()

    def _read(self) -> None:
        try:
            self._wire.read(self._on_line)
        except Breach as e:
            self._breach = str(e)
        except BaseException:
            self._breach = traceback.format_exc()
        self._wire.close()
        with self._lock:
            self._over = True
            replies = [reply for reply in self._replies.values() if reply is not None]
            calls = list(self._calls.values())
            self._replies.clear()
            self._idle.notify_all()
        for reply in replies:
            reply.set(None, closed())
        for call in calls:
            self._cancel(call)

    # --- what comes in

    def _on_line(self, line: bytes) -> None:
        message, long_number = parse(line)
        if not isinstance(message, dict):
            raise Breach("a message is not an object")
        method = message.get("method")
        if method is None:
            self._on_answer(message)
        elif not isinstance(method, str):
            raise Breach("a method is not text")
        elif "id" not in message:
            if method == "$/cancel":
                self._on_cancel(message.get("params"))
        elif long_number:
            self.answer_error(
                message["id"],
                PalisadeError("PAL-PARAMS", "a number has more digits than Python reads"),
            )
        else:
            self._on_request(message["id"], method, message.get("params"))

    def _on_answer(self, message: Dict[str, Any]) -> None:
        with self._lock:
            reply = self._replies.pop(message.get("id"), None)  # type: ignore[arg-type]
        if reply is None:
            return
        if "error" in message:
            reply.set(None, PalisadeError.from_wire(message["error"]))
        else:
            reply.set(message.get("result"), None)

    def _on_cancel(self, params: Any) -> None:
        id = params.get("id") if isinstance(params, dict) else None
        if not isinstance(id, (int, str)):
            return
        with self._lock:
            call = self._calls.get(id)
        if call is not None and call.method != "shutdown":
            self._cancel(call)

    def _cancel(self, call: Call) -> None:
        call.cancel()
        if self._loop is not None:

            def cancel_task() -> None:
                if call.task is not None:
                    call.task.cancel()

            self._in_loop(cancel_task)

    def _on_request(self, id: Any, method: str, params: Any) -> None:
        if method == "ping":
            self.answer(id, {})
            return
        refusal = self._refusal(method)
        if refusal is not None:
            self.answer_error(id, refusal)
            return
        call = Call(id, method, self._progress)
        with self._lock:
            self._calls[id] = call
        if method == "initialize":
            self._initialized = True
        try:
            if method == "shutdown":
                self._stopping = True
                self._shut_down(call, params)
                return
            self._plugin._dispatch(self, call, method, params)
        except PalisadeError as e:
            self.finish(call, None, e)
        except RuntimeError:  # no thread could be made
            self.finish(call, None, PalisadeError("PAL-LIMIT", "the plugin may make no thread"))

    def _refusal(self, method: str) -> Optional[PalisadeError]:
        if method == "initialize":
            if self._initialized:
                return PalisadeError("PAL-CONFLICT", "initialize came twice")
        elif not self._initialized:
            return PalisadeError("PAL-CONFLICT", f"{method[:128]} came before initialize")
        elif self._stopping:
            return PalisadeError("PAL-UNAVAILABLE", "the plugin is shutting down")
        if len(self._calls) >= HOST_IN_FLIGHT:
            return PalisadeError("PAL-LIMIT", f"more than {HOST_IN_FLIGHT} requests in flight")
        return None

    # --- handlers

    def start(self, call: Call, work: Coroutine[Any, Any, Any], on_loop: bool) -> None:
        """Does ``work`` and answers ``call`` with what it gives.

        Off the loop ``work`` awaits nothing but `run_handler` of functions, which never suspends.
        """
        if on_loop:
            self._in_loop(lambda: self._start_task(call, work))
            return
        try:
            self._pool.submit(lambda: self._work(call, work))
        except RuntimeError:
            work.close()
            raise

    def _work(self, call: Call, work: Coroutine[Any, Any, Any]) -> None:
        if call.cancelled:
            work.close()
            self.finish(call, None, PalisadeError("PAL-CANCELLED", "cancelled"))
            return
        token = current.set(call)
        try:
            work.send(None)
        except StopIteration as e:
            result, error = e.value, None
        except BaseException as e:
            result, error = None, e
        else:
            work.close()
            result, error = None, RuntimeError("a handler suspended outside the event loop")
        finally:
            current.reset(token)
        self.finish(call, result, error)

    def _start_task(self, call: Call, work: Coroutine[Any, Any, Any]) -> None:
        import asyncio

        answered = False

        async def task() -> None:
            nonlocal answered
            current.set(call)
            result, error = None, None
            try:
                result = await work
            except asyncio.CancelledError:
                raise
            except BaseException as e:  # sys.exit() in a handler is a failed call, not the end
                error = e
            # Here and not in `done`, which the loop calls a round later.
            answered = True
            self.finish(call, result, error)

        def done(_task: Any) -> None:
            # Also for a task that was cancelled before its first step.
            work.close()
            if not answered:
                self.finish(call, None, PalisadeError("PAL-CANCELLED", "cancelled"))

        call.task = asyncio.ensure_future(task())
        call.task.add_done_callback(done)
        if call.cancelled:
            call.task.cancel()

    async def run_handler(self, handler: Handler, on_loop: bool, *args: Any, **named: Any) -> Any:
        """Runs one handler where it belongs."""
        if handler.call_name is not None:
            named[handler.call_name] = current.get()
        if handler.is_async:
            return await handler.function(*args, **named)
        if not on_loop:
            return handler.function(*args, **named)
        reply, call = Reply(), current.get()

        def job() -> None:
            token = current.set(call)
            try:
                reply.set(handler.function(*args, **named), None)
            except BaseException as e:
                reply.set(None, e)  # type: ignore[arg-type]
            finally:
                current.reset(token)

        self._pool.submit(job)
        return await self._awaited(reply)

    def finish(self, call: Call, result: Any, error: Optional[BaseException]) -> None:
        """Answers a call and forgets it."""
        try:
            if error is None:
                self.answer(call.id, result)
            else:
                if not isinstance(error, PalisadeError):
                    traceback.print_exception(type(error), error, error.__traceback__)
                self.answer_error(call.id, from_exception(error))
        except PalisadeError as e:
            if not self._over:
                print(f"palisade: no answer to {call.method}: {e}", file=sys.stderr)
        finally:
            with self._lock:
                if self._calls.get(call.id) is call:
                    del self._calls[call.id]
                self._idle.notify_all()

    def _in_loop(self, callback: Callable[[], None]) -> None:
        loop = self._loop
        try:
            if loop is not None:
                loop.call_soon_threadsafe(callback)
        except RuntimeError:
            pass  # the loop is closed: the connection is over

    # --- answers

    def answer(self, id: Any, result: Any) -> None:
        """Answers; where the result cannot be sent, with the error that says why."""
        try:
            data = frame(f'{{"jsonrpc":"2.0","id":{to_json(id)},"result":{to_json(result)}}}')
        except PalisadeError as e:
            # The plugin's own fault, so not PAL-PARAMS: that would blame the caller.
            self.answer_error(id, PalisadeError("PAL-PLUGIN", f"the result: {e.message}"))
            return
        self._wire.send(data, bounded=False)

    def answer_error(self, id: Any, error: PalisadeError) -> None:
        text = to_json(error.to_wire()).encode("utf-8", "replace").decode()
        self._wire.send(
            frame(f'{{"jsonrpc":"2.0","id":{to_json(id)},"error":{text}}}'), bounded=False
        )

    # --- what goes out

    def notify(self, method: str, params: Any) -> bool:
        """Sends a notification, unless the host does not keep up; whether it was sent."""
        try:
            text = to_json(params).encode("utf-8", "replace").decode()
            self._wire.send(frame(f'{{"jsonrpc":"2.0","method":"{method}","params":{text}}}'))
            return True
        except PalisadeError:
            return False

    def _progress(
        self, id: Any, done: float, total: Optional[float], message: Optional[str]
    ) -> None:
        params = {"id": id, "done": done}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = str(message)[:2000]
        self.notify("$/progress", params)

    def _ask(self, method: str, params: Any, wait: bool) -> "tuple[int, Reply]":
        text, reply, id = to_json(params), Reply(), next(self._ids)
        data = frame(f'{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{text}}}')
        with self._lock:
            if self._over:
                raise closed()
            if len(self._replies) >= IN_FLIGHT:
                raise PalisadeError("PAL-LIMIT", f"more than {IN_FLIGHT} requests in flight")
            self._replies[id] = reply
        try:
            self._wire.send(data, wait=wait)
        except PalisadeError:
            with self._lock:
                self._replies.pop(id, None)
            raise
        return id, reply

    def _abandon(self, id: int) -> None:
        with self._lock:
            if id not in self._replies:
                return
            self._replies[id] = None  # still in flight for the host, until it answers
        try:
            self._wire.send(
                frame(f'{{"jsonrpc":"2.0","method":"$/cancel","params":{{"id":{id}}}}}'),
                bounded=False,
            )
        except PalisadeError:
            pass

    def request_sync(self, method: str, params: Any, timeout: Optional[float]) -> Any:
        """Asks the host and waits."""
        if threading.get_ident() == self._loop_thread:
            raise RuntimeError("this would stop the event loop: await the async method instead")
        id, reply = self._ask(method, params, wait=True)
        if not reply.wait(timeout):
            self._abandon(id)
            raise PalisadeError("PAL-DEADLINE", f"{method}: no answer within {timeout} s")
        return reply.result()

    async def request(self, method: str, params: Any, timeout: Optional[float]) -> Any:
        """Asks the host and awaits."""
        import asyncio

        id, reply = self._ask(method, params, wait=False)
        try:
            return await asyncio.wait_for(self._awaited(reply), timeout)
        except asyncio.TimeoutError:
            raise PalisadeError("PAL-DEADLINE", f"{method}: no answer within {timeout} s") from None
        finally:
            self._abandon(id)  # nothing is left to abandon where the answer came

    @staticmethod
    def _awaited(reply: Reply) -> Awaitable[Any]:
        import asyncio

        loop = asyncio.get_running_loop()
        future: "asyncio.Future[Any]" = loop.create_future()

        def settle() -> None:
            if future.done():
                return
            if reply.error is not None:
                future.set_exception(reply.error)
            else:
                future.set_result(reply.value)

        def settle_soon() -> None:
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:
                pass  # the loop is closed; nobody awaits

        reply.on_done(settle_soon)
        return future

    # --- the end

    def _shut_down(self, call: Call, params: Any) -> None:
        grace = params.get("grace_ms") if isinstance(params, dict) else None
        seconds = grace / 1000 if isinstance(grace, (int, float)) else 1.0

        def shut_down() -> None:
            with self._lock:
                others = lambda: self._over or all(c is call for c in self._calls.values())
                finished = self._idle.wait_for(others, seconds * GRACE_SHARE)
                rest = [] if finished else [c for c in self._calls.values() if c is not call]
            for other in rest:
                self._cancel(other)
            error: Optional[BaseException] = None
            for handler in self._plugin._stop_handlers:
                try:
                    self._run_now(handler, seconds)
                except BaseException as e:
                    error = e
            self.finish(call, {}, error)
            # The host closes now. Should it not, the plugin ends by itself.
            self._wire.drained(1.0)
            with self._lock:
                self._idle.wait_for(lambda: self._over, 1.0)
            self._wire.close()

        threading.Thread(target=shut_down, name="palisade-shutdown", daemon=True).start()

    def _run_now(self, handler: Handler, seconds: float) -> None:
        if handler.is_async and self._loop is not None:
            import asyncio

            asyncio.run_coroutine_threadsafe(handler.function(), self._loop).result(seconds)
        else:
            handler.function()
