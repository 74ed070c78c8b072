// The page's end of a worker: starts it, sends calls, and notices its death.

import { fromErrorData, ZebraError } from "./errors.js";
import type { Argument, Call, CallName, Event, FromWorker, Result, ToWorker } from "./worker/protocol.js";

/** How long a worker may take to free what it holds before it is ended all the same. */
const CLOSE_MS = 2000;

interface Pending {
  event(event: unknown): void;
  resolve(result: unknown): void;
  reject(error: ZebraError): void;
}

export interface CallOptions<Name extends CallName> {
  readonly signal?: AbortSignal | null | undefined;
  readonly onEvent?: (event: Event<Name>) => void;
}

/** One worker. */
export class Client {
  readonly #worker = startWorker();
  /** A Web Lock that the worker holds while it lives: a worker that is killed says nothing. */
  readonly #lock = `zebra-runtime:${crypto.randomUUID()}`;
  readonly #pending = new Map<number, Pending>();
  /** Called when the worker has ended, by whatever cause. */
  #onGone = () => this.#end(new ZebraError("worker", "the worker was ended; load the model again"));
  #nextId = 0;
  #ended: ZebraError | undefined;
  #closing: Promise<void> | undefined;

  constructor() {
    this.#worker.addEventListener("message", ({ data }: MessageEvent<FromWorker>) => this.#receive(data));
    this.#worker.addEventListener("messageerror", () => {
      this.#end(new ZebraError("worker", "a message of the worker could not be read; load the model again"));
    });
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      // What a script throws comes with a text; a script that does not load gives none.
      const message = event.message
        ? `the worker stopped: ${event.message}; load the model again`
        : "the worker's script could not be loaded; worker.js must be served as JavaScript beside index.js (bundlers " +
          "see to it), and a Content-Security-Policy must allow it (worker-src)";
      this.#end(new ZebraError("worker", message));
    });
    this.#post({ kind: "hello", lock: this.#lock });
  }

  /** Rejects with a {@link ZebraError}, and at once when the signal fires. */
  call<Name extends CallName>(
    name: Name,
    argument: Argument<Name>,
    { signal, onEvent }: CallOptions<Name> = {},
  ): Promise<Result<Name>> {
    if (this.#ended) {
      return Promise.reject(this.#ended);
    }
    if (signal?.aborted) {
      return Promise.reject(abortError(signal));
    }
    const id = this.#nextId++;
    return new Promise<Result<Name>>((resolve, reject) => {
      const onAbort = () => {
        this.#take(id)?.reject(abortError(signal));
        this.#post({ kind: "abort", id });
      };
      const settled = () => signal?.removeEventListener("abort", onAbort);
      this.#pending.set(id, {
        event: (event) => onEvent?.(event as Event<Name>),
        resolve: (result) => (settled(), resolve(result as Result<Name>)),
        reject: (error) => (settled(), reject(error)),
      });
      signal?.addEventListener("abort", onAbort, { once: true });
      const call: Call<Name> = { kind: "call", id, name, argument };
      this.#post(call);
    });
  }

  /** Lets the worker free what it holds, and ends it. What is pending rejects with the code `aborted`. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (!this.#ended) {
      this.#post({ kind: "close" });
      this.#reject(new ZebraError("aborted", "the model was disposed of; load it again to use it"));
      await new Promise<void>((resolve) => {
        this.#onGone = resolve;
        setTimeout(resolve, CLOSE_MS);
      });
    }
    this.#worker.terminate();
  }

  #receive(message: FromWorker): void {
    switch (message.kind) {
      case "hello":
        // Granted when the worker has let go of it, which it does by its end, whatever that was.
        void navigator.locks.request(this.#lock, () => this.#onGone());
        break;
      case "event":
        this.#pending.get(message.id)?.event(message.event);
        break;
      case "result":
        this.#take(message.id)?.resolve(message.result);
        break;
      case "error":
        this.#take(message.id)?.reject(fromErrorData(message.error));
        break;
      case "dead":
        this.#end(fromErrorData(message.error));
        break;
    }
  }

  /** A call that is still waiting; nothing where it was aborted meanwhile. */
  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  #end(error: ZebraError): void {
    this.#reject(error);
    this.#worker.terminate();
  }

  /** Rejects what waits, and all later calls with the same. */
  #reject(error: ZebraError): void {
    this.#ended ??= error;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of pending) {
      reject(this.#ended);
    }
  }

  #post<Name extends CallName>(message: ToWorker<Name>): void {
    this.#worker.postMessage(message);
  }
}

/** The error of a signal that fired. */
export function abortError(signal: AbortSignal | null | undefined): ZebraError {
  return new ZebraError("aborted", "stopped by the caller's signal", {}, { cause: signal?.reason });
}

function startWorker(): Worker {
  try {
    return newWorker();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ZebraError("worker", `the worker could not be started: ${reason}`, {}, { cause: error });
  }
}

function newWorker(): Worker {
  try {
    // Bundlers find the worker by exactly this form.
    return new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  } catch (error) {
    if (!(error instanceof DOMException && error.name === "SecurityError")) {
      throw error;
    }
    // The package comes from another origin, such as a CDN. A worker has to be of the page's own, but may import.
    // A variable keeps bundlers from copying the script as an asset, which would not find its wasm file.
    const here = import.meta.url;
    const bootstrap = `import ${JSON.stringify(new URL("worker.js", here).href)};`;
    const url = URL.createObjectURL(new Blob([bootstrap], { type: "text/javascript" }));
    const worker = new Worker(url, { type: "module" });
    // Revoking it before the worker has fetched it would fail.
    worker.addEventListener("message", () => URL.revokeObjectURL(url), { once: true });
    return worker;
  }
}
