// Opens a model: from a web server or a hub through the browser's storage, or from File objects as they are. This is
// what the worker calls; the other modules here are its parts.

import { ZebraError } from "../../errors.js";
import type { FileSink, ModelFiles } from "../files.js";
import { readByChunks, type StoredFile } from "./chunks.js";
import { DownloadFile, type DownloadProgress, Downloads } from "./download.js";
import { aborted, Http, TIMING, type Timing } from "./http.js";
import { type HubPlace, readPlace, type UrlPlace, variantName } from "./name.js";
import { HubSource, INDEX, SINGLE, SMALL_FILES, type Source, UrlSource } from "./source.js";
import { deleteModel, ModelFolder, NewModel, type Manifest, type Origin, type Versions } from "./store.js";

const LONGEST_READ = 16 * 1024 * 1024;

/** A model whose files can be read. */
export interface OpenModel extends ModelFiles {
  /** The name in storage, as `listModels` gives it. */
  readonly name: string;
  /** Which stored form it is, when it is one that `createStored` made. */
  readonly variant: string | undefined;
  /** Bytes of all files that a load reads, and how many of them are not in storage. */
  missing(): Promise<{ total: number; missing: number }>;
  /** Begins reading ahead, in this order. */
  prefetch(names: readonly string[]): void;
  /** What a stored form of it would be made from; `undefined` for File objects and for a stored form itself. */
  origin(): Promise<Origin | undefined>;
}

export interface OpenOptions {
  readonly revision?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly endpoint?: string | undefined;
  readonly signal: AbortSignal;
  /** false: nothing is kept, and nothing that was kept is used. */
  readonly store: boolean;
  /** A form that `createStored` made: used when it is there and still fits the source. */
  readonly variant?: string | undefined;
  /** When transfers are given up. */
  readonly timing?: Partial<Timing> | undefined;
  onProgress(progress: { phase: "waiting" } | ({ phase: "download" } & DownloadProgress)): void;
}

/** Opens a model. Throws when the server cannot be read and the model is not in storage. */
export async function openModel(source: string | readonly File[], options: OpenOptions): Promise<OpenModel> {
  if (typeof source !== "string") {
    return new FileModel(source);
  }
  // A worker that was started from a blob has no address of its own to which "./model" could be relative.
  const base = self.location.protocol === "blob:" ? self.origin : self.location.href;
  const place = readPlace(source, { base, revision: options.revision, endpoint: options.endpoint });
  try {
    const variant = options.variant === undefined ? undefined : await openVariant(place, options.variant, options);
    return variant ?? (await RemoteModel.open(place, options));
  } catch (error) {
    throw options.signal.aborted ? aborted() : error;
  }
}

/** Begins a stored form of a model ("q4"), which `openModel` finds once it is committed. */
export async function createStored(
  model: OpenModel,
  variant: string,
): Promise<FileSink & { commit(): Promise<void>; abort(): Promise<void> }> {
  const origin = await model.origin();
  if (!origin) {
    throw new ZebraError(
      "bad-request",
      `${model.name}: only a model of a server or a hub can be stored in another form`,
    );
  }
  return NewModel.create(variantName(model.name, variant), origin);
}

function connection(
  place: UrlPlace | HubPlace,
  options: OpenOptions,
  manifest: Manifest | undefined,
  signal: AbortSignal,
) {
  const http = new Http(options.headers ?? {}, { ...TIMING, ...options.timing });
  const source: Source =
    place.kind === "url" ? new UrlSource(place, http, signal) : new HubSource(place, http, signal, manifest?.hub);
  return { http, source };
}

/**
 * Asks the server for the model. Returns whether it has to do without: the server cannot be reached, but all is in
 * storage, and so one attempt was enough.
 */
async function connect(source: Source, http: Http, inStorage: boolean): Promise<{ offline: boolean }> {
  try {
    await source.connect(inStorage ? { ...http.timing, attempts: 1 } : http.timing);
    return { offline: false };
  } catch (error) {
    const status = error instanceof ZebraError && error.code === "network" ? error.details.status : undefined;
    const unreachable = status === null || (typeof status === "number" && (status === 429 || status >= 500));
    if (inStorage && unreachable) {
      return { offline: true };
    }
    throw error;
  }
}

async function isSame(source: Source, files: Versions): Promise<boolean> {
  const checks = Object.entries(files).map(async ([name, kept]) => {
    const now = await source.find(name);
    return now?.size === kept.size && now.version === kept.version;
  });
  return (await Promise.all(checks)).every(Boolean);
}

