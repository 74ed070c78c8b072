// The chat page, driven as a person would. What is slow or rare with a real model comes from page-double.mjs in the
// package's place; the last tests use the real package and the pocket model, from web/site.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { buildPage } from "../../web/page/build.mjs";
import { openBrowser } from "./browser.mjs";
import { startServer } from "./server.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const SITE = fileURLToPath(new URL("../../web/site/", import.meta.url));
const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const ZEBRA = "A zebra is any of several fleet black-and-white striped African equines.";
const LONG = Array.from({ length: 60 }, (_, index) => `word${index}`).join(" ");

let folder;
let browser;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "zebra-page-"));
  await buildPage({ out: join(folder, "site"), packageEntry: join(HERE, "page-double.mjs") });
  browser = await openBrowser();
  await browser.context.grantPermissions(["clipboard-read", "clipboard-write"]);
});

after(async () => {
  await browser?.close();
  await rm(folder, { recursive: true, force: true });
});

/** A page of its own origin, so that tests share no storage; under a path, as static hosts have it. */
async function withApp(script, use, { ready = true, init, path = "/some/path/", site = join(folder, "site") } = {}) {
  const server = await startServer({ mounts: { [path]: site } });
  const page = await browser.context.newPage();
  page.setDefaultTimeout(10_000);
  try {
    await page.emulateMedia({ colorScheme: "light", reducedMotion: "no-preference" });
    await page.addInitScript((given) => {
      globalThis.zebraScript = given;
      globalThis.ran = [];
    }, script);
    if (init) {
      await page.addInitScript(init);
    }
    await page.goto(server.url + path);
    if (ready) {
      await page.getByText("zebra-pocket · q8").waitFor();
    }
    await use(page, server);
    browser.check();
  } finally {
    await page.close();
    await server.close();
  }
}

async function ask(page, text) {
  await page.fill("#prompt", text);
  await page.press("#prompt", "Enter");
}

const answers = (page) => page.locator(".message.assistant .prose");
const lastAnswer = (page) => answers(page).last();
const complete = (page) => page.locator(".message.assistant.last:not(.writing)").waitFor();

/** The words of the last answer, once they match. */
async function answered(page, expected) {
  await complete(page);
  assert.equal((await lastAnswer(page).innerText()).trim(), expected);
}

/** The tool for a message's button, which is shown while the pointer is over the message. */
async function press(message, name) {
  await message.hover();
  await message.getByRole("button", { name, exact: true }).click();
}

const requests = (page) => page.evaluate(() => globalThis.zebraScript.requests);
const roles = (request) => request.messages.map(({ role, content }) => `${role}: ${content}`);

test("an example is asked, answered, measured and listed", async () => {
  await withApp({ answers: { "What is a zebra?": ZEBRA } }, async (page) => {
    assert.match(await page.locator("#empty").innerText(), /WordNet/);
    assert.equal(await page.locator("#examples button").count(), 4);
    await page.getByRole("button", { name: "What is a zebra?" }).click();
    await answered(page, ZEBRA);
    assert.match(
      await page.locator(".stats").innerText(),
      /14\.2 tokens\/s\s*first after [\d.]+ s\s*0 of \d+ tokens reused/,
    );
    assert.match(await page.locator("#memory").innerText(), /GPU 31\.0 MB\s*cache 4\.00 MB, 3\.4 %/);
    assert.equal(await page.title(), "What is a zebra? · Zebra");
    await ask(page, "And a horse?");
    await answered(page, "You said: And a horse?");
    assert.match(await page.locator(".stats").last().innerText(), /[1-9]\d* of \d+ tokens reused/);
    assert.deepEqual(roles((await requests(page))[1]), [
      "user: What is a zebra?",
      `assistant: ${ZEBRA}`,
      "user: And a horse?",
    ]);
    assert.equal(await page.locator("#chat-list .chat").innerText(), "What is a zebra?");
  });
});

test("a question that is asked while the model loads is answered when it is there", async () => {
  await withApp(
    { stepMs: 300 },
    async (page) => {
      await ask(page, "early");
      await page.getByText("Waiting for the model").waitFor();
      await answered(page, "You said: early");
    },
    { ready: false },
  );
});

test("an answer streams, is stopped with Escape and continued", async () => {
  await withApp({ answers: { long: LONG }, pieceMs: 40 }, async (page) => {
    await ask(page, "long");
    await page.getByText("word3").waitFor();
    assert.equal(await page.locator("#send").isVisible(), false);
    await page.keyboard.press("Escape");
    await page.getByText("Stopped here.").waitFor();
    const partial = (await lastAnswer(page).innerText()).trim();
    assert.ok(partial.length > 10 && LONG.startsWith(partial) && partial !== LONG, partial);
    await page.waitForTimeout(200);
    assert.equal((await lastAnswer(page).innerText()).trim(), partial, "nothing comes after a stop");
    await page.evaluate(() => (globalThis.zebraScript.pieceMs = 1));
    await page.getByRole("button", { name: "Continue" }).click();
    await page.locator(".stats").waitFor();
    await answered(page, LONG);
    const [, continued] = await requests(page);
    assert.ok(String.fromCodePoint(...continued.prompt).endsWith(`\n${partial}`), "the answer so far is in the prompt");
  });
});

test("a base model goes on with the text, and the page says so", async () => {
  const info = { chat: false, family: "minitron", layers: ["attention", "attention"] };
  const prompts = async (page) => (await requests(page)).map(({ prompt }) => prompt);
  const answers = { "Once upon": " a time.", "Once upon a time.\nAnd then": " it ended." };
  await withApp({ info, answers }, async (page) => {
    // The page begins with the pocket model, whose words are its own: another address has those of any model.
    await page.locator("#open-models").click();
    await page.getByLabel("Address or hub name").fill("https://host.example/base/");
    await page.getByRole("button", { name: "Open", exact: true }).click();
    await page.getByText("base · q8").waitFor();
    await page.getByText("it does not answer, it goes on with your text").waitFor();
    assert.equal(await page.locator("#prompt").getAttribute("placeholder"), "Write the beginning of a text");
    assert.match(await page.locator("#memory").innerText(), /base model: goes on with your text/);
    await ask(page, "Once upon");
    await answered(page, "a time.");
    await ask(page, "And then");
    await answered(page, "it ended.");
    assert.deepEqual(await prompts(page), ["Once upon", "Once upon a time.\nAnd then"]);
    await page.locator("#open-models").click();
    const facts = await page.locator("#model-current").innerText();
    assert.match(facts, /Minitron/);
    assert.match(facts, /no template/);
  });
});

