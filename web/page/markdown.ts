// Answers as markdown, while they are being written. A block that is followed by another is rendered once and left
// alone; only the last ones are rendered anew, so that the cost of a token does not grow with the answer.

import DOMPurify, { type Config } from "dompurify";
import { Marked, type Token, type Tokens, type TokensList } from "marked";
import { h, icon, on } from "./dom";

// Headings start below the page's own. HTML is shown as it was written and images become links: fetching one would tell
// its server that it was looked at. What marked makes is sanitized all the same.
const marked = new Marked({
  gfm: true,
  renderer: {
    heading({ tokens, depth }: Tokens.Heading): string {
      const level = Math.min(6, depth + 2);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    html: ({ text }: Tokens.HTML | Tokens.Tag): string => escapeHtml(text),
    image: ({ href, text }: Tokens.Image): string => `<a href="${escapeHtml(href)}">${escapeHtml(text || href)}</a>`,
    checkbox: ({ checked }: Tokens.Checkbox): string => (checked ? "☑ " : "☐ "),
  },
});

const SANITIZE: Config & { RETURN_DOM_FRAGMENT: true } = {
  ALLOWED_TAGS: [
    ...["p", "br", "hr", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "code", "em", "strong", "del", "a"],
    ...["table", "thead", "tbody", "tr", "th", "td"],
  ],
  ALLOWED_ATTR: ["href", "title", "start", "align"],
  ADD_URI_SAFE_ATTR: ["start", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

interface Block {
  readonly raw: string;
  readonly element: HTMLElement;
  /** The text node of a code block, which grows in place: a selection in it stays. */
  readonly code?: Text;
}

export class MarkdownView {
  readonly #root: HTMLElement;
  readonly #onSettled: (text: string) => void;
  #text = "";
  /** Characters of `#text` whose blocks no later text can change. */
  #settled = 0;
  #live: Block[] = [];
  #complete = false;

  /** `onSettled` is given the words of each block that is complete, in order. */
  constructor(root: HTMLElement, onSettled: (words: string) => void = () => undefined) {
    this.#root = root;
    this.#onSettled = onSettled;
  }

  /** Shows `text`, most often what was shown before and some more. */
  render(text: string, complete: boolean): void {
    const source = text.replace(/\r\n?/g, "\n");
    // An answer that was complete and goes on may go on within its last block.
    const goesOn = this.#complete && (!complete || source !== this.#text);
    if (goesOn || !source.startsWith(this.#text.slice(0, this.#settled))) {
      this.clear();
    }
    this.#complete = complete;
    this.#text = source;
    const tokens = marked.lexer(source.slice(this.#settled));
    this.#showLive(tokens);
    if (complete) {
      this.#settle(this.#live.length);
      this.#settled = source.length;
      this.#resolveLinks();
    } else {
      this.#settleAllButLast(tokens);
    }
  }

  clear(): void {
    this.#root.replaceChildren();
    this.#live = [];
    this.#settled = 0;
    this.#text = "";
  }

  #showLive(tokens: TokensList): void {
    const visible = tokens.filter(({ type }) => type !== "space" && type !== "def");
    for (const [index, token] of visible.entries()) {
      const shown = this.#live[index];
      if (shown?.raw === token.raw) {
        continue;
      }
      if (shown?.code && token.type === "code") {
        const text = token.text as string;
        if (text.startsWith(shown.code.data)) {
          shown.code.appendData(text.slice(shown.code.data.length));
          this.#live[index] = { ...shown, raw: token.raw };
          continue;
        }
      }
      const block = renderBlock(token, tokens);
      if (shown) {
        shown.element.replaceWith(block.element);
      } else {
        this.#root.append(block.element);
      }
      this.#live[index] = block;
    }
    for (const extra of this.#live.splice(visible.length)) {
      extra.element.remove();
    }
  }

  /** Settles the blocks above the last, unless its first line is unfinished and may yet join the block above. */
  #settleAllButLast(tokens: TokensList): void {
    const last = tokens.findLastIndex(({ type }) => type !== "space" && type !== "def");
    if (this.#live.length < 2 || !tokens[last]?.raw.includes("\n")) {
      return;
    }
    this.#settle(this.#live.length - 1);
    this.#settled += tokens.slice(0, last).reduce((length, { raw }) => length + raw.length, 0);
  }

  #settle(count: number): void {
    for (const block of this.#live.splice(0, count)) {
      this.#onSettled(block.element.textContent ?? "");
    }
  }

  /** A link's address may be defined below the block that uses it. */
  #resolveLinks(): void {
    const tokens = marked.lexer(this.#text);
    if (Object.keys(tokens.links).length === 0) {
      return;
    }
    this.#root.replaceChildren(
      ...tokens
        .filter(({ type }) => type !== "space" && type !== "def")
        .map((token) => renderBlock(token, tokens).element),
    );
  }
}

function renderBlock(token: Token, { links }: TokensList): Block {
  if (token.type === "code") {
    return renderCode(token as Tokens.Code);
  }
  const element = h("div", { class: "block" });
  element.append(DOMPurify.sanitize(marked.parser(Object.assign([token], { links })), SANITIZE));
  for (const link of element.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const table of element.querySelectorAll("table")) {
    const wrap = h("div", { class: "table", tabindex: 0, role: "region", "aria-label": "Table" });
    table.replaceWith(wrap);
    wrap.append(table);
  }
  return { raw: token.raw, element };
}

function renderCode({ raw, text, lang }: Tokens.Code): Block {
  const code = document.createTextNode(text);
  const copied = h("span", { class: "copied", role: "status" });
  const copy = on(h("button", { type: "button", class: "copy-code" }, icon("copy"), "Copy"), {
    click: () => {
      void copyText(code.data).then((done) => {
        copied.textContent = done ? "Copied" : "Could not copy";
        setTimeout(() => (copied.textContent = ""), 2000);
      });
    },
  });
  const language = lang?.match(/^\S+/)?.[0] ?? "";
  const element = h(
    "div",
    { class: "block code-block" },
    h("div", { class: "code-head" }, h("span", {}, language || "code"), copied, copy),
    h(
      "pre",
      { tabindex: 0, role: "region", "aria-label": `Code${language ? `, ${language}` : ""}` },
      h("code", {}, code),
    ),
  );
  return { raw, element, code };
}

/** Whether the text is on the clipboard now: a browser may refuse. */
export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function escapeHtml(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => entities[character] ?? character);
}
