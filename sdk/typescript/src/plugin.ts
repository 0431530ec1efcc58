// What an author writes against: tools, events, hooks, commands, and the host's services.

import type { Call, Dispatcher, Link, RequestOptions } from "./call.js";
import { PalisadeError, Veto } from "./errors.js";
import { wellFormed } from "./json.js";
import { isObject, object, type Fields, type JsonSchema, type Shape, type Values } from "./schema.js";
import { Http, Storage } from "./services.js";

const VERSION = 1;
const MAX_NAME = 128;
const MAX_LIST = 256;

type Awaitable<T> = T | Promise<T>;

/** An event as it is delivered. A repeated delivery has the same `delivery`. */
export interface Event {
  readonly subject: string;
  readonly data: unknown;
  readonly delivery: string;
  /** How many publishers in a row led to it. */
  readonly hops: number;
  readonly traceparent: string | undefined;
}

/** What a command gives: an exit status from 0 to 255 and the text to show. */
export interface CommandResult {
  status?: number;
  output?: string;
}

/** In how many subscriptions an event is queued, replaced another one, or was refused. */
export interface Published {
  queued: number;
  dropped: number;
  blocked: number;
}

export interface ToolOptions<F extends Fields> {
  description?: string;
  /** The arguments: checked, announced as JSON Schema, and typed. */
  params?: F;
  /** Instead of `params`: announced as it is, and not checked here. */
  inputSchema?: JsonSchema;
}

export interface CommandOptions {
  description?: string;
}

export interface HookOptions {
  /** Of several handlers for one hook the lower one comes first; 0 to 1000, 50 if not given. */
  priority?: number;
}

type ToolHandler<A> = (args: A, call: Call) => unknown;
type EventHandler = (event: Event, call: Call) => unknown;
type HookHandler = (data: any, call: Call) => unknown;
type CommandHandler = (args: string[], call: Call) => Awaitable<string | number | CommandResult | void>;

interface Tool {
  name: string;
  description: string | undefined;
  shape: Shape<unknown>;
  handler: ToolHandler<any>;
}

/** Lines for the plugin's log. Never waits: a line that the host has no room for is lost. */
export class Log {
  readonly #write: (level: string, message: unknown, fields?: object) => void;

  constructor(write: (level: string, message: unknown, fields?: object) => void) {
    this.#write = write;
  }

  trace(message: unknown, fields?: object): void {
    this.#write("trace", message, fields);
  }
  debug(message: unknown, fields?: object): void {
    this.#write("debug", message, fields);
  }
  info(message: unknown, fields?: object): void {
    this.#write("info", message, fields);
  }
  warn(message: unknown, fields?: object): void {
    this.#write("warn", message, fields);
  }
  error(message: unknown, fields?: object): void {
    this.#write("error", message, fields);
  }
}

/** The services of the application that runs the plugin. */
export interface Host {
  /** Calls a service. Needs the capability `host.call:METHOD`. */
  call(method: string, params?: unknown, options?: RequestOptions): Promise<any>;
}

/** What survives a reload. */
export interface State {
  /** The function that gives the state; `schema` is the version of its form. */
  save(schema: number, handler: () => unknown): void;
  /** The function that takes the state back; `accepts` are the versions that it can read. */
  restore(accepts: readonly number[], handler: (state: any, schema: number) => unknown): void;
}

/** Gives a plugin its way to the host, or takes it away; gives what the host asks of it. */
export let attach: (plugin: Plugin, link: Link | undefined) => Dispatcher;

/** A plugin. Add tools, events, hooks and commands, then `run`. */
export class Plugin {
  static {
    attach = (plugin, link) => {
      plugin.#link = link;
      return {
        dispatch: (call, method, params) => plugin.#dispatch(call, method, params),
        stop: () => plugin.#stopped(),
      };
    };
  }

  readonly log: Log;
  readonly host: Host;
  readonly state: State;
  readonly storage: Storage;
  readonly http: Http;
  /** The configuration; the host may replace it, see `configure`. */
  config: { [name: string]: any } = {};
  /** The plugin's id from the manifest, once the host has told it. */
  id = "";
  /** The capabilities that the plugin has, as the host told them at the start. */
  rights: string[] = [];

