// The box that messages are written in.

import { byId } from "./dom";
import { grow } from "./messages";

export interface ComposerActions {
  send(text: string): void;
  stop(): void;
  /** The arrow key up in an empty box. */
  editLast(): void;
}

export class Composer {
  readonly #text = byId("prompt", HTMLTextAreaElement);
  readonly #send = byId("send", HTMLButtonElement);
  readonly #stop = byId("stop", HTMLButtonElement);
  /** What was being written in each chat, while the page is open. */
  readonly #drafts = new Map<string, string>();
  #chat = "";
  #answering = false;

  constructor(actions: ComposerActions) {
    const send = (): void => {
      const text = this.#text.value;
      if (text.trim() !== "" && !this.#answering) {
        this.set("");
        actions.send(text);
      }
    };
    byId("composer", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      send();
    });
    this.#text.addEventListener("keydown", (event) => {
      // While an input method composes, Enter accepts its word; Safari reports it after the end, with the code 229.
      if (event.isComposing || event.keyCode === 229) {
        return;
      }
      if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey && !event.altKey) {
        event.preventDefault();
        send();
      } else if (event.key === "ArrowUp" && this.#text.value === "") {
        event.preventDefault();
        actions.editLast();
      }
    });
    this.#text.addEventListener("input", () => this.#changed());
    this.#stop.addEventListener("click", () => actions.stop());
    this.#changed();
  }

  /** Shows the draft of a chat. */
  open(chat: string): void {
    this.#drafts.set(this.#chat, this.#text.value);
    this.#chat = chat;
    this.set(this.#drafts.get(chat) ?? "");
  }

  set(text: string): void {
    this.#text.value = text;
    this.#changed();
  }

  focus(): void {
    this.#text.focus();
  }

  set answering(answering: boolean) {
    const focused = document.activeElement === (this.#answering ? this.#stop : this.#send);
    this.#answering = answering;
    this.#stop.hidden = !answering;
    this.#send.hidden = answering;
    if (focused) {
      this.#text.focus();
    }
  }

  set enabled(enabled: boolean) {
    this.#text.disabled = !enabled;
    this.#changed();
  }

  #changed(): void {
    this.#send.disabled = this.#text.disabled || this.#text.value.trim() === "";
    grow(this.#text);
  }
}