test("a base model's text that was stopped goes on where it was", async () => {
  await withApp({ info: { chat: false }, answers: { "Once upon": LONG }, pieceMs: 40 }, async (page) => {
    await ask(page, "Once upon");
    await page.getByText("word3").waitFor();
    await page.keyboard.press("Escape");
    const partial = await lastAnswer(page).innerText();
    await page.evaluate(() => (globalThis.zebraScript.pieceMs = 1));
    await page.getByRole("button", { name: "Continue" }).click();
    await page.locator(".stats").waitFor();
    assert.equal((await requests(page)).at(-1).prompt.trimEnd(), `Once upon${partial}`.trimEnd());
  });
});

test("the stop button stops", async () => {
  await withApp({ answers: { long: LONG }, pieceMs: 40 }, async (page) => {
    await ask(page, "long");
    await page.getByText("word2").waitFor();
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByText("Stopped here.").waitFor();
  });
});

test("regenerated and edited messages are versions of one another", async () => {
  await withApp({ answers: { one: "first" } }, async (page) => {
    await ask(page, "one");
    await answered(page, "first");
    await page.evaluate(() => (globalThis.zebraScript.answers.one = "second"));
    await press(page.locator(".message.assistant"), "Regenerate");
    await page.getByText("Version 2 of 2").waitFor({ state: "attached" });
    await answered(page, "second");
    await page.getByRole("button", { name: "Previous version" }).click();
    await answered(page, "first");
    await ask(page, "two");
    await answered(page, "You said: two");
    assert.deepEqual(roles((await requests(page)).at(-1)), ["user: one", "assistant: first", "user: two"]);
    await page.getByRole("button", { name: "Next version" }).click();
    await answered(page, "second");
    assert.equal(await page.locator(".message").count(), 2, "the other branch has no second question");

    await press(page.locator(".message.user"), "Edit");
    await page.getByLabel("Edit your message").fill("edited");
    await page.keyboard.press("Enter");
    await answered(page, "You said: edited");
    assert.deepEqual(roles((await requests(page)).at(-1)), ["user: edited"]);
    await page.locator(".message.user").getByRole("button", { name: "Previous version" }).click();
    await answered(page, "second");

    await press(page.locator(".message.assistant"), "Edit");
    await page.getByLabel("Edit the answer").fill("mine");
    await page.getByRole("button", { name: "Save" }).click();
    await answered(page, "mine");
    assert.equal((await requests(page)).length, 4, "an edited answer asks nothing");

    await page.reload();
    await page.getByText("zebra-pocket · q8").waitFor();
    await answered(page, "mine");
    await page.getByText("Version 3 of 3").waitFor({ state: "attached" });
  });
});

test("a message is copied and deleted, and its deletion undone", async () => {
  await withApp({}, async (page) => {
    await ask(page, "one");
    await answered(page, "You said: one");
    await ask(page, "two");
    await answered(page, "You said: two");
    await press(page.locator(".message.assistant").first(), "Copy");
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "You said: one");
    await press(page.locator(".message.user").last(), "Delete");
    await page.getByText("and 1 message below it was deleted").waitFor();
    assert.equal(await page.locator(".message").count(), 2);
    await page.getByRole("button", { name: "Undo" }).click();
    assert.equal(await page.locator(".message").count(), 4);
    await press(page.locator(".message.user").last(), "Delete");
    await page.getByText("was deleted").last().waitFor();
    await page.waitForTimeout(200);
    await page.reload();
    await page.getByText("zebra-pocket · q8").waitFor();
    assert.equal(await page.locator(".message").count(), 2, "the deletion is kept");
  });
});

test("a reload in mid-answer keeps what was written, and it goes on", async () => {
  await withApp({ answers: { long: LONG }, pieceMs: 30 }, async (page) => {
    await ask(page, "long");
    await page.getByText("word25").waitFor();
    await page.reload();
    await page.getByText("zebra-pocket · q8").waitFor();
    const partial = (await lastAnswer(page).innerText()).trim();
    assert.ok(partial.includes("word5") && LONG.startsWith(partial), `kept: ${partial}`);
    await page.getByText("Stopped here.").waitFor();
    await page.getByRole("button", { name: "Continue" }).click();
    await page.locator(".stats").waitFor();
    await answered(page, LONG);
    await page.evaluate(() => (globalThis.zebraScript.answers.long = "short"));
    await press(page.locator(".message.assistant"), "Regenerate");
    await page.getByText("Version 2 of 2").waitFor({ state: "attached" });
    await answered(page, "short");
  });
});

test("chats are kept, opened, renamed, deleted and brought back; one answers while another is read", async () => {
  await withApp({ answers: { slow: LONG }, pieceMs: 20 }, async (page) => {
    await ask(page, "slow");
    await page.getByText("word2").waitFor();
    await page.getByRole("button", { name: "New chat" }).click();
    assert.equal(await page.locator(".message").count(), 0);
    assert.equal(await page.locator("#prompt").evaluate((box) => box === document.activeElement), true);
    await ask(page, "second chat");
    await answered(page, "You said: second chat");
    await page.locator("#chat-list .chat", { hasText: "slow" }).click();
    await page.locator(".stats").waitFor();
    await answered(page, LONG);
    await page.getByRole("button", { name: "This chat" }).click();
    await page.getByRole("button", { name: "Rename" }).click();
    await page.getByLabel("Name of the chat").fill("A better name");
    await page.keyboard.press("Enter");
    await page.reload();
    await page.getByText("zebra-pocket · q8").waitFor();
    await page.locator("#chat-title", { hasText: "A better name" }).waitFor();
    assert.equal(await page.locator("#chat-list .chat").count(), 2);
    await page.locator(".item", { hasText: "A better name" }).hover();
    await page.getByRole("button", { name: "Delete the chat “A better name”" }).click();
    await page.getByText("“A better name” was deleted.").waitFor();
    assert.equal(await page.locator("#chat-list .chat").count(), 1);
    await page.getByRole("button", { name: "Undo" }).click();
    await page.locator("#chat-title", { hasText: "A better name" }).waitFor();
    await answered(page, LONG);
  });
});

