"""What the host does for a plugin by name: what it keeps, requests to the web, secrets.

Each method has a form for coroutines and, with ``_sync`` at its end, one for functions. Both are made of
the same request: method, parameters, and how its result is read.
"""

import base64
import json
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from ._errors import PalisadeError

if TYPE_CHECKING:
    from ._plugin import Plugin

Request = Tuple[str, Dict[str, Any], Callable[[Any], Any]]
Headers = Union[Mapping[str, str], Iterable[Tuple[str, str]]]


class Entry(NamedTuple):
    """An entry of the storage. ``ttl``: in how many seconds it expires, None: never."""

    key: str
    value: Any
    version: int
    ttl: Optional[float]


class Compared(NamedTuple):
    """What came of `compare_and_set`: whether it was written, and the version that the entry has now
    (0: there is none)."""

    stored: bool
    version: int


class Listing(NamedTuple):
    """One page of a listing, in the order of the keys. ``next``: where there are more, what to go on
    after. A page may be empty and yet have a next one."""

    entries: List[Entry]
    next: Optional[str]


class Transaction(NamedTuple):
    """What came of a transaction: everything was done, or nothing was.

    ``versions``: for each operation the version that its entry had then (0: there was none).
    ``conflict``: which operation, from 0, found another version than it named; ``found``: which one.
    """

    committed: bool
    versions: List[int]
    conflict: Optional[int]
    found: Optional[int]


class Operation:
    """One operation of a transaction. With ``version`` only if the entry has it; 0: if there is none."""

    __slots__ = ("fields",)

    def __init__(self, fields: Dict[str, Any]) -> None:
        self.fields = fields

    @classmethod
    def set(
        cls, key: str, value: Any, *, version: Optional[int] = None, ttl: Optional[float] = None
    ) -> "Operation":
        """Writes a value; it expires after ``ttl`` seconds."""
        return cls(_fields(op="set", key=key, version=version, ttl_ms=_ms(ttl), value=(value,)))

    @classmethod
    def delete(cls, key: str, *, version: Optional[int] = None) -> "Operation":
        """Deletes an entry, if there is one."""
        return cls(_fields(op="delete", key=key, version=version))

    @classmethod
    def check(cls, key: str, version: int) -> "Operation":
        """Does nothing but hold a version against the entry."""
        return cls(_fields(op="check", key=key, version=version))


class Response(NamedTuple):
    """An answer of the web, whichever its status: 404 is one. Header names are in lower case."""

    status: int
    headers: List[Tuple[str, str]]
    body: bytes
    url: str
    redirects: int

    def header(self, name: str) -> Optional[str]:
        """The first header field of this name."""
        name = name.lower()
        return next((value for each, value in self.headers if each == name), None)

    def text(self) -> str:
        """The body as text; what is not UTF-8 becomes U+FFFD."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. ValueError where it is none."""
        return json.loads(self.body)


def _ms(seconds: Optional[float]) -> Optional[int]:
    return None if seconds is None else round(seconds * 1000)


def _seconds(ms: Any) -> Optional[float]:
    return ms / 1000 if isinstance(ms, (int, float)) else None


def _fields(value: Tuple[Any, ...] = (), **fields: Any) -> Dict[str, Any]:
    """Those that are not None; ``value`` is a tuple of the value, which may be None itself."""
    result = {name: field for name, field in fields.items() if field is not None}
    if value:
        result["value"] = value[0]
    return result


def _read(method: str, read: Callable[[Dict[str, Any]], Any]) -> Callable[[Any], Any]:
    def checked(result: Any) -> Any:
        try:
            return read(result)
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            raise PalisadeError("PAL-INTERNAL", f"the answer to {method}: {e!r}") from None

    return checked


def _request(
    method: str, params: Dict[str, Any], read: Callable[[Dict[str, Any]], Any]
) -> Request:
    return method, params, _read(method, read)


class _Service:
    def __init__(self, plugin: "Plugin") -> None:
        self._plugin = plugin

    async def _ask(self, request: Request, timeout: Optional[float]) -> Any:
        method, params, read = request
        return read(await self._plugin._live().request(method, params, timeout))

    def _ask_sync(self, request: Request, timeout: Optional[float]) -> Any:
        method, params, read = request
        return read(self._plugin._live().request_sync(method, params, timeout))


