// What a web developer writes: the same lines for every consumer.
import { load } from "zebra-runtime";

const model = await load("/tiny-gqa/", { format: "f32", cache: "f32", kernels: "plain" });
const ids = [];
const prompt = window.prompt_ids;
const request = { prompt, temperature: 0, max_tokens: 8, ignore_eos: true, return_token_ids: true, stream: true };
for await (const chunk of await model.completions.create(request)) {
  ids.push(...chunk.choices[0].token_ids);
}
await model.dispose();
window.ids = ids;
