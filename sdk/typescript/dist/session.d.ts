import type { Socket } from "node:net";
import { type Dispatcher, type Link, type RequestOptions } from "./call.js";
/** Serves one plugin over one socket, until the host closes it. */
export declare class Session implements Link {
    #private;
    constructor(plugin: Dispatcher, socket: Socket);
    /** Resolves when the host has closed; rejects when it broke the protocol. */
    get ended(): Promise<void>;
    /** Sends a notification, unless it cannot be sent or the host does not keep up. */
    notify(method: string, params: unknown): void;
    /** Asks the host. Rejects with PalisadeError. */
    request(method: string, params: unknown, options?: RequestOptions): Promise<unknown>;
}