test("chats are exported and imported; a bad file is refused by what is wrong in it", async () => {
  let exported;
  await withApp({ answers: { one: "first" } }, async (page) => {
    await ask(page, "one");
    await answered(page, "first");
    await press(page.locator(".message.assistant"), "Regenerate");
    await page.getByText("Version 2 of 2").waitFor({ state: "attached" });
    await complete(page);
    await page.getByRole("button", { name: "Settings" }).click();
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Export all" }).click();
    exported = await readFile(await (await download).path(), "utf8");
    await page.setInputFiles("#import-file", {
      name: "again.json",
      mimeType: "application/json",
      buffer: Buffer.from(exported),
    });
    await page.getByText("0 chats imported, 1 were here already.").waitFor();
  });
  const file = JSON.parse(exported);
  assert.equal(file.format, "zebra-runtime chats");
  assert.equal(file.chats[0].messages.length, 3);

  const changed = (change) => {
    const copy = structuredClone(file);
    change(copy);
    return JSON.stringify(copy);
  };
  const bad = [
    ["{", /not a JSON file/],
    ["[]", /The file: expected an object, found \[\]/],
    [changed((it) => (it.format = "other")), /format: expected "zebra-runtime chats", found "other"/],
    [changed((it) => (it.version = 9)), /version: expected 1, found 9/],
    [changed((it) => delete it.chats), /chats: expected a list, found nothing/],
    [changed((it) => (it.chats[0].title = 7)), /chats\[0\]\.title: expected a text, found 7/],
    [
      changed((it) => (it.chats[0].messages[1].role = "robot")),
      /chats\[0\]\.messages\[1\]\.role: expected "user" or "assistant", found "robot"/,
    ],
    [
      changed((it) => (it.chats[0].messages[1].parent = "nobody")),
      /messages\[1\]\.parent: there is no message "nobody"/,
    ],
    [
      changed((it) => (it.chats[0].messages[0].parent = it.chats[0].messages[0].id)),
      /messages\[0\]\.parent: the message would follow itself/,
    ],
    [
      changed((it) => (it.chats[0].messages[1].id = it.chats[0].messages[0].id)),
      /messages\[1\]\.id: ".*" is there twice/,
    ],
  ];
  await withApp({}, async (page) => {
    await page.getByRole("button", { name: "Settings" }).click();
    const result = page.locator("#import-result");
    for (const [text, complaint] of bad) {
      await result.evaluate((element) => (element.textContent = ""));
      await page.setInputFiles("#import-file", {
        name: "bad.json",
        mimeType: "application/json",
        buffer: Buffer.from(text),
      });
      await page.waitForFunction(() => document.querySelector("#import-result").textContent !== "");
      assert.match(await result.innerText(), complaint);
      assert.match(await result.innerText(), /^bad\.json was not imported\./);
    }
    assert.equal(await page.locator("#chat-list .chat").count(), 0);
    await page.setInputFiles("#import-file", {
      name: "good.json",
      mimeType: "application/json",
      buffer: Buffer.from(exported),
    });
    await page.getByText("1 chat imported.").waitFor();
    await page.keyboard.press("Escape");
    await page.locator("#chat-list .chat").click();
    await answered(page, "first");
    await page.getByText("Version 2 of 2").waitFor({ state: "attached" });
  });
});

test("settings reach the model, are checked, kept and reset", async () => {
  await withApp({}, async (page) => {
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByLabel("System prompt").fill("Be brief.");
    await page.getByLabel("Temperature").fill("0.5");
    await page.getByLabel("Top k").fill("40");
    await page.getByLabel("Seed").fill("7");
    await page.getByLabel("Longest answer").fill("2");
    await page.getByLabel("Stop texts").fill("END\n\nSTOP");
    await page.getByLabel("Top p").fill("3");
    await page.getByText("Top p must be a number from 0 to 1").waitFor();
    assert.equal(await page.getByLabel("Top p").getAttribute("aria-invalid"), "true");
    await page.keyboard.press("Escape");
    await ask(page, "one two three");
    await page.getByText("The answer reached its longest length.").waitFor();
    const [request] = await requests(page);
    assert.deepEqual(roles(request), ["system: Be brief.", "user: one two three"]);
    const { messages, ...sampling } = request;
    assert.deepEqual(sampling, {
      stream: true,
      temperature: 0.5,
      top_k: 40,
      seed: 7,
      max_tokens: 2,
      stop: ["END", "STOP"],
    });
    await page.reload();
    await page.getByText("zebra-pocket · q8").waitFor();
    await page.getByRole("button", { name: "Settings" }).click();
    assert.equal(await page.getByLabel("Temperature").inputValue(), "0.5");
    assert.equal(await page.getByLabel("System prompt").inputValue(), "Be brief.");
    assert.equal(await page.getByLabel("Top p").inputValue(), "", "a wrong value is not kept");
    await page.getByRole("button", { name: "Reset" }).click();
    await page.getByLabel("System prompt").fill("");
    await page.keyboard.press("Escape");
    await ask(page, "four");
    await answered(page, "You said: four");
    const plain = (await requests(page)).at(-1);
    assert.deepEqual(Object.keys(plain).sort(), ["messages", "stream"]);
    assert.equal(plain.messages[0].role, "user");
  });
});

