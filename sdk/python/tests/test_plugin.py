import asyncio
import contextlib
import io
import threading
import time
import unittest

from palisade_plugin import Call, CommandResult, PalisadeError, Plugin, Veto
from palisade_plugin._pool import Pool
from palisade_plugin._session import IN_FLIGHT

from .host import FakeHost


class Declaring(unittest.TestCase):
    def test_names_are_checked(self):
        plugin = Plugin()
        plugin.tool(name="a")(lambda: 1)
        for mistake in (
            lambda: plugin.tool(name="a")(lambda: 2),
            lambda: plugin.tool(name="x" * 129)(lambda: 2),
            lambda: plugin.event("a..b"),
            lambda: plugin.event("a.>.b"),
            lambda: plugin.event("a*"),
            lambda: plugin.hook("h", priority=1001),
            lambda: Plugin(threads=0),
        ):
            with self.assertRaises(ValueError):
                mistake()

    def test_contributes_is_what_the_manifest_needs(self):
        plugin = Plugin()

        @plugin.tool
        def greet(name: str) -> str:
            """Greets
            somebody.

            More."""
            return name

        @plugin.command(description="Statistics.")
        def stats(args):
            return None

        plugin.hook("b", priority=70)(lambda data: None)
        plugin.hook("b", priority=20)(lambda data: None)
        self.assertEqual(
            plugin.contributes(),
            {
                "tools": [
                    {
                        "name": "greet",
                        "description": "Greets somebody.",
                        "input": {
                            "type": "object",
                            "properties": {"name": {"type": "string"}},
                            "required": ["name"],
                            "additionalProperties": False,
                        },
                    }
                ],
                "commands": [{"name": "stats", "description": "Statistics."}],
                "hooks": [{"event": "b", "priority": 20}],
            },
        )

    def test_a_decorated_function_stays_what_it_was(self):
        plugin = Plugin()

        @plugin.tool
        def add(a: int, b: int) -> int:
            return a + b

        self.assertEqual(add(1, 2), 3)

    def test_started_by_hand_it_says_so(self):
        with self.assertRaisesRegex(SystemExit, "palisade run"):
            Plugin().run(fd=9999)

    def test_what_needs_a_host_says_so_without_one(self):
        plugin = Plugin()
        with self.assertRaises(RuntimeError):
            plugin.publish_sync("a", 1)
        with self.assertRaises(RuntimeError):
            plugin.current()


def ended(prefix):
    """The threads with such a name that are still there after a while."""
    deadline = time.monotonic() + 5
    while True:
        left = [t.name for t in threading.enumerate() if t.name.startswith(prefix)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.01)


