"""JSON as texts that may be sent: what is too deep, too long or half a character is refused here, before
it ends a connection."""

import json
import re
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, List, Tuple

from ._errors import PalisadeError

FRAME_BYTES = 4 << 20  # one message, without the line break
DEPTH_LEVELS = 64  # the message itself is the first


class Breach(Exception):
    """The other side broke the protocol; the connection is over."""


def _plain(value: Any) -> Any:
    """What json does not know."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} is not JSON")


_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode


def _too_deep(value: Any, levels: int) -> bool:
    row: List[Any] = [value]
    for _ in range(levels + 1):
        below: List[Any] = []
        for item in row:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, (list, tuple)):
                below.extend(item)
            elif is_dataclass(item) and not isinstance(item, type):
                below.extend(getattr(item, field.name) for field in fields(item))
            else:
                continue
            if not below:
                below.append(None)  # an empty list is a level too
        if not below:
            return False
        row = below
    return True


def to_json(value: Any, inside: int = 1) -> str:
    """JSON text that may stand ``inside`` levels deep in a message, or PAL-PARAMS."""
    try:
        text = _encode(value)
    except RecursionError:
        raise PalisadeError("PAL-PARAMS", "not sendable: nested too deep") from None
    except (TypeError, ValueError) as e:
        raise PalisadeError("PAL-PARAMS", f"not sendable: {e}") from None
    levels = DEPTH_LEVELS - inside
    if text.count("{") + text.count("[") > levels and _too_deep(value, levels):
        raise PalisadeError("PAL-PARAMS", f"not sendable: nested more than {levels} deep")
    return text


def frame(text: str) -> bytes:
    """A message as it is sent, or PAL-LIMIT, PAL-PARAMS."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:  # it would end the connection; better one failed request
        raise PalisadeError("PAL-PARAMS", "not sendable: half a surrogate pair") from None
    if len(data) > FRAME_BYTES:
        raise PalisadeError("PAL-LIMIT", f"the message is longer than {FRAME_BYTES} bytes")
    return data + b"\n"


_LONG_NUMBER = re.compile(r"-?[0-9]{4000,}")


def parse(line: bytes) -> Tuple[Any, bool]:
    """A message, and whether it holds a number that Python refuses to read (over 4300 digits).

    Such a number stands as 0 then, so that at least the id is known.
    """
    try:
        text = line.decode("utf-8")
        try:
            return json.loads(text), False
        except json.JSONDecodeError:
            raise
        except ValueError:

            def short(digits: str) -> int:
                return 0 if _LONG_NUMBER.match(digits) else int(digits)

            return json.loads(text, parse_int=short), True
    except (ValueError, RecursionError) as e:
        raise Breach(f"not a message: {e}") from None


def closed() -> PalisadeError:
    """What a request fails with once the host is gone."""
    return PalisadeError("PAL-UNAVAILABLE", "the connection with the host is closed")
