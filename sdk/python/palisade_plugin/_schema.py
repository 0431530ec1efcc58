"""From type hints to JSON Schema, and from JSON values to what the hints say.

One hint gives both, so the schema that is announced and the check that is made cannot differ. What
it does not know is refused when the plugin starts, not when somebody calls.
"""

import collections.abc
import dataclasses
import enum
import inspect
import typing
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from ._call import Call
from ._errors import PalisadeError

Convert = Callable[[Any, str], Any]


class Shape(NamedTuple):
    """A schema, and the function that checks a value against it and converts it."""

    schema: Dict[str, Any]
    convert: Convert


def kind(value: Any) -> str:
    """The JSON name of a value's type."""
    if value is None:
        return "null"
    names = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"))
    for cls, name in names + ((list, "array"), (dict, "object")):
        if isinstance(value, cls):
            return name
    return type(value).__name__


def wrong(path: str, expected: str, value: Any) -> PalisadeError:
    return PalisadeError("PAL-PARAMS", f"{path}: expected {expected}, got {kind(value)}")


def _integer(value: Any, path: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():  # 1.0 is an integer in JSON Schema
        return int(value)
    raise wrong(path, "integer", value)


def _number(value: Any, path: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise wrong(path, "number", value)


def _exactly(cls: type, name: str) -> Convert:
    def convert(value: Any, path: str) -> Any:
        if isinstance(value, cls):
            return value
        raise wrong(path, name, value)

    return convert


def _anything(value: Any, path: str) -> Any:
    return value


PLAIN: Dict[Any, Shape] = {
    Any: Shape({}, _anything),
    inspect.Parameter.empty: Shape({}, _anything),
    object: Shape({}, _anything),
    int: Shape({"type": "integer"}, _integer),
    float: Shape({"type": "number"}, _number),
    str: Shape({"type": "string"}, _exactly(str, "string")),
    bool: Shape({"type": "boolean"}, _exactly(bool, "boolean")),
    type(None): Shape({"type": "null"}, _exactly(type(None), "null")),
    list: Shape({"type": "array"}, _exactly(list, "array")),
    dict: Shape({"type": "object"}, _exactly(dict, "object")),
}
LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def shape(hint: Any, seen: Tuple[Any, ...] = ()) -> Shape:
    """The shape of a hint. TypeError where there is none."""
    try:
        if hint in PLAIN:
            return PLAIN[hint]
    except TypeError:
        pass  # not hashable: Annotated[...] with a list, say
    if hint in seen:
        raise TypeError(f"{hint!r} refers to itself")
    if len(seen) > 60:
        raise TypeError("type hints are nested too deep")
    seen = (*seen, hint)
    if hasattr(hint, "__metadata__"):  # typing.Annotated
        inner = shape(hint.__origin__, seen)
        texts = [text for text in hint.__metadata__ if isinstance(text, str)]
        schema = {**inner.schema, "description": texts[0]} if texts else inner.schema
        return Shape(schema, inner.convert)
    origin, args = getattr(hint, "__origin__", None), getattr(hint, "__args__", ())
    if origin is None and hasattr(hint, "__supertype__"):  # typing.NewType
        return shape(hint.__supertype__, seen)
    if _is_union(hint, origin):
        return _union([shape(arg, seen) for arg in args])
    if getattr(typing, "Literal", None) is not None and origin is typing.Literal:
        return _literal(list(args), list(args))
    if origin in LISTS or hint in LISTS:
        return _list(shape(args[0], seen) if args and _given(args[0]) else PLAIN[Any])
    if origin in DICTS or hint in DICTS:
        if args and _given(args[0]) and args[0] not in (str, Any):
            raise TypeError(f"{hint!r}: names in JSON are text")
        return _dict(shape(args[1], seen) if args and _given(args[1]) else PLAIN[Any])
    if isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            return _literal([member.value for member in hint], list(hint))
        if dataclasses.is_dataclass(hint):
            return _dataclass(hint, seen)
        if issubclass(hint, dict) and hasattr(hint, "__total__"):
            return _typed_dict(hint, seen)
    if isinstance(hint, str):
        raise TypeError(f"{hint!r} is a text, not a type")
    raise TypeError(f"there is no JSON Schema for {hint!r}")


def _given(arg: Any) -> bool:
    return not isinstance(arg, typing.TypeVar)


def _is_union(hint: Any, origin: Any) -> bool:
    return origin is Union or type(hint).__name__ == "UnionType"  # X | Y, from 3.10 on


def _union(shapes: List[Shape]) -> Shape:
    schemas = [s.schema for s in shapes]
    if all(set(s) == {"type"} and isinstance(s["type"], str) for s in schemas):
        schema: Dict[str, Any] = {"type": [s["type"] for s in schemas]}
    else:
        schema = {"anyOf": schemas}

    def convert(value: Any, path: str) -> Any:
        first: Optional[PalisadeError] = None
        # As they stand in the hint, but a whole number is tried as an integer before as a number.
        for each in shapes:
            if each.schema.get("type") == "number" and isinstance(value, int):
                if PLAIN[int] in shapes:
                    continue
            try:
                return each.convert(value, path)
            except PalisadeError as e:
                first = first or e
        if len(shapes) == 2 and PLAIN[type(None)] in shapes and first is not None:
            raise first
        raise PalisadeError("PAL-PARAMS", f"{path}: fits none of the types")

    return Shape(schema, convert)


def _literal(values: List[Any], results: List[Any]) -> Shape:
    for value in values:
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise TypeError(f"{value!r} is not a JSON constant")

    def convert(value: Any, path: str) -> Any:
        for constant, result in zip(values, results):
            # True == 1 in Python, not in JSON.
            if isinstance(value, bool) == isinstance(constant, bool) and value == constant:
                return result
        choice = ", ".join(repr(constant) for constant in values)
        raise PalisadeError("PAL-PARAMS", f"{path}: expected one of {choice}")

    return Shape({"enum": values}, convert)


def _list(item: Shape) -> Shape:
    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, list):
            raise wrong(path, "array", value)
        return [item.convert(each, f"{path}[{i}]") for i, each in enumerate(value)]

    return Shape(
        {"type": "array", "items": item.schema} if item.schema else {"type": "array"}, convert
    )


def _dict(item: Shape) -> Shape:
    schema: Dict[str, Any] = {"type": "object"}
    if item.schema:
        schema["additionalProperties"] = item.schema

    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise wrong(path, "object", value)
        return {key: item.convert(each, f"{path}.{key}") for key, each in value.items()}

    return Shape(schema, convert)


class Field(NamedTuple):
    """One name of an object."""

    name: str
    shape: Shape
    required: bool


def record(fields: List[Field], extra: bool) -> Shape:
    """An object with these names; others only with ``extra``."""
    schema: Dict[str, Any] = {
        "type": "object",
        "properties": {field.name: field.shape.schema for field in fields},
    }
    required = [field.name for field in fields if field.required]
    if required:
        schema["required"] = required
    if not extra:
        schema["additionalProperties"] = False
    known = {field.name for field in fields}

    def convert(value: Any, path: str) -> Dict[str, Any]:
        if not isinstance(value, dict):
            raise wrong(path, "object", value)
        result = {}
        for name, item, needed in fields:
            if name in value:
                result[name] = item.convert(value[name], f"{path}.{name}")
            elif needed:
                raise PalisadeError("PAL-PARAMS", f"{path}: {name!r} is missing")
        if len(value) > len(result):
            for name in value:
                if name in known:
                    continue
                if not extra:
                    raise PalisadeError("PAL-PARAMS", f"{path}: there is no {name[:80]!r}")
                result[name] = value[name]
        return result

    return Shape(schema, convert)


def _hints(thing: Any) -> Dict[str, Any]:
    try:
        try:
            return typing.get_type_hints(thing, include_extras=True)  # type: ignore[call-arg, unused-ignore]
        except TypeError:  # Python 3.8
            return typing.get_type_hints(thing)
    except NameError as e:
        raise TypeError(f"a type hint cannot be read: {e}") from None


def _dataclass(cls: type, seen: Tuple[Any, ...]) -> Shape:
    hints, fields = _hints(cls), []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type, unused-ignore]
        if not field.init:
            continue
        default: Any = field.default
        required = default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        inner = shape(hints[field.name], seen)
        fields.append(Field(field.name, with_default(inner, default), required))
    base = record(fields, extra=False)

    def convert(value: Any, path: str) -> Any:
        known = base.convert(value, path)
        try:
            return cls(**known)
        except (TypeError, ValueError) as e:  # __post_init__ may refuse
            raise PalisadeError("PAL-PARAMS", f"{path}: {e}") from None

    return Shape(base.schema, convert)