/** A stored form, if there is one that fits what the source is now. */
async function openVariant(
  place: UrlPlace | HubPlace,
  variant: string,
  options: OpenOptions,
): Promise<OpenModel | undefined> {
  const name = variantName(place.name, variant);
  const folder = options.store ? await ModelFolder.openFinished(name, options.signal) : undefined;
  const manifest = await folder?.manifest();
  if (!folder || !manifest?.files || !manifest.source) {
    await folder?.close();
    return undefined;
  }
  try {
    const { source, http } = connection(place, options, manifest, options.signal);
    const { offline } = await connect(source, http, true);
    if (offline || (await isSame(source, manifest.source))) {
      await folder.touch();
      const model = new VariantModel(name, variant, folder, manifest.files);
      options.signal.addEventListener("abort", () => void model.close(), { once: true });
      return model;
    }
  } catch (error) {
    await folder.close();
    throw error;
  }
  await folder.close();
  try {
    await deleteModel(name);
  } catch (error) {
    // Another tab still runs the old one: it stays until somebody makes the new one.
    if (!(error instanceof ZebraError)) {
      throw error;
    }
  }
  return undefined;
}

function checkRange(path: string, size: number, start: number, end: number): void {
  const asked = `${path}: bytes ${start} to ${end} were asked for`;
  if (!(start >= 0 && start <= end && end <= size)) {
    throw new ZebraError("integrity", `${asked}, the file has ${size}`, { file: path });
  }
  if (end - start > LONGEST_READ) {
    throw new ZebraError("internal", `${asked}, at most ${LONGEST_READ} may be at once`, { file: path });
  }
}

function noSuchFile(path: string): ZebraError {
  return new ZebraError("not-found", `${path}: no such file`, { file: path });
}

/** A model of a server or a hub. */
class RemoteModel implements OpenModel {
  readonly variant = undefined;
  private readonly files = new Map<string, Promise<DownloadFile | undefined>>();
  private readonly downloads: Downloads;
  private allFiles: Promise<Map<string, DownloadFile>> | undefined;
  private allKnown = false;
  private storingBegun: Promise<void> | undefined;
  /** Ends when the manifest has the list of files. */
  private listing: Promise<void> | undefined;
  private closed: Promise<void> | undefined;

  private constructor(
    readonly name: string,
    private readonly source: Source,
    http: Http,
    private readonly folder: ModelFolder | undefined,
    private readonly stop: AbortController,
    options: OpenOptions,
  ) {
    this.downloads = new Downloads(http, folder, stop.signal, {
      waiting: () => options.onProgress({ phase: "waiting" }),
      progress: (progress) => {
        // Before all sizes are known, a total would be too small.
        if (this.allKnown) {
          options.onProgress({ phase: "download", ...progress });
        }
      },
      storing: () => (this.storingBegun ??= this.beginStoring()),
    });
    stop.signal.addEventListener("abort", () => void this.close(), { once: true });
  }

  static async open(place: UrlPlace | HubPlace, options: OpenOptions): Promise<RemoteModel> {
    const stop = new AbortController();
    const abort = () => stop.abort();
    if (options.signal.aborted) {
      throw aborted();
    }
    options.signal.addEventListener("abort", abort, { once: true });
    const folder = options.store ? await ModelFolder.open(place.name, stop.signal) : undefined;
    try {
      const manifest = await folder?.manifest();
      const kept = manifest?.files && (await folder?.hasAll(manifest.files)) ? manifest.files : undefined;
      const { source, http } = connection(place, options, manifest, stop.signal);
      const { offline } = await connect(source, http, kept !== undefined);
      if (offline && kept) {
        source.assume(kept, manifest?.hub);
      }
      if (manifest) {
        await folder?.touch();
      }
      const model = new RemoteModel(place.name, source, http, folder, stop, options);
      // All are looked up now and at once, not one after the other when they are asked for. Whoever asks for one that
      // failed is told.
      model.all().catch(() => undefined);
      return model;
    } catch (error) {
      options.signal.removeEventListener("abort", abort);
      await folder?.close();
      throw error;
    }
  }

  describe(): string {
    return this.source.describe();
  }

  async names(): Promise<string[]> {
    const names = this.source.list() ?? [...(await this.all()).keys()];
    return names.sort();
  }

  async size(name: string): Promise<number | undefined> {
    return (await this.find(name))?.size;
  }

