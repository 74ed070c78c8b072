// Choosing a model, and the models in the browser's storage.

import { models, type Format, type Model, type StoredModel } from "zebra-runtime";
import { button, byId, h } from "./dom";
import { asZebraError } from "./model";
import type { ModelChoice } from "./settings";
import { confirmed } from "./toast";
import { bytes, many } from "./words";

export interface ModelsActions {
  open(choice: ModelChoice): void;
  /** What is loaded now must not be deleted under it. */
  current(): { readonly model: Model; readonly choice: ModelChoice } | null;
  deleted(name: string): void;
}

/** Kinds of layers as people know them. */
const KINDS = {
  mla: "attention (MLA)",
  attention: "attention",
  mamba1: "Mamba",
  mamba2: "Mamba2",
  discrete_mamba2: "discrete Mamba2",
} as const;

/** Families as their authors write them. */
const FAMILIES: Record<Model["info"]["family"], string> = {
  "zebra-llama": "Zebra-Llama",
  "x-ecomla": "X-EcoMLA",
  mambainllama: "MambaInLlama",
  llamba: "Llamba",
  minitron: "Minitron",
  llama: "Llama",
};

export class ModelsDialog {
  readonly #dialog = byId("models", HTMLDialogElement);
  readonly #source = byId("model-source", HTMLInputElement);
  readonly #wrong = byId("model-wrong", HTMLElement);
  readonly #actions: ModelsActions;
  readonly #pocket: ModelChoice;

  constructor(pocket: ModelChoice, actions: ModelsActions) {
    this.#pocket = pocket;
    this.#actions = actions;
    byId("model-form", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("model-pocket", HTMLButtonElement).addEventListener("click", () => this.#open(pocket));
    const picker = byId("model-files", HTMLInputElement);
    byId("model-folder", HTMLButtonElement).addEventListener("click", () => picker.click());
    picker.addEventListener("change", () => {
      this.openFiles([...(picker.files ?? [])]);
      picker.value = "";
    });
    listenForDrops((files) => this.openFiles(files));
  }

  async show(): Promise<void> {
    this.#wrong.textContent = "";
    this.#showCurrent();
    if (!this.#dialog.open) {
      this.#dialog.showModal();
      this.#source.focus();
    }
    await this.#showStored();
  }

  /** A folder that was picked or dropped. */
  openFiles(files: readonly File[]): void {
    if (files.length === 0) {
      return;
    }
    const [folder] = files[0]?.webkitRelativePath.split("/") ?? [];
    this.#open({ source: files, label: folder || "the folder", ...this.#options() });
  }

  #submit(): void {
    const source = this.#source.value.trim();
    if (source === "") {
      this.#wrong.textContent = "Give the address of a model's folder, or a hub name such as owner/name.";
      this.#source.focus();
      return;
    }
    const revision = byId("model-revision", HTMLInputElement).value.trim();
    const token = byId("model-token", HTMLInputElement).value.trim();
    this.#open({
      source,
      label: labelOf(source),
      ...this.#options(),
      ...(revision ? { revision } : {}),
      ...(token ? { token } : {}),
    });
  }

  #options(): Pick<ModelChoice, "format" | "context" | "store"> {
    const formats: Record<string, Format | undefined> = { f16: "f16", q8: "q8", q4: "q4" };
    const format = formats[byId("model-format", HTMLSelectElement).value];
    const context = byId("model-context", HTMLInputElement).valueAsNumber;
    const store = byId("model-store", HTMLSelectElement).value;
    return {
      ...(format ? { format } : {}),
      ...(context > 0 ? { context } : {}),
      ...(store === "quantized" || store === "none" ? { store } : {}),
    };
  }

  #open(choice: ModelChoice): void {
    this.#dialog.close();
    this.#actions.open(choice);
  }

  #showCurrent(): void {
    const target = byId("model-current", HTMLElement);
    const current = this.#actions.current();
    if (!current) {
      target.replaceChildren(h("p", { class: "hint" }, "No model is loaded."));
      return;
    }
    const { info } = current.model;
    const kinds = (Object.keys(KINDS) as (keyof typeof KINDS)[])
      .map((kind) => [KINDS[kind], info.layers.filter((layer) => layer === kind).length] as const)
      .filter(([, count]) => count > 0)
      .map(([name, count]) => `${count} ${name}`);
    const facts: [string, string][] = [
      ["Name", current.choice.label],
      ["Family", FAMILIES[info.family]],
      ["Chat", info.chat ? "by the model's own template" : "no template: a base model, which goes on with your text"],
      ["Size", `${many(info.parameters)} parameters in ${info.format}`],
      ["Layers", kinds.join(", ")],
      [
        "Context",
        `${info.context.toLocaleString("en")} tokens; ` +
          (info.cacheBytesPerToken > 0
            ? `each adds ${bytes(info.cacheBytesPerToken)} to the cache`
            : "the cache has one size, however many are read"),
      ],
      ["Graphics card", `${info.adapter.name || "not named here"}${info.adapter.software ? " (software: slow)" : ""}`],
      ["Kernels", info.selfTest ?? (info.kernels === "plain" ? "plain" : "fast, tested on this card")],
    ];
    target.replaceChildren(
      h("dl", { class: "facts" }, ...facts.flatMap(([term, value]) => [h("dt", {}, term), h("dd", {}, value)])),
    );
  }

  async #showStored(): Promise<void> {
    const list = byId("model-stored", HTMLElement);
    let stored: StoredModel[];
    try {
      stored = await models.list();
    } catch (error) {
      list.replaceChildren(h("li", { class: "hint" }, asZebraError(error).message));
      return;
    }
    const estimate = await navigator.storage?.estimate().catch(() => undefined);
    byId("model-room", HTMLElement).textContent = estimate?.quota
      ? `${bytes(estimate.usage ?? 0)} in use; the browser allows ${bytes(estimate.quota)}.`
      : "";
    const items = stored.sort((a, b) => b.lastUsed - a.lastUsed).map((model) => this.#storedItem(model));
    list.replaceChildren(...(items.length > 0 ? items : [h("li", { class: "hint" }, "None yet.")]));
  }

  #storedItem({ name, bytes: size, complete, lastUsed }: StoredModel): HTMLElement {
    const label = name === this.#pocket.source ? this.#pocket.label : labelOf(name);
    const used = new Date(lastUsed).toLocaleDateString();
    const remove = button("Delete", "danger", () => void this.#delete(name, label, size));
    remove.setAttribute("aria-label", `Delete ${label}`);
    const load = button("Load", "plain", () => this.#open({ source: name, label }));
    load.setAttribute("aria-label", `Load ${label}`);
    return h(
      "li",
      { class: "stored" },
      h(
        "div",
        {},
        h("strong", {}, label),
        h("span", { class: "hint" }, `${bytes(size)}${complete ? "" : " so far, not complete"} · used ${used}`),
        label !== name && h("span", { class: "hint address" }, name),
      ),
      h("div", { class: "row" }, load, remove),
    );
  }

  async #delete(name: string, label: string, size: number): Promise<void> {
    const words = `${bytes(size)} are freed. To use it again it must be downloaded again.`;
    if (!(await confirmed(`Delete ${label} from this browser?`, words, "Delete"))) {
      return;
    }
    try {
      await models.delete(name);
      this.#actions.deleted(label);
      await this.#showStored();
    } catch (error) {
      this.#wrong.textContent = asZebraError(error).message;
    }
  }
}

