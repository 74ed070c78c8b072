// Builds the npm package into dist/ and the chat page into site/.
//
//   node build.mjs             everything
//   node build.mjs --missing   only what is not there
//   node build.mjs --watch     everything, then again what a change touches, until it is interrupted
//   --serve                    then serves site/ (PORT, 8080 when it is not set)
//
// Rust to wasm by cargo, glue by wasm-bindgen, smaller by wasm-opt, TypeScript by esbuild and tsc.

import { spawn } from "node:child_process";
import { existsSync, watch } from "node:fs";
import { copyFile, mkdir, readFile, readdir, rm, stat } from "node:fs/promises";
import { delimiter, dirname, join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const PROFILE = "wasm-release";
const TARGET = "wasm32-unknown-unknown";
/** What a page may have to download of the package, gzipped. */
const MOST_BYTES = 1_500_000;
/** What rustc emits and every browser with WebGPU has. With --all-features wasm-opt makes files that Chromium refuses. */
const WASM_FEATURES = [
  "bulk-memory",
  "bulk-memory-opt",
  "multivalue",
  "mutable-globals",
  "nontrapping-float-to-int",
  "reference-types",
  "sign-ext",
];

const web = dirname(fileURLToPath(import.meta.url));
const root = dirname(web);
const dist = join(web, "dist");
const site = join(web, "site");
const door = join(web, "package", "worker", "door");
const pocket = join(root, "models", "zebra-pocket");
const packed = join(site, "models", "zebra-pocket");
const page = join(web, "page", "build.mjs");

function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: "inherit", ...options });
    let output = "";
    child.stdout?.on("data", (data) => (output += data));
    child.once("error", (error) => {
      reject(new Error(error.code === "ENOENT" ? `${command} is not installed` : `${command}: ${error.message}`));
    });
    child.once("close", (code) => {
      const line = [relative(root, command) || command, ...args].join(" ");
      return code === 0 ? resolve(output) : reject(new Error(`failed (${code}): ${line}`));
    });
  });
}

/** The environment of cargo for wasm32: that of the compiler which setup-test-tools.sh put up, where it had to. */
async function wasmEnvironment() {
  const file = join(root, ".tools", "wasm", "env.sh");
  if (!existsSync(file)) {
    return process.env;
  }
  const output = await run("bash", ["-c", '. "$0"; env -0', file], { stdio: ["ignore", "pipe", "inherit"] });
  const entries = output.split("\0").filter(Boolean);
  return Object.fromEntries(entries.map((entry) => [entry.split("=", 1)[0], entry.slice(entry.indexOf("=") + 1)]));
}

/** The wasm-bindgen of exactly the version in Cargo.lock: the two speak no stable format. */
async function findBindgen() {
  const lock = await readFile(join(root, "Cargo.lock"), "utf8");
  const version = /name = "wasm-bindgen"\nversion = "([^"]+)"/.exec(lock)?.[1];
  if (!version) {
    throw new Error("Cargo.lock has no wasm-bindgen");
  }
  const seen = [];
  for (const folder of [join(root, ".tools", "bin"), ...(process.env.PATH ?? "").split(delimiter)]) {
    const command = join(folder, process.platform === "win32" ? "wasm-bindgen.exe" : "wasm-bindgen");
    if (existsSync(command)) {
      const found = (await run(command, ["--version"], { stdio: ["ignore", "pipe", "inherit"] })).trim().split(" ").pop();
      if (found === version) {
        return command;
      }
      seen.push(`${command} is ${found}`);
    }
  }
  throw new Error(
    `wasm-bindgen ${version} is needed (the version in Cargo.lock), found ${seen.join(", ") || "none"}; ` +
      "run scripts/setup-test-tools.sh, or cargo install wasm-bindgen-cli --version " +
      `${version} --root .tools`,
  );
}

async function buildWasm() {
  const bindgen = await findBindgen();
  const env = await wasmEnvironment();
  await run("cargo", ["build", "--profile", PROFILE, "-p", "zebra-web", "--target", TARGET], { env });
  const target = join(root, env.CARGO_TARGET_DIR ?? "target");
  const folder = env.CARGO_TARGET_DIR?.startsWith("/") ? env.CARGO_TARGET_DIR : target;
  const input = join(folder, TARGET, PROFILE, "zebra_web.wasm");
  await run(bindgen, [input, "--target", "web", "--out-name", "zebra", "--omit-default-module-path", "--out-dir", door]);
  const wasm = join(door, "zebra_bg.wasm");
  const optimize = join(web, "node_modules", "binaryen", "bin", "wasm-opt");
  await run(process.execPath, [optimize, "-Oz", ...WASM_FEATURES.map((name) => `--enable-${name}`), wasm, "-o", wasm]);
}

