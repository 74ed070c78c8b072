// What stands above the box while a model loads, waits for an answer, or could not be loaded.

import type { Estimate, Progress, ZebraError } from "zebra-runtime";
import { button, byId, h } from "./dom";
import { explain, REMEDY_LABELS, type Remedy } from "./explain";
import type { Activity } from "./model";
import type { ModelChoice } from "./settings";
import { bytes, duration, many } from "./words";

export interface NoticeActions {
  cancel(): void;
  load(choice: ModelChoice): void;
  remedy(remedy: Remedy, choice: ModelChoice, details: string): void;
  announce(text: string): void;
}

export class Notice {
  readonly #root = byId("notice", HTMLElement);
  readonly #actions: NoticeActions;
  #kind = "";
  #phase = "";
  /** Kept while the numbers change, so that Cancel keeps its focus. */
  readonly #bar = h(
    "div",
    { class: "bar", role: "progressbar", "aria-labelledby": "load-phase", "aria-valuemin": 0, "aria-valuemax": 100 },
    h("i"),
  );
  readonly #words = h("p", { id: "load-phase", class: "phase" });
  readonly #numbers = h("p", { class: "numbers" });

  constructor(actions: NoticeActions) {
    this.#actions = actions;
  }

  render(activity: Activity): void {
    const again = activity.kind === this.#kind && (activity.kind === "loading" || activity.kind === "estimating");
    this.#kind = activity.kind;
    this.#root.hidden = activity.kind === "idle";
    this.#root.className = activity.kind;
    switch (activity.kind) {
      case "idle":
        this.#root.replaceChildren();
        break;
      case "estimating":
      case "loading": {
        const progress = activity.kind === "loading" ? activity.progress : {};
        this.#showProgress(activity.choice, progress);
        if (!again) {
          const cancel = button("Cancel", "plain", () => this.#actions.cancel());
          this.#root.replaceChildren(h("div", { class: "load-head" }, this.#words, cancel), this.#bar, this.#numbers);
        }
        break;
      }
      case "asking":
        this.#root.replaceChildren(...this.#question(activity.choice, activity.estimate));
        this.#actions.announce(this.#root.querySelector("h2")?.textContent ?? "");
        break;
      case "recovering":
        this.#root.replaceChildren(
          h("p", { class: "phase" }, "Recovering: the graphics card was reset, and the answer goes on in a moment."),
        );
        this.#actions.announce("Recovering after the graphics card was reset");
        break;
      case "cancelled": {
        const { choice } = activity;
        this.#root.replaceChildren(
          h("p", { class: "phase" }, "Loading was cancelled. What has arrived is kept."),
          h(
            "div",
            { class: "row" },
            button(`Load ${choice.label}`, "primary", () => this.#actions.load(choice)),
            button(REMEDY_LABELS["other-model"], "plain", () => this.#actions.remedy("other-model", choice, "")),
          ),
        );
        break;
      }
      case "failed":
        this.#root.replaceChildren(...this.#failure(activity.choice, activity.error));
        this.#actions.announce(this.#root.querySelector("h2")?.textContent ?? "");
        break;
    }
  }

  #showProgress({ label }: ModelChoice, progress: Partial<Record<Progress["phase"], Progress>>): void {
    const { phase, numbers, share } = describe(label, progress);
    if (phase !== this.#phase) {
      this.#phase = phase;
      this.#words.textContent = phase;
      this.#actions.announce(phase);
    }
    this.#numbers.textContent = numbers;
    this.#bar.classList.toggle("unknown", share === null);
    if (share === null) {
      this.#bar.removeAttribute("aria-valuenow");
    } else {
      this.#bar.setAttribute("aria-valuenow", String(Math.floor(share * 100)));
      this.#bar.style.setProperty("--share", String(share));
    }
  }

  #question(choice: ModelChoice, { download, gpu, fits, why, format, context, parameters }: Estimate): Node[] {
    const facts: [string, string][] = [
      [
        "Download",
        download.missing === 0
          ? "nothing, it is stored here"
          : `${bytes(download.missing)} of ${bytes(download.total)}`,
      ],
      [
        "Graphics memory",
        `${bytes(gpu.total)}: weights ${bytes(gpu.weights)}, cache ${bytes(gpu.latents + gpu.states)}, ` +
          `work ${bytes(gpu.activations + gpu.control)}`,
      ],
      ["Model", `${many(parameters)} parameters in ${format}, ${context.toLocaleString("en")} tokens of context`],
    ];
    const remedies: Remedy[] = fits
      ? []
      : explain("limit", "load", choice).remedies.filter((name) => name === "smaller");
    const load = fits ? (download.missing > 0 ? "Download and load" : "Load") : "Load it anyway";
    return [
      h("h2", {}, fits ? `Load ${choice.label}?` : `${choice.label} does not fit here`),
      h(
        "p",
        { class: fits ? "fits" : "fits not" },
        fits ? "It fits this computer." : (why ?? "This computer has too little memory for it."),
      ),
      h("dl", { class: "facts" }, ...facts.flatMap(([term, value]) => [h("dt", {}, term), h("dd", {}, value)])),
      h(
        "div",
        { class: "row" },
        ...remedies.map((remedy) =>
          button(REMEDY_LABELS[remedy], "primary", () => this.#actions.remedy(remedy, choice, "")),
        ),
        button(load, fits ? "primary" : "plain", () => this.#actions.load(choice)),
        button("Cancel", "plain", () => this.#actions.cancel()),
      ),
    ];
  }

  #failure(choice: ModelChoice, { code, message }: ZebraError): Node[] {
    const { title, advice, remedies } = explain(code, "load", choice);
    const [first] = remedies;
    return [
      h("h2", {}, title),
      ...(advice ? [h("p", {}, advice)] : []),
      h("p", { class: "details" }, message),
      h(
        "div",
        { class: "row" },
        ...remedies.map((remedy) =>
          button(REMEDY_LABELS[remedy], remedy === first ? "primary" : "plain", () =>
            this.#actions.remedy(remedy, choice, `${code}: ${message}`),
          ),
        ),
      ),
    ];
  }
}

