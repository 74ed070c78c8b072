// The browser package's storage, driven in Chromium against a server with faults: what is downloaded, what is asked
// for again, and what happens when something goes wrong. The worker under test is the real code, bundled here.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { build } from "../../web/node_modules/esbuild/lib/main.js";
import { openBrowser } from "./browser.mjs";
import { startServer } from "./server.mjs";

const MIB = 1024 * 1024;
/** As in chunks.ts: the unit of what is stored and asked for. */
const CHUNK = 4 * MIB;
const IN_FLIGHT = 4;
/** Few and short, where a test waits for a transfer to be given up. */
const IMPATIENT = { attempts: 2, firstDelay: 20 };

const WORKER = `
  import { createStored, deleteModel, listModels, openModel } from "./index.ts";
  import { storageName } from "./name.ts";

  const models = new Map();
  const aborts = new Map();
  const events = new Map();

  async function bytesOf(model, name) {
    const size = await model.size(name);
    const bytes = new Uint8Array(size);
    // Neither a multiple nor a divisor of a chunk, so that reads cross and share chunks.
    for (let at = 0; at < size; at += 3000000) {
      bytes.set(await model.read(name, at, Math.min(at + 3000000, size)), at);
    }
    return bytes;
  }
  async function hex(bytes) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
  async function dataFile(model, file, kind) {
    let folder = await navigator.storage.getDirectory();
    folder = await folder.getDirectoryHandle("zebra-runtime");
    folder = await folder.getDirectoryHandle(await storageName(model));
    return folder.getFileHandle(await storageName(file) + kind);
  }

  const commands = {
    async open(id, source, options = {}) {
      const abort = new AbortController();
      aborts.set(id, abort);
      events.set(id, []);
      const onProgress = (event) => events.get(id).push(event);
      const model = await openModel(source, { store: true, onProgress, signal: abort.signal, ...options });
      models.set(id, model);
      return { name: model.name, variant: model.variant };
    },
    async openFiles(id, list) {
      const files = list.map(([path, text]) => {
        const file = new File([text], path.split("/").at(-1));
        Object.defineProperty(file, "webkitRelativePath", { value: path.includes("/") ? path : "" });
        return file;
      });
      models.set(id, await openModel(files, { store: true, onProgress() {}, signal: new AbortController().signal }));
      return models.get(id).name;
    },
    abort: (id) => aborts.get(id).abort(),
    close: (id) => models.get(id).close(),
    names: (id) => models.get(id).names(),
    size: (id, name) => models.get(id).size(name),
    missing: (id) => models.get(id).missing(),
    prefetch: (id, names) => models.get(id).prefetch(names),
    read: async (id, name, start, end) => [...(await models.get(id).read(name, start, end))],
    hash: async (id, name) => hex(await bytesOf(models.get(id), name)),
    text: async (id, name) => new TextDecoder().decode(await bytesOf(models.get(id), name)),
    events: (id) => events.get(id),
    list: listModels,
    delete: deleteModel,
    async flip(model, file, at) {
      const handle = await (await dataFile(model, file, ".data")).createSyncAccessHandle();
      const byte = new Uint8Array(1);
      handle.read(byte, { at });
      byte[0] ^= 1;
      handle.write(byte, { at });
      handle.close();
    },
    async leftover(text) {
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("zebra-runtime", { create: true });
      await (await root.getDirectoryHandle(text, { create: true })).getFileHandle("half", { create: true });
    },
    async folders() {
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("zebra-runtime", { create: true });
      return Array.fromAsync(root.keys());
    },
    async quantize(id, variant, files, end) {
      const sink = await createStored(models.get(id), variant);
      for (const [name, text] of files) {
        const bytes = new TextEncoder().encode(text);
        // The second half first: the order is the writer's own business.
        const half = bytes.length >> 1;
        await sink.write(name, half, bytes.subarray(half));
        await sink.write(name, 0, bytes.subarray(0, half));
      }
      if (end) {
        await sink[end]();
      }
    },
    withoutStorage() {
      navigator.storage.getDirectory = () => Promise.reject(new DOMException("private window", "SecurityError"));
    },
    pretendNoRoom() {
      navigator.storage.estimate = () => Promise.resolve({ quota: 20000000, usage: 2000000 });
    },
    estimate: () => navigator.storage.estimate(),
  };

  onmessage = async ({ data: [call, name, args] }) => {
    try {
      postMessage([call, { value: await commands[name](...args) }]);
    } catch (error) {
      const { code, message, details } = error;
      postMessage([call, { error: { code, message: String(message), details, name: error.name } }]);
    }
  };
`;

const PAGE = `<!doctype html><title>storage</title><link rel="icon" href="data:,"><script type="module">
  const worker = new Worker("/worker.js", { type: "module" });
  const waiting = new Map();
  let calls = 0;
  worker.onmessage = ({ data: [call, outcome] }) => waiting.get(call)(outcome);
  window.call = (name, args) => new Promise((resolve) => {
    waiting.set(++calls, resolve);
    worker.postMessage([calls, name, args]);
  });
</script>`;

let server;
/** Another origin. */
let elsewhere;
let browser;

before(async () => {
  const folder = fileURLToPath(new URL("../../web/package/worker/storage/", import.meta.url));
  const bundle = await build({
    stdin: { contents: WORKER, resolveDir: folder, loader: "js" },
    bundle: true,
    format: "esm",
    write: false,
    logLevel: "error",
  });
  server = await startServer();
  elsewhere = await startServer();
  server.files.set("/", Buffer.from(PAGE));
  server.files.set("/worker.js", Buffer.from(bundle.outputFiles[0].contents));
  browser = await openBrowser();
  // Optional files that a model does not have; each load asks for them.
  browser.expect(/status of 404 .*\/(chat_template\.jinja|model\.safetensors|(tokenizer|MLA|mla_layer|mamba)_config\.json)(\?.*)?\)$/);
});

