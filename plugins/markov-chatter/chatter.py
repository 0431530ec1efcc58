"""A Markov chain over pairs of words, as a plugin of a JSON-lines host.

One `{"id", "method", "params"}` a line on standard input, one `{"id", "result"}` or `{"id", "error"}` on
standard output. It would run under any host that speaks so; nothing here knows of Palisade but the place
where it keeps its model.
"""

import json
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(os.environ.get("HOME", "/data"), "model.json")
# The model on disk stays far below what the manifest asks for.
MOST_PAIRS = 50_000
MOST_FOLLOWERS = 50


class Chain:
    def __init__(self):
        self.followers = {}

    def learn(self, text):
        words = text.split()
        for first, second, third in zip(words, words[1:], words[2:]):
            known = self.followers.get(f"{first} {second}")
            if known is None and len(self.followers) >= MOST_PAIRS:
                break
            known = self.followers.setdefault(f"{first} {second}", [])
            if len(known) < MOST_FOLLOWERS:
                known.append(third)
        return len(words)

    def say(self, words, seed=None):
        chance = random.Random(seed)
        # Sorted, so that the same seed says the same whatever order was learnt in.
        pairs = sorted(self.followers)
        if not pairs:
            raise ValueError("nothing learnt yet")
        starts = [pair for pair in pairs if pair[0].isupper()] or pairs
        said = chance.choice(starts).split(" ")
        while len(said) < words:
            known = self.followers.get(" ".join(said[-2:]))
            said += [chance.choice(known)] if known else chance.choice(starts).split(" ")
        return " ".join(said[:words])

    def load(self, path):
        with open(path, encoding="utf-8") as file:
            self.followers = json.load(file)

    def save(self, path):
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(self.followers, file)
        os.replace(path + ".new", path)


chain = Chain()


def answer(method, params):
    if method in ("initialize", "init"):
        try:
            chain.load(MODEL)
            learnt = "before"
        except (FileNotFoundError, ValueError):
            with open(os.path.join(HERE, "corpus.txt"), encoding="utf-8") as corpus:
                chain.learn(corpus.read())
            chain.save(MODEL)
            learnt = "now"
        print(f"learnt {learnt}: {len(chain.followers)} pairs of words", file=sys.stderr)
        return {"pairs": len(chain.followers)}
    if method == "call" and params.get("tool") == "say":
        return {"text": chain.say(**params["args"])}
    if method == "call" and params.get("tool") == "learn":
        words = chain.learn(params["args"]["text"])
        chain.save(MODEL)
        return {"words": words, "pairs": len(chain.followers)}
    if method == "shutdown":
        return {}
    raise ValueError(f"unknown method {method}")


for line in sys.stdin:
    request = json.loads(line)
    try:
        reply = {"id": request["id"], "result": answer(request["method"], request.get("params") or {})}
    except (ValueError, OSError) as error:
        reply = {"id": request["id"], "error": str(error)}
    print(json.dumps(reply), flush=True)
    if request["method"] == "shutdown":
        break
