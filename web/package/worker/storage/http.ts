// Requests to model servers: ranges, retries with growing pauses, and errors that say what to do. It knows nothing of
// models or storage.
//
// Only `Range` is ever added to the caller's headers. A simple Range needs no CORS preflight, where If-Match and
// If-Range would: so versions are compared after the answer's headers are here, before its body is read.

import { ZebraError } from "../../errors.js";

/** When a transfer is given up. */
export interface Timing {
  /** Failures in a row, without a new byte between them. */
  readonly attempts: number;
  /** Milliseconds before the second attempt; they double with each further one, up to 8 seconds. */
  readonly firstDelay: number;
  /** Milliseconds that a connection may be silent. */
  readonly silence: number;
}

export const TIMING: Timing = { attempts: 6, firstDelay: 500, silence: 30_000 };
const LONGEST_DELAY = 8_000;
const LONGEST_RETRY_AFTER = 30_000;

/** What tells versions of a file apart, as far as the server shows it. */
export interface Validators {
  readonly etag: string | undefined;
  readonly modified: string | undefined;
}

/** Whether two answers are known to be of different versions. Only like is compared with like. */
export function differ(a: Validators, b: Validators): boolean {
  if (a.etag !== undefined && b.etag !== undefined) {
    return a.etag !== b.etag;
  }
  return a.modified !== undefined && b.modified !== undefined && a.modified !== b.modified;
}

/** One text for a version, to be kept; empty when the server shows none. */
export function versionOf({ etag, modified }: Validators): string {
  return etag ?? modified ?? "";
}

/** What a server says of a file without sending it. */
export interface Head {
  /** `undefined` when the server does not say. */
  readonly size: number | undefined;
  readonly validators: Validators;
  readonly html: boolean;
}

/** An answer with a body that is still to be read. */
export interface Reply extends Head {
  /** Where in the file the body starts: 0 when the server ignores ranges. */
  readonly start: number;
  /** Whether it is the range that was asked for (206), and not the whole file. */
  readonly partial: boolean;
  /** The body, piece by piece. Throws a {@link Failure} when the connection ends early or falls silent. */
  pieces(): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined>;
  /** Gives the connection up. */
  cancel(): void;
}

/** Something that may go away by itself: a dropped connection, an overloaded server. */
export class Failure extends Error {
  constructor(
    readonly url: string,
    message: string,
    readonly status: number | null,
    readonly retryAfter: number | undefined = undefined,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

export function aborted(): ZebraError {
  return new ZebraError("aborted", "the load was stopped");
}

/** Waits, or throws `aborted`. */
function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(aborted());
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}

/**
 * Runs `attempt` until it succeeds. A {@link Failure} is tried again, up to `timing.attempts` in a row; `progressed`
 * begins the row anew. Everything else ends it.
 */
export async function retry<T>(
  timing: Timing,
  signal: AbortSignal,
  attempt: (progressed: () => void) => Promise<T>,
  bytesDone: () => number = () => 0,
): Promise<T> {
  let failures = 0;
  for (;;) {
    if (signal.aborted) {
      throw aborted();
    }
    try {
      return await attempt(() => {
        failures = 0;
      });
    } catch (error) {
      if (signal.aborted) {
        throw aborted();
      }
      if (!(error instanceof Failure)) {
        throw error;
      }
      failures++;
      if (failures >= timing.attempts) {
        throw giveUp(error, failures, bytesDone());
      }
      const delay = Math.min(timing.firstDelay * 2 ** (failures - 1), LONGEST_DELAY);
      await pause(Math.max(delay, error.retryAfter ?? 0), signal);
    }
  }
}

function giveUp(failure: Failure, failures: number, bytes: number): ZebraError {
  const { url, status } = failure;
  const times = failures === 1 ? "" : `, ${failures} times in a row`;
  const done = `${bytes} bytes were here`;
  const advice =
    status === null
      ? "Either this device is offline, or the server does not let other pages read it (CORS). Open the address in a " +
        "tab of its own: if it opens there, it is CORS, and the server has to send Access-Control-Allow-Origin" +
        mixedContent(url)
      : "The server has a problem of its own: try again later";
  return new ZebraError(
    "network",
    `${url}: ${failure.message}${times}; ${done}. ${advice}. What is in storage is kept, and the next load goes on ` +
      "from there.",
    { url, status, bytes },
    { cause: failure },
  );
}

function mixedContent(url: string): string {
  return self.origin.startsWith("https:") && url.startsWith("http:")
    ? ". A page that came by https cannot read an http address either"
    : "";
}

/** Talks to one model's server. */
export class Http {
  /** Origins that have let this page read something: a failure there is no matter of CORS. */
  private readonly readable = new Set<string>();

