/**
 * As `index`, for a plugin that is a WebAssembly component: Palisade calls what it exports, and it calls
 * what it imports. `build.js` puts this in the place of `@palisade/plugin`.
 */

import { Call, type Link } from "./call.js";
import { PalisadeError, fromException } from "./errors.js";
import { FRAME_BYTES, toJson, wellFormed } from "./json.js";
import { Plugin as Base, attach } from "./plugin.js";
import { isObject } from "./schema.js";

export * from "./names.js";

/** What the world imports: the bindings of each interface by its name. */
type Imports = { [name: string]: any };
type Params = { [name: string]: any };

let made: Plugin | undefined;

/** A plugin. Add tools, events, hooks and commands, then `run`. */
export class Plugin extends Base {
  /** Makes it the plugin of this component. */
  run(): void {
    if (made !== undefined) throw new TypeError("a component is one plugin");
    made = this;
  }
}

/** The call under way. Nobody can tell it anything while it runs. */
class ComponentCall extends Call {
  readonly #imports: Imports;

  constructor(method: string, imports: Imports) {
    super(0, method, () => {});
    this.#imports = imports;
  }

  override async wait(seconds: number): Promise<boolean> {
    needed(this.#imports, "clock").sleep(BigInt(Math.round(seconds * 1000)));
    return false;
  }
}

function needed(imports: Imports, name: string): any {
  const found = imports[name];
  if (found !== undefined) return found;
  throw new PalisadeError("PAL-UNAVAILABLE", `the component does not import palisade:plugin/${name}`, {
    hint: `add \`import palisade:plugin/${name}@0.1.0;\` to its world, and build it again`,
  });
}

const big = (value: unknown): bigint | undefined => (typeof value === "number" ? BigInt(value) : undefined);
const small = (value: unknown): number | undefined => (value === undefined ? undefined : Number(value));

/** The host's services: parameters and results as they stand on the wire of a program. */
const SERVICES: { [method: string]: (imports: Imports, params: Params) => unknown } = {
  "event.publish": (imports, { subject, data }) => needed(imports, "event-bus").publish(subject, toJson(data)),
  "host.call": (imports, { method, params }) => JSON.parse(needed(imports, "host-call").call(method, toJson(params))),
  "secret.get": (imports, { name }) => ({ value: needed(imports, "secrets").get(name) }),
  "storage.get": (imports, { key }) => {
    const entry = needed(imports, "storage").get(key);
    return entry === undefined ? { found: false } : { found: true, ...row(entry) };
  },
  "storage.set": (imports, { key, value, ttl_ms }) => ({
    version: Number(needed(imports, "storage").set(key, toJson(value), big(ttl_ms))),
  }),
  "storage.compare_and_set": (imports, { key, version, value, ttl_ms }) => {
    const storage = needed(imports, "storage");
    const done = storage.compareAndSet(key, BigInt(version), toJson(value), big(ttl_ms));
    return { stored: done.stored, version: Number(done.version) };
  },
  "storage.delete": (imports, { key }) => ({ deleted: needed(imports, "storage").delete(key) }),
  "storage.list": (imports, { prefix, after, limit, values }) => {
    const page = needed(imports, "storage").list({ prefix, after, limit, values });
    return { entries: page.entries.map(row), next: page.next };
  },
  "storage.transaction": (imports, { operations }) => {
    const done = needed(imports, "storage").transaction(operations.map(operation));
    if (done.tag === "done") return { committed: true, versions: Array.from(done.val, Number) };
    return { committed: false, conflict: done.val.operation, found: Number(done.val.found) };
  },
  "http.fetch": (imports, { url, method, headers = [], body, timeout_ms, redirect = true }) => {
    const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
    const asked = { url, method, headers, body: bytes, followRedirects: redirect, timeoutMs: timeout_ms };
    return needed(imports, "http").fetch(asked);
  },
};

function row(entry: any): Params {
  return {
    ...(entry.key === undefined ? {} : { key: entry.key }),
    ...(entry.value === undefined ? {} : { value: JSON.parse(entry.value) }),
    version: Number(entry.version),
    ttl_ms: small(entry.ttlMs),
  };
}

function operation({ op, key, value, version, ttl_ms }: Params): unknown {
  const about = { key, version: big(version) };
  return { tag: op, val: op === "set" ? { ...about, value: toJson(value), ttlMs: big(ttl_ms) } : about };
}

/** What the host refused with. */
function refused(thrown: any): unknown {
  const payload = thrown?.payload ?? thrown;
  if (!isObject(payload) || typeof payload["code"] !== "string") return thrown;
  const { code, message, rule, hint, retryAfterMs } = payload as Params;
  const retryAfter = retryAfterMs === undefined ? undefined : Number(retryAfterMs) / 1000;
  return new PalisadeError(code, message, { rule, hint, retryAfter });
}

/** The functions that answer for the handler interfaces, for the plugin that was run. */
export function component(imports: Imports): Params {
  if (made === undefined) throw new TypeError("no plugin was run: call `plugin.run()`");
  const log = (level: string, message: string, fields: [string, string][] = []): void => {
    imports["log"]?.write(level, wellFormed(message), fields);
  };
  const link: Link = {
    async request(method, params) {
      try {
        return SERVICES[method]!(imports, params as Params);
      } catch (e) {
        throw e instanceof PalisadeError ? e : refused(e);
      }
    },
    notify(method, params) {
      const { level, message, fields = {} } = params as Params;
      if (method !== "log") return;
      const shown = Object.entries(fields).filter(([, value]) => value !== undefined);
      log(level, message, shown.map(([name, value]) => [name, toJson(value)]));
    },
  };
  const plugin = attach(made, link);
  settle(imports, log);

  const ask = async (method: string, params: () => Params, read: (result: any) => unknown): Promise<unknown> => {
    try {
      return read(await plugin.dispatch(new ComponentCall(method, imports), method, params()));
    } catch (e) {
      throw failure(e, log);
    }
  };
  const nothing = (): undefined => undefined;
  return {
    guest: {
      initialize: ({ plugin: id, config, rights }: Params) =>
        ask(
          "initialize",
          () => ({ protocol: { min: 1, max: 1 }, plugin: { id }, config: JSON.parse(config), rights }),
          (answer) => ({
            ...answer.plugin,
            tools: answer.tools.map(({ name, description, input_schema }: Params) => ({
              name,
              description,
              inputSchema: toJson(input_schema),
            })),
            stateSchemas: answer.state_schemas ?? [],
          }),
        ),
      call: (tool: string, args: string) => ask("call", () => ({ tool, args: JSON.parse(args) }), result),
    },
    events: {
      handleEvent: ({ data, ...event }: Params) =>
        ask("handle_event", () => ({ ...event, data: JSON.parse(data) }), nothing),
    },
    hooks: {
      hook: (name: string, data: string) =>
        ask("hook", () => ({ hook: name, data: JSON.parse(data) }), (answer) => {
          if ("veto" in answer) return { tag: "veto", val: wellFormed(answer.veto) };
          return "data" in answer ? { tag: "replace", val: result(answer.data) } : { tag: "pass" };
        }),
    },
    commands: {
      runCommand: (command: string, args: string[]) =>
        ask("run_command", () => ({ command, args }), ({ status, output }) => ({ status, output: wellFormed(output) })),
    },
    configure: {
      configure: (config: string) => ask("configure", () => ({ config: JSON.parse(config) }), nothing),
    },
    state: {
      saveState: () => ask("save_state", () => ({}), ({ schema, state }) => ({ schema, state: result(state) })),
      restoreState: ({ schema, state }: Params) =>
        ask("restore_state", () => ({ schema, state: JSON.parse(state) }), nothing),
    },
    shutdown: {
      shutdown: async () => {
        try {
          await plugin.stop();
        } catch (e) {
          log("error", String(e));
        }
      },
    },
  };
}

/** Sendable JSON text of a result; what cannot be sent is the plugin's own fault. */
function result(value: unknown): string {
  try {
    const text = toJson(value);
    if (text.length > FRAME_BYTES / 3 && new TextEncoder().encode(text).length > FRAME_BYTES) {
      throw new PalisadeError("PAL-LIMIT", `the message is longer than ${FRAME_BYTES} bytes`);
    }
    return text;
  } catch (e) {
    throw new PalisadeError("PAL-PLUGIN", `the result: ${(e as Error).message}`);
  }
}

/** What a handler failed with, as it is answered. */
function failure(error: unknown, log: (level: string, message: string) => void): unknown {
  if (!(error instanceof PalisadeError)) log("warn", `${error}\n${(error as Error)?.stack ?? ""}`.trim());
  const { message, data } = fromException(error).toWire();
  const text = (value: string | undefined): string | undefined => (value === undefined ? value : wellFormed(value));
  const { code, rule, hint, retry_after_ms } = data;
  return {
    code: wellFormed(code),
    message: wellFormed(message),
    rule: text(rule),
    hint: text(hint),
    retryAfterMs: big(retry_after_ms),
  };
}

/** Replaces what a component without WASI does not have: the console, clocks, timers, randomness. */
function settle(imports: Imports, log: (level: string, message: string) => void): void {
  const shared = globalThis as Params;
  const line = (level: string) => (...parts: unknown[]) => log(level, parts.map(String).join(" "));
  const levels = { log: "info", info: "info", debug: "debug", trace: "trace", warn: "warn", error: "error" };
  shared["console"] = Object.fromEntries(Object.entries(levels).map(([name, level]) => [name, line(level)]));
  const none = (): never => {
    throw new Error("a component has no timers; wait with `await call.wait(seconds)`");
  };
  for (const name of ["setTimeout", "setInterval"]) shared[name] = none;
  const { clock, random } = imports;
  if (clock !== undefined) {
    Date.now = () => Number(clock.nowMs());
    shared["performance"] = { now: () => Number(clock.monotonicNs()) / 1e6 };
  }
  if (random !== undefined) Math.random = () => Number(random.number() >> 11n) / 2 ** 53;
}
