// Builds the chat page into a folder that any static host can serve, under any path.

import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const ICONS = ["icon.svg", "icon-192.png", "icon-512.png", "icon-maskable.png"];
const COMMON = { bundle: true, minify: true, target: "es2022", logLevel: "warning", absWorkingDir: HERE };

/**
 * @param {object} options
 * @param {string} options.dist  the built package
 * @param {string} options.out  where the page goes; a folder `models` in it is left alone
 * @param {string} [options.packageEntry]  another module in the package's place, for tests of the page itself; the
 *   package's worker and wasm are left out then
 */
export async function buildPage({ dist, out, packageEntry }) {
  await mkdir(out, { recursive: true });
  for (const name of await readdir(out)) {
    if (name !== "models") {
      await rm(join(out, name), { recursive: true });
    }
  }
  const { metafile } = await build({
    ...COMMON,
    entryPoints: ["main.ts", "style.css"],
    entryNames: "[name]-[hash]",
    outdir: out,
    format: "esm",
    alias: { "zebra-runtime": packageEntry ?? join(dist, "index.js") },
    metafile: true,
  });
  const { metafile: themeFile } = await build({
    ...COMMON,
    entryPoints: ["theme.ts"],
    entryNames: "[name]-[hash]",
    outdir: out,
    format: "iife",
    metafile: true,
  });
  const built = {};
  for (const [path, { entryPoint }] of Object.entries({ ...metafile.outputs, ...themeFile.outputs })) {
    built[entryPoint] = relative(out, join(HERE, path));
  }
  let html = await readFile(join(HERE, "index.html"), "utf8");
  for (const [name, source] of [
    ["main.js", "main.ts"],
    ["style.css", "style.css"],
    ["theme.js", "theme.ts"],
  ]) {
    const mention = `"${name}"`;
    if (html.split(mention).length !== 2) {
      throw new Error(`page/index.html: expected ${mention} once`);
    }
    html = html.replace(mention, `"${built[source]}"`);
  }
  await writeFile(join(out, "index.html"), html);
  await copyFile(join(HERE, "manifest.webmanifest"), join(out, "manifest.webmanifest"));
  for (const name of ICONS) {
    await copyFile(join(HERE, "icons", name), join(out, name));
  }
  const parts = packageEntry ? [] : ["worker.js", "zebra_bg.wasm"];
  for (const name of parts) {
    await copyFile(join(dist, name), join(out, name));
  }

  const files = ["index.html", ...Object.values(built), "manifest.webmanifest", ...ICONS, ...parts];
  const hash = createHash("sha256");
  for (const name of files) {
    hash.update(name).update(await readFile(join(out, name)));
  }
  await build({
    ...COMMON,
    entryPoints: ["worker/service-worker.ts"],
    outdir: out,
    entryNames: "[name]",
    format: "iife",
    define: {
      // "./" is what a start of the page asks for.
      ASSETS: JSON.stringify(["./", ...files]),
      VERSION: JSON.stringify(hash.digest("hex").slice(0, 16)),
    },
  });
}
