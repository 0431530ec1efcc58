"""Makes a WebAssembly component of a plugin: `python -m palisade_plugin build`.

componentize-py does the work (`pip install componentize-py`). A component that waits for a file or the
network of its own has no use for this: WASI is left out unless `--wasi` asks for it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

_ENTRY = """\
import {app}
from palisade_plugin._component import exports

Guest, Events, Hooks, Commands, Configure, State, Shutdown = exports({app}, {without_wasi})
"""


def _compiler() -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "componentize-py")
    found = beside if os.path.exists(beside) else shutil.which("componentize-py")
    if found is None:
        raise SystemExit("componentize-py is missing. Install it with\n  pip install componentize-py")
    return found


def build(app: str, world: str, output: str, wasi: bool) -> int:
    """Makes the component; gives the exit status of componentize-py."""
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory(prefix="palisade-") as work:
        deps = os.path.join(work, "wit", "deps", "palisade-plugin")
        shutil.copytree(os.path.join(here, "wit"), deps)
        shutil.copy(world, os.path.join(work, "wit", "world.wit"))
        code = os.path.join(work, "code")
        os.mkdir(code)
        with open(os.path.join(code, "palisade_entry.py"), "w", encoding="utf-8") as file:
            file.write(_ENTRY.format(app=app, without_wasi=not wasi))
        command = [_compiler(), "-q", "-d", os.path.join(work, "wit"), "componentize"]
        command += [] if wasi else ["--stub-wasi"]
        command += ["-p", os.getcwd(), "-p", os.path.dirname(here), "-p", code]
        command += ["palisade_entry", "-o", output]
        return subprocess.run(command).returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m palisade_plugin")
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build", help="make a WebAssembly component of the plugin")
    builder.add_argument("--app", default="main", help="the module that holds the plugin")
    builder.add_argument("--world", default="world.wit", help="what the component imports")
    builder.add_argument("--wasi", action="store_true", help="leave WASI in: files, clocks, streams")
    builder.add_argument("-o", "--output", default="plugin.wasm")
    args = parser.parse_args()
    return build(args.app, args.world, args.output, args.wasi)


if __name__ == "__main__":
    sys.exit(main())