after(async () => {
  await browser?.close();
  await server?.close();
  await elsewhere?.close();
});

afterEach(async () => {
  for (const page of browser.context.pages().slice(1)) {
    await page.close();
  }
  server.faults.clear();
  elsewhere.faults.clear();
  browser.check(...complaintsOfThisTest.splice(0));
});

/** What the test at hand makes the console say. */
const complaintsOfThisTest = [];
const CUT = /net::ERR_(CONTENT_LENGTH_MISMATCH|EMPTY_RESPONSE|CONNECTION_RESET|INCOMPLETE_CHUNKED_ENCODING)/;

/** A page with a worker of its own; its methods are the worker's commands. */
async function openTab() {
  const page = await browser.newPage(`${server.url}/`);
  return new Proxy(
    { page },
    {
      get(target, name) {
        if (name === "page" || name === "then") {
          return target[name];
        }
        return async (...args) => {
          const { value, error } = await page.evaluate(([command, list]) => window.call(command, list), [name, args]);
          if (error) {
            throw Object.assign(new Error(error.message), error);
          }
          return value;
        };
      },
    },
  );
}

function randomBytes(size, seed) {
  const bytes = Buffer.alloc(size);
  let state = seed;
  for (let at = 0; at + 4 <= size; at += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes.writeInt32LE(state ^ (state >>> 15), at);
  }
  return bytes;
}

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const WEIGHTS = randomBytes(18 * MIB + 123, 1);
const OTHER_WEIGHTS = randomBytes(18 * MIB + 123, 2);
const SHARDS = [randomBytes(5 * MIB, 3), randomBytes(4 * MIB + 1, 4)];
const SMALL = {
  "config.json": '{"architectures": ["LlamaForCausalLM"]}',
  "hybrid_config.json": '{"mla_layers": [0]}',
  "generation_config.json": "{}",
  "tokenizer.json": JSON.stringify({ model: "x".repeat(100_000) }),
  "tokenizer_config.json": "{}",
};
const SMALL_BYTES = Object.values(SMALL).reduce((sum, text) => sum + text.length, 0);

/** Puts a model on a server; returns its address. */
function publish(path, weights = WEIGHTS, on = server) {
  for (const [name, text] of Object.entries(SMALL)) {
    on.files.set(`${path}${name}`, Buffer.from(text));
  }
  on.files.set(`${path}model.safetensors`, weights);
  return `${on.url}${path}`;
}

function publishShards(path, on = server) {
  const address = publish(path, SHARDS[0], on);
  on.files.delete(`${path}model.safetensors`);
  const names = SHARDS.map((_, index) => `model-0000${index + 1}-of-00002.safetensors`);
  const weight_map = { a: names[0], b: names[1], c: names[0] };
  on.files.set(`${path}model.safetensors.index.json`, Buffer.from(JSON.stringify({ weight_map })));
  names.forEach((name, index) => on.files.set(`${path}${name}`, SHARDS[index]));
  return { address, names };
}

/** Bytes that requests asked for by range, since `from` in the log. */
function asked(path, from = 0, on = server) {
  return on.log
    .slice(from)
    .filter((entry) => entry.path === path && entry.method === "GET")
    .reduce((sum, { range }) => {
      const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(range);
      return sum + Number(end) - Number(start) + 1;
    }, 0);
}

/** GET requests since `from` in the log. */
function gets(from) {
  const page = ["/", "/worker.js"];
  return server.log.slice(from).filter(({ method, path }) => method === "GET" && !page.includes(path));
}

async function until(condition) {
  const end = Date.now() + 10_000;
  while (!(await condition())) {
    assert.ok(Date.now() < end, `did not come about: ${condition}`);
    await sleep(10);
  }
}

async function refusal(promise, code, ...patterns) {
  let error;
  try {
    await promise;
  } catch (thrown) {
    error = thrown;
  }
  assert.ok(error, `expected an error with the code ${code}, none came`);
  assert.equal(error.code, code, error.message);
  for (const pattern of patterns) {
    assert.match(error.message, pattern);
  }
  return error;
}

test("a fresh download equals the bytes, and a second load downloads nothing, also after a restart", async () => {
  const path = "/fresh/";
  const address = publish(path);
  let tab = await openTab();
  const { name } = await tab.open("m", address);
  assert.equal(name, address);
  assert.deepEqual(await tab.names("m"), [...Object.keys(SMALL), "model.safetensors"].sort());
  assert.deepEqual(await tab.missing("m"), {
    total: SMALL_BYTES + WEIGHTS.length,
    missing: SMALL_BYTES + WEIGHTS.length,
  });
  await tab.prefetch("m", ["model.safetensors", "tokenizer.json"]);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
  for (const [file, text] of Object.entries(SMALL)) {
    assert.equal(await tab.text("m", file), text);
  }
  assert.equal(server.bytes(`${path}model.safetensors`), WEIGHTS.length);
  assert.equal((await tab.missing("m")).missing, 0);
  const progress = (await tab.events("m")).filter(({ phase }) => phase === "download");
  const last = progress.at(-1);
  assert.deepEqual([last.loaded, last.total], [SMALL_BYTES + WEIGHTS.length, SMALL_BYTES + WEIGHTS.length]);
  assert.ok(last.bytesPerSecond > 0);
  progress.reduce((before, { loaded }) => (assert.ok(loaded >= before, "progress goes forward"), loaded), 0);
  assert.equal(await tab.size("m", "no-such-file.json"), undefined);
  await refusal(tab.read("m", "config.json", 0, 1000), "integrity", /1000 were asked for, the file has 39/);
  complaintsOfThisTest.push(/404 .*no-such-file\.json/);
  await tab.close("m");
  await tab.page.close();

  for (const restart of [false, true]) {
    if (restart) {
      await browser.restart();
    }
    const from = server.log.length;
    tab = await openTab();
    await tab.open("m", address);
    assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
    assert.equal(await tab.text("m", "tokenizer.json"), SMALL["tokenizer.json"]);
    assert.deepEqual(gets(from), []);
    await tab.close("m");
    await tab.page.close();
  }
});