test("the theme follows the system, can be switched, and is kept", async () => {
  await withApp({}, async (page) => {
    const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await paper();
    await page.emulateMedia({ colorScheme: "dark" });
    const dark = await paper();
    assert.notEqual(light, dark);
    await page.getByRole("button", { name: "Switch between dark and light" }).click();
    assert.equal(await paper(), light);
    await page.reload();
    assert.equal(await paper(), light);
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("radio", { name: "System" }).check();
    assert.equal(await paper(), dark);
  });
});

test("nothing is wider than a page of 360 pixels", async () => {
  const table = `| ${"a | ".repeat(30)}\n| ${"--- | ".repeat(30)}`;
  const wide = [`${"x".repeat(400)}`, `\`\`\`js\n${"y".repeat(400)}\n\`\`\``, table].join("\n\n");
  await withApp(
    {
      answers: { wide },
      stored: [{ name: `https://example.org/${"m".repeat(90)}/`, bytes: 1e9, complete: true, lastUsed: 1 }],
    },
    async (page) => {
      await page.setViewportSize({ width: 360, height: 740 });
      const fits = async (where) => {
        const width = await page.evaluate(() =>
          Math.max(
            ...["html", "#main", "#column", "#dock", "dialog[open] .dialog-body"].map(
              (it) => document.querySelector(it)?.scrollWidth ?? 0,
            ),
          ),
        );
        assert.ok(width <= 360, `${where}: ${width} px`);
      };
      await fits("empty");
      await ask(page, "wide");
      await complete(page);
      await fits("chat");
      await page.getByRole("button", { name: "Show the list of chats" }).click();
      await fits("list of chats");
      await page.getByRole("button", { name: "Settings" }).click();
      await fits("settings");
      await page.keyboard.press("Escape");
      await page.locator("#open-models").click();
      await page.locator(".stored").waitFor();
      await fits("models");
      await page.keyboard.press("Escape");
      await page.getByRole("button", { name: "Show the list of chats" }).click();
      await page.keyboard.press("Escape");
      assert.equal(await page.locator("#sidebar").isVisible(), false);
    },
  );
});

test("the page is used by the keyboard alone", async () => {
  await withApp({ answers: { "line one\nline two": "both" } }, async (page) => {
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    await page.keyboard.type("line one");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("line two");
    assert.equal(await page.locator(".message").count(), 0);
    await page.keyboard.press("Enter");
    await answered(page, "both");
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("ControlOrMeta+a");
    await page.keyboard.type("again");
    await page.keyboard.press("Enter");
    await answered(page, "You said: again");
    await page.locator("#prompt").focus();
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("Escape");
    assert.equal(
      await page.evaluate(() => document.activeElement.dataset.action),
      "edit",
      "focus goes back to the button",
    );
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(outline, "solid", "the focus is seen");
    await page.keyboard.press("ControlOrMeta+/");
    await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
    await page.keyboard.press("Escape");
    await page.keyboard.press("ControlOrMeta+,");
    await page.getByRole("dialog", { name: "Settings" }).waitFor();
    await page.keyboard.press("Escape");
    await page.keyboard.press("ControlOrMeta+Shift+o");
    assert.equal(await page.locator(".message").count(), 0);
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    await page.keyboard.press("ControlOrMeta+b");
    assert.equal(await page.locator("#sidebar").isVisible(), false);
    await page.keyboard.press("ControlOrMeta+b");
    const order = [];
    await page.locator(".skip").focus();
    for (let step = 0; step < 12; step++) {
      await page.keyboard.press("Tab");
      order.push(await page.evaluate(() => document.activeElement.id || document.activeElement.className));
    }
    const places = ["new-chat", "open-settings", "open-models", "scroller"].map((id) => order.indexOf(id));
    assert.ok(
      places.every((place, index) => place > (places[index - 1] ?? -1)),
      order.join(" "),
    );
  });
});

test("Enter of an input method does not send", async () => {
  await withApp({}, async (page) => {
    await page.fill("#prompt", "にほん");
    await page.evaluate(() => {
      const box = document.querySelector("#prompt");
      for (const composing of [{ isComposing: true }, { keyCode: 229 }]) {
        box.dispatchEvent(
          new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true, ...composing }),
        );
      }
    });
    assert.equal(await page.locator(".message").count(), 0);
    assert.equal(await page.inputValue("#prompt"), "にほん");
    await page.press("#prompt", "Enter");
    await answered(page, "You said: にほん");
  });
});

test("without WebGPU the page says in plain words what is missing, and the chats can be read", async () => {
  const init = () => {
    if (sessionStorage.getItem("no-gpu")) {
      delete Navigator.prototype.gpu;
    }
  };
  await withApp(
    {},
    async (page) => {
      await ask(page, "kept");
      await answered(page, "You said: kept");
      await page.evaluate(() => sessionStorage.setItem("no-gpu", "1"));
      await page.reload();
      await page.getByRole("heading", { name: "This browser cannot run the model." }).waitFor();
      for (const name of ["Chrome", "Edge", "Safari", "Firefox"]) {
        assert.match(await page.getByRole("link", { name }).getAttribute("href"), /^https:/);
      }
      assert.equal(await page.locator("#composer").isVisible(), false);
      assert.equal(await lastAnswer(page).innerText(), "You said: kept");
      assert.equal(await page.locator("#insecure").isVisible(), false);
      assert.deepEqual(await page.evaluate(() => globalThis.zebraScript.loads), [], "nothing is downloaded in vain");
    },
    { init },
  );
  await withApp(
    { loadError: { code: "no-webgpu", message: "requestAdapter() gave null 20 times" } },
    async (page) => {
      await page.getByRole("heading", { name: "This browser cannot run the model." }).waitFor();
      await page.getByText("requestAdapter() gave null 20 times").waitFor();
    },
    { ready: false },
  );
});

