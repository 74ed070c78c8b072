// One model: opened through storage, run by the wasm door. What other files of the worker need not know.

import { toErrorData, ZebraError } from "../errors.js";
import type { Estimate, Format, MemoryUse, ModelInfo, Progress } from "../types.js";
import init, { estimate, load, quantize, type InitOutput, type LoadRequest, type Zebra } from "./door/zebra.js";
import { askForSubgroups, findAdapter } from "./gpu.js";
import type { Answer, GenerateEvent, GenerateRequest, LoadArgument, Message, Piece } from "./protocol.js";
import { createStored, deleteModel, openModel, type OpenModel } from "./storage/index.js";
import { keepVerdict, keptVerdict } from "./verdict.js";

/** The module of this worker, instantiated once. */
let wasm: Promise<InitOutput> | undefined;

function instantiate(): Promise<InitOutput> {
  wasm ??= start();
  return wasm;
}

async function start(): Promise<InitOutput> {
  askForSubgroups();
  // Bundlers find the file by exactly this form. In dist/ it is beside the worker.
  const url = new URL("./zebra_bg.wasm", import.meta.url);
  try {
    return await init({ module_or_path: url });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ZebraError(
      "worker",
      `the runtime could not be started from ${url.href}: ${reason}. zebra_bg.wasm must be served there, and a ` +
        "Content-Security-Policy must allow it (script-src 'wasm-unsafe-eval')",
      { url: url.href },
    );
  }
}

/** How much memory is asked for to learn whether there is any, in wasm's pages of 64 KiB. */
const PROBE_PAGES = 256;

/** What a trap of the module means. Its own allocator traps when there is no more memory, and says nothing. */
export async function explainTrap(trap: WebAssembly.RuntimeError): Promise<ZebraError> {
  const { memory } = await instantiate();
  const bytes = memory.buffer.byteLength;
  try {
    memory.grow(PROBE_PAGES);
  } catch {
    return new ZebraError("out-of-memory", `the worker's memory ran out at ${bytes} bytes; load the model again`, { bytes });
  }
  return new ZebraError(
    "internal",
    `the runtime stopped in the middle (${trap.message}); load the model again, and please report what was asked`,
  );
}

/** What a load reports beside the door's own phases, and what ends it. */
export interface Loading {
  readonly signal: AbortSignal;
  onProgress(progress: Progress): void;
}

function doorOptions(argument: LoadArgument, adapter: GPUAdapter): LoadRequest {
  const { format, cache, context, kernels } = argument;
  return {
    ...(format && { format }),
    ...(cache && { cache }),
    ...(context && { context }),
    ...(kernels && { kernels }),
    subgroups: adapter.features.has("subgroups"),
  };
}

function openSource(argument: LoadArgument, { signal, onProgress }: Loading, variant?: string): Promise<OpenModel> {
  const { source, revision, headers, endpoint, store } = argument;
  return openModel(source, {
    ...(revision && { revision }),
    ...(headers && { headers }),
    ...(endpoint && { endpoint }),
    ...(variant && { variant }),
    store: store !== "none",
    signal,
    onProgress,
  });
}

/** What a model will need. */
export async function estimateModel(argument: LoadArgument, loading: Loading): Promise<Estimate> {
  const adapter = await findAdapter(loading.signal);
  await instantiate();
  const model = await openSource(argument, loading);
  try {
    const { gpu, format, context, parameters, fits, why } = await estimate(model, doorOptions(argument, adapter));
    const download = await model.missing();
    return { download, gpu, format, context, parameters, fits, ...(why && { why }) };
  } finally {
    await model.close();
  }
}

/** A loaded model. */
export class Runtime {
  readonly #zebra: Zebra;
  readonly #model: OpenModel;
  readonly #memory: WebAssembly.Memory;
  /** Names the state that the model is in. */
  #state = 0;

  private constructor(zebra: Zebra, model: OpenModel, memory: WebAssembly.Memory) {
    this.#zebra = zebra;
    this.#model = model;
    this.#memory = memory;
  }

