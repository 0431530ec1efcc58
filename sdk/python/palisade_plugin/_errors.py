"""Errors as they stand on the wire: a stable text, a number, one sentence."""

from typing import Any, Dict, Optional

NUMBERS = {
    "PAL-NOT-FOUND": -32601,
    "PAL-PARAMS": -32602,
    "PAL-USAGE": -32602,
    "PAL-MANIFEST": -32602,
    "PAL-INTERNAL": -32603,
    "PAL-DENIED": -32001,
    "PAL-RATE": -32002,
    "PAL-CONFLICT": -32003,
    "PAL-DEADLINE": -32004,
    "PAL-CANCELLED": -32005,
    "PAL-LIMIT": -32006,
    "PAL-PLUGIN": -32007,
    "PAL-PROTOCOL": -32008,
    "PAL-CRASHED": -32009,
    "PAL-POLICY-KILL": -32010,
    "PAL-NO-BACKEND": -32011,
    "PAL-RECORD": -32012,
    "PAL-UNAVAILABLE": -32013,
}
# Of several texts with one number the first stands for it.
CODES: Dict[int, str] = {}
for _code, _number in NUMBERS.items():
    CODES.setdefault(_number, _code)

# The host cuts at 2000 characters; a longer text would only cost room.
MAX_TEXT = 2000


class PalisadeError(Exception):
    """A request failed. Raised by requests to the host; raise it in a handler to answer with it.

    Match on ``code``, never on ``message``. ``retry_after`` is in seconds. Of a plugin's errors the
    host believes PAL-NOT-FOUND, PAL-PARAMS, PAL-CONFLICT, PAL-CANCELLED and PAL-UNAVAILABLE; any
    other counts as PAL-PLUGIN.
    """

    def __init__(
        self,
        code: str,
        message: str,
        rule: Optional[str] = None,
        hint: Optional[str] = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.rule = rule
        self.hint = hint
        self.retry_after = retry_after

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text

    def to_wire(self) -> Dict[str, Any]:
        """The JSON-RPC error object."""
        data: Dict[str, Any] = {"code": self.code}
        if self.rule is not None:
            data["rule"] = self.rule[:MAX_TEXT]
        if self.hint is not None:
            data["hint"] = self.hint[:MAX_TEXT]
        if self.retry_after is not None:
            data["retry_after_ms"] = max(0, round(self.retry_after * 1000))
        number = NUMBERS.get(self.code, -32000)
        return {"code": number, "message": self.message[:MAX_TEXT], "data": data}

    @classmethod
    def from_wire(cls, error: Any) -> "PalisadeError":
        """Reads an error object; what has another shape than it should is left out."""
        error = error if isinstance(error, dict) else {}
        data = error.get("data")
        data = data if isinstance(data, dict) else {}

        def text(key: str) -> Optional[str]:
            value = data.get(key)
            return value if isinstance(value, str) else None

        number, wait = error.get("code"), data.get("retry_after_ms")
        by_number = CODES.get(number) if isinstance(number, int) else None
        return cls(
            text("code") or by_number or "PAL-INTERNAL",
            str(error.get("message", "")),
            text("rule"),
            text("hint"),
            wait / 1000 if isinstance(wait, (int, float)) else None,
        )


class Veto(Exception):
    """Raised in a hook: what the hook is about shall not happen. ``reason`` is shown to people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def from_exception(error: BaseException) -> PalisadeError:
    """What a failed handler is answered with."""
    if isinstance(error, PalisadeError):
        return error
    text = str(error)
    name = type(error).__name__
    return PalisadeError("PAL-PLUGIN", f"{name}: {text}" if text else name)
