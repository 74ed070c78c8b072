// The packed npm package, installed into projects of its users and run from there: Vite (built and in development),
// webpack, an import map, another origin as with a CDN, and TypeScript. Nothing is fetched from a registry: the package
// has no dependencies, and the bundlers are those of tests/browser.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { publint } from "publint";
import { build, createServer } from "vite";
import webpack from "webpack";
import { openBrowser } from "./browser.mjs";
import { startServer } from "./server.mjs";
import { serveTiny, tinyExpected } from "./tiny.mjs";

const run = promisify(execFile);
const here = fileURLToPath(new URL(".", import.meta.url));
const web = fileURLToPath(new URL("../../web/", import.meta.url));
/** A page's download of the package, gzipped. */
const MOST_BYTES = 1_500_000;
const { prompt, answer } = tinyExpected("gqa");

let folder;
let tarball;
let browser;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "zebra-package-"));
  const { stdout } = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], { cwd: web });
  tarball = join(folder, JSON.parse(stdout)[0].filename);
  browser = await openBrowser();
  // Vite's development server has none.
  browser.expect(/Failed to load resource: .* 404 .*\/favicon\.ico/);
  await browser.context.addInitScript(`window.prompt_ids = ${JSON.stringify(prompt)}`);
});

after(async () => {
  await browser?.close();
  await rm(folder, { recursive: true, force: true });
});

/** An empty project with the package installed and the files of consumers/NAME. */
async function project(name) {
  const root = join(folder, name);
  await mkdir(root, { recursive: true });
  await writeFile(join(root, "package.json"), JSON.stringify({ name, private: true, type: "module" }));
  await run("npm", ["install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", tarball], { cwd: root });
  await cp(join(here, "consumers", name), root, { recursive: true });
  await cp(join(here, "consumers", "main.js"), join(root, "main.js"));
  return root;
}

/** The ids that the page at `url` gets from the tiny checkpoint. */
async function idsOf(url) {
  const page = await browser.newPage(url);
  await page.waitForFunction(() => window.ids, undefined, { timeout: 120_000 }).catch((error) => {
    // What the page said tells more.
    browser.check();
    throw error;
  });
  const ids = await page.evaluate(() => window.ids);
  await page.close();
  browser.check();
  return ids;
}

/** Serves a folder, and the tiny checkpoint beside it. */
async function served(root, use) {
  const server = await startServer({ mounts: { "/": root } });
  serveTiny(server, "gqa");
  try {
    return await use(server);
  } finally {
    await server.close();
  }
}

test("holds what it should and no more, and is small", async () => {
  const root = await project("vite");
  const packed = join(root, "node_modules", "zebra-runtime");
  const files = await readdir(packed, { recursive: true });
  for (const file of ["package.json", "README.md", "dist/index.js", "dist/worker.js", "dist/zebra_bg.wasm", "dist/index.d.ts"]) {
    assert.ok(files.includes(file), `${file} is not in the package`);
  }
  const strangers = files.filter((file) => !/^(dist|package\.json|README\.md|LICENSE.*)(\/|$)/.test(file));
  assert.deepEqual(strangers, []);

  let total = 0;
  for (const name of ["index.js", "worker.js", "zebra_bg.wasm"]) {
    const bytes = await readFile(join(packed, "dist", name));
    const zipped = gzipSync(bytes, { level: 9 }).length;
    total += zipped;
    console.log(`${name}: ${bytes.length} bytes, ${zipped} gzipped`);
  }
  console.log(`all: ${total} bytes gzipped`);
  assert.ok(total <= MOST_BYTES, `${total} bytes gzipped`);
  const manifest = JSON.parse(await readFile(join(packed, "package.json"), "utf8"));
  assert.deepEqual(manifest.dependencies ?? {}, {});
});

test("attw and publint find nothing", async () => {
  const attw = join(here, "node_modules", "@arethetypeswrong", "cli", "dist", "index.js");
  // There is no CommonJS form: what runs in a worker of a page is a module. attw exits with 1 for anything else.
  await run(process.execPath, [attw, tarball, "--profile", "esm-only"]).catch(({ stdout }) => assert.fail(stdout));
  const root = await project("vite");
  const { messages } = await publint({ pkgDir: join(root, "node_modules", "zebra-runtime"), strict: true });
  assert.deepEqual(messages, []);
});

test("type checks in a Node project and in a bundler's", async () => {
  const root = await project("types");
  const tsc = join(web, "node_modules", "typescript", "bin", "tsc");
  for (const kind of ["nodenext", "bundler"]) {
    await run(process.execPath, [tsc, "-p", `tsconfig.${kind}.json`], { cwd: root }).catch(({ stdout }) => assert.fail(stdout));
  }
});

test("runs from an import map", async () => {
  const root = await project("import-map");
  const html = join(root, "index.html");
  await writeFile(html, (await readFile(html, "utf8")).replace("PACKAGE", "/node_modules/zebra-runtime"));
  assert.deepEqual(await served(root, ({ url }) => idsOf(`${url}/index.html`)), answer);
});

test("runs from another origin, as from a CDN", async () => {
  const root = await project("import-map");
  await served(join(root, "node_modules", "zebra-runtime"), async (cdn) => {
    const html = join(root, "index.html");
    const source = await readFile(join(here, "consumers", "import-map", "index.html"), "utf8");
    await writeFile(html, source.replace("PACKAGE", cdn.url));
    const ids = await served(root, ({ url }) => idsOf(`${url}/index.html`));
    assert.deepEqual(ids, answer);
    assert.equal(cdn.requests("/dist/worker.js").length, 1);
    assert.equal(cdn.requests("/dist/zebra_bg.wasm").length, 1);
  });
});

test("is built by Vite", async () => {
  const root = await project("vite");
  await build({ root, logLevel: "error", configFile: false });
  const assets = await readdir(join(root, "dist", "assets"));
  assert.equal(assets.filter((name) => name.endsWith(".wasm")).length, 1, assets.join(" "));
  assert.deepEqual(await served(join(root, "dist"), ({ url }) => idsOf(`${url}/index.html`)), answer);
});

test("runs in Vite's development server", async () => {
  const root = await project("vite");
  await served(root, async (models) => {
    const proxy = { "/tiny-gqa": models.url };
    const server = await createServer({ root, logLevel: "error", configFile: false, server: { port: 0, host: "localhost", proxy } });
    await server.listen();
    try {
      assert.deepEqual(await idsOf(server.resolvedUrls.local[0]), answer);
    } finally {
      await server.close();
    }
  });
});

test("is built by webpack", async () => {
  const root = await project("webpack");
  const stats = await promisify(webpack)({
    context: root,
    mode: "production",
    entry: "./main.js",
    output: { path: join(root, "dist"), filename: "main.js" },
    performance: { hints: false },
  });
  const { errors, warnings } = stats.toJson({ errors: true, warnings: true });
  assert.deepEqual([...errors, ...warnings].map(({ message }) => message), []);
  await cp(join(root, "index.html"), join(root, "dist", "index.html"));
  assert.deepEqual(await served(join(root, "dist"), ({ url }) => idsOf(`${url}/index.html`)), answer);
});
