// A loaded model: what the page calls, sent to its worker.

import { answer, type Engine } from "./answer.js";
import type { Model, Session, SessionOptions } from "./api.js";
import type { Client } from "./client.js";
import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionCreateParams,
  ChatCompletionCreateParamsNonStreaming,
  ChatCompletionCreateParamsStreaming,
  ChatCompletions,
  Completion,
  CompletionChunk,
  CompletionCreateParams,
  CompletionCreateParamsNonStreaming,
  CompletionCreateParamsStreaming,
  Completions,
  RequestOptions,
  Stream,
} from "./openai.js";
import { checkChat, checkCompletion } from "./request.js";
import { chatShape, completionShape } from "./response.js";
import { ChatSession } from "./session.js";
import type { MemoryUse, ModelInfo, Progress } from "./types.js";
import { optional, record, refuse, requireBoolean, requireString } from "./validate.js";

export class LoadedModel implements Model {
  readonly info: ModelInfo;
  readonly chat: { readonly completions: ChatCompletions };
  readonly completions: Completions;
  readonly #engine: Engine;

  constructor(client: Client, info: ModelInfo, onProgress: (progress: Progress) => void) {
    this.info = info;
    this.#engine = { client, name: info.name, onProgress };
    this.chat = { completions: new ChatEndpoint(this.#engine) };
    this.completions = new CompletionEndpoint(this.#engine);
  }

  session(options: SessionOptions = {}): Session {
    return new ChatSession(this.#engine, options);
  }

  async tokenize(text: string, options: { readonly special?: boolean } = {}): Promise<Uint32Array> {
    const special = optional("special", record("options", options), requireBoolean) ?? true;
    return this.#engine.client.call("tokenize", { text: requireString("text", text), special });
  }

  async detokenize(ids: ArrayLike<number>): Promise<string> {
    const wrong = Array.from(ids).findIndex((id) => !Number.isInteger(id) || id < 0 || id > 0xffffffff);
    if (wrong >= 0) {
      refuse(`ids[${wrong}]`, "a token id", ids[wrong]);
    }
    return this.#engine.client.call("detokenize", Uint32Array.from(ids));
  }

  memory(): Promise<MemoryUse> {
    return this.#engine.client.call("memory", null);
  }

  async loseDevice(): Promise<void> {
    await this.#engine.client.call("loseDevice", null);
  }

  dispose(): Promise<void> {
    return this.#engine.client.close();
  }
}

class ChatEndpoint implements ChatCompletions {
  readonly #engine: Engine;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  create(request: ChatCompletionCreateParamsNonStreaming, options?: RequestOptions): Promise<ChatCompletion>;
  create(request: ChatCompletionCreateParamsStreaming, options?: RequestOptions): Promise<Stream<ChatCompletionChunk>>;
  async create(
    request: ChatCompletionCreateParams,
    options: RequestOptions = {},
  ): Promise<ChatCompletion | Stream<ChatCompletionChunk>> {
    const checked = checkChat(request);
    return answer(this.#engine, checked, chatShape(this.#engine.name, checked), options);
  }
}

class CompletionEndpoint implements Completions {
  readonly #engine: Engine;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  create(request: CompletionCreateParamsNonStreaming, options?: RequestOptions): Promise<Completion>;
  create(request: CompletionCreateParamsStreaming, options?: RequestOptions): Promise<Stream<CompletionChunk>>;
  async create(
    request: CompletionCreateParams,
    options: RequestOptions = {},
  ): Promise<Completion | Stream<CompletionChunk>> {
    const checked = checkCompletion(request);
    return answer(this.#engine, checked, completionShape(this.#engine.name, checked), options);
  }
}
