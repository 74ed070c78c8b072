// The chat page: brings chats, the model and what is on view together.

import { models, type ZebraError } from "zebra-runtime";
import { answer } from "./answer";
import { Composer } from "./composer";
import { Conversation, titleOf, type Chat, type Message } from "./conversation";
import { button, byId, h, on } from "./dom";
import type { Remedy } from "./explain";
import { copyText } from "./markdown";
import { MessageList } from "./messages";
import { asZebraError, ModelLoader } from "./model";
import { ModelsDialog } from "./models-dialog";
import { Notice } from "./notice";
import { registerServiceWorker } from "./offline";
import { Scroller } from "./scroller";
import { loadSettings, saveSettings, setTheme, type ModelChoice } from "./settings";
import { SettingsDialog } from "./settings-dialog";
import { Sidebar } from "./sidebar";
import { announce, showMemory } from "./status";
import { Store } from "./store";
import { confirmed, toast } from "./toast";
import { exportChats, ImportError, importChats } from "./transfer";
import { plural } from "./words";

/** How often an answer that is being written is saved. */
const SAVE_EVERY_MS = 500;
const SHORTER_CONTEXT = 1024;

const POCKET: ModelChoice = {
  source: new URL("models/zebra-pocket/", document.baseURI).href,
  label: "zebra-pocket",
};
const EXAMPLES = ["What is a zebra?", "Define love.", "What is the opposite of hot?", "Name some kinds of dog."];

interface Running {
  readonly message: Message;
  readonly abort: AbortController;
}

class App {
  readonly #settings = loadSettings();
  readonly #store: Store | null;
  readonly #loader = new ModelLoader(() => this.#modelChanged());
  readonly #notice: Notice;
  readonly #list: MessageList;
  readonly #composer: Composer;
  readonly #sidebar: Sidebar;
  readonly #scroller: Scroller;
  readonly #models: ModelsDialog;
  readonly #settingsDialog: SettingsDialog;
  readonly #running = new Map<string, Running>();
  /** Chats that were opened: one that is being answered goes on while another is read. */
  readonly #opened = new Map<string, Conversation>();
  #chats: Chat[] = [];
  #conversation: Conversation;

