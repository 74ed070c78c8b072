// One file of a model in the origin private file system: its bytes, and beside them a table with the SHA-256 of each
// chunk that is here. An entry is written after its chunk was flushed, so whatever ends the worker, an entry stands
// for a chunk that is whole; a chunk that does not fit its entry is damaged and counts as missing.
//
// The table's first entry binds it to one version of the file, so the chunks of two versions never mix.

import { storageName } from "./name.js";

/** Bytes of a chunk: what is hashed, asked for and lost by a cut connection at once. */
export const CHUNK = 4 * 1024 * 1024;
const ENTRY = 32;
/** How often a chunk is read while other chunks of its file are being written, before it counts as missing. */
const READ_ATTEMPTS = 5;

/** What a file's chunks belong to. */
export interface FileVersion {
  readonly name: string;
  readonly size: number;
  readonly version: string;
}

export function chunkCount(size: number): number {
  return Math.ceil(size / CHUNK);
}

/** Bytes of chunk `index` of a file of `size` bytes. */
export function chunkSize(size: number, index: number): number {
  return Math.min(CHUNK, size - index * CHUNK);
}

/** The bytes from `start` to `end` of a file, put together from its chunks. */
export async function readByChunks(
  start: number,
  end: number,
  chunkAt: (index: number) => Promise<Uint8Array>,
): Promise<Uint8Array> {
  const result = new Uint8Array(end - start);
  for (let index = Math.floor(start / CHUNK); index * CHUNK < end; index++) {
    const from = index * CHUNK;
    const chunk = await chunkAt(index);
    const part = chunk.subarray(Math.max(start - from, 0), Math.min(end - from, chunk.length));
    result.set(part, Math.max(from - start, 0));
  }
  return result;
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

/** Whether an error is the browser's of this name. */
export function isNamed(error: unknown, name: string): boolean {
  return error instanceof DOMException && error.name === name;
}

/** Whether an error says that the browser's storage is full. */
export function isQuotaError(error: unknown): boolean {
  // Firefox says NS_ERROR_DOM_QUOTA_REACHED in older versions; all use the standard's name for this API.
  return isNamed(error, "QuotaExceededError");
}

/** A file's whole content; empty when there is no such file. */
async function contentOf(directory: FileSystemDirectoryHandle, name: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const file = await (await directory.getFileHandle(name)).getFile();
    return new Uint8Array(await file.arrayBuffer());
  } catch (error) {
    // NotReadable: another tab wrote to it in between, so what it held does not count.
    if (isNamed(error, "NotFoundError") || isNamed(error, "NotReadableError")) {
      return new Uint8Array();
    }
    throw error;
  }
}

/** The standard's access modes, which the type library does not know yet. */
interface ModalFileHandle {
  createSyncAccessHandle(options: { readonly mode: "read-only" }): Promise<FileSystemSyncAccessHandle>;
}

/**
 * Reads through an access handle, which is 40 times as fast as a File in Chromium. Several tabs may read so at once;
 * in browsers without modes the handle is exclusive, but only for a moment. `undefined` when another tab has the file.
 */
async function readQuickly(
  file: ModalFileHandle,
  at: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  let handle: FileSystemSyncAccessHandle;
  try {
    handle = await file.createSyncAccessHandle({ mode: "read-only" });
  } catch (error) {
    if (isNamed(error, "NoModificationAllowedError")) {
      return undefined;
    }
    throw error;
  }
  try {
    const bytes = new Uint8Array(length);
    return bytes.subarray(0, handle.read(bytes, { at }));
  } finally {
    handle.close();
  }
}

/** Reads through a File: several tabs may have one, also while another tab writes. */
async function readFile(file: FileSystemFileHandle, at: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await (await file.getFile()).slice(at, at + length).arrayBuffer());
}

