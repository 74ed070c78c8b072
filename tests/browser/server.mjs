// A static HTTP server on localhost for tests: ranges, entity tags, CORS, and faults that a test switches on per path.
//
//   const server = await startServer({ mounts: { "/": "web/site", "/models/": "models" } });
//   server.files.set("/m/config.json", Buffer.from("{}"));        // a file in memory
//   server.faults.set("/m/config.json", { status: 503, times: 2 });
//   … server.url, server.requests("/m/config.json") …
//   await server.close();

import { createHash } from "node:crypto";
import { open, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".json": "application/json",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
};
const PIECE = 64 * 1024;

/**
 * @typedef {object} MemoryFile  Bytes that are made up when they are asked for, so that a file may be of any size.
 * @property {number} size
 * @property {(start: number, end: number) => Uint8Array} read
 * @property {string} [etag]  of the size when not given
 * @property {string} [type]  the content-type; by the name's end when not given
 *
 * @typedef {object} Fault  What goes wrong with a path. Several may be given at once.
 * @property {number} [times]  how many requests it hits; all of them when not given
 * @property {string} [method]  which requests it hits; all of them when not given
 * @property {number} [status]  answers with this status and a short text
 * @property {Record<string, string>} [headers]  put on the answer, such as retry-after
 * @property {boolean} [html]  answers 200 with a page, as single-page hosts do for what is not there
 * @property {boolean} [drop]  closes the connection without an answer
 * @property {number} [cutAfter]  closes the connection after this many bytes of the body
 * @property {number} [cutAfterTotal]  closes the connection when all answers together have sent this many bytes, and
 *   every later one before its first byte
 * @property {number} [stallAfter]  sends this many bytes of the body and then nothing more
 * @property {boolean} [noRanges]  answers 200 with the whole file, whatever range is asked for
 * @property {boolean} [noLength]  gives no content-length (chunked), and takes no ranges either
 * @property {string | null} [etag]  instead of the file's; null for none
 * @property {number} [delay]  milliseconds before the answer
 * @property {number} [rate]  bytes a second of the body
 * @property {boolean} [noCors]  answers without CORS headers
 *
 * @typedef {object} LoggedRequest
 * @property {string} method
 * @property {string} path  without the query
 * @property {string} query  with its "?", or ""
 * @property {string | undefined} range
 * @property {Record<string, string>} headers  of the request
 * @property {number} status  0 when there was no answer
 * @property {number} bytes  of the body that were handed to the connection
 */

/** A file in memory, from bytes. */
function fromBytes(bytes) {
  const etag = `"${createHash("sha256").update(bytes).digest("hex").slice(0, 16)}"`;
  return { size: bytes.length, read: (start, end) => bytes.subarray(start, end), etag };
}

/** A file on disk that `read` opens for as long as one answer takes; undefined when there is none. */
async function fromDisk(path) {
  const info = await stat(path).catch(() => undefined);
  if (info?.isDirectory()) {
    return fromDisk(join(path, "index.html"));
  }
  if (!info?.isFile()) {
    return undefined;
  }
  return {
    size: info.size,
    etag: `"${info.size.toString(16)}-${Math.trunc(info.mtimeMs).toString(16)}"`,
    type: TYPES[extname(path)],
    async read(start, end) {
      const handle = await open(path);
      try {
        const bytes = Buffer.alloc(end - start);
        await handle.read(bytes, 0, bytes.length, start);
        return bytes;
      } finally {
        await handle.close();
      }
    },
  };
}

/** `[start, end)` of a Range header; undefined when it is none that this server knows. */
function parseRange(header, size) {
  const match = /^bytes=(\d+)-(\d*)$/.exec(header ?? "");
  if (!match) {
    return undefined;
  }
  return [Number(match[1]), match[2] ? Math.min(Number(match[2]) + 1, size) : size];
}

/**
 * Starts a server on a free port.
 *
 * @param {object} [options]
 * @param {Record<string, string>} [options.mounts]  folders on disk by the path they are served under ("/site/")
 * @param {boolean} [options.cors]  whether any origin may read the answers (the default)
 */