test("addresses without a slash and with a query, names with odd characters", async () => {
  const path = "/odd ü/m@1/";
  publish(path, SHARDS[0]);
  const tab = await openTab();
  const { name } = await tab.open("m", "/odd ü/m@1?token=a/b#part");
  assert.equal(name, `${server.url}/odd%20%C3%BC/m@1/?token=a/b`);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(SHARDS[0]));
  assert.ok(server.requests(/odd/).every(({ query }) => query === "?token=a/b"));
  assert.equal(await tab.size("m", "../config.json"), undefined);
});

test("a connection that is cut goes on at the byte where it was cut", async () => {
  const path = "/cut/";
  const address = publish(path);
  complaintsOfThisTest.push(CUT);
  server.faults.set(`${path}model.safetensors`, { method: "GET", cutAfter: MIB + 7, times: 6 });
  const tab = await openTab();
  await tab.open("m", address, { timing: { firstDelay: 10 } });
  await tab.prefetch("m", ["model.safetensors"]);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
  const requests = server.requests(`${path}model.safetensors`).filter(({ method }) => method === "GET");
  // The browser may drop what came just before a cut, but all else of the chunk is kept.
  const starts = requests.map(({ range }) => Number(/^bytes=(\d+)-/.exec(range)[1]));
  assert.ok(
    starts.some((start) => start % CHUNK !== 0),
    "a request goes on inside of a chunk",
  );
  assert.ok(asked(`${path}model.safetensors`) < WEIGHTS.length + 6 * CHUNK);
  assert.ok(server.bytes(`${path}model.safetensors`) < WEIGHTS.length + 6 * MIB);
});

for (const offset of [1000, 9 * MIB, 17 * MIB]) {
  test(`a download that died after ${offset} bytes is resumed at its last good chunk`, async () => {
    const path = `/died-${offset}/`;
    const file = `${path}model.safetensors`;
    const address = publish(path);
    complaintsOfThisTest.push(CUT);
    server.faults.set(file, { method: "GET", cutAfterTotal: offset });
    let tab = await openTab();
    await tab.open("m", address, { timing: IMPATIENT });
    await tab.prefetch("m", ["model.safetensors"]);
    const error = await refusal(
      tab.hash("m", "model.safetensors"),
      "network",
      /connection was dropped|no answer/,
      /CORS/,
    );
    assert.equal(error.details.url, `${server.url}${file}`);
    assert.equal(error.details.status, null);
    await until(async () => server.bytes(file) === offset);
    await tab.close("m");
    await tab.page.close();
    server.faults.clear();

    tab = await openTab();
    const from = server.log.length;
    await tab.open("m", address);
    const { missing } = await tab.missing("m");
    const stored = WEIGHTS.length - (missing - SMALL_BYTES);
    assert.equal(stored % CHUNK, 0);
    assert.ok(stored >= offset - IN_FLIGHT * CHUNK && stored <= offset, `${stored} of ${offset} bytes were kept`);
    assert.ok(offset < 16 * MIB || stored > 0);
    await tab.prefetch("m", ["model.safetensors"]);
    assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
    assert.equal(asked(file, from), WEIGHTS.length - stored);
  });
}

test("a chunk that is damaged in storage is fetched again, and only it", async () => {
  const path = "/damaged/";
  const address = publish(path);
  const tab = await openTab();
  await tab.open("m", address);
  await tab.hash("m", "model.safetensors");
  await tab.close("m");
  await tab.flip(address, "model.safetensors", 2 * CHUNK + 5);
  const from = server.log.length;
  await tab.open("m", address);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
  assert.deepEqual(
    gets(from).map(({ range }) => range),
    [`bytes=${2 * CHUNK}-${3 * CHUNK - 1}`],
  );
  await tab.close("m");
  await tab.open("m", address);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
  assert.equal(gets(from).length, 1);
});

test("a file that changed on the server between loads is fetched again, the others are not", async () => {
  const path = "/changed/";
  const address = publish(path);
  const tab = await openTab();
  await tab.open("m", address);
  await tab.hash("m", "model.safetensors");
  await tab.text("m", "config.json");
  await tab.close("m");
  server.files.set(`${path}model.safetensors`, OTHER_WEIGHTS);
  const from = server.log.length;
  await tab.open("m", address);
  assert.equal(await tab.text("m", "config.json"), SMALL["config.json"]);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(OTHER_WEIGHTS));
  assert.equal(asked(`${path}model.safetensors`, from), OTHER_WEIGHTS.length);
  assert.equal(asked(`${path}config.json`, from), 0);
});

test("a file that changes during its download is begun again", async () => {
  const path = "/changes/";
  const file = `${path}model.safetensors`;
  const address = publish(path);
  const tab = await openTab();
  server.faults.set(file, { method: "GET", rate: 8 * MIB });
  await tab.open("m", address);
  await tab.prefetch("m", ["model.safetensors"]);
  await until(() => server.bytes(file) > MIB);
  server.files.set(file, OTHER_WEIGHTS);
  server.faults.clear();
  // What is under way finishes with the old bytes; the requests after it have the new tag.
  await until(() => server.requests(file).filter(({ method }) => method === "GET").length > IN_FLIGHT + 1);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(OTHER_WEIGHTS));
  await tab.close("m");
  const from = server.log.length;
  await tab.open("m", address);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(OTHER_WEIGHTS));
  assert.deepEqual(gets(from), []);
});

