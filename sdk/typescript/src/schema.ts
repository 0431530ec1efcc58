// Shapes: one description gives the JSON Schema that is announced, the check that is made, and the
// static type of what the handler gets.

import { PalisadeError } from "./errors.js";

export type JsonSchema = { [key: string]: unknown };

/** A value's schema, and the function that checks it. */
export interface Shape<T> {
  readonly schema: JsonSchema;
  /** Gives the value, or throws PAL-PARAMS with the path of what does not fit. */
  convert(value: unknown, path: string): T;
}

/** A field that may be missing. */
export interface OptionalShape<T> extends Shape<T> {
  readonly optional: true;
  readonly fallback: T;
}

export type Fields = { readonly [name: string]: Shape<unknown> };

type Of<S> = S extends Shape<infer T> ? T : never;

/** The object that fields describe. */
export type Values<F extends Fields> = { -readonly [K in keyof F]: Of<F[K]> };

type Description = { readonly description?: string };

function kind(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number";
  return typeof value;
}

function wrong(path: string, expected: string, value: unknown): PalisadeError {
  return new PalisadeError("PAL-PARAMS", `${path}: expected ${expected}, got ${kind(value)}`);
}

function basic<T>(type: string, fits: (value: unknown) => boolean, about: Description): Shape<T> {
  return {
    schema: { type, ...about },
    convert(value, path) {
      if (fits(value)) return value as T;
      throw wrong(path, type, value);
    },
  };
}

/** Text. */
export function string(about: Description = {}): Shape<string> {
  return basic("string", (value) => typeof value === "string", about);
}

/** A whole number. Beyond 2^53 JavaScript has rounded it already. */
export function integer(about: Description = {}): Shape<number> {
  return basic("integer", (value) => Number.isInteger(value), about);
}

/** A number. */
export function number(about: Description = {}): Shape<number> {
  return basic("number", (value) => typeof value === "number", about);
}

/** True or false. */
export function boolean(about: Description = {}): Shape<boolean> {
  return basic("boolean", (value) => typeof value === "boolean", about);
}

/** Any JSON value. */
export function any(about: Description = {}): Shape<unknown> {
  return { schema: { ...about }, convert: (value) => value };
}

/** One of these constants. */
export function literal<const T extends readonly (string | number | boolean | null)[]>(...values: T): Shape<T[number]> {
  return {
    schema: { enum: [...values] },
    convert(value, path) {
      if (values.includes(value as T[number])) return value as T[number];
      const choice = values.map((each) => JSON.stringify(each)).join(", ");
      throw new PalisadeError("PAL-PARAMS", `${path}: expected one of ${choice}`);
    },
  };
}

/** A list. */
export function list<T>(item: Shape<T>, about: Description = {}): Shape<T[]> {
  return {
    schema: { type: "array", items: item.schema, ...about },
    convert(value, path) {
      if (!Array.isArray(value)) throw wrong(path, "array", value);
      return value.map((each: unknown, i) => item.convert(each, `${path}[${i}]`));
    },
  };
}

/** An object whose names are data. */
export function dict<T>(item: Shape<T>, about: Description = {}): Shape<{ [name: string]: T }> {
  return {
    schema: { type: "object", additionalProperties: item.schema, ...about },
    convert(value, path) {
      if (!isObject(value)) throw wrong(path, "object", value);
      // fromEntries defines properties, so that a name such as __proto__ is one like any other.
      return Object.fromEntries(
        Object.entries(value).map(([name, each]) => [name, item.convert(each, `${path}.${name}`)]),
      );
    },
  };
}

/** An object with these fields and no others. */
export function object<F extends Fields>(fields: F, about: Description = {}): Shape<Values<F>> {
  const entries = Object.entries(fields);
  const required = entries.filter(([, shape]) => !isOptional(shape)).map(([name]) => name);
  const schema: JsonSchema = {
    type: "object",
    properties: Object.fromEntries(entries.map(([name, shape]) => [name, shape.schema])),
    ...(required.length > 0 ? { required } : {}),
    additionalProperties: false,
    ...about,
  };
  return {
    schema,
    convert(value, path) {
      if (!isObject(value)) throw wrong(path, "object", value);
      for (const name of Object.keys(value)) {
        if (!Object.hasOwn(fields, name)) {
          throw new PalisadeError("PAL-PARAMS", `${path}: there is no ${JSON.stringify(name.slice(0, 80))}`);
        }
      }
      return Object.fromEntries(
        entries.map(([name, shape]) => {
          if (Object.hasOwn(value, name)) return [name, shape.convert(value[name], `${path}.${name}`)];
          if (isOptional(shape)) return [name, shape.fallback];
          throw new PalisadeError("PAL-PARAMS", `${path}: ${JSON.stringify(name)} is missing`);
        }),
      ) as Values<F>;
    },
  };
}

/** The value, or null. */
export function nullable<T>(shape: Shape<T>): Shape<T | null> {
  const { type } = shape.schema;
  const simple = typeof type === "string" && Object.keys(shape.schema).every((key) => key === "type" || key === "description");
  return {
    schema: simple ? { ...shape.schema, type: [type, "null"] } : { anyOf: [shape.schema, { type: "null" }] },
    convert: (value, path) => (value === null ? null : shape.convert(value, path)),
  };
}

/** A field that may be missing; the handler gets `fallback` then. */
export function optional<T>(shape: Shape<T>): OptionalShape<T | undefined>;
export function optional<T>(shape: Shape<T>, fallback: T): OptionalShape<T>;
export function optional<T>(shape: Shape<T>, fallback?: T): OptionalShape<T | undefined> {
  const note = fallback === undefined || fallback === null ? {} : { default: fallback };
  return {
    optional: true,
    fallback,
    schema: { ...shape.schema, ...note },
    convert: (value, path) => shape.convert(value, path),
  };
}

function isOptional(shape: Shape<unknown>): shape is OptionalShape<unknown> {
  return "optional" in shape;
}

/** Whether a value is a JSON object. */
export function isObject(value: unknown): value is { [name: string]: unknown } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
