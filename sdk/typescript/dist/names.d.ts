export { PalisadeError, Veto, type ErrorDetails } from "./errors.js";
export { Log, type CommandOptions, type CommandResult, type Event, type HookOptions, type Host, type Published, type State, type ToolOptions, } from "./plugin.js";
export { any, boolean, dict, integer, list, literal, nullable, number, object, optional, string, type Fields, type JsonSchema, type OptionalShape, type Shape, type Values, } from "./schema.js";
export { Http, Operation, Response, Storage, type Compared, type Entry, type FetchOptions, type ListOptions, type Listing, type SetOptions, type Transaction, } from "./services.js";
export { Call, type RequestOptions } from "./call.js";
