// Where the files of a model are on the network, and which version of them: a folder of any static host, or a hub.
// What is asked for is looked up once; nothing is downloaded here but a hub's file list.

import { ZebraError } from "../../errors.js";
import { type Head, type Http, type Timing, type Validators, versionOf } from "./http.js";
import type { Versions } from "./store.js";
import { fileUrl, type HubPlace, type UrlPlace } from "./name.js";

export const SINGLE = "model.safetensors";
export const INDEX = "model.safetensors.index.json";

/** The files beside the weights that a checkpoint may have. A static host has no listing, so their names are given. */
export const SMALL_FILES = [
  "config.json",
  "hybrid_config.json",
  "MLA_config.json",
  "mla_layer_config.json",
  "mamba_config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
];

/** A file on a server. */
export interface RemoteFile {
  readonly url: string;
  /** `undefined` when the server does not say before it has sent all of it. */
  readonly size: number | undefined;
  /** Differs when the bytes differ, as far as the server says. */
  readonly version: string;
  /** What no answer's headers may contradict; `undefined` for an address whose bytes never change. */
  readonly validators: Validators | undefined;
}

/** The files of a model on a server. */
export interface Source {
  /** How messages name it. */
  describe(): string;
  /** Asks the server whether it is there. Throws when there is no such model, and when the server cannot be read. */
  connect(timing: Timing): Promise<void>;
  /** Without a network: answers are those of an earlier load. */
  assume(files: Versions, listing: HubListing | undefined): void;
  find(name: string): Promise<RemoteFile | undefined>;
  /** All names at its top; `undefined` when the server has no listing. */
  list(): string[] | undefined;
  /** The hub's listing, to be kept for a load without network. */
  listing(): HubListing | undefined;
}

/** A commit of a hub's model and its files. */
export interface HubListing {
  readonly commit: string;
  readonly files: Readonly<Record<string, { readonly size?: number; readonly version?: string }>>;
}

/** A memory of answers; failed ones are forgotten. */
class Memo<T> {
  private readonly known = new Map<string, Promise<T>>();

  get(name: string, ask: () => Promise<T>): Promise<T> {
    let answer = this.known.get(name);
    if (!answer) {
      answer = ask();
      answer.catch(() => this.known.delete(name));
      this.known.set(name, answer);
    }
    return answer;
  }
}

function remoteFile(url: string, head: Head): RemoteFile {
  return { url, size: head.size, version: versionOf(head.validators), validators: head.validators };
}

/** What a file's name says that it is. */
function kindOf(name: string): string {
  return name.endsWith(".json") ? "JSON" : name.endsWith(".safetensors") ? "safetensors" : "a file of a model";
}

/** A folder of a static host. */
export class UrlSource implements Source {
  private readonly found = new Memo<RemoteFile | undefined>();
  /** Names that the server answers with a page. */
  private readonly pages = new Set<string>();
  private assumed: Versions | undefined;

  constructor(
    private readonly place: UrlPlace,
    private readonly http: Http,
    private readonly signal: AbortSignal,
  ) {}

  describe(): string {
    return this.place.folder.href;
  }

  async connect(timing: Timing): Promise<void> {
    const name = "config.json";
    const file = await this.found.get(name, () => this.ask(name, timing));
    if (file) {
      return;
    }
    const url = fileUrl(this.place.folder, name);
    if (this.pages.has(name)) {
      throw this.page(name);
    }
    throw new ZebraError(
      "not-found",
      `${url}: not found (404). Expected the address of a model's folder: config.json, tokenizer.json ` +
        `and ${SINGLE} or ${INDEX} are looked for in it`,
      { url, status: 404, file: name },
    );
  }

  assume(files: Versions): void {
    this.assumed = files;
  }

  async find(name: string): Promise<RemoteFile | undefined> {
    if (this.assumed) {
      const kept = Object.hasOwn(this.assumed, name) ? this.assumed[name] : undefined;
      const url = fileUrl(this.place.folder, name);
      if (!kept) {
        return undefined;
      }
      // Which of the two the version was is not known; if the server is back, it has to be the one that it shows.
      const version = kept.version || undefined;
      return { url, size: kept.size, version: kept.version, validators: { etag: version, modified: version } };
    }
    const file = await this.found.get(name, async () => {
      try {
        return await this.ask(name, this.http.timing);
      } catch (error) {
        // Object stores answer 403 for what is not there to those who may not list it; config.json could be read.
        if (error instanceof ZebraError && error.details.status === 403) {
          return undefined;
        }
        throw error;
      }
    });
    if (!file && name === INDEX && this.pages.has(INDEX) && this.pages.has(SINGLE)) {
      throw this.page(SINGLE);
    }
    return file;
  }