test("a file that changes after some of it was read is an error, and the next load has the new one", async () => {
  const path = "/mixed/";
  const file = `${path}model.safetensors`;
  const address = publish(path);
  const tab = await openTab();
  await tab.open("m", address);
  assert.deepEqual(await tab.read("m", "model.safetensors", 0, 8), [...WEIGHTS.subarray(0, 8)]);
  server.files.set(file, OTHER_WEIGHTS);
  await refusal(tab.hash("m", "model.safetensors"), "integrity", /changed on the server/);
  await tab.close("m");
  await tab.open("m", address);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(OTHER_WEIGHTS));
});

for (const store of [true, false]) {
  test(`a server without ranges sends each file once${store ? "" : ", also when nothing is stored"}`, async () => {
    const path = `/no-ranges-${store}/`;
    const file = `${path}model.safetensors`;
    const address = publish(path);
    complaintsOfThisTest.push(CUT);
    for (const name of [...Object.keys(SMALL), "model.safetensors"]) {
      server.faults.set(`${path}${name}`, { noRanges: true });
    }
    const tab = await openTab();
    await tab.open("m", address, { store });
    await tab.prefetch("m", ["model.safetensors"]);
    assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
    assert.equal(await tab.text("m", "tokenizer.json"), SMALL["tokenizer.json"]);
    assert.equal(server.bytes(file), WEIGHTS.length);
    assert.deepEqual(await tab.read("m", "model.safetensors", 5, 9), [...WEIGHTS.subarray(5, 9)]);
    assert.equal(server.bytes(file), WEIGHTS.length);
    await tab.close("m");
    if (store) {
      const from = server.log.length;
      await tab.open("m", address);
      assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
      assert.deepEqual(gets(from), []);
      await tab.close("m");
      await tab.delete(address);
    }
    // A cut begins it again.
    server.faults.set(file, { noRanges: true, method: "GET", cutAfter: 10 * MIB, times: 1 });
    const begin = server.bytes(file);
    const first = server.next(({ path, method }) => path === file && method === "GET");
    await tab.open("m", address, { store, timing: { firstDelay: 10 } });
    const hash = tab.hash("m", "model.safetensors");
    await first;
    server.faults.set(file, { noRanges: true });
    assert.equal(await hash, sha256(WEIGHTS));
    assert.equal(server.bytes(file) - begin, 10 * MIB + WEIGHTS.length);
  });
}

test("what is read jumps the queue of what is read ahead; without storage that stays a few chunks ahead", async () => {
  const path = "/queue/";
  const file = `${path}model.safetensors`;
  const address = publish(path);
  const count = 12;
  const zeros = Buffer.alloc(MIB);
  server.files.set(file, { size: count * CHUNK, read: (start, end) => zeros.subarray(0, end - start) });
  const tab = await openTab();
  const requests = () => server.requests(file).filter(({ method }) => method === "GET");
  server.faults.set(file, { method: "GET", rate: 32 * MIB });
  await tab.open("m", address);
  await tab.prefetch("m", ["model.safetensors"]);
  await until(() => requests().length > IN_FLIGHT);
  await tab.read("m", "model.safetensors", count * CHUNK - 8, count * CHUNK);
  const order = requests().map(({ range }) => Number(/^bytes=(\d+)-/.exec(range)[1]) / CHUNK);
  assert.deepEqual(order.slice(0, IN_FLIGHT), [0, 1, 2, 3]);
  assert.ok(order.includes(count - 1) && !order.includes(count - 2), `chunks were asked for in the order ${order}`);
  await tab.close("m");

  server.log.length = 0;
  server.faults.clear();
  await tab.open("m", address, { store: false });
  await tab.prefetch("m", ["model.safetensors"]);
  await tab.read("m", "model.safetensors", 0, 8);
  await until(() => requests().length === IN_FLIGHT);
  await sleep(200);
  assert.equal(asked(file), IN_FLIGHT * CHUNK);
});

test("a server that tells no sizes works too", async () => {
  const path = "/no-length/";
  const address = publish(path);
  for (const name of [...Object.keys(SMALL), "model.safetensors"]) {
    server.faults.set(`${path}${name}`, { noLength: true });
  }
  const tab = await openTab();
  await tab.open("m", address);
  assert.equal(await tab.size("m", "model.safetensors"), WEIGHTS.length);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
});

test("without room, without OPFS and without store, the bytes come straight from the server", async () => {
  for (const [how, prepare] of [
    ["estimate", (tab) => tab.pretendNoRoom()],
    ["write", () => {}],
    ["private", (tab) => tab.withoutStorage()],
    ["none", () => {}],
  ]) {
    const path = `/no-room-${how}/`;
    const file = `${path}model.safetensors`;
    const address = publish(path);
    const tab = await openTab();
    const cdp = await browser.context.newCDPSession(tab.page);
    if (how === "write") {
      // The browser's own answer goes on promising 10 GiB, so that only writing finds out.
      const { usage, quota } = await tab.estimate();
      await cdp.send("Storage.overrideQuotaForOrigin", { origin: server.url, quotaSize: usage + 9 * MIB });
      assert.ok(quota - usage > WEIGHTS.length);
    }
    await prepare(tab);
    await tab.open("m", address, { store: how !== "none" });
    await tab.prefetch("m", ["config.json", "model.safetensors"]);
    if (how === "write") {
      // The reader comes when all that was under way ahead of it has come, and could not be stored.
      await sleep(500);
    }
    assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS), how);
    for (const [name, text] of Object.entries(SMALL)) {
      assert.equal(await tab.text("m", name), text);
    }
    assert.equal(asked(file), WEIGHTS.length, how);
    const last = (await tab.events("m")).at(-1);
    assert.deepEqual([last.loaded, last.total], [SMALL_BYTES + WEIGHTS.length, SMALL_BYTES + WEIGHTS.length], how);
    const stored = await (await openTab()).list();
    const entry = stored.find(({ name }) => name === address);
    assert.ok(how === "private" || how === "none" ? !entry : !entry?.complete, how);
    await cdp.send("Storage.overrideQuotaForOrigin", { origin: server.url });
    await tab.close("m");
    await tab.page.close();
  }
});

