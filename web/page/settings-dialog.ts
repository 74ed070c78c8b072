// The settings: system prompt, sampling, theme, and chats as a file.

import { byId, h, on } from "./dom";
import { NUMBER_FIELDS, setTheme, theme, wrong, type Sampling, type Theme } from "./settings";

export interface SettingsActions {
  sampling(): Sampling;
  setSampling(sampling: Sampling): void;
  system(): string;
  setSystem(text: string): void;
  exportAll(): void;
  importFile(file: File): void;
  deleteAll(): void;
}

export class SettingsDialog {
  readonly #dialog = byId("settings", HTMLDialogElement);
  readonly #system = byId("system", HTMLTextAreaElement);
  readonly #stop = byId("stop-texts", HTMLTextAreaElement);
  readonly #inputs = new Map<string, HTMLInputElement>();
  readonly #actions: SettingsActions;

  constructor(actions: SettingsActions) {
    this.#actions = actions;
    const fields = byId("sampling", HTMLElement);
    for (const field of NUMBER_FIELDS) {
      const id = `sampling-${field.name}`;
      const error = h("span", { class: "wrong", id: `${id}-wrong`, role: "alert" });
      const input = on(
        h("input", {
          id,
          type: "number",
          inputmode: field.step === 1 ? "numeric" : "decimal",
          min: field.min,
          max: field.max,
          step: field.step,
          placeholder: "model's own",
          "aria-describedby": `${id}-hint ${id}-wrong`,
        }),
        {
          input: () => {
            const bad = input.validity.badInput || (input.value !== "" && wrong(field, input.valueAsNumber) !== "");
            error.textContent = bad ? wrong(field, Number.NaN) : "";
            input.setAttribute("aria-invalid", String(bad));
            this.#save();
          },
        },
      );
      this.#inputs.set(field.name, input);
      fields.append(
        h(
          "div",
          { class: "field" },
          h("label", { for: id }, field.label),
          h("span", { class: "hint", id: `${id}-hint` }, field.hint),
          input,
          error,
        ),
      );
    }
    this.#stop.addEventListener("input", () => this.#save());
    this.#system.addEventListener("input", () => actions.setSystem(this.#system.value));
    byId("sampling-reset", HTMLButtonElement).addEventListener("click", () => {
      actions.setSampling({});
      this.#fill();
    });
    for (const radio of this.#dialog.querySelectorAll<HTMLInputElement>("input[name=theme]")) {
      radio.addEventListener("change", () => setTheme(radio.value as Theme));
    }
    byId("export-all", HTMLButtonElement).addEventListener("click", () => actions.exportAll());
    byId("delete-all", HTMLButtonElement).addEventListener("click", () => actions.deleteAll());
    const file = byId("import-file", HTMLInputElement);
    byId("import", HTMLButtonElement).addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      const [chosen] = file.files ?? [];
      if (chosen) {
        actions.importFile(chosen);
      }
      file.value = "";
    });
  }

  show(): void {
    this.#fill();
    this.#dialog.showModal();
  }

  #fill(): void {
    const sampling = this.#actions.sampling();
    for (const { name } of NUMBER_FIELDS) {
      const input = this.#inputs.get(name);
      if (input) {
        input.value = sampling[name] === undefined ? "" : String(sampling[name]);
        input.removeAttribute("aria-invalid");
        byId(`${input.id}-wrong`, HTMLElement).textContent = "";
      }
    }
    this.#stop.value = (sampling.stop ?? []).join("\n");
    this.#system.value = this.#actions.system();
    for (const radio of this.#dialog.querySelectorAll<HTMLInputElement>("input[name=theme]")) {
      radio.checked = radio.value === theme();
    }
  }

  #save(): void {
    const sampling: Sampling = {};
    for (const field of NUMBER_FIELDS) {
      const input = this.#inputs.get(field.name);
      if (input && input.value !== "" && wrong(field, input.valueAsNumber) === "") {
        sampling[field.name] = input.valueAsNumber;
      }
    }
    const stop = this.#stop.value.split("\n").filter((text) => text !== "");
    if (stop.length > 0) {
      sampling.stop = stop;
    }
    this.#actions.setSampling(sampling);
  }
}
