// What the page and its worker say to each other. Calls have ids because answers stream while other calls come and go,
// and a call can be aborted, which is why this is not one of the libraries that make a worker look like an object.

import type { ErrorData } from "../errors.js";
import type { CacheFormat, Estimate, Format, MemoryUse, ModelInfo, Progress, StoredModel } from "../types.js";

/** OpenAI's message, with its text as one string. */
export interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

/** `LoadOptions` without what cannot be posted. */
export interface LoadArgument {
  readonly source: string | File[];
  readonly format?: Format;
  readonly cache?: CacheFormat;
  readonly context?: number;
  readonly kernels?: "auto" | "plain";
  readonly revision?: string;
  readonly headers?: Record<string, string>;
  readonly endpoint?: string;
  readonly store: "source" | "quantized" | "none";
}

export type Prompt =
  | { readonly messages: Message[] }
  | { readonly text: string }
  | { readonly ids: number[] };

/** One answer, in the runtime's words. */
export interface GenerateRequest {
  readonly prompt: Prompt;
  readonly max_tokens?: number;
  readonly temperature?: number;
  readonly top_p?: number;
  readonly top_k?: number;
  readonly min_p?: number;
  readonly seed?: number;
  readonly stop?: string[];
  /** How many likeliest tokens each piece tells of; without it pieces have no probabilities. */
  readonly logprobs?: number;
  readonly logit_bias?: [id: number, bias: number][];
  readonly presence_penalty?: number;
  readonly frequency_penalty?: number;
  readonly repetition_penalty?: number;
  readonly ignore_eos?: boolean;
}

export interface TokenLogprob {
  readonly id: number;
  readonly token: string;
  readonly bytes: number[];
  readonly logprob: number;
}

/** One token of an answer. */
export interface Piece {
  readonly id: number;
  /** Empty inside a character, and while a stop text may be coming. */
  readonly text: string;
  /** When the request asked for it. */
  readonly logprob?: TokenLogprob & { readonly top: TokenLogprob[] };
}

export interface Answer {
  readonly text: string;
  /** The end of the text that no piece had: it was held back for a stop text that did not come. */
  readonly rest: string;
  readonly ids: number[];
  readonly finish_reason: "stop" | "length" | "abort";
  readonly prompt_tokens: number;
  readonly cached_tokens: number;
  readonly seed: number;
  readonly prompt_ms: number;
  readonly decode_ms: number;
  /** Names the model's state that this answer left, until another call moves it on. */
  readonly state: number;
}

export type GenerateEvent = { readonly piece: Piece } | { readonly progress: Progress };

/** All calls: what they take, what comes on the way, what they give. */
export interface Calls {
  load: { argument: LoadArgument; event: Progress; result: ModelInfo };
  estimate: { argument: LoadArgument; event: never; result: Estimate };
  listModels: { argument: null; event: never; result: StoredModel[] };
  deleteModel: { argument: string; event: never; result: null };
  generate: { argument: GenerateRequest; event: GenerateEvent; result: Answer };
  tokenize: { argument: { readonly text: string; readonly special: boolean }; event: never; result: Uint32Array };
  encodeChat: { argument: Message[]; event: never; result: Uint32Array };
  detokenize: { argument: Uint32Array; event: never; result: string };
  memory: { argument: null; event: never; result: MemoryUse };
  /** The id of a snapshot of this state; null when the model's state has moved on. */
  takeSnapshot: { argument: number; event: never; result: number | null };
  /** The state's new name. */
  restoreSnapshot: { argument: number; event: never; result: number };
  dropSnapshot: { argument: number; event: never; result: null };
  /** The ids read in this state; null when the model's state has moved on. */
  tokens: { argument: number; event: never; result: Uint32Array | null };
  loseDevice: { argument: null; event: never; result: null };
}

export type CallName = keyof Calls;
export type Argument<Name extends CallName> = Calls[Name]["argument"];
export type Event<Name extends CallName> = Calls[Name]["event"];
export type Result<Name extends CallName> = Calls[Name]["result"];

/** A union with one member per name, or one of them. */
export type Call<Name extends CallName = CallName> = {
  [N in Name]: { readonly kind: "call"; readonly id: number; readonly name: N; readonly argument: Argument<N> };
}[Name];

export type ToWorker<Name extends CallName = CallName> =
  /** The first message: the Web Lock to hold for as long as the worker lives. */
  | { readonly kind: "hello"; readonly lock: string }
  | Call<Name>
  | { readonly kind: "abort"; readonly id: number }
  /** Free everything and end. */
  | { readonly kind: "close" };

export type FromWorker =
  /** The lock is held. */
  | { readonly kind: "hello" }
  | { readonly kind: "event"; readonly id: number; readonly event: unknown }
  | { readonly kind: "result"; readonly id: number; readonly result: unknown }
  | { readonly kind: "error"; readonly id: number; readonly error: ErrorData }
  /** The runtime cannot go on: every call fails with this from now on. */
  | { readonly kind: "dead"; readonly error: ErrorData };
