// A streamed answer as OpenAI's library gives it.

import { abortError } from "./client.js";
import { ZebraError } from "./errors.js";
import type { Stream } from "./openai.js";

/**
 * Runs `produce` and gives a stream of what it emits. The promise settles with the first chunk, so that a request that
 * cannot be answered rejects it, as a failed HTTP request would.
 */
export function openStream<Chunk>(
  produce: (emit: (chunk: Chunk) => void, signal: AbortSignal) => Promise<void>,
  signal?: AbortSignal | null,
): Promise<Stream<Chunk>> {
  const controller = new AbortController();
  return new Promise((resolve, reject) => {
    let output: ReadableStreamDefaultController<Chunk>;
    const chunks = new ReadableStream<Chunk>({
      start: (stream) => void (output = stream),
      cancel: () => controller.abort(),
    });
    const stream = new ChunkStream(chunks, controller);
    const emit = (chunk: Chunk) => {
      // A reader that has left cancelled the stream; a piece may still have been on its way.
      if (!controller.signal.aborted) {
        output.enqueue(chunk);
      }
      resolve(stream);
    };
    produce(emit, signal ? AbortSignal.any([signal, controller.signal]) : controller.signal).then(
      () => {
        if (!controller.signal.aborted) {
          output.close();
        }
        resolve(stream);
      },
      (error: unknown) => {
        if (!controller.signal.aborted) {
          output.error(signal?.aborted ? abortError(signal) : error);
        }
        // Without effect where the stream was given out before.
        reject(error);
      },
    );
    // Aborting the controller ends the loop without an error. What was not read yet is dropped.
    controller.signal.addEventListener("abort", () => output.error(new Left()), { once: true });
  });
}

/** Marks the end by the reader's own will, which no reader sees. */
class Left {}

class ChunkStream<Chunk> implements Stream<Chunk> {
  readonly controller: AbortController;
  readonly #chunks: ReadableStream<Chunk>;

  constructor(chunks: ReadableStream<Chunk>, controller: AbortController) {
    this.#chunks = chunks;
    this.controller = controller;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Chunk, void, undefined> {
    if (this.#chunks.locked) {
      throw new ZebraError("bad-request", "this stream is being read or was read; an answer is streamed once");
    }
    const reader = this.#chunks.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) {
          return;
        }
        yield value;
      }
    } catch (error) {
      if (!(error instanceof Left)) {
        throw error;
      }
    } finally {
      await reader.cancel().catch(() => {});
    }
  }
}