  constructor(
    private readonly headers: Readonly<Record<string, string>>,
    readonly timing: Timing,
  ) {}

  /** Size and version of a file; `undefined` when there is none. */
  async head(url: string, signal: AbortSignal, timing = this.timing): Promise<Head | undefined> {
    return retry(timing, signal, async () => {
      // With an open range the answer is not compressed, and its length is the file's for a server that honours
      // ranges in HEAD (206) as for one that does not (200).
      const answer = await this.send(url, "HEAD", "bytes=0-", signal);
      if (answer.status === 404 || answer.status === 410) {
        return undefined;
      }
      const refused = answer.status === 405 || answer.status === 501;
      if (answer.ok || answer.status === 416) {
        const head = read(answer, 0, true);
        if (head.size !== undefined) {
          return head;
        }
      } else if (!refused) {
        throw this.failed(url, answer);
      }
      const first = await this.open(url, 0, 1, signal);
      first?.cancel();
      return first;
    });
  }

  /** A small JSON document; `undefined` when there is none. */
  async json(url: string, signal: AbortSignal, timing = this.timing): Promise<unknown> {
    return retry(timing, signal, async () => {
      const answer = await this.send(url, "GET", undefined, signal);
      if (answer.status === 404) {
        return undefined;
      }
      if (!answer.ok) {
        throw this.failed(url, answer);
      }
      let text: string;
      try {
        text = await answer.text();
      } catch (cause) {
        throw new Failure(url, "the connection was dropped", null, undefined, { cause });
      }
      try {
        return JSON.parse(text) as unknown;
      } catch {
        const found = text.slice(0, 40);
        throw new ZebraError("network", `${url}: expected JSON, found ${found}…: is this a hub's address?`, {
          url,
          status: answer.status,
        });
      }
    });
  }

  /** One attempt to get bytes from `start` to `end` (to the file's end when `undefined`, in one whole answer). */
  async get(url: string, start: number, end: number | undefined, signal: AbortSignal): Promise<Reply> {
    const reply = await this.open(url, start, end, signal);
    if (!reply) {
      throw new ZebraError("not-found", `${url}: the file was there and is not any more (404). Load the model again.`, {
        url,
        status: 404,
      });
    }
    return reply;
  }

  private async open(
    url: string,
    start: number,
    end: number | undefined,
    signal: AbortSignal,
  ): Promise<Reply | undefined> {
    const connection = new AbortController();
    const range = end === undefined ? undefined : `bytes=${start}-${end - 1}`;
    const answer = await this.send(url, "GET", range, AbortSignal.any([signal, connection.signal]));
    if (answer.status === 404 || answer.status === 410) {
      connection.abort();
      return undefined;
    }
    if (!answer.ok && answer.status !== 416) {
      throw this.failed(url, answer);
    }
    const { silence } = this.timing;
    async function* pieces(): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
      const reader = answer.body?.getReader();
      let timer: ReturnType<typeof setTimeout> | undefined;
      try {
        for (;;) {
          timer = setTimeout(() => connection.abort(), silence);
          const step = await reader?.read();
          clearTimeout(timer);
          if (!step || step.done) {
            return;
          }
          yield step.value;
        }
      } catch (cause) {
        const what = connection.signal.aborted ? `no byte came for ${silence / 1000} s` : "the connection was dropped";
        throw new Failure(url, what, null, undefined, { cause });
      } finally {
        clearTimeout(timer);
        connection.abort();
      }
    }
    const head = read(answer, start, false);
    const partial = answer.status === 206;
    return { ...head, partial, start: partial ? start : 0, pieces, cancel: () => connection.abort() };
  }

