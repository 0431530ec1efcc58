import assert from "node:assert/strict";
import test from "node:test";

import {
  PalisadeError,
  any,
  boolean,
  dict,
  integer,
  list,
  literal,
  nullable,
  number,
  object,
  optional,
  string,
  type Shape,
  type Values,
} from "../src/index.js";

test("shapes give their schema", () => {
  const cases: [Shape<unknown>, object][] = [
    [string(), { type: "string" }],
    [integer({ description: "how many" }), { type: "integer", description: "how many" }],
    [any(), {}],
    [literal("a", 1), { enum: ["a", 1] }],
    [list(number()), { type: "array", items: { type: "number" } }],
    [dict(boolean()), { type: "object", additionalProperties: { type: "boolean" } }],
    [nullable(string()), { type: ["string", "null"] }],
    [nullable(list(string())), { anyOf: [{ type: "array", items: { type: "string" } }, { type: "null" }] }],
    [
      object({ a: string(), b: optional(integer(), 3), c: optional(string()) }),
      {
        type: "object",
        properties: { a: { type: "string" }, b: { type: "integer", default: 3 }, c: { type: "string" } },
        required: ["a"],
        additionalProperties: false,
      },
    ],
  ];
  for (const [shape, schema] of cases) assert.deepEqual(shape.schema, schema);
});

test("values that fit are given on, with what is missing filled in", () => {
  const shape = object({ a: string(), b: optional(integer(), 3), c: optional(string()) });
  const value: Values<{ a: Shape<string>; b: Shape<number> }> = shape.convert({ a: "x" }, "args");
  assert.deepEqual(value, { a: "x", b: 3, c: undefined });
  assert.equal(integer().convert(3.0, "args"), 3);
});

test("values that do not fit are refused with their path", () => {
  const cases: [Shape<unknown>, unknown, string][] = [
    [integer(), true, "args: expected integer, got boolean"],
    [integer(), 1.5, "args: expected integer, got number"],
    [integer(), Infinity, "args: expected integer, got number"],
    [number(), "1", "args: expected number, got string"],
    [string(), null, "args: expected string, got null"],
    [list(integer()), [1, "x"], "args[1]: expected integer, got string"],
    [dict(integer()), { a: [] }, "args.a: expected integer, got array"],
    [nullable(integer()), "x", "args: expected integer, got string"],
    [literal(1, "a"), true, 'args: expected one of 1, "a"'],
    [object({ a: string() }), {}, 'args: "a" is missing'],
    [object({ a: string() }), { a: "", toString: 1 }, 'args: there is no "toString"'],
    [object({}), [], "args: expected object, got array"],
  ];
  for (const [shape, value, message] of cases) {
    assert.throws(
      () => shape.convert(value, "args"),
      (e: unknown) => e instanceof PalisadeError && e.code === "PAL-PARAMS" && e.message === message,
      message,
    );
  }
});

test("names of the prototype are names like any other", () => {
  const value = dict(any()).convert(JSON.parse('{"__proto__": {"x": 1}}'), "args");
  assert.deepEqual(Object.keys(value), ["__proto__"]);
  assert.equal(({} as { x?: number }).x, undefined);
  assert.throws(() => object({ a: any() }).convert(JSON.parse('{"__proto__": {"a": 1}}'), "args"));
  assert.throws(() => object({ constructor: any() }).convert({}, "args"), /missing/);
});
