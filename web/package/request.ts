// From OpenAI's requests to the runtime's, every field checked.

import { ZebraError } from "./errors.js";
import type { Message } from "./openai.js";
import {
  found,
  optional,
  record,
  refuse,
  requireBoolean,
  requireInteger,
  requireNumber,
  requirePositiveInteger,
  requireString,
  requireUnsigned,
} from "./validate.js";
import type { GenerateRequest, Prompt } from "./worker/protocol.js";

type Fields = Readonly<Record<string, unknown>>;

/** A checked request. */
export interface Checked {
  readonly generate: GenerateRequest;
  readonly stream: boolean;
  readonly tokenIds: boolean;
}

const SAMPLING_FIELDS = [
  "temperature",
  "top_p",
  "top_k",
  "min_p",
  "presence_penalty",
  "frequency_penalty",
  "repetition_penalty",
  "logit_bias",
  "seed",
  "stop",
  "max_tokens",
  "ignore_eos",
];
const COMMON_FIELDS = [...SAMPLING_FIELDS, "logprobs", "n", "stream", "stream_options", "return_token_ids", "model"];
const CHAT_FIELDS = [...COMMON_FIELDS, "messages", "max_completion_tokens", "top_logprobs", "response_format"];
const COMPLETION_FIELDS = [...COMMON_FIELDS, "prompt", "best_of", "echo", "suffix"];

/** Fields of OpenAI's service that say nothing about the answer. */
const WITHOUT_EFFECT = [
  "metadata",
  "prompt_cache_key",
  "prompt_cache_retention",
  "safety_identifier",
  "service_tier",
  "store",
  "user",
];

/** Fields of OpenAI's API that would change the answer and that this runtime does not have. */
const UNSUPPORTED = [
  "audio",
  "function_call",
  "functions",
  "modalities",
  "parallel_tool_calls",
  "prediction",
  "reasoning_effort",
  "tool_choice",
  "tools",
  "verbosity",
  "web_search_options",
];

export function checkChat(request: unknown): Checked {
  const fields = record("request", request);
  checkNames(fields, CHAT_FIELDS);
  const format = optional("response_format", fields, record);
  if (format && format.type !== "text") {
    unsupported("response_format", `only { type: "text" }, found type ${found(format.type)}`);
  }
  const limit = optional("max_completion_tokens", fields, requirePositiveInteger);
  const older = optional("max_tokens", fields, requirePositiveInteger);
  if (limit !== undefined && older !== undefined && limit !== older) {
    refuse("max_tokens", `the same as max_completion_tokens (${limit}), or only one of the two`, older);
  }
  const logprobs = optional("logprobs", fields, requireBoolean) ?? false;
  const top = optional("top_logprobs", fields, requireTopLogprobs);
  if (top && !logprobs) {
    refuse("logprobs", "true beside top_logprobs", fields.logprobs);
  }
  return checkCommon(fields, { messages: checkMessages(fields.messages) }, logprobs ? (top ?? 0) : undefined, limit);
}

export function checkCompletion(request: unknown): Checked {
  const fields = record("request", request);
  checkNames(fields, COMPLETION_FIELDS);
  const best = optional("best_of", fields, requireInteger) ?? 1;
  if (best !== 1) {
    unsupported("best_of", `only 1, found ${best}`);
  }
  if (optional("echo", fields, requireBoolean)) {
    unsupported("echo", "the prompt is not repeated in the answer");
  }
  if (optional("suffix", fields, requireString)) {
    unsupported("suffix", "text is only added after the prompt");
  }
  return checkCommon(fields, checkPrompt(fields.prompt), optional("logprobs", fields, requireTopLogprobs));
}

function checkCommon(fields: Fields, prompt: Prompt, logprobs: number | undefined, limit?: number): Checked {
  const n = optional("n", fields, requireInteger) ?? 1;
  if (n !== 1) {
    unsupported("n", `only 1 answer at a time, found ${n}; ask again with another seed`);
  }
  optional("model", fields, requireString);
  const streamOptions = optional("stream_options", fields, record);
  if (streamOptions) {
    optional("include_usage", streamOptions, requireBoolean);
  }
  const numbers = {
    max_tokens: limit ?? optional("max_tokens", fields, requirePositiveInteger),
    temperature: optional("temperature", fields, requireNumber),
    top_p: optional("top_p", fields, requireNumber),
    top_k: optional("top_k", fields, requireUnsigned),
    min_p: optional("min_p", fields, requireNumber),
    seed: optional("seed", fields, requireUnsigned),
    presence_penalty: optional("presence_penalty", fields, requireNumber),
    frequency_penalty: optional("frequency_penalty", fields, requireNumber),
    repetition_penalty: optional("repetition_penalty", fields, requireNumber),
    stop: optional("stop", fields, requireStops),
    logit_bias: optional("logit_bias", fields, requireBias),
    ignore_eos: optional("ignore_eos", fields, requireBoolean),
    logprobs,
  };
  return {
    generate: { prompt, ...withoutUndefined(numbers) },
    stream: optional("stream", fields, requireBoolean) ?? false,
    tokenIds: optional("return_token_ids", fields, requireBoolean) ?? false,
  };
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** The runtime takes its default for a field that is missing, not for one that is `undefined`. */
function withoutUndefined<T extends object>(fields: T): Defined<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Defined<T>;
}

