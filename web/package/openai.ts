// Requests and responses in the shapes of OpenAI's API and under the names of its library. What this runtime adds is
// marked "Addition".

/** Options of one call beside its request. */
export interface RequestOptions {
  /** Ends the answer: the promise, or the stream that is being read, rejects with the code `aborted`. */
  readonly signal?: AbortSignal | null | undefined;
}

/** A streamed answer. Leaving the loop early ends the work on the GPU. */
export interface Stream<Chunk> extends AsyncIterable<Chunk> {
  /** `controller.abort()` ends the answer as leaving the loop does: without an error. */
  readonly controller: AbortController;
}

// --- Messages ---

export interface ChatCompletionContentPartText {
  readonly type: "text";
  readonly text: string;
}

type TextContent = string | readonly ChatCompletionContentPartText[];

export interface ChatCompletionSystemMessageParam {
  readonly role: "system";
  readonly content: TextContent;
  readonly name?: string;
}

/** OpenAI's newer name of the system message. */
export interface ChatCompletionDeveloperMessageParam {
  readonly role: "developer";
  readonly content: TextContent;
  readonly name?: string;
}

export interface ChatCompletionUserMessageParam {
  readonly role: "user";
  readonly content: TextContent;
  readonly name?: string;
}

export interface ChatCompletionAssistantMessageParam {
  readonly role: "assistant";
  readonly content: TextContent;
  readonly name?: string;
  readonly refusal?: null;
}

export type ChatCompletionMessageParam =
  | ChatCompletionSystemMessageParam
  | ChatCompletionDeveloperMessageParam
  | ChatCompletionUserMessageParam
  | ChatCompletionAssistantMessageParam;

/** A message of a chat as this runtime keeps it. */
export interface Message {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

// --- Requests ---

/** What chooses the next token. What is not given comes from the checkpoint's `generation_config.json`, else greedy. */
export interface SamplingOptions {
  /** 0 takes the likeliest token. */
  readonly temperature?: number | null | undefined;
  readonly top_p?: number | null | undefined;
  /** Addition. */
  readonly top_k?: number | null | undefined;
  /** Addition: tokens below this share of the likeliest one's probability are left out. */
  readonly min_p?: number | null | undefined;
  readonly presence_penalty?: number | null | undefined;
  readonly frequency_penalty?: number | null | undefined;
  /** Addition: divides the score of tokens that are in the text already; 1 changes nothing. */
  readonly repetition_penalty?: number | null | undefined;
  /** Added to the scores, by token id. */
  readonly logit_bias?: Readonly<Record<string, number>> | null | undefined;
  /** The same seed gives the same answer. Without one a random seed is taken, and told in the response. */
  readonly seed?: number | null | undefined;
  /** Texts that end the answer; they are not part of it. */
  readonly stop?: string | readonly string[] | null | undefined;
  /** When not given, an answer may fill the context. */
  readonly max_tokens?: number | null | undefined;
  /** Addition: go on after the model's end-of-answer token. */
  readonly ignore_eos?: boolean | null | undefined;
}

interface CommonParams extends SamplingOptions {
  /** Accepted for code that is written for OpenAI's API. What answers is the model that was loaded. */
  readonly model?: string;
  readonly n?: 1 | null | undefined;
  /** Accepted; the last chunk has the usage in any case. */
  readonly stream_options?: { readonly include_usage?: boolean } | null | undefined;
  /** Addition, as in vLLM: choices have `token_ids`. */
  readonly return_token_ids?: boolean | null | undefined;
  readonly user?: string;
}

export interface ChatCompletionCreateParamsBase extends CommonParams {
  readonly messages: readonly ChatCompletionMessageParam[];
  /** OpenAI's newer name of `max_tokens`. */
  readonly max_completion_tokens?: number | null | undefined;
  readonly logprobs?: boolean | null | undefined;
  /** 0 to 20; needs `logprobs: true`. */
  readonly top_logprobs?: number | null | undefined;
  readonly response_format?: { readonly type: "text" } | null | undefined;
}

export interface ChatCompletionCreateParamsNonStreaming extends ChatCompletionCreateParamsBase {
  readonly stream?: false | null | undefined;
}

export interface ChatCompletionCreateParamsStreaming extends ChatCompletionCreateParamsBase {
  readonly stream: true;
}

export type ChatCompletionCreateParams = ChatCompletionCreateParamsNonStreaming | ChatCompletionCreateParamsStreaming;

export interface CompletionCreateParamsBase extends CommonParams {
  /** Text, or token ids. */
  readonly prompt: string | readonly number[] | readonly [string] | readonly [readonly number[]];
  /** How many likeliest tokens to tell of beside the chosen one, 0 to 20. */
  readonly logprobs?: number | null | undefined;
}

export interface CompletionCreateParamsNonStreaming extends CompletionCreateParamsBase {
  readonly stream?: false | null | undefined;
}

export interface CompletionCreateParamsStreaming extends CompletionCreateParamsBase {
  readonly stream: true;
}

export type CompletionCreateParams = CompletionCreateParamsNonStreaming | CompletionCreateParamsStreaming;

// --- Responses ---

/** `stop`: the model ended its answer or a stop text came. `length`: `max_tokens` or the context's end. */
export type FinishReason = "stop" | "length";

export interface CompletionUsage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: {
    /** Tokens of the prompt that did not have to be read again. */
    readonly cached_tokens: number;
  };
  /** Addition. */
  readonly timings: {
    /** From the start of the work to the first token; time in the queue does not count. */
    readonly prompt_ms: number;
    readonly decode_ms: number;
    /** Tokens read in a second, cached ones not counted. */
    readonly prompt_per_second: number;
    readonly decode_per_second: number;
  };
}