test("loading shows bytes, rate and time left, and is cancelled and taken up again", async () => {
  const step = { phase: "download", loaded: 6e6, total: 18e6, bytesPerSecond: 4e6 };
  await withApp(
    { steps: [step, step, step, step], stepMs: 500 },
    async (page) => {
      await page.getByText("6.00 MB of 18.0 MB · 4.00 MB/s · 3 s left").waitFor();
      assert.equal(
        await page.getByRole("progressbar", { name: "Downloading zebra-pocket" }).getAttribute("aria-valuenow"),
        "33",
      );
      await page.getByRole("button", { name: "Cancel" }).click();
      await page.getByText("Loading was cancelled.").waitFor();
      await page.getByRole("button", { name: "Load zebra-pocket" }).click();
      await page.getByText("zebra-pocket · q8").waitFor();
      assert.equal(await page.locator("#notice").isVisible(), false);
    },
    { ready: false },
  );
  const phases = [
    [{ phase: "waiting" }, "Another tab is downloading it"],
    [{ phase: "quantize", loaded: 1e6, total: 4e6 }, "Quantizing zebra-pocket"],
    [{ phase: "upload", loaded: 1e6, total: 4e6 }, "Moving zebra-pocket to the graphics card"],
    [{ phase: "compile" }, "Compiling and testing its shaders"],
  ];
  for (const [step, words] of phases) {
    await withApp({ steps: [step], stepMs: 500 }, (page) => page.locator("#notice").getByText(words).waitFor(), {
      ready: false,
    });
  }
});

test("a model is opened by address, hub name, folder and drop, with a question before a large download", async () => {
  const large = {
    download: { total: 690e6, missing: 690e6 },
    gpu: { total: 1.1e9, weights: 7e8, latents: 1e8, states: 1e8, activations: 1.9e8, control: 1e7 },
    parameters: 1.24e9,
  };
  await withApp({}, async (page) => {
    const loads = () => page.evaluate(() => globalThis.zebraScript.loads.splice(0));
    const open = () => page.locator("#open-models").click();
    await loads();
    await open();
    await page.getByRole("button", { name: "Open", exact: true }).click();
    await page.getByText("Give the address of a model's folder").waitFor();
    await page.evaluate((estimate) => (globalThis.zebraScript.estimate = estimate), large);
    await page.getByLabel("Address or hub name").fill("owner/zebra-1b");
    await page.getByText("Form, context and access").click();
    await page.getByLabel("Weights").selectOption("q4");
    await page.getByLabel("Context, in tokens").fill("2048");
    await page.getByLabel("Access token").fill("secret");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Load zebra-1b?" }).waitFor();
    const notice = await page.locator("#notice").innerText();
    assert.match(notice, /It fits this computer\./);
    assert.match(notice, /690 MB of 690 MB/);
    assert.match(notice, /1\.10 GB: weights 700 MB, cache 200 MB, work 200 MB/);
    assert.match(notice, /1\.24 billion parameters/);
    assert.deepEqual(
      (await loads()).map(({ what }) => what),
      ["estimate"],
      "nothing is loaded unasked",
    );
    await page.getByRole("button", { name: "Download and load" }).click();
    await page.getByText("zebra-1b · q4").waitFor();
    const [{ source, format, context, headers }] = await loads();
    const expected = {
      source: "owner/zebra-1b",
      format: "q4",
      context: 2048,
      headers: { Authorization: "Bearer secret" },
    };
    assert.deepEqual({ source, format, context, headers }, expected);
    assert.doesNotMatch(
      await page.evaluate(() => JSON.stringify({ ...localStorage })),
      /secret/,
      "a token is not kept",
    );

    await page.evaluate(
      () => (globalThis.zebraScript.estimate = { fits: false, why: "It needs 5.6 GB; this card has 2." }),
    );
    await open();
    await page.getByLabel("Weights").selectOption("f16");
    await page.getByLabel("Address or hub name").fill("https://example.org/models/huge/");
    await page.getByRole("button", { name: "Open", exact: true }).click();
    await page.getByRole("heading", { name: "huge does not fit here" }).waitFor();
    await page.getByText("It needs 5.6 GB; this card has 2.").waitFor();
    await page.evaluate(() => (globalThis.zebraScript.estimate = {}));
    await page.getByRole("button", { name: "Try the smaller q4 format" }).click();
    await page.getByText("huge · q4").waitFor();

    await loads();
    await writeFile(join(folder, "config.json"), "{}");
    await open();
    await page.setInputFiles("#model-files", folder);
    await page.waitForFunction(() => globalThis.zebraScript.loads.some(({ what }) => what === "load"));
    assert.equal(typeof (await loads()).at(-1).source, "number", "files are handed to the package");
    await page.evaluate(() => {
      const data = new DataTransfer();
      data.items.add(new File(["{}"], "config.json"));
      dispatchEvent(new DragEvent("dragover", { dataTransfer: data, bubbles: true, cancelable: true }));
      globalThis.veil = !document.querySelector("#drop").hidden;
      dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    });
    assert.equal(await page.evaluate(() => globalThis.veil), true);
    await page.waitForFunction(() => globalThis.zebraScript.loads.some(({ what }) => what === "load"));
    assert.equal((await loads()).at(-1).source, 1);

    await page.reload();
    await page.getByText("huge · q4").waitFor();
    assert.equal((await loads()).at(-1).source, "https://example.org/models/huge/", "the last address is opened again");
  });
});

test("the models in storage are listed with their sizes and deleted", async () => {
  const stored = [
    { name: "owner/zebra-1b", bytes: 690e6, complete: true, lastUsed: Date.now() },
    { name: "https://example.org/m/", bytes: 12e6, complete: false, lastUsed: 0 },
  ];
  await withApp({ stored }, async (page) => {
    await page.getByRole("button", { name: "Models" }).click();
    const list = page.locator("#model-stored");
    await list.getByText("zebra-1b", { exact: true }).waitFor();
    assert.match(await list.innerText(), /690 MB[^]*12\.0 MB so far, not complete/);
    assert.match(
      await page.locator("#model-current").innerText(),
      /16\.6 million parameters in q8[^]*2 attention \(MLA\), 6 Mamba2/,
    );
    await page.getByRole("button", { name: "Delete zebra-1b" }).click();
    await page.getByRole("alertdialog").getByRole("button", { name: "Cancel" }).click();
    assert.deepEqual(await page.evaluate(() => globalThis.zebraScript.deleted), []);
    await page.getByRole("button", { name: "Delete zebra-1b" }).click();
    await page.getByRole("alertdialog").getByRole("button", { name: "Delete" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".stored").length === 1);
    assert.deepEqual(await page.evaluate(() => globalThis.zebraScript.deleted), ["owner/zebra-1b"]);
  });
});

