"""A host of one plugin, for tests: the other end of a socket pair, driven by hand."""

import json
import socket
import threading


class FakeHost:
    """Serves ``plugin`` on a thread and talks with it. Use as a context manager."""

    def __init__(self, plugin, initialize=True):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(10)
        self.lines = self.socket.makefile("rb")
        self.failure = None
        self.thread = threading.Thread(target=self._serve, args=(plugin, theirs))
        self.thread.start()
        if initialize:
            self.initialized = self.ask(1, "initialize", {"protocol": {"min": 1, "max": 1}})

    def _serve(self, plugin, theirs):
        try:
            plugin.serve(theirs)
        except BaseException as e:
            self.failure = e

    def send(self, **message):
        text = json.dumps({"jsonrpc": "2.0", **message})
        self.socket.sendall(text.encode() + b"\n")

    def next(self):
        line = self.lines.readline()
        return json.loads(line) if line else None

    def ask(self, id, method, params=None):
        """Sends a request and gives its answer; what comes before it is dropped."""
        self.send(id=id, method=method, params=params)
        while True:
            message = self.next()
            if message is None or message.get("id") == id and "method" not in message:
                return message

    def call(self, id, tool, **args):
        return self.ask(id, "call", {"tool": tool, "args": args})

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join(10)
        self.lines.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        assert not self.thread.is_alive(), "the plugin did not end with its connection"
