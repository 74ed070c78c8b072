// Brings the chunks of a model's files here: from storage when they are there, else from the server, and then into
// storage. A few ranges are in flight at a time; a chunk that is read jumps the queue of those that are read ahead.
//
// Where nothing can be stored (no storage, no room, not wanted) chunks go straight to the reader. Then reading ahead
// stays a few chunks in front of it, and what is passed is forgotten. A server that ignores ranges sends each file in
// one pass; without storage its chunks are kept as Blobs, which the browser may put on disk.
//
// One tab at a time downloads a model. Another one waits, and then finds in storage what the first one put there.

import { ZebraError } from "../../errors.js";
import { CHUNK, chunkCount, chunkSize, readByChunks, type StoredFile } from "./chunks.js";
import { aborted, differ, Failure, type Http, type Reply, retry, versionOf } from "./http.js";
import type { RemoteFile } from "./source.js";
import type { HeldLock, ModelFolder } from "./store.js";

/** Ranges in flight. With {@link CHUNK} it bounds the buffers: 16 MiB. */
const IN_FLIGHT = 4;
/** How often a file may change under a download before that is an error. */
const RESTARTS = 3;
const REPORT_EVERY = 100;
const RATE_WINDOW = 3_000;

/** Bytes of a download. */
export interface DownloadProgress {
  readonly loaded: number;
  readonly total: number;
  readonly bytesPerSecond: number;
}

/** The file is not any more what it was when the load began. */
class Changed extends Error {
  constructor(readonly reply: Reply) {
    super("changed");
  }
}

/** A file that is being read, from wherever its chunks are. */
export class DownloadFile {
  readonly size: number;
  /** Chunks that are here or went to the reader: what `loaded` counts. */
  readonly done = new Set<number>();
  /** Bytes received of chunks that are under way. */
  readonly partial = new Map<number, number>();
  /** Whether new chunks are stored. */
  storing: boolean;
  /** Chunks of a server without ranges, where they cannot be stored. */
  readonly blobs = new Map<number, Blob>();
  /** Set when the server ignores ranges: the pass that brings all chunks, in order. */
  pass: Promise<void> | undefined;
  /** Whether bytes of it went to the caller, so that no other version may follow. */
  handedOut = false;
  /** Counts the versions that were begun. */
  generation = 0;
  /** Ends the requests of the version at hand. */
  attempt = new AbortController();
  /** Waiting for a chunk of the pass. */
  readonly awaited = new Map<number, (bytes: Uint8Array<ArrayBuffer>) => void>();

  constructor(
    readonly name: string,
    public remote: RemoteFile & { readonly size: number },
    public stored: StoredFile | undefined,
  ) {
    this.size = remote.size;
    this.storing = stored !== undefined;
    this.countStored();
  }

  countStored(): void {
    for (const index of this.stored?.chunks() ?? []) {
      this.done.add(index);
    }
  }

  /** Whether a chunk needs no network. */
  isHere(index: number): boolean {
    return this.stored?.has(index) === true || this.blobs.has(index);
  }

  loaded(): number {
    let bytes = this.done.size * CHUNK;
    const last = chunkCount(this.size) - 1;
    if (this.done.has(last)) {
      bytes -= CHUNK - chunkSize(this.size, last);
    }
    for (const received of this.partial.values()) {
      bytes += received;
    }
    return bytes;
  }
}

interface RecentChunk {
  readonly file: DownloadFile;
  readonly index: number;
  readonly generation: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

function isChunk(chunk: RecentChunk, file: DownloadFile, index: number): boolean {
  return chunk.file === file && chunk.index === index && chunk.generation === file.generation;
}

interface Job {
  readonly file: DownloadFile;
  readonly index: number;
  readonly bytes: Promise<Uint8Array<ArrayBuffer>>;
  start(): Promise<void>;
}

/** The downloads of one open model. */
export class Downloads {
  private readonly files = new Map<string, DownloadFile>();
  private readonly jobs = new Map<string, Job>();
  /** Chunks that a reader waits for. */
  private urgent: Job[] = [];
  /** Files to read ahead, in order. */
  private ahead: DownloadFile[] = [];
  private aheadFailed = false;
  private active = 0;
  /** Passes under way. One goes on, and stores, also while nobody waits for a chunk of it. */
  private readonly passes = new Set<Promise<void>>();
  /** Whether a server has answered a range with a range; before that, one request at a time finds it out. */
  private ranges = false;
  /** The last chunks read, so that small reads next to each other cost one. The newest is last. */
  private recent: RecentChunk[] = [];
  private lastRead: { file: DownloadFile; index: number } | undefined;
  private lock: Promise<HeldLock> | undefined;
  /** Ends when the lock that was held last is free. */
  private resting: Promise<void> = Promise.resolve();
  private readonly received: { at: number; bytes: number }[] = [];
  private lastReport = 0;