  async read(name: string, start: number, end: number): Promise<Uint8Array> {
    const file = await this.find(name);
    const path = `${this.describe()} ${name}`;
    if (!file) {
      throw noSuchFile(path);
    }
    checkRange(path, file.size, start, end);
    return this.downloads.read(file, start, end);
  }

  async missing(): Promise<{ total: number; missing: number }> {
    let total = 0;
    let missing = 0;
    for (const file of (await this.all()).values()) {
      total += file.size;
      missing += file.stored?.missingBytes() ?? file.size;
    }
    return { total, missing };
  }

  prefetch(names: readonly string[]): void {
    Promise.all(names.map((name) => this.find(name)))
      .then((files) => this.downloads.prefetch(files.filter((file) => file !== undefined)))
      // Reading the file that is missing says so.
      .catch(() => undefined);
  }

  async origin(): Promise<Origin> {
    const files: Record<string, { size: number; version: string }> = {};
    for (const [name, { size, remote }] of await this.all()) {
      files[name] = { size, version: remote.version };
    }
    return { files, hub: this.source.listing() };
  }

  close(): Promise<void> {
    this.closed ??= this.giveBack();
    return this.closed;
  }

  private async giveBack(): Promise<void> {
    this.stop.abort();
    await this.downloads.close();
    await this.storingBegun?.catch(() => undefined);
    await this.listing;
    await this.folder?.close();
  }

  /** A file, or `undefined`. One that the index lists has to be there. */
  private async find(name: string): Promise<DownloadFile | undefined> {
    const file = await this.lookUp(name);
    if (!file && name.endsWith(".safetensors") && name !== SINGLE && (await this.shards()).includes(name)) {
      throw new ZebraError(
        "not-found",
        `${this.describe()} ${name}: not found, but ${INDEX} lists it. Its upload is not complete: ask who ` +
          "publishes this model",
        { file: name, listed_by: INDEX },
      );
    }
    return file;
  }

  private lookUp(name: string): Promise<DownloadFile | undefined> {
    let file = this.files.get(name);
    if (!file) {
      file = this.open(name);
      file.catch(() => this.files.delete(name));
      this.files.set(name, file);
    }
    return file;
  }

  private async open(name: string): Promise<DownloadFile | undefined> {
    if (/[/\\]/.test(name) || name === "." || name === "..") {
      return undefined;
    }
    const remote = await this.source.find(name);
    if (!remote) {
      return undefined;
    }
    const { size, version } = remote;
    if (size === undefined) {
      return this.downloads.receiveUnsized(name, remote);
    }
    const stored = await this.folder?.file({ name, size, version });
    return this.downloads.add(new DownloadFile(name, { ...remote, size }, stored));
  }

  private async shards(): Promise<string[]> {
    const index = await this.lookUp(INDEX);
    if (!index) {
      return [];
    }
    const text = new TextDecoder().decode(await this.downloads.read(index, 0, index.size));
    let names: unknown[] = [];
    try {
      const json: unknown = JSON.parse(text);
      if (typeof json === "object" && json !== null && "weight_map" in json && json.weight_map) {
        names = Object.values(json.weight_map);
      }
    } catch {
      // The runtime reads it too, and says what is wrong with it.
    }
    return [...new Set(names.filter((name) => typeof name === "string"))].sort();
  }

  /** All files that a load reads. */
  private all(): Promise<Map<string, DownloadFile>> {
    if (!this.allFiles) {
      this.allFiles = this.findAll();
      this.allFiles.catch(() => {
        this.allFiles = undefined;
      });
    }
    return this.allFiles;
  }

  private async findAll(): Promise<Map<string, DownloadFile>> {
    const names = [...SMALL_FILES, SINGLE];
    const found = await Promise.all(names.map((name) => this.lookUp(name)));
    if (!found[names.indexOf(SINGLE)]) {
      const shards = await this.shards();
      names.push(INDEX, ...shards);
      found.push(...(await Promise.all([INDEX, ...shards].map((name) => this.find(name)))));
    }
    const files = new Map<string, DownloadFile>();
    names.forEach((name, index) => {
      const file = found[index];
      if (file) {
        files.set(name, file);
      }
    });
    this.allKnown = true;
    return files;
  }

