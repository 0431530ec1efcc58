import enum
import sys
import unittest
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, NewType, Optional, Sequence, Union

from typing import Literal, TypedDict

from palisade_plugin import Call, PalisadeError
from palisade_plugin._schema import parameters, shape

Count = NewType("Count", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: float
    y: float = 0.5
    tags: List[str] = field(default_factory=list)

    def __post_init__(self):
        if self.x < 0:
            raise ValueError("x is negative")


class Person(TypedDict):
    name: str
    age: Optional[int]


class Partly(TypedDict, total=False):
    name: str


@dataclass
class Tree:
    children: "List[Tree]"


class Schema(unittest.TestCase):
    def test_hints_give_their_schema(self):
        point = {
            "type": "object",
            "properties": {
                "x": {"type": "number"},
                "y": {"type": "number", "default": 0.5},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["x"],
            "additionalProperties": False,
        }
        cases = [
            (int, {"type": "integer"}),
            (float, {"type": "number"}),
            (str, {"type": "string"}),
            (bool, {"type": "boolean"}),
            (list, {"type": "array"}),
            (dict, {"type": "object"}),
            (Any, {}),
            (List, {"type": "array"}),
            (Dict, {"type": "object"}),
            (List[int], {"type": "array", "items": {"type": "integer"}}),
            (Sequence[str], {"type": "array", "items": {"type": "string"}}),
            (Dict[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
            (Mapping[str, Any], {"type": "object"}),
            (Optional[int], {"type": ["integer", "null"]}),
            (Union[int, str], {"type": ["integer", "string"]}),
            (
                Optional[List[int]],
                {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]},
            ),
            (Literal["a", 1], {"enum": ["a", 1]}),
            (Colour, {"enum": ["red", "blue"]}),
            (Count, {"type": "integer"}),
            (Point, point),
            (
                Person,
                {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "age": {"type": ["integer", "null"]},
                    },
                    "required": ["name", "age"],
                    "additionalProperties": False,
                },
            ),
            (
                Partly,
                {
                    "type": "object",
                    "properties": {"name": {"type": "string"}},
                    "additionalProperties": False,
                },
            ),
        ]
        for hint, schema in cases:
            with self.subTest(hint=hint):
                found = shape(hint).schema
                if "required" in found:
                    found = {**found, "required": sorted(found["required"])}
                    schema = {**schema, "required": sorted(schema["required"])}
                self.assertEqual(found, schema)

    def test_values_are_converted(self):
        for hint, value, expected in [
            (int, 3.0, 3),
            (float, 3, 3),
            (int, 2**80, 2**80),
            (Optional[int], None, None),
            (Union[float, int], 5, 5),
            (Colour, "red", Colour.RED),
            (Point, {"x": 1, "tags": ["a"]}, Point(1, 0.5, ["a"])),
            (List[Point], [{"x": 1}], [Point(1)]),
            (Dict[str, Point], {"a": {"x": 1}}, {"a": Point(1)}),
            (Person, {"name": "Ada", "age": None}, {"name": "Ada", "age": None}),
        ]:
            with self.subTest(hint=hint, value=value):
                self.assertEqual(shape(hint).convert(value, "args"), expected)

    def test_values_that_do_not_fit_are_refused_with_their_path(self):
        for hint, value, message in [
            (int, True, "args: expected integer, got boolean"),
            (int, 1.5, "args: expected integer, got number"),
            (int, float("inf"), "args: expected integer, got number"),
            (float, "1", "args: expected number, got string"),
            (bool, 1, "args: expected boolean, got integer"),
            (str, None, "args: expected string, got null"),
            (List[int], [1, "x"], "args[1]: expected integer, got string"),
            (Dict[str, int], {"a": []}, "args.a: expected integer, got array"),
            (Optional[int], "x", "args: expected integer, got string"),
            (Union[int, str, None], [], "args: fits none of the types"),
            (Literal[1], True, "args: expected one of 1"),
            (Colour, "green", "args: expected one of 'red', 'blue'"),
            (Point, {}, "args: 'x' is missing"),
            (Point, {"x": 1, "z": 1}, "args: there is no 'z'"),
            (Point, {"x": -1}, "args: x is negative"),
            (Point, [], "args: expected object, got array"),
        ]:
            with self.subTest(hint=hint, value=value):
                with self.assertRaises(PalisadeError) as caught:
                    shape(hint).convert(value, "args")
                self.assertEqual(
                    (caught.exception.code, caught.exception.message), ("PAL-PARAMS", message)
                )

    def test_hints_without_a_schema_are_refused_when_they_are_read(self):
        for hint in (bytes, set, Dict[int, str], Tree, "Nowhere", Literal[b"x"]):
            with self.subTest(hint=hint), self.assertRaises(TypeError):
                shape(hint)

    @unittest.skipIf(sys.version_info < (3, 10), "the syntax is of Python 3.10")
    def test_newer_syntax(self):
        schema = {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]}
        self.assertEqual(shape(eval("list[int] | None")).schema, schema)

    @unittest.skipIf(sys.version_info < (3, 9), "Annotated is of Python 3.9")
    def test_annotated_describes(self):
        from typing import Annotated

        described = {"type": "string", "description": "Whom."}
        self.assertEqual(shape(Annotated[str, "Whom."]).schema, described)

    def test_parameters_of_a_function(self):
        def tool(text: str, call: Call, n: int = 3, *, flag: bool = False, **more: Any) -> None:
            pass

        found, call_name = parameters(tool)
        self.assertEqual(call_name, "call")
        self.assertEqual(
            found.schema,
            {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "n": {"type": "integer", "default": 3},
                    "flag": {"type": "boolean", "default": False},
                },
                "required": ["text"],
            },
        )
        self.assertEqual(found.convert({"text": "t", "x": 1}, "args"), {"text": "t", "x": 1})

    def test_functions_that_cannot_be_called_by_name_are_refused(self):
        def star(*args: int) -> None:
            pass

        def bad(data: bytes) -> None:
            pass

        for function, text in ((star, "args"), (bad, "bad: data: there is no JSON Schema")):
            with self.assertRaisesRegex(TypeError, text):
                parameters(function)


if __name__ == "__main__":
    unittest.main()