/** Opens a file for writing. A tab that was just closed may hold it for a moment more. */
async function openHandle(directory: FileSystemDirectoryHandle, name: string): Promise<FileSystemSyncAccessHandle> {
  const file = await directory.getFileHandle(name, { create: true });
  for (let wait = 20; ; wait *= 2) {
    try {
      return await file.createSyncAccessHandle();
    } catch (error) {
      if (!isNamed(error, "NoModificationAllowedError") || wait > 2000) {
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

function writeAll(handle: FileSystemSyncAccessHandle, bytes: Uint8Array, at: number): void {
  if (handle.write(bytes, { at }) !== bytes.length) {
    throw new DOMException("the storage took only a part of a chunk", "QuotaExceededError");
  }
}

/** The first entry of a chunk table: which file its hashes are of. */
function bindingOf({ name, size, version }: FileVersion): Promise<Uint8Array<ArrayBuffer>> {
  return sha256(new TextEncoder().encode(JSON.stringify([CHUNK, name, size, version])));
}

interface KeptChunk {
  readonly file: StoredFile;
  readonly index: number;
  readonly bytes: Promise<Uint8Array<ArrayBuffer> | undefined>;
}

/**
 * The chunks that were read last or will be next, of all files: a tensor's codes and its scales lie apart and are read
 * by turns, and the next chunk can be read and hashed while the GPU takes this one.
 */
class KeptChunks {
  private static readonly COUNT = 4;
  private chunks: KeptChunk[] = [];

  get(
    file: StoredFile,
    index: number,
    read: () => Promise<Uint8Array<ArrayBuffer> | undefined>,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const known = this.chunks.find((chunk) => chunk.file === file && chunk.index === index);
    const chunk = known ?? this.begin({ file, index, bytes: read() });
    this.chunks = [...this.chunks.filter((other) => other !== chunk), chunk].slice(-KeptChunks.COUNT);
    return chunk.bytes;
  }

  /** What could not be read is not kept: the next reader tries again. */
  private begin(chunk: KeptChunk): KeptChunk {
    const drop = () => {
      this.chunks = this.chunks.filter((other) => other !== chunk);
    };
    chunk.bytes.then((bytes) => bytes ?? drop(), drop);
    return chunk;
  }

  forget(file: StoredFile, index?: number): void {
    this.chunks = this.chunks.filter((chunk) => chunk.file !== file || (index ?? chunk.index) !== chunk.index);
  }
}

const kept = new KeptChunks();

/** A file in storage. Many tabs may read it at once; one at a time writes, between `beginWriting` and `endWriting`. */
export class StoredFile {
  /** The hash of each chunk that is here. */
  private readonly hashes = new Map<number, Uint8Array<ArrayBuffer>>();
  /** What is being read, also ahead of any reader. */
  private readonly reading = new Set<Promise<unknown>>();
  private opening: Promise<void> | undefined;
  private data: FileSystemSyncAccessHandle | undefined;
  private table: FileSystemSyncAccessHandle | undefined;

  private constructor(
    private readonly directory: FileSystemDirectoryHandle,
    private readonly base: string,
    private binding: Uint8Array<ArrayBuffer>,
    private bytes: number,
  ) {}

  get size(): number {
    return this.bytes;
  }

  static async open(directory: FileSystemDirectoryHandle, file: FileVersion): Promise<StoredFile> {
    const base = await storageName(file.name);
    const stored = new StoredFile(directory, base, await bindingOf(file), file.size);
    await stored.reload();
    return stored;
  }

  /** Removes a file's chunks, unless another tab is writing them. */
  static async remove(directory: FileSystemDirectoryHandle, name: string): Promise<void> {
    const base = await storageName(name);
    for (const entry of [`${base}.chunks`, `${base}.data`]) {
      try {
        await directory.removeEntry(entry);
      } catch (error) {
        if (!isNamed(error, "NotFoundError") && !isNamed(error, "NoModificationAllowedError")) {
          throw error;
        }
      }
    }
  }

  /** Reads the table again: another tab may have stored something. */
  async reload(): Promise<void> {
    this.hashes.clear();
    kept.forget(this);
    const table = await contentOf(this.directory, `${this.base}.chunks`);
    if (!equal(table.subarray(0, ENTRY), this.binding)) {
      return;
    }
    for (let index = 0; (index + 2) * ENTRY <= table.length; index++) {
      const hash = table.slice((index + 1) * ENTRY, (index + 2) * ENTRY);
      if (hash.some((byte) => byte !== 0)) {
        this.hashes.set(index, hash);
      }
    }
  }

  has(index: number): boolean {
    return this.hashes.has(index);
  }

  /** The chunks that are here. */
  chunks(): Iterable<number> {
    return this.hashes.keys();
  }

  isComplete(): boolean {
    return this.hashes.size === chunkCount(this.size);
  }

  missingBytes(): number {
    let missing = this.size;
    for (const index of this.hashes.keys()) {
      missing -= chunkSize(this.size, index);
    }
    return missing;
  }

  /** A chunk, verified; `undefined` when it is not here or damaged, and then it counts as missing. */
  async read(index: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const bytes = this.verified(index);
    // Whoever reads it says what is wrong with it.
    this.verified(index + 1).catch(() => undefined);
    return bytes;
  }

  private async verified(index: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const hash = this.hashes.get(index);
    if (!hash) {
      return undefined;
    }
    return kept.get(this, index, () => {
      const bytes = this.readVerified(index, hash);
      const end = () => this.reading.delete(bytes);
      this.reading.add(bytes);
      bytes.then(end, end);
      return bytes;
    });
  }

  private async readVerified(
    index: number,
    hash: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const bytes = await this.readUnverified(index);
    if (bytes && equal(await sha256(bytes), hash)) {
      return bytes;
    }
    // Not when it was stored anew in the meantime.
    if (this.hashes.get(index) === hash) {
      this.hashes.delete(index);
    }
    return undefined;
  }

  private async readUnverified(index: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const at = index * CHUNK;
    const length = chunkSize(this.size, index);
    for (let attempt = 1; ; attempt++) {
      if (this.data) {
        const bytes = new Uint8Array(length);
        return this.data.read(bytes, { at }) === length ? bytes : undefined;
      }
      try {
        const file = await this.directory.getFileHandle(`${this.base}.data`);
        return (await readQuickly(file, at, length)) ?? (await readFile(file, at, length));
      } catch (error) {
        // NotReadable: something else was written to the file meanwhile, by another tab or by this one.
        if (isNamed(error, "NotReadableError") && attempt < READ_ATTEMPTS) {
          continue;
        }
        if (isNamed(error, "NotFoundError") || isNamed(error, "NotReadableError")) {
          return undefined;
        }
        throw error;
      }
    }
  }

  /** Takes the file for writing. What another version left is thrown away. */
  beginWriting(): Promise<void> {
    this.opening ??= this.openHandles().catch((error: unknown) => {
      this.opening = undefined;
      throw error;
    });
    return this.opening;
  }

  private async openHandles(): Promise<void> {
    const data = await openHandle(this.directory, `${this.base}.data`);
    try {
      const table = await openHandle(this.directory, `${this.base}.chunks`);
      this.table = table;
      const binding = new Uint8Array(ENTRY);
      table.read(binding, { at: 0 });
      if (!equal(binding, this.binding)) {
        this.hashes.clear();
        kept.forget(this);
        // First the table goes, then the chunks that it spoke of.
        table.truncate(0);
        table.flush();
        data.truncate(0);
        writeAll(table, this.binding, 0);
        table.flush();
      }
    } catch (error) {
      data.close();
      this.table?.close();
      this.table = undefined;
      throw error;
    }
    this.data = data;
  }

  /** Stores a chunk. Between `beginWriting` and `endWriting` only; later it does nothing. */
  async write(index: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const hash = await sha256(bytes);
    const { data, table } = this;
    if (!data || !table) {
      return;
    }
    writeAll(data, bytes, index * CHUNK);
    data.flush();
    this.enter(table, index, hash);
  }

  private enter(table: FileSystemSyncAccessHandle, index: number, hash: Uint8Array<ArrayBuffer>): void {
    writeAll(table, hash, (index + 1) * ENTRY);
    this.hashes.set(index, hash);
    kept.forget(this, index);
  }

  /** Stores bytes that are no whole chunk; `seal` hashes them later. */
  writePart(at: number, bytes: Uint8Array): void {
    if (this.data) {
      writeAll(this.data, bytes, at);
    }
  }

  /** Hashes what `writePart` stored and fills the table. Only now the size is known. */
  async seal(file: FileVersion): Promise<void> {
    const { data, table } = this;
    if (!data || !table) {
      throw new Error("a file is sealed while it is written");
    }
    data.flush();
    this.bytes = file.size;
    this.binding = await bindingOf(file);
    writeAll(table, this.binding, 0);
    for (let index = 0; index < chunkCount(this.size); index++) {
      const bytes = await this.readUnverified(index);
      if (!bytes) {
        throw new Error(`the storage gave back less than the ${this.size} bytes that were written`);
      }
      this.enter(table, index, await sha256(bytes));
    }
    table.flush();
  }

  /** Waits until nothing has it open, so that it can be removed, and lets go of its chunks. Nobody reads it later. */
  async close(): Promise<void> {
    await Promise.allSettled(this.reading);
    kept.forget(this);
  }

  get isWriting(): boolean {
    return this.data !== undefined;
  }

  /** Gives the file back to other tabs. */
  async endWriting(): Promise<void> {
    const { opening } = this;
    this.opening = undefined;
    if (!this.data) {
      await opening?.catch(() => undefined);
    }
    this.data?.close();
    this.table?.close();
    this.data = undefined;
    this.table = undefined;
  }
}
