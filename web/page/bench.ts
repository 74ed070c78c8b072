// Speed in this browser, as `zebra bench` measures it natively. What to measure stands in the address:
//
//   bench.html?model=models/zebra-pocket/&prompt=512&decode=128&depth=0,4096&repetitions=5
//
// `ids=5,17,3` shows the greedy completion of these ids. With `report=URL` the result is POSTed there too, for machines without a person.

import { load, type CacheFormat, type Format, type Model, type Progress } from "zebra-runtime";

interface Measured {
  readonly test: string;
  readonly tokensPerSecond: { readonly median: number; readonly least: number; readonly most: number };
}

const query = new URLSearchParams(location.search);
const number = (name: string, otherwise: number) => Number(query.get(name) ?? otherwise);
const output = document.querySelector("pre");

function show(value: unknown): void {
  if (output) {
    output.textContent = JSON.stringify(value, null, 1);
  }
}

/** Ids that no earlier prompt began with, so that every prompt is read. */
function freshIds(count: number, vocabSize: number): number[] {
  return Array.from({ length: count }, () => Math.floor(Math.random() * vocabSize));
}

async function timings(model: Model, prompt: number[], tokens: number) {
  const { usage } = await model.completions.create({ prompt, max_tokens: tokens, temperature: 0, ignore_eos: true });
  if (!usage) {
    throw new Error("the answer tells no usage");
  }
  return usage.timings;
}

function summary(test: string, rates: number[]): Measured {
  const sorted = rates.map((rate) => Math.round(rate * 10) / 10).sort((a, b) => a - b);
  const at = (index: number) => sorted[index] ?? 0;
  return { test, tokensPerSecond: { median: at(sorted.length >> 1), least: at(0), most: at(sorted.length - 1) } };
}

async function bench() {
  const source = query.get("model") ?? "models/zebra-pocket/";
  const [prompt, decode, repetitions] = [number("prompt", 512), number("decode", 128), number("repetitions", 5)];
  const depths = (query.get("depth") ?? "0").split(",").map(Number);
  const context = Math.max(prompt, ...depths) + decode + 16;

  const loads: Record<string, number>[] = [];
  const [format, cache] = [query.get("format"), query.get("cache")];
  const options = {
    context: number("context", context),
    ...(format ? { format: format as Format } : {}),
    ...(cache ? { cache: cache as CacheFormat } : {}),
  };
  const timedLoad = async () => {
    const started = performance.now();
    const reached: Record<string, number> = {};
    loads.push(reached);
    return load(source, {
      ...options,
      onProgress({ phase }: Progress) {
        reached[phase] ??= Math.round(performance.now() - started);
      },
    });
  };
  // The second time files are in storage and the browser knows the shaders.
  await (await timedLoad()).dispose();
  const model = await timedLoad();
  const { info } = model;
  const answer = info.chat
    ? await model.chat.completions.create({
        messages: [{ role: "user", content: "What is a zebra?" }],
        temperature: 0,
        max_tokens: 40,
      })
    : undefined;
  const ids = query.get("ids")?.split(",").map(Number);
  const completion = ids
    ? await model.completions.create({ prompt: ids, max_tokens: 8, temperature: 0, ignore_eos: true })
    : undefined;
  const result = {
    userAgent: navigator.userAgent,
    info,
    loadMs: loads,
    zebra: answer?.choices[0]?.message.content,
    completion: completion?.choices[0]?.text,
    firstTokenMs: Math.round((answer?.usage?.timings.prompt_ms ?? 0) * 10) / 10,
    settings: { source, prompt, decode, depths, repetitions },
    measured: [] as Measured[],
    memory: await model.memory(),
  };
  show(result);

  const prompts: number[] = [];
  for (let i = 0; i <= repetitions; i++) {
    const { prompt_per_second } = await timings(model, freshIds(prompt, info.vocabSize), 1);
    // The first meets shaders that the driver has not finished.
    if (i > 0) {
      prompts.push(prompt_per_second);
    }
  }
  result.measured.push(summary(`prompt of ${prompt}`, prompts));
  for (const depth of depths) {
    const ids = freshIds(Math.max(depth, 16), info.vocabSize);
    const rates: number[] = [];
    for (let i = 0; i <= repetitions; i++) {
      // The prompt is read once: later rounds start from its snapshot.
      const { decode_per_second } = await timings(model, ids, decode);
      if (i > 0) {
        rates.push(decode_per_second);
      }
    }
    result.measured.push(summary(`decode at ${depth}`, rates));
    show(result);
  }
  return { ...result, memory: await model.memory() };
}

bench()
  .catch((error: unknown) => ({ failed: String(error) }))
  .then(async (result) => {
    show(result);
    const report = query.get("report");
    if (report) {
      await fetch(report, { method: "POST", body: JSON.stringify(result) });
    }
  });
