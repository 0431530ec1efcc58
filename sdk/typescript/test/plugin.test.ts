import assert from "node:assert/strict";
import test from "node:test";

import { PalisadeError, Plugin, Veto, integer, list, optional, string, type CommandResult } from "../src/index.js";
import { FakeHost } from "./host.js";

test("names, subjects and priorities are checked", () => {
  const plugin = new Plugin();
  plugin.tool("a", () => 1);
  assert.throws(() => plugin.tool("a", () => 2), /two/);
  assert.throws(() => plugin.tool("x".repeat(129), () => 2), RangeError);
  assert.throws(() => plugin.tool("", () => 2), RangeError);
  for (const subject of ["a..b", "a.>.b", "a*", "", "a b"]) {
    assert.throws(() => plugin.event(subject, () => {}), /subject/);
  }
  assert.throws(() => plugin.hook("h", { priority: 1001 }, () => {}), RangeError);
  assert.throws(() => plugin.tool("b", {} as never), /handler/);
});

test("contributes is what the manifest needs", () => {
  const plugin = new Plugin();
  plugin.tool("greet", { description: "Greets.", params: { name: string() } }, ({ name }) => name);
  plugin.command("stats", { description: "Statistics." }, () => {});
  plugin.hook("b", { priority: 70 }, () => {});
  plugin.hook("b", { priority: 20 }, () => {});
  assert.deepEqual(plugin.contributes(), {
    tools: [
      {
        name: "greet",
        description: "Greets.",
        input: {
          type: "object",
          properties: { name: { type: "string" } },
          required: ["name"],
          additionalProperties: false,
        },
      },
    ],
    commands: [{ name: "stats", description: "Statistics." }],
    hooks: [{ event: "b", priority: 20 }],
  });
});

test("arguments have the types of their shapes", async () => {
  const plugin = new Plugin();
  plugin.tool("join", { params: { words: list(string()), times: optional(integer(), 2) } }, ({ words, times }) => {
    const checked: string[] = words;
    const count: number = times;
    return checked.join(" ").repeat(count);
  });
  const host = await FakeHost.start(plugin);
  assert.equal((await host.call(2, "join", { words: ["a", "b"] }))["result"], "a ba b");
  assert.equal((await host.call(3, "join", { words: "a" }))["error"].code, -32602);
  host.close();
  await host.served;
});

test("a veto ends the chain, and null replaces", async () => {
  const plugin = new Plugin();
  let reached = false;
  plugin.hook("v", () => {
    throw new Veto("no");
  });
  plugin.hook("v", { priority: 51 }, () => {
    reached = true;
  });
  plugin.hook("n", () => null);
  const host = await FakeHost.start(plugin);
  assert.deepEqual((await host.ask(2, "hook", { hook: "v", data: 1 }))["result"], { veto: "no" });
  assert.equal(reached, false);
  assert.deepEqual((await host.ask(3, "hook", { hook: "n", data: 1 }))["result"], { data: null });
  host.close();
  await host.served;
});

test("a start handler that fails fails the start", async () => {
  const plugin = new Plugin();
  plugin.start(() => {
    throw new PalisadeError("PAL-PARAMS", "no greeting configured");
  });
  const host = await FakeHost.start(plugin);
  assert.equal(host.initialized["error"].message, "no greeting configured");
  host.close();
  await host.served;
});

test("requests in flight have a bound", async () => {
  const plugin = new Plugin();
  plugin.tool("many", async () => {
    const asks = Array.from({ length: 257 }, () => plugin.host.call("slow"));
    const settled = await Promise.race(asks.map((ask) => ask.catch((e: PalisadeError) => e.code)));
    for (const ask of asks) ask.catch(() => {});
    return settled;
  });
  const host = await FakeHost.start(plugin);
  assert.equal((await host.call(2, "many"))["result"], "PAL-LIMIT");
  host.close();
  await host.served;
});

test("what waits for the host fails when it goes", async () => {
  const plugin = new Plugin();
  const code = new Promise((resolve) => {
    plugin.tool("ask", () => plugin.host.call("slow").catch((e: PalisadeError) => resolve(e.code)));
  });
  const host = await FakeHost.start(plugin);
  host.send({ id: 2, method: "call", params: { tool: "ask", args: {} } });
  assert.equal((await host.next())["method"], "host.call");
  host.close();
  assert.equal(await code, "PAL-UNAVAILABLE");
  await host.served;
});

test("a breach of the host rejects serve", async () => {
  const host = await FakeHost.start(new Plugin());
  host.sendText("[1]\n");
  await assert.rejects(host.served, /not an object/);
});

test("a command gives what it may", async () => {
  const plugin = new Plugin();
  const given: (void | string | number | CommandResult)[] = [undefined, "text", 3, { status: 4, output: "both" }];
  plugin.command("run", ([i]) => given[Number(i)]);
  const host = await FakeHost.start(plugin);
  const results = [];
  for (let i = 0; i < 4; i++) {
    results.push((await host.ask(i + 2, "run_command", { command: "run", args: [String(i)] }))["result"]);
  }
  assert.deepEqual(results, [
    { status: 0, output: "" },
    { status: 0, output: "text" },
    { status: 3, output: "" },
    { status: 4, output: "both" },
  ]);
  host.close();
  await host.served;
});

test("log fields that are not JSON are shown as text", async () => {
  const plugin = new Plugin();
  plugin.tool("speak", () => plugin.log.warn("half \ud83d", { big: "x".repeat(5000), n: 2n }));
  const host = await FakeHost.start(plugin);
  host.send({ id: 2, method: "call", params: { tool: "speak", args: {} } });
  const { params } = await host.next();
  assert.equal(params.message, "half \ufffd");
  assert.equal(params.fields.n, "2");
  assert.ok(params.fields.big.length <= 1024);
  host.close();
  await host.served;
});

test("what needs a host says so without one", async () => {
  await assert.rejects(new Plugin().publish("a", 1), /does not run/);
});
