// One answer of the worker, whole or streamed.

import type { Client } from "./client.js";
import type { RequestOptions, Stream } from "./openai.js";
import type { Checked } from "./request.js";
import type { Shape } from "./response.js";
import { openStream } from "./stream.js";
import type { Progress } from "./types.js";
import type { Answer, Piece } from "./worker/protocol.js";

/** What answers: a loaded model's worker. */
export interface Engine {
  readonly client: Client;
  readonly name: string;
  readonly onProgress: (progress: Progress) => void;
}

/** Sends the request. `onAnswer` sees the answer before the caller does. */
export async function answer<Whole, Chunk>(
  { client, onProgress }: Engine,
  { generate, stream }: Checked,
  shape: Shape<Whole, Chunk>,
  { signal }: RequestOptions,
  onAnswer?: (answer: Answer) => void,
): Promise<Whole | Stream<Chunk>> {
  const ask = async (onPiece: (piece: Piece) => void, signal: AbortSignal | null | undefined) => {
    const answer = await client.call("generate", generate, {
      signal,
      onEvent: (event) => ("piece" in event ? onPiece(event.piece) : onProgress(event.progress)),
    });
    onAnswer?.(answer);
    return answer;
  };
  if (!stream) {
    const pieces: Piece[] = [];
    const answer = await ask((piece) => pieces.push(piece), signal);
    return shape.whole(answer, pieces);
  }
  return openStream<Chunk>(async (emit, signal) => {
    let begun = false;
    const begin = () => {
      const first = begun ? undefined : shape.first();
      begun = true;
      if (first) {
        emit(first);
      }
    };
    const answer = await ask((piece) => {
      begin();
      emit(shape.piece(piece));
    }, signal);
    begin();
    emit(shape.last(answer));
  }, signal);
}