def _typed_dict(cls: Any, seen: Tuple[Any, ...]) -> Shape:
    total = set(cls.__annotations__) if cls.__total__ else set()
    required = getattr(cls, "__required_keys__", total)  # Python 3.8 knows only `total`
    fields = []
    for name, hint in _hints(cls).items():
        origin = getattr(hint, "__origin__", None)
        if getattr(origin, "_name", None) in ("Required", "NotRequired"):
            hint = hint.__args__[0]
        fields.append(Field(name, shape(hint, seen), name in required))
    return record(fields, extra=False)


def with_default(inner: Shape, default: Any) -> Shape:
    """Notes a default that is a JSON constant."""
    if default is None or not isinstance(default, (bool, int, float, str)):
        return inner
    if (
        isinstance(default, enum.Enum)
        or default != default
        or default in (float("inf"), -float("inf"))
    ):
        return inner
    return Shape({**inner.schema, "default": default}, inner.convert)


def parameters(function: Callable[..., Any]) -> Tuple[Shape, Optional[str]]:
    """The shape of a function's arguments, and the name of its parameter of type Call."""
    hints, fields, extra, call = _hints(function), [], False, None
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints.get(name, parameter.annotation)
        if hint is Call:
            call = name
        elif parameter.kind is parameter.VAR_KEYWORD:
            extra = True
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{function.__qualname__}: {parameter} cannot be given by name")
        else:
            try:
                inner = shape(hint)
            except TypeError as e:
                raise TypeError(f"{function.__qualname__}: {name}: {e}") from None
            required = parameter.default is parameter.empty
            fields.append(Field(name, with_default(inner, parameter.default), required))
    return record(fields, extra), call
