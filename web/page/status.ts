// What is told quietly: the memory in use, and what screen readers hear.

import type { Model } from "zebra-runtime";
import { byId, h } from "./dom";
import { bytes } from "./words";

/** Tells screen readers, one thing at a time. */
export function announce(text: string): void {
  const live = byId("live", HTMLElement);
  live.append(h("p", {}, text));
  while (live.childElementCount > 5) {
    live.firstElementChild?.remove();
  }
}

/** GPU memory and the size of the cache. */
export async function showMemory(model: Model | null): Promise<void> {
  const target = byId("memory", HTMLElement);
  if (!model) {
    target.replaceChildren();
    return;
  }
  try {
    const { gpu } = await model.memory();
    const { info } = model;
    const cache = gpu.latents + gpu.states;
    const share = info.cachePercentOfBase.toFixed(info.cachePercentOfBase < 10 ? 1 : 0);
    target.replaceChildren(
      h("span", {}, `GPU ${bytes(gpu.total)}`),
      h(
        "span",
        { title: `${bytes(info.cacheBytesPerToken)} a token, beside the base Transformer's cache in f16` },
        `cache ${bytes(cache)}, ${share} % of a Transformer's`,
      ),
      // Said here, too, as a chat that is open hides the words of an empty one.
      ...(info.chat ? [] : [h("span", {}, "base model: goes on with your text")]),
    );
  } catch {
    // A model that was disposed of meanwhile uses none.
    target.replaceChildren();
  }
}
