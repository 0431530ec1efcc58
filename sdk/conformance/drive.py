#!/usr/bin/env python3
"""Drives a plugin through the conformance cases.

    drive.py plugins/python                  all cases, for a reference plugin
    drive.py plugins/python cancel shutdown  cases whose name holds one of these texts
    drive.py --protocol FOLDER -- COMMAND…   the cases that every plugin passes, for any plugin
    drive.py --lacks threads FOLDER …        without the cases that need threads, with those for who lacks them

A reference plugin is a folder with conformance.json: {"command": [...], "lacks": [...]}; a command after
`--` takes its place. Each case starts the plugin afresh, with one end of a socket pair as descriptor 3.
README.md describes the cases' form. Only Python's standard library is used.
"""

import glob
import json
import os
import select
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 30.0  # seconds for anything that must come; a machine with much else to do is slow, not wrong
INITIALIZE = {
    "id": 1,
    "method": "initialize",
    "params": {
        "protocol": {"min": 1, "max": 1},
        "features": [],
        "host": {"name": "drive", "version": "1.0.0"},
        "plugin": {"id": "conformance"},
        "config": {"greeting": "Hello"},
        "rights": ["tool:echo"],
    },
}
TYPES = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list,
    "object": dict, "null": type(None),
}

if hasattr(sys, "set_int_max_str_digits"):
    sys.set_int_max_str_digits(0)  # a plugin may give back more digits than Python reads by default


class Mismatch(Exception):
    """The plugin did something else than the case says."""


