// What each error means for a person, and what helps.

import type { ZebraErrorCode } from "zebra-runtime";
import type { ModelChoice } from "./settings";

export type Remedy =
  | "retry"
  | "reload"
  | "refetch"
  | "other-model"
  | "storage"
  | "without-storage"
  | "smaller"
  | "shorter"
  | "plain"
  | "settings"
  | "new-chat"
  | "regenerate"
  | "copy";

export const REMEDY_LABELS: Record<Remedy, string> = {
  retry: "Try again",
  reload: "Reload the model",
  refetch: "Download it anew",
  "other-model": "Choose another model",
  storage: "Free storage",
  "without-storage": "Run without storing it",
  smaller: "Try the smaller q4 format",
  shorter: "Try a shorter context",
  plain: "Use the plain kernels",
  settings: "Open settings",
  "new-chat": "Start a new chat",
  regenerate: "Try again",
  copy: "Copy the details",
};

export interface Explanation {
  readonly title: string;
  readonly advice: string;
  readonly remedies: readonly Remedy[];
}

/** In words: `choice` is the model that did not load, or that answered. */
export function explain(code: ZebraErrorCode, where: "load" | "answer", choice: ModelChoice | null): Explanation {
  const again: Remedy = where === "load" ? "retry" : "regenerate";
  const smaller: Remedy[] = choice?.format === "q4" ? [] : ["smaller"];
  switch (code) {
    case "no-webgpu":
      return { title: "This browser gives no access to the graphics card.", advice: "", remedies: [again] };
    case "limit":
      return {
        title: "The model is too large for this graphics card.",
        advice: "A smaller format or another model may fit.",
        remedies: [...smaller, "other-model"],
      };
    case "out-of-memory":
      return {
        title: "The graphics card's memory is full.",
        advice: "Close other tabs and programs that use it, or load the model in a smaller form.",
        remedies: [...smaller, "shorter", again],
      };
    case "device-lost":
      return {
        title: "The graphics card was reset and did not come back.",
        advice: "The chat is safe. Reload the model to go on.",
        remedies: ["reload"],
      };
    case "gpu":
      return {
        title: "The graphics driver refused to compute something.",
        advice: "The plain kernels are slower and ask less of the driver.",
        remedies: ["plain", "copy"],
      };
    case "network":
      return {
        title: "The model could not be downloaded.",
        advice: "What has arrived is kept: the download goes on where it stopped.",
        remedies: [again, "other-model"],
      };
    case "not-found":
      return {
        title: "There is no model at this address.",
        advice: "A model is a folder with config.json, safetensors files and a tokenizer.",
        remedies: ["other-model", again],
      };
    case "integrity":
      return {
        title: "The model's files are damaged.",
        advice: "They are not what their sizes and hashes say.",
        remedies: ["refetch", "other-model"],
      };
    case "quota":
      return {
        title: "The browser's storage is full.",
        advice: "Delete a model that you no longer need, or run this one without keeping it.",
        remedies: ["storage", "without-storage"],
      };
    case "bad-model":
      return {
        title: "This is not a model that Zebra can run.",
        advice:
          "It runs Zebra-Llama, X-EcoMLA, MambaInLlama, Llamba, Minitron and Llama checkpoints, in safetensors files.",
        remedies: ["other-model"],
      };
    case "bad-tokenizer":
      return {
        title: "The model's tokenizer or chat template cannot be used.",
        advice: "Its tokenizer.json or tokenizer_config.json is of a form that is not known here.",
        remedies: ["other-model", "copy"],
      };
    case "bad-request":
      return {
        title: "The model cannot run this request.",
        advice: "A setting or a message is not as it must be.",
        remedies: ["settings", again],
      };
    case "unsupported":
      return {
        title: "This is something that the model's runtime cannot do.",
        advice: "",
        remedies: ["settings", "copy"],
      };
    case "context":
      return {
        title: "The chat is longer than the model can read.",
        advice: "Start a new chat, or make the message shorter: edit it, or delete some of the chat.",
        remedies: ["new-chat"],
      };
    case "aborted":
      return {
        title: "No model is loaded.",
        advice: "Choose one, and ask again.",
        remedies: where === "load" ? ["retry", "other-model"] : ["other-model", again],
      };
    case "worker":
      return {
        title: "The model has stopped running.",
        advice: "The browser ended its worker, most often for want of memory. The chat is safe.",
        remedies: ["reload", ...smaller],
      };
    case "internal":
      return {
        title: "Something went wrong in Zebra itself.",
        advice: "The details help to mend it.",
        remedies: [where === "load" ? "retry" : "reload", "copy"],
      };
  }
}