test("each error of a load is said in a sentence, with a button that helps", async () => {
  const first = {
    limit: ["The model is too large for this graphics card.", "Try the smaller q4 format", { format: "q4" }],
    "out-of-memory": ["The graphics card's memory is full.", "Try a shorter context", { context: 1024 }],
    "device-lost": ["The graphics card was reset and did not come back.", "Reload the model", {}],
    gpu: ["The graphics driver refused to compute something.", "Use the plain kernels", { kernels: "plain" }],
    network: ["The model could not be downloaded.", "Try again", {}],
    "not-found": ["There is no model at this address.", "Try again", {}],
    integrity: ["The model's files are damaged.", "Download it anew", {}],
    quota: ["The browser's storage is full.", "Run without storing it", { store: "none" }],
    "bad-model": ["This is not a model that Zebra can run.", "Choose another model", null],
    "bad-tokenizer": ["The model's tokenizer or chat template cannot be used.", "Choose another model", null],
    "bad-request": ["The model cannot run this request.", "Try again", {}],
    unsupported: ["This is something that the model's runtime cannot do.", "Open settings", null],
    context: ["The chat is longer than the model can read.", "Start a new chat", null],
    worker: ["The model has stopped running.", "Reload the model", {}],
    internal: ["Something went wrong in Zebra itself.", "Try again", {}],
  };
  const message = "what happened, what was expected and found";
  for (const [code, [title, action, expected]] of Object.entries(first)) {
    await withApp(
      { loadError: { code, message } },
      async (page) => {
        await page.getByRole("heading", { name: title }).waitFor();
        assert.match(await page.locator("#notice .details").innerText(), new RegExp(message));
        await page.evaluate(() => {
          delete globalThis.zebraScript.loadError;
          globalThis.zebraScript.loads = [];
        });
        await page.locator("#notice").getByRole("button", { name: action }).click();
        if (expected) {
          await page.getByText(/zebra-pocket · q/).waitFor();
          const load = (await page.evaluate(() => globalThis.zebraScript.loads)).at(-1);
          for (const [name, value] of Object.entries(expected)) {
            assert.equal(load[name], value, `${code}: ${name}`);
          }
        }
      },
      { ready: false },
    );
  }
});

test("a failed answer keeps its words and can be asked for again", async () => {
  await withApp(
    { answers: { long: LONG }, answerError: { after: 4, code: "out-of-memory", message: "no room" } },
    async (page) => {
      await ask(page, "long");
      const note = page.locator(".note.failed");
      await note.getByText("The graphics card's memory is full.").waitFor();
      assert.equal((await lastAnswer(page).innerText()).trim(), "word0 word1 word2 word3");
      await page.evaluate(() => delete globalThis.zebraScript.answerError);
      await note.getByRole("button", { name: "Try again" }).click();
      await page.locator(".stats").waitFor();
      await answered(page, LONG);
    },
  );
});

test("a lost GPU shows that it recovers, and the answer goes on", async () => {
  await withApp({ answers: { long: LONG }, recoverAfter: 5, recoverMs: 400 }, async (page) => {
    await ask(page, "long");
    await page.locator("#notice").getByText("Recovering").waitFor();
    await page.locator(".stats").waitFor();
    await answered(page, LONG);
    assert.equal(await page.locator("#notice").isVisible(), false);
    assert.equal(await page.locator(".note.failed").count(), 0);
  });
});

test("a dead worker offers to reload the model; the chat stays and the answer is continued", async () => {
  await withApp(
    { answers: { long: LONG }, answerError: { after: 5, code: "worker", message: "the worker ended" } },
    async (page) => {
      await ask(page, "long");
      await page.getByRole("heading", { name: "The model has stopped running." }).waitFor();
      assert.match(await lastAnswer(page).innerText(), /word0 word1/);
      await page.evaluate(() => delete globalThis.zebraScript.answerError);
      await page.getByRole("button", { name: "Reload the model" }).click();
      await page.getByText("zebra-pocket · q8").waitFor();
      await page.getByRole("button", { name: "Continue" }).click();
      await page.locator(".stats").waitFor();
      await answered(page, LONG);
    },
  );
});

const ATTACKS = [
  "<img src=x onerror=\"globalThis.ran.push('img')\">",
  "<script>globalThis.ran.push('script')</script>",
  "<svg><animate onbegin=\"globalThis.ran.push('svg')\" attributeName=x dur=1s>",
  "[a link](javascript:globalThis.ran.push('link'))",
  "![an image](https://example.invalid/track.png)",
  "<iframe srcdoc=\"<script>parent.ran.push('iframe')</script>\"></iframe>",
  "<details open ontoggle=\"globalThis.ran.push('toggle')\">x</details>",
  "[a](https://example.org \"'onmouseover='globalThis.ran.push(1)\")",
  "```html\n<img src=x onerror=\"globalThis.ran.push('code')\">\n```",
  '<a href="data:text/html,<script>1</script>">x</a> <form action=https://example.org><input name=x></form>',
];

