// What the person set, kept in localStorage. A field that was not filled in stays the model's own.

import type { Format } from "zebra-runtime";

export interface Sampling {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
  max_tokens?: number;
  seed?: number;
  stop?: string[];
}

export interface NumberField {
  readonly name: Exclude<keyof Sampling, "stop">;
  readonly label: string;
  readonly hint: string;
  readonly min: number;
  readonly max: number;
  readonly step: number;
}

/** The numbers of {@link Sampling}, as the settings show them and as values are checked. */
export const NUMBER_FIELDS: readonly NumberField[] = [
  { name: "temperature", label: "Temperature", hint: "0 always takes the likeliest word", min: 0, max: 5, step: 0.05 },
  { name: "top_p", label: "Top p", hint: "the likeliest words that add up to this share", min: 0, max: 1, step: 0.01 },
  { name: "top_k", label: "Top k", hint: "at most this many words; 0 for all", min: 0, max: 1000000, step: 1 },
  { name: "min_p", label: "Min p", hint: "words this likely next to the likeliest", min: 0, max: 1, step: 0.01 },
  {
    name: "repetition_penalty",
    label: "Repetition penalty",
    hint: "1 for none; 1.1 avoids loops",
    min: 0.1,
    max: 5,
    step: 0.05,
  },
  { name: "max_tokens", label: "Longest answer", hint: "in tokens", min: 1, max: 1000000, step: 1 },
  {
    name: "seed",
    label: "Seed",
    hint: "same seed, same answer",
    min: 0,
    max: Number.MAX_SAFE_INTEGER,
    step: 1,
  },
];

/** What the number must be, or "" when `value` is right. */
export function wrong(field: NumberField, value: number): string {
  const whole = field.step === 1;
  const right = value >= field.min && value <= field.max && (!whole || Number.isInteger(value));
  const kind = whole ? "a whole number" : "a number";
  const range = field.max >= 1000000 ? `of at least ${field.min}` : `from ${field.min} to ${field.max}`;
  return right ? "" : `${field.label} must be ${kind} ${range}`;
}

/** What to load: `string` sources are remembered, files cannot be. */
export interface ModelChoice {
  readonly source: string | readonly File[];
  readonly label: string;
  readonly format?: Format;
  readonly context?: number;
  readonly revision?: string;
  /** Sent as `Authorization: Bearer`; never stored. */
  readonly token?: string;
  readonly kernels?: "plain";
  readonly store?: "quantized" | "none";
}

export interface Settings {
  sampling: Sampling;
  /** The system prompt of new chats. */
  system: string;
  model: ModelChoice | null;
  sidebar: boolean;
}

export type Theme = "system" | "light" | "dark";

const KEY = "zebra-settings";

function read(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function write(key: string, value: string | null): void {
  try {
    if (value === null) {
      localStorage.removeItem(key);
    } else {
      localStorage.setItem(key, value);
    }
  } catch {
    // Without storage a setting lasts as long as the page.
  }
}

export function loadSettings(): Settings {
  const settings: Settings = { sampling: {}, system: "", model: null, sidebar: true };
  let kept: unknown;
  try {
    kept = JSON.parse(read(KEY) ?? "{}");
  } catch {
    return settings;
  }
  if (!isRecord(kept)) {
    return settings;
  }
  const { sampling, system, model, sidebar } = kept;
  if (isRecord(sampling)) {
    for (const field of NUMBER_FIELDS) {
      const value = sampling[field.name];
      if (typeof value === "number" && wrong(field, value) === "") {
        settings.sampling[field.name] = value;
      }
    }
    const { stop } = sampling;
    if (Array.isArray(stop) && stop.every((text) => typeof text === "string")) {
      settings.sampling.stop = stop;
    }
  }
  settings.system = typeof system === "string" ? system : "";
  settings.sidebar = sidebar !== false;
  if (isRecord(model) && typeof model["source"] === "string" && typeof model["label"] === "string") {
    const { source, label, format, context, revision, store } = model;
    settings.model = {
      source,
      label,
      ...(format === "f32" || format === "f16" || format === "q8" || format === "q4" ? { format } : {}),
      ...(typeof context === "number" ? { context } : {}),
      ...(typeof revision === "string" ? { revision } : {}),
      ...(store === "quantized" || store === "none" ? { store } : {}),
    };
  }
  return settings;
}

export function saveSettings(settings: Settings): void {
  const { model } = settings;
  let kept: ModelChoice | null = null;
  if (model && typeof model.source === "string") {
    const { token: _, ...rest } = model;
    kept = rest;
  }
  write(KEY, JSON.stringify({ ...settings, model: kept }));
}

export function theme(): Theme {
  const chosen = document.documentElement.dataset["theme"];
  return chosen === "light" || chosen === "dark" ? chosen : "system";
}

export function setTheme(chosen: Theme): void {
  if (chosen === "system") {
    delete document.documentElement.dataset["theme"];
    write("zebra-theme", null);
  } else {
    document.documentElement.dataset["theme"] = chosen;
    write("zebra-theme", chosen);
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
