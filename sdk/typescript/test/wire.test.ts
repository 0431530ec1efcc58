import assert from "node:assert/strict";
import test from "node:test";

import { PalisadeError } from "../src/index.js";
import { FRAME_BYTES, frame, toJson } from "../src/json.js";
import { Lines } from "../src/wire.js";

function nested(levels: number): unknown[] {
  let value: unknown[] = [];
  for (let i = 1; i < levels; i++) value = [value];
  return value;
}

function refuses(code: string, f: () => unknown): void {
  assert.throws(f, (e: unknown) => e instanceof PalisadeError && e.code === code);
}

test("lines are found however the stream is cut", () => {
  const stream = Buffer.from('{"ä":1}\n\n\r\n{"b":2}\r\n' + "x".repeat(100) + "\n");
  for (let size = 1; size < 30; size++) {
    const lines = new Lines();
    const found: string[] = [];
    for (let at = 0; at < stream.length; at += size) found.push(...lines.feed(stream.subarray(at, at + size)));
    assert.deepEqual(found, ['{"ä":1}', '{"b":2}\r', "x".repeat(100)]);
  }
});

test("a line that is too long is refused before it ends", () => {
  const lines = new Lines();
  lines.feed(Buffer.alloc(FRAME_BYTES, "x"));
  assert.throws(() => lines.feed(Buffer.from("xx")), /longer/);
});

test("nesting counts levels, not brackets", () => {
  toJson(new Array(100).fill([]));
  toJson("[".repeat(1000) + '"\\');
  toJson(nested(63));
  refuses("PAL-PARAMS", () => toJson(nested(64)));
  refuses("PAL-PARAMS", () => toJson({ a: nested(63) }));
  refuses("PAL-PARAMS", () => toJson(nested(100_000)));
});

test("half a surrogate pair is refused, its look-alike is not", () => {
  refuses("PAL-PARAMS", () => toJson("\ud83d"));
  refuses("PAL-PARAMS", () => toJson({ "\udc00": 1 }));
  refuses("PAL-PARAMS", () => toJson("\\\ud83d"));
  assert.equal(toJson("\\ud83d"), '"\\\\ud83d"');
  assert.equal(toJson("😀"), '"😀"');
});

test("what is not JSON is refused", () => {
  const ring: unknown[] = [];
  ring.push(ring);
  refuses("PAL-PARAMS", () => toJson(ring));
  refuses("PAL-PARAMS", () => toJson(2n));
  assert.equal(toJson(undefined), "null");
});

test("a frame has a bound in bytes", () => {
  assert.equal(frame("x".repeat(FRAME_BYTES)).length, FRAME_BYTES + 1);
  refuses("PAL-LIMIT", () => frame("ä".repeat(FRAME_BYTES / 2 + 1)));
});