test("HTML and script in messages, answers, titles and imported chats never run", async () => {
  const attack = ATTACKS.join("\n\n");
  await withApp({ answers: { [attack]: attack } }, async (page, server) => {
    await ask(page, attack);
    await complete(page);
    await page.locator(".code-block").waitFor();
    for (const link of await page.locator(".prose a").all()) {
      assert.match((await link.getAttribute("href")) ?? "none", /^(https:|none)/);
      await link.hover();
    }
    await page.reload();
    await page.getByText("zebra-pocket · q8").waitFor();
    await page.locator(".code-block").waitFor();
    await page.waitForTimeout(300);
    assert.deepEqual(await page.evaluate(() => globalThis.ran), []);
    const made = await page
      .locator("#messages")
      .evaluate(
        (list) =>
          list.querySelectorAll(
            "img, script, iframe, form, input, details, animate, style, [onerror], [style]:not(textarea)",
          ).length,
      );
    assert.equal(made, 0);
    assert.match(await lastAnswer(page).innerText(), /<img src=x onerror/, "it is shown as it was written");
    assert.match(await page.locator("#chat-list .chat").innerText(), /^<img src=x/);
    assert.deepEqual(server.requests(/track|\/x$/), []);

    // The last wall: were markup to get through, the page's policy would not run it.
    browser.expect(/Content Security Policy/);
    await page.evaluate(() => {
      const probe = document.createElement("div");
      probe.innerHTML =
        "<img src='data:,' onerror=\"globalThis.ran.push('policy')\">" +
        "<button onclick=\"globalThis.ran.push('policy')\">x</button>";
      document.querySelector("#column").append(probe);
      probe.querySelector("button").click();
      const script = document.createElement("script");
      script.textContent = "globalThis.ran.push('policy')";
      probe.append(script);
    });
    await page.waitForTimeout(300);
    assert.deepEqual(await page.evaluate(() => globalThis.ran), []);
  });
});

test("markdown while it is written is what it is when it is complete", async () => {
  const text = [
    "# Title\n\nA *paragraph* with `code`, **bold**\nover two lines.",
    "1. one\n2. two\n\n   with a paragraph\n\n3. three",
    "- a\n  - b\n- [x] done",
    "```js\nconst a = '<b>';\n\nlet b;\n```",
    "| a | b |\n| --- | ---: |\n| 1 | 2 |",
    "> quote\n\nSetext\n======\n\nlink [by name][it] end.\n\n[it]: https://example.org/defined",
  ].join("\n\n");
  await withApp({ answers: { all: text }, pieceMs: 8 }, async (page) => {
    await ask(page, "all");
    await page.locator(".stats").waitFor();
    const streamed = await lastAnswer(page).innerHTML();
    await page.reload();
    await page.locator(".stats").waitFor({ state: "attached" });
    assert.equal(streamed, await lastAnswer(page).innerHTML());
    assert.equal(await page.locator(".prose ol > li").count(), 3);
    assert.equal(await page.locator(".prose ol").count(), 1, "a list is not torn by its blank lines");
    assert.equal(await page.getByRole("link", { name: "by name" }).getAttribute("href"), "https://example.org/defined");
    await page.getByRole("button", { name: "Copy", exact: true }).and(page.locator(".copy-code")).click();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "const a = '<b>';\n\nlet b;");
  });
});

test("an answer of 4,000 tokens renders its last block only, and does not jank", async (t) => {
  const paragraph = Array.from({ length: 38 }, (_, index) => `w${index}`).join(" ");
  const long = Array.from({ length: 100 }, (_, index) =>
    index % 5 === 4 ? `- ${paragraph}\n- **x** y` : `${index} ${paragraph}`,
  ).join("\n\n");
  await withApp({ answers: { long }, pieceMs: 0 }, async (page) => {
    await page.evaluate(() => {
      globalThis.longest = 0;
      new PerformanceObserver((list) => {
        globalThis.longest = Math.max(globalThis.longest, ...list.getEntries().map(({ duration }) => duration));
      }).observe({ entryTypes: ["longtask"] });
    });
    await ask(page, "long");
    await page.waitForFunction(() => document.querySelectorAll(".prose > .block").length >= 20);
    const marked = await page.evaluate(() => {
      const blocks = [...document.querySelectorAll(".prose > .block")].slice(0, 18);
      globalThis.early = blocks;
      return blocks.length;
    });
    await page.locator(".stats").waitFor({ timeout: 30_000 });
    assert.equal(await page.locator(".prose > .block").count(), 100);
    const { kept, longest } = await page.evaluate(() => ({
      kept: globalThis.early.filter((block) => block.isConnected).length,
      longest: globalThis.longest,
    }));
    t.diagnostic(`longest task while 4,000 tokens came: ${longest.toFixed(0)} ms`);
    assert.equal(kept, marked, "complete blocks are not rendered anew");
    assert.ok(longest < 250, `a task of ${longest} ms`);
  });
});

test("the page follows an answer until the reader scrolls up", async () => {
  const lines = Array.from({ length: 200 }, (_, index) => `line ${index}`).join("\n\n");
  await withApp({ answers: { lines }, pieceMs: 8 }, async (page) => {
    await ask(page, "lines");
    await page.getByText("line 60", { exact: true }).waitFor();
    const top = () => page.evaluate(() => document.querySelector("#scroller").scrollTop);
    const followed = await top();
    assert.ok(followed > 500, `followed to ${followed}`);
    await page.locator("#scroller").hover();
    await page.mouse.wheel(0, -400);
    await page.waitForTimeout(150);
    const read = await top();
    await page.waitForTimeout(500);
    assert.equal(await top(), read, "it stays where the reader is");
    await page.getByRole("button", { name: "Latest" }).click();
    await page.waitForTimeout(300);
    assert.ok((await top()) > read + 400);
    assert.equal(await page.getByRole("button", { name: "Latest" }).isVisible(), false);
  });
});

test("screen readers get blocks, not tokens", async () => {
  await withApp({ answers: { two: `First ${LONG}.\n\nSecond ${LONG}.` }, pieceMs: 4 }, async (page) => {
    await page.evaluate(() => {
      globalThis.told = [];
      new MutationObserver((changes) => {
        for (const { addedNodes } of changes) {
          globalThis.told.push(...[...addedNodes].map((node) => node.textContent));
        }
      }).observe(document.querySelector("#live"), { childList: true });
    });
    await ask(page, "two");
    await page.locator(".stats").waitFor();
    const told = await page.evaluate(() => globalThis.told);
    assert.deepEqual(
      told.map((text) => text.split(" ")[0]),
      ["Answering", "First", "Second", "The"],
    );
  });
});

