// Where models come from and where they are kept: what the worker uses of it.

export { createStored, openModel, type OpenModel, type OpenOptions } from "./open.js";
export { deleteModel, listModels } from "./store.js";
