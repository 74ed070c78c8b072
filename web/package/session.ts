// A chat that keeps its messages. States are the worker's business: it finds the nearest one by itself.

import { answer, type Engine } from "./answer.js";
import type { SayOptions, Session, SessionOptions, SessionSnapshot } from "./api.js";
import { ZebraError } from "./errors.js";
import type { ChatCompletion, ChatCompletionChunk, Message, Stream } from "./openai.js";
import { checkChat, checkMessages } from "./request.js";
import { chatShape } from "./response.js";
import { optional, record, requireString } from "./validate.js";

export class ChatSession implements Session {
  readonly #engine: Engine;
  readonly #initial: readonly Message[];
  #messages: readonly Message[];
  /** Names the model's state after the last answer, for as long as no other chat moves it on. */
  #state: number | undefined;
  #answering: AbortController | undefined;

  constructor(engine: Engine, options: SessionOptions) {
    const fields = record("options", options);
    const system = optional("system", fields, requireString);
    const messages = optional("messages", fields, (path, value) =>
      Array.isArray(value) && value.length === 0 ? [] : checkMessages(value, path),
    );
    this.#engine = engine;
    this.#initial = [...(system === undefined ? [] : [{ role: "system", content: system } as const]), ...(messages ?? [])];
    this.#messages = this.#initial;
  }

  get messages(): readonly Message[] {
    return this.#messages;
  }

  say(text: string, options?: SayOptions & { readonly stream?: false | null | undefined }): Promise<ChatCompletion>;
  say(text: string, options: SayOptions & { readonly stream: true }): Promise<Stream<ChatCompletionChunk>>;
  async say(
    text: string,
    options: SayOptions & { readonly stream?: boolean | null | undefined } = {},
  ): Promise<ChatCompletion | Stream<ChatCompletionChunk>> {
    this.#requireIdle();
    const { signal, ...request } = options;
    const messages: Message[] = [...this.#messages, { role: "user", content: requireString("text", text) }];
    const checked = checkChat({ ...request, messages });

    const controller = new AbortController();
    this.#answering = controller;
    let content = "";
    /** Once: an answer of which something was read joins the chat. */
    const end = (keep: boolean) => {
      if (this.#answering === controller) {
        this.#answering = undefined;
        if (keep) {
          this.#messages = [...messages, { role: "assistant", content }];
        }
      }
    };
    try {
      const shape = chatShape(this.#engine.name, checked);
      const signals = signal ? AbortSignal.any([signal, controller.signal]) : controller.signal;
      const given = await answer(this.#engine, checked, shape, { signal: signals }, ({ state }) => (this.#state = state));
      if (!(Symbol.asyncIterator in given)) {
        content = given.choices[0].message.content;
        end(true);
        return given;
      }
      for (const { signal } of [{ signal: signals }, given.controller]) {
        signal.addEventListener("abort", () => end(content !== ""), { once: true });
      }
      return new SessionStream(given, (text) => (content += text), end);
    } catch (error) {
      end(false);
      throw error;
    }
  }

  async snapshot(): Promise<SessionSnapshot> {
    this.#requireIdle();
    const messages = this.#messages;
    const state = this.#state;
    const kept = state === undefined ? null : await this.#engine.client.call("takeSnapshot", state);
    return new Snapshot(this.#engine, messages, kept);
  }

  async restore(snapshot: SessionSnapshot): Promise<void> {
    this.#requireIdle();
    if (!(snapshot instanceof Snapshot) || snapshot.engine !== this.#engine) {
      throw new ZebraError("bad-request", "snapshot: expected one of a session of this model");
    }
    this.#messages = snapshot.messages;
    this.#state = undefined;
    if (snapshot.kept !== null) {
      this.#state = await this.#engine.client.call("restoreSnapshot", snapshot.kept);
    }
  }

  fork(): Session {
    const fork = new ChatSession(this.#engine, { messages: this.#messages });
    fork.#state = this.#state;
    return fork;
  }

  reset(): void {
    this.#answering?.abort();
    this.#messages = this.#initial;
    this.#state = undefined;
  }

  async tokens(): Promise<Uint32Array> {
    const read = this.#state === undefined ? null : await this.#engine.client.call("tokens", this.#state);
    if (read) {
      return read;
    }
    return this.#messages.length === 0 ? new Uint32Array() : this.#engine.client.call("encodeChat", [...this.#messages]);
  }

  dispose(): void {
    this.#answering?.abort();
  }

  #requireIdle(): void {
    if (this.#answering) {
      throw new ZebraError(
        "bad-request",
        "this session is answering: wait for the answer, read its stream to the end, or leave it",
      );
    }
  }
}

/** A stream that tells the session what was read of it. */
class SessionStream implements Stream<ChatCompletionChunk> {
  readonly controller: AbortController;
  readonly #stream: Stream<ChatCompletionChunk>;
  readonly #read: (text: string) => void;
  readonly #end: (keep: boolean) => void;

  constructor(stream: Stream<ChatCompletionChunk>, read: (text: string) => void, end: (keep: boolean) => void) {
    this.controller = stream.controller;
    this.#stream = stream;
    this.#read = read;
    this.#end = end;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ChatCompletionChunk, void, undefined> {
    let text = false;
    try {
      for await (const chunk of this.#stream) {
        const content = chunk.choices[0].delta.content ?? "";
        this.#read(content);
        text ||= content !== "";
        if (chunk.choices[0].finish_reason) {
          this.#end(true);
        }
        yield chunk;
      }
    } catch (error) {
      this.#end(text && error instanceof ZebraError && error.code === "aborted");
      throw error;
    } finally {
      this.#end(text);
    }
  }
}

class Snapshot implements SessionSnapshot {
  readonly engine: Engine;
  readonly messages: readonly Message[];
  /** Null where another chat had moved the model's state on: the nearest state that is kept serves. */
  kept: number | null;

  constructor(engine: Engine, messages: readonly Message[], kept: number | null) {
    this.engine = engine;
    this.messages = messages;
    this.kept = kept;
  }

  async dispose(): Promise<void> {
    const { kept } = this;
    this.kept = null;
    if (kept !== null) {
      await this.engine.client.call("dropSnapshot", kept);
    }
  }
}
