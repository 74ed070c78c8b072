#!/usr/bin/env python3
"""Llama and Minitron by Hugging Face transformers: LlamaForCausalLM, NemotronForCausalLM (eager attention, f32).

  python tests/golden/hf_ref.py llama tests/fixtures/tiny-llama
  python tests/golden/hf_ref.py llama-untied tests/fixtures/tiny-llama-untied
  python tests/golden/hf_ref.py minitron tests/fixtures/tiny-minitron

Writes a tiny random checkpoint with its config.json, and expected.safetensors (see golden.py). Nothing of the model is
computed here: forward hooks take layerN.*, cache.N.k and cache.N.v (k after RoPE) come from transformers' cache.
Made with transformers 5.24.0 and torch 2.15.0.
"""
import os, sys
import torch
from transformers import AutoConfig, AutoModelForCausalLM
import golden

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False,
         "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": [2, 4], "hidden_act": "silu",
         "hidden_size": 64, "initializer_range": 0.02,
         "intermediate_size": 96, "max_position_embeddings": 2048, "mlp_bias": False, "num_attention_heads": 4,
         "num_hidden_layers": 3, "pretraining_tp": 1, "rms_norm_eps": 1e-5, "use_cache": True, "vocab_size": 97}
# An eps of 0.01 is no released one: it is large enough that a reader which ignores it is seen.
CONFIGS = {
    # As Llama-3.2-1B writes it. With 64 original positions the second of 8 frequencies is blended and six are divided.
    "llama": LLAMA | {"head_dim": 16, "num_key_value_heads": 2, "rope_theta": 500000.0, "tie_word_embeddings": True,
                      "torch_dtype": "float32",
                      "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                                       "original_max_position_embeddings": 64, "rope_type": "llama3"}},
    # As transformers 5 writes it: rope_parameters for rope_theta and rope_scaling, dtype for torch_dtype; no head_dim.
    "llama-untied": LLAMA | {"num_key_value_heads": 4, "rms_norm_eps": 0.01, "eos_token_id": 2, "dtype": "float32",
                             "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
                             "tie_word_embeddings": False},
    # As Minitron-8B: heads * head_dim is 1.5 hidden sizes. Half of each head turns.
    "minitron": {"architectures": ["NemotronForCausalLM"], "model_type": "nemotron", "attention_bias": False,
                 "attention_dropout": 0.0, "bos_token_id": 2, "eos_token_id": 3, "head_dim": 16, "hidden_act": "relu2",
                 "hidden_size": 64, "initializer_range": 0.0134, "intermediate_size": 96,
                 "max_position_embeddings": 4096, "mlp_bias": False, "norm_eps": 0.01, "num_attention_heads": 6,
                 "num_hidden_layers": 3,
                 "num_key_value_heads": 2, "partial_rotary_factor": 0.5, "rope_theta": 10000.0,
                 "tie_word_embeddings": False, "torch_dtype": "float32", "use_cache": True, "vocab_size": 97}}


SEEDS = {"llama": 7, "llama-untied": 8, "minitron": 7}     # chosen so that the greedy tokens vary with clear margins


def randomise(model, kind, seed):
    g = torch.Generator().manual_seed(seed)
    one_plus, tied = kind == "minitron", kind == "llama"
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=g)
            if "norm" in name and name.endswith("weight"):
                p.copy_(0.3 * r + (0 if one_plus else 1))
            elif "norm" in name:
                p.copy_(0.2 * r)
            else:
                p.copy_(r * (0.2 if tied else 1.0) if "embed_tokens" in name else r * (1.5 / p.shape[-1] ** 0.5))


def step(model, ids, cache, trace):
    hooks = []
    if trace is not None:
        first = lambda out: out[0] if isinstance(out, tuple) else out
        for i, layer in enumerate(model.model.layers):
            keep = lambda key: lambda module, args, out: trace.__setitem__(key, first(out))
            hooks += [layer.self_attn.register_forward_hook(keep(f"layer{i}.mixer")),
                      layer.register_forward_hook(keep(f"layer{i}.out"))]
    out = model(ids, past_key_values=cache, use_cache=True)
    for h in hooks:
        h.remove()
    return out.logits, out.past_key_values


@torch.no_grad()
def main(kind, d):
    golden.write_json(d, "config.json", CONFIGS[kind])
    config = AutoConfig.from_pretrained(d)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    randomise(model, kind, SEEDS[kind])
    untied = kind == "llama-untied"
    model.save_pretrained(d, max_shard_size="260KB" if untied else "5GB")
    golden.write_json(d, "config.json", CONFIGS[kind])           # in the released form, not as this version rewrites it
    if os.path.exists(os.path.join(d, "generation_config.json")):
        os.remove(os.path.join(d, "generation_config.json"))
    model = AutoModelForCausalLM.from_pretrained(d, attn_implementation="eager", dtype=torch.float32).eval()
    run = lambda ids, cache, trace: step(model, ids, cache, trace)
    caches = lambda c: {f"cache.{i}.{n}": getattr(l, m) for i, l in enumerate(c.layers)
                        for n, m in (("k", "keys"), ("v", "values"))}
    tensors = golden.record(run, caches)
    golden.check(run, tensors)
    golden.save(os.path.join(d, "expected.safetensors"), tensors)


main(*sys.argv[1:])