async function buildPackage() {
  await rm(dist, { recursive: true, force: true });
  await build({
    entryPoints: { index: join(web, "package", "index.ts"), worker: join(web, "package", "worker", "worker.ts") },
    outdir: dist,
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true,
    // Beside the files, so that they cost a page nothing and an error's lines can be found.
    sourcemap: "linked",
    sourcesContent: true,
    legalComments: "none",
    logLevel: "warning",
  });
  await copyFile(join(door, "zebra_bg.wasm"), join(dist, "zebra_bg.wasm"));
  for (const name of ["LICENSE-APACHE", "LICENSE-MIT"]) {
    await copyFile(join(root, name), join(dist, name));
  }
  const tsc = join(web, "node_modules", "typescript", "bin", "tsc");
  await run(process.execPath, [tsc, "-p", join(web, "package", "tsconfig.json")]);
  await printSizes();
}

async function printSizes() {
  const kilobytes = (bytes) => `${(bytes / 1000).toFixed(1)} kB`.padStart(11);
  let total = 0;
  for (const name of ["index.js", "worker.js", "zebra_bg.wasm"]) {
    const bytes = await readFile(join(dist, name));
    const zipped = gzipSync(bytes, { level: 9 }).length;
    total += zipped;
    console.log(`${name.padEnd(14)}${kilobytes(bytes.length)}${kilobytes(zipped)} gzipped`);
  }
  console.log(`${"all".padEnd(14)}${" ".repeat(11)}${kilobytes(total)} gzipped`);
  if (total > MOST_BYTES) {
    throw new Error(`the package has ${total} bytes gzipped, more than ${MOST_BYTES}`);
  }
}

/** The pocket model in the form that the page loads at once. */
async function buildPocket() {
  if (existsSync(packed) && (await newest(packed)) >= (await newest(pocket))) {
    return;
  }
  await rm(packed, { recursive: true, force: true });
  await mkdir(dirname(packed), { recursive: true });
  // The development profile: the tests have built it already, and 33 MB are quantized in a second.
  await run("cargo", ["run", "-q", "-p", "zebra", "--", "quantize", pocket, packed, "--format", "q8"]);
}

async function newest(folder) {
  const names = await readdir(folder);
  return Math.max(...(await Promise.all(names.map(async (name) => (await stat(join(folder, name))).mtimeMs))));
}

async function buildPage() {
  if (!existsSync(page)) {
    return;
  }
  const { buildPage } = await import(pathToFileURL(page).href);
  await buildPage({ dist, out: site });
  await buildPocket();
}

/** Builds again what a change touches, one change at a time. */
function watchSources() {
  const sources = [
    { folders: ["page"], steps: [buildPage] },
    { folders: ["package"], steps: [buildPackage, buildPage] },
    { folders: ["src", "../runtime/src", "../shaders"], steps: [buildWasm, buildPackage, buildPage] },
  ];
  const waiting = new Set();
  let timer;
  let running = Promise.resolve();
  const work = async () => {
    const steps = [buildWasm, buildPackage, buildPage].filter((step) => waiting.delete(step));
    for (const step of steps) {
      await step().catch((error) => console.error(`build.mjs: ${error.message}`));
    }
  };
  for (const { folders, steps } of sources) {
    for (const folder of folders.filter((folder) => existsSync(join(web, folder)))) {
      watch(join(web, folder), { recursive: true }, (_event, name) => {
        // The glue is ours, too.
        if (name?.includes(`worker/door`)) {
          return;
        }
        steps.forEach((step) => waiting.add(step));
        clearTimeout(timer);
        timer = setTimeout(() => (running = running.then(work)), 200);
      });
    }
  }
}

async function main() {
  const flags = new Set(process.argv.slice(2));
  const unknown = [...flags].filter((flag) => !["--missing", "--watch", "--serve"].includes(flag));
  if (unknown.length > 0) {
    throw new Error(`unknown: ${unknown.join(" ")}; known are --missing, --watch, --serve`);
  }
  const missing = flags.has("--missing");
  if (!missing || !existsSync(join(door, "zebra_bg.wasm"))) {
    await buildWasm();
  }
  if (!missing || !existsSync(join(dist, "index.d.ts"))) {
    await buildPackage();
  }
  if (!missing || !existsSync(join(site, "index.html")) || !existsSync(packed)) {
    await buildPage();
  }
  if (flags.has("--watch")) {
    watchSources();
  }
  if (flags.has("--serve")) {
    const sirv = join(web, "node_modules", "sirv-cli", "bin.js");
    // --dev reads files anew, which a rebuild needs.
    await run(process.execPath, [sirv, site, "--dev", "--host", "localhost", "--port", process.env.PORT ?? "8080"]);
  }
}

main().catch((error) => {
  console.error(`build.mjs: ${error.message}`);
  process.exitCode = 1;
});
