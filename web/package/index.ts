// The public surface of the package.

export { estimate, load, models } from "./load.js";
export { ZebraError } from "./errors.js";
export type { ZebraErrorCode, ZebraErrorDetails } from "./errors.js";
export type * from "./api.js";
export type * from "./openai.js";
export type * from "./types.js";