def _entry(row: Dict[str, Any]) -> Entry:
    return Entry(row["key"], row.get("value"), row["version"], _seconds(row.get("ttl_ms")))


class Storage(_Service):
    """What the plugin keeps, under keys of its own. Each method needs ``storage.kv:KEY``.

    A key has 1 to 256 characters of ``A-Z a-z 0-9 . _ - : / @ $ +``, a value is any JSON of at most
    1 MiB. What was acknowledged is on disk. ``ttl`` is in seconds.
    """

    async def get(self, key: str, default: Any = None, *, timeout: Optional[float] = 30.0) -> Any:
        """The value of an entry, ``default`` where there is none."""
        return await self._ask(self._get(key, default), timeout)

    def get_sync(self, key: str, default: Any = None, *, timeout: Optional[float] = 30.0) -> Any:
        """As `get`, for functions that are not async."""
        return self._ask_sync(self._get(key, default), timeout)

    async def entry(self, key: str, *, timeout: Optional[float] = 30.0) -> Optional[Entry]:
        """An entry with its version, None where there is none."""
        found: Optional[Entry] = await self._ask(self._entry(key), timeout)
        return found

    def entry_sync(self, key: str, *, timeout: Optional[float] = 30.0) -> Optional[Entry]:
        """As `entry`, for functions that are not async."""
        found: Optional[Entry] = self._ask_sync(self._entry(key), timeout)
        return found

    async def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: Optional[float] = None,
        timeout: Optional[float] = 30.0,
    ) -> int:
        """Writes an entry, and gives its new version."""
        version: int = await self._ask(self._set(key, value, ttl), timeout)
        return version

    def set_sync(
        self,
        key: str,
        value: Any,
        *,
        ttl: Optional[float] = None,
        timeout: Optional[float] = 30.0,
    ) -> int:
        """As `set`, for functions that are not async."""
        version: int = self._ask_sync(self._set(key, value, ttl), timeout)
        return version

    async def compare_and_set(
        self,
        key: str,
        version: int,
        value: Any,
        *,
        ttl: Optional[float] = None,
        timeout: Optional[float] = 30.0,
    ) -> Compared:
        """Writes an entry if it has the version that was read before; 0: if there is none."""
        compared: Compared = await self._ask(self._compare(key, version, value, ttl), timeout)
        return compared

    def compare_and_set_sync(
        self,
        key: str,
        version: int,
        value: Any,
        *,
        ttl: Optional[float] = None,
        timeout: Optional[float] = 30.0,
    ) -> Compared:
        """As `compare_and_set`, for functions that are not async."""
        compared: Compared = self._ask_sync(self._compare(key, version, value, ttl), timeout)
        return compared

    async def delete(self, key: str, *, timeout: Optional[float] = 30.0) -> bool:
        """Deletes an entry, and gives whether there was one."""
        deleted: bool = await self._ask(self._delete(key), timeout)
        return deleted

    def delete_sync(self, key: str, *, timeout: Optional[float] = 30.0) -> bool:
        """As `delete`, for functions that are not async."""
        deleted: bool = self._ask_sync(self._delete(key), timeout)
        return deleted

    async def list(
        self,
        prefix: str = "",
        *,
        after: Optional[str] = None,
        limit: Optional[int] = None,
        values: bool = True,
        timeout: Optional[float] = 30.0,
    ) -> Listing:
        """Entries whose key begins with ``prefix``, ``limit`` (1 to 1000, 100 if not given) at once;
        goes on ``after`` the `next` of the listing before."""
        listing: Listing = await self._ask(self._list(prefix, after, limit, values), timeout)
        return listing

    def list_sync(
        self,
        prefix: str = "",
        *,
        after: Optional[str] = None,
        limit: Optional[int] = None,
        values: bool = True,
        timeout: Optional[float] = 30.0,
    ) -> Listing:
        """As `list`, for functions that are not async."""
        listing: Listing = self._ask_sync(self._list(prefix, after, limit, values), timeout)
        return listing

    async def transaction(
        self, operations: Sequence[Operation], *, timeout: Optional[float] = 30.0
    ) -> Transaction:
        """Does several operations, 1 to 256: all or none."""
        done: Transaction = await self._ask(self._transaction(operations), timeout)
        return done

    def transaction_sync(
        self, operations: Sequence[Operation], *, timeout: Optional[float] = 30.0
    ) -> Transaction:
        """As `transaction`, for functions that are not async."""
        done: Transaction = self._ask_sync(self._transaction(operations), timeout)
        return done

    @staticmethod
    def _get(key: str, default: Any) -> Request:
        return _request(
            "storage.get", {"key": key}, lambda r: r["value"] if r["found"] else default
        )

    @staticmethod
    def _entry(key: str) -> Request:
        return _request(
            "storage.get",
            {"key": key},
            lambda r: _entry({"key": key, **r}) if r["found"] else None,
        )

    @staticmethod
    def _set(key: str, value: Any, ttl: Optional[float]) -> Request:
        params = _fields(key=key, ttl_ms=_ms(ttl), value=(value,))
        return _request("storage.set", params, lambda r: r["version"])

    @staticmethod
    def _compare(key: str, version: int, value: Any, ttl: Optional[float]) -> Request:
        params = _fields(key=key, version=version, ttl_ms=_ms(ttl), value=(value,))
        return _request(
            "storage.compare_and_set", params, lambda r: Compared(r["stored"], r["version"])
        )

    @staticmethod
    def _delete(key: str) -> Request:
        return _request("storage.delete", {"key": key}, lambda r: r["deleted"])

    @staticmethod
    def _list(prefix: str, after: Optional[str], limit: Optional[int], values: bool) -> Request:
        params = _fields(prefix=prefix, after=after, limit=limit, values=values)
        return _request(
            "storage.list",
            params,
            lambda r: Listing([_entry(row) for row in r["entries"]], r.get("next")),
        )

    @staticmethod
    def _transaction(operations: Sequence[Operation]) -> Request:
        params = {"operations": [operation.fields for operation in operations]}
        return _request(
            "storage.transaction",
            params,
            lambda r: Transaction(
                r["committed"], r.get("versions", []), r.get("conflict"), r.get("found")
            ),
        )


