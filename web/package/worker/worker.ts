// The entry of the worker: takes the page's calls, keeps their order, and sends back what comes of them.

import { toErrorData, ZebraError, type ErrorData } from "../errors.js";
import type { Argument, Call, CallName, Event, FromWorker, Result, ToWorker } from "./protocol.js";
import { estimateModel, explainTrap, Runtime } from "./runtime.js";
import { deleteModel, listModels } from "./storage/index.js";

/** What a call has beside its argument. */
interface Context<Name extends CallName> {
  readonly signal: AbortSignal;
  readonly emit: (event: Event<Name>) => void;
}

type Handlers = {
  readonly [Name in CallName]: (argument: Argument<Name>, context: Context<Name>) => Promise<Result<Name>>;
};

let runtime: Runtime | undefined;
const running = new Map<number, AbortController>();
/** Ends when the last call that moves the model's state has ended. */
let turns: Promise<unknown> = Promise.resolve();

function model(): Runtime {
  if (!runtime) {
    throw new ZebraError("internal", "no model is loaded in this worker");
  }
  return runtime;
}

/** The model has one state: what reads or moves it waits for its turn. */
function inTurn<T>(signal: AbortSignal, work: (runtime: Runtime) => Promise<T> | T): Promise<T> {
  const turn = turns.then(() => {
    signal.throwIfAborted();
    return work(model());
  });
  turns = turn.catch(() => {});
  return turn;
}

const handlers: Handlers = {
  async load(argument, { signal, emit }) {
    runtime = await Runtime.load(argument, { signal, onProgress: emit });
    return runtime.info();
  },
  estimate: (argument, { signal }) => estimateModel(argument, { signal, onProgress: () => {} }),
  listModels: () => listModels(),
  async deleteModel(name) {
    await deleteModel(name);
    return null;
  },
  generate: (request, { signal, emit }) => inTurn(signal, (runtime) => runtime.generate(request, signal, emit)),
  tokenize: async ({ text, special }) => model().tokenize(text, special),
  detokenize: async (ids) => model().detokenize(ids),
  encodeChat: (messages, { signal }) => inTurn(signal, (runtime) => runtime.encodeChat(messages)),
  memory: async () => model().memory(),
  takeSnapshot: (state, { signal }) => inTurn(signal, (runtime) => runtime.takeSnapshot(state)),
  restoreSnapshot: (id, { signal }) => inTurn(signal, (runtime) => runtime.restoreSnapshot(id)),
  async dropSnapshot(id) {
    model().dropSnapshot(id);
    return null;
  },
  tokens: (state, { signal }) => inTurn(signal, (runtime) => runtime.tokens(state)),
  async loseDevice() {
    model().loseDevice();
    return null;
  },
};

function post(message: FromWorker): void {
  postMessage(message);
}

async function answer<Name extends CallName>({ id, name, argument }: Call<Name>): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  try {
    const handler: Handlers[Name] = handlers[name];
    const result = await handler(argument, {
      signal: controller.signal,
      emit: (event) => post({ kind: "event", id, event }),
    });
    post({ kind: "result", id, result });
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) {
      await trapped(error);
    } else {
      post({ kind: "error", id, error: toErrorData(error) });
    }
  } finally {
    running.delete(id);
  }
}

/** After a trap the module's memory is in any state: nothing of it may be used again. */
async function trapped(trap: WebAssembly.RuntimeError): Promise<void> {
  die(toErrorData(await explainTrap(trap)));
}

function die(error: ErrorData): void {
  post({ kind: "dead", error });
}

/** What nobody awaits: a trap in one of the module's own tasks, whose promise then never settles. */
function uncaught(error: unknown): void {
  if (error instanceof WebAssembly.RuntimeError) {
    void trapped(error);
  } else {
    die(toErrorData(error));
  }
}

addEventListener("error", (event) => {
  event.preventDefault();
  uncaught(event.error);
});
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  uncaught(event.reason);
});

async function end(): Promise<void> {
  for (const controller of running.values()) {
    controller.abort();
  }
  await turns;
  await runtime?.close();
  close();
}

addEventListener("message", ({ data }: MessageEvent<ToWorker>) => {
  switch (data.kind) {
    case "hello":
      void navigator.locks.request(data.lock, () => {
        post({ kind: "hello" });
        return new Promise(() => {});
      });
      break;
    case "call":
      void answer(data);
      break;
    case "abort":
      running.get(data.id)?.abort();
      break;
    case "close":
      void end();
      break;
  }
});