  private async send(url: string, method: string, range: string | undefined, signal: AbortSignal): Promise<Response> {
    const headers = range === undefined ? this.headers : { ...this.headers, range };
    const silent = new AbortController();
    const timer = setTimeout(() => silent.abort(), this.timing.silence);
    const { origin } = new URL(url);
    try {
      // The browser's HTTP cache would keep a second copy of gigabytes.
      const either = AbortSignal.any([signal, silent.signal]);
      const answer = await fetch(url, { method, headers, signal: either, cache: "no-store" });
      this.readable.add(origin);
      return answer;
    } catch (cause) {
      if (signal.aborted) {
        throw aborted();
      }
      if (silent.signal.aborted) {
        throw new Failure(url, `no answer came for ${this.timing.silence / 1000} s`, null, undefined, { cause });
      }
      if (origin !== self.origin && !this.readable.has(origin) && (await answersBlindly(url, signal))) {
        throw new ZebraError(
          "network",
          `${url}: the server answers, but does not let pages of ${self.origin} read it (CORS). It has to send ` +
            `"Access-Control-Allow-Origin: *" (or this origin)${this.headerAdvice()}. If the device just was ` +
            "offline, try again: opened in a tab of its own, the address works in both cases.",
          { url, status: null, bytes: 0 },
          { cause },
        );
      }
      throw new Failure(url, "no answer", null, undefined, { cause });
    } finally {
      clearTimeout(timer);
    }
  }

  private headerAdvice(): string {
    const names = Object.keys(this.headers);
    return names.length === 0 ? "" : ` and "Access-Control-Allow-Headers: ${names.join(", ")}, range"`;
  }

  /** What an answer with an error status means. */
  private failed(url: string, answer: Response): Error {
    const { status } = answer;
    // Its body is of no use, and unread it would keep the connection.
    answer.body?.cancel().catch(() => undefined);
    if (status === 408 || status === 429 || status >= 500) {
      const seconds = Number(answer.headers.get("retry-after") ?? "");
      const retryAfter = Number.isFinite(seconds) ? Math.min(seconds * 1000, LONGEST_RETRY_AFTER) : undefined;
      return new Failure(url, `the server answered ${status}`, status, retryAfter);
    }
    const advice =
      status === 401
        ? "the model is private or does not exist. Pass a token that may read it, as headers: " +
          '{ Authorization: "Bearer …" }'
        : status === 403
          ? "this account may not read it. Ask for access on the model's page (gated models), or pass another token " +
            "in headers"
          : "the server refuses the request";
    return new ZebraError("network", `${url}: the server answered ${status}: ${advice}.`, { url, status, bytes: 0 });
  }
}

/** Whether the server answers when the answer may not be read: then a refused reading is a matter of CORS. */
async function answersBlindly(url: string, signal: AbortSignal): Promise<boolean> {
  try {
    await fetch(url, { method: "HEAD", mode: "no-cors", cache: "no-store", signal });
    return true;
  } catch {
    return false;
  }
}

/**
 * Reads an answer's headers. `from` is where the asked range starts, and `wholeLength` says whether a partial answer
 * goes to the file's end and from its start, so that its length is the file's.
 */
function read(answer: Response, from: number, wholeLength: boolean): Head {
  const { headers, status } = answer;
  // Content-Range is hidden from other origins unless the server exposes it.
  const whole = /^bytes (?:\d+-\d+|\*)\/(\d+)$/.exec(headers.get("content-range") ?? "")?.[1];
  const length = headers.get("content-length");
  let size: number | undefined;
  if (whole !== undefined) {
    size = Number(whole);
  } else if (status === 416) {
    // The file ends at or before what was asked for.
    size = from;
  } else if (length !== null && headers.get("content-encoding") === null && (status === 200 || wholeLength)) {
    size = Number(length);
  }
  return {
    size,
    validators: {
      etag: headers.get("etag")?.replace(/^W\//, ""),
      modified: headers.get("last-modified") ?? undefined,
    },
    html: /^text\/html\b/i.test(headers.get("content-type") ?? ""),
  };
}
