// Checks of what callers pass. Every message names the field, what was expected and what was found.

import { ZebraError } from "./errors.js";

/** A value as messages tell of it. */
export function found(value: unknown): string {
  if (value === null) return "null";
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : "a list";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value === "string") return value.length > 40 ? "a string" : JSON.stringify(value);
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

export function refuse(path: string, expected: string, value: unknown): never {
  throw new ZebraError("bad-request", `${path}: expected ${expected}, found ${found(value)}`, { field: path });
}

export function record(path: string, value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    refuse(path, "an object", value);
  }
  return value as Readonly<Record<string, unknown>>;
}

/** The checked value of a field; `undefined` where it is not given, or null as OpenAI's library allows. */
export function optional<T>(
  name: string,
  from: Readonly<Record<string, unknown>>,
  check: (path: string, value: unknown) => T,
): T | undefined {
  const value = from[name];
  return value === undefined || value === null ? undefined : check(name, value);
}

export function requireString(path: string, value: unknown): string {
  return typeof value === "string" ? value : refuse(path, "a string", value);
}

export function requireBoolean(path: string, value: unknown): boolean {
  return typeof value === "boolean" ? value : refuse(path, "true or false", value);
}

export function requireNumber(path: string, value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : refuse(path, "a number", value);
}

export function requireInteger(path: string, value: unknown): number {
  return Number.isSafeInteger(value) ? (value as number) : refuse(path, "a whole number", value);
}

/** What the runtime holds in 32 bits: ids, seeds, counts. */
export function requireUnsigned(path: string, value: unknown): number {
  const number = requireInteger(path, value);
  return number >= 0 && number <= 0xffffffff ? number : refuse(path, "a whole number from 0 to 4294967295", value);
}

export function requirePositiveInteger(path: string, value: unknown): number {
  const number = requireInteger(path, value);
  return number > 0 ? number : refuse(path, "a whole number above 0", value);
}

export function requireOneOf<const T extends string>(path: string, value: unknown, names: readonly T[]): T {
  const name = names.find((name) => name === value);
  return name ?? refuse(path, names.map((name) => `"${name}"`).join(" or "), value);
}