/** A misspelt field that is ignored gives answers that nobody asked for, so unknown ones are refused as OpenAI does. */
function checkNames(fields: Fields, known: readonly string[]): void {
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined || value === null || known.includes(name) || WITHOUT_EFFECT.includes(name)) {
      continue;
    }
    if (UNSUPPORTED.includes(name)) {
      // What an agent framework sends when it has no tools.
      if ((Array.isArray(value) && value.length === 0) || value === "none") {
        continue;
      }
      unsupported(name, "leave it out");
    }
    throw new ZebraError("bad-request", `${name}: an unknown field; known are ${known.toSorted().join(", ")}`, {
      field: name,
    });
  }
}

function unsupported(field: string, advice: string): never {
  throw new ZebraError("unsupported", `${field} is not supported: ${advice}`, { field });
}

/** Fields that are unknown pass here: applications keep ids and dates of their own in messages. */
export function checkMessages(value: unknown, path = "messages"): Message[] {
  if (!Array.isArray(value)) {
    refuse(path, "a list of messages", value);
  }
  if (value.length === 0) {
    refuse(path, "at least one message", value);
  }
  return value.map((message, index) => checkMessage(message, `${path}[${index}]`));
}

function checkMessage(value: unknown, path: string): Message {
  const { role, content, ...rest } = record(path, value);
  if (role === "tool" || role === "function") {
    unsupported(`${path}.role`, `there are no tools, found ${found(role)}`);
  }
  for (const name of ["tool_calls", "function_call", "audio"]) {
    const given = rest[name];
    if (given !== undefined && given !== null && !(Array.isArray(given) && given.length === 0)) {
      unsupported(`${path}.${name}`, "messages are text");
    }
  }
  if (role !== "system" && role !== "developer" && role !== "user" && role !== "assistant") {
    refuse(`${path}.role`, '"system", "developer", "user" or "assistant"', role);
  }
  // Templates of open models know the older name only.
  return { role: role === "developer" ? "system" : role, content: checkContent(content, `${path}.content`) };
}

function checkContent(value: unknown, path: string): string {
  if (typeof value === "string") {
    return value;
  }
  if (!Array.isArray(value)) {
    refuse(path, "a string or a list of text parts", value);
  }
  const texts = value.map((part: unknown, index) => {
    const { type, text } = record(`${path}[${index}]`, part);
    if (typeof type === "string" && type !== "text") {
      unsupported(`${path}[${index}].type`, `parts are { type: "text", text }, found ${found(type)}`);
    }
    if (type !== "text") {
      refuse(`${path}[${index}].type`, '"text"', type);
    }
    return requireString(`${path}[${index}].text`, text);
  });
  // As vLLM joins them.
  return texts.join("\n");
}

function checkPrompt(value: unknown): Prompt {
  if (typeof value === "string") {
    return { text: value };
  }
  if (!Array.isArray(value) || value.length === 0) {
    refuse("prompt", "a string or a list of token ids", value);
  }
  const [first]: unknown[] = value;
  if (typeof first === "string" || Array.isArray(first)) {
    if (value.length > 1) {
      unsupported("prompt", `one prompt at a time, found ${value.length}`);
    }
    return checkPrompt(first);
  }
  return {
    ids: value.map((id: unknown, index) => requireUnsigned(`prompt[${index}]`, id)),
  };
}

function requireTopLogprobs(path: string, value: unknown): number {
  const count = requireInteger(path, value);
  return count >= 0 && count <= 20 ? count : refuse(path, "a whole number from 0 to 20", value);
}

function requireStops(path: string, value: unknown): string[] {
  const stops = typeof value === "string" ? [value] : value;
  if (!Array.isArray(stops)) {
    refuse(path, "a string or a list of strings", value);
  }
  return stops.map((stop, index) => {
    const text = requireString(`${path}[${index}]`, stop);
    return text === "" ? refuse(`${path}[${index}]`, "a text that is not empty", text) : text;
  });
}

function requireBias(path: string, value: unknown): [number, number][] {
  return Object.entries(record(path, value)).map(([id, bias]) => {
    const key = /^\d+$/.test(id) ? Number(id) : refuse(path, "token ids as keys", id);
    return [requireUnsigned(path, key), requireNumber(`${path}["${id}"]`, bias)];
  });
}
