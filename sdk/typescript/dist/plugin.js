// What an author writes against: tools, events, hooks, commands, and the host's services.
import { PalisadeError, Veto } from "./errors.js";
import { wellFormed } from "./json.js";
import { isObject, object } from "./schema.js";
import { Http, Storage } from "./services.js";
const VERSION = 1;
const MAX_NAME = 128;
const MAX_LIST = 256;
/** Lines for the plugin's log. Never waits: a line that the host has no room for is lost. */
export class Log {
    #write;
    constructor(write) {
        this.#write = write;
    }
    trace(message, fields) {
        this.#write("trace", message, fields);
    }
    debug(message, fields) {
        this.#write("debug", message, fields);
    }
    info(message, fields) {
        this.#write("info", message, fields);
    }
    warn(message, fields) {
        this.#write("warn", message, fields);
    }
    error(message, fields) {
        this.#write("error", message, fields);
    }
}
/** Gives a plugin its way to the host, or takes it away; gives what the host asks of it. */
export let attach;
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
    log;
    host;
    state;
    storage;
    http;
    /** The configuration; the host may replace it, see `configure`. */
    config = {};
    /** The plugin's id from the manifest, once the host has told it. */
    id = "";
    /** The capabilities that the plugin has, as the host told them at the start. */
    rights = [];
    #about;
    #tools = new Map();
    #commands = new Map();
    #events = [];
    #hooks = new Map();
    #start = [];
    #stop = [];
    #configure = [];
    #save;
    #restore;
    #link;
    constructor(about = {}) {
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
    tool(name, a, b) {
        const [options, handler] = pair(a, b);
        named(name, this.#tools, "tool");
        const { description, inputSchema } = options;
        const shape = inputSchema
            ? { schema: inputSchema, convert: (value) => value }
            : object(options.params ?? {});
        this.#tools.set(name, { name, description, shape, handler });
    }
    command(name, a, b) {
        const [options, handler] = pair(a, b);
        named(name, this.#commands, "command");
        this.#commands.set(name, { handler, description: options.description });
    }
    /**
     * A handler of the events whose subject fits: `*` stands for one token, a last `>` for one or more.
     * The event is acknowledged unless a handler fails.
     */
    event(subject, handler) {
        const pattern = subject.split(".");
        const valid = pattern.every((token, i) => token === "*" || (token === ">" && i === pattern.length - 1) || /^[A-Za-z0-9_\-$/:=]+$/.test(token));
        if (!valid)
            throw new TypeError(`not a subject: ${JSON.stringify(subject)}`);
        this.#events.push({ pattern, handler });
    }
    hook(name, a, b) {
        const [{ priority = 50 }, handler] = pair(a, b);
        if (!(priority >= 0 && priority <= 1000))
            throw new RangeError("priority: 0 to 1000");
        const handlers = [...(this.#hooks.get(name) ?? []), { priority, handler }];
        this.#hooks.set(name, handlers.sort((x, y) => x.priority - y.priority));
    }
    /** Runs before the plugin is ready; `config` is there. */
    start(handler) {
        this.#start.push(handler);
    }
    /** Runs at `shutdown`, after the running calls. */
    stop(handler) {
        this.#stop.push(handler);
    }
    /** Runs when the configuration changes. If it fails, the old configuration stays. */
    configure(handler) {
        this.#configure.push(handler);
    }
    /** Publishes an event. Needs the capability `event.publish` for the subject. */
    async publish(subject, data = null, options) {
        const result = await this.#live().request("event.publish", { subject, data }, options);
        const count = (name) => Number((isObject(result) && result[name]) || 0);
        return { queued: count("queued"), dropped: count("dropped"), blocked: count("blocked") };
    }
    /** The value of a secret that the operator has set. Needs the capability `secret:NAME`. */
    async secret(name, options) {
        const result = await this.#live().request("secret.get", { name }, options);
        if (isObject(result) && isString(result["value"]))
            return result["value"];
        throw new PalisadeError("PAL-INTERNAL", "the answer to secret.get has no value");
    }
    /** What the manifest's `contributes` has to say. */
    contributes() {
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
    async #stopped() {
        let failed;
        for (const handler of this.#stop) {
            try {
                await handler();
            }
            catch (error) {
                failed ??= { error };
            }
        }
        if (failed)
            throw failed.error;
    }
    #live() {
        if (this.#link === undefined)
            throw new Error("the plugin does not run");
        return this.#link;
    }
    #log(level, message, fields) {
        const text = String(message).slice(0, 8192);
        if (this.#link === undefined) {
            console.error(`${level}: ${text}`); // kept as log too
            return;
        }
        const shown = fields && Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, loggable(value)]));
        this.#link.notify("log", { level, message: wellFormed(text), fields: shown });
    }
    // Requests of the host.
    #dispatch(call, method, params) {
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
                return this.#onRestore(get(params, "schema", Number.isInteger), params);
            default:
                throw new PalisadeError("PAL-NOT-FOUND", `there is no method ${quoted(method)}`);
        }
    }
    async #onInitialize({ min, max }, params) {
        if (!(typeof min === "number" && typeof max === "number" && min <= VERSION && VERSION <= max)) {
            throw new PalisadeError("PAL-PARAMS", `this SDK speaks protocol ${VERSION}; the host offers ${min} to ${max}`);
        }
        const { config, plugin, rights } = params;
        this.config = isObject(config) ? config : {};
        this.id = isObject(plugin) ? String(plugin["id"] ?? "") : "";
        this.rights = Array.isArray(rights) ? rights.filter(isString) : [];
        for (const handler of this.#start)
            await handler();
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
    #onCall(call, name, params) {
        const tool = this.#tools.get(name);
        if (tool === undefined)
            throw new PalisadeError("PAL-NOT-FOUND", `there is no tool ${quoted(name)}`);
        const { args } = params;
        return tool.handler(tool.shape.convert(args ?? {}, "args"), call);
    }
    async #onEvent(call, params) {
        const subject = get(params, "subject", isString);
        const delivery = get(params, "delivery", isString);
        const { data = null, hops, traceparent } = params;
        const event = {
            subject,
            data,
            delivery,
            hops: typeof hops === "number" ? hops : 0,
            traceparent: isString(traceparent) ? traceparent : undefined,
        };
        const tokens = subject.split(".");
        const handlers = this.#events.filter(({ pattern }) => fits(pattern, tokens));
        if (handlers.length === 0)
            throw new PalisadeError("PAL-NOT-FOUND", `nothing handles ${quoted(subject)}`);
        for (const { handler } of handlers) {
            await handler(event, call);
            call.check();
        }
        return {};
    }
    async #onHook(call, name, params) {
        const handlers = this.#hooks.get(name);
        if (handlers === undefined)
            throw new PalisadeError("PAL-NOT-FOUND", `nothing handles the hook ${quoted(name)}`);
        let { data = null } = params;
        let changed = false;
        for (const { handler } of handlers) {
            try {
                const replacement = await handler(data, call);
                if (replacement !== undefined)
                    [data, changed] = [replacement, true];
            }
            catch (e) {
                if (e instanceof Veto)
                    return { veto: e.reason };
                throw e;
            }
            call.check();
        }
        return changed ? { data } : {};
    }
    async #onCommand(call, name, params) {
        const command = this.#commands.get(name);
        if (command === undefined)
            throw new PalisadeError("PAL-NOT-FOUND", `there is no command ${quoted(name)}`);
        const { args = [] } = params;
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
    async #onConfigure(config) {
        const old = this.config;
        this.config = config;
        try {
            for (const handler of this.#configure)
                await handler(config);
        }
        catch (e) {
            this.config = old;
            throw e;
        }
        return {};
    }
    async #onSave() {
        if (this.#save === undefined)
            throw new PalisadeError("PAL-NOT-FOUND", "the plugin saves no state");
        const state = await this.#save.handler();
        return { schema: this.#save.schema, state: state === undefined ? null : state };
    }
    async #onRestore(schema, params) {
        if (this.#restore === undefined)
            throw new PalisadeError("PAL-NOT-FOUND", "the plugin restores no state");
        if (!this.#restore.accepts.includes(schema)) {
            throw new PalisadeError("PAL-PARAMS", `state of schema ${schema} cannot be restored`);
        }
        await this.#restore.handler(params.state, schema);
        return {};
    }
}
function pair(a, b) {
    if (typeof a === "function")
        return [{}, a];
    if (b === undefined)
        throw new TypeError("a handler is missing");
    return [a, b];
}
function named(name, taken, what) {
    const length = [...name].length;
    if (length < 1 || length > MAX_NAME)
        throw new RangeError(`${what}: a name has 1 to ${MAX_NAME} characters`);
    if (taken.has(name))
        throw new TypeError(`there are two of the ${what} ${quoted(name)}`);
    if (taken.size >= MAX_LIST)
        throw new RangeError(`more than ${MAX_LIST} of ${what}`);
}
function get(params, name, is) {
    const value = isObject(params) ? params[name] : undefined;
    if (!is(value))
        throw new PalisadeError("PAL-PARAMS", `${name}: missing or of the wrong type`);
    return value;
}
function fits(pattern, tokens) {
    for (const [i, token] of pattern.entries()) {
        if (token === ">")
            return tokens.length > i;
        if (i >= tokens.length || (token !== "*" && token !== tokens[i]))
            return false;
    }
    return pattern.length === tokens.length;
}
function loggable(value) {
    try {
        const text = JSON.stringify(value);
        return text === undefined || text.length <= 1024 ? value : text.slice(0, 1024);
    }
    catch {
        return String(value).slice(0, 1024);
    }
}
function isString(value) {
    return typeof value === "string";
}
function quoted(text) {
    return JSON.stringify(text.slice(0, 256));
}
