// The models in the origin private file system: one folder each, with a manifest that says whose it is. A folder
// without a manifest is what an unfinished write left, and is removed.
//
// Web Locks order the tabs. Who reads a model holds its "use" lock shared; who deletes or replaces it needs it alone.

import { ZebraError } from "../../errors.js";
import type { StoredModel } from "../../types.js";
import { isNamed, isQuotaError, StoredFile, type FileVersion } from "./chunks.js";
import { storageName } from "./name.js";
import type { HubListing } from "./source.js";

const ROOT = "zebra-runtime";
const MANIFEST = "model.json";

/** Files by name, in the version that is stored or wanted. */
export type Versions = Readonly<Record<string, { readonly size: number; readonly version: string }>>;

/** What a quantized form is made from. */
export interface Origin {
  readonly files: Versions;
  readonly hub: HubListing | undefined;
}

/** What is written down of a stored model. */
export interface Manifest {
  readonly name: string;
  readonly lastUsed: number;
  /** All files that a load reads, once they are known. Without them the model counts as incomplete. */
  readonly files?: Versions;
  /** The hub's listing that the files belong to. */
  readonly hub?: HubListing;
  /** Of a quantized form: the files that it was made from. */
  readonly source?: Versions;
}

/** The folder of all models; `undefined` where the browser has no storage for this page (a private window). */
async function rootFolder(): Promise<FileSystemDirectoryHandle | undefined> {
  try {
    const storage = await navigator.storage.getDirectory();
    return await storage.getDirectoryHandle(ROOT, { create: true });
  } catch {
    // Each browser has its own error for "not here"; a load does without, and every write reports its own failure.
    return undefined;
  }
}

function isNotFound(error: unknown): boolean {
  return isNamed(error, "NotFoundError");
}

async function remove(directory: FileSystemDirectoryHandle, name: string): Promise<void> {
  try {
    await directory.removeEntry(name, { recursive: true });
  } catch (error) {
    if (!isNotFound(error)) {
      throw error;
    }
  }
}

/** The version of files that were made here. */
export const LOCAL = "local";

/** Names of the locks of a folder. */
const useLock = (folder: string) => `zebra-runtime use ${folder}`;
const manifestLock = (folder: string) => `zebra-runtime manifest ${folder}`;
const downloadLock = (folder: string) => `zebra-runtime download ${folder}`;

/** A lock that is held until it is released; `release` resolves when others can have it. */
export interface HeldLock {
  release(): Promise<void>;
}

/** Takes a lock; `undefined` when `ifAvailable` is set and it is taken. */
function takeLock(name: string, options: LockOptions): Promise<HeldLock | undefined> {
  return new Promise((resolve, reject) => {
    const held: Promise<void> = navigator.locks.request(name, options, (lock) => {
      if (!lock) {
        resolve(undefined);
        return undefined;
      }
      return new Promise<void>((end) => {
        resolve({
          release() {
            end();
            return held;
          },
        });
      });
    });
    held.catch(reject);
  });
}

/** The folder of one model, which this tab uses until `close`. */
export class ModelFolder {
  private readonly files: StoredFile[] = [];

  private constructor(
    readonly name: string,
    private readonly directory: FileSystemDirectoryHandle,
    private readonly id: string,
    private readonly use: HeldLock,
  ) {}

  /**
   * The folder for a model, made when there is none; `undefined` when this page has no storage. It is listed from the
   * first `update` on.
   */
  static async open(name: string, signal: AbortSignal): Promise<ModelFolder | undefined> {
    const root = await rootFolder();
    if (!root) {
      return undefined;
    }
    const id = await storageName(name);
    const use = await takeLock(useLock(id), { mode: "shared", signal });
    if (!use) {
      return undefined;
    }
    try {
      return new ModelFolder(name, await root.getDirectoryHandle(id, { create: true }), id, use);
    } catch (error) {
      await use.release();
      throw error;
    }
  }

  /** A finished quantized form; `undefined` when there is none. */
  static async openFinished(name: string, signal: AbortSignal): Promise<ModelFolder | undefined> {
    const root = await rootFolder();
    const id = await storageName(name);
    if (!root || !(await readManifest(root, id))) {
      return undefined;
    }
    return ModelFolder.open(name, signal);
  }

  manifest(): Promise<Manifest | undefined> {
    return readManifestIn(this.directory);
  }

  /** Changes the manifest; other tabs may do so too. */
  async update(change: Partial<Manifest>): Promise<void> {
    await navigator.locks.request(manifestLock(this.id), async () => {
      const before = await this.manifest();
      await writeManifest(this.directory, { ...before, ...change, name: this.name, lastUsed: Date.now() });
    });
  }

