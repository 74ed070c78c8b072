// Chats as a JSON file, and back. A file that is not one is refused by the name of what is wrong in it.

import type { Chat, Message } from "./conversation";

const FORMAT = "zebra-runtime chats";
const VERSION = 1;
const STATES = ["done", "writing", "stopped", "failed"] as const;
const STATS = ["promptTokens", "cachedTokens", "completionTokens", "firstTokenMs", "tokensPerSecond"] as const;

export interface ChatWithMessages {
  readonly chat: Chat;
  readonly messages: readonly Message[];
}

/** What is wrong with a file, with the path of the value. */
export class ImportError extends Error {}

export function exportChats(chats: readonly ChatWithMessages[]): string {
  const file = {
    format: FORMAT,
    version: VERSION,
    exported: new Date().toISOString(),
    chats: chats.map(({ chat, messages }) => ({
      ...chat,
      messages: messages.map(({ chat: _, ...message }) => message),
    })),
  };
  return `${JSON.stringify(file, null, 2)}\n`;
}

/** The chats of a file made by {@link exportChats}. */
export function importChats(text: string): ChatWithMessages[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new ImportError(`This is not a JSON file: ${error instanceof Error ? error.message : String(error)}.`);
  }
  const file = object(parsed, "The file");
  if (file["format"] !== FORMAT) {
    throw new ImportError(
      `format: expected "${FORMAT}", found ${show(file["format"])}. Is this another program's file?`,
    );
  }
  if (file["version"] !== VERSION) {
    throw new ImportError(`version: expected ${VERSION}, found ${show(file["version"])}.`);
  }
  return array(file["chats"], "chats").map((value, index) => readChat(value, `chats[${index}]`));
}

function readChat(value: unknown, path: string): ChatWithMessages {
  const fields = object(value, path);
  const id = nonEmpty(fields["id"], `${path}.id`);
  const messages = array(fields["messages"], `${path}.messages`).map((message, index) =>
    readMessage(message, id, `${path}.messages[${index}]`),
  );
  const ids = new Set<string>();
  for (const [index, message] of messages.entries()) {
    if (ids.has(message.id)) {
      throw new ImportError(`${path}.messages[${index}].id: "${message.id}" is there twice.`);
    }
    ids.add(message.id);
  }
  const parents = new Map(messages.map((message) => [message.id, message.parent]));
  for (const [index, message] of messages.entries()) {
    const where = `${path}.messages[${index}].parent`;
    if (message.parent !== null && !ids.has(message.parent)) {
      throw new ImportError(`${where}: there is no message "${message.parent}".`);
    }
    const seen = new Set([message.id]);
    for (let parent = message.parent; parent !== null; parent = parents.get(parent) ?? null) {
      if (seen.has(parent)) {
        throw new ImportError(`${where}: the message would follow itself.`);
      }
      seen.add(parent);
    }
  }
  const selected: Record<string, string> = {};
  for (const [parent, child] of Object.entries(object(fields["selected"], `${path}.selected`))) {
    selected[parent] = string(child, `${path}.selected.${parent}`);
  }
  const chat: Chat = {
    id,
    title: string(fields["title"], `${path}.title`),
    created: number(fields["created"], `${path}.created`),
    updated: number(fields["updated"], `${path}.updated`),
    system: string(fields["system"], `${path}.system`),
    selected,
  };
  return { chat, messages };
}

function readMessage(value: unknown, chat: string, path: string): Message {
  const fields = object(value, path);
  const { role, parent, finish, stats } = fields;
  if (role !== "user" && role !== "assistant") {
    throw new ImportError(`${path}.role: expected "user" or "assistant", found ${show(role)}.`);
  }
  const state = STATES.find((name) => name === fields["state"]);
  if (!state) {
    throw new ImportError(`${path}.state: expected one of ${STATES.join(", ")}, found ${show(fields["state"])}.`);
  }
  const message: Message = {
    chat,
    id: nonEmpty(fields["id"], `${path}.id`),
    parent: parent === null ? null : string(parent, `${path}.parent`),
    role,
    content: string(fields["content"], `${path}.content`),
    created: number(fields["created"], `${path}.created`),
    // What an answer failed of belongs to the machine it failed on.
    state: state === "done" ? "done" : "stopped",
  };
  if (finish === "stop" || finish === "length") {
    message.finish = finish;
  }
  if (stats !== undefined) {
    const numbers = object(stats, `${path}.stats`);
    const [promptTokens, cachedTokens, completionTokens, firstTokenMs, tokensPerSecond] = STATS.map((name) =>
      number(numbers[name], `${path}.stats.${name}`),
    ) as [number, number, number, number, number];
    message.stats = { promptTokens, cachedTokens, completionTokens, firstTokenMs, tokensPerSecond };
  }
  return message;
}

function object(value: unknown, path: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ImportError(`${path}: expected an object, found ${show(value)}.`);
  }
  return Object.fromEntries(Object.entries(value));
}

function array(value: unknown, path: string): unknown[] {
  if (!Array.isArray(value)) {
    throw new ImportError(`${path}: expected a list, found ${show(value)}.`);
  }
  return value;
}

function string(value: unknown, path: string): string {
  if (typeof value !== "string") {
    throw new ImportError(`${path}: expected a text, found ${show(value)}.`);
  }
  return value;
}

function nonEmpty(value: unknown, path: string): string {
  const text = string(value, path);
  if (text === "") {
    throw new ImportError(`${path}: expected a text, found an empty one.`);
  }
  return text;
}

function number(value: unknown, path: string): number {
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new ImportError(`${path}: expected a number, found ${show(value)}.`);
  }
  return value;
}

function show(value: unknown): string {
  if (value === undefined) {
    return "nothing";
  }
  const text = JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}
