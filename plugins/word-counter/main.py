"""Counts words. Speaks Palisade's protocol on handle 3 with nothing but the standard library.

One JSON-RPC message a line, in both directions. `print` is free for debugging: standard output and
standard error are log streams.
"""

import collections
import json
import os
import re
import socket

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
MAX_FILE = 64 << 20

wire = socket.socket(fileno=3)
# Two files: writing to a text file that is also read throws away what it had read ahead.
lane = wire.makefile("r", encoding="utf-8", newline="\n")
answers = wire.makefile("w", encoding="utf-8", newline="\n")


def send(message):
    answers.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    answers.flush()


def log(level, text, **fields):
    send({"method": "log", "params": {"level": level, "message": text, "fields": fields}})


class Refused(Exception):
    """An answer with a JSON-RPC error."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def text_files(path):
    if not os.path.isdir(path):
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = os.path.join(folder, name)
            if os.path.isfile(file) and not os.path.islink(file):
                yield file


def count(path, top=5):
    words, files = collections.Counter(), 0
    for file in text_files(path):
        if os.path.getsize(file) > MAX_FILE:
            log("warn", "left out: larger than 64 MiB", file=file)
            continue
        with open(file, encoding="utf-8", errors="replace") as text:
            for line in text:
                words.update(word.lower() for word in WORD.findall(line))
        files += 1
    frequent = sorted(words.items(), key=lambda entry: (-entry[1], entry[0]))[:top]
    return {
        "files": files,
        "words": sum(words.values()),
        "top": [{"word": word, "count": number} for word, number in frequent],
    }


def answer(method, params):
    if method == "initialize":
        versions = params["protocol"]
        if not versions["min"] <= 1 <= versions["max"]:
            raise Refused(-32602, "word-counter speaks version 1 of the protocol")
        log("info", "ready", rights=len(params.get("rights", [])))
        return {"protocol": 1, "plugin": {"name": "word-counter", "version": "1.0.0"}}
    if method == "ping" or method == "shutdown":
        return {}
    if method == "call" and params["tool"] == "count":
        # The host has checked the arguments against the manifest's schema.
        try:
            return count(**params["args"])
        except OSError as error:
            raise Refused(-32000, f"cannot read {error.filename}: {error.strerror}") from error
    raise Refused(-32601, f"no such method or tool: {method}")


for line in lane:
    message = json.loads(line)
    if "method" not in message or "id" not in message:
        continue  # An answer that nobody waits for, or a notification such as $/cancel.
    try:
        send({"id": message["id"], "result": answer(message["method"], message.get("params") or {})})
    except Refused as refused:
        send({"id": message["id"], "error": {"code": refused.code, "message": str(refused)}})
    if message["method"] == "shutdown":
        break
