// The reference plugin of the conformance suite; ../../README.md says what it must do.

import {
  Operation,
  PalisadeError,
  Plugin,
  Veto,
  any,
  boolean,
  dict,
  integer,
  list,
  literal,
  nullable,
  object,
  optional,
  string,
  type Entry,
  type Event,
} from "@palisade/plugin";

const plugin = new Plugin({ name: "conformance", version: "1.0.0" });
const events: Omit<Event, "traceparent">[] = [];
let cancelled = 0;
let kept: unknown = null;

plugin.tool(
  "echo",
  { description: "Gives back what it gets.", params: { value: optional(any(), null) } },
  ({ value }) => value,
);

plugin.tool(
  "add",
  { description: "Adds two whole numbers.", params: { a: integer(), b: optional(integer(), 1) } },
  async ({ a, b }) => a + b,
);

plugin.tool(
  "shape",
  {
    description: "Says what it was given.",
    params: {
      text: string(),
      kind: literal("a", "b"),
      tags: optional(nullable(list(string())), null),
      size: optional(nullable(object({ width: integer(), height: optional(integer(), 1) })), null),
    },
  },
  ({ text, kind, tags, size }) => ({ text, kind, tags, size }),
);

plugin.tool(
  "fail",
  {
    description: "Fails.",
    params: { message: string(), code: optional(nullable(string()), null), hint: optional(string()) },
  },
  ({ message, code, hint }) => {
    if (code === null) throw new Error(message);
    throw new PalisadeError(code, message, { hint, retryAfter: 1.5 });
  },
);

plugin.tool("sleep", { description: "Takes its time.", params: { ms: integer() } }, async ({ ms }, call) => {
  await call.wait(ms / 1000);
  call.check();
  return { slept: ms };
});

plugin.tool("wait", { description: "Waits until it is cancelled." }, async (_args, call) => {
  if (await call.wait(3600)) cancelled++;
  call.check();
});

plugin.tool("cancelled", { description: "How many calls were cancelled." }, () => cancelled);

function told(e: unknown): unknown {
  if (!(e instanceof PalisadeError)) throw e;
  const { code, message, rule = null, hint = null, retryAfter = null } = e;
  return { code, message, rule, hint, retry_after: retryAfter };
}

plugin.tool(
  "publish",
  { description: "Publishes an event.", params: { subject: string(), data: optional(any(), null) } },
  ({ subject, data }, call) => plugin.publish(subject, data, { signal: call.signal }).catch(told),
);

plugin.tool(
  "host",
  {
    description: "Calls a service of the application.",
    params: { method: string(), params: optional(any(), null), timeout_ms: optional(integer(), 30000) },
  },
  async ({ method, params, timeout_ms }, call) => {
    try {
      return await plugin.host.call(method, params, { timeout: timeout_ms / 1000, signal: call.signal });
    } catch (e) {
      call.check();
      return told(e);
    }
  },
);

type Kept = { does: string; with: { [name: string]: any } };

function stored({ does, with: given }: Kept): Promise<unknown> {
  const { key, value, version, ttl, prefix, after, limit } = given;
  const entry = (e: Entry | undefined) => (e === undefined ? null : { ...e, ttl: e.ttl ?? null });
  switch (does) {
    case "get":
      return plugin.storage.get(key).then((found) => found ?? null);
    case "entry":
      return plugin.storage.entry(key).then(entry);
    case "set":
      return plugin.storage.set(key, value, { ttl });
    case "compare_and_set":
      return plugin.storage.compareAndSet(key, version, value, { ttl });
    case "delete":
      return plugin.storage.delete(key);
    case "list":
      return plugin.storage
        .list(prefix, { after, limit })
        .then(({ entries, next }) => ({ entries: entries.map(entry), next: next ?? null }));
    case "transaction":
      return plugin.storage
        .transaction([Operation.set(key, value, { version: 0, ttl: 1 }), Operation.delete("old"), Operation.check("c", 4)])
        .then((done) => ({ ...done, conflict: done.conflict ?? null, found: done.found ?? null }));
    default:
      throw new Error("the storage does no " + does);
  }
}

