// Headless Chromium with WebGPU on a page of http://localhost, for tests.

import { createServer } from "node:http";
import { existsSync } from "node:fs";

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

/** Calls `use(page, version)` with a page that has `navigator.gpu`, and closes all of it afterwards. */
export async function withPage(use) {
  let chromium;
  try {
    ({ chromium } = await import("playwright-core"));
  } catch (error) {
    throw new Error(`playwright-core cannot be loaded (${error.message}): ${SETUP}`);
  }
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