  static async load(argument: LoadArgument, loading: Loading): Promise<Runtime> {
    const adapter = await findAdapter(loading.signal);
    const { memory } = await instantiate();
    const model = await (argument.store === "quantized" ? openQuantized(argument, loading) : openSource(argument, loading));
    try {
      const options = doorOptions(argument, adapter);
      const { fits, files } = await estimate(model, options);
      if (fits) {
        // Weights arrive while shaders are compiled. A model that does not fit is refused by the load itself.
        model.prefetch(files);
      }
      const keep = argument.store !== "none";
      const verdict = keep ? await keptVerdict(adapter) : undefined;
      const request = { ...options, ...(verdict !== undefined && { self_test: verdict }) };
      const zebra = await load(model, request, loading.onProgress);
      if (keep && verdict === undefined && argument.kernels !== "plain") {
        await keepVerdict(adapter, zebra.verdict());
      }
      return new Runtime(zebra, model, memory);
    } catch (error) {
      await model.close();
      throw error;
    }
  }

  info(): ModelInfo {
    return this.#zebra.info();
  }

  memory(): MemoryUse {
    return { wasm: this.#memory.buffer.byteLength, gpu: this.#zebra.memory() };
  }

  async generate(
    request: GenerateRequest,
    signal: AbortSignal,
    emit: (event: GenerateEvent) => void,
  ): Promise<Answer> {
    const state = ++this.#state;
    const began = performance.now();
    let first: number | undefined;
    const answer = await this.#zebra.generate(
      request,
      ({ id, text, ...logprob }) => {
        first ??= performance.now();
        const piece: Piece = { id, text, ...(request.logprobs !== undefined && { logprob: { id, ...logprob } }) };
        emit({ piece });
      },
      (progress) => emit({ progress }),
      () => signal.aborted,
    );
    const ended = performance.now();
    first ??= ended;
    return { ...answer, prompt_ms: first - began, decode_ms: ended - first, state };
  }

  tokenize(text: string, special: boolean): Uint32Array {
    return this.#zebra.tokenize(text, special);
  }

  detokenize(ids: Uint32Array): string {
    return this.#zebra.detokenize(ids);
  }

  encodeChat(messages: Message[]): Uint32Array {
    return this.#zebra.encodeChat(messages);
  }

  async takeSnapshot(state: number): Promise<number | null> {
    return state === this.#state ? this.#zebra.takeSnapshot() : null;
  }

  restoreSnapshot(id: number): number {
    this.#zebra.restoreSnapshot(id);
    return ++this.#state;
  }

  dropSnapshot(id: number): void {
    this.#zebra.dropSnapshot(id);
  }

  tokens(state: number): Uint32Array | null {
    return state === this.#state ? this.#zebra.tokens() : null;
  }

  loseDevice(): void {
    this.#zebra.loseDevice();
  }

  async close(): Promise<void> {
    this.#zebra.free();
    await this.#model.close();
  }
}

/** The model from storage in its quantized form, which is made where it is not there. */
async function openQuantized(argument: LoadArgument, loading: Loading): Promise<OpenModel> {
  const variant = argument.format ?? "q8";
  const source = await openSource(argument, loading, variant);
  if (source.variant !== undefined) {
    return source;
  }
  try {
    if ((await isQuantized(source)) || !(await writeQuantized(source, variant, loading))) {
      return source;
    }
  } catch (error) {
    await source.close();
    throw error;
  }
  const { name } = source;
  await source.close();
  // Its download could go on after a break, so it was stored until now.
  await deleteModel(name).catch((error: unknown) => {
    // Another tab runs it as it is.
    if (!(error instanceof ZebraError)) {
      throw error;
    }
  });
  return openSource(argument, loading, variant);
}

/** Whether a checkpoint's weights are codes, of which no other format can be made. */
async function isQuantized(model: OpenModel): Promise<boolean> {
  try {
    await estimate(model, { format: "f32" });
    return false;
  } catch (error) {
    if (toErrorData(error).details.option === "format") {
      return true;
    }
    throw error;
  }
}

/** Returns whether there was room for it. */
async function writeQuantized(source: OpenModel, variant: Format, { onProgress }: Loading): Promise<boolean> {
  const sink = await createStored(source, variant);
  try {
    await quantize(source, variant, sink, (loaded, total) => onProgress({ phase: "quantize", loaded, total }));
    await sink.commit();
    return true;
  } catch (error) {
    await sink.abort();
    if (toErrorData(error).code === "quota") {
      return false;
    }
    throw error;
  }
}
