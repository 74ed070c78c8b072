// What a source is called: how its string is read, the name it is stored under, and the folder's name for that.
// Nothing here asks the network or the storage.

import { ZebraError } from "../../errors.js";

/** Hugging Face's address, the hub when no other is named. */
export const DEFAULT_ENDPOINT = "https://huggingface.co";

/** A model on a web server: the address of its folder. */
export interface UrlPlace {
  readonly kind: "url";
  /** Its path ends with a slash; a query is put behind each file's name. */
  readonly folder: URL;
  /** The name in storage. */
  readonly name: string;
}

/** A model of a hub with Hugging Face's API. */
export interface HubPlace {
  readonly kind: "hub";
  /** Without a slash at the end. */
  readonly endpoint: string;
  /** `owner/name`. */
  readonly repository: string;
  readonly revision: string;
  /** The name in storage. */
  readonly name: string;
}

const HUB_NAME = /^([\w.-]+\/[\w.-]+)(?:@([\w./-]+))?$/;

/** `owner/name` and `owner/name@revision`; the address of a folder looks otherwise, or begins with `./`. */
export function isHubName(source: string): boolean {
  return HUB_NAME.test(source) && !/^\.{0,2}\//.test(source);
}

/**
 * Reads a source: `owner/name` and `owner/name@revision` are hub names, all else is the address of a folder, relative
 * to `base`. A relative address begins with `/`, `./` or `../`, so that `models/tiny` is a hub name and `./models/tiny`
 * a folder.
 */
export function readPlace(
  source: string,
  options: { readonly base: string; readonly revision?: string | undefined; readonly endpoint?: string | undefined },
): UrlPlace | HubPlace {
  const hub = isHubName(source) ? HUB_NAME.exec(source) : null;
  if (hub?.[1]) {
    const repository = hub[1];
    if (hub[2] && options.revision && hub[2] !== options.revision) {
      throw new ZebraError("bad-request", `"${source}" names one revision and the option "revision" another one`, {
        source,
        revision: options.revision,
      });
    }
    const revision = hub[2] ?? options.revision ?? "main";
    const endpoint = (options.endpoint ?? DEFAULT_ENDPOINT).replace(/\/+$/, "");
    // The path of a folder's address ends with a slash and this does not, so the names of the two kinds differ.
    const prefix = endpoint === DEFAULT_ENDPOINT ? "" : `${endpoint}/`;
    return { kind: "hub", endpoint, repository, revision, name: `${prefix}${repository}@${revision}` };
  }
  let folder: URL;
  try {
    folder = new URL(source, options.base);
  } catch {
    throw new ZebraError(
      "bad-request",
      `"${source}" is no model source: expected the URL of a folder, a hub name (owner/name or owner/name@revision) ` +
        "or a list of File objects",
      { source },
    );
  }
  if (folder.protocol !== "http:" && folder.protocol !== "https:") {
    throw new ZebraError("bad-request", `"${source}": expected an http or https address, found ${folder.protocol}`, {
      source,
    });
  }
  folder.hash = "";
  if (!folder.pathname.endsWith("/")) {
    folder.pathname += "/";
  }
  return { kind: "url", folder, name: folder.href };
}

/** The address of a file of a folder. */
export function fileUrl(folder: URL, name: string): string {
  const url = new URL(folder);
  url.pathname += encodeURIComponent(name);
  return url.href;
}

/** What models.list calls the quantized form of a stored model. No other name has a "#". */
export function variantName(name: string, variant: string): string {
  return `${name}#${variant}`;
}

/**
 * The name of a folder or file in storage for any text: its SHA-256 in hex. Different texts get different names, and
 * none has a character or a length that some browser's storage refuses.
 */
export async function storageName(text: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
