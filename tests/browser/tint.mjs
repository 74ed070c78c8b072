// Compiles shaders with Tint, the WGSL compiler of Chrome, which refuses some of what naga accepts.
//
//   node tint.mjs SHADERS.json
//
// SHADERS.json is a list of {"name", "source", "constants"?, "bindings"?}: the whole joined text; the values of its
// override constants; for an explicit layout a list of {"group"?, "binding", "type"} with the buffer types of WebGPU
// ("uniform", "storage", "read-only-storage"), else the layout is the shader's own. Each becomes a compute pipeline
// with the entry point `main`. Exit 1 when one is refused, or when there is no adapter to compile for.

import { readFileSync } from "node:fs";
import { withPage } from "./browser.mjs";

// Valid for naga. Tint must refuse it, or this check would prove nothing: whether the barrier is reached depends on
// the invocation.
const CONTROL = {
  name: "control: a barrier below a non-uniform return",
  source: `
    var<workgroup> shared_values: array<f32, 64>;
    @group(0) @binding(0) var<storage, read_write> output: array<f32>;
    @compute @workgroup_size(64)
    fn main(@builtin(local_invocation_index) lane: u32) {
      shared_values[lane] = f32(lane);
      if (lane > 40u) { return; }
      workgroupBarrier();
      output[lane] = shared_values[lane + 1u];
    }`,
  refusal: /uniform control flow/,
};

/** Runs in the page: the messages of each shader, none when it became a pipeline. */
async function compileAll(shaders) {
  if (!navigator.gpu) {
    return { failure: "navigator.gpu is missing" };
  }
  let adapter = null;
  // The first request after a page load may answer null although there is an adapter.
  for (let attempt = 0; attempt < 20 && !adapter; attempt++) {
    adapter = await navigator.gpu.requestAdapter();
    if (!adapter) {
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
  if (!adapter) {
    return { failure: "requestAdapter() gave null 20 times" };
  }
  const requiredLimits = {};
  for (const name in adapter.limits) {
    requiredLimits[name] = adapter.limits[name];
  }
  const device = await adapter.requestDevice({ requiredFeatures: [...adapter.features], requiredLimits });
  const lost = [];
  device.lost.then((info) => lost.push(info.message));
  const uncaptured = [];
  device.addEventListener("uncapturederror", (event) => uncaptured.push(event.error.message));

  const results = [];
  for (const { source, constants, bindings } of shaders) {
    const messages = [];
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ code: source });
    for (const m of (await module.getCompilationInfo()).messages) {
      if (m.type === "error") {
        messages.push(`line ${m.lineNum}:${m.linePos}: ${m.message}`);
      }
    }
    let layout = "auto";
    if (bindings) {
      const groups = [];
      for (const { group = 0, binding, type } of bindings) {
        (groups[group] ??= []).push({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } });
      }
      const bindGroupLayouts = Array.from(groups, (entries) => device.createBindGroupLayout({ entries: entries ?? [] }));
      layout = device.createPipelineLayout({ bindGroupLayouts });
    }
    if (messages.length === 0) {
      try {
        await device.createComputePipelineAsync({ layout, compute: { module, entryPoint: "main", constants } });
      } catch (error) {
        messages.push(`pipeline: ${error.message}`);
      }
    }
    const error = await device.popErrorScope();
    if (error && messages.length === 0) {
      messages.push(error.message);
    }
    if (lost.length > 0) {
      return { failure: `the device was lost: ${lost[0]}` };
    }
    results.push(messages);
  }
  const { vendor, architecture, description } = adapter.info;
  return { results, uncaptured, adapter: [vendor, architecture, description].filter(Boolean).join(" ") };
}

/** Compiles shaders in a browser of their own, tells of those that are refused, and counts them. */
async function compiled(shaders) {
  const { outcome, version } = await withPage(async (page, version) => ({
    outcome: await page.evaluate(compileAll, [CONTROL, ...shaders]),
    version,
  }));
  if (outcome.failure) {
    throw new Error(`Chromium ${version} gives no WebGPU device to compile for: ${outcome.failure}`);
  }
  const [control, ...results] = outcome.results;
  if (!control.some((message) => CONTROL.refusal.test(message))) {
    throw new Error(`${CONTROL.name}: Tint had to refuse it and said: ${control.join("; ") || "nothing"}`);
  }
  let refused = 0;
  results.forEach((messages, index) => {
    if (messages.length > 0) {
      refused++;
      console.error(`${shaders[index].name}: refused by Tint\n  ${messages.join("\n  ")}`);
    }
  });
  return { refused, uncaptured: outcome.uncaptured, version, adapter: outcome.adapter };
}

async function main() {
  const [path] = process.argv.slice(2);
  if (!path) {
    throw new Error("usage: node tint.mjs SHADERS.json");
  }
  const shaders = JSON.parse(readFileSync(path, "utf8"));
  if (!Array.isArray(shaders) || shaders.length === 0) {
    throw new Error(`${path}: expected a list of shaders, found none`);
  }
  for (const [index, { name, source }] of shaders.entries()) {
    if (typeof name !== "string" || typeof source !== "string") {
      throw new Error(`${path}: entry ${index} has no "name" or no "source"`);
    }
  }
  // A browser compiles one after the other. Every second shader goes to the second of two, and the control to both.
  const halves = [0, 1].map((half) => shaders.filter((_, index) => index % 2 === half));
  const outcomes = await Promise.all(halves.map((half) => compiled(half)));
  const refused = outcomes.reduce((sum, outcome) => sum + outcome.refused, 0);
  const uncaptured = outcomes.flatMap((outcome) => outcome.uncaptured);
  const { version, adapter } = outcomes[0];
  for (const message of uncaptured) {
    console.error(`uncaptured error: ${message}`);
  }
  const compiler = `Tint (Chromium ${version}, ${adapter}); the control was refused`;
  if (refused > 0 || uncaptured.length > 0) {
    throw new Error(`${refused} of ${shaders.length} shaders refused by ${compiler}`);
  }
  console.log(`${shaders.length} shaders compiled by ${compiler}`);
}

main().catch((error) => {
  console.error(`tint.mjs: ${error.message}`);
  process.exitCode = 1;
});