  readonly #about: { name?: string; version?: string };
  readonly #tools = new Map<string, Tool>();
  readonly #commands = new Map<string, { handler: CommandHandler; description: string | undefined }>();
  readonly #events: { pattern: string[]; handler: EventHandler }[] = [];
  readonly #hooks = new Map<string, { priority: number; handler: HookHandler }[]>();
  readonly #start: (() => unknown)[] = [];
  readonly #stop: (() => unknown)[] = [];
  readonly #configure: ((config: { [name: string]: any }) => unknown)[] = [];
  #save: { schema: number; handler: () => unknown } | undefined;
  #restore: { accepts: number[]; handler: (state: any, schema: number) => unknown } | undefined;
  #link: Link | undefined;

  constructor(about: { name?: string; version?: string } = {}) {
    this.#about = about;
    this.log = new Log((level, message, fields) => this.#log(level, message, fields));
    this.host = {
      call: (method, params = null, options) => this.#live().request("host.call", { method, params }, options),
    };
    this.storage = new Storage((method, params, options) => this.#live().request(method, params, options));
    this.http = new Http((method, params, options) => this.#live().request(method, params, options));
    this.state = {
      save: (schema, handler) => {
        this.#save = { schema, handler };
      },
      restore: (accepts, handler) => {
        this.#restore = { accepts: [...new Set(accepts)].sort((a, b) => a - b), handler };
      },
    };
  }

  /** A tool. Without `params` and `inputSchema` it takes no arguments. */
  tool<const F extends Fields = {}>(name: string, options: ToolOptions<F>, handler: ToolHandler<Values<F>>): void;
  tool(name: string, handler: ToolHandler<{}>): void;
  tool(name: string, a: ToolOptions<Fields> | ToolHandler<any>, b?: ToolHandler<any>): void {
    const [options, handler] = pair<ToolOptions<Fields>, ToolHandler<any>>(a, b);
    named(name, this.#tools, "tool");
    const { description, inputSchema } = options;
    const shape = inputSchema
      ? { schema: inputSchema, convert: (value: unknown) => value }
      : object(options.params ?? {});
    this.#tools.set(name, { name, description, shape, handler });
  }

  /** A command: gives the text to show, an exit status, both, or nothing. */
  command(name: string, options: CommandOptions, handler: CommandHandler): void;
  command(name: string, handler: CommandHandler): void;
  command(name: string, a: CommandOptions | CommandHandler, b?: CommandHandler): void {
    const [options, handler] = pair<CommandOptions, CommandHandler>(a, b);
    named(name, this.#commands, "command");
    this.#commands.set(name, { handler, description: options.description });
  }

  /**
   * A handler of the events whose subject fits: `*` stands for one token, a last `>` for one or more.
   * The event is acknowledged unless a handler fails.
   */
  event(subject: string, handler: EventHandler): void {
    const pattern = subject.split(".");
    const valid = pattern.every(
      (token, i) => token === "*" || (token === ">" && i === pattern.length - 1) || /^[A-Za-z0-9_\-$/:=]+$/.test(token),
    );
    if (!valid) throw new TypeError(`not a subject: ${JSON.stringify(subject)}`);
    this.#events.push({ pattern, handler });
  }

  /**
   * A handler of a hook. `undefined` leaves the data as it is, anything else replaces it, `Veto`
   * refuses. The priority among plugins is the manifest's.
   */
  hook(name: string, options: HookOptions, handler: HookHandler): void;
  hook(name: string, handler: HookHandler): void;
  hook(name: string, a: HookOptions | HookHandler, b?: HookHandler): void {
    const [{ priority = 50 }, handler] = pair<HookOptions, HookHandler>(a, b);
    if (!(priority >= 0 && priority <= 1000)) throw new RangeError("priority: 0 to 1000");
    const handlers = [...(this.#hooks.get(name) ?? []), { priority, handler }];
    this.#hooks.set(name, handlers.sort((x, y) => x.priority - y.priority));
  }

  /** Runs before the plugin is ready; `config` is there. */
  start(handler: () => unknown): void {
    this.#start.push(handler);
  }

  /** Runs at `shutdown`, after the running calls. */
  stop(handler: () => unknown): void {
    this.#stop.push(handler);
  }

  /** Runs when the configuration changes. If it fails, the old configuration stays. */
  configure(handler: (config: { [name: string]: any }) => unknown): void {
    this.#configure.push(handler);
  }

  /** Publishes an event. Needs the capability `event.publish` for the subject. */
  async publish(subject: string, data: unknown = null, options?: RequestOptions): Promise<Published> {
    const result = await this.#live().request("event.publish", { subject, data }, options);
    const count = (name: string): number => Number((isObject(result) && result[name]) || 0);
    return { queued: count("queued"), dropped: count("dropped"), blocked: count("blocked") };
  }

  /** The value of a secret that the operator has set. Needs the capability `secret:NAME`. */
  async secret(name: string, options?: RequestOptions): Promise<string> {
    const result = await this.#live().request("secret.get", { name }, options);
    if (isObject(result) && isString(result["value"])) return result["value"];
    throw new PalisadeError("PAL-INTERNAL", "the answer to secret.get has no value");
  }

  /** What the manifest's `contributes` has to say. */
  contributes(): object {
    const tools = [...this.#tools.values()].map(({ name, description, shape }) => ({
      name,
      description: description ?? name,
      input: shape.schema,
    }));
    const commands = [...this.#commands].map(([name, { description }]) => ({ name, description: description ?? name }));
    const hooks = [...this.#hooks].map(([event, handlers]) => ({ event, priority: handlers[0]?.priority ?? 50 }));
    return {
      ...(tools.length > 0 ? { tools } : {}),
      ...(commands.length > 0 ? { commands } : {}),
      ...(hooks.length > 0 ? { hooks } : {}),
    };
  }

  async #stopped(): Promise<void> {
    let failed: { error: unknown } | undefined;
    for (const handler of this.#stop) {
      try {
        await handler();
      } catch (error) {
        failed ??= { error };
      }
    }
    if (failed) throw failed.error;
  }

  #live(): Link {
    if (this.#link === undefined) throw new Error("the plugin does not run");
    return this.#link;
  }

  #log(level: string, message: unknown, fields?: object): void {
    const text = String(message).slice(0, 8192);
    if (this.#link === undefined) {
      console.error(`${level}: ${text}`); // kept as log too
      return;
    }
    const shown = fields && Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, loggable(value)]));
    this.#link.notify("log", { level, message: wellFormed(text), fields: shown });
  }

  // Requests of the host.

  #dispatch(call: Call, method: string, params: unknown): unknown {
    switch (method) {
      case "initialize":
        return this.#onInitialize(get(params, "protocol", isObject), params);
      case "call":
        return this.#onCall(call, get(params, "tool", isString), params);
      case "handle_event":
        return this.#onEvent(call, params);
      case "hook":
        return this.#onHook(call, get(params, "hook", isString), params);
      case "run_command":
        return this.#onCommand(call, get(params, "command", isString), params);
      case "configure":
        return this.#onConfigure(get(params, "config", isObject));
      case "save_state":
        return this.#onSave();
      case "restore_state":
        return this.#onRestore(get(params, "schema", Number.isInteger) as number, params);
      default:
        throw new PalisadeError("PAL-NOT-FOUND", `there is no method ${quoted(method)}`);
    }
  }

  async #onInitialize({ min, max }: { [name: string]: unknown }, params: unknown): Promise<unknown> {
    if (!(typeof min === "number" && typeof max === "number" && min <= VERSION && VERSION <= max)) {
      throw new PalisadeError("PAL-PARAMS", `this SDK speaks protocol ${VERSION}; the host offers ${min} to ${max}`);
    }
    const { config, plugin, rights } = params as { [name: string]: unknown };
    this.config = isObject(config) ? config : {};
    this.id = isObject(plugin) ? String(plugin["id"] ?? "") : "";
    this.rights = Array.isArray(rights) ? rights.filter(isString) : [];
    for (const handler of this.#start) await handler();
    return {
      protocol: VERSION,
      features: [],
      plugin: {
        name: (this.#about.name ?? (this.id || "plugin")).slice(0, MAX_NAME),
        version: (this.#about.version ?? "0.0.0").slice(0, MAX_NAME),
      },
      tools: [...this.#tools.values()].map(({ name, description, shape }) => ({
        name,
        description,
        input_schema: shape.schema,
      })),
      state_schemas: this.#restore?.accepts,
    };
  }

  #onCall(call: Call, name: string, params: unknown): unknown {
    const tool = this.#tools.get(name);
    if (tool === undefined) throw new PalisadeError("PAL-NOT-FOUND", `there is no tool ${quoted(name)}`);
    const { args } = params as { [name: string]: unknown };
    return tool.handler(tool.shape.convert(args ?? {}, "args"), call);
  }

