// The one error class of the package. It keeps its code and fields on the way from the worker to the page.

/**
 * The stable short name of what went wrong.
 *
 * | code | means |
 * |---|---|
 * | `no-webgpu` | the browser or the machine offers no WebGPU adapter |
 * | `limit` | the model exceeds a limit of the adapter |
 * | `out-of-memory` | GPU or host memory ran out |
 * | `device-lost` | the GPU was lost and could not be brought back |
 * | `gpu` | the GPU API refused something of ours, or computed nonsense: a defect to report |
 * | `network` | a server did not answer, answered with an error, or refused this origin (CORS) |
 * | `not-found` | a file that the model needs is not there |
 * | `integrity` | bytes that are not what they should be: a truncated or damaged file |
 * | `quota` | the browser's storage is full |
 * | `bad-model` | files that are not a supported checkpoint |
 * | `bad-tokenizer` | a tokenizer or chat template that cannot be used |
 * | `bad-request` | messages or options that cannot be run |
 * | `unsupported` | an option of OpenAI's API that this runtime does not have |
 * | `context` | more tokens than the context holds |
 * | `aborted` | an AbortSignal or `dispose()` ended it |
 * | `worker` | the worker died or could not be started |
 * | `internal` | anything else: a defect to report |
 */
export type ZebraErrorCode =
  | "no-webgpu"
  | "limit"
  | "out-of-memory"
  | "device-lost"
  | "gpu"
  | "network"
  | "not-found"
  | "integrity"
  | "quota"
  | "bad-model"
  | "bad-tokenizer"
  | "bad-request"
  | "unsupported"
  | "context"
  | "aborted"
  | "worker"
  | "internal";

/** What an error tells beside its message: the file, the status, bytes needed and there, by name. */
export type ZebraErrorDetails = Readonly<Record<string, string | number | boolean | null>>;

/** An error of this package: `code` for programs, `message` for people (what happened and what to do). */
export class ZebraError extends Error {
  override readonly name: string = "ZebraError";
  readonly code: ZebraErrorCode;
  readonly details: ZebraErrorDetails;

  constructor(code: ZebraErrorCode, message: string, details: ZebraErrorDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.details = details;
  }
}

/** A {@link ZebraError} as plain data, for `postMessage`. */
export interface ErrorData {
  readonly code: ZebraErrorCode;
  readonly message: string;
  readonly details: ZebraErrorDetails;
}

/** Any thrown value as plain data. */
export function toErrorData(thrown: unknown): ErrorData {
  if (thrown instanceof ZebraError) {
    return { code: thrown.code, message: thrown.message, details: thrown.details };
  }
  if (thrown instanceof DOMException && thrown.name === "AbortError") {
    return { code: "aborted", message: "stopped", details: {} };
  }
  if (isErrorData(thrown)) {
    return thrown;
  }
  const message = thrown instanceof Error ? `${thrown.name}: ${thrown.message}` : String(thrown);
  return { code: "internal", message, details: {} };
}

/** The wasm module throws its errors in this form already. */
function isErrorData(thrown: unknown): thrown is ErrorData {
  return typeof thrown === "object" && thrown !== null && "code" in thrown && "message" in thrown && "details" in thrown;
}

/** The error that {@link toErrorData} took apart. */
export function fromErrorData(data: ErrorData): ZebraError {
  return new ZebraError(data.code, data.message, data.details);
}
