import assert from "node:assert/strict";
import test from "node:test";

import { greet } from "../src/greet.js";

test("a greeting names its guest as often as asked", () => {
  assert.equal(greet("Ada", 1), "Hello, Ada!");
  assert.equal(greet("Ada", 2), "Hello, Ada, Ada!");
});