  async #onEvent(call: Call, params: unknown): Promise<unknown> {
    const subject = get(params, "subject", isString);
    const delivery = get(params, "delivery", isString);
    const { data = null, hops, traceparent } = params as { [name: string]: unknown };
    const event: Event = {
      subject,
      data,
      delivery,
      hops: typeof hops === "number" ? hops : 0,
      traceparent: isString(traceparent) ? traceparent : undefined,
    };
    const tokens = subject.split(".");
    const handlers = this.#events.filter(({ pattern }) => fits(pattern, tokens));
    if (handlers.length === 0) throw new PalisadeError("PAL-NOT-FOUND", `nothing handles ${quoted(subject)}`);
    for (const { handler } of handlers) {
      await handler(event, call);
      call.check();
    }
    return {};
  }

  async #onHook(call: Call, name: string, params: unknown): Promise<unknown> {
    const handlers = this.#hooks.get(name);
    if (handlers === undefined) throw new PalisadeError("PAL-NOT-FOUND", `nothing handles the hook ${quoted(name)}`);
    let { data = null } = params as { data?: unknown };
    let changed = false;
    for (const { handler } of handlers) {
      try {
        const replacement = await handler(data, call);
        if (replacement !== undefined) [data, changed] = [replacement, true];
      } catch (e) {
        if (e instanceof Veto) return { veto: e.reason };
        throw e;
      }
      call.check();
    }
    return changed ? { data } : {};
  }

  async #onCommand(call: Call, name: string, params: unknown): Promise<unknown> {
    const command = this.#commands.get(name);
    if (command === undefined) throw new PalisadeError("PAL-NOT-FOUND", `there is no command ${quoted(name)}`);
    const { args = [] } = params as { args?: unknown };
    if (!Array.isArray(args) || !args.every(isString)) {
      throw new PalisadeError("PAL-PARAMS", "args: expected a list of texts");
    }
    const given = await command.handler(args, call);
    const result = typeof given === "string" ? { output: given } : typeof given === "number" ? { status: given } : given;
    const { status = 0, output = "" } = result ?? {};
    if (!(Number.isInteger(status) && status >= 0 && status <= 255)) {
      throw new RangeError("a command's status goes from 0 to 255");
    }
    return { status, output };
  }

  async #onConfigure(config: { [name: string]: unknown }): Promise<unknown> {
    const old = this.config;
    this.config = config;
    try {
      for (const handler of this.#configure) await handler(config);
    } catch (e) {
      this.config = old;
      throw e;
    }
    return {};
  }

  async #onSave(): Promise<unknown> {
    if (this.#save === undefined) throw new PalisadeError("PAL-NOT-FOUND", "the plugin saves no state");
    const state = await this.#save.handler();
    return { schema: this.#save.schema, state: state === undefined ? null : state };
  }

  async #onRestore(schema: number, params: unknown): Promise<unknown> {
    if (this.#restore === undefined) throw new PalisadeError("PAL-NOT-FOUND", "the plugin restores no state");
    if (!this.#restore.accepts.includes(schema)) {
      throw new PalisadeError("PAL-PARAMS", `state of schema ${schema} cannot be restored`);
    }
    await this.#restore.handler((params as { state?: unknown }).state, schema);
    return {};
  }
}