  /** Makes the model appear in storage, and notes when it will be complete. */
  private async beginStoring(): Promise<void> {
    const { folder } = this;
    if (!folder) {
      return;
    }
    const before = (await folder.manifest())?.files ?? {};
    await folder.update({});
    this.listing = this.origin()
      .then(async ({ files, hub }) => {
        await folder.update({ files, ...(hub ? { hub } : {}) });
        await folder.removeFiles(Object.keys(before).filter((name) => !(name in files)));
      })
      // Without the list the model counts as incomplete, which it is: a file is missing, or the load was stopped.
      .catch(() => undefined);
  }
}

/** A form that `createStored` made. It lies in storage as a whole and needs no network. */
class VariantModel implements OpenModel {
  private readonly open = new Map<string, Promise<StoredFile>>();
  private closed: Promise<void> | undefined;

  constructor(
    readonly name: string,
    readonly variant: string,
    private readonly folder: ModelFolder,
    private readonly files: Versions,
  ) {}

  describe(): string {
    return this.name;
  }

  async names(): Promise<string[]> {
    return Object.keys(this.files).sort();
  }

  async size(name: string): Promise<number | undefined> {
    return Object.hasOwn(this.files, name) ? this.files[name]?.size : undefined;
  }

  async read(name: string, start: number, end: number): Promise<Uint8Array> {
    const size = await this.size(name);
    if (size === undefined) {
      throw noSuchFile(`${this.name} ${name}`);
    }
    checkRange(`${this.name} ${name}`, size, start, end);
    return readByChunks(start, end, (index) => this.chunk(name, index));
  }

  private async chunk(name: string, index: number): Promise<Uint8Array> {
    let stored = this.open.get(name);
    if (!stored) {
      const { size, version } = this.files[name] ?? { size: 0, version: "" };
      stored = this.folder.file({ name, size, version });
      this.open.set(name, stored);
    }
    const file = await stored;
    if (this.closed) {
      throw aborted();
    }
    const bytes = await file.read(index);
    if (!bytes) {
      throw new ZebraError(
        "integrity",
        `${this.name} ${name}: damaged in the browser's storage. Delete it (models.delete("${this.name}")) and load ` +
          "it again",
        { name: this.name, file: name },
      );
    }
    return bytes;
  }

  async missing(): Promise<{ total: number; missing: number }> {
    const total = Object.values(this.files).reduce((sum, { size }) => sum + size, 0);
    return { total, missing: 0 };
  }

  prefetch(): void {
    // All of it is here.
  }

  async origin(): Promise<undefined> {
    return undefined;
  }

  close(): Promise<void> {
    this.closed ??= this.folder.close();
    return this.closed;
  }
}

/** The files that a user picked or dropped. They are read where they are. */
class FileModel implements OpenModel {
  readonly name: string;
  readonly variant = undefined;
  private readonly files = new Map<string, File>();

  constructor(picked: readonly File[]) {
    // A picked folder gives the files of its folders too: the model is where the config.json nearest to its top is.
    const folderOf = (file: File) => file.webkitRelativePath.slice(0, -file.name.length);
    const depth = (file: File) => file.webkitRelativePath.split("/").length;
    const config = picked.filter((file) => file.name === "config.json").sort((a, b) => depth(a) - depth(b))[0];
    const folder = folderOf(config ?? picked[0] ?? new File([], ""));
    for (const file of picked) {
      if (folderOf(file) === folder) {
        this.files.set(file.name, file);
      }
    }
    this.name = folder.replace(/\/$/, "") || "the chosen files";
  }

  describe(): string {
    return this.name;
  }

  async names(): Promise<string[]> {
    return [...this.files.keys()].sort();
  }

  async size(name: string): Promise<number | undefined> {
    return this.files.get(name)?.size;
  }

  async read(name: string, start: number, end: number): Promise<Uint8Array> {
    const file = this.files.get(name);
    const path = `${this.name} ${name}`;
    if (!file) {
      throw noSuchFile(path);
    }
    checkRange(path, file.size, start, end);
    try {
      return new Uint8Array(await file.slice(start, end).arrayBuffer());
    } catch (cause) {
      throw new ZebraError(
        "integrity",
        `${path}: cannot be read any more: it was changed, moved or removed since it was chosen. Choose it again`,
        { file: name },
        { cause },
      );
    }
  }

  async missing(): Promise<{ total: number; missing: number }> {
    const total = [...this.files.values()].reduce((sum, { size }) => sum + size, 0);
    return { total, missing: 0 };
  }

  prefetch(): void {
    // A disk needs no reading ahead.
  }

  async origin(): Promise<undefined> {
    return undefined;
  }

  async close(): Promise<void> {
    this.files.clear();
  }
}
