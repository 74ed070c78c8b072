// Headless Chromium with WebGPU on pages of http://localhost, for tests.

import { createServer } from "node:http";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const SETUP = "run scripts/setup-test-tools.sh";

// Quiet, without first-run work; WebGPU on a software adapter is behind the "unsafe" flag.
const FLAGS = [
  "--enable-unsafe-webgpu",
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The Chromium to use: $CHROMIUM, else where Debian and Ubuntu put it. */
function executable() {
  const candidates = process.env.CHROMIUM
    ? [process.env.CHROMIUM]
    : ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  const found = candidates.find(existsSync);
  if (!found) {
    throw new Error(`no Chromium at ${candidates.join(", ")}: ${SETUP}, or set CHROMIUM to its path`);
  }
  return found;
}

async function loadPlaywright() {
  try {
    return await import("playwright-core");
  } catch (error) {
    throw new Error(`playwright-core cannot be loaded (${error.message}): ${SETUP}`);
  }
}

/** Calls `use(page, version)` with a page that has `navigator.gpu`, and closes all of it afterwards. */
export async function withPage(use) {
  const { chromium } = await loadPlaywright();
  const executablePath = executable();
  // WebGPU needs a secure context, and localhost is one.
  const server = createServer((request, response) => {
    response.writeHead(request.url === "/" ? 200 : 404, { "content-type": "text/html" });
    response.end("<!doctype html><title>zebra tests</title>");
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "localhost", resolve));
  let browser;
  try {
    browser = await chromium.launch({ executablePath, args: FLAGS });
    const page = await browser.newPage();
    await page.goto(`http://localhost:${server.address().port}/`);
    return await use(page, browser.version());
  } finally {
    await browser?.close();
    server.close();
  }
}

/**
 * A browser with a profile of its own on disk, so that storage outlives a restart. Console errors, uncaught errors and
 * unhandled rejections of every page and worker are gathered; `close()` and `check()` throw when there are any.
 *
 * @param {object} [options]
 * @param {object} [options.context]  more options for the context: viewport, colorScheme, offline …
 */
export async function openBrowser({ context: contextOptions = {} } = {}) {
  const { chromium } = await loadPlaywright();
  const executablePath = executable();
  const profile = await mkdtemp(join(tmpdir(), "zebra-profile-"));
  const complaints = [];
  const expected = [];
  let context;

  async function start() {
    context = await chromium.launchPersistentContext(profile, { executablePath, args: FLAGS, ...contextOptions });
    context.on("console", (message) => {
      if (message.type() === "error") {
        complaints.push(`console error: ${message.text()} (${message.location().url})`);
      }
    });
    context.on("weberror", (event) => {
      const error = event.error();
      complaints.push(`uncaught: ${error.stack || error.message || error}`);
    });
    context.on("page", (page) => page.on("crash", () => complaints.push(`the page crashed: ${page.url()}`)));
  }
  await start();

  const browser = {
    get context() {
      return context;
    },
    /** A new page at `url`. */
    async newPage(url) {
      const page = await context.newPage();
      await page.goto(url);
      return page;
    },
    /** Ends the browser, as a user who quits it, and starts it again with the same profile. */
    async restart() {
      await context.close();
      await start();
    },
    /** Complaints that match are none: the console's lines about a 404 that a test brings about. */
    expect(...patterns) {
      expected.push(...patterns);
    },
    /** Throws when something complained, and forgets it. */
    check() {
      const found = complaints.splice(0).filter((text) => !expected.some((pattern) => pattern.test(text)));
      if (found.length > 0) {
        throw new Error(`the browser complained:\n  ${found.join("\n  ")}`);
      }
    },
    async close() {
      await context.close();
      await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
      browser.check();
    },
  };
  return browser;
}
