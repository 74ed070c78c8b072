// The tiny checkpoints of tests/fixtures, served: with a tokenizer of words and a chat template, which they lack.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const fixtures = fileURLToPath(new URL("../fixtures", import.meta.url));
const VOCAB = 97;

/** Token i is the word "ti". Roles begin with t90, t91, t92, and messages end with t93. */
const tokenizer = {
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: { type: "Whitespace" },
  post_processor: null,
  decoder: null,
  model: {
    type: "WordLevel",
    vocab: Object.fromEntries(Array.from({ length: VOCAB }, (_, id) => [`t${id}`, id])),
    unk_token: "t0",
  },
};
const template =
  "{% for m in messages %}{{ {'user': 't90', 'assistant': 't91', 'system': 't92'}[m.role] }} {{ m.content }} t93 " +
  "{% endfor %}{% if add_generation_prompt %}t91 {% endif %}";

/** The files of `tests/fixtures/tiny-NAME` by name. Without `chat` they have no chat template, as a base model's. */
export function tinyFiles(name, { chat = true } = {}) {
  const folder = join(fixtures, `tiny-${name}`);
  const own = readdirSync(folder).filter((file) => file !== "expected.safetensors");
  return {
    ...Object.fromEntries(own.map((file) => [file, readFileSync(join(folder, file))])),
    "tokenizer.json": Buffer.from(JSON.stringify(tokenizer)),
    "tokenizer_config.json": Buffer.from(JSON.stringify(chat ? { chat_template: template } : {})),
  };
}

/** Such files with a vocabulary of so many, whose embedding and head are zeros. */
export function withVocabulary(files, rows) {
  const config = { ...JSON.parse(files["config.json"].toString()), vocab_size: rows };
  const bytes = files["model.safetensors"];
  const head = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + head).toString());
  const parts = [];
  let at = 0;
  for (const tensor of Object.values(header).filter((tensor) => tensor.data_offsets)) {
    const [from, to] = tensor.data_offsets;
    let data = bytes.subarray(8 + head + from, 8 + head + to);
    if (tensor.shape[0] === VOCAB) {
      tensor.shape[0] = rows;
      data = Buffer.alloc((data.length / VOCAB) * rows);
    }
    tensor.data_offsets = [at, at + data.length];
    at += data.length;
    parts.push(data);
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const model = Buffer.concat([length, text, ...parts]);
  return { ...files, "config.json": Buffer.from(JSON.stringify(config)), "model.safetensors": model };
}

/** Serves it as `/tiny-NAME/`, or under another path. */
export function serveTiny(server, name, path = `/tiny-${name}/`, options = {}) {
  for (const [file, bytes] of Object.entries(tinyFiles(name, options))) {
    server.files.set(path + file, bytes);
  }
  return server.url + path;
}

/** The prompt of the fixtures and the ids that PyTorch answers with. */
export function tinyExpected(name) {
  const bytes = readFileSync(join(fixtures, `tiny-${name}`, "expected.safetensors"));
  const head = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + head).toString());
  const ids = (tensor) => {
    const [from, to] = header[tensor].data_offsets;
    const data = bytes.subarray(8 + head + from, 8 + head + to);
    return Array.from({ length: data.length / 8 }, (_, i) => Number(data.readBigInt64LE(8 * i)));
  };
  return { prompt: ids("input_ids"), answer: ids("greedy_ids") };
}
