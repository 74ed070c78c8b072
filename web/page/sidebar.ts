// The list of chats.

import type { Chat } from "./conversation";
import { byId, h, iconButton, on } from "./dom";

export interface SidebarActions {
  open(id: string): void;
  remove(id: string): void;
}

const NARROW = matchMedia("(max-width: 52rem)");

export class Sidebar {
  readonly #root = byId("sidebar", HTMLElement);
  readonly #list = byId("chat-list", HTMLElement);
  readonly #main = byId("main", HTMLElement);
  readonly #toggle = byId("sidebar-toggle", HTMLButtonElement);
  readonly #actions: SidebarActions;
  readonly #changed: (open: boolean) => void;
  /** On a wide page it stands beside the chat and this is remembered; on a narrow one it lies over the chat. */
  #wideOpen: boolean;
  #open = false;

  constructor(actions: SidebarActions, wideOpen: boolean, changed: (open: boolean) => void) {
    this.#actions = actions;
    this.#wideOpen = wideOpen;
    this.#changed = changed;
    this.#toggle.addEventListener("click", () => this.toggle());
    byId("sidebar-close", HTMLButtonElement).addEventListener("click", () => this.toggle());
    byId("backdrop", HTMLElement).addEventListener("click", () => this.close());
    NARROW.addEventListener("change", () => this.#show(!NARROW.matches && this.#wideOpen));
    this.#show(!NARROW.matches && wideOpen);
  }

  toggle(): void {
    this.#show(!this.#open);
    if (!NARROW.matches) {
      this.#wideOpen = this.#open;
      this.#changed(this.#open);
    }
    (this.#open ? byId("new-chat", HTMLElement) : this.#toggle).focus();
  }

  /** Closes it where it lies over the chat; whether it did. */
  close(): boolean {
    const covers = NARROW.matches && this.#open;
    if (covers) {
      this.#show(false);
      this.#toggle.focus();
    }
    return covers;
  }

  render(chats: readonly Chat[], current: string, answering: ReadonlySet<string>): void {
    const focused = this.#list.contains(document.activeElement)
      ? (document.activeElement as HTMLElement).dataset["focus"]
      : undefined;
    let group = "";
    const items: HTMLElement[] = [];
    for (const chat of chats) {
      const day = dayOf(chat.updated);
      if (day !== group) {
        group = day;
        items.push(h("li", { class: "day" }, day));
      }
      const open = on(
        h(
          "button",
          {
            type: "button",
            class: "chat",
            "aria-current": chat.id === current && "page",
            "data-focus": `open ${chat.id}`,
          },
          h("span", { class: "title" }, chat.title),
          answering.has(chat.id) && h("span", { class: "busy" }, h("span", { class: "sr" }, " (being answered)")),
        ),
        { click: () => this.#actions.open(chat.id) },
      );
      const remove = iconButton("trash", `Delete the chat “${chat.title}”`, () => this.#actions.remove(chat.id));
      remove.dataset["focus"] = `remove ${chat.id}`;
      items.push(h("li", { class: "item" }, open, remove));
    }
    if (chats.length === 0) {
      items.push(h("li", { class: "day" }, "Your chats will be listed here."));
    }
    this.#list.replaceChildren(...items);
    if (focused) {
      this.#list.querySelector<HTMLElement>(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
    }
  }

  #show(open: boolean): void {
    this.#open = open;
    this.#root.hidden = !open;
    document.documentElement.classList.toggle("sidebar-open", open);
    this.#toggle.setAttribute("aria-expanded", String(open));
    // What lies under it must not be reached by the keyboard.
    this.#main.inert = open && NARROW.matches;
  }
}

function dayOf(time: number): string {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const day = 24 * 3600 * 1000;
  return time >= midnight
    ? "Today"
    : time >= midnight - day
      ? "Yesterday"
      : time >= midnight - 6 * day
        ? "This week"
        : "Earlier";
}