  list(): undefined {
    return undefined;
  }

  listing(): undefined {
    return undefined;
  }

  private async ask(name: string, timing: Timing): Promise<RemoteFile | undefined> {
    const url = fileUrl(this.place.folder, name);
    const head = await this.http.head(url, this.signal, timing);
    if (head?.html) {
      // Hosts of single-page applications send their page for whatever is not there.
      this.pages.add(name);
      return undefined;
    }
    return head && remoteFile(url, head);
  }

  private page(name: string): ZebraError {
    const url = fileUrl(this.place.folder, name);
    return new ZebraError(
      "not-found",
      `${url}: expected ${kindOf(name)}, found HTML. The server sends a page for what it does not have: is this the ` +
        "address of the model's folder?",
      { url, file: name },
    );
  }
}

interface HubAnswer {
  sha: string;
  siblings: { rfilename: string; size?: number; blobId?: string; lfs?: { sha256?: string; size?: number } }[];
}

function isHubAnswer(value: unknown): value is HubAnswer {
  const isFile = (file: unknown) =>
    typeof file === "object" && file !== null && "rfilename" in file && typeof file.rfilename === "string";
  return (
    typeof value === "object" &&
    value !== null &&
    "sha" in value &&
    typeof value.sha === "string" &&
    "siblings" in value &&
    Array.isArray(value.siblings) &&
    value.siblings.every(isFile)
  );
}

/** A model of a hub, at the commit that its revision names now. */
export class HubSource implements Source {
  private readonly found = new Memo<RemoteFile | undefined>();
  private known: HubListing | undefined;

  /** `kept` is the listing of an earlier load: it still holds when the revision is a commit. */
  constructor(
    private readonly place: HubPlace,
    private readonly http: Http,
    private readonly signal: AbortSignal,
    kept: HubListing | undefined,
  ) {
    if (kept?.commit === place.revision) {
      this.known = kept;
    }
  }

  describe(): string {
    return this.place.name;
  }

  async connect(timing: Timing): Promise<void> {
    if (this.known) {
      return;
    }
    const { endpoint, repository, revision, name } = this.place;
    const url = `${endpoint}/api/models/${repository}/revision/${encodeURIComponent(revision)}?blobs=true`;
    const answer = await this.http.json(url, this.signal, timing);
    if (answer === undefined) {
      throw new ZebraError(
        "not-found",
        `${name}: ${endpoint} has no model "${repository}" with the revision "${revision}" (404)`,
        { url, status: 404 },
      );
    }
    if (!isHubAnswer(answer)) {
      const message = `${url}: expected a hub's list of files ("sha", "siblings"), found other JSON`;
      throw new ZebraError("network", message, { url });
    }
    const files: Record<string, { size?: number; version?: string }> = {};
    for (const { rfilename, size, blobId, lfs } of answer.siblings) {
      if (!rfilename.includes("/")) {
        const bytes = lfs?.size ?? size;
        const version = lfs?.sha256 ?? blobId;
        files[rfilename] = {
          ...(bytes === undefined ? {} : { size: bytes }),
          ...(version === undefined ? {} : { version }),
        };
      }
    }
    this.known = { commit: answer.sha, files };
  }

  assume(_files: Versions, listing: HubListing | undefined): void {
    this.known = listing;
  }

  async find(name: string): Promise<RemoteFile | undefined> {
    return this.found.get(name, async () => {
      const listing = this.known;
      const entry = listing && Object.hasOwn(listing.files, name) ? listing.files[name] : undefined;
      if (!listing || !entry) {
        return undefined;
      }
      const { endpoint, repository } = this.place;
      const url = `${endpoint}/${repository}/resolve/${listing.commit}/${encodeURIComponent(name)}`;
      // A commit's files never change, so their versions need no asking.
      const version = entry.version ?? listing.commit;
      const size = entry.size ?? (await this.http.head(url, this.signal))?.size;
      return { url, size, version, validators: undefined };
    });
  }

  list(): string[] {
    return Object.keys(this.known?.files ?? {});
  }

  listing(): HubListing | undefined {
    return this.known;
  }
}
