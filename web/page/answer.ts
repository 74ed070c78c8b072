// One answer: asks the model and hands on what comes.

import type { CompletionUsage, FinishReason, Model, SamplingOptions } from "zebra-runtime";
import type { Message, Stats } from "./conversation";
import type { Sampling } from "./settings";

export interface AnswerEvents {
  /** More text. */
  piece(text: string): void;
}

export interface AnswerEnd {
  readonly finish: FinishReason;
  readonly stats: Stats;
}

interface Piece {
  readonly text: string;
  readonly finish: FinishReason | null;
  readonly usage: CompletionUsage | undefined;
}

/**
 * Answers the last of `above`. With `begun`, an answer that was cut off is continued. Gives null when it was stopped.
 */
export async function answer(
  model: Model,
  system: string,
  above: readonly Message[],
  begun: string,
  sampling: Sampling,
  signal: AbortSignal,
  events: AnswerEvents,
): Promise<AnswerEnd | null> {
  const messages = above.filter(({ content }) => content !== "").map(({ role, content }) => ({ role, content }));
  const chat = system.trim() === "" ? messages : [{ role: "system" as const, content: system }, ...messages];
  const started = performance.now();
  let firstTokenMs = 0;
  const pieces = !model.info.chat
    ? goOn(model, plain(chat) + begun, sampling, signal)
    : begun === ""
      ? askChat(model, chat, sampling, signal)
      : proceed(model, chat, begun, sampling, signal);
  for await (const { text, finish, usage } of pieces) {
    if (text !== "") {
      firstTokenMs ||= performance.now() - started;
      events.piece(text);
    }
    if (finish && usage) {
      const { prompt_tokens, completion_tokens, prompt_tokens_details, timings } = usage;
      return {
        finish,
        stats: {
          promptTokens: prompt_tokens,
          cachedTokens: prompt_tokens_details.cached_tokens,
          completionTokens: completion_tokens,
          firstTokenMs: firstTokenMs || performance.now() - started,
          tokensPerSecond: timings.decode_per_second,
        },
      };
    }
  }
  return null;
}

type ChatMessages = readonly { readonly role: "system" | "user" | "assistant"; readonly content: string }[];

async function* askChat(
  model: Model,
  messages: ChatMessages,
  sampling: SamplingOptions,
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  for await (const chunk of await model.chat.completions.create({ ...sampling, messages, stream: true }, { signal })) {
    const [{ delta, finish_reason: finish }] = chunk.choices;
    yield { text: delta.content ?? "", finish, usage: chunk.usage };
  }
}

/**
 * Continues an answer. A chat request always begins a new one, so the tokens of the prompt are learnt by asking for a
 * single token, and the text that is there already is put behind them; reading the prompt again costs nothing then.
 */
async function* proceed(
  model: Model,
  messages: ChatMessages,
  begun: string,
  sampling: SamplingOptions,
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  const session = model.session({ messages: messages.slice(0, -1) });
  const { usage } = await session.say(messages.at(-1)?.content ?? "", { max_tokens: 1, temperature: 0, signal });
  const prompt = (await session.tokens()).slice(0, usage.prompt_tokens);
  session.dispose();
  const written = await model.tokenize(begun, { special: false });
  yield* goOn(model, [...prompt, ...written], sampling, signal);
}

/** A chat as a base model takes it: each message on a line of its own, right behind it what the model went on with. */
function plain(messages: ChatMessages): string {
  const begins = (index: number): boolean => index > 0 && messages[index]?.role !== "assistant";
  return messages.map(({ content }, index) => (begins(index) ? `\n${content}` : content)).join("");
}

async function* goOn(
  model: Model,
  prompt: string | number[],
  sampling: SamplingOptions,
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  for await (const chunk of await model.completions.create({ ...sampling, prompt, stream: true }, { signal })) {
    const [{ text, finish_reason: finish }] = chunk.choices;
    yield { text, finish, usage: chunk.usage };
  }
}
