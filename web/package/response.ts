// From the runtime's pieces and answers to OpenAI's responses.

import type {
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionTokenLogprob,
  ChoiceLogprobs,
  Completion,
  CompletionChunk,
  CompletionLogprobs,
  CompletionUsage,
  FinishReason,
  TopLogprob,
} from "./openai.js";
import type { Checked } from "./request.js";
import type { Answer, Piece, TokenLogprob } from "./worker/protocol.js";

/** What makes the responses of one request. */
export interface Shape<Whole, Chunk> {
  /** The chunk before any piece, where there is one. */
  first(): Chunk | undefined;
  piece(piece: Piece): Chunk;
  last(answer: Answer): Chunk;
  whole(answer: Answer, pieces: readonly Piece[]): Whole;
}

export function chatShape(model: string, { generate, tokenIds }: Checked): Shape<ChatCompletion, ChatCompletionChunk> {
  const base = { id: `chatcmpl-${crypto.randomUUID()}`, created: seconds(), model };
  const asked = generate.logprobs !== undefined;
  const chunk = (
    delta: ChatCompletionChunk["choices"][0]["delta"],
    pieces: readonly Piece[],
    finish_reason: FinishReason | null = null,
  ): ChatCompletionChunk => ({
    ...base,
    object: "chat.completion.chunk",
    choices: [
      {
        index: 0,
        delta,
        finish_reason,
        logprobs: asked && pieces.length > 0 ? chatLogprobs(pieces) : null,
        ...(tokenIds && { token_ids: pieces.map(({ id }) => id) }),
      },
    ],
  });
  return {
    first: () => chunk({ role: "assistant", content: "" }, []),
    piece: (piece) => chunk({ content: piece.text }, [piece]),
    last: (answer) => ({
      ...chunk(answer.rest ? { content: answer.rest } : {}, [], finishReason(answer)),
      usage: usage(answer),
      seed: answer.seed,
    }),
    whole: (answer, pieces) => ({
      ...base,
      object: "chat.completion",
      choices: [
        {
          index: 0,
          message: { role: "assistant", content: answer.text, refusal: null },
          finish_reason: finishReason(answer),
          logprobs: asked ? chatLogprobs(pieces) : null,
          ...(tokenIds && { token_ids: answer.ids }),
        },
      ],
      usage: usage(answer),
      seed: answer.seed,
    }),
  };
}

export function completionShape(model: string, { generate, tokenIds }: Checked): Shape<Completion, CompletionChunk> {
  const base = { id: `cmpl-${crypto.randomUUID()}`, created: seconds(), model, object: "text_completion" as const };
  const asked = generate.logprobs !== undefined;
  let offset = 0;
  return {
    first: () => undefined,
    piece(piece) {
      const logprobs = asked ? completionLogprobs([piece], offset) : null;
      offset += piece.text.length;
      const ids = tokenIds && { token_ids: [piece.id] };
      return { ...base, choices: [{ index: 0, text: piece.text, finish_reason: null, logprobs, ...ids }] };
    },
    last: (answer) => ({
      ...base,
      choices: [
        {
          index: 0,
          text: answer.rest,
          finish_reason: finishReason(answer),
          logprobs: null,
          ...(tokenIds && { token_ids: [] }),
        },
      ],
      usage: usage(answer),
      seed: answer.seed,
    }),
    whole: (answer, pieces) => ({
      ...base,
      choices: [
        {
          index: 0,
          text: answer.text,
          finish_reason: finishReason(answer),
          logprobs: asked ? completionLogprobs(pieces, 0) : null,
          ...(tokenIds && { token_ids: answer.ids }),
        },
      ],
      usage: usage(answer),
      seed: answer.seed,
    }),
  };
}

/** An answer that was aborted has no response. */
function finishReason({ finish_reason }: Answer): FinishReason {
  return finish_reason === "length" ? "length" : "stop";
}

function usage(answer: Answer): CompletionUsage {
  const { prompt_tokens, cached_tokens, prompt_ms, decode_ms } = answer;
  const completion_tokens = answer.ids.length;
  return {
    prompt_tokens,
    completion_tokens,
    total_tokens: prompt_tokens + completion_tokens,
    prompt_tokens_details: { cached_tokens },
    timings: {
      prompt_ms,
      decode_ms,
      prompt_per_second: perSecond(prompt_tokens - cached_tokens, prompt_ms),
      // The first token is the prompt's.
      decode_per_second: perSecond(completion_tokens - 1, decode_ms),
    },
  };
}

function perSecond(count: number, milliseconds: number): number {
  return count > 0 && milliseconds > 0 ? (count * 1000) / milliseconds : 0;
}

function seconds(): number {
  return Math.floor(Date.now() / 1000);
}

function chatLogprobs(pieces: readonly Piece[]): ChoiceLogprobs {
  const content: ChatCompletionTokenLogprob[] = [];
  for (const { logprob } of pieces) {
    if (logprob) {
      content.push({ ...plain(logprob), top_logprobs: logprob.top.map(plain) });
    }
  }
  return { content, refusal: null };
}

function plain({ token, bytes, logprob }: TokenLogprob): TopLogprob {
  return { token, bytes, logprob };
}

function completionLogprobs(pieces: readonly Piece[], offset: number): CompletionLogprobs {
  const logprobs: CompletionLogprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
  for (const { text, logprob } of pieces) {
    if (logprob) {
      logprobs.tokens.push(logprob.token);
      logprobs.token_logprobs.push(logprob.logprob);
      logprobs.top_logprobs.push(Object.fromEntries(logprob.top.map((top) => [top.token, top.logprob])));
      logprobs.text_offset.push(offset);
    }
    offset += text.length;
  }
  return logprobs;
}
