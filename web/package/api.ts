// What a page holds: a loaded model, and chats with it.

import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionCreateParamsBase,
  ChatCompletionMessageParam,
  ChatCompletions,
  Completions,
  Message,
  RequestOptions,
  Stream,
} from "./openai.js";
import type { MemoryUse, ModelInfo } from "./types.js";

/** A loaded model. It answers one request at a time; others wait their turn. */
export interface Model {
  readonly info: ModelInfo;
  readonly chat: { readonly completions: ChatCompletions };
  readonly completions: Completions;
  /** A chat that keeps its messages. */
  session(options?: SessionOptions): Session;
  /** `special` (true when not given): texts such as `<|eot_id|>` become their tokens. */
  tokenize(text: string, options?: { readonly special?: boolean }): Promise<Uint32Array>;
  detokenize(ids: ArrayLike<number>): Promise<string>;
  memory(): Promise<MemoryUse>;
  /** Destroys the GPU device as a driver's reset would: for testing how a page behaves then. */
  loseDevice(): Promise<void>;
  /** Frees everything and ends the worker. What is still under way rejects with the code `aborted`. */
  dispose(): Promise<void>;
}

export interface SessionOptions {
  readonly system?: string;
  readonly messages?: readonly ChatCompletionMessageParam[];
}

/** What `say` takes: a chat request but for its messages. */
export type SayOptions = Omit<ChatCompletionCreateParamsBase, "messages"> & RequestOptions;

/**
 * A chat that keeps its messages. Any number of them share a model; each continues from the nearest state that is kept.
 *
 * The user's message and the answer join `messages` when the answer has ended. An answer that was left early stays with
 * the text that was read of it; one that failed leaves no trace, so that it can be asked for again.
 */
export interface Session {
  readonly messages: readonly Message[];
  say(text: string, options?: SayOptions & { readonly stream?: false | null | undefined }): Promise<ChatCompletion>;
  say(text: string, options: SayOptions & { readonly stream: true }): Promise<Stream<ChatCompletionChunk>>;
  /** The chat as it is now. The model's state is kept with it until its `dispose`. */
  snapshot(): Promise<SessionSnapshot>;
  restore(snapshot: SessionSnapshot): Promise<void>;
  /** Another chat with the same messages. */
  fork(): Session;
  /** Back to the messages it began with. */
  reset(): void;
  /** The token ids that the last answer was made from and ends with. */
  tokens(): Promise<Uint32Array>;
  /** Ends an answer that is under way. */
  dispose(): void;
}

/** A chat at one moment. */
export interface SessionSnapshot {
  readonly messages: readonly Message[];
  /** Gives the kept state back. */
  dispose(): Promise<void>;
}
