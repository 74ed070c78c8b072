// Short notes at the edge of the page, and questions before what cannot be undone.

import { button, byId, h, on } from "./dom";

const SHOWN_MS = 8000;

/** Shows a note; with `action` a button that may still be pressed while it is shown. */
export function toast(words: string, action?: { readonly label: string; readonly run: () => void }): void {
  const region = byId("toasts", HTMLElement);
  const note = h("div", { class: "toast" }, h("span", {}, words));
  let timer = 0;
  const hold = (): void => clearTimeout(timer);
  const release = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => note.remove(), SHOWN_MS);
  };
  if (action) {
    note.append(
      button(action.label, "plain", () => {
        note.remove();
        action.run();
      }),
    );
  }
  // It stays as long as it is read or its button is about to be pressed.
  on(note, { mouseenter: hold, mouseleave: release, focusin: hold, focusout: release });
  region.append(note);
  while (region.childElementCount > 3) {
    region.firstElementChild?.remove();
  }
  release();
}

/** Asks before something that cannot be undone. */
export function confirmed(question: string, consequence: string, action: string): Promise<boolean> {
  const dialog = byId("confirm", HTMLDialogElement);
  byId("confirm-title", HTMLElement).textContent = question;
  byId("confirm-text", HTMLElement).textContent = consequence;
  const yes = byId("confirm-yes", HTMLButtonElement);
  yes.textContent = action;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
