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

export * from "./names.js";
export { Plugin } from "./native.js";
