// A chat as a tree: an edited or regenerated message is a sibling of the old one, and `selected` says which of the
// siblings is read. Nothing here touches the page or the database.

import type { ZebraErrorCode } from "zebra-runtime";

export interface Stats {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly completionTokens: number;
  readonly firstTokenMs: number;
  readonly tokensPerSecond: number;
}

export interface Message {
  readonly chat: string;
  readonly id: string;
  /** The message that this one answers or follows; null for a first message. */
  readonly parent: string | null;
  readonly role: "user" | "assistant";
  content: string;
  readonly created: number;
  /** `writing` in the database of a page that was closed means that the answer is unfinished. */
  state: "done" | "writing" | "stopped" | "failed";
  /** Why an answer ended: `length` when there was no room left. */
  finish?: "stop" | "length";
  error?: { readonly code: ZebraErrorCode; readonly message: string };
  stats?: Stats;
}

export interface Chat {
  readonly id: string;
  title: string;
  readonly created: number;
  updated: number;
  /** The system prompt, "" for none. */
  system: string;
  /** Which child of a message is read, by the parent's id; the first message by "". */
  selected: Record<string, string>;
}

export class Conversation {
  readonly chat: Chat;
  readonly #messages = new Map<string, Message>();
  readonly #children = new Map<string, Message[]>();

  constructor(chat: Chat, messages: Iterable<Message> = []) {
    this.chat = chat;
    for (const message of [...messages].sort((a, b) => a.created - b.created)) {
      this.#insert(message);
    }
  }

  get(id: string): Message | undefined {
    return this.#messages.get(id);
  }

  all(): Message[] {
    return [...this.#messages.values()];
  }

  /** The messages being read, from the first to the last; up to and with `last` if given. */
  path(last?: Message): Message[] {
    const path: Message[] = [];
    for (let siblings = this.#children.get(""); siblings?.length;) {
      const parent = path.at(-1)?.id ?? "";
      const selected = this.chat.selected[parent];
      const message = siblings.find(({ id }) => id === selected) ?? siblings.at(-1);
      if (!message) {
        break;
      }
      path.push(message);
      if (message === last) {
        break;
      }
      siblings = this.#children.get(message.id);
    }
    return path;
  }

  /** The messages above this one, oldest first: whatever is selected elsewhere. */
  above(message: Message): Message[] {
    const above: Message[] = [];
    let parent = message.parent;
    while (parent !== null) {
      const found = this.#messages.get(parent);
      if (!found) {
        break;
      }
      above.unshift(found);
      parent = found.parent;
    }
    return above;
  }

  /** This message and its siblings, oldest first. */
  versions(message: Message): readonly Message[] {
    return this.#children.get(message.parent ?? "") ?? [];
  }

  /** Adds a message after `parent` and selects it. */
  add(parent: Message | null, role: Message["role"], content: string, state: Message["state"]): Message {
    // Siblings are ordered by time, and two may be made within one millisecond.
    const newest = Math.max(0, ...this.all().map(({ created }) => created));
    const created = Math.max(Date.now(), newest + 1);
    const message: Message = {
      chat: this.chat.id,
      id: crypto.randomUUID(),
      parent: parent?.id ?? null,
      role,
      content,
      created,
      state,
    };
    this.#insert(message);
    this.select(message);
    this.chat.updated = created;
    return message;
  }

  select(message: Message): void {
    this.chat.selected[message.parent ?? ""] = message.id;
  }

  /** Takes a message and all that follows it out of the chat, and gives them for {@link restore}. */
  remove(message: Message): Message[] {
    const siblings = this.#children.get(message.parent ?? "") ?? [];
    const index = siblings.indexOf(message);
    siblings.splice(index, 1);
    const neighbour = siblings[Math.max(0, index - 1)];
    if (neighbour) {
      this.select(neighbour);
    } else {
      delete this.chat.selected[message.parent ?? ""];
    }
    const removed: Message[] = [];
    const take = (taken: Message): void => {
      removed.push(taken);
      this.#messages.delete(taken.id);
      for (const child of this.#children.get(taken.id) ?? []) {
        take(child);
      }
      this.#children.delete(taken.id);
    };
    take(message);
    return removed;
  }

  restore(removed: readonly Message[]): void {
    for (const message of removed) {
      this.#insert(message);
    }
    const [first] = removed;
    if (first) {
      this.select(first);
    }
  }

  #insert(message: Message): void {
    this.#messages.set(message.id, message);
    const key = message.parent ?? "";
    const siblings = this.#children.get(key) ?? [];
    siblings.push(message);
    siblings.sort((a, b) => a.created - b.created);
    this.#children.set(key, siblings);
  }
}

/** The beginning of a first message, cut at a word. */
export function titleOf(text: string): string {
  const line = text.trim().split("\n", 1)[0]?.replace(/\s+/g, " ").trim() ?? "";
  if (line.length <= 60) {
    return line || "New chat";
  }
  const cut = line.slice(0, 60);
  return `${cut.slice(0, cut.lastIndexOf(" ") > 30 ? cut.lastIndexOf(" ") : 60)}…`;
}
