import type { Call, Dispatcher, Link, RequestOptions } from "./call.js";
import { type Fields, type JsonSchema, type Values } from "./schema.js";
import { Http, Storage } from "./services.js";
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
/** Lines for the plugin's log. Never waits: a line that the host has no room for is lost. */
export declare class Log {
    #private;
    constructor(write: (level: string, message: unknown, fields?: object) => void);
    trace(message: unknown, fields?: object): void;
    debug(message: unknown, fields?: object): void;
    info(message: unknown, fields?: object): void;
    warn(message: unknown, fields?: object): void;
    error(message: unknown, fields?: object): void;
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
export declare let attach: (plugin: Plugin, link: Link | undefined) => Dispatcher;
/** A plugin. Add tools, events, hooks and commands, then `run`. */
export declare class Plugin {
    #private;
    readonly log: Log;
    readonly host: Host;
    readonly state: State;
    readonly storage: Storage;
    readonly http: Http;
    /** The configuration; the host may replace it, see `configure`. */
    config: {
        [name: string]: any;
    };
    /** The plugin's id from the manifest, once the host has told it. */
    id: string;
    /** The capabilities that the plugin has, as the host told them at the start. */
    rights: string[];
    constructor(about?: {
        name?: string;
        version?: string;
    });
    /** A tool. Without `params` and `inputSchema` it takes no arguments. */
    tool<const F extends Fields = {}>(name: string, options: ToolOptions<F>, handler: ToolHandler<Values<F>>): void;
    tool(name: string, handler: ToolHandler<{}>): void;
    /** A command: gives the text to show, an exit status, both, or nothing. */
    command(name: string, options: CommandOptions, handler: CommandHandler): void;
    command(name: string, handler: CommandHandler): void;
    /**
     * A handler of the events whose subject fits: `*` stands for one token, a last `>` for one or more.
     * The event is acknowledged unless a handler fails.
     */
    event(subject: string, handler: EventHandler): void;
    /**
     * A handler of a hook. `undefined` leaves the data as it is, anything else replaces it, `Veto`
     * refuses. The priority among plugins is the manifest's.
     */
    hook(name: string, options: HookOptions, handler: HookHandler): void;
    hook(name: string, handler: HookHandler): void;
    /** Runs before the plugin is ready; `config` is there. */
    start(handler: () => unknown): void;
    /** Runs at `shutdown`, after the running calls. */
    stop(handler: () => unknown): void;
    /** Runs when the configuration changes. If it fails, the old configuration stays. */
    configure(handler: (config: {
        [name: string]: any;
    }) => unknown): void;
    /** Publishes an event. Needs the capability `event.publish` for the subject. */
    publish(subject: string, data?: unknown, options?: RequestOptions): Promise<Published>;
    /** The value of a secret that the operator has set. Needs the capability `secret:NAME`. */
    secret(name: string, options?: RequestOptions): Promise<string>;
    /** What the manifest's `contributes` has to say. */
    contributes(): object;
}
export {};
