// What the self-test of the kernels found, kept so that it runs once on a machine and not with every load.

import { version } from "../../package.json";

const CACHE = "zebra-runtime";

/** The kept verdict on this adapter, if any. */
export async function keptVerdict(adapter: GPUAdapter): Promise<string | undefined> {
  const kept = await (await open())?.match(key(adapter));
  return kept?.text();
}

export async function keepVerdict(adapter: GPUAdapter, verdict: string): Promise<void> {
  await (await open())?.put(key(adapter), new Response(verdict));
}

/** Browsers refuse it in some private windows; the test then runs with every load. */
function open(): Promise<Cache | undefined> {
  return caches.open(CACHE).catch(() => undefined);
}

/** Browsers do not tell the driver's version. A new browser or a new package tests again. */
function key({ info }: GPUAdapter): string {
  const parts = [info.vendor, info.architecture, info.device, info.description, navigator.userAgent, version];
  return `/zebra-runtime/self-test/${parts.map(encodeURIComponent).join("/")}`;
}
