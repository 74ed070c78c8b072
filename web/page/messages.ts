// The list of messages: what is shown is kept by message, so that an answer that is being written touches itself only.

import type { ZebraErrorCode } from "zebra-runtime";
import type { Conversation, Message } from "./conversation";
import { button, h, icon, iconButton, on } from "./dom";
import { explain, REMEDY_LABELS, type Remedy } from "./explain";
import { copyText, MarkdownView } from "./markdown";
import type { ModelChoice } from "./settings";
import { short } from "./words";

/** Longer messages of one's own are folded: nobody rereads a pasted file. */
const FOLD_FROM = 1500;
/** More is not laid out at once even when unfolded. */
const SHOW_AT_MOST = 50_000;

export interface MessageActions {
  edit(message: Message, text: string): void;
  regenerate(message: Message): void;
  proceed(message: Message): void;
  remove(message: Message): void;
  select(message: Message): void;
  remedy(remedy: Remedy, message: Message, details: string): void;
  /** What screen readers are told. */
  announce(text: string): void;
  choice(): ModelChoice | null;
}

export class MessageList {
  readonly #root: HTMLElement;
  readonly #actions: MessageActions;
  readonly #views = new Map<string, MessageView>();
  #conversation: Conversation | null = null;

  constructor(root: HTMLElement, actions: MessageActions) {
    this.#root = root;
    this.#actions = actions;
  }