test("offline, a complete model opens from storage, and an incomplete one says what is wrong", async () => {
  const whole = publish("/offline/");
  const half = publish("/half/");
  const tab = await openTab();
  await tab.open("m", whole);
  await tab.hash("m", "model.safetensors");
  for (const name of Object.keys(SMALL)) {
    await tab.text("m", name);
  }
  await tab.close("m");
  await tab.open("m", half);
  await tab.text("m", "config.json");
  await tab.close("m");
  await browser.context.setOffline(true);
  complaintsOfThisTest.push(/ERR_INTERNET_DISCONNECTED/);
  const from = server.log.length;
  try {
    await tab.open("m", whole);
    assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
    assert.equal(await tab.text("m", "config.json"), SMALL["config.json"]);
    assert.equal(await tab.size("m", "chat_template.jinja"), undefined);
    await refusal(tab.open("n", half, { timing: IMPATIENT }), "network", /half\/config\.json/, /offline/, /CORS/);
    assert.equal(server.log.length, from);
  } finally {
    await browser.context.setOffline(false);
  }
});

test("an abort ends each phase at once, and gives locks and files back", async () => {
  const path = "/abort/";
  const file = `${path}model.safetensors`;
  const address = publish(path);
  const tab = await openTab();
  const phases = {
    "before it begins": async (id) => {
      server.faults.set(`${path}config.json`, { delay: 3000, times: 1 });
      const opened = tab.open(id, address);
      await server.next((entry) => entry.path === `${path}config.json`);
      await tab.abort(id);
      await refusal(opened, "aborted");
    },
    "between attempts": async (id) => {
      server.faults.set(`${path}config.json`, { status: 503 });
      complaintsOfThisTest.push(/status of 503/);
      const opened = tab.open(id, address, { timing: { firstDelay: 5000 } });
      await server.next((entry) => entry.path === `${path}config.json`);
      await sleep(50);
      await tab.abort(id);
      await refusal(opened, "aborted");
    },
    "during a range": async (id) => {
      server.faults.set(file, { method: "GET", stallAfter: MIB });
      await tab.open(id, address);
      await tab.prefetch(id, ["model.safetensors"]);
      const read = tab.hash(id, "model.safetensors");
      await until(() => server.bytes(file) >= MIB);
      await tab.abort(id);
      await refusal(read, "aborted");
      await refusal(tab.read(id, "config.json", 0, 2), "aborted");
    },
    "while another tab downloads": async (id) => {
      const other = await openTab();
      server.faults.set(file, { method: "GET", stallAfter: MIB });
      await other.open("other", address);
      await other.prefetch("other", ["model.safetensors"]);
      await until(() => server.requests(file).length > 1);
      await tab.open(id, address);
      const read = tab.hash(id, "model.safetensors");
      await until(async () => (await tab.events(id)).some(({ phase }) => phase === "waiting"));
      await tab.abort(id);
      await refusal(read, "aborted");
      await other.abort("other");
    },
    "after all is read": async (id) => {
      await tab.open(id, address);
      await tab.hash(id, "model.safetensors");
      await tab.abort(id);
      await refusal(tab.read(id, "model.safetensors", 0, 8), "aborted");
    },
  };
  for (const [phase, run] of Object.entries(phases)) {
    const begin = Date.now();
    await run(phase);
    assert.ok(Date.now() - begin < 2500, `${phase}: it took ${Date.now() - begin} ms`);
    server.faults.clear();
    server.log.length = 0;
    await tab.open(`${phase}, again`, address);
    assert.deepEqual(await tab.read(`${phase}, again`, "model.safetensors", 0, 8), [...WEIGHTS.subarray(0, 8)], phase);
    await tab.close(`${phase}, again`);
    // Deleting needs every lock: refused while any tab still has one.
    await tab.delete(address);
  }
});

test("a tab that is closed while it writes leaves what the next one goes on with", async () => {
  const path = "/closed/";
  const file = `${path}model.safetensors`;
  const address = publish(path);
  server.faults.set(file, { method: "GET", rate: 6 * MIB });
  let tab = await openTab();
  await tab.open("m", address);
  await tab.prefetch("m", ["model.safetensors"]);
  await until(async () => (await tab.missing("m")).missing < WEIGHTS.length - CHUNK);
  await tab.page.close();
  server.faults.clear();
  tab = await openTab();
  const from = server.log.length;
  await tab.open("m", address);
  const { missing } = await tab.missing("m");
  assert.ok(missing < WEIGHTS.length, "at least one chunk was kept");
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
  assert.equal(asked(file, from), missing - SMALL_BYTES);
});

test("of two tabs one downloads and the other waits; bytes are served once, and both can read", async () => {
  const path = "/two/";
  const file = `${path}model.safetensors`;
  const address = publish(path);
  server.faults.set(file, { method: "GET", rate: 12 * MIB });
  const [first, second] = [await openTab(), await openTab()];
  await first.open("m", address);
  await first.prefetch("m", ["model.safetensors"]);
  await until(() => server.bytes(file) > MIB);
  await second.open("m", address);
  await second.prefetch("m", ["model.safetensors"]);
  const hashes = await Promise.all([first, second].map((tab) => tab.hash("m", "model.safetensors")));
  assert.deepEqual(hashes, [sha256(WEIGHTS), sha256(WEIGHTS)]);
  assert.equal(asked(file), WEIGHTS.length);
  const events = await second.events("m");
  assert.equal(events.filter(({ phase }) => phase === "waiting").length, 1);
  assert.ok(events.at(-1).phase === "download" && events.at(-1).loaded >= WEIGHTS.length, "the waiting is over");
  assert.equal((await first.events("m")).filter(({ phase }) => phase === "waiting").length, 0);
  await refusal(first.delete(address), "bad-request", /in use/);
  await first.close("m");
  await refusal(first.delete(address), "bad-request", /in use/);
  await second.close("m");
  await first.delete(address);
});

