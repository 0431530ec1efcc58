export declare const MAX_TIMER_MS: number;
/** One request of the host while a handler works on it. */
export declare class Call {
    #private;
    /** The host's id of the request. */
    readonly id: number | string;
    readonly method: string;
    /** The SDK makes these. */
    constructor(id: number | string, method: string, notify: (method: string, params: unknown) => void);
    /** Whether the host no longer wants the answer. */
    get cancelled(): boolean;
    /** Aborted when the host no longer wants the answer; pass it on to whatever can be stopped. */
    get signal(): AbortSignal;
    /** Throws PAL-CANCELLED if the host no longer wants the answer. */
    check(): void;
    /** Sleeps; ends early and gives true when cancelled. */
    wait(seconds: number): Promise<boolean>;
    /** Tells the host how far the work has come, in units of your choice. */
    progress(done: number, total?: number, message?: string): void;
    /** Marks the call as not wanted. The SDK does this; a handler has no need to. */
    cancel(): void;
}
/** How a request to the host is made. */
export interface RequestOptions {
    /** Deadline in seconds, 30 if not given; Infinity for none. */
    timeout?: number | undefined;
    /** Cancels the request; a call's `signal`, say. */
    signal?: AbortSignal | undefined;
}
/** What a session asks of the plugin. */
export interface Dispatcher {
    /** Handles any method but ping and shutdown. May throw, and may take its time. */
    dispatch(call: Call, method: string, params: unknown): unknown;
    /** Runs the stop handlers. */
    stop(): Promise<void>;
}
/** The way to the host. */
export interface Link {
    /** Asks the host. Rejects with PalisadeError. */
    request(method: string, params: unknown, options?: RequestOptions): Promise<unknown>;
    /** Sends a notification, unless it cannot be sent or the host does not keep up. */
    notify(method: string, params: unknown): void;
}