  /** Notes that the model was used. */
  async touch(): Promise<void> {
    try {
      await this.update({});
    } catch (error) {
      // A storage without room for a date is no reason not to read what it has.
      if (!(error instanceof DOMException)) {
        throw error;
      }
    }
  }

  async file(file: FileVersion): Promise<StoredFile> {
    const stored = await StoredFile.open(this.directory, file);
    this.files.push(stored);
    return stored;
  }

  /** Removes files that the model has no more. */
  async removeFiles(names: readonly string[]): Promise<void> {
    for (const name of names) {
      await StoredFile.remove(this.directory, name);
    }
  }

  /** Whether all of these files are stored in these versions. */
  hasAll(files: Versions): Promise<boolean> {
    return areComplete(this.directory, files);
  }

  /** The right to download this model; at once, or after `onWait` when another tab has it. */
  async takeDownload(signal: AbortSignal, onWait: () => void): Promise<{ lock: HeldLock; waited: boolean }> {
    const name = downloadLock(this.id);
    const free = await takeLock(name, { ifAvailable: true });
    if (free) {
      return { lock: free, waited: false };
    }
    onWait();
    const lock = await takeLock(name, { signal });
    if (!lock) {
      throw new Error("a lock that was waited for was not given");
    }
    return { lock, waited: true };
  }

  async close(): Promise<void> {
    // Whoever gets the lock next may delete them.
    await Promise.all(this.files.map((file) => file.close()));
    await this.use.release();
  }
}

async function readManifestIn(directory: FileSystemDirectoryHandle): Promise<Manifest | undefined> {
  try {
    const file = await (await directory.getFileHandle(MANIFEST)).getFile();
    return JSON.parse(await file.text()) as Manifest;
  } catch (error) {
    if (isNotFound(error) || error instanceof SyntaxError) {
      return undefined;
    }
    throw error;
  }
}

async function readManifest(root: FileSystemDirectoryHandle, id: string): Promise<Manifest | undefined> {
  try {
    return await readManifestIn(await root.getDirectoryHandle(id));
  } catch (error) {
    if (isNotFound(error)) {
      return undefined;
    }
    throw error;
  }
}

async function writeManifest(directory: FileSystemDirectoryHandle, manifest: Manifest): Promise<void> {
  // A writable stream replaces the file only when it is closed: a manifest is whole or the one before.
  const stream = await (await directory.getFileHandle(MANIFEST, { create: true })).createWritable();
  await stream.write(JSON.stringify(manifest));
  await stream.close();
}

async function areComplete(directory: FileSystemDirectoryHandle, files: Versions): Promise<boolean> {
  for (const [name, { size, version }] of Object.entries(files)) {
    if (!(await StoredFile.open(directory, { name, size, version })).isComplete()) {
      return false;
    }
  }
  return true;
}

async function bytesIn(directory: FileSystemDirectoryHandle): Promise<number> {
  let bytes = 0;
  for await (const entry of directory.values()) {
    if (entry instanceof FileSystemFileHandle) {
      bytes += (await entry.getFile()).size;
    }
  }
  return bytes;
}

/** The models in storage, the last used first; incomplete ones too. */
export async function listModels(): Promise<StoredModel[]> {
  const root = await rootFolder();
  const models: StoredModel[] = [];
  if (!root) {
    return models;
  }
  await removeLeftovers(root);
  for await (const [id, entry] of root.entries()) {
    if (entry instanceof FileSystemDirectoryHandle) {
      try {
        const manifest = await readManifest(root, id);
        if (manifest) {
          const { name, lastUsed, files } = manifest;
          const complete = files !== undefined && (await areComplete(entry, files));
          models.push({ name, lastUsed, complete, bytes: await bytesIn(entry) });
        }
      } catch (error) {
        // Another tab deleted it in between.
        if (!isNotFound(error)) {
          throw error;
        }
      }
    }
  }
  return models.sort((a, b) => b.lastUsed - a.lastUsed);
}

/** Runs `change` when no tab uses the model, else throws. */
async function alone<T>(name: string, id: string, what: string, change: () => Promise<T>): Promise<T> {
  const lock = await takeLock(useLock(id), { ifAvailable: true });
  if (!lock) {
    throw new ZebraError(
      "bad-request",
      `${name} is in use and cannot be ${what}: dispose of it first, in this page and in other tabs`,
      { name },
    );
  }
  try {
    return await change();
  } finally {
    await lock.release();
  }
}

