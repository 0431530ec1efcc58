/**
 * Write plugins for Palisade.
 *
 *     import { Plugin, string } from "@palisade/plugin";
 *
 *     const plugin = new Plugin();
 *     plugin.tool("greet", { params: { name: string() } }, ({ name }) => `Hello, ${name}!`);
 *     plugin.run();
 *
 * The wire is described in docs/reference/protocol.md. There are no dependencies.
 */
export { PalisadeError, Veto } from "./errors.js";
export { Log, Plugin, } from "./plugin.js";
export { any, boolean, dict, integer, list, literal, nullable, number, object, optional, string, } from "./schema.js";
export { Http, Operation, Response, Storage, } from "./services.js";
export { Call } from "./session.js";