export async function startServer({ mounts = {}, cors = true } = {}) {
  /** @type {Map<string, Uint8Array | MemoryFile>} by path */
  const files = new Map();
  /** @type {Map<string, Fault>} by path */
  const faults = new Map();
  /** Answers of a test's own, by path: (request, response, url) => void. */
  const routes = new Map();
  /** @type {LoggedRequest[]} */
  const log = [];
  const watchers = new Set();

  async function find(path) {
    const file = files.get(path);
    if (file) {
      return file instanceof Uint8Array ? fromBytes(file) : file;
    }
    const prefix = Object.keys(mounts)
      .filter((mount) => path.startsWith(mount))
      .sort((a, b) => b.length - a.length)[0];
    // normalize() keeps a path with ".." inside of its mount.
    return prefix === undefined
      ? undefined
      : fromDisk(join(mounts[prefix], normalize(`/${path.slice(prefix.length)}`)));
  }

  function takeFault(path, method) {
    const fault = faults.get(path);
    if (!fault || (fault.method && fault.method !== method)) {
      return {};
    }
    if (fault.times !== undefined && --fault.times <= 0) {
      faults.delete(path);
    }
    return fault;
  }

  async function sendBody(response, file, start, end, fault, entry) {
    // One listener of a kind for the whole body, however many pieces it has.
    let goOn = () => {};
    response.on("drain", () => goOn());
    response.once("close", () => goOn());
    let last = Math.min(end, start + (fault.cutAfter ?? Infinity), start + (fault.stallAfter ?? Infinity));
    for (let at = start; at < last && !response.closed;) {
      if (fault.cutAfterTotal !== undefined) {
        // Taken before it is sent, as other answers share the sum.
        const rest = Math.min(PIECE, last - at, fault.cutAfterTotal);
        fault.cutAfterTotal -= rest;
        last = rest < Math.min(PIECE, last - at) ? at + rest : last;
        if (rest === 0) {
          break;
        }
      }
      const piece = await file.read(at, Math.min(at + PIECE, last));
      at += piece.length;
      entry.bytes += piece.length;
      if (!response.write(piece) && !response.closed) {
        await new Promise((resolve) => (goOn = resolve));
      }
      if (fault.rate) {
        await sleep((1000 * piece.length) / fault.rate, undefined, { ref: false });
      }
    }
    if ((fault.cutAfter ?? fault.cutAfterTotal) !== undefined && last < end) {
      // What was written goes out first; then the connection ends in the middle of the body.
      response.socket?.destroySoon();
    } else if (fault.stallAfter === undefined || last === end) {
      response.end();
    }
  }

  async function answer(request, response) {
    const url = new URL(request.url, "http://localhost");
    const path = decodeURIComponent(url.pathname);
    const fault = takeFault(path, request.method);
    const { method, headers } = request;
    const entry = { method, path, query: url.search, range: headers.range, headers, status: 0, bytes: 0 };
    log.push(entry);
    watchers.forEach((watcher) => watcher(entry));
    if (fault.delay) {
      await sleep(fault.delay);
    }
    if (fault.drop) {
      request.socket.destroy();
      return;
    }
    const begin = (status, fields) => {
      entry.status = status;
      response.writeHead(status, { ...fields, ...fault.headers });
    };
    if (cors && !fault.noCors) {
      response.setHeader("access-control-allow-origin", "*");
      response.setHeader(
        "access-control-expose-headers",
        "content-length, content-range, etag, accept-ranges, retry-after",
      );
      if (method === "OPTIONS") {
        begin(204, {
          "access-control-allow-headers": "authorization, range",
          "access-control-allow-methods": "GET, HEAD",
        });
        response.end();
        return;
      }
    }
    if (fault.status) {
      begin(fault.status, { "content-type": "text/plain" });
      response.end(method === "HEAD" ? undefined : `status ${fault.status}, as the test wants it\n`);
      return;
    }
    const route = routes.get(path);
    if (route) {
      response.once("finish", () => (entry.status = response.statusCode));
      route(request, response, url);
      return;
    }
    if (fault.html) {
      begin(200, { "content-type": TYPES[".html"] });
      response.end(method === "HEAD" ? undefined : "<!doctype html><title>an application</title>");
      return;
    }
    const file = await find(path);
    if (!file && path === "/favicon.ico") {
      // Browsers ask for it unasked, and its 404 would be a console error in every test.
      begin(204, {});
      response.end();
      return;
    }
    if (!file) {
      begin(404, { "content-type": "text/plain" });
      response.end(method === "HEAD" ? undefined : "not found\n");
      return;
    }
    const { size } = file;
    const etag = fault.etag === undefined ? (file.etag ?? `"${size}"`) : fault.etag;
    const ranges = !fault.noRanges && !fault.noLength;
    const fields = {
      "content-type": file.type ?? TYPES[path.endsWith("/") ? ".html" : extname(path)] ?? "application/octet-stream",
      "cache-control": "no-cache",
      ...(etag === null ? {} : { etag }),
      ...(ranges ? { "accept-ranges": "bytes" } : {}),
    };
    if (etag !== null && headers["if-none-match"] === etag) {
      begin(304, fields);
      response.end();
      return;
    }
    const range = ranges ? parseRange(headers.range, size) : undefined;
    if (range && (range[0] >= size || range[0] >= range[1])) {
      begin(416, { ...fields, "content-range": `bytes */${size}` });
      response.end();
      return;
    }
    const [start, end] = range ?? [0, size];
    if (range) {
      fields["content-range"] = `bytes ${start}-${end - 1}/${size}`;
    }
    if (!fault.noLength) {
      fields["content-length"] = end - start;
    }
    begin(range ? 206 : 200, fields);
    if (method === "HEAD") {
      response.end();
    } else {
      await sendBody(response, file, start, end, fault, entry);
    }
  }

  const server = createServer((request, response) => {
    answer(request, response).catch((error) => {
      console.error(`server.mjs: ${request.method} ${request.url}: ${error.stack}`);
      response.destroy();
    });
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "localhost", resolve));
  const url = `http://localhost:${server.address().port}`;

  return {
    /** Its origin, without a slash at the end. */
    url,
    mounts,
    files,
    faults,
    routes,
    log,
    /** The logged requests whose path matches (a string: equals; a RegExp: matches), preflights left out. */
    requests(path) {
      return log.filter((entry) => {
        const matches = path === undefined || (typeof path === "string" ? entry.path === path : path.test(entry.path));
        return matches && entry.method !== "OPTIONS";
      });
    },
    /** Bytes of bodies that were sent for these paths. */
    bytes(path) {
      return this.requests(path).reduce((sum, entry) => sum + entry.bytes, 0);
    },
    /** Resolves with the next request that `matches(entry)`. */
    next(matches) {
      return new Promise((resolve) => {
        const watcher = (entry) => {
          if (matches(entry)) {
            watchers.delete(watcher);
            resolve(entry);
          }
        };
        watchers.add(watcher);
      });
    },
    /** Stops it and closes what is open. */
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