class Serving(unittest.TestCase):
    def test_functions_and_coroutines_know_their_call(self):
        plugin = Plugin()

        @plugin.tool
        def sync(call: Call) -> list:
            return [call.id, plugin.current() is call, threading.current_thread().name]

        @plugin.tool
        async def coroutine() -> list:
            await asyncio.sleep(0)
            return [plugin.current().id, threading.current_thread().name]

        with FakeHost(plugin) as host:
            self.assertEqual(host.call(5, "sync")["result"], [5, True, "palisade-worker"])
            id, name = host.call(6, "coroutine")["result"]
            self.assertEqual((id, name), (6, host.thread.name))

    def test_without_coroutines_there_is_no_loop_and_no_further_thread(self):
        plugin = Plugin()
        plugin.tool(name="threads")(lambda: sorted(t.name for t in threading.enumerate()))
        with FakeHost(plugin) as host:
            expected = sorted(["MainThread", "palisade-worker", host.thread.name])
            self.assertEqual(host.call(2, "threads")["result"], expected)
        self.assertEqual(ended("palisade-"), [], "threads are left over")

    def test_a_mixed_chain_runs_in_order(self):
        plugin, seen = Plugin(), []

        @plugin.hook("h", priority=1)
        def first(data):
            seen.append(threading.current_thread().name)
            return data + ["first"]

        @plugin.hook("h", priority=2)
        async def second(data):
            return data + ["second"]

        with FakeHost(plugin) as host:
            answer = host.ask(2, "hook", {"hook": "h", "data": []})
        self.assertEqual(answer["result"], {"data": ["first", "second"]})
        self.assertEqual(seen, ["palisade-worker"])

    def test_a_veto_ends_the_chain(self):
        plugin, seen = Plugin(), []

        @plugin.hook("h")
        def refuse(data):
            raise Veto("no")

        plugin.hook("h", priority=51)(seen.append)
        with FakeHost(plugin) as host:
            self.assertEqual(
                host.ask(2, "hook", {"hook": "h", "data": 1})["result"], {"veto": "no"}
            )
        self.assertEqual(seen, [])

    def test_sys_exit_in_a_handler_fails_the_call_only(self):
        plugin = Plugin()

        @plugin.tool
        async def leave() -> None:
            raise SystemExit(3)

        @plugin.tool
        def leave_too() -> None:
            raise KeyboardInterrupt

        with contextlib.redirect_stderr(io.StringIO()), FakeHost(plugin) as host:
            self.assertEqual(host.call(2, "leave")["error"]["message"], "SystemExit: 3")
            self.assertEqual(host.call(3, "leave_too")["error"]["message"], "KeyboardInterrupt")
            self.assertEqual(host.ask(4, "ping")["result"], {})

    def test_a_start_handler_that_fails_fails_the_start(self):
        plugin = Plugin()

        @plugin.start
        def begin():
            raise PalisadeError("PAL-PARAMS", "no greeting configured")

        with FakeHost(plugin) as host:
            self.assertEqual(host.initialized["error"]["message"], "no greeting configured")

    def test_waiting_in_the_loop_is_refused(self):
        plugin = Plugin()

        @plugin.tool
        async def wrong() -> None:
            plugin.publish_sync("a", 1)

        with contextlib.redirect_stderr(io.StringIO()), FakeHost(plugin) as host:
            self.assertIn("event loop", host.call(2, "wrong")["error"]["message"])

    def test_requests_in_flight_have_a_bound(self):
        plugin = Plugin()

        @plugin.tool
        async def many() -> str:
            asks = [plugin.host.call("slow") for _ in range(IN_FLIGHT + 1)]
            try:
                await asyncio.gather(*asks)
            except PalisadeError as e:
                return e.code
            return "none"

        with FakeHost(plugin) as host:
            self.assertEqual(host.call(2, "many")["result"], "PAL-LIMIT")

    def test_what_waits_for_the_host_fails_when_it_goes(self):
        plugin, codes = Plugin(), []

        @plugin.tool
        def ask() -> None:
            try:
                plugin.host.call_sync("slow")
            except PalisadeError as e:
                codes.append(e.code)

        with FakeHost(plugin) as host:
            host.send(id=2, method="call", params={"tool": "ask", "args": {}})
            self.assertEqual(host.next()["method"], "host.call")
        deadline = time.monotonic() + 5
        while not codes and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(codes, ["PAL-UNAVAILABLE"])

    def test_log_fields_that_are_not_json_are_shown_as_text(self):
        plugin = Plugin()

        @plugin.tool
        def speak() -> None:
            plugin.log.warn(
                "half \ud83d",
                what={
                    1,
                },
                big="x" * 5000,
            )

        with FakeHost(plugin) as host:
            host.send(id=2, method="call", params={"tool": "speak", "args": {}})
            params = host.next()["params"]
        self.assertEqual((params["level"], params["message"]), ("warn", "half ?"))
        self.assertEqual(params["fields"]["what"], "{1}")
        self.assertLessEqual(len(params["fields"]["big"]), 1024)

    def test_an_own_schema_is_announced_and_not_checked(self):
        plugin = Plugin()
        schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}}

        @plugin.tool(input_schema=schema)
        def take(**args) -> dict:
            return args

        with FakeHost(plugin) as host:
            self.assertEqual(host.initialized["result"]["tools"][0]["input_schema"], schema)
            self.assertEqual(host.call(2, "take", n="x")["result"], {"n": "x"})

    def test_a_command_gives_what_it_may(self):
        plugin, results = Plugin(), [None, "text", 3, CommandResult(4, "both")]

        @plugin.command
        def run(args):
            return results[int(args[0])]

        with FakeHost(plugin) as host:
            answers = [
                host.ask(i + 2, "run_command", {"command": "run", "args": [str(i)]})["result"]
                for i in range(4)
            ]
        self.assertEqual(
            [(a["status"], a["output"]) for a in answers],
            [(0, ""), (0, "text"), (3, ""), (4, "both")],
        )

    def test_a_hint_without_schema_stops_the_plugin_before_it_starts(self):
        plugin = Plugin()

        @plugin.tool
        def bad(data: bytes) -> None:
            pass

        host = FakeHost(plugin, initialize=False)
        host.thread.join(5)
        host.close()
        self.assertIsInstance(host.failure, TypeError)


class Threads(unittest.TestCase):
    def test_the_pool_makes_no_more_threads_than_needed(self):
        pool, names, lock = Pool(3), set(), threading.Lock()
        done = threading.Semaphore(0)

        def job():
            with lock:
                names.add(threading.get_ident())
            done.release()

        for _ in range(20):
            pool.submit(job)
            done.acquire(timeout=5)
            time.sleep(0.005)  # the worker goes back to wait
        self.assertEqual(len(names), 1)

    def test_the_pool_keeps_to_its_bound_and_loses_nothing(self):
        pool, running, most, lock = Pool(3), [0], [0], threading.Lock()
        done = threading.Semaphore(0)

        def job():
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.01)
            with lock:
                running[0] -= 1
            done.release()

        for _ in range(30):
            pool.submit(job)
        for _ in range(30):
            self.assertTrue(done.acquire(timeout=5), "a job was lost")
        self.assertEqual(most[0], 3)


if __name__ == "__main__":
    unittest.main()
