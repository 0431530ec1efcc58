// What a plugin's author writes with, but for the plugin itself.
export { PalisadeError, Veto } from "./errors.js";
export { Log, } from "./plugin.js";
export { any, boolean, dict, integer, list, literal, nullable, number, object, optional, string, } from "./schema.js";
export { Http, Operation, Response, Storage, } from "./services.js";
export { Call } from "./call.js";