plugin.tool("storage", { description: "Keeps something.", inputSchema: { type: "object" } }, (args) =>
  stored(args as unknown as Kept).catch(told),
);

plugin.tool(
  "fetch",
  {
    description: "Requests something of the web.",
    params: {
      url: string(),
      method: optional(string()),
      headers: optional(dict(string())),
      body: optional(string()),
      bytes: optional(list(integer())),
      timeout_ms: optional(integer(), 30000),
      redirect: optional(boolean()),
    },
  },
  async ({ url, method, headers, body, bytes, timeout_ms, redirect }) => {
    const answer = await plugin.http.fetch(url, {
      method,
      headers,
      body: bytes ? Uint8Array.from(bytes) : body,
      timeout: timeout_ms / 1000,
      redirect,
    });
    return {
      status: answer.status,
      header: answer.header("X") ?? null,
      text: answer.text(),
      length: answer.body.length,
      url: answer.url,
      redirects: answer.redirects,
    };
  },
);

plugin.tool("secret", { description: "Gives a secret away.", params: { name: string() } }, ({ name }) =>
  plugin.secret(name),
);

plugin.tool(
  "log",
  {
    description: "Writes a line of log.",
    params: {
      level: literal("trace", "debug", "info", "warn", "error"),
      message: string(),
      fields: optional(dict(any()), {}),
    },
  },
  ({ level, message, fields }) => plugin.log[level](message, fields),
);

plugin.tool("progress", { description: "Tells how far it is." }, (_args, call) => {
  call.progress(1, 2, "half");
  return "done";
});

plugin.tool("noise", { description: "Prints." }, () => {
  console.log("noise on stdout");
  console.error("noise on stderr");
  return "quiet";
});

plugin.tool("text", { description: "A long text.", params: { length: integer() } }, ({ length }) =>
  "x".repeat(length),
);

plugin.tool("deep", { description: "Lists in lists.", params: { levels: integer() } }, ({ levels }) => {
  let value: unknown[] = [];
  for (let i = 1; i < levels; i++) value = [value];
  return value;
});

plugin.tool("half", { description: "Half of a surrogate pair." }, () => "\ud83d");
plugin.tool("config", { description: "The configuration." }, () => plugin.config);
plugin.tool("events", { description: "The events that came." }, () => events);
plugin.tool("keep", { description: "Changes the state.", params: { value: any() } }, ({ value }) => {
  kept = value;
});

plugin.event("chat.>", ({ subject, data, delivery, hops }) => {
  events.push({ subject, data, delivery, hops });
});

plugin.event("broken.*", async () => {
  throw new PalisadeError("PAL-UNAVAILABLE", "not now");
});

plugin.hook("message.received", { priority: 60 }, async (data) =>
  data.text === "HELLO" ? { ...data, text: data.text + "!" } : undefined,
);

plugin.hook("message.received", { priority: 10 }, (data) => {
  if (data.text === "spam") throw new Veto("spam is not welcome");
  return data.text === "plain" ? undefined : { ...data, text: data.text.toUpperCase() };
});

plugin.command("stats", { description: "Tells its arguments." }, (args) => "stats: " + args.join(", "));

plugin.command("leave", { description: "Gives a status." }, async ([status]) => ({
  status: Number(status),
  output: "left",
}));

plugin.configure((config) => {
  if (config["bad"]) throw new PalisadeError("PAL-PARAMS", "a bad configuration");
});

plugin.state.save(2, () => ({ kept }));
plugin.state.restore([1, 2], (state, schema) => {
  kept = [schema, state.kept];
});

plugin.stop(() => plugin.log.info("stopped"));

plugin.run();