  constructor(store: Store | null) {
    this.#store = store;
    this.#conversation = this.#freshConversation();
    this.#notice = new Notice({
      cancel: () => this.#loader.cancel(),
      load: (choice) => void this.#loader.load(choice),
      remedy: (remedy, choice, details) => void this.#remedy(remedy, choice, null, details),
      announce,
    });
    this.#list = new MessageList(byId("messages", HTMLElement), {
      edit: (message, text) => this.#edit(message, text),
      regenerate: (message) => this.#answerTo(this.#parentOf(message)),
      proceed: (message) => void this.#write(this.#conversation, message),
      remove: (message) => void this.#removeMessage(message),
      select: (message) => this.#select(message),
      remedy: (remedy, message, details) => void this.#remedy(remedy, this.#loader.choice, message, details),
      announce,
      choice: () => this.#loader.choice,
    });
    this.#composer = new Composer({
      send: (text) => this.#send(text),
      stop: () => this.#stop(),
      editLast: () => this.#editLast(),
    });
    this.#sidebar = new Sidebar(
      { open: (id) => void this.#openChat(id), remove: (id) => void this.#removeChat(id) },
      this.#settings.sidebar,
      (open) => {
        this.#settings.sidebar = open;
        saveSettings(this.#settings);
      },
    );
    this.#scroller = new Scroller(
      byId("scroller", HTMLElement),
      byId("column", HTMLElement),
      byId("to-end", HTMLElement),
    );
    this.#models = new ModelsDialog(POCKET, {
      open: (choice) => void (choice === POCKET ? this.#loader.load(choice) : this.#loader.open(choice)),
      current: () => {
        const { model, choice } = this.#loader;
        return model && choice ? { model, choice } : null;
      },
      deleted: (name) => toast(`${name} was deleted from this browser.`),
    });
    this.#settingsDialog = new SettingsDialog({
      sampling: () => this.#settings.sampling,
      setSampling: (sampling) => {
        this.#settings.sampling = sampling;
        saveSettings(this.#settings);
      },
      system: () => this.#conversation.chat.system,
      setSystem: (text) => {
        this.#conversation.chat.system = text;
        this.#settings.system = text;
        saveSettings(this.#settings);
        if (this.#conversation.all().length > 0) {
          this.#save(this.#store?.putChat(this.#conversation.chat));
        }
      },
      exportAll: () => void this.#export(this.#chats, "zebra-chats"),
      importFile: (file) => void this.#import(file),
      deleteAll: () => void this.#deleteAll(),
    });
  }

  async start(): Promise<void> {
    this.#wire();
    this.#showExamples();
    this.#store?.onChange(() => {
      this.#forgetOpened();
      void this.#refreshChats();
    });
    await this.#refreshChats();
    const [wanted] = this.#chats.filter(({ id }) => id === location.hash.slice(1));
    if (wanted) {
      await this.#openChat(wanted.id);
    } else {
      this.#show();
    }
    if (!this.#store) {
      toast("This window does not let pages keep anything: chats are lost when it is closed.");
    }
    if (!("gpu" in navigator)) {
      this.#noWebGpu();
      return;
    }
    // The pocket model is small: it begins at once, without an estimate.
    const { model } = this.#settings;
    await (model ? this.#loader.open(model) : this.#loader.load(POCKET));
  }

  // --- Chats ---

  #freshConversation(): Conversation {
    const now = Date.now();
    return new Conversation({
      id: crypto.randomUUID(),
      title: "New chat",
      created: now,
      updated: now,
      system: this.#settings.system,
      selected: {},
    });
  }

  #newChat(): void {
    this.#conversation = this.#freshConversation();
    this.#showOpened();
    this.#composer.focus();
  }

  async #openChat(id: string): Promise<void> {
    const chat = this.#chats.find((other) => other.id === id);
    if (!chat) {
      return;
    }
    let conversation = this.#opened.get(id);
    if (!conversation) {
      const messages = (await this.#store?.messages(id)) ?? [];
      for (const message of messages) {
        // No page writes on it any more: it was closed or reloaded in mid-answer.
        if (message.state === "writing") {
          message.state = "stopped";
        }
      }
      conversation = new Conversation(chat, messages);
      this.#opened.set(id, conversation);
    }
    this.#conversation = conversation;
    this.#showOpened();
  }

  /** What another tab changed is read anew, but for what this one shows or writes. */
  #forgetOpened(): void {
    for (const id of [...this.#opened.keys()]) {
      if (id !== this.#conversation.chat.id && !this.#running.has(id)) {
        this.#opened.delete(id);
      }
    }
  }

  #showOpened(): void {
    const { id } = this.#conversation.chat;
    history.replaceState(
      null,
      "",
      this.#conversation.all().length > 0 ? `#${id}` : location.pathname + location.search,
    );
    this.#composer.open(id);
    this.#sidebar.close();
    this.#show();
    if (this.#conversation.all().length > 0) {
      this.#scroller.follow();
    } else {
      this.#scroller.toStart();
    }
  }

  #show(): void {
    const { chat } = this.#conversation;
    const empty = this.#conversation.all().length === 0;
    byId("empty", HTMLElement).hidden = !empty;
    byId("messages", HTMLElement).hidden = empty;
    byId("chat-menu-button", HTMLElement).hidden = empty;
    byId("chat-title", HTMLElement).textContent = chat.title;
    document.title = empty ? "Zebra" : `${chat.title} · Zebra`;
    this.#composer.answering = this.#running.has(chat.id);
    this.#list.show(this.#conversation);
    this.#sidebar.render(this.#chats, chat.id, new Set(this.#running.keys()));
  }

  async #refreshChats(): Promise<void> {
    if (this.#store) {
      // The list shows the very objects that messages are added to.
      this.#chats = (await this.#store.chats()).map((chat) => this.#opened.get(chat.id)?.chat ?? chat);
    }
    this.#sidebar.render(this.#chats, this.#conversation.chat.id, new Set(this.#running.keys()));
  }

  async #removeChat(id: string): Promise<void> {
    const chat = this.#chats.find((other) => other.id === id);
    if (!chat) {
      return;
    }
    this.#running.get(id)?.abort.abort();
    const messages = this.#opened.get(id)?.all() ?? (await this.#store?.messages(id)) ?? [];
    this.#opened.delete(id);
    this.#chats = this.#chats.filter((other) => other !== chat);
    await this.#store?.deleteChat(id);
    await this.#refreshChats();
    if (this.#conversation.chat.id === id) {
      this.#newChat();
    }
    toast(`“${chat.title}” was deleted.`, {
      label: "Undo",
      run: () => {
        void (async () => {
          this.#opened.set(id, new Conversation(chat, messages));
          this.#chats = [chat, ...this.#chats];
          await this.#store?.putAll(chat, messages);
          await this.#refreshChats();
          await this.#openChat(id);
        })();
      },
    });
  }

  async #deleteAll(): Promise<void> {
    const count = plural(this.#chats.length, "chat");
    if (
      !(await confirmed(`Delete ${count}?`, "This cannot be undone. Export them first to keep a copy.", "Delete all"))
    ) {
      return;
    }
    for (const { abort } of this.#running.values()) {
      abort.abort();
    }
    for (const { id } of this.#chats.splice(0)) {
      this.#opened.delete(id);
      await this.#store?.deleteChat(id);
    }
    await this.#refreshChats();
    this.#newChat();
    toast(`${count} deleted.`);
  }

  async #export(chats: readonly Chat[], name: string): Promise<void> {
    const whole = await Promise.all(
      chats.map(async (chat) => ({ chat, messages: (await this.#store?.messages(chat.id)) ?? [] })),
    );
    const url = URL.createObjectURL(new Blob([exportChats(whole)], { type: "application/json" }));
    h("a", { href: url, download: `${name}-${new Date().toISOString().slice(0, 10)}.json` }).click();
    // The browser reads it after this turn.
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  async #import(file: File): Promise<void> {
    const words = byId("import-result", HTMLElement);
    try {
      const read = importChats(await file.text());
      const known = new Map(this.#chats.map(({ id, updated }) => [id, updated]));
      const newer = read.filter(({ chat }) => chat.updated > (known.get(chat.id) ?? -Infinity));
      for (const { chat, messages } of newer) {
        await this.#store?.putAll(chat, messages);
        this.#opened.delete(chat.id);
      }
      await this.#refreshChats();
      const same = read.length - newer.length;
      words.textContent = `${plural(newer.length, "chat")} imported${same > 0 ? `, ${same} were here already` : ""}.`;
      words.className = "hint";
      if (newer.some(({ chat }) => chat.id === this.#conversation.chat.id)) {
        await this.#openChat(this.#conversation.chat.id);
      }
    } catch (error) {
      if (!(error instanceof ImportError)) {
        this.#notSaved(error);
        return;
      }
      words.textContent = `${file.name} was not imported. ${error.message}`;
      words.className = "wrong";
    }
  }

  // --- Messages ---

  #send(text: string): void {
    const conversation = this.#conversation;
    if (conversation.all().length === 0) {
      conversation.chat.title = titleOf(text);
      this.#chats.unshift(conversation.chat);
      this.#opened.set(conversation.chat.id, conversation);
      history.replaceState(null, "", `#${conversation.chat.id}`);
    }
    const message = conversation.add(conversation.path().at(-1) ?? null, "user", text.trim(), "done");
    this.#answerTo(message);
  }

  #edit(message: Message, text: string): void {
    const { chat } = this.#conversation;
    const edited = this.#conversation.add(this.#parentOf(message), message.role, text.trim(), "done");
    if (message.role === "user") {
      this.#answerTo(edited);
    } else {
      this.#save(this.#store?.putAll(chat, [edited]));
      this.#show();
    }
  }

  #editLast(): void {
    const last = this.#conversation.path().findLast(({ role }) => role === "user");
    if (last && !this.#running.has(this.#conversation.chat.id)) {
      this.#list.edit(last);
    }
  }

  #select(message: Message): void {
    this.#conversation.select(message);
    this.#save(this.#store?.putChat(this.#conversation.chat));
    this.#show();
  }

  async #removeMessage(message: Message): Promise<void> {
    const conversation = this.#conversation;
    this.#stop();
    const removed = conversation.remove(message);
    if (conversation.all().length === 0) {
      conversation.restore(removed);
      await this.#removeChat(conversation.chat.id);
      return;
    }
    this.#show();
    this.#composer.focus();
    this.#save(this.#store?.deleteMessages(removed));
    this.#save(this.#store?.putChat(conversation.chat));
    const more = removed.length > 1 ? ` and ${plural(removed.length - 1, "message")} below it` : "";
    toast(`The message${more} was deleted.`, {
      label: "Undo",
      run: () => {
        conversation.restore(removed);
        this.#save(this.#store?.putAll(conversation.chat, removed));
        if (conversation === this.#conversation) {
          this.#show();
        }
      },
    });
  }

  #parentOf({ parent }: Message): Message | null {
    return parent === null ? null : (this.#conversation.get(parent) ?? null);
  }

  /** Begins a new answer to a message; one that is there already becomes its other version. */
  #answerTo(question: Message | null): void {
    const conversation = this.#conversation;
    if (!question) {
      return;
    }
    this.#stop();
    const message = conversation.add(question, "assistant", "", "writing");
    this.#save(this.#store?.putAll(conversation.chat, [question, message]));
    void this.#write(conversation, message);
  }

  /** Writes an answer, or goes on with one that was cut off. */
  async #write(conversation: Conversation, message: Message): Promise<void> {
    const { chat } = conversation;
    const abort = new AbortController();
    const running: Running = { message, abort };
    this.#running.get(chat.id)?.abort.abort();
    this.#running.set(chat.id, running);
    const begun = message.content;
    message.state = "writing";
    delete message.error;
    delete message.finish;
    delete message.stats;
    this.#show();
    this.#scroller.follow();
    let saved = performance.now();
    try {
      if (!this.#loader.model) {
        this.#list.stream(message, "Waiting for the model");
      }
      announce("Answering");
      const model = await this.#loader.ready(abort.signal);
      this.#list.stream(message, "");
      const above = conversation.above(message);
      const end = await answer(model, chat.system, above, begun, this.#settings.sampling, abort.signal, {
        piece: (text) => {
          if (abort.signal.aborted) {
            return;
          }
          message.content += text;
          this.#loader.recovered();
          this.#list.stream(message, "");
          if (performance.now() - saved > SAVE_EVERY_MS) {
            saved = performance.now();
            this.#save(this.#store?.putMessage(message));
          }
        },
      });
      if (end) {
        message.state = "done";
        message.finish = end.finish;
        message.stats = end.stats;
      } else {
        message.state = "stopped";
      }
    } catch (thrown) {
      const error = asZebraError(thrown);
      // Another model may have been loaded in the middle of the answer.
      if (abort.signal.aborted || (error.code === "aborted" && message.content !== "")) {
        message.state = "stopped";
      } else if (error.code === "worker" || error.code === "device-lost") {
        // What happened is said once, beside the button that brings the model back.
        message.state = "stopped";
        await this.#loader.died(error);
      } else {
        message.state = "failed";
        message.error = { code: error.code, message: error.message };
      }
    }
    this.#loader.recovered();
    if (this.#running.get(chat.id) === running) {
      this.#running.delete(chat.id);
    }
    // A message or chat that was deleted meanwhile must not come back.
    if (conversation.get(message.id) && this.#chats.some(({ id }) => id === chat.id)) {
      chat.updated = Date.now();
      await this.#save(this.#store?.putAll(chat, [message]));
    }
    if (this.#conversation.chat.id === chat.id) {
      this.#show();
    }
    announce(
      message.state === "done"
        ? "The answer is complete"
        : message.state === "failed"
          ? "The answer failed"
          : "Stopped",
    );
    await this.#refreshChats();
    await showMemory(this.#loader.model);
  }

  #stop(): void {
    const { id } = this.#conversation.chat;
    const running = this.#running.get(id);
    if (running) {
      this.#running.delete(id);
      running.message.state = "stopped";
      running.abort.abort();
      this.#show();
    }
  }

  /** Waits for a write, and says so when nothing can be kept. */
  async #save(write: Promise<void> | undefined): Promise<void> {
    try {
      await write;
    } catch (error) {
      this.#notSaved(error);
    }
  }

  #notSaved(error: unknown): void {
    const why = error instanceof Error ? error.message : String(error);
    toast(`The chat could not be saved: ${why}`, { label: "Free storage", run: () => void this.#models.show() });
  }

  // --- The model ---

  #modelChanged(): void {
    const { activity, model, choice } = this.#loader;
    if (activity.kind === "failed" && activity.error.code === "no-webgpu") {
      this.#noWebGpu(activity.error);
      this.#notice.render({ kind: "idle" });
    } else {
      this.#notice.render(activity);
    }
    const name = byId("model-name", HTMLElement);
    name.textContent =
      model && choice
        ? `${choice.label} · ${model.info.format}`
        : activity.kind === "loading"
          ? "Loading…"
          : "No model";
    const pocket = (model ? choice : "choice" in activity ? activity.choice : POCKET)?.source === POCKET.source;
    byId("empty-pocket", HTMLElement).hidden = !pocket;
    byId("empty-other", HTMLElement).hidden = pocket;
    const chats = model?.info.chat ?? true;
    byId("empty-title", HTMLElement).textContent = chats ? "What would you like to ask?" : "How does the text begin?";
    byId("empty-base", HTMLElement).hidden = chats;
    byId("prompt", HTMLTextAreaElement).placeholder = chats ? "Write a message" : "Write the beginning of a text";
    if (model && choice && activity.kind === "idle") {
      if (this.#settings.model !== choice && typeof choice.source === "string") {
        this.#settings.model = choice.source === POCKET.source ? null : choice;
        saveSettings(this.#settings);
      }
      announce(`${choice.label} is ready`);
    }
    void showMemory(model);
  }

  /** Does what a button beside an error says. */
  async #remedy(remedy: Remedy, choice: ModelChoice | null, message: Message | null, details: string): Promise<void> {
    const wanted = choice ?? this.#settings.model ?? POCKET;
    switch (remedy) {
      case "retry":
      case "reload":
        return this.#loader.load(wanted);
      case "refetch":
        return this.#refetch(wanted);
      case "smaller":
        return this.#loader.open({ ...wanted, format: "q4" });
      case "shorter":
        return this.#loader.open({ ...wanted, context: SHORTER_CONTEXT });
      case "plain":
        return this.#loader.load({ ...wanted, kernels: "plain" });
      case "without-storage":
        return this.#loader.load({ ...wanted, store: "none" });
      case "other-model":
      case "storage":
        return this.#models.show();
      case "settings":
        return this.#settingsDialog.show();
      case "new-chat":
        return this.#newChat();
      case "regenerate":
        return message ? this.#answerTo(this.#parentOf(message)) : undefined;
      case "copy":
        toast((await copyText(details)) ? "The details are on the clipboard." : "The browser refused to copy.");
    }
  }

  async #refetch(choice: ModelChoice): Promise<void> {
    const stored = await models.list().catch(() => []);
    const damaged = stored.find(({ name }) => name === choice.source);
    if (damaged) {
      await models.delete(damaged.name).catch((error: unknown) => toast(asZebraError(error).message));
    }
    await this.#loader.load(choice);
  }

  /** In place of the box: what is missing, in plain words. The chats stay readable. */
  #noWebGpu(error: ZebraError | null = null): void {
    byId("no-webgpu", HTMLElement).hidden = false;
    byId("insecure", HTMLElement).hidden = isSecureContext;
    byId("no-webgpu-details", HTMLElement).textContent = error?.message ?? "";
    byId("empty", HTMLElement).classList.add("without-model");
    byId("composer", HTMLElement).hidden = true;
    this.#composer.enabled = false;
    byId("model-name", HTMLElement).textContent = "No model";
  }

  // --- The page ---

  #wire(): void {
    const click = (id: string, run: () => void): void => byId(id, HTMLElement).addEventListener("click", run);
    click("new-chat", () => this.#newChat());
    click("open-models", () => void this.#models.show());
    click("open-models-side", () => {
      this.#sidebar.close();
      void this.#models.show();
    });
    click("open-models-empty", () => void this.#models.show());
    click("open-settings", () => {
      this.#sidebar.close();
      this.#settingsDialog.show();
    });
    click("open-shortcuts", () => {
      this.#sidebar.close();
      byId("shortcuts", HTMLDialogElement).showModal();
    });
    click("theme-toggle", () => {
      const dark = matchMedia("(prefers-color-scheme: dark)").matches;
      const shown = document.documentElement.dataset["theme"] ?? (dark ? "dark" : "light");
      setTheme(shown === "dark" ? "light" : "dark");
    });
    click("gpu-again", () => location.reload());
    click("chat-rename", () => this.#rename());
    click("chat-export", () => void this.#export([this.#conversation.chat], "zebra-chat"));
    click("chat-delete", () => void this.#removeChat(this.#conversation.chat.id));
    const menu = byId("chat-menu", HTMLElement);
    menu.addEventListener("click", () => menu.hidePopover());
    for (const dialog of document.querySelectorAll("dialog")) {
      // A press beside a dialog closes it.
      dialog.addEventListener("click", (event) => {
        if (event.target === dialog) {
          dialog.close();
        }
      });
      dialog.querySelector(".close")?.addEventListener("click", () => dialog.close());
    }
    addEventListener("keydown", (event) => this.#shortcut(event));
    // The last moment in which a page that is closed can still write.
    document.addEventListener("visibilitychange", () => {
      for (const { message } of this.#running.values()) {
        this.#save(this.#store?.putMessage(message));
      }
    });
  }

  #shortcut(event: KeyboardEvent): void {
    const command = event.ctrlKey || event.metaKey;
    if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open], :popover-open")) {
      if (!this.#sidebar.close() && this.#running.has(this.#conversation.chat.id)) {
        event.preventDefault();
        this.#stop();
        this.#composer.focus();
      }
    } else if (command && event.shiftKey && event.key.toLowerCase() === "o") {
      event.preventDefault();
      this.#newChat();
    } else if (command && event.key === "/") {
      event.preventDefault();
      byId("shortcuts", HTMLDialogElement).showModal();
    } else if (command && event.key === ",") {
      event.preventDefault();
      this.#settingsDialog.show();
    } else if (command && event.key.toLowerCase() === "b") {
      event.preventDefault();
      this.#sidebar.toggle();
    }
  }

  #rename(): void {
    const { chat } = this.#conversation;
    const title = byId("chat-title", HTMLElement);
    const input = h("input", { class: "rename", "aria-label": "Name of the chat", maxlength: 120 });
    input.value = chat.title;
    let closed = false;
    const close = (save: boolean): void => {
      // Taking it off the page takes the focus from it, which would close it again.
      if (closed) {
        return;
      }
      closed = true;
      const name = input.value.trim();
      if (save && name !== "" && name !== chat.title) {
        chat.title = name;
        this.#save(this.#store?.putChat(chat));
      }
      input.replaceWith(title);
      this.#show();
    };
    on(input, {
      blur: () => close(true),
      keydown: (event) => {
        if (event.key === "Enter" && !event.isComposing) {
          close(true);
        } else if (event.key === "Escape") {
          event.stopPropagation();
          close(false);
        }
      },
    });
    title.replaceWith(input);
    input.focus();
    input.select();
  }

  #showExamples(): void {
    byId("examples", HTMLElement).replaceChildren(
      ...EXAMPLES.map((text) =>
        h(
          "li",
          {},
          button(text, "plain", () => this.#send(text)),
        ),
      ),
    );
  }
}

const store = await Store.open().catch(() => null);
await Promise.all([
  new App(store).start(),
  // Without it the page works, online.
  registerServiceWorker().catch(() => undefined),
]);