def short(value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 600 else f"{text[:300]} … {text[-200:]} ({len(text)} characters)"


def build(value, bound):
    """A message of a case with its generated parts filled in."""
    if isinstance(value, dict):
        if "$repeat" in value:
            text, times = value["$repeat"]
            return text * times
        if "$nest" in value:
            nested = []
            for _ in range(value["$nest"] - 1):
                nested = [nested]
            return nested
        if "$ref" in value:
            return bound[value["$ref"]]
        return {key: build(item, bound) for key, item in value.items()}
    if isinstance(value, list):
        return [build(item, bound) for item in value]
    return value


def match(pattern, value, bound, path="message"):
    """Whether a value fits; what it binds goes into `bound`. Raises Mismatch that says where not."""

    def need(condition):
        if not condition:
            raise Mismatch(f"{path}: expected {short(pattern)}, got {short(value)}")

    if isinstance(pattern, dict) and len(pattern) == 1 and next(iter(pattern)).startswith("$"):
        (rule, argument), = pattern.items()
        if rule == "$any":
            return
        if rule == "$bind":
            bound[argument] = value
        elif rule == "$type":
            need(isinstance(value, TYPES[argument]))
            need(argument == "boolean" or not isinstance(value, bool))
        elif rule == "$contains":
            need(isinstance(value, str) and argument in value)
        elif rule == "$repeat":
            need(value == argument[0] * argument[1])
        elif rule == "$nest":
            need(value == build(pattern, bound))
        elif rule == "$ref":
            need(value == bound[argument])
        elif rule == "$exactly":
            need(same(argument, value))
        elif rule == "$one_of":
            for each in argument:
                try:
                    return match(each, value, bound, path)
                except Mismatch:
                    pass
            need(False)
        else:
            raise ValueError(f"no such rule: {rule}")
    elif isinstance(pattern, dict):
        need(isinstance(value, dict))
        for key, item in pattern.items():
            if item == {"$absent": True}:
                need(key not in value)
            else:
                need(key in value)
                match(item, value[key], bound, f"{path}.{key}")
    elif isinstance(pattern, list):
        need(isinstance(value, list) and len(value) == len(pattern))
        for i, item in enumerate(pattern):
            match(item, value[i], bound, f"{path}[{i}]")
    else:
        need(same(pattern, value))


def same(a, b):
    """Equality as JSON has it: true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


class Plugin:
    """The plugin as a process, and our end of its socket."""

    def __init__(self, folder, command):
        self.socket, theirs = socket.socketpair()
        self.buffer = b""

        def place():  # in the child: only descriptor 3 reaches the program
            os.dup2(theirs.fileno(), 3)

        self.process = subprocess.Popen(
            command, cwd=folder, preexec_fn=place, pass_fds=(3,), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        theirs.close()
        self.output = b""
        os.set_blocking(self.process.stdout.fileno(), False)

    def drain(self):
        data = self.process.stdout.read(1 << 16)
        self.output += data or b""
        return bool(data)

    def send(self, line):
        """Sends while reading, as the protocol asks of both sides."""
        data, deadline = memoryview(line), time.monotonic() + PATIENCE
        while data:
            if time.monotonic() > deadline:
                raise Mismatch("the plugin does not read")
            self.drain()
            readable, writable, _ = select.select([self.socket], [self.socket], [], 0.5)
            if readable:
                more = self.socket.recv(1 << 16)
                if not more:
                    raise Mismatch("the plugin closed the connection")
                self.buffer += more
            if writable:
                data = data[self.socket.send(data[: 1 << 16], socket.MSG_DONTWAIT) :]

    def line(self, seconds):
        """The next line, None at the end of the stream; TimeoutError."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.drain()
            if select.select([self.socket], [], [], min(left, 0.1))[0]:
                try:
                    more = self.socket.recv(1 << 20)
                except ConnectionResetError:
                    more = b""
                if not more:
                    return None
                self.buffer += more
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line

    def exit(self, seconds=PATIENCE):
        """The exit status; the output is complete then."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise Mismatch(f"it did not exit within {seconds:g} s")
            self.drain()
            time.sleep(0.005)
        while self.drain():
            pass
        return self.process.returncode

    def end(self):
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Run:
    """One case on one plugin."""

    def __init__(self, case, plugin):
        self.case, self.plugin, self.bound = case, plugin, {}
        self.ignored = case.get("ignore", [{"method": "log"}])

    def message(self, seconds):
        """The next message that is not ignored, and its text."""
        deadline = time.monotonic() + seconds
        while True:
            line = self.plugin.line(max(0.0, deadline - time.monotonic()))
            if line is None:
                raise Mismatch("the plugin closed the connection")
            if len(line) > 4 << 20:
                raise Mismatch(f"a message of {len(line)} bytes")
            text = line.decode("utf-8", "backslashreplace")
            try:
                message = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as e:
                raise Mismatch(f"not a message: {short(text)}: {e}") from None
            if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
                raise Mismatch(f"not a message: {short(text)}")
            if not any(self.fits(pattern, message) for pattern in self.ignored):
                return message, text

    def fits(self, pattern, message):
        try:
            match(pattern, message, dict(self.bound))
            return True
        except Mismatch:
            return False

    def expect(self, step):
        patterns = step.get("expect_in_any_order") or [step["expect"]]
        begun = time.monotonic()
        for _ in list(patterns):
            try:
                message, text = self.message(step.get("within_ms", PATIENCE * 1000) / 1000)
            except TimeoutError:
                raise Mismatch(f"nothing came; expected {short(patterns)}") from None
            if len(patterns) == 1:
                match(patterns[0], message, self.bound)
                patterns = []
            else:
                found = next((p for p in patterns if self.fits(p, message)), None)
                if found is None:
                    raise Mismatch(f"expected one of {short(patterns)}, got {short(text)}")
                match(found, message, self.bound)
                patterns = [p for p in patterns if p is not found]
            for part in step.get("raw_contains", []):
                if part not in text:
                    raise Mismatch(f"expected the text {part!r} in {short(text)}")
        at_least = step.get("not_before_ms", 0) / 1000
        if time.monotonic() - begun < at_least:
            raise Mismatch(f"came before {at_least:g} s had passed")

    def step(self, step):
        if "send" in step:
            message = build({"jsonrpc": "2.0", **step["send"]}, self.bound)
            self.plugin.send(json.dumps(message, ensure_ascii=False).encode() + b"\n")
        elif "send_line" in step:
            parts = step["send_line"]
            parts = [parts] if isinstance(parts, str) else build(parts, self.bound)
            self.plugin.send("".join(parts).encode() + b"\n")
        elif "expect" in step or "expect_in_any_order" in step:
            self.expect(step)
        elif "silence_ms" in step:
            try:
                message, text = self.message(step["silence_ms"] / 1000)
            except TimeoutError:
                return
            raise Mismatch(f"expected nothing, got {short(text)}")
        elif "close" in step:
            self.plugin.socket.shutdown(socket.SHUT_RDWR)
        elif "exit" in step:
            status = self.plugin.exit()
            if status != step["exit"] and step["exit"] != "any":
                raise Mismatch(f"exit status {status}, expected {step['exit']}")
        elif "output" in step:
            self.plugin.drain()
            if step["output"] not in self.plugin.output.decode("utf-8", "replace"):
                raise Mismatch(f"no {step['output']!r} in its output")
        else:
            raise ValueError(f"not a step: {step}")

    def all(self):
        steps = list(self.case["steps"])
        if self.case.get("initialize", True):
            answer = {"id": 1, "result": {"protocol": 1}}
            steps = [{"send": INITIALIZE}, {"expect": answer}, *steps]
        if not any("exit" in step for step in steps):
            steps += [{"close": True}, {"exit": 0}]
        for i, step in enumerate(steps):
            try:
                self.step(step)
            except (Mismatch, OSError) as e:
                raise Mismatch(f"step {i + 1} ({next(iter(step))}): {e}") from None


def load(words, files):
    names = set()
    for path in sorted(glob.glob(os.path.join(HERE, "cases", files))):
        with open(path, encoding="utf-8") as file:
            for case in json.load(file):
                if case["name"] in names:
                    raise SystemExit(f"{path}: two cases are called {case['name']!r}")
                names.add(case["name"])
                if not words or any(word in case["name"] for word in words):
                    yield case


def main():
    args, command = sys.argv[1:], None
    if "--" in args:
        at = args.index("--")
        args, command = args[:at], args[at + 1 :]
    words, lacks, protocol_only = [], [], False
    while args:
        arg = args.pop(0)
        if arg == "--protocol":
            protocol_only = True
        elif arg == "--lacks" and args:
            lacks.append(args.pop(0))
        else:
            words.append(arg)
    if not words or command == []:
        raise SystemExit(__doc__)
    folder = os.path.abspath(words.pop(0))
    about = {"command": command, "lacks": lacks}
    if command is None:
        with open(os.path.join(folder, "conformance.json"), encoding="utf-8") as file:
            about = json.load(file)
    if about["command"][0] == "python3":
        about["command"][0] = sys.executable  # what a wrapper on PATH would find at each start
    passed = failed = lacking = 0
    for case in load(words, "protocol.json" if protocol_only else "*.json"):
        if any(lack not in about["lacks"] for lack in case.get("without", [])):
            continue  # says what holds where something is lacking
        missing = [need for need in case.get("needs", []) if need in about["lacks"]]
        if missing:
            lacking += 1
            print(f"lacks   {case['name']} ({', '.join(missing)})")
            continue
        plugin = Plugin(folder, about["command"])
        try:
            Run(case, plugin).all()
            passed += 1
            print(f"ok      {case['name']}")
        except Mismatch as e:
            failed += 1
            plugin.drain()
            print(f"FAILED  {case['name']}: {e}")
            for line in plugin.output.decode("utf-8", "replace").splitlines()[-20:]:
                print(f"        | {line}")
        finally:
            plugin.end()
    print(f"{passed} passed, {failed} failed, {lacking} not possible in this language")
    if not passed + failed + lacking:
        raise SystemExit("no case has such a name")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