test("a message of 10 MB leaves the page usable", async () => {
  const error = { after: 0, code: "context", message: "2,500,000 tokens do not fit into 4,096" };
  await withApp({ answerError: error }, async (page) => {
    await page.evaluate(() => {
      const box = document.querySelector("#prompt");
      box.value = "zebra ".repeat(1_700_000);
      box.dispatchEvent(new Event("input", { bubbles: true }));
    });
    await page.press("#prompt", "Enter");
    await page.getByText("The chat is longer than the model can read.").first().waitFor({ timeout: 30_000 });
    await page.evaluate(() => delete globalThis.zebraScript.answerError);
    await page.getByRole("button", { name: "Start a new chat" }).click();
    await ask(page, "short");
    await answered(page, "You said: short");
  });
});

test("axe finds nothing serious, in both themes", async () => {
  const markdown = "# T\n\ntext `code` [link](https://example.org)\n\n```js\nlet a;\n```\n\n| a |\n| - |\n| 1 |";
  const stored = [{ name: "owner/zebra-1b", bytes: 690e6, complete: true, lastUsed: Date.now() }];
  await withApp({ answers: { all: markdown }, stored }, async (page) => {
    // The page's policy keeps out inline scripts, not those of the tests' own tool.
    await page.evaluate(await readFile(AXE, "utf8"));
    const check = async (where) => {
      for (const scheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
        const { violations, passes } = await page.evaluate(() => globalThis.axe.run());
        assert.ok(passes.length > 10, "axe looked at the page");
        const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
        const words = serious.map(
          ({ id, nodes }) =>
            `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join("\n")}`,
        );
        assert.deepEqual(words, [], `${where}, ${scheme}`);
      }
    };
    await check("empty");
    await ask(page, "all");
    await complete(page);
    await press(page.locator(".message.assistant"), "Regenerate");
    await page.getByText("Version 2 of 2").waitFor({ state: "attached" });
    await complete(page);
    await check("chat");
    await page.getByRole("button", { name: "Settings" }).click();
    await check("settings");
    await page.keyboard.press("Escape");
    await page.locator("#open-models").click();
    await page.locator(".stored").waitFor();
    await page.getByText("Form, context and access").click();
    await check("models");
    await page.keyboard.press("Escape");
    await page.keyboard.press("ControlOrMeta+/");
    await check("shortcuts");
    await page.keyboard.press("Escape");
    await page.evaluate(() => (globalThis.zebraScript.answerError = { code: "worker", message: "the worker ended" }));
    await ask(page, "fail");
    await page.getByRole("heading", { name: "The model has stopped running." }).waitFor();
    await check("error");
    // The control: axe does see what it should.
    await page.evaluate(() => document.querySelector("#prompt").removeAttribute("placeholder"));
    await page.evaluate(() => document.querySelector("label[for=prompt]").remove());
    await assert.rejects(check("control"), /label/);
  });
});

test("after the first load the page opens offline, and can be installed", async () => {
  await withApp({}, async (page, server) => {
    await page.evaluate(() => navigator.serviceWorker.ready);
    await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
    await ask(page, "kept");
    await answered(page, "You said: kept");
    const manifest = await page.evaluate(async () =>
      (await fetch(document.querySelector("link[rel=manifest]").href)).json(),
    );
    assert.equal(manifest.display, "standalone");
    for (const { src } of manifest.icons) {
      assert.equal(await page.evaluate(async (path) => (await fetch(path)).ok, src), true, src);
    }
    await server.close();
    await page.reload();
    await page.getByText("zebra-pocket · q8").waitFor();
    assert.equal(await lastAnswer(page).innerText(), "You said: kept");
    await ask(page, "offline");
    await answered(page, "You said: offline");
  });
});

// --- With the real package ---

function builtSite() {
  for (const name of ["index.html", "worker.js", "zebra_bg.wasm", "models/zebra-pocket/config.json"]) {
    assert.ok(existsSync(join(SITE, name)), `web/site/${name} is not there: run \`npm run build\` in web/ first`);
  }
  return { site: SITE, ready: false, path: "/" };
}

test(
  "the pocket model says what a zebra is; afterwards all of it works without the server",
  { timeout: 600_000 },
  async (t) => {
    await withApp(
      {},
      async (page, server) => {
        page.setDefaultTimeout(180_000);
        await page.getByText("zebra-pocket · q8").waitFor();
        await page.getByRole("button", { name: "Settings" }).click();
        await page.getByLabel("Temperature").fill("0");
        await page.keyboard.press("Escape");
        await page.getByRole("button", { name: "What is a zebra?" }).click();
        await page.locator(".stats").waitFor();
        await answered(page, ZEBRA);
        t.diagnostic((await page.locator(".stats").innerText()).replaceAll("\n", ", "));
        await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
        await server.close();
        await page.reload();
        await page.getByText("zebra-pocket · q8").waitFor();
        assert.equal(await lastAnswer(page).innerText(), ZEBRA);
        await press(page.locator(".message.assistant"), "Regenerate");
        await page.locator(".message.writing .prose").getByText("fleet").waitFor();
        await page.getByRole("button", { name: "Stop" }).click();
        await page.getByRole("button", { name: "Continue" }).click();
        await page.locator(".stats").waitFor();
        await answered(page, ZEBRA);
      },
      builtSite(),
    );
  },
);

test("an address that gives HTML is refused in words, and the page stays usable", { timeout: 300_000 }, async () => {
  await withApp(
    {},
    async (page, server) => {
      page.setDefaultTimeout(120_000);
      await page.getByText("zebra-pocket · q8").waitFor();
      server.routes.set("/html/config.json", (_request, response) => {
        response.writeHead(200, { "content-type": "text/html" });
        response.end("<!doctype html><title>an application</title>");
      });
      await page.locator("#open-models").click();
      await page.getByLabel("Address or hub name").fill(`${server.url}/html/`);
      await page.getByRole("button", { name: "Open", exact: true }).click();
      await page.locator("#notice.failed h2").waitFor();
      assert.match(await page.locator("#notice.failed .details").innerText(), /HTML/i);
      await page.getByText("zebra-pocket · q8").waitFor();
      await page.getByRole("button", { name: "Choose another model" }).click();
      await page.getByRole("dialog", { name: "Models" }).waitFor();
    },
    builtSite(),
  );
});
