// Shapes: one description gives the JSON Schema that is announced, the check that is made, and the
// static type of what the handler gets.
import { PalisadeError } from "./errors.js";
function kind(value) {
    if (value === null)
        return "null";
    if (Array.isArray(value))
        return "array";
    if (typeof value === "number")
        return Number.isInteger(value) ? "integer" : "number";
    return typeof value;
}
function wrong(path, expected, value) {
    return new PalisadeError("PAL-PARAMS", `${path}: expected ${expected}, got ${kind(value)}`);
}
function basic(type, fits, about) {
    return {
        schema: { type, ...about },
        convert(value, path) {
            if (fits(value))
                return value;
            throw wrong(path, type, value);
        },
    };
}
/** Text. */
export function string(about = {}) {
    return basic("string", (value) => typeof value === "string", about);
}
/** A whole number. Beyond 2^53 JavaScript has rounded it already. */
export function integer(about = {}) {
    return basic("integer", (value) => Number.isInteger(value), about);
}
/** A number. */
export function number(about = {}) {
    return basic("number", (value) => typeof value === "number", about);
}
/** True or false. */
export function boolean(about = {}) {
    return basic("boolean", (value) => typeof value === "boolean", about);
}
/** Any JSON value. */
export function any(about = {}) {
    return { schema: { ...about }, convert: (value) => value };
}
/** One of these constants. */
export function literal(...values) {
    return {
        schema: { enum: [...values] },
        convert(value, path) {
            if (values.includes(value))
                return value;
            const choice = values.map((each) => JSON.stringify(each)).join(", ");
            throw new PalisadeError("PAL-PARAMS", `${path}: expected one of ${choice}`);
        },
    };
}
/** A list. */
export function list(item, about = {}) {
    return {
        schema: { type: "array", items: item.schema, ...about },
        convert(value, path) {
            if (!Array.isArray(value))
                throw wrong(path, "array", value);
            return value.map((each, i) => item.convert(each, `${path}[${i}]`));
        },
    };
}
/** An object whose names are data. */
export function dict(item, about = {}) {
    return {
        schema: { type: "object", additionalProperties: item.schema, ...about },
        convert(value, path) {
            if (!isObject(value))
                throw wrong(path, "object", value);
            // fromEntries defines properties, so that a name such as __proto__ is one like any other.
            return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, item.convert(each, `${path}.${name}`)]));
        },
    };
}
/** An object with these fields and no others. */
export function object(fields, about = {}) {
    const entries = Object.entries(fields);
    const required = entries.filter(([, shape]) => !isOptional(shape)).map(([name]) => name);
    const schema = {
        type: "object",
        properties: Object.fromEntries(entries.map(([name, shape]) => [name, shape.schema])),
        ...(required.length > 0 ? { required } : {}),
        additionalProperties: false,
        ...about,
    };
    return {
        schema,
        convert(value, path) {
            if (!isObject(value))
                throw wrong(path, "object", value);
            for (const name of Object.keys(value)) {
                if (!Object.hasOwn(fields, name)) {
                    throw new PalisadeError("PAL-PARAMS", `${path}: there is no ${JSON.stringify(name.slice(0, 80))}`);
                }
            }
            return Object.fromEntries(entries.map(([name, shape]) => {
                if (Object.hasOwn(value, name))
                    return [name, shape.convert(value[name], `${path}.${name}`)];
                if (isOptional(shape))
                    return [name, shape.fallback];
                throw new PalisadeError("PAL-PARAMS", `${path}: ${JSON.stringify(name)} is missing`);
            }));
        },
    };
}
/** The value, or null. */
export function nullable(shape) {
    const { type } = shape.schema;
    const simple = typeof type === "string" && Object.keys(shape.schema).every((key) => key === "type" || key === "description");
    return {
        schema: simple ? { ...shape.schema, type: [type, "null"] } : { anyOf: [shape.schema, { type: "null" }] },
        convert: (value, path) => (value === null ? null : shape.convert(value, path)),
    };
}
export function optional(shape, fallback) {
    const note = fallback === undefined || fallback === null ? {} : { default: fallback };
    return {
        optional: true,
        fallback,
        schema: { ...shape.schema, ...note },
        convert: (value, path) => shape.convert(value, path),
    };
}
function isOptional(shape) {
    return "optional" in shape;
}
/** Whether a value is a JSON object. */
export function isObject(value) {
    return typeof value === "object" && value !== null && !Array.isArray(value);
}
