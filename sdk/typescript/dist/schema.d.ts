export type JsonSchema = {
    [key: string]: unknown;
};
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
export type Fields = {
    readonly [name: string]: Shape<unknown>;
};
type Of<S> = S extends Shape<infer T> ? T : never;
/** The object that fields describe. */
export type Values<F extends Fields> = {
    -readonly [K in keyof F]: Of<F[K]>;
};
type Description = {
    readonly description?: string;
};
/** Text. */
export declare function string(about?: Description): Shape<string>;
/** A whole number. Beyond 2^53 JavaScript has rounded it already. */
export declare function integer(about?: Description): Shape<number>;
/** A number. */
export declare function number(about?: Description): Shape<number>;
/** True or false. */
export declare function boolean(about?: Description): Shape<boolean>;
/** Any JSON value. */
export declare function any(about?: Description): Shape<unknown>;
/** One of these constants. */
export declare function literal<const T extends readonly (string | number | boolean | null)[]>(...values: T): Shape<T[number]>;
/** A list. */
export declare function list<T>(item: Shape<T>, about?: Description): Shape<T[]>;
/** An object whose names are data. */
export declare function dict<T>(item: Shape<T>, about?: Description): Shape<{
    [name: string]: T;
}>;
/** An object with these fields and no others. */
export declare function object<F extends Fields>(fields: F, about?: Description): Shape<Values<F>>;
/** The value, or null. */
export declare function nullable<T>(shape: Shape<T>): Shape<T | null>;
/** A field that may be missing; the handler gets `fallback` then. */
export declare function optional<T>(shape: Shape<T>): OptionalShape<T | undefined>;
export declare function optional<T>(shape: Shape<T>, fallback: T): OptionalShape<T>;
/** Whether a value is a JSON object. */
export declare function isObject(value: unknown): value is {
    [name: string]: unknown;
};
export {};
