// Loading, estimating, and what is stored.

import type { Model } from "./api.js";
import { Client, abortError } from "./client.js";
import { ZebraError } from "./errors.js";
import { LoadedModel } from "./model.js";
import type { Estimate, LoadOptions, ModelSource, Progress, StoredModel } from "./types.js";
import { optional, record, requireOneOf, requirePositiveInteger, requireString } from "./validate.js";
import type { LoadArgument } from "./worker/protocol.js";
import { isHubName } from "./worker/storage/name.js";

/** Loads a model: into the browser's storage where it is not yet there, and onto the GPU. */
export async function load(source: ModelSource, options: LoadOptions = {}): Promise<Model> {
  const argument = loadArgument(source, options);
  const { signal } = options;
  if (signal?.aborted) {
    throw abortError(signal);
  }
  const onProgress = (progress: Progress) => notify(options.onProgress, progress);
  const client = openClient();
  try {
    const info = await client.call("load", argument, { signal, onEvent: onProgress });
    return new LoadedModel(client, info, onProgress);
  } catch (error) {
    // Only now, so that a caller who loads again at once finds the storage's locks free.
    await client.close();
    throw error;
  }
}

/** What a model will need and whether it fits, before its weights are fetched. */
export async function estimate(source: ModelSource, options: LoadOptions = {}): Promise<Estimate> {
  const argument = loadArgument(source, options);
  return once((client) => client.call("estimate", argument, { signal: options.signal }));
}

/** The models in the browser's storage. */
export const models = {
  list(): Promise<StoredModel[]> {
    return once((client) => client.call("listModels", null));
  },
  /** `name` as `list` gives it. A model that is in use, in any tab, is not deleted. */
  async delete(name: string): Promise<void> {
    const checked = requireString("name", name);
    await once((client) => client.call("deleteModel", checked));
  },
};

/** Storage can be used by workers only, so each of these calls has one for itself. */
async function once<T>(use: (client: Client) => Promise<T>): Promise<T> {
  const client = openClient();
  try {
    return await use(client);
  } finally {
    await client.close();
  }
}

function openClient(): Client {
  // Neither Web Locks nor WebGPU are there otherwise, and their absence would be told in other words.
  if (!globalThis.isSecureContext) {
    throw new ZebraError(
      "no-webgpu",
      `WebGPU works on secure pages only: open this page by https:// or on localhost, not as ${globalThis.origin}`,
    );
  }
  return new Client();
}

/** A page's own callback must not end the work; its mistakes go where uncaught ones go. */
function notify(callback: LoadOptions["onProgress"], progress: Progress): void {
  try {
    callback?.(progress);
  } catch (error) {
    reportError(error);
  }
}

function loadArgument(source: ModelSource, options: LoadOptions): LoadArgument {
  const given = record("options", options);
  const format = optional("format", given, (path, value) => requireOneOf(path, value, ["f32", "f16", "q8", "q4"]));
  const cache = optional("cache", given, (path, value) => requireOneOf(path, value, ["f32", "f16", "q8"]));
  const context = optional("context", given, requirePositiveInteger);
  const kernels = optional("kernels", given, (path, value) => requireOneOf(path, value, ["auto", "plain"]));
  const revision = optional("revision", given, requireString);
  const endpoint = optional("endpoint", given, requireString);
  const headers = optional("headers", given, (path, value) =>
    Object.fromEntries(Object.entries(record(path, value)).map(([name, v]) => [name, requireString(`${path}.${name}`, v)])),
  );
  const store = optional("store", given, (path, value) => requireOneOf(path, value, ["source", "quantized", "none"]));
  return {
    source: resolveSource(source),
    store: store ?? "source",
    ...(format && { format }),
    ...(cache && { cache }),
    ...(context && { context }),
    ...(kernels && { kernels }),
    ...(revision && { revision }),
    ...(endpoint && { endpoint }),
    ...(headers && { headers }),
  };
}

/** What a worker can take. A relative URL means the page's folder, which the worker does not know. */
function resolveSource(source: unknown): LoadArgument["source"] {
  if (source instanceof URL) {
    return source.href;
  }
  if (typeof source === "string") {
    if (source.trim() === "") {
      throw new ZebraError("bad-request", 'source: expected a URL or a hub name such as "owner/name", found an empty text');
    }
    if (isHubName(source)) {
      return source;
    }
    try {
      return new URL(source, document.baseURI).href;
    } catch {
      throw new ZebraError("bad-request", `source: expected a URL or a hub name such as "owner/name", found "${source}"`);
    }
  }
  if (typeof source === "object" && source !== null && Symbol.iterator in source) {
    const files = [...(source as Iterable<unknown>)];
    const others = files.findIndex((file) => !(file instanceof File));
    if (files.length === 0 || others >= 0) {
      const found = files.length === 0 ? "none" : `something else at [${others}]`;
      throw new ZebraError("bad-request", `source: expected the File objects of a model's folder, found ${found}`);
    }
    return files.filter((file) => file instanceof File);
  }
  throw new ZebraError("bad-request", `source: expected a URL, a hub name or File objects, found ${typeof source}`);
}
