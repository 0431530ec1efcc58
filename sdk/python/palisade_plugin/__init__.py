"""Write plugins for Palisade.

    from palisade_plugin import Plugin

    plugin = Plugin()

    @plugin.tool
    def greet(name: str) -> str:
        "Greets somebody."
        return f"Hello, {name}!"

    plugin.run()

The wire is described in docs/reference/protocol.md. Nothing outside the standard library is used.
"""

from ._call import Call
from ._errors import PalisadeError, Veto
from ._parts import CommandResult, Event, Host, Log, Published, State
from ._plugin import Plugin
from ._services import (
    Compared,
    Entry,
    Http,
    Listing,
    Operation,
    Response,
    Storage,
    Transaction,
)

__version__ = "0.1.0"

__all__ = [
    "Call",
    "CommandResult",
    "Compared",
    "Entry",
    "Event",
    "Host",
    "Http",
    "Listing",
    "Log",
    "Operation",
    "PalisadeError",
    "Plugin",
    "Published",
    "Response",
    "State",
    "Storage",
    "Transaction",
    "Veto",
    "__version__",
]
