// One model at a time: its estimate, its loading, and waiting for it.

import { estimate, load, ZebraError, type Estimate, type LoadOptions, type Model, type Progress } from "zebra-runtime";
import type { ModelChoice } from "./settings";

/** Downloads below this start without asking. */
const ASK_FROM = 100e6;

/** What goes on beside the model that is there, if one is. */
export type Activity =
  | { readonly kind: "idle" }
  | { readonly kind: "estimating"; readonly choice: ModelChoice }
  /** Waits for the person: the download is large, or the model will not fit. */
  | { readonly kind: "asking"; readonly choice: ModelChoice; readonly estimate: Estimate }
  | {
      readonly kind: "loading";
      readonly choice: ModelChoice;
      /** The latest of each phase: some run side by side. */
      readonly progress: Partial<Record<Progress["phase"], Progress>>;
    }
  | { readonly kind: "recovering" }
  | { readonly kind: "cancelled"; readonly choice: ModelChoice }
  | { readonly kind: "failed"; readonly choice: ModelChoice; readonly error: ZebraError };

export class ModelLoader {
  #activity: Activity = { kind: "idle" };
  #model: Model | null = null;
  #choice: ModelChoice | null = null;
  #abort = new AbortController();
  readonly #changed: () => void;
  #waiting: { resolve: (model: Model) => void; reject: (error: ZebraError) => void }[] = [];

  constructor(changed: () => void) {
    this.#changed = changed;
  }

  get activity(): Activity {
    return this.#activity;
  }

  get model(): Model | null {
    return this.#model;
  }

  /** What the model that is there was loaded from. */
  get choice(): ModelChoice | null {
    return this.#choice;
  }

  /** Estimates and loads; asks first when the download is large or will not fit. */
  async open(choice: ModelChoice): Promise<void> {
    const { signal } = this.#begin();
    this.#become({ kind: "estimating", choice });
    try {
      const expected = await estimate(sourceOf(choice), optionsOf(choice, signal));
      if (signal.aborted) {
        return;
      }
      if (!expected.fits || expected.download.missing >= ASK_FROM) {
        this.#become({ kind: "asking", choice, estimate: expected });
        return;
      }
    } catch (error) {
      this.#failed(choice, error, signal);
      return;
    }
    await this.load(choice);
  }

  /** Loads without asking. The model that was there is freed first: there may not be room for both. */
  async load(choice: ModelChoice): Promise<void> {
    const { signal } = this.#begin();
    let progress: Partial<Record<Progress["phase"], Progress>> = {};
    this.#become({ kind: "loading", choice, progress });
    try {
      await this.dispose();
      const model = await load(sourceOf(choice), {
        ...optionsOf(choice, signal),
        onProgress: (event) => {
          if (signal.aborted) {
            return;
          }
          if (event.phase === "recovering") {
            this.#become({ kind: "recovering" });
          } else if (this.#activity.kind === "loading") {
            progress = { ...progress, [event.phase]: event };
            this.#become({ kind: "loading", choice, progress });
          }
        },
      });
      if (signal.aborted) {
        await model.dispose();
        return;
      }
      this.#model = model;
      this.#choice = choice;
      this.#become({ kind: "idle" });
      for (const { resolve } of this.#waiting.splice(0)) {
        resolve(model);
      }
    } catch (error) {
      this.#failed(choice, error, signal);
    }
  }

  /** Ends what goes on; a model that is there stays. */
  cancel(): void {
    const { activity } = this;
    this.#abort.abort();
    if (this.#model) {
      this.#become({ kind: "idle" });
    } else if ("choice" in activity) {
      this.#become({ kind: "cancelled", choice: activity.choice });
    }
    this.#refuse(new ZebraError("aborted", "Loading the model was cancelled."));
  }

  /** The model as soon as it is there. */
  async ready(signal: AbortSignal): Promise<Model> {
    if (this.#model && this.#activity.kind !== "loading") {
      return this.#model;
    }
    if (this.#activity.kind === "failed") {
      throw this.#activity.error;
    }
    if (this.#activity.kind === "idle" || this.#activity.kind === "cancelled") {
      throw new ZebraError("aborted", "No model is loaded.");
    }
    return new Promise((resolve, reject) => {
      const waiter = { resolve, reject };
      this.#waiting.push(waiter);
      signal.addEventListener("abort", () => {
        this.#waiting = this.#waiting.filter((other) => other !== waiter);
        reject(new ZebraError("aborted", "Stopped."));
      });
    });
  }

  /** An answer goes on again after the GPU was lost. */
  recovered(): void {
    if (this.#activity.kind === "recovering") {
      this.#become({ kind: "idle" });
    }
  }

  /** The worker or the GPU is gone for good; what is left is freed. */
  async died(error: ZebraError): Promise<void> {
    const choice = this.#choice;
    await this.dispose();
    if (choice) {
      this.#become({ kind: "failed", choice, error });
    }
  }

  async dispose(): Promise<void> {
    const model = this.#model;
    this.#model = null;
    this.#choice = null;
    // A worker that died cannot answer that it did.
    await model?.dispose().catch(() => undefined);
  }

  #begin(): AbortController {
    this.#abort.abort();
    this.#abort = new AbortController();
    return this.#abort;
  }

  #failed(choice: ModelChoice, thrown: unknown, signal: AbortSignal): void {
    if (signal.aborted) {
      return;
    }
    const error = asZebraError(thrown);
    this.#become({ kind: "failed", choice, error });
    this.#refuse(error);
  }

  #refuse(error: ZebraError): void {
    for (const { reject } of this.#waiting.splice(0)) {
      reject(error);
    }
  }

  #become(activity: Activity): void {
    this.#activity = activity;
    this.#changed();
  }
}

/** The package throws only its own errors; anything else is a defect, and shown as one. */
export function asZebraError(thrown: unknown): ZebraError {
  if (thrown instanceof ZebraError) {
    return thrown;
  }
  return new ZebraError("internal", thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown));
}

function sourceOf({ source }: ModelChoice): string | File[] {
  return typeof source === "string" ? source : [...source];
}

function optionsOf(
  { format, context, revision, token, kernels, store }: ModelChoice,
  signal: AbortSignal,
): LoadOptions {
  return {
    signal,
    ...(format ? { format } : {}),
    ...(context ? { context } : {}),
    ...(revision ? { revision } : {}),
    ...(token ? { headers: { Authorization: `Bearer ${token}` } } : {}),
    ...(kernels ? { kernels } : {}),
    ...(store ? { store } : {}),
  };
}