interface ResponseBase {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly model: string;
}

export interface TopLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: number[];
}

export interface ChatCompletionTokenLogprob extends TopLogprob {
  readonly top_logprobs: TopLogprob[];
}

export interface ChoiceLogprobs {
  readonly content: ChatCompletionTokenLogprob[];
  readonly refusal: null;
}

export interface ChatCompletionMessage {
  readonly role: "assistant";
  readonly content: string;
  readonly refusal: null;
}

export interface ChatCompletion extends ResponseBase {
  readonly object: "chat.completion";
  readonly choices: [
    {
      readonly index: 0;
      readonly message: ChatCompletionMessage;
      readonly finish_reason: FinishReason;
      readonly logprobs: ChoiceLogprobs | null;
      /** Addition, with `return_token_ids`. */
      readonly token_ids?: number[];
    },
  ];
  readonly usage: CompletionUsage;
  /** Addition: the seed that was used. */
  readonly seed: number;
}

export interface ChatCompletionChunk extends ResponseBase {
  readonly object: "chat.completion.chunk";
  /** Never empty, so that `chunk.choices[0].delta` is always there. */
  readonly choices: [
    {
      readonly index: 0;
      readonly delta: { readonly role?: "assistant"; readonly content?: string };
      readonly finish_reason: FinishReason | null;
      readonly logprobs: ChoiceLogprobs | null;
      /** Addition, with `return_token_ids`. */
      readonly token_ids?: number[];
    },
  ];
  /** In the last chunk, with its finish_reason. */
  readonly usage?: CompletionUsage;
  /** Addition, in the last chunk. */
  readonly seed?: number;
}

export interface CompletionLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: number[];
  readonly top_logprobs: Record<string, number>[];
  /** Where each token's text begins in the answer, in UTF-16 units. */
  readonly text_offset: number[];
}

interface CompletionChoiceBase {
  readonly index: 0;
  readonly text: string;
  readonly logprobs: CompletionLogprobs | null;
  /** Addition, with `return_token_ids`. */
  readonly token_ids?: number[];
}

export interface CompletionChoice extends CompletionChoiceBase {
  readonly finish_reason: FinishReason;
}

export interface Completion extends ResponseBase {
  readonly object: "text_completion";
  readonly choices: [CompletionChoice];
  readonly usage: CompletionUsage;
  /** Addition: the seed that was used. */
  readonly seed: number;
}

/** A part of a streamed completion. */
export interface CompletionChunk extends ResponseBase {
  readonly object: "text_completion";
  readonly choices: [CompletionChoiceBase & { readonly finish_reason: FinishReason | null }];
  /** In the last chunk, with its finish_reason. */
  readonly usage?: CompletionUsage;
  /** Addition, in the last chunk. */
  readonly seed?: number;
}

// --- Where they are asked for ---

export interface ChatCompletions {
  create(request: ChatCompletionCreateParamsNonStreaming, options?: RequestOptions): Promise<ChatCompletion>;
  create(request: ChatCompletionCreateParamsStreaming, options?: RequestOptions): Promise<Stream<ChatCompletionChunk>>;
  create(
    request: ChatCompletionCreateParams,
    options?: RequestOptions,
  ): Promise<ChatCompletion | Stream<ChatCompletionChunk>>;
}

export interface Completions {
  create(request: CompletionCreateParamsNonStreaming, options?: RequestOptions): Promise<Completion>;
  create(request: CompletionCreateParamsStreaming, options?: RequestOptions): Promise<Stream<CompletionChunk>>;
  create(request: CompletionCreateParams, options?: RequestOptions): Promise<Completion | Stream<CompletionChunk>>;
}