/** The last part of an address that says something: `zebra-pocket` of `https://host/models/zebra-pocket/`. */
export function labelOf(source: string): string {
  const parts = source
    .replace(/[?#].*$/, "")
    .split("/")
    .filter((part) => part !== "");
  return parts.at(-1) ?? source;
}

function listenForDrops(open: (files: File[]) => void): void {
  const veil = byId("drop", HTMLElement);
  const brings = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
  addEventListener("dragover", (event) => {
    if (brings(event)) {
      event.preventDefault();
      veil.hidden = false;
    }
  });
  addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) {
      veil.hidden = true;
    }
  });
  addEventListener("drop", (event) => {
    veil.hidden = true;
    if (brings(event)) {
      event.preventDefault();
      const entries = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry());
      const loose = [...(event.dataTransfer?.files ?? [])];
      void filesOf(entries, loose).then(open);
    }
  });
}

/** The files of dropped folders, one level deep as checkpoints are; of dropped files themselves, `loose`. */
async function filesOf(entries: readonly (FileSystemEntry | null)[], loose: File[]): Promise<File[]> {
  const folders = entries.filter(isFolder);
  if (folders.length === 0) {
    return loose;
  }
  const files: File[] = [];
  for (const folder of folders) {
    const reader = folder.createReader();
    // readEntries gives a hundred at a time, and none at the end.
    for (;;) {
      const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
      if (some.length === 0) {
        break;
      }
      for (const entry of some) {
        if (isFile(entry)) {
          files.push(await new Promise<File>((resolve, reject) => entry.file(resolve, reject)));
        }
      }
    }
  }
  return files;
}

// Their classes have other names in Chromium, so that `instanceof` cannot tell them.
function isFolder(entry: FileSystemEntry | null): entry is FileSystemDirectoryEntry {
  return entry?.isDirectory ?? false;
}

function isFile(entry: FileSystemEntry): entry is FileSystemFileEntry {
  return entry.isFile;
}