  /** Shows the messages that are read now. */
  show(conversation: Conversation): void {
    if (conversation !== this.#conversation) {
      this.#views.clear();
      this.#conversation = conversation;
    }
    const path = conversation.path();
    const items = path.map((message) => {
      let view = this.#views.get(message.id);
      if (!view) {
        view = message.role === "user" ? new UserView(message, this.#actions) : new AnswerView(message, this.#actions);
        this.#views.set(message.id, view);
      }
      view.update(conversation.versions(message), message === path.at(-1));
      return view.element;
    });
    // Only what differs is moved: replacing the rest would drop its focus and selection.
    for (const child of [...this.#root.children]) {
      if (!items.some((item) => item === child)) {
        child.remove();
      }
    }
    items.forEach((item, index) => {
      if (this.#root.children[index] !== item) {
        this.#root.insertBefore(item, this.#root.children[index] ?? null);
      }
    });
  }

  /** Shows what was added to an answer, if it is on view. */
  stream(message: Message, waiting: string): void {
    const view = this.#views.get(message.id);
    if (view instanceof AnswerView) {
      view.stream(waiting);
    }
  }

  /** Opens the editor of a message; false when there is none on view. */
  edit(message: Message): boolean {
    const view = this.#views.get(message.id);
    view?.edit();
    return view !== undefined;
  }
}

abstract class MessageView {
  readonly element = h("li", { class: "message" });
  protected readonly message: Message;
  protected readonly actions: MessageActions;
  #editor: HTMLElement | null = null;

  constructor(message: Message, actions: MessageActions) {
    this.message = message;
    this.actions = actions;
    this.element.classList.add(message.role);
    this.element.dataset["id"] = message.id;
  }

  abstract update(versions: readonly Message[], last: boolean): void;
  protected abstract readonly body: HTMLElement;
  protected abstract readonly footer: HTMLElement;

  edit(): void {
    if (this.#editor) {
      return;
    }
    const asks = this.message.role === "user";
    const label = asks ? "Edit your message" : "Edit the answer";
    const text = on(h("textarea", { "aria-label": label, rows: 1 }), {
      keydown: (event) => {
        if (event.key === "Escape") {
          event.preventDefault();
          event.stopPropagation();
          close();
        } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229 && asks) {
          event.preventDefault();
          save();
        }
      },
      input: () => grow(text),
    });
    text.value = this.message.content;
    const close = (): void => {
      this.#editor?.remove();
      this.#editor = null;
      this.body.hidden = false;
      this.footer.hidden = false;
      this.footer.querySelector<HTMLElement>("[data-action=edit]")?.focus();
    };
    const save = (): void => {
      const content = text.value;
      if (content.trim() === "") {
        return;
      }
      close();
      this.actions.edit(this.message, content);
    };
    const cancel = button("Cancel", "plain", close);
    this.#editor = h(
      "div",
      { class: "editor" },
      text,
      h("div", { class: "row end" }, cancel, button(asks ? "Send" : "Save", "primary", save)),
    );
    this.body.hidden = true;
    this.footer.hidden = true;
    this.body.before(this.#editor);
    grow(text);
    text.focus();
    text.setSelectionRange(text.value.length, text.value.length);
  }

  protected fillFooter(buttons: readonly Node[], versions: readonly Message[], ...more: Node[]): void {
    // A press on "next version" must not lose the focus to a rebuilt footer.
    const focused = this.footer.contains(document.activeElement)
      ? (document.activeElement as HTMLElement).dataset["action"]
      : undefined;
    this.footer.replaceChildren(
      ...(versions.length > 1 ? [this.#versions(versions)] : []),
      h("div", { class: "actions" }, ...buttons),
      ...more,
    );
    if (focused) {
      this.footer.querySelector<HTMLElement>(`[data-action=${focused}]`)?.focus();
    }
  }

  protected action(name: string, drawing: string, label: string, click: () => void): HTMLButtonElement {
    const made = iconButton(drawing, label, click);
    made.dataset["action"] = name;
    return made;
  }

  protected copyAction(): HTMLButtonElement {
    const copy = this.action("copy", "copy", "Copy", () => {
      void copyText(this.message.content).then((done) => {
        copy.replaceChildren(icon(done ? "check" : "cross"));
        this.actions.announce(done ? "Copied" : "The browser refused to copy");
        setTimeout(() => copy.replaceChildren(icon("copy")), 2000);
      });
    });
    return copy;
  }

  #versions(versions: readonly Message[]): HTMLElement {
    const index = versions.indexOf(this.message);
    const go = (step: number): void => {
      const version = versions[index + step];
      if (version) {
        this.actions.select(version);
      }
    };
    const previous = this.action("previous", "left", "Previous version", () => go(-1));
    const next = this.action("next", "right", "Next version", () => go(1));
    previous.disabled = index === 0;
    next.disabled = index === versions.length - 1;
    const count = h("span", { class: "count" });
    count.append(
      h("span", { "aria-hidden": "true" }, `${index + 1} / ${versions.length}`),
      h("span", { class: "sr" }, `Version ${index + 1} of ${versions.length}`),
    );
    return h("div", { class: "versions" }, previous, count, next);
  }
}

class UserView extends MessageView {
  protected readonly body = h("div", { class: "bubble" });
  protected readonly footer = h("div", { class: "message-foot" });

  constructor(message: Message, actions: MessageActions) {
    super(message, actions);
    const { content } = message;
    const text = h("div", { class: "text" }, content.slice(0, SHOW_AT_MOST));
    this.body.append(text);
    if (content.length > FOLD_FROM) {
      text.classList.add("folded");
      const rest = content.length > SHOW_AT_MOST ? ` (its first ${SHOW_AT_MOST.toLocaleString("en")} characters)` : "";
      const unfold = on(h("button", { type: "button", class: "link", "aria-expanded": "false" }, `Show all${rest}`), {
        click: () => {
          const folded = text.classList.toggle("folded");
          unfold.textContent = folded ? `Show all${rest}` : "Show less";
          unfold.setAttribute("aria-expanded", String(!folded));
        },
      });
      this.body.append(unfold);
    }
    this.element.append(h("h2", { class: "sr" }, "You"), this.body, this.footer);
  }

  override update(versions: readonly Message[]): void {
    this.fillFooter(
      [
        this.copyAction(),
        this.action("edit", "pencil", "Edit", () => this.edit()),
        this.action("delete", "trash", "Delete", () => this.actions.remove(this.message)),
      ],
      versions,
    );
  }
}

class AnswerView extends MessageView {
  protected readonly body = h("div", { class: "answer" });
  protected readonly footer = h("div", { class: "message-foot" });
  readonly #text = h("div", { class: "prose" });
  readonly #note = h("div", { class: "note" });
  readonly #markdown: MarkdownView;
  #frame = 0;
  #shown: Message["state"] | null = null;

  constructor(message: Message, actions: MessageActions) {
    super(message, actions);
    // Block by block as they are complete: each is read out once, and none in pieces.
    this.#markdown = new MarkdownView(this.#text, (words) => {
      if (this.#shown === "writing") {
        actions.announce(words);
      }
    });
    this.body.append(this.#text, this.#note);
    this.element.append(h("h2", { class: "sr" }, "Zebra"), this.body, this.footer);
  }

  /** Draws at most once a frame, however fast the tokens come. */
  stream(waiting: string): void {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.message.state === "writing") {
        this.#shown = "writing";
        this.#markdown.render(this.message.content, false);
        this.#showWaiting(waiting);
      }
    });
  }

  override update(versions: readonly Message[], last: boolean): void {
    const { message } = this;
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const writing = message.state === "writing";
    this.#markdown.render(message.content, !writing);
    this.#shown = message.state;
    this.element.classList.toggle("writing", writing);
    this.element.classList.toggle("last", last);
    if (writing) {
      this.#showWaiting("");
      this.footer.replaceChildren();
      return;
    }
    this.#note.replaceChildren(...this.#notes());
    this.#note.className = message.state === "failed" ? "note failed" : "note";
    const buttons = [
      this.copyAction(),
      this.action("edit", "pencil", "Edit", () => this.edit()),
      this.action("regenerate", "again", "Regenerate", () => this.actions.regenerate(message)),
      this.action("delete", "trash", "Delete", () => this.actions.remove(message)),
    ];
    this.fillFooter(buttons, versions, ...this.#stats());
  }

  #showWaiting(words: string): void {
    if (this.message.content !== "" && words === "") {
      this.#note.replaceChildren();
      return;
    }
    if (this.#note.textContent !== words || this.#note.childElementCount === 0) {
      const stripes = h("span", { class: "thinking", "aria-hidden": "true" }, h("i"), h("i"), h("i"), h("i"));
      this.#note.className = "note waiting";
      this.#note.replaceChildren(stripes, words);
    }
  }

  #notes(): Node[] {
    const { message, actions } = this;
    const proceed = (): HTMLElement => button("Continue", "plain", () => actions.proceed(message));
    if (message.state === "failed" && message.error) {
      return this.#failure(message.error.code, message.error.message, message.content === "" ? [] : [proceed()]);
    }
    if (message.state === "stopped") {
      const words = message.content === "" ? "Stopped before the first word." : "Stopped here.";
      return [h("p", {}, words), ...(message.content === "" ? [] : [proceed()])];
    }
    if (message.finish === "length") {
      return [h("p", {}, "The answer reached its longest length."), proceed()];
    }
    return message.content === "" ? [h("p", {}, "The model answered with nothing.")] : [];
  }

  #failure(code: ZebraErrorCode, details: string, more: readonly Node[]): Node[] {
    const { title, advice, remedies } = explain(code, "answer", this.actions.choice());
    return [
      h("p", {}, h("strong", {}, title), advice ? ` ${advice}` : null),
      h("p", { class: "details" }, details),
      h(
        "div",
        { class: "row" },
        ...more,
        ...remedies.map((remedy) =>
          button(REMEDY_LABELS[remedy], "plain", () =>
            this.actions.remedy(remedy, this.message, `${code}: ${details}`),
          ),
        ),
      ),
    ];
  }

  #stats(): Node[] {
    const { stats } = this.message;
    if (!stats) {
      return [];
    }
    const parts = [
      `${short(stats.tokensPerSecond)} tokens/s`,
      `first after ${short(stats.firstTokenMs / 1000)} s`,
      `${stats.cachedTokens} of ${stats.promptTokens} tokens reused`,
    ];
    return [h("p", { class: "stats" }, ...parts.map((part) => h("span", {}, part)))];
  }
}

/** Makes a text box as high as its text; the style sheet gives the largest height. */
export function grow(text: HTMLTextAreaElement): void {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`;
}
