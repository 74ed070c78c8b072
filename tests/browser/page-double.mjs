// Stands in for the package "zebra-runtime" in tests of the chat page: what is slow or rare with a real model (long
// answers, downloads, each error, a lost GPU) comes from `globalThis.zebraScript`, which a test fills and may change:
//
//   answers   texts by the last message; others are answered with "You said: …"
//   pieceMs   between two pieces of an answer; 0 for as fast as possible
//   info      what differs in the model's info, such as `chat: false`
//   estimate, estimateError, steps, stepMs, loadError, answerError, recoverAfter, stored
//   requests  what was asked, gathered here; also `loads` and `deleted`

import { ZebraError } from "../../web/package/errors.ts";

export { ZebraError };

const script = Object.assign(globalThis, {
  zebraScript: {
    answers: {},
    pieceMs: 5,
    stepMs: 5,
    stored: [],
    requests: [],
    loads: [],
    deleted: [],
    ...globalThis.zebraScript,
  },
}).zebraScript;

function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(new ZebraError("aborted", "stopped"));
    if (signal?.aborted) {
      stop();
      return;
    }
    signal?.addEventListener("abort", stop, { once: true });
    setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
  });
}

function fail(error) {
  throw new ZebraError(error.code, error.message, error.details ?? {});
}

const GPU = { total: 31e6, weights: 18e6, latents: 1.6e6, states: 2.4e6, activations: 8e6, control: 1e6 };

export async function estimate(source, { signal, format } = {}) {
  script.loads.push({ what: "estimate", source: typeof source === "string" ? source : source.length, format });
  await sleep(script.stepMs, signal);
  if (script.estimateError) {
    fail(script.estimateError);
  }
  return {
    download: { total: 18e6, missing: 18e6 },
    gpu: GPU,
    format: format ?? "q8",
    context: 4096,
    parameters: 16557036,
    fits: true,
    ...script.estimate,
  };
}

const STEPS = [
  { phase: "config" },
  { phase: "download", loaded: 9e6, total: 18e6, bytesPerSecond: 3e6 },
  { phase: "download", loaded: 18e6, total: 18e6, bytesPerSecond: 3e6 },
  { phase: "compile" },
  { phase: "ready" },
];

export async function load(source, { signal, onProgress, format, context, store, kernels, headers } = {}) {
  script.loads.push({
    what: "load",
    source: typeof source === "string" ? source : source.length,
    format,
    context,
    store,
    kernels,
    headers,
  });
  for (const step of script.steps ?? STEPS) {
    onProgress?.(step);
    await sleep(script.stepMs, signal);
  }
  if (script.loadError) {
    fail(script.loadError);
  }
  return new Model(format ?? "q8", onProgress);
}

export const models = {
  list: async () => structuredClone(script.stored),
  async delete(name) {
    script.deleted.push(name);
    script.stored = script.stored.filter((model) => model.name !== name);
  },
};

// A token is a character; a prompt is its messages as JSON, and the answer so far behind a line.
const MARK = "\n";
const encode = (text) => Uint32Array.from(text, (character) => character.codePointAt(0));
const decode = (ids) => Array.from(ids, (id) => String.fromCodePoint(id)).join("");

class Model {
  #onProgress;
  #read = "";
  #disposed = new AbortController();

  constructor(format, onProgress) {
    this.#onProgress = onProgress;
    this.info = {
      name: "double",
      family: "zebra-llama",
      parameters: 16557036,
      format,
      cache: "q8",
      context: 4096,
      vocabSize: 8192,
      layers: ["mla", "mamba2", "mamba2", "mamba2", "mla", "mamba2", "mamba2", "mamba2"],
      chat: true,
      adapter: { name: "Double graphics", driver: "1.0", software: false, subgroups: true },
      kernels: "auto",
      dispatchesPerToken: 100,
      cacheBytesPerToken: 208,
      cachePercentOfBase: 3.4,
      ...script.info,
    };
    this.chat = {
      completions: {
        create: async (request, { signal } = {}) => {
          script.requests.push(structuredClone(request));
          if (!this.info.chat) {
            fail({ code: "bad-tokenizer", message: "this checkpoint has no chat template" });
          }
          return this.#answer(request.messages, "", request, signal, (text, finish_reason) => ({
            choices: [{ delta: { content: text }, finish_reason }],
          }));
        },
      },
    };
    this.completions = {
      create: async (request, { signal } = {}) => {
        script.requests.push(structuredClone(request));
        if (!this.info.chat) {
          return this.#answer([{ content: request.prompt }], "", request, signal, (text, finish_reason) => ({
            choices: [{ text, finish_reason }],
          }));
        }
        const [messages, begun] = decode(request.prompt).split(MARK);
        return this.#answer(JSON.parse(messages), begun, request, signal, (text, finish_reason) => ({
          choices: [{ text, finish_reason }],
        }));
      },
    };
  }

  async *#answer(messages, begun, { max_tokens: most = Infinity }, signal, chunk) {
    const prompt = JSON.stringify(messages);
    let cached = 0;
    while (cached < Math.min(this.#read.length, prompt.length) && this.#read[cached] === prompt[cached]) {
      cached++;
    }
    this.#read = prompt;
    const asked = messages.at(-1).content;
    const whole = script.answers[asked] ?? `You said: ${asked}`;
    const pieces = whole.slice(begun.length).match(/\s*\S+|\s+/g) ?? [];
    let count = 0;
    for (const piece of pieces.slice(0, most)) {
      // Timers take 4 ms at least: faster answers come in handfuls.
      if (script.pieceMs > 0 || count % 20 === 0) {
        await sleep(script.pieceMs, AbortSignal.any([signal, this.#disposed.signal].filter(Boolean)));
      }
      if (script.answerError?.after === count) {
        fail(script.answerError);
      }
      if (script.recoverAfter === count) {
        this.#onProgress({ phase: "recovering" });
        await sleep(script.recoverMs, signal);
      }
      count++;
      yield chunk(piece, null);
    }
    if (script.answerError) {
      fail(script.answerError);
    }
    const usage = {
      prompt_tokens: prompt.length,
      completion_tokens: count,
      total_tokens: prompt.length + count,
      prompt_tokens_details: { cached_tokens: cached },
      timings: { prompt_ms: 120, decode_ms: 900, prompt_per_second: 100, decode_per_second: 14.2 },
    };
    yield { ...chunk("", pieces.length > most ? "length" : "stop"), usage };
  }

  session({ messages = [] }) {
    let prompt = "";
    return {
      async say(text) {
        prompt = JSON.stringify([...messages, { role: "user", content: text }]) + MARK;
        return { usage: { prompt_tokens: prompt.length } };
      },
      tokens: async () => encode(`${prompt}?`),
      dispose() {},
    };
  }

  tokenize = async (text) => encode(text);
  memory = async () => ({ wasm: 24e6, gpu: GPU });

  async dispose() {
    this.#disposed.abort();
  }
}