test("a pass of a server without ranges keeps other tabs waiting, also while nobody reads from it", async () => {
  const path = "/two-without-ranges/";
  const file = `${path}model.safetensors`;
  const address = publish(path);
  server.faults.set(file, { noRanges: true, method: "GET", rate: 12 * MIB });
  const [first, second] = [await openTab(), await openTab()];
  await first.open("m", address);
  await first.read("m", "model.safetensors", 0, 8);
  assert.ok(server.bytes(file) < WEIGHTS.length, "the pass is under way");
  await second.open("m", address);
  assert.equal(await second.hash("m", "model.safetensors"), sha256(WEIGHTS));
  assert.equal((await second.events("m")).filter(({ phase }) => phase === "waiting").length, 1);
  assert.equal(await first.hash("m", "model.safetensors"), sha256(WEIGHTS));
  assert.equal(server.bytes(file), WEIGHTS.length);
  await second.close("m");
  // The chunk after the one that is read is being read ahead now.
  await first.read("m", "model.safetensors", 0, 8);
  await first.close("m");
  await first.delete(address);
});

test("what a server can say no with", async () => {
  const tab = await openTab();
  const { address, names } = publishShards("/no-shard/");
  complaintsOfThisTest.push(/status of (404|403|401|503|429)/, CUT);
  assert.deepEqual(
    (await tab.open("shards", publishShards("/shards/").address)) && (await tab.names("shards")),
    [...Object.keys(SMALL), ...names, "model.safetensors.index.json"].sort(),
  );
  assert.equal(await tab.hash("shards", names[1]), sha256(SHARDS[1]));
  server.files.delete(`/no-shard/${names[1]}`);
  await tab.open("m", address);
  await refusal(tab.size("m", names[1]), "not-found", new RegExp(names[1]), /model\.safetensors\.index\.json lists it/);

  await refusal(tab.open("m", `${server.url}/nothing/`), "not-found", /nothing\/config\.json: not found \(404\)/);
  assert.ok(
    (await tab.list()).every(({ name }) => !name.includes("/nothing/")),
    "a wrong address is not listed",
  );

  const html = publish("/html/");
  server.faults.set("/html/config.json", { html: true });
  await refusal(tab.open("m", html), "not-found", /config\.json: expected JSON, found HTML/);
  server.faults.delete("/html/config.json");
  for (const name of ["model.safetensors", "model.safetensors.index.json", "chat_template.jinja"]) {
    server.faults.set(`/html/${name}`, { html: true });
  }
  await tab.open("m", html);
  assert.equal(await tab.size("m", "chat_template.jinja"), undefined);
  await refusal(tab.size("m", "model.safetensors.index.json"), "not-found", /expected safetensors, found HTML/);

  const forbidden = publish("/forbidden/");
  server.faults.set("/forbidden/config.json", { status: 403 });
  const error = await refusal(tab.open("m", forbidden), "network", /403/, /headers/);
  assert.equal(error.details.status, 403);
  assert.equal(server.requests("/forbidden/config.json").length, 1, "a refusal is not asked again");

  // An object store's way to say 404.
  server.faults.delete("/forbidden/config.json");
  server.faults.set("/forbidden/chat_template.jinja", { status: 403 });
  await tab.open("m", forbidden);
  assert.equal(await tab.size("m", "chat_template.jinja"), undefined);
  assert.ok((await tab.names("m")).includes("model.safetensors"));

  const headless = publish("/no-head/");
  for (const name of [...Object.keys(SMALL), "model.safetensors"]) {
    server.faults.set(`/no-head/${name}`, { status: 405, method: "HEAD" });
  }
  complaintsOfThisTest.push(/status of 405/);
  await tab.open("m", headless);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));

  const busy = publish("/busy/");
  server.faults.set("/busy/config.json", { status: 503, times: 2 });
  server.faults.set("/busy/model.safetensors", {
    status: 429,
    times: 2,
    method: "GET",
    headers: { "retry-after": "0" },
  });
  await tab.open("m", busy, { timing: { firstDelay: 10 } });
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
  server.faults.set("/busy/model.safetensors", { status: 500, method: "GET" });
  await tab.open("m", busy, { store: false, timing: IMPATIENT });
  const gaveUp = await refusal(tab.read("m", "model.safetensors", 0, 8), "network", /answered 500, 2 times in a row/);
  assert.deepEqual(gaveUp.details, { url: `${busy}model.safetensors`, status: 500, bytes: 0 });

  const silent = publish("/silent/");
  server.faults.set("/silent/model.safetensors", { method: "GET", stallAfter: MIB, times: 1 });
  await tab.open("m", silent, { timing: { firstDelay: 10, silence: 300 } });
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
});

test("another origin: read with CORS and without preflights, refused without CORS by that name", async () => {
  const address = publish("/cors/", WEIGHTS, elsewhere);
  const tab = await openTab();
  await tab.open("m", address);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
  assert.ok(elsewhere.log.length > 0 && elsewhere.log.every(({ method }) => method !== "OPTIONS"));
  // Without Content-Range and ETag in sight, sizes come from lengths.
  const hidden = publish("/hidden/", WEIGHTS, elsewhere);
  for (const name of [...Object.keys(SMALL), "model.safetensors"]) {
    elsewhere.faults.set(`/hidden/${name}`, { headers: { "access-control-expose-headers": "" } });
  }
  await tab.open("h", hidden);
  await tab.prefetch("h", ["model.safetensors"]);
  assert.equal(await tab.hash("h", "model.safetensors"), sha256(WEIGHTS));
  assert.equal(asked("/hidden/model.safetensors", 0, elsewhere), WEIGHTS.length);
  complaintsOfThisTest.push(/blocked by CORS policy/, /Failed to load resource: net::ERR_FAILED/);
  const refused = publish("/no-cors/", WEIGHTS, elsewhere);
  elsewhere.faults.set("/no-cors/config.json", { noCors: true });
  const other = await openTab();
  const error = await refusal(other.open("m", refused), "network", /does not let pages of http:\/\/localhost/, /CORS/);
  assert.equal(error.details.status, null);
  await refusal(other.open("m", "ftp://localhost/m/"), "bad-request", /expected an http or https address, found ftp:/);
});