class Http(_Service):
    """Requests to the web. A plugin has no network of its own: the host makes them, where
    ``net.http:HOST:PORT`` was granted."""

    async def fetch(
        self,
        url: str,
        *,
        method: Optional[str] = None,
        headers: Optional[Headers] = None,
        body: Union[str, bytes, bytearray, None] = None,
        timeout: float = 30.0,
        redirect: bool = True,
    ) -> Response:
        """Makes a request: GET, with a body POST. ``timeout`` in seconds, at most 60."""
        request = self._fetch(url, method, headers, body, timeout, redirect)
        # The host tells what took too long; this side only must not give up before it.
        response: Response = await self._ask(request, timeout + 2)
        return response

    def fetch_sync(
        self,
        url: str,
        *,
        method: Optional[str] = None,
        headers: Optional[Headers] = None,
        body: Union[str, bytes, bytearray, None] = None,
        timeout: float = 30.0,
        redirect: bool = True,
    ) -> Response:
        """As `fetch`, for functions that are not async."""
        request = self._fetch(url, method, headers, body, timeout, redirect)
        response: Response = self._ask_sync(request, timeout + 2)
        return response

    @staticmethod
    def _fetch(
        url: str,
        method: Optional[str],
        headers: Optional[Headers],
        body: Union[str, bytes, bytearray, None],
        timeout: float,
        redirect: bool,
    ) -> Request:
        pairs = headers.items() if isinstance(headers, Mapping) else headers or []
        params = _fields(
            url=url,
            method=method,
            headers=[[name, value] for name, value in pairs] or None,
            body=body if isinstance(body, str) else None,
            body_base64=base64.b64encode(body).decode() if isinstance(body, (bytes, bytearray)) else None,
            timeout_ms=_ms(timeout),
            redirect=None if redirect else False,
        )

        def read(result: Dict[str, Any]) -> Response:
            packed = result.get("body_base64")
            if packed is not None:
                data = base64.b64decode(packed, validate=True)
            else:
                text = result.get("body") or b""  # bytes, in a component
                data = text if isinstance(text, bytes) else text.encode("utf-8")
            return Response(
                result["status"],
                [(name, value) for name, value in result["headers"]],
                data,
                result["url"],
                result.get("redirects", 0),
            )

        return _request("http.fetch", params, read)


def secret(name: str) -> Request:
    """The request for a secret's value."""
    return _request("secret.get", {"name": name}, lambda r: r["value"])
