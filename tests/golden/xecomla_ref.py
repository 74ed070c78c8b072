#!/usr/bin/env python3
"""X-EcoMLA in plain PyTorch (f32): every layer is the MLA of zebra_ref.py, with all heads in kv_b_proj.

  python tests/golden/xecomla_ref.py fixed tests/fixtures/tiny-xecomla-fixed        # or dynamic, smollm

Follows AMD-AGI/AMD-Hybrid-Models, X-EcoMLA/mla (paper: arXiv 2503.11132). What is new here is only the configuration:
MLA_config.json and mla_layer_config.json instead of hybrid_config.json, ranks per layer, YaRN with the default of 4096
original positions, and (smollm) no YaRN at all. cache.N.latent is [rows, kv rank + rope], k_pe in interleaved pairs.
Checked against AMD's own modules: docs/families.md.
"""
import os, sys
import torch, torch.nn.functional as F
import golden
from zebra_ref import mla, mlp, rms

# DeepseekV3Config's defaults, for the keys that mla_layer_config.json leaves out. The tensors decide ranks and norms.
DEFAULTS = {"qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "rope_theta": 10000.0,
            "rope_scaling": None, "rope_type": "yarn", "num_attention_heads": 128}
YARN = {"beta_fast": 32, "beta_slow": 1, "factor": 32.0, "mscale": 1.0, "mscale_all_dim": 0.0, "type": "yarn"}
SEEDS = {"fixed": 1, "dynamic": 1, "smollm": 2}     # chosen so that the greedy tokens vary with clear margins
RANKS = {"fixed": [(24, 16)] * 3, "dynamic": [(32, 24), (16, 8), (24, 16)], "smollm": [(24, 16)] * 3}


def configs(kind):
    """config.json, MLA_config.json, mla_layer_config.json: fixed in full, the others without keys at their defaults."""
    small = kind == "smollm"
    llama = {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
             "bos_token_id": 1, "eos_token_id": 2, "head_dim": 16, "hidden_act": "silu", "hidden_size": 64,
             "intermediate_size": 96,
             "max_position_embeddings": 2048 if small else 131072, "mlp_bias": False, "model_type": "llama",
             "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 4 if small else 2,
             "rms_norm_eps": 0.05 if kind == "fixed" else 1e-5,
             "rope_theta": 10000.0 if small else 500000.0, "tie_word_embeddings": True, "torch_dtype": "float32",
             "vocab_size": 97,
             "rope_scaling": None if small else {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                                                 "original_max_position_embeddings": 8192, "rope_type": "llama3"}}
    # fixed: eps that no release has, so that a reader which takes the wrong file's is seen. config.json's is the final
    # norm's, MLA_config.json's the layers', mla_layer_config.json's nobody's.
    outer = {"d_model": 64, "rms_norm_eps": 0.01 if kind == "fixed" else 1e-5, "vocab_size": None, "d_inner": 64,
             "d_xb": 16 * llama["num_key_value_heads"], "intermediate_size": 96, "hidden_act": "silu", "n_layer": 3,
             "attn_layers": []}
    # kv_lora_rank and q_lora_rank are the last layer's: AMD's loop overwrites the shared config.
    inner = {"hidden_size": 64, "intermediate_size": 96, "kv_lora_rank": RANKS[kind][-1][1],
             "model_type": "deepseek_v3", "llama_num_key_value_heads": llama["num_key_value_heads"],
             "num_attention_heads": 4,
             "q_lora_rank": RANKS[kind][-1][0], "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
             "transformers_version": "4.43.1", "v_head_dim": 16}
    if not small:
        inner |= {"rope_scaling": YARN, "rope_theta": 500000.0, "q_energy_ratio": 0.95 if kind == "dynamic" else None,
                  "layer_rank_list": {str(i): {"q_rank": q, "kv_rank": kv} for i, (q, kv) in enumerate(RANKS[kind])}}
    if kind == "fixed":
        # As the file is really written: the class's own keys all appear, with values that mean nothing to this model.
        inner |= {"aux_loss_alpha": 0.001, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0,
                  "ep_size": 1, "eos_token_id": 1, "first_k_dense_replace": 3, "hidden_act": "silu",
                  "initializer_range": 0.02,
                  "kv_energy_ratio": None, "kv_svd_norm": 2.0, "max_position_embeddings": 131072,
                  "mla_num_key_value_heads": 16, "n_group": 8, "norm_topk_prob": True, "num_hidden_layers": 61,
                  "num_nextn_predict_layers": 1, "pretraining_tp": 1, "q_svd_norm": 2.0, "qkv_rank_divisor": 8,
                  "rms_norm_eps": 1e-6, "rope_type": "yarn", "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
                  "seq_aux": True, "tie_word_embeddings": False, "topk_group": 4, "topk_method": "noaux_tc",
                  "use_cache": True, "use_fixed_rank_for_first_and_last_block": False, "use_lora_layer_norm": False,
                  "vocab_size": 129280}
    return llama, outer, dict(sorted(inner.items()))


