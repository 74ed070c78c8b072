// The public types of the package, except those that follow OpenAI's API (openai.ts).

/** How weights are held on the GPU: `q8` and `q4` in groups of 32. A quantized folder runs in the format it has. */
export type Format = "f32" | "f16" | "q8" | "q4";

/** How the latent cache is held. `q8` is the default: its loss was not measurable. */
export type CacheFormat = "f32" | "f16" | "q8";

/**
 * Where a model is: the URL of a folder on any static host, a hub name (`owner/name` or `owner/name@revision`), or the
 * File objects of a folder picker or a drop.
 */
export type ModelSource = string | URL | Iterable<File>;

/** How to load a model. */
export interface LoadOptions {
  /** That of a quantized folder, else `q8`. */
  readonly format?: Format;
  readonly cache?: CacheFormat;
  /** Positions: the smaller of the model's maximum and 4,096 when not given. */
  readonly context?: number;
  /** `plain` runs kernels whose sums have one order, whatever the number of rows and the adapter's features. */
  readonly kernels?: "auto" | "plain";
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
  /** Branch, tag or commit of a hub name. */
  readonly revision?: string;
  /** Sent with every request to the source, such as an Authorization. They are not stored. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The hub's address; Hugging Face's when not given. */
  readonly endpoint?: string;
  /**
   * What is kept in the browser's storage: the files as they are (`source`, the default), the quantized weights in
   * their place (`quantized`), or nothing (`none`: every load fetches again).
   */
  readonly store?: "source" | "quantized" | "none";
}

/** What loading reports, and an answer that brings a lost GPU back. */
export type Progress =
  /** Configuration, tokenizer and headers are being read. */
  | { readonly phase: "config" }
  /** Another tab downloads the same model; this one waits for it. */
  | { readonly phase: "waiting" }
  | {
      readonly phase: "download";
      /** Bytes here, those in storage included. */
      readonly loaded: number;
      readonly total: number;
      /** Received lately; bytes that were in storage do not count. */
      readonly bytesPerSecond: number;
    }
  /** Weights are quantized before they are stored. */
  | { readonly phase: "quantize"; readonly loaded: number; readonly total: number }
  /** Bytes of weights on the GPU; runs beside `download`. */
  | { readonly phase: "upload"; readonly loaded: number; readonly total: number }
  /** Shaders are compiled and tested. */
  | { readonly phase: "compile" }
  | { readonly phase: "ready" }
  /** The GPU was lost; the model is being brought back and the answer goes on. */
  | { readonly phase: "recovering" };

/** What a model will need, known before its weights are fetched. */
export interface Estimate {
  /** Bytes of all files of the model, and how many of them are not in storage. */
  readonly download: { readonly total: number; readonly missing: number };
  /** GPU bytes by purpose. */
  readonly gpu: {
    readonly total: number;
    readonly weights: number;
    readonly latents: number;
    readonly states: number;
    readonly activations: number;
    readonly control: number;
  };
  readonly format: Format;
  readonly context: number;
  readonly parameters: number;
  /** Whether it can be loaded here, and if not, why. */
  readonly fits: boolean;
  readonly why?: string;
}

/** A model in the browser's storage. */
export interface StoredModel {
  /** What `models.delete` takes. */
  readonly name: string;
  readonly bytes: number;
  /** Whether all of its files are here. */
  readonly complete: boolean;
  /** Milliseconds since 1970 of the last load. */
  readonly lastUsed: number;
}

/** What runs, and where. */
export interface ModelInfo {
  readonly name: string;
  /** Told by the folder's own files. */
  readonly family: "zebra-llama" | "x-ecomla" | "mambainllama" | "llamba" | "minitron" | "llama";
  readonly parameters: number;
  readonly format: Format;
  readonly cache: CacheFormat;
  readonly context: number;
  readonly vocabSize: number;
  readonly layers: readonly ("attention" | "mla" | "mamba1" | "mamba2" | "discrete_mamba2")[];
  /** Whether the checkpoint has a chat template. A base model, which has none, takes a `prompt`, not `messages`. */
  readonly chat: boolean;
  readonly adapter: { readonly name: string; readonly driver: string; readonly software: boolean; readonly subgroups: boolean };
  readonly kernels: "auto" | "plain";
  /** Set when the self-test found that the driver computes the fast kernels wrongly: plain ones run then. */
  readonly selfTest?: string;
  readonly dispatchesPerToken: number;
  /** Bytes that one token adds to the cache, and its share of the base Transformer's f16 cache in percent. */
  readonly cacheBytesPerToken: number;
  readonly cachePercentOfBase: number;
}

/** Memory in use, in bytes. */
export interface MemoryUse {
  readonly wasm: number;
  /** By purpose, snapshots among the states. */
  readonly gpu: Estimate["gpu"];
}