test("File objects are read by slice", async () => {
  const tab = await openTab();
  const name = await tab.openFiles("m", [
    ["pocket/old/config.json", "{1}"],
    ["pocket/config.json", '{"a": 1}'],
    ["pocket/model.safetensors", "0123456789"],
    ["pocket/old/tokenizer.json", "{}"],
  ]);
  assert.equal(name, "pocket");
  assert.deepEqual(await tab.names("m"), ["config.json", "model.safetensors"]);
  assert.equal(await tab.text("m", "config.json"), '{"a": 1}');
  assert.deepEqual(await tab.read("m", "model.safetensors", 2, 4), [50, 51]);
  assert.equal(await tab.size("m", "tokenizer.json"), undefined);
  await refusal(tab.read("m", "model.safetensors", 2, 11), "integrity", /the file has 10/);
});

test("a hub name: its files at the commit, a token for the hub only, and a commit without a request", async () => {
  const commits = ["a".repeat(40), "b".repeat(40)];
  const repository = "maker/zebra";
  const endpoint = server.url;
  let head = 0;
  const authorized = ({ headers }, response) => {
    if (headers.authorization === "Bearer secret") {
      return true;
    }
    response.writeHead(401).end();
    return false;
  };
  const weights = [WEIGHTS, OTHER_WEIGHTS];
  const entries = (commit) => [
    ...Object.entries(SMALL).map(([rfilename, text]) => ({ rfilename, size: text.length, blobId: sha256(text) })),
    {
      rfilename: "model.safetensors",
      size: 134,
      blobId: "c",
      lfs: { sha256: sha256(weights[commit]), size: weights[commit].length },
    },
    { rfilename: "onnx/model.onnx", size: 5 },
    { rfilename: "README.md", size: 5, blobId: "d" },
  ];
  const api = (commit) => (request, response) => {
    if (authorized(request, response)) {
      const text = JSON.stringify({ sha: commits[commit()], siblings: entries(commit()) });
      response.writeHead(200, { "content-type": "application/json" }).end(text);
    }
  };
  server.routes.set(
    `/api/models/${repository}/revision/main`,
    api(() => head),
  );
  server.routes.set(
    `/api/models/${repository}/revision/${commits[0]}`,
    api(() => 0),
  );
  commits.forEach((commit, index) => {
    for (const { rfilename } of entries(index)) {
      // As the hub does: the bytes lie on another origin, which must not see the token.
      server.routes.set(`/${repository}/resolve/${commit}/${rfilename}`, (request, response) => {
        if (authorized(request, response)) {
          response.writeHead(302, { location: `${elsewhere.url}/cdn/${index}/${rfilename}` }).end();
        }
      });
    }
    publish(`/cdn/${index}/`, weights[index], elsewhere);
  });
  const tab = await openTab();
  complaintsOfThisTest.push(/status of 401/);
  await refusal(tab.open("m", repository, { endpoint }), "network", /401/, /Authorization/);
  const options = { endpoint, headers: { Authorization: "Bearer secret" } };
  const { name } = await tab.open("m", repository, options);
  assert.equal(name, `${endpoint}/${repository}@main`);
  assert.deepEqual(await tab.names("m"), [...Object.keys(SMALL), "README.md", "model.safetensors"].sort());
  for (const [file, text] of Object.entries(SMALL)) {
    assert.equal(await tab.text("m", file), text);
  }
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
  const cdn = elsewhere.requests(/^\/cdn\//);
  assert.ok(cdn.length > 5 && cdn.every(({ headers }) => headers.authorization === undefined));
  await tab.close("m");

  // The same commit again: one question about the branch, no file.
  let from = server.log.length;
  await tab.open("m", repository, options);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
  await tab.close("m");
  assert.deepEqual(
    server.log.slice(from).map(({ path }) => path),
    [`/api/models/${repository}/revision/main`],
  );

  // A new commit: only what differs.
  head = 1;
  const begin = elsewhere.log.length;
  await tab.open("m", repository, options);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(OTHER_WEIGHTS));
  assert.equal(await tab.text("m", "tokenizer.json"), SMALL["tokenizer.json"]);
  await tab.close("m");
  assert.ok(elsewhere.log.slice(begin).every(({ path }) => path === "/cdn/1/model.safetensors"));

  // A commit by name: once it is here, no request at all.
  await tab.open("m", `${repository}@${commits[0]}`, options);
  await tab.hash("m", "model.safetensors");
  await tab.close("m");
  from = server.log.length;
  await tab.open("m", repository, { ...options, revision: commits[0] });
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(WEIGHTS));
  await tab.close("m");
  assert.equal(server.log.length, from);

  // Without network the branch is the commit that it was.
  await browser.context.setOffline(true);
  try {
    complaintsOfThisTest.push(/ERR_INTERNET_DISCONNECTED/);
    await tab.open("m", repository, options);
    assert.equal(await tab.hash("m", "model.safetensors"), sha256(OTHER_WEIGHTS));
  } finally {
    await browser.context.setOffline(false);
  }
  await refusal(tab.open("n", "maker/zebra@main", { ...options, revision: "v2" }), "bad-request", /one revision/);
  complaintsOfThisTest.push(/status of 404 .*revision\/v2/);
  await refusal(
    tab.open("n", "maker/zebra@v2", options),
    "not-found",
    /no model "maker\/zebra" with the revision "v2"/,
  );
});