  constructor(
    private readonly http: Http,
    private readonly folder: ModelFolder | undefined,
    private readonly signal: AbortSignal,
    private readonly events: {
      waiting(): void;
      progress(progress: DownloadProgress): void;
      /** Before the first byte is stored. */
      storing(): Promise<void>;
    },
  ) {
    signal.addEventListener("abort", () => this.pump(), { once: true });
  }

  add(file: DownloadFile): DownloadFile {
    this.files.set(file.name, file);
    return file;
  }

  /** A file whose size the server tells only by sending it: it is kept for this load and not stored. */
  async receiveUnsized(name: string, remote: RemoteFile): Promise<DownloadFile> {
    const { url } = remote;
    const chunks = await retry(this.http.timing, this.signal, async () => {
      const reply = await this.http.get(url, 0, undefined, this.signal);
      const blobs: Blob[] = [];
      let pieces: Uint8Array<ArrayBuffer>[] = [];
      let held = 0;
      for await (const piece of reply.pieces()) {
        pieces.push(piece);
        held += piece.length;
        if (held >= CHUNK) {
          blobs.push(new Blob(pieces));
          pieces = [];
          held = 0;
        }
      }
      return new Blob([...blobs, ...pieces]);
    });
    const file = new DownloadFile(name, { ...remote, size: chunks.size }, undefined);
    for (let index = 0; index < chunkCount(file.size); index++) {
      file.blobs.set(index, chunks.slice(index * CHUNK, index * CHUNK + chunkSize(file.size, index)));
      file.done.add(index);
    }
    return this.add(file);
  }

  /** Reads ahead, in this order, after what was asked for before. */
  prefetch(files: readonly DownloadFile[]): void {
    this.ahead.push(...files);
    this.aheadFailed = false;
    this.pump();
  }

  /** Bytes of a file, from any number of chunks. */
  async read(file: DownloadFile, start: number, end: number): Promise<Uint8Array> {
    for (;;) {
      const { generation } = file;
      const result = await readByChunks(start, end, (index) => this.chunk(file, index));
      // Begun again in between, its chunks may be of two versions.
      if (generation === file.generation) {
        file.handedOut = true;
        return result;
      }
    }
  }

  private async chunk(file: DownloadFile, index: number): Promise<Uint8Array<ArrayBuffer>> {
    if (this.signal.aborted) {
      throw aborted();
    }
    this.lastRead = { file, index };
    const kept = this.recent.find((chunk) => isChunk(chunk, file, index));
    const bytes = kept?.bytes ?? (await this.here(file, index)) ?? (await this.ask(file, index, true));
    this.keep(file, index, bytes);
    this.pump();
    return bytes;
  }

  private keep(file: DownloadFile, index: number, bytes: Uint8Array<ArrayBuffer>): void {
    const { generation } = file;
    // Of what can be had again without network the last chunk is enough; of what cannot, those in front of the reader,
    // with the one that it is at.
    const count = file.storing || file.blobs.size > 0 ? 1 : IN_FLIGHT + 1;
    const passed = (chunk: RecentChunk) =>
      isChunk(chunk, file, index) || (chunk.file === this.lastRead?.file && chunk.index < this.lastRead.index);
    this.recent = [...this.recent.filter((chunk) => !passed(chunk)), { file, index, generation, bytes }].slice(-count);
  }

  /** A chunk that needs no network. A damaged one does. */
  private async here(file: DownloadFile, index: number): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const blob = file.blobs.get(index);
    if (blob) {
      return new Uint8Array(await blob.arrayBuffer());
    }
    const had = file.stored?.has(index);
    const bytes = await file.stored?.read(index);
    if (had && !bytes) {
      file.done.delete(index);
    }
    return bytes;
  }

