// Uses the package's types as a strict project does; only compiled.
import {
  estimate,
  load,
  models,
  ZebraError,
  type ChatCompletion,
  type ChatCompletionChunk,
  type ChatCompletionMessageParam,
  type LoadOptions,
  type Progress,
  type Session,
  type Stream,
} from "zebra-runtime";

const options: LoadOptions = { format: "q4", onProgress: (progress) => print(progress), signal: AbortSignal.timeout(1000) };

function print(progress: Progress): string {
  return progress.phase === "download" ? `${progress.loaded} of ${progress.total}` : progress.phase;
}

export async function use(): Promise<number> {
  const messages: ChatCompletionMessageParam[] = [{ role: "user", content: [{ type: "text", text: "What is a zebra?" }] }];
  const model = await load("owner/name", options);
  const whole: ChatCompletion = await model.chat.completions.create({ messages });
  messages.push(whole.choices[0].message);
  const stream: Stream<ChatCompletionChunk> = await model.chat.completions.create({ messages, stream: true });
  for await (const chunk of stream) {
    const text: string = chunk.choices[0].delta.content ?? "";
    messages.push({ role: "assistant", content: text });
  }
  const session: Session = model.session({ system: "Be short." });
  const said = await session.say("Hello!", { temperature: 0 });
  const snapshot = await session.snapshot();
  await session.restore(snapshot);
  const { fits, why } = await estimate(new URL("https://host/model/"));
  const stored = await models.list();
  await model.dispose();
  if (!fits) {
    throw new ZebraError("limit", why ?? "");
  }
  return said.usage.prompt_tokens_details.cached_tokens + stored.length;
}

export async function misuse(): Promise<void> {
  const model = await load("owner/name");
  // @ts-expect-error: a role that does not exist
  await model.chat.completions.create({ messages: [{ role: "wizard", content: "" }] });
  // @ts-expect-error: a misspelt field
  await model.chat.completions.create({ messages: [], max_token: 5 });
  const answer = await model.completions.create({ prompt: [1, 2, 3] });
  // @ts-expect-error: only streams are iterated
  for await (const _ of answer) {
    return;
  }
}