/** What of a load is worth telling now: some of its phases run side by side. */
function describe(
  label: string,
  { waiting, download, quantize, upload, compile }: Partial<Record<Progress["phase"], Progress>>,
): { phase: string; numbers: string; share: number | null } {
  if (download?.phase === "download" && download.loaded < download.total) {
    const { loaded, total, bytesPerSecond } = download;
    const rate =
      bytesPerSecond > 0 ? [`${bytes(bytesPerSecond)}/s`, `${duration((total - loaded) / bytesPerSecond)} left`] : [];
    return {
      phase: `Downloading ${label}`,
      numbers: [`${bytes(loaded)} of ${bytes(total)}`, ...rate].join(" · "),
      share: loaded / total,
    };
  }
  if (quantize?.phase === "quantize" && quantize.loaded < quantize.total) {
    const { loaded, total } = quantize;
    return { phase: `Quantizing ${label}`, numbers: `${bytes(loaded)} of ${bytes(total)}`, share: loaded / total };
  }
  if (upload?.phase === "upload" && upload.loaded < upload.total) {
    const { loaded, total } = upload;
    return {
      phase: `Moving ${label} to the graphics card`,
      numbers: `${bytes(loaded)} of ${bytes(total)}`,
      share: loaded / total,
    };
  }
  if (compile) {
    return { phase: `Preparing ${label}`, numbers: "Compiling and testing its shaders", share: null };
  }
  if (waiting && !download) {
    return { phase: `Waiting for ${label}`, numbers: "Another tab is downloading it", share: null };
  }
  return { phase: `Opening ${label}`, numbers: "Reading its configuration", share: null };
}
