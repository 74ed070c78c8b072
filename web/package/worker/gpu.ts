// What the browser's WebGPU needs before wgpu can use it.

import { ZebraError } from "../errors.js";

/** Chromium's first answer after a page load is often null although there is a card; one asked 150 ms later is not. */
const ATTEMPTS = 20;
const PAUSE_MS = 150;

/** The adapter that wgpu will get. */
export async function findAdapter(signal: AbortSignal): Promise<GPUAdapter> {
  // The type says that it is always there.
  const gpu: GPU | undefined = navigator.gpu;
  if (!gpu) {
    throw new ZebraError(
      "no-webgpu",
      "this browser has no WebGPU in workers. It is in Chrome and Edge 113 and later, Safari 26, and Firefox 141 on " +
        "Windows and 145 on macOS; on Linux, Chrome may need it switched on in chrome://flags (\"WebGPU\")",
    );
  }
  for (let attempt = 1; ; attempt++) {
    signal.throwIfAborted();
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    if (adapter) {
      return adapter;
    }
    if (attempt === ATTEMPTS) {
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  throw new ZebraError(
    "no-webgpu",
    `the browser has WebGPU but offers no adapter, asked ${ATTEMPTS} times. Update the graphics driver, switch on ` +
      '"use graphics acceleration" in the browser\'s settings and start it again; chrome://gpu says what is missing',
  );
}

/**
 * wgpu has no name for the browsers' subgroups yet (gfx-rs/wgpu#10146), so a device of its own making lacks them. What
 * it asks for passes through here, in this worker only.
 */
export function askForSubgroups(): void {
  const requestDevice = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = function (descriptor = {}) {
    const features = new Set<GPUFeatureName>(descriptor.requiredFeatures);
    if (this.features.has("subgroups")) {
      features.add("subgroups");
    }
    return requestDevice.call(this, { ...descriptor, requiredFeatures: [...features] });
  };
}