  /** Gets a chunk from the server; the request that is under way for it, if there is one. */
  private ask(file: DownloadFile, index: number, urgent: boolean): Promise<Uint8Array<ArrayBuffer>> {
    const key = `${index}:${file.name}`;
    let job = this.jobs.get(key);
    if (!job) {
      let start: () => Promise<void> = () => Promise.resolve();
      const bytes = new Promise<Uint8Array<ArrayBuffer>>((resolve, reject) => {
        start = () => this.fetch(file, index).then(resolve, reject);
      });
      bytes.catch(() => undefined);
      job = { file, index, bytes, start };
      this.jobs.set(key, job);
      if (urgent) {
        this.urgent.push(job);
        this.pump();
      } else {
        this.run(job, false);
      }
    }
    return job.bytes;
  }

  /** Starts what there is room for. */
  private pump(): void {
    if (this.signal.aborted) {
      // They end at once, with `aborted`.
      this.urgent.splice(0).forEach((job) => this.run(job, true));
    }
    while (!this.signal.aborted && this.active < (this.ranges ? IN_FLIGHT : 1)) {
      const job = this.urgent.shift();
      if (job) {
        this.run(job, true);
        continue;
      }
      const next = this.nextAhead();
      if (!next) {
        break;
      }
      void this.ask(next.file, next.index, false);
    }
    if (this.active === 0 && this.passes.size === 0) {
      this.rest();
    }
  }

  private run(job: Job, urgent: boolean): void {
    this.active++;
    void job
      .start()
      .then(() => job.bytes)
      .then(
        (bytes) => {
          if (urgent) {
            this.aheadFailed = false;
          } else if (!job.file.storing && job.file.blobs.size === 0) {
            this.keep(job.file, job.index, bytes);
          }
        },
        () => {
          // Whoever reads it is told; reading ahead waits until a read succeeds.
          if (!urgent) {
            this.aheadFailed = true;
          }
        },
      )
      .finally(() => {
        this.active--;
        this.jobs.delete(`${job.index}:${job.file.name}`);
        this.pump();
      });
  }

  /** The next chunk to read ahead. */
  private nextAhead(): { file: DownloadFile; index: number } | undefined {
    if (this.aheadFailed) {
      return undefined;
    }
    const missing = (file: DownloadFile, index: number) =>
      !file.isHere(index) &&
      !this.jobs.has(`${index}:${file.name}`) &&
      !this.recent.some((chunk) => isChunk(chunk, file, index));
    for (const file of this.ahead) {
      if (file.storing) {
        for (let index = 0; index < chunkCount(file.size); index++) {
          if (missing(file, index)) {
            return { file, index };
          }
        }
      }
    }
    // What is not stored is read only a little ahead, or it would fill the memory.
    const { lastRead } = this;
    if (lastRead && !lastRead.file.storing && this.ahead.includes(lastRead.file)) {
      const { file } = lastRead;
      const last = Math.min(lastRead.index + IN_FLIGHT, chunkCount(file.size));
      for (let index = lastRead.index + 1; index < last; index++) {
        if (missing(file, index)) {
          return { file, index };
        }
      }
    }
    return undefined;
  }

  /** Nothing is under way: other tabs may have the files and the lock. */
  private rest(): void {
    const { lock } = this;
    if (lock) {
      this.lock = undefined;
      this.resting = this.giveBack(lock);
    }
  }

  private async giveBack(lock: Promise<HeldLock>): Promise<void> {
    for (const file of this.files.values()) {
      await file.stored?.endWriting();
    }
    await lock.then(
      (held) => held.release(),
      () => undefined,
    );
  }

  /** The right to download. What another tab stored in the meantime counts. */
  private async takeLock(folder: ModelFolder): Promise<HeldLock> {
    await this.resting;
    try {
      const { lock, waited } = await folder.takeDownload(this.signal, () => this.events.waiting());
      if (waited) {
        for (const file of this.files.values()) {
          await file.stored?.reload();
          file.countStored();
        }
        // The waiting is over, whether or not something is left to download.
        this.lastReport = 0;
        this.report(0);
      }
      return lock;
    } catch (error) {
      throw this.signal.aborted ? aborted() : error;
    }
  }

