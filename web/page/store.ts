// Chats and their messages in IndexedDB. Messages lie apart from chats, so that an answer that is being written is
// saved without rewriting the chat.

import { openDB, type DBSchema, type IDBPDatabase } from "idb";
import type { Chat, Message } from "./conversation";

interface Schema extends DBSchema {
  chats: { key: string; value: Chat };
  messages: { key: [string, string]; value: Message; indexes: { chat: string } };
}

/**
 * Commits at once instead of when the page is next idle: a page that is reloaded or closed right after would otherwise
 * take what it wrote with it.
 */
async function finished(
  transaction: { commit(): void; readonly done: Promise<void> },
  writes: readonly Promise<unknown>[],
): Promise<void> {
  transaction.commit();
  await Promise.all([...writes, transaction.done]);
}

export class Store {
  readonly #db: IDBPDatabase<Schema>;
  readonly #channel = new BroadcastChannel("zebra-chats");

  private constructor(db: IDBPDatabase<Schema>) {
    this.#db = db;
  }

  static async open(): Promise<Store> {
    const db = await openDB<Schema>("zebra-chats", 1, {
      upgrade(database) {
        database.createObjectStore("chats", { keyPath: "id" });
        const messages = database.createObjectStore("messages", { keyPath: ["chat", "id"] });
        messages.createIndex("chat", "chat");
      },
      // Another tab has a newer version of the page: it must not wait for this one.
      blocking: (_current, _blocked, event) => (event.target as IDBDatabase).close(),
    });
    return new Store(db);
  }

  /** Calls back when another tab changed the list of chats. */
  onChange(callback: () => void): void {
    this.#channel.addEventListener("message", callback);
  }

  /** The newest first. */
  async chats(): Promise<Chat[]> {
    return (await this.#db.getAll("chats")).sort((a, b) => b.updated - a.updated);
  }

  async messages(chat: string): Promise<Message[]> {
    return this.#db.getAllFromIndex("messages", "chat", chat);
  }

  async putChat(chat: Chat): Promise<void> {
    const transaction = this.#db.transaction("chats", "readwrite");
    await finished(transaction, [transaction.store.put(chat)]);
    this.#channel.postMessage(null);
  }

  async putMessage(message: Message): Promise<void> {
    const transaction = this.#db.transaction("messages", "readwrite");
    await finished(transaction, [transaction.store.put(message)]);
  }

  /** A whole chat in one transaction. */
  async putAll(chat: Chat, messages: readonly Message[]): Promise<void> {
    const transaction = this.#db.transaction(["chats", "messages"], "readwrite");
    const writes: Promise<unknown>[] = [transaction.objectStore("chats").put(chat)];
    for (const message of messages) {
      writes.push(transaction.objectStore("messages").put(message));
    }
    await finished(transaction, writes);
    this.#channel.postMessage(null);
  }

  async deleteMessages(messages: readonly Message[]): Promise<void> {
    const transaction = this.#db.transaction("messages", "readwrite");
    await Promise.all([...messages.map(({ chat, id }) => transaction.store.delete([chat, id])), transaction.done]);
  }

  /** Takes a chat out and gives its messages, for undoing. */
  async deleteChat(id: string): Promise<Message[]> {
    const transaction = this.#db.transaction(["chats", "messages"], "readwrite");
    const store = transaction.objectStore("messages");
    const messages = await store.index("chat").getAll(id);
    const deletes = messages.map((message) => store.delete([message.chat, message.id]));
    await Promise.all([transaction.objectStore("chats").delete(id), ...deletes, transaction.done]);
    this.#channel.postMessage(null);
    return messages;
  }
}