/** Removes a model from storage. Throws when there is none of this name, and while a page uses it. */
export async function deleteModel(name: string): Promise<void> {
  const root = await rootFolder();
  const id = await storageName(name);
  if (!root || !(await readManifest(root, id))) {
    const names = (await listModels()).map((model) => model.name).join(", ");
    throw new ZebraError("not-found", `no model "${name}" is in storage; found: ${names || "none"}`, { name });
  }
  await alone(name, id, "deleted", async () => {
    // The manifest goes first: whatever interrupts the rest leaves a folder that counts as a leftover.
    await remove(await root.getDirectoryHandle(id), MANIFEST);
    await remove(root, id);
  });
}

/** Removes folders without a manifest that nobody is at work on. */
async function removeLeftovers(root: FileSystemDirectoryHandle): Promise<void> {
  const ids: string[] = [];
  for await (const id of root.keys()) {
    ids.push(id);
  }
  for (const id of ids) {
    if (!(await readManifest(root, id))) {
      const lock = await takeLock(useLock(id), { ifAvailable: true });
      // Once more, now that nobody else can be writing one.
      if (lock && !(await readManifest(root, id))) {
        await remove(root, id);
      }
      await lock?.release();
    }
  }
}

/** A file that is being written: as far as it reaches, and how many bytes of that are there. */
interface NewFile {
  readonly stored: StoredFile;
  size: number;
  written: number;
}

/** A model that is being written; it appears with `commit`. */
export class NewModel {
  private readonly files = new Map<string, NewFile>();

  private constructor(
    private readonly name: string,
    private readonly root: FileSystemDirectoryHandle,
    private readonly id: string,
    private readonly directory: FileSystemDirectoryHandle,
    private readonly origin: Origin,
    private readonly lock: HeldLock,
  ) {}

  /** Begins `name`, made from `origin`. One that is there goes. */
  static async create(name: string, origin: Origin): Promise<NewModel> {
    const root = await rootFolder();
    if (!root) {
      throw new ZebraError("quota", `${name}: this browser gives the page no storage (a private window?)`, { name });
    }
    await removeLeftovers(root);
    const id = await storageName(name);
    const lock = await takeLock(useLock(id), { ifAvailable: true });
    if (!lock) {
      throw new ZebraError("bad-request", `${name} is in use and cannot be replaced: dispose of it first`, { name });
    }
    try {
      await remove(root, id);
      return new NewModel(name, root, id, await root.getDirectoryHandle(id, { create: true }), origin, lock);
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  async write(name: string, offset: number, bytes: Uint8Array): Promise<void> {
    await this.inStorage(async () => {
      const file = this.files.get(name) ?? (await this.begin(name));
      file.stored.writePart(offset, bytes);
      file.written += bytes.length;
      file.size = Math.max(file.size, offset + bytes.length);
    });
  }

  private async begin(name: string): Promise<NewFile> {
    const stored = await StoredFile.open(this.directory, { name, size: 0, version: LOCAL });
    await stored.beginWriting();
    const file = { stored, size: 0, written: 0 };
    this.files.set(name, file);
    return file;
  }

  private async inStorage(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (error) {
      if (isQuotaError(error)) {
        const bytes = [...this.files.values()].reduce((sum, file) => sum + file.size, 0);
        const message =
          `${this.name}: the browser's storage is full; ${bytes} bytes were to be stored. Delete models that are ` +
          "not needed";
        throw new ZebraError("quota", message, { name: this.name, bytes }, { cause: error });
      }
      throw error;
    }
  }

  /** Makes the model appear: all or nothing. */
  async commit(): Promise<void> {
    const files: Record<string, { size: number; version: string }> = {};
    for (const [name, { size, stored, written }] of this.files) {
      if (written !== size) {
        throw new Error(`${name}: ${written} of ${size} bytes were written`);
      }
      await this.inStorage(() => stored.seal({ name, size, version: LOCAL }));
      await stored.endWriting();
      files[name] = { size, version: LOCAL };
    }
    const { hub, files: source } = this.origin;
    const manifest = { name: this.name, lastUsed: Date.now(), files, source, ...(hub ? { hub } : {}) };
    await this.inStorage(() => writeManifest(this.directory, manifest));
    await this.lock.release();
  }

  /** Throws away what was written. */
  async abort(): Promise<void> {
    for (const { stored } of this.files.values()) {
      await stored.endWriting();
    }
    await remove(this.root, this.id);
    await this.lock.release();
  }
}
