// Keeps the page's own files, so that it opens without a network. Models are not its business: the package stores them.

// Filled in by the build: the files of the page, and a hash of all of them.
declare const ASSETS: readonly string[];
declare const VERSION: string;
declare const self: ServiceWorkerGlobalScope;

const PREFIX = "zebra-page ";
const CACHE = PREFIX + VERSION;

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches.open(CACHE).then((cache) =>
      // Past the browser's own cache, which may hold another version's worker.js.
      cache.addAll(ASSETS.map((path) => new Request(path, { cache: "reload" }))),
    ),
  );
});

self.addEventListener("activate", (event) => {
  const clean = async (): Promise<void> => {
    for (const name of await caches.keys()) {
      if (name.startsWith(PREFIX) && name !== CACHE) {
        await caches.delete(name);
      }
    }
    // The visit that installed it may go offline too.
    await self.clients.claim();
  };
  event.waitUntil(clean());
});

// A page and a worker of two versions must not meet: a new version waits for the person's word, or for all tabs to be
// closed.
self.addEventListener("message", (event) => {
  if (event.data === "take over") {
    event.waitUntil(self.skipWaiting());
  }
});

const assets = new Set(ASSETS.map((path) => new URL(path, self.registration.scope).href));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  url.search = "";
  url.hash = "";
  if (request.method === "GET" && assets.has(url.href)) {
    event.respondWith(fromCache(url.href, request));
  }
});

async function fromCache(url: string, request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  return (await cache.match(url)) ?? fetch(request);
}

export {};