def shapes(llama, outer, inner, kind):
    H, I, V, nh = outer["d_model"], outer["intermediate_size"], llama["vocab_size"], inner["num_attention_heads"]
    nope, rope, v = inner["qk_nope_head_dim"], inner["qk_rope_head_dim"], inner["v_head_dim"]
    s = {"model.embed_tokens.weight": (V, H), "model.norm.weight": (H,), "lm_head.weight": (V, H)}
    for i, (rq, r) in enumerate(RANKS[kind]):
        p = f"model.layers.{i}."
        s |= {p + "input_layernorm.weight": (H,), p + "post_attention_layernorm.weight": (H,),
              p + "mlp.gate_proj.weight": (I, H), p + "mlp.up_proj.weight": (I, H), p + "mlp.down_proj.weight": (H, I),
              p + "mla.q_a_proj.weight": (rq, H), p + "mla.q_b_proj.weight": (nh * (nope + rope), rq),
              p + "mla.kv_a_proj_with_mqa.weight": (r + rope, H), p + "mla.kv_b_proj.weight": (nh * (nope + v), r),
              p + "mla.out_proj.weight": (H, nh * v)}
    return s


def forward(w, llama, outer, inner, ids, cache, trace):
    cache = dict(cache or {"pos": 0})
    pos = torch.arange(ids.shape[1]) + cache["pos"]
    x = w["model.embed_tokens.weight"][ids]
    for i in range(outer["n_layer"]):
        p = f"model.layers.{i}."
        y, cache[i] = mla(w, p + "mla.", inner, rms(x, w[p + "input_layernorm.weight"], outer["rms_norm_eps"]), pos,
                          cache.get(i), False)
        x = x + y
        x = x + mlp(w, p + "mlp.", rms(x, w[p + "post_attention_layernorm.weight"], outer["rms_norm_eps"]))
        if trace is not None:
            trace |= {f"layer{i}.mixer": y, f"layer{i}.out": x}
    cache["pos"] += ids.shape[1]
    x = rms(x, w["model.norm.weight"], llama["rms_norm_eps"])
    return F.linear(x, w.get("lm_head.weight", w["model.embed_tokens.weight"])), cache


def run(d):
    """The checkpoint of a folder as golden.record wants it."""
    llama, outer = golden.read_json(d, "config.json"), golden.read_json(d, "MLA_config.json")
    inner, w = DEFAULTS | golden.read_json(d, "mla_layer_config.json"), golden.load(d)
    return lambda ids, cache, trace: forward(w, llama, outer, inner, ids, cache, trace)


@torch.no_grad()
def main(kind, d):
    llama, outer, inner = configs(kind)
    for name, c in (("config.json", llama), ("MLA_config.json", outer), ("mla_layer_config.json", inner)):
        golden.write_json(d, name, c)
    w = golden.random_weights(shapes(llama, outer, inner, kind), SEEDS[kind])
    golden.save(os.path.join(d, "model.safetensors"), w)
    step = run(d)
    tensors = golden.record(step, lambda c: {f"cache.{i}.latent": c[i] for i in range(outer["n_layer"])})
    golden.check(step, tensors)
    golden.save(os.path.join(d, "expected.safetensors"), tensors)


if __name__ == "__main__":
    main(*sys.argv[1:])