test("models are listed with their sizes and deleted; leftovers are cleaned up", async () => {
  const [whole, half] = [publish("/list-whole/", SHARDS[0]), publish("/list-half/", SHARDS[0])];
  const tab = await openTab();
  const begin = Date.now();
  await tab.open("m", half);
  await tab.text("m", "config.json");
  await tab.close("m");
  await tab.open("m", whole);
  for (const name of [...Object.keys(SMALL), "model.safetensors"]) {
    await tab.hash("m", name);
  }
  await tab.close("m");
  await tab.leftover("half-written");
  const models = (await tab.list()).filter(({ name }) => name.includes("/list-"));
  assert.deepEqual(
    models.map(({ name, complete }) => ({ name, complete })),
    [
      { name: whole, complete: true },
      { name: half, complete: false },
    ],
  );
  const bytes = SHARDS[0].length + SMALL_BYTES;
  assert.ok(models[0].bytes > bytes && models[0].bytes < bytes + 4096, `${models[0].bytes} of ${bytes} bytes`);
  assert.ok(models.every(({ lastUsed }) => lastUsed >= begin && lastUsed <= Date.now()));
  assert.ok(!(await tab.folders()).includes("half-written"));
  await tab.delete(whole);
  assert.ok(!(await tab.list()).some(({ name }) => name === whole));
  await refusal(tab.delete(whole), "not-found", /no model .*list-whole/, /list-half/);
  const from = server.log.length;
  await tab.open("m", whole);
  assert.equal(await tab.hash("m", "model.safetensors"), sha256(SHARDS[0]));
  assert.equal(asked("/list-whole/model.safetensors", from), SHARDS[0].length);
});

test("a quantized form appears with its commit, goes when the source changes, and is not fetched", async () => {
  const path = "/variant/";
  const address = publish(path, SHARDS[0]);
  const tab = await openTab();
  const files = [
    ["config.json", '{"format": "q4"}'],
    ["model.safetensors", "quantized".repeat(600_000)],
  ];
  await tab.open("m", address, { store: false });
  await tab.quantize("m", "q4", files, "abort");
  assert.equal((await tab.open("n", address, { variant: "q4" })).variant, undefined);
  await tab.close("n");
  const unfinished = await openTab();
  await unfinished.open("m", address, { store: false });
  await unfinished.quantize("m", "q4", files, undefined);
  assert.equal((await tab.open("n", address, { variant: "q4" })).variant, undefined);
  await tab.close("n");
  await refusal(tab.quantize("m", "q4", files, "commit"), "bad-request", /in use/);
  await unfinished.page.close();
  await until(() =>
    tab.quantize("m", "q4", files, "commit").then(
      () => true,
      (error) => error.code !== "bad-request",
    ),
  );
  await tab.close("m");

  const from = server.log.length;
  const { name, variant } = await tab.open("n", address, { variant: "q4" });
  assert.deepEqual({ name, variant }, { name: `${address}#q4`, variant: "q4" });
  assert.deepEqual(await tab.names("n"), ["config.json", "model.safetensors"]);
  assert.equal(await tab.hash("n", "model.safetensors"), sha256(files[1][1]));
  assert.deepEqual(gets(from), []);
  const listed = (await tab.list()).find((model) => model.name === name);
  assert.ok(listed.complete && listed.bytes > files[1][1].length);
  await refusal(tab.quantize("n", "q4", files, "commit"), "bad-request");
  await tab.close("n");

  await tab.flip(name, "model.safetensors", 5);
  await tab.open("n", address, { variant: "q4" });
  await refusal(tab.read("n", "model.safetensors", 0, 4), "integrity", /damaged/);
  await tab.close("n");

  await browser.context.setOffline(true);
  try {
    complaintsOfThisTest.push(/ERR_INTERNET_DISCONNECTED/);
    assert.equal((await tab.open("n", address, { variant: "q4" })).variant, "q4");
    await tab.close("n");
  } finally {
    await browser.context.setOffline(false);
  }
  server.files.set(`${path}model.safetensors`, SHARDS[1]);
  assert.equal((await tab.open("n", address, { variant: "q4" })).variant, undefined);
  assert.ok(!(await tab.list()).some((model) => model.name === name));
});

for (const store of [false, true]) {
  test(`offsets above 4 GiB${store ? ", stored" : ""}`, async () => {
    const path = `/large-${store}/`;
    const size = 5 * 1024 * MIB + 77;
    // Differs from what any offset modulo 2^31 or 2^32 has.
    const byteAt = (offset) => (offset % 251) ^ (Math.floor(offset / 2 ** 31) * 16);
    const read = (start, end) => Uint8Array.from({ length: end - start }, (_, index) => byteAt(start + index));
    const address = publish(path);
    server.files.set(`${path}model.safetensors`, { size, read });
    const tab = await openTab();
    await tab.open("m", address, { store });
    assert.equal(await tab.size("m", "model.safetensors"), size);
    const ranges = [
      [size - 100, size],
      [2 ** 32 - 5, 2 ** 32 + 5],
      [2 ** 31 - 5, 2 ** 31 + 5],
    ];
    for (const [start, end] of ranges) {
      assert.deepEqual(await tab.read("m", "model.safetensors", start, end), [...read(start, end)]);
    }
    assert.notDeepEqual([...read(size - 100, size)], [...read((size - 100) % 2 ** 32, size % 2 ** 32)]);
    await tab.close("m");
    if (store) {
      const from = server.log.length;
      await tab.open("m", address);
      for (const [start, end] of ranges) {
        assert.deepEqual(await tab.read("m", "model.safetensors", start, end), [...read(start, end)]);
      }
      assert.deepEqual(gets(from), []);
      await tab.close("m");
      await tab.delete(address);
    }
  });
}