  /** Brings one chunk from the server, and stores it. */
  private async fetch(file: DownloadFile, index: number): Promise<Uint8Array<ArrayBuffer>> {
    for (;;) {
      if (this.signal.aborted) {
        throw aborted();
      }
      const { generation } = file;
      if (file.storing && this.folder) {
        this.lock ??= this.takeLock(this.folder);
        await this.lock;
        const stored = await this.here(file, index);
        if (stored) {
          return stored;
        }
      }
      let bytes: Uint8Array<ArrayBuffer>;
      try {
        bytes = await this.receive(file, index);
      } catch (error) {
        file.partial.delete(index);
        if (error instanceof Changed) {
          await this.restart(file, generation, error.reply);
          continue;
        }
        if (generation !== file.generation && !this.signal.aborted) {
          continue;
        }
        throw error;
      }
      if (generation !== file.generation) {
        continue;
      }
      await this.store(file, index, bytes);
      file.partial.delete(index);
      file.done.add(index);
      this.report(0);
      return bytes;
    }
  }

  private async receive(file: DownloadFile, index: number): Promise<Uint8Array<ArrayBuffer>> {
    if (file.pass) {
      return this.fromPass(file, index);
    }
    const start = index * CHUNK;
    const bytes = new Uint8Array(chunkSize(file.size, index));
    const signal = AbortSignal.any([this.signal, file.attempt.signal]);
    const { url } = file.remote;
    let at = 0;
    const whole = await retry(
      this.http.timing,
      signal,
      async (progressed) => {
        const reply = await this.http.get(url, start + at, start + bytes.length, signal);
        if (file.pass) {
          reply.cancel();
          return true;
        }
        check(file, reply);
        if (!reply.partial && (at > 0 || file.size > bytes.length)) {
          this.beginPass(file, reply);
          return true;
        }
        this.ranges ||= reply.partial;
        for await (const piece of reply.pieces()) {
          if (piece.length > bytes.length - at) {
            throw new Failure(url, "more bytes came than were asked for", null);
          }
          bytes.set(piece, at);
          at += piece.length;
          progressed();
          file.partial.set(index, at);
          this.report(piece.length);
        }
        if (at < bytes.length) {
          throw new Failure(url, "the connection was dropped", null);
        }
        return false;
      },
      () => file.loaded(),
    );
    return whole ? this.fromPass(file, index) : bytes;
  }

  /** The chunk of a pass, when it comes by or from where it was put. */
  private async fromPass(file: DownloadFile, index: number): Promise<Uint8Array<ArrayBuffer>> {
    // First of all, as it may come by while storage is looked into.
    const coming = new Promise<Uint8Array<ArrayBuffer>>((resolve) => file.awaited.set(index, resolve));
    const here = await this.here(file, index);
    if (here) {
      file.awaited.delete(index);
      return here;
    }
    const pass = file.pass ?? this.beginPass(file, undefined);
    const bytes = await Promise.race([coming, pass.then(() => undefined)]);
    if (bytes) {
      return bytes;
    }
    // It came by before it was asked for and is damaged since: another pass has to bring it.
    if (file.pass === pass) {
      file.pass = undefined;
    }
    return this.fromPass(file, index);
  }

  /** Receives a whole file in order, from `reply` if there is one already. */
  private beginPass(file: DownloadFile, reply: Reply | undefined): Promise<void> {
    const pass = this.receiveWhole(file, reply);
    file.pass = pass;
    this.passes.add(pass);
    pass
      .catch(() => {
        // The next read tries again.
        if (file.pass === pass) {
          file.pass = undefined;
          file.partial.clear();
        }
      })
      .finally(() => {
        this.passes.delete(pass);
        this.pump();
      });
    return pass;
  }

  private async receiveWhole(file: DownloadFile, first: Reply | undefined): Promise<void> {
    const signal = AbortSignal.any([this.signal, file.attempt.signal]);
    const { url } = file.remote;
    const { generation } = file;
    let furthest = 0;
    await retry(
      this.http.timing,
      signal,
      async (progressed) => {
        const reply = first ?? (await this.http.get(url, 0, undefined, signal));
        first = undefined;
        check(file, reply);
        let index = 0;
        let filled = 0;
        let chunk = new Uint8Array(chunkSize(file.size, 0));
        for await (const piece of reply.pieces()) {
          for (let at = 0; at < piece.length;) {
            if (index * CHUNK + filled >= file.size) {
              throw new Failure(url, "more bytes came than the file has", null);
            }
            const part = piece.subarray(at, at + chunk.length - filled);
            chunk.set(part, filled);
            at += part.length;
            filled += part.length;
            if (filled === chunk.length) {
              await this.takeFromPass(file, index, chunk, generation);
              index++;
              filled = 0;
              chunk = new Uint8Array(Math.max(chunkSize(file.size, index), 0));
            }
          }
          const reached = index * CHUNK + filled;
          if (reached > furthest) {
            furthest = reached;
            progressed();
          }
          if (!file.done.has(index)) {
            file.partial.set(index, filled);
          }
          this.report(piece.length);
        }
        if (index * CHUNK + filled < file.size) {
          file.partial.delete(index);
          throw new Failure(url, "the connection was dropped", null);
        }
      },
      () => furthest,
    );
  }