function pair<O extends object, H extends Function>(a: O | H, b: H | undefined): [O, H] {
  if (typeof a === "function") return [{} as O, a];
  if (b === undefined) throw new TypeError("a handler is missing");
  return [a, b];
}

function named(name: string, taken: ReadonlyMap<string, unknown>, what: string): void {
  const length = [...name].length;
  if (length < 1 || length > MAX_NAME) throw new RangeError(`${what}: a name has 1 to ${MAX_NAME} characters`);
  if (taken.has(name)) throw new TypeError(`there are two of the ${what} ${quoted(name)}`);
  if (taken.size >= MAX_LIST) throw new RangeError(`more than ${MAX_LIST} of ${what}`);
}

function get<T>(params: unknown, name: string, is: (value: unknown) => value is T): T;
function get(params: unknown, name: string, is: (value: unknown) => boolean): unknown;
function get(params: unknown, name: string, is: (value: unknown) => boolean): unknown {
  const value = isObject(params) ? params[name] : undefined;
  if (!is(value)) throw new PalisadeError("PAL-PARAMS", `${name}: missing or of the wrong type`);
  return value;
}

function fits(pattern: string[], tokens: string[]): boolean {
  for (const [i, token] of pattern.entries()) {
    if (token === ">") return tokens.length > i;
    if (i >= tokens.length || (token !== "*" && token !== tokens[i])) return false;
  }
  return pattern.length === tokens.length;
}

function loggable(value: unknown): unknown {
  try {
    const text = JSON.stringify(value);
    return text === undefined || text.length <= 1024 ? value : text.slice(0, 1024);
  } catch {
    return String(value).slice(0, 1024);
  }
}

function isString(value: unknown): value is string {
  return typeof value === "string";
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 256));
}
