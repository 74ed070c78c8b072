// The npm package as a page uses it, in Chromium on a software adapter: loading, answers, streams, sessions, errors.
// Answers are compared with PyTorch's (tests/fixtures), so a runtime that computes something else fails.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { openBrowser } from "./browser.mjs";
import { startServer } from "./server.mjs";
import { serveTiny, tinyExpected, tinyFiles, withVocabulary } from "./tiny.mjs";

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const DIST = path("../../web/dist");
const POCKET = path("../../web/site/models/zebra-pocket");
const SMOLLM2 = path("../../.tools/smollm2");
const PROMPT = tinyExpected("gqa").prompt;
const EXACT = { format: "f32", cache: "f32" };

let server;
let browser;
let page;

/** Runs the native program, and tells what it printed. */
function program(...args) {
  const root = path("../..");
  const quiet = { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] };
  return execFileSync("cargo", ["run", "-q", "-p", "zebra", "--", ...args], quiet);
}

async function inTemporaryFolder(use) {
  const folder = await mkdtemp(join(tmpdir(), "zebra-"));
  try {
    await use(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Runs a function in the page. There, `zebra` is the package and `exact` the options of the models under test. */
function inPage(use, argument) {
  return page.evaluate(use, argument);
}

before(async () => {
  assert.ok(existsSync(`${DIST}/index.js`), "web/dist is missing: npm run build, in web/, makes it");
  server = await startServer({ mounts: { "/dist/": DIST, "/pocket/": POCKET, "/smollm2/": SMOLLM2 } });
  const html = '<!doctype html><title>api</title><script type="module">import * as zebra from "/dist/index.js"; window.zebra = zebra;</script>';
  server.files.set("/index.html", Buffer.from(html));
  for (const name of ["gqa", "mha", "lnorm"]) {
    serveTiny(server, name);
  }
  browser = await openBrowser();
  page = await openPage();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

beforeEach(() => browser.check());

async function openPage() {
  const page = await browser.newPage(`${server.url}/index.html`);
  await page.waitForFunction(() => window.zebra);
  await page.evaluate(() => {
    // A model by name, loaded once for all tests that only use it.
    const loaded = new Map();
    window.tiny = (name = "gqa") => {
      const options = { format: "f32", cache: "f32", kernels: "plain" };
      loaded.set(name, loaded.get(name) ?? zebra.load(`/tiny-${name}/`, options));
      return loaded.get(name);
    };
    // What a promise rejects with, as plain data.
    window.failure = async (promise) => {
      try {
        await promise;
      } catch (error) {
        const typed = error instanceof zebra.ZebraError;
        return { typed, code: error.code, message: error.message, details: error.details };
      }
      return { code: "none" };
    };
    window.ids = async (model, prompt, options = {}) => {
      const answer = await model.completions.create({
        prompt, temperature: 0, max_tokens: 8, ignore_eos: true, return_token_ids: true, ...options,
      });
      return answer.choices[0].token_ids;
    };
  });
  return page;
}

/** Fails unless `failure` is a ZebraError of this code with these words. */
function refused(failure, code, words) {
  assert.equal(failure.code, code, JSON.stringify(failure));
  assert.ok(failure.typed, "not a ZebraError");
  assert.match(failure.message, words);
}

test("loads with its phases in order, answers with PyTorch's ids, and downloads once", async () => {
  const load = () =>
    inPage(async ([prompt, options]) => {
      const phases = [];
      const began = performance.now();
      const model = await zebra.load("/tiny-gqa/", {
        ...options,
        onProgress: (p) => phases.push({ ...p, at: performance.now() - began }),
      });
      const first = await ids(model, prompt);
      const { info } = model;
      await model.dispose();
      return { phases, first, info, memory: await failure(model.memory()) };
    }, [PROMPT, EXACT]);

  const { phases, first, info, memory } = await load();
  assert.deepEqual(first, tinyExpected("gqa").answer);
  const names = phases.map(({ phase }) => phase).filter((phase, i, all) => all.indexOf(phase) === i);
  assert.deepEqual(names.toSorted(), ["compile", "config", "download", "ready", "upload"]);
  // Downloading begins with the configuration and goes on beside the rest.
  assert.deepEqual(names.filter((phase) => phase !== "download"), ["config", "upload", "compile", "ready"]);
  for (const phase of ["download", "upload"]) {
    const last = phases.findLast((p) => p.phase === phase);
    assert.equal(last.loaded, last.total);
  }
  const total = Object.values(tinyFiles("gqa")).reduce((sum, bytes) => sum + bytes.length, 0);
  assert.equal(phases.find(({ phase }) => phase === "download").total, total);
  assert.equal(info.format, "f32");
  assert.equal(info.vocabSize, 97);
  assert.deepEqual(info.layers, ["mla", "mamba2", "mamba2", "mla", "mamba2"]);
  assert.equal(info.adapter.subgroups, true);
  refused(memory, "aborted", /disposed/);

  const before = server.bytes(/^\/tiny-gqa\//);
  const again = await load();
  assert.deepEqual(again.first, first);
  assert.equal(server.bytes(/^\/tiny-gqa\//), before, "the second load downloaded something");
});

test("all forms of checkpoint answer with PyTorch's ids, two of them loaded at once", async () => {
  const answers = await inPage(async (prompts) => {
    const [mha, lnorm] = await Promise.all([tiny("mha"), tiny("lnorm")]);
    const answers = await Promise.all([ids(mha, prompts.mha), ids(lnorm, prompts.lnorm)]);
    await Promise.all([mha.dispose(), lnorm.dispose()]);
    return answers;
  }, { mha: tinyExpected("mha").prompt, lnorm: tinyExpected("lnorm").prompt });
  assert.deepEqual(answers, [tinyExpected("mha").answer, tinyExpected("lnorm").answer]);
  // They differ, so an answer of the wrong model would be seen.
  assert.notDeepEqual(answers[0], answers[1]);
});

// The runtime's own browser tests run every family (web/tests/web.rs); these have other files than Zebra-Llama.
test("other families answer with PyTorch's ids, and are told as natively", async () => {
  const families = {
    "mambainllama-mamba1": ["mambainllama", "attention", "mamba1"],
    minitron: ["minitron", "attention"],
    // Two files of weights.
    "llama-untied": ["llama", "attention"],
  };
  const answers = [];
  for (const [name, [family, ...kinds]] of Object.entries(families)) {
    // Minitron is a base model.
    const chat = name !== "minitron";
    serveTiny(server, name, undefined, { chat });
    // Files that other families have are asked for, and are not there.
    browser.expect(/Failed to load resource.*404/);
    const { prompt, answer } = tinyExpected(name);
    const out = await inPage(async ({ name, prompt }) => {
      const model = await tiny(name);
      const messages = [{ role: "user", content: "t5 t17" }];
      const out = {
        info: model.info,
        ids: await ids(model, prompt),
        text: (await model.completions.create({ prompt: "t5 t17", temperature: 0, max_tokens: 2 })).usage.prompt_tokens,
        chat: await failure(model.chat.completions.create({ messages, temperature: 0, max_tokens: 2 })),
      };
      await model.dispose();
      return out;
    }, { name, prompt });
    assert.deepEqual(out.ids, answer, name);
    answers.push(out.ids.join(" "));
    assert.equal(out.text, 2, name);
    assert.equal(out.info.family, family);
    assert.deepEqual([...new Set(out.info.layers)].toSorted(), kinds, name);
    assert.equal(out.info.chat, chat);
    if (chat) {
      assert.equal(out.chat.code, "none", JSON.stringify(out.chat));
    } else {
      refused(out.chat, "bad-tokenizer", /give a prompt/);
    }
    await inTemporaryFolder(async (folder) => {
      for (const [file, bytes] of Object.entries(tinyFiles(name))) {
        await writeFile(join(folder, file), bytes);
      }
      const native = JSON.parse(program("info", "--model", folder, "--format", "f32", "--cache", "f32", "--kernels", "plain", "--json"));
      assert.equal(native.family, family);
      assert.deepEqual(
        [out.info.cacheBytesPerToken, out.info.cachePercentOfBase.toFixed(2)],
        [native.cache.in_use.bytes_per_token, native.cache.in_use.percent_of_base.toFixed(2)],
        name,
      );
    });
  }
  // They differ, so an answer of the wrong model would be seen.
  assert.equal(new Set(answers).size, answers.length);
});

test("estimates before weights are fetched", async () => {
  serveTiny(server, "gqa", "/fresh/");
  const { estimate, far } = await inPage(async () => ({
    estimate: await zebra.estimate("/fresh/", { store: "none" }),
    far: await failure(zebra.estimate("/fresh/", { context: 10_000_000, store: "none" })),
  }));
  const { gpu, download } = estimate;
  assert.equal(estimate.fits, true);
  assert.equal(estimate.parameters, 176_292);
  assert.equal(gpu.total, gpu.weights + gpu.latents + gpu.states + gpu.activations + gpu.control);
  assert.ok(gpu.weights > 0 && gpu.latents > 0 && gpu.states > 0);
  assert.equal(download.total, Object.values(tinyFiles("gqa")).reduce((sum, bytes) => sum + bytes.length, 0));
  refused(far, "bad-request", /context/);
});

test("streams in OpenAI's shape what the whole answer holds", async () => {
  const request = { messages: [{ role: "user", content: "t5 t17" }], temperature: 0, max_tokens: 6, ignore_eos: true, return_token_ids: true };
  const { whole, chunks } = await inPage(async (request) => {
    const model = await tiny();
    const whole = await model.chat.completions.create(request);
    const chunks = [];
    for await (const chunk of await model.chat.completions.create({ ...request, stream: true })) {
      chunks.push(chunk);
    }
    return { whole, chunks };
  }, request);
  assert.equal(whole.object, "chat.completion");
  assert.equal(whole.choices[0].message.role, "assistant");
  assert.equal(whole.choices[0].finish_reason, "length");
  assert.equal(whole.choices[0].logprobs, null);
  assert.equal(whole.usage.completion_tokens, 6);
  // t90 t5 t17 t93 t91
  assert.equal(whole.usage.prompt_tokens, 5);
  assert.equal(whole.usage.total_tokens, 11);
  assert.ok(whole.usage.timings.decode_per_second > 0);

  assert.deepEqual(chunks[0].choices[0].delta, { role: "assistant", content: "" });
  assert.equal(chunks.map((c) => c.choices[0].delta.content ?? "").join(""), whole.choices[0].message.content);
  assert.deepEqual(chunks.flatMap((c) => c.choices[0].token_ids), whole.choices[0].token_ids);
  assert.equal(new Set(chunks.map((c) => c.id)).size, 1);
  assert.ok(chunks.every((c) => c.object === "chat.completion.chunk"));
  const last = chunks.pop();
  assert.equal(last.choices[0].finish_reason, "length");
  assert.equal(last.usage.completion_tokens, 6);
  assert.ok(chunks.every((c) => c.choices[0].finish_reason === null && c.usage === undefined));
});

test("leaving a stream early ends the work, and so does its controller", async () => {
  const out = await inPage(async (prompt) => {
    const model = await tiny();
    const endless = { prompt, temperature: 0, max_tokens: 2000, ignore_eos: true, stream: true };
    const left = await model.completions.create(endless);
    let seen = 0;
    for await (const _ of left) {
      if (++seen === 2) break;
    }
    const began = performance.now();
    await ids(model, prompt, { max_tokens: 1 });
    const afterBreak = performance.now() - began;

    const stopped = await model.completions.create(endless);
    let read = 0;
    for await (const _ of stopped) {
      if (++read === 2) stopped.controller.abort();
    }
    const again = await failure((async () => { for await (const _ of stopped); })());
    return { seen, read, afterBreak, again };
  }, PROMPT);
  assert.equal(out.seen, 2);
  assert.equal(out.read, 2);
  // 2,000 tokens would take minutes here.
  assert.ok(out.afterBreak < 20_000, `the next answer waited for ${out.afterBreak} ms`);
  refused(out.again, "bad-request", /streamed once/);
});

test("an AbortSignal ends an answer while it waits, while the prompt is read and while it is written", async () => {
  const out = await inPage(async (prompt) => {
    const model = await tiny();
    const request = { prompt, temperature: 0, max_tokens: 2000, ignore_eos: true };
    const before = await failure(model.completions.create(request, { signal: AbortSignal.abort() }));

    const running = new AbortController();
    const first = failure(model.completions.create(request, { signal: running.signal }));
    const queued = new AbortController();
    const second = failure(model.completions.create(request, { signal: queued.signal }));
    queued.abort();
    const waiting = await second;
    running.abort();
    const reading = await first;

    const writing = new AbortController();
    const stream = await model.completions.create({ ...request, stream: true }, { signal: writing.signal });
    let seen = 0;
    const inStream = await failure((async () => {
      for await (const _ of stream) {
        if (++seen === 2) writing.abort();
      }
    })());
    return { before, waiting, reading, inStream, ids: await ids(model, prompt) };
  }, PROMPT);
  for (const phase of ["before", "waiting", "reading", "inStream"]) {
    refused(out[phase], "aborted", /signal/);
  }
  assert.deepEqual(out.ids, tinyExpected("gqa").answer);
});

test("an AbortSignal ends a load in each of its phases, and the model can be loaded again", async () => {
  serveTiny(server, "gqa", "/slow/");
  const weights = "/slow/model.safetensors";
  for (const phase of ["before", "download", "upload", "compile"]) {
    if (phase === "download") {
      server.faults.set(weights, { rate: 200_000 });
    }
    const stopped = await inPage(async (phase) => {
      const controller = new AbortController();
      if (phase === "before") controller.abort();
      const onProgress = (p) => { if (p.phase === phase) controller.abort(); };
      const options = { kernels: "plain", signal: controller.signal, onProgress };
      return failure(zebra.load("/slow/", options));
    }, phase);
    refused(stopped, "aborted", /signal/);
    server.faults.clear();
  }
  const answer = await inPage(async (prompt) => {
    const model = await zebra.load("/slow/", { format: "f32", cache: "f32", kernels: "plain" });
    const answer = await ids(model, prompt);
    await model.dispose();
    return answer;
  }, PROMPT);
  assert.deepEqual(answer, tinyExpected("gqa").answer);
});

test("stop texts end the answer and are no part of it", async () => {
  const { whole, stopped } = await inPage(async (prompt) => {
    const model = await tiny();
    const request = { prompt, temperature: 0, max_tokens: 8, ignore_eos: true };
    const whole = await model.completions.create(request);
    const words = whole.choices[0].text.trim().split(" ");
    const stopped = await model.completions.create({ ...request, stop: [words[3], "never"] });
    return { whole, stopped };
  }, PROMPT);
  assert.equal(whole.choices[0].finish_reason, "length");
  assert.equal(stopped.choices[0].finish_reason, "stop");
  const { text } = stopped.choices[0];
  const word = whole.choices[0].text.trim().split(" ")[3];
  assert.equal(text, whole.choices[0].text.slice(0, whole.choices[0].text.indexOf(word)));
  assert.ok(text.length > 0);
});

test("log probabilities in both shapes", async () => {
  const { chat, chunks, text } = await inPage(async (prompt) => {
    const model = await tiny();
    const common = { temperature: 0, max_tokens: 3, ignore_eos: true };
    const ask = { ...common, messages: [{ role: "user", content: "t5 t17" }], logprobs: true, top_logprobs: 4 };
    const chunks = [];
    for await (const chunk of await model.chat.completions.create({ ...ask, stream: true })) {
      chunks.push(chunk);
    }
    return {
      chat: await model.chat.completions.create(ask),
      chunks,
      text: await model.completions.create({ ...common, prompt, logprobs: 2 }),
    };
  }, PROMPT);
  const { content } = chat.choices[0].logprobs;
  assert.equal(content.length, 3);
  for (const { token, logprob, bytes, top_logprobs } of content) {
    assert.equal(top_logprobs.length, 4);
    assert.equal(top_logprobs[0].token, token, "greedy takes the likeliest");
    assert.equal(top_logprobs[0].logprob, logprob);
    assert.equal(Buffer.from(bytes).toString(), token);
    const sum = top_logprobs.reduce((sum, top) => sum + Math.exp(top.logprob), 0);
    assert.ok(logprob < 0 && sum < 1.0001, `${logprob}, ${sum}`);
    assert.deepEqual(top_logprobs.map((t) => t.logprob), top_logprobs.map((t) => t.logprob).sort((a, b) => b - a));
  }
  assert.deepEqual(chunks.flatMap((c) => c.choices[0].logprobs?.content ?? []), content);

  const { tokens, token_logprobs, top_logprobs, text_offset } = text.choices[0].logprobs;
  assert.equal(tokens.length, 3);
  assert.ok(token_logprobs.every((p) => p < 0));
  assert.ok(top_logprobs.every((top, i) => Object.keys(top).length === 2 && top[tokens[i]] === token_logprobs[i]));
  assert.equal(text_offset[0], 0);
  assert.ok(text_offset[1] < text_offset[2]);
});

test("seeds repeat an answer, penalties and biases change it", async () => {
  const out = await inPage(async (prompt) => {
    const model = await tiny();
    const hot = (seed) => ids(model, prompt, { temperature: 1.5, seed, max_tokens: 12 });
    const untold = await model.completions.create({ prompt, temperature: 1.5, max_tokens: 6, ignore_eos: true, return_token_ids: true });
    return {
      a: await hot(1), again: await hot(1), b: await hot(2),
      untold: untold.choices[0].token_ids,
      repeated: await ids(model, prompt, { temperature: 1.5, max_tokens: 6, seed: untold.seed }),
      biased: await ids(model, prompt, { logit_bias: { 33: 100 }, max_tokens: 3 }),
      top1: await ids(model, prompt, { temperature: 2, top_k: 1, seed: 3 }),
      penalized: await ids(model, prompt, { presence_penalty: 2, frequency_penalty: 2, repetition_penalty: 3 }),
    };
  }, PROMPT);
  assert.deepEqual(out.a, out.again);
  assert.notDeepEqual(out.a, out.b);
  assert.deepEqual(out.untold, out.repeated);
  assert.deepEqual(out.biased, [33, 33, 33]);
  assert.deepEqual(out.top1, tinyExpected("gqa").answer);
  assert.notDeepEqual(out.penalized, tinyExpected("gqa").answer);
});

test("continued and edited chats read only what is new", async () => {
  const out = await inPage(async () => {
    const model = await tiny();
    const ask = (messages) => model.chat.completions.create({ messages, temperature: 0, max_tokens: 4 });
    const user = (content) => ({ role: "user", content });
    const begin = [user("t11 t12 t13 t14 t15 t16")];
    const first = await ask(begin);
    const answered = [...begin, first.choices[0].message];
    const second = await ask([...answered, user("t20 t21")]);
    const edited = await ask([...answered, user("t30 t31 t32")]);
    const other = await ask([user("t77 t78")]);
    return [first, second, edited, other].map(({ usage }) => [usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens]);
  });
  const [first, second, edited, other] = out;
  assert.equal(first[1], 0);
  // The last token of a prompt is read again in any case.
  assert.ok(second[1] >= first[0] && second[1] < second[0], JSON.stringify(out));
  assert.ok(edited[1] >= first[0] - 1 && edited[1] < edited[0], JSON.stringify(out));
  assert.ok(other[1] < 2, JSON.stringify(out));
});

test("sessions keep messages and states: say, snapshot, restore, fork, reset, tokens", async () => {
  const out = await inPage(async () => {
    const model = await tiny();
    const options = { temperature: 0, max_tokens: 3 };
    const text = (answer) => answer.choices[0].message.content;
    const session = model.session({ system: "t50" });
    const begun = session.messages.length;
    await session.say("t1 t2 t3", options);
    const afterOne = [...session.messages];
    const tokens = Array.from(await session.tokens());
    const snapshot = await session.snapshot();
    const b = text(await session.say("t4 t5", options));
    const fork = session.fork();
    const forked = text(await fork.say("t8", options));
    const lengths = [session.messages.length, fork.messages.length];
    await session.restore(snapshot);
    const restored = [...session.messages];
    const again = await session.say("t4 t5", options);
    await snapshot.dispose();
    const original = text(await session.say("t8", options));

    const streamed = [];
    for await (const chunk of await session.say("t9", { ...options, stream: true })) {
      streamed.push(chunk.choices[0].delta.content ?? "");
    }
    const joined = session.messages.at(-1).content === streamed.join("");
    let part = "";
    for await (const chunk of await session.say("t10", { ...options, max_tokens: 200, ignore_eos: true, stream: true })) {
      part += chunk.choices[0].delta.content ?? "";
      if (part) break;
    }
    const left = session.messages.at(-1).content === part;
    const busy = session.say("t60", options);
    const twice = await failure(session.say("t61", options));
    await busy;
    const wrong = await failure(session.say(5));
    const count = session.messages.length;
    session.reset();
    return {
      begun, afterOne, tokens, b, again: text(again), cached: again.usage.prompt_tokens_details.cached_tokens, lengths,
      restored, forked, original, joined, left, twice, wrong, count, reset: session.messages.length,
    };
  });
  assert.equal(out.begun, 1);
  assert.deepEqual(out.afterOne.map(({ role }) => role), ["system", "user", "assistant"]);
  // t92 t50 t93 t90 t1 t2 t3 t93 t91 …
  assert.deepEqual(out.tokens.slice(0, 9), [92, 50, 93, 90, 1, 2, 3, 93, 91]);
  assert.deepEqual(out.lengths, [5, 7]);
  assert.deepEqual(out.restored, out.afterOne);
  assert.equal(out.again, out.b);
  assert.ok(out.cached >= 9, `${out.cached} tokens were cached`);
  assert.equal(out.original, out.forked);
  assert.ok(out.joined);
  assert.ok(out.left);
  refused(out.twice, "bad-request", /answering/);
  refused(out.wrong, "bad-request", /text: expected a string, found 5/);
  assert.equal(out.count, 1 + 2 * 6);
  assert.equal(out.reset, 1);
});

test("tokenizes and detokenizes", async () => {
  const out = await inPage(async () => {
    const model = await tiny();
    const ids = await model.tokenize("t5 t17 t3");
    return { ids: Array.from(ids), text: await model.detokenize(ids), wrong: await failure(model.detokenize([-1])) };
  });
  assert.deepEqual(out.ids, [5, 17, 3]);
  assert.equal(out.text, "t5 t17 t3");
  refused(out.wrong, "bad-request", /ids\[0\]: expected a token id, found -1/);
});

test("requests that cannot be run are refused with the field's name", async () => {
  const user = { role: "user", content: "t1" };
  const chats = [
    [{}, "bad-request", /^messages: expected a list of messages, found nothing/],
    [{ messages: [] }, "bad-request", /^messages: expected at least one message/],
    [{ messages: "hello" }, "bad-request", /^messages: expected a list of messages, found "hello"/],
    [{ messages: [user, user, { role: "user", content: 5 }] }, "bad-request", /^messages\[2\]\.content: expected a string or .*, found 5/],
    [{ messages: [{ role: "wizard", content: "t1" }] }, "bad-request", /^messages\[0\]\.role: expected .*, found "wizard"/],
    [{ messages: [null] }, "bad-request", /^messages\[0\]: expected an object, found null/],
    [{ messages: [{ role: "tool", content: "t1" }] }, "unsupported", /^messages\[0\]\.role/],
    [{ messages: [{ role: "user", content: [{ type: "image_url", image_url: {} }] }] }, "unsupported", /^messages\[0\]\.content\[0\]\.type/],
    [{ messages: [{ role: "assistant", content: null }] }, "bad-request", /^messages\[0\]\.content: .*found null/],
    [{ messages: [user], n: 2 }, "unsupported", /^n is not supported/],
    [{ messages: [user], tools: [{}] }, "unsupported", /^tools is not supported/],
    [{ messages: [user], functions: [{}] }, "unsupported", /^functions is not supported/],
    [{ messages: [user], response_format: { type: "json_object" } }, "unsupported", /^response_format is not supported/],
    [{ messages: [user], audio: {} }, "unsupported", /^audio is not supported/],
    [{ messages: [user], max_token: 5 }, "bad-request", /^max_token: an unknown field; known are .*max_tokens/],
    [{ messages: [user], max_tokens: 0 }, "bad-request", /^max_tokens: expected a whole number above 0, found 0/],
    [{ messages: [user], max_tokens: 4, max_completion_tokens: 5 }, "bad-request", /^max_tokens: expected the same/],
    [{ messages: [user], temperature: "hot" }, "bad-request", /^temperature: expected a number, found "hot"/],
    [{ messages: [user], temperature: -1 }, "bad-request", /^temperature: expected .*, found -1/],
    [{ messages: [user], top_p: 7 }, "bad-request", /^top_p: expected .*, found 7/],
    [{ messages: [user], seed: 1.5 }, "bad-request", /^seed: expected a whole number/],
    [{ messages: [user], stop: [""] }, "bad-request", /^stop\[0\]/],
    [{ messages: [user], top_logprobs: 3 }, "bad-request", /^logprobs: expected true/],
    [{ messages: [user], logprobs: true, top_logprobs: 21 }, "bad-request", /^top_logprobs: expected a whole number from 0 to 20/],
    [{ messages: [user], logit_bias: { a: 1 } }, "bad-request", /^logit_bias: expected token ids/],
    [{ messages: [user], logit_bias: { 5000: 1 } }, "bad-request", /logit_bias/],
    [{ messages: [user], stream: "yes" }, "bad-request", /^stream: expected true or false/],
    ["hello", "bad-request", /^request: expected an object/],
  ];
  const texts = [
    [{ prompt: ["a", "b"] }, "unsupported", /^prompt is not supported: one prompt at a time/],
    [{ prompt: [1, -2] }, "bad-request", /^prompt\[1\]: expected a whole number from 0/],
    [{ prompt: [1, 5000] }, "bad-request", /5000/],
    [{ prompt: [] }, "bad-request", /^prompt: expected/],
    [{ prompt: "t1", echo: true }, "unsupported", /^echo/],
    [{ prompt: "t1", suffix: "x" }, "unsupported", /^suffix/],
    [{ prompt: "t1", best_of: 2 }, "unsupported", /^best_of/],
  ];
  const failures = await inPage(async ([chats, texts]) => {
    const model = await tiny();
    const found = [[], []];
    for (const request of chats) found[0].push(await failure(model.chat.completions.create(request)));
    for (const request of texts) found[1].push(await failure(model.completions.create(request)));
    return found;
  }, [chats.map(([request]) => request), texts.map(([request]) => request)]);
  chats.forEach(([, code, words], i) => refused(failures[0][i], code, words));
  texts.forEach(([, code, words], i) => refused(failures[1][i], code, words));

  // What code for OpenAI's API sends is taken.
  const taken = await inPage(async () => {
    const model = await tiny();
    return model.chat.completions.create({
      model: "gpt-4o", n: 1, user: "somebody", tools: [], stream_options: { include_usage: true }, temperature: null, max_completion_tokens: 1,
      messages: [{ role: "developer", content: "t2", name: "x" }, { role: "user", content: [{ type: "text", text: "t1" }], id: 7 }],
    });
  });
  // t92 t2 t93 t90 t1 t93 t91
  assert.equal(taken.usage.prompt_tokens, 7);
});

test("a prompt of 10 MB is refused soon, and the page stays alive", async () => {
  const out = await inPage(async (prompt) => {
    const model = await tiny();
    let longest = 0;
    let last = performance.now();
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 10);
    const content = "t5 ".repeat(3_500_000);
    const began = performance.now();
    const refusal = await failure(model.chat.completions.create({ messages: [{ role: "user", content }] }));
    const took = performance.now() - began;
    clearInterval(timer);
    return { refusal, took, longest, ids: await ids(model, prompt) };
  }, PROMPT);
  console.log(`10 MB prompt: refused after ${out.took.toFixed(0)} ms, the page waited at most ${out.longest.toFixed(0)} ms`);
  refused(out.refusal, "context", /tokens/);
  assert.ok(out.took < 30_000);
  assert.ok(out.longest < 500, `the page stood still for ${out.longest} ms`);
  assert.deepEqual(out.ids, tinyExpected("gqa").answer);
});

test("sources that are no model are refused in words, and the page stays usable", async () => {
  const put = (path, text) => server.files.set(path, Buffer.from(text));
  serveTiny(server, "gqa", "/html/");
  for (const name of Object.keys(tinyFiles("gqa"))) {
    server.faults.set(`/html/${name}`, { html: true });
  }
  serveTiny(server, "gqa", "/sharded/");
  server.files.delete("/sharded/model.safetensors");
  const index = { metadata: {}, weight_map: { "model.embed_tokens.weight": "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors" } };
  put("/sharded/model.safetensors.index.json", JSON.stringify(index));
  server.files.set("/sharded/model-00001-of-00002.safetensors", tinyFiles("gqa")["model.safetensors"]);
  serveTiny(server, "gqa", "/other/");
  put("/other/config.json", JSON.stringify({ architectures: ["GPT2LMHeadModel"], model_type: "gpt2" }));
  server.files.delete("/other/hybrid_config.json");
  serveTiny(server, "gqa", "/cut/");
  server.files.set("/cut/model.safetensors", tinyFiles("gqa")["model.safetensors"].subarray(0, 300_000));
  const closed = await startServer({ cors: false });
  serveTiny(closed, "gqa");

  browser.expect(/Failed to load resource/, /blocked by CORS policy/);
  try {
    const out = await inPage(async (closed) => {
      const load = (source, options) => failure(zebra.load(source, { kernels: "plain", store: "none", ...options }));
      return {
        html: await load("/html/"), missing: await load("/nowhere/"), sharded: await load("/sharded/"),
        other: await load("/other/"), cut: await load("/cut/"), cors: await load(closed),
        empty: await load(""), number: await load(5), files: await load([]), scheme: await load("ftp://host/model/"),
        format: await load("/tiny-gqa/", { format: "q5" }), context: await load("/tiny-gqa/", { context: -1 }),
        list: await failure(zebra.models.delete("nothing")), after: await ids(await tiny(), [5, 17]),
      };
    }, `${closed.url}/tiny-gqa/`);
    refused(out.html, "not-found", /HTML/);
    refused(out.missing, "not-found", /404/);
    refused(out.sharded, "not-found", /model-00002-of-00002\.safetensors/);
    refused(out.other, "bad-model", /Zebra-Llama|hybrid_config/);
    refused(out.cut, "integrity", /model\.safetensors/);
    refused(out.cors, "network", /CORS/);
    refused(out.empty, "bad-request", /^source: expected/);
    refused(out.number, "bad-request", /^source: expected a URL, a hub name or File objects, found/);
    refused(out.files, "bad-request", /^source: expected the File objects/);
    refused(out.scheme, "bad-request", /ftp/);
    refused(out.format, "bad-request", /^format: expected "f32" or .*found "q5"/);
    refused(out.context, "bad-request", /^context: expected a whole number above 0, found -1/);
    refused(out.list, "not-found", /nothing/);
    assert.equal(out.after.length, 8);
  } finally {
    server.faults.clear();
    await closed.close();
  }
});

test("File objects load as a folder does", async () => {
  const answer = await inPage(async (prompt) => {
    const names = ["config.json", "hybrid_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    const files = await Promise.all(names.map(async (name) => new File([await (await fetch(`/tiny-gqa/${name}`)).blob()], name)));
    const model = await zebra.load(files, { format: "f32", cache: "f32", kernels: "plain" });
    const answer = await ids(model, prompt);
    await model.dispose();
    return answer;
  }, PROMPT);
  assert.deepEqual(answer, tinyExpected("gqa").answer);
});

test("the quantized form can be what is stored", async () => {
  serveTiny(server, "gqa", "/plain/");
  const out = await inPage(async (prompt) => {
    const load = async (options) => {
      const phases = new Set();
      const model = await zebra.load("/plain/", { format: "q4", kernels: "plain", onProgress: (p) => phases.add(p.phase), ...options });
      const answer = await ids(model, prompt);
      await model.dispose();
      return { phases: [...phases], answer };
    };
    const unstored = await load({ store: "none" });
    const first = await load({ store: "quantized" });
    const stored = (await zebra.models.list()).filter(({ name }) => name.includes("/plain/"));
    return { unstored, first, stored };
  }, PROMPT);
  assert.ok(out.first.phases.includes("quantize"));
  assert.ok(!out.unstored.phases.includes("quantize"));
  assert.deepEqual(out.first.answer, out.unstored.answer);
  assert.equal(out.stored.length, 1, JSON.stringify(out.stored));
  const plain = tinyFiles("gqa")["model.safetensors"].length;
  assert.ok(out.stored[0].complete && out.stored[0].bytes < plain / 2, JSON.stringify(out.stored));

  const before = server.bytes("/plain/model.safetensors");
  const again = await inPage(async (prompt) => {
    const phases = new Set();
    const model = await zebra.load("/plain/", { format: "q4", kernels: "plain", store: "quantized", onProgress: (p) => phases.add(p.phase) });
    const answer = await ids(model, prompt);
    await model.dispose();
    const [{ name }] = (await zebra.models.list()).filter(({ name }) => name.includes("/plain/"));
    await zebra.models.delete(name);
    const left = (await zebra.models.list()).filter(({ name }) => name.includes("/plain/"));
    return { answer, phases: [...phases], left };
  }, PROMPT);
  assert.deepEqual(again.answer, out.first.answer);
  assert.ok(!again.phases.includes("quantize"));
  assert.equal(server.bytes("/plain/model.safetensors"), before);
  assert.deepEqual(again.left, []);
});

test("folders that the program packed answer as they do natively", async () => {
  await inTemporaryFolder(async (folder) => {
    const plain = join(folder, "plain");
    await mkdir(plain);
    for (const [name, bytes] of Object.entries(tinyFiles("gqa"))) {
      await writeFile(join(plain, name), bytes);
    }
    for (const format of ["q8", "q4"]) {
      const packed = join(folder, format);
      program("quantize", plain, packed, "--format", format);
      const prompt = PROMPT.map((id) => `t${id}`).join(" ");
      const greedy = ["--raw", "--prompt", prompt, "--temperature", "0", "--max-tokens", "6", "--json"];
      // As in the page: the fast kernels round the activations, which a random model's ids feel.
      greedy.push("--kernels", "plain");
      const native = JSON.parse(program("generate", "--model", packed, ...greedy));
      assert.deepEqual(native.prompt_ids, PROMPT);
      for (const name of await readdir(packed)) {
        server.files.set(`/packed-${format}/${name}`, await readFile(join(packed, name)));
      }
      const out = await inPage(async ({ url, prompt }) => {
        const model = await zebra.load(url, { kernels: "plain" });
        const { format, dispatchesPerToken } = model.info;
        const found = await ids(model, prompt, { max_tokens: 6, ignore_eos: false });
        await model.dispose();
        return { format, dispatchesPerToken, ids: found };
      }, { url: `/packed-${format}/`, prompt: PROMPT });
      const info = JSON.parse(program("info", "--model", packed, "--kernels", "plain", "--json"));
      assert.deepEqual(out, { format, dispatchesPerToken: info.dispatches_per_token.total, ids: native.ids });
      console.log(`${format}: ${out.ids.join(" ")} in ${out.dispatchesPerToken} dispatches a token, as natively`);
    }
  });
});

test("a tokenizer of 128,000 tokens and 280,000 merges takes less than 150 MB of wasm memory", async () => {
  await inTemporaryFolder(async (folder) => {
    const random = join(folder, "random-1b");
    program("make-random", "--preset", "1b-4mla", "--format", "q4", random);
    const tokenizer = await readFile(join(random, "tokenizer.json"));
    const { model } = JSON.parse(tokenizer.toString());
    assert.deepEqual([Object.keys(model.vocab).length, model.merges.length], [128_000, 280_000]);
    const files = { ...withVocabulary(tinyFiles("gqa"), 128_256), "tokenizer.json": tokenizer };
    for (const [name, bytes] of Object.entries(files)) {
      server.files.set(`/large-tokenizer/${name}`, bytes);
    }
    const wasm = await inPage(async () => {
      const model = await zebra.load("/large-tokenizer/", { kernels: "plain", store: "none" });
      await model.tokenize("A zebra is any of several fleet black-and-white striped African equines. ".repeat(100));
      const { wasm } = await model.memory();
      await model.dispose();
      return wasm;
    });
    console.log(`wasm memory with a tokenizer of 128,000 tokens: ${(wasm / 1e6).toFixed(1)} MB`);
    assert.ok(wasm < 150e6);
  });
});

test("a device lost in mid-answer changes nothing but the time", async () => {
  const out = await inPage(async (prompt) => {
    const phases = [];
    const options = { format: "f32", cache: "f32", kernels: "plain", onProgress: (p) => phases.push(p.phase) };
    const model = await zebra.load("/tiny-gqa/", options);
    const request = { prompt, max_tokens: 10, ignore_eos: true, return_token_ids: true };
    const ask = async (sampling, lose) => {
      const answer = [];
      for await (const chunk of await model.completions.create({ ...request, ...sampling, stream: true })) {
        answer.push(...chunk.choices[0].token_ids);
        if (lose && answer.length === 4) await model.loseDevice();
      }
      return answer;
    };
    const greedy = await ask({ temperature: 0 }, false);
    const seeded = await ask({ temperature: 1.2, seed: 9 }, false);
    phases.length = 0;
    const lostGreedy = await ask({ temperature: 0 }, true);
    const first = phases.filter((phase) => phase === "recovering").length;
    const lostSeeded = await ask({ temperature: 1.2, seed: 9 }, true);
    const both = phases.filter((phase) => phase === "recovering").length;
    await model.dispose();
    return { greedy, seeded, lostGreedy, lostSeeded, first, both };
  }, PROMPT);
  assert.equal(out.first, 1);
  assert.equal(out.both, 2);
  assert.equal(out.lostGreedy.length, 10);
  assert.deepEqual(out.lostGreedy, out.greedy);
  assert.deepEqual(out.lostSeeded, out.seeded);
});

test("a worker that is killed fails what is pending and what comes later, and not the page", async () => {
  const out = await inPage(async (prompt) => {
    const workers = [];
    const Original = Worker;
    window.Worker = class extends Original {
      constructor(...options) {
        super(...options);
        workers.push(this);
      }
    };
    const model = await zebra.load("/tiny-gqa/", { format: "f32", cache: "f32", kernels: "plain" });
    window.Worker = Original;
    const pending = failure(model.completions.create({ prompt, max_tokens: 2000, ignore_eos: true }));
    await new Promise((resolve) => setTimeout(resolve, 200));
    workers.at(-1).terminate();
    const killed = await pending;
    const later = await failure(model.tokenize("t1"));
    await model.dispose();
    return { killed, later, other: await ids(await tiny(), prompt) };
  }, PROMPT);
  refused(out.killed, "worker", /load the model again/);
  refused(out.later, "worker", /load the model again/);
  assert.deepEqual(out.other, tinyExpected("gqa").answer);
});

test("no WebGPU is said in words", async () => {
  // A worker has a navigator of its own, so it is the worker's script that takes WebGPU away.
  server.mounts["/without/"] = DIST;
  server.files.set("/without/worker.js", Buffer.from('import "/dist/worker.js"; delete WorkerNavigator.prototype.gpu;'));
  const refusal = await inPage(async () => {
    const { load } = await import("/without/index.js");
    return load("/tiny-gqa/").catch(({ code, message }) => ({ code, message }));
  });
  assert.equal(refusal.code, "no-webgpu");
  assert.match(refusal.message, /Chrome/);
});

test("200 answers leave memory as it was", async () => {
  const out = await inPage(async () => {
    const model = await tiny();
    const ask = async (count) => {
      for (let i = 0; i < count; i++) {
        // Each other chat keeps a state, so the chats are ten.
        const content = `t${i % 10} t60`;
        await model.chat.completions.create({ messages: [{ role: "user", content }], temperature: 0, max_tokens: 2 });
      }
      return model.memory();
    };
    return { before: await ask(20), after: await ask(200) };
  });
  console.log(`200 answers: wasm ${out.before.wasm} -> ${out.after.wasm}, GPU ${out.before.gpu.total} -> ${out.after.gpu.total} bytes`);
  assert.equal(out.after.wasm, out.before.wasm);
  assert.deepEqual(out.after.gpu, out.before.gpu);
});

test("the pocket model answers with PyTorch's ids", async () => {
  assert.ok(existsSync(`${POCKET}/model.safetensors`), `${POCKET} is missing: npm run build, in web/, makes it`);
  const chats = JSON.parse(readFileSync(path("../fixtures/pocket-chats.json"), "utf8"));
  const shortest = chats.filter((chat) => chat.messages.length === 1).sort((a, b) => a.greedy_ids.length - b.greedy_ids.length);
  const asked = shortest.slice(0, 2);
  const out = await inPage(async (chats) => {
    const model = await zebra.load("/pocket/", { kernels: "auto" });
    const answers = [];
    for (const messages of chats) {
      const answer = await model.chat.completions.create({ messages, temperature: 0, return_token_ids: true });
      answers.push({ ...answer.choices[0], usage: answer.usage });
    }
    const { info } = model;
    await model.dispose();
    return { answers, info };
  }, asked.map(({ messages }) => messages));
  assert.equal(out.info.format, "q8");
  assert.equal(out.info.selfTest, undefined);
  asked.forEach((chat, i) => {
    const { message, token_ids, finish_reason, usage } = out.answers[i];
    console.log(`${JSON.stringify(message.content)}: ${usage.timings.decode_per_second.toFixed(1)} tokens/s`);
    assert.deepEqual(token_ids, chat.greedy_ids);
    assert.equal(message.content, chat.greedy_text);
    assert.equal(finish_reason, "stop");
    assert.equal(usage.prompt_tokens, chat.prompt_ids.length);
  });
});

// A software adapter takes a minute or more for this much of it, most of it for loading and the prompt.
test("a pretrained model, SmolLM2, begins its answer as in transformers", async () => {
  assert.ok(existsSync(`${SMOLLM2}/model.safetensors`), `${SMOLLM2} is missing: scripts/fetch-smollm2.py gets it`);
  browser.expect(/Failed to load resource.*404/);
  const chats = JSON.parse(readFileSync(path("../fixtures/smollm2-chats.json"), "utf8"));
  // One that q8 does not change.
  const chat = chats.find(({ messages }) => messages[0].content.startsWith("Describe the moon"));
  const out = await inPage(async (messages) => {
    const began = performance.now();
    const model = await zebra.load("/smollm2/", { format: "q8", context: 128, store: "none" });
    const loaded = performance.now() - began;
    const answer = await model.chat.completions.create({ messages, temperature: 0, max_tokens: 4, return_token_ids: true });
    const { family, layers } = model.info;
    await model.dispose();
    return { loaded, usage: answer.usage, choice: answer.choices[0], family, layers: layers.length };
  }, chat.messages);
  const { timings, prompt_tokens } = out.usage;
  const seconds = [out.loaded, timings.prompt_ms, timings.decode_ms].map((ms) => (ms / 1000).toFixed(1));
  console.log(`SmolLM2 in q8: loaded in ${seconds[0]} s, prompt of ${prompt_tokens} in ${seconds[1]} s, three tokens more in ${seconds[2]} s`);
  assert.deepEqual(out.choice.token_ids, chat.greedy_ids.slice(0, 4));
  assert.ok(chat.greedy_text.startsWith(out.choice.message.content), out.choice.message.content);
  assert.deepEqual([prompt_tokens, out.family, out.layers], [chat.prompt_ids.length, "llama", 30]);
});

test("from the page's opening to the first token, with the model in storage", async () => {
  await page.close();
  page = await browser.newPage("about:blank");
  await page.goto(`${server.url}/index.html`);
  const parts = await page.evaluate(async (prompt) => {
    while (!window.zebra) await new Promise((resolve) => setTimeout(resolve, 1));
    const at = { "package read": performance.now() };
    const model = await zebra.load("/tiny-gqa/", { format: "f32", cache: "f32", onProgress: (p) => (at[p.phase] ??= performance.now()) });
    for await (const _ of await model.completions.create({ prompt, max_tokens: 1, stream: true })) {
      at["first token"] ??= performance.now();
    }
    await model.dispose();
    return at;
  }, PROMPT);
  const line = Object.entries(parts).map(([part, ms]) => `${part} ${ms.toFixed(0)}`).join(", ");
  console.log(`page opened to first token, in ms: ${line}`);
  assert.ok(parts["first token"] > parts.ready);
});