  private async takeFromPass(
    file: DownloadFile,
    index: number,
    bytes: Uint8Array<ArrayBuffer>,
    generation: number,
  ): Promise<void> {
    if (generation !== file.generation) {
      throw aborted();
    }
    if (!file.isHere(index)) {
      await this.store(file, index, bytes);
      if (!file.storing) {
        file.blobs.set(index, new Blob([bytes]));
      }
    }
    file.partial.delete(index);
    file.done.add(index);
    file.awaited.get(index)?.(bytes);
    file.awaited.delete(index);
  }

  /** Stores a chunk, unless there is no room: then this file goes on without. */
  private async store(file: DownloadFile, index: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const { stored, generation } = file;
    if (!file.storing || !stored || stored.has(index)) {
      return;
    }
    try {
      if (!stored.isWriting && !(await hasRoom(stored.missingBytes()))) {
        file.storing = false;
        return;
      }
      await this.events.storing();
      await stored.beginWriting();
      if (file.generation === generation) {
        await stored.write(index, bytes);
      } else {
        await stored.endWriting();
      }
    } catch (error) {
      if (!(error instanceof DOMException)) {
        throw error;
      }
      // Full, or taken away by the user's settings: the load does not need it.
      if (file.generation === generation) {
        file.storing = false;
      }
    }
  }

  /** Begins a file again in the version that the server has now, if nobody has seen the old one. */
  private async restart(file: DownloadFile, generation: number, reply: Reply): Promise<void> {
    if (file.generation !== generation) {
      return;
    }
    const { url } = file.remote;
    file.generation++;
    file.attempt.abort();
    file.attempt = new AbortController();
    file.pass = undefined;
    file.blobs.clear();
    file.done.clear();
    file.partial.clear();
    await file.stored?.endWriting();
    if (file.handedOut || (reply.size ?? file.size) !== file.size || file.generation > RESTARTS) {
      throw new ZebraError(
        "integrity",
        `${url}: the file changed on the server while it was being loaded. Load the model again to get the new one.`,
        { url, file: file.name, changed: true },
      );
    }
    const version = versionOf(reply.validators);
    file.remote = { ...file.remote, version, validators: reply.validators };
    if (file.stored && this.folder) {
      file.stored = await this.folder.file({ name: file.name, size: file.size, version });
    }
  }

  private report(bytes: number): void {
    const now = performance.now();
    if (bytes > 0) {
      this.received.push({ at: now, bytes });
    }
    let loaded = 0;
    let total = 0;
    for (const file of this.files.values()) {
      loaded += file.loaded();
      total += file.size;
    }
    if (loaded < total && now - this.lastReport < REPORT_EVERY) {
      return;
    }
    this.lastReport = now;
    while (this.received[0] && this.received[0].at < now - RATE_WINDOW) {
      this.received.shift();
    }
    const sum = this.received.reduce((all, { bytes: some }) => all + some, 0);
    const since = Math.max(now - (this.received[0]?.at ?? now), REPORT_EVERY);
    this.events.progress({ loaded, total, bytesPerSecond: Math.round((1000 * sum) / since) });
  }

  /** Call it after the signal was aborted: waits for what is under way and gives everything back. */
  async close(): Promise<void> {
    this.pump();
    await Promise.allSettled(Array.from(this.jobs.values(), (job) => job.bytes));
    await Promise.allSettled(this.passes);
    this.recent = [];
    this.rest();
    await this.resting;
  }
}

/** Refuses an answer that is of another version. */
function check(file: DownloadFile, reply: Reply): void {
  const { size, validators } = file.remote;
  const otherSize = reply.size !== undefined && reply.size !== size;
  if (otherSize || (validators && differ(validators, reply.validators))) {
    reply.cancel();
    throw new Changed(reply);
  }
}

/** Whether the browser would let this page store so many bytes more. Writing finds out for sure. */
async function hasRoom(bytes: number): Promise<boolean> {
  const { quota, usage } = await navigator.storage.estimate();
  return quota === undefined || usage === undefined || bytes <= quota - usage;
}
