#!/usr/bin/env python3
"""MambaInLlama in plain PyTorch (f32): Llama's GQA layers beside Mamba2 layers, or beside Mamba1 layers.

  python tests/golden/mambainllama_ref.py mamba2 tests/fixtures/tiny-mambainllama
  python tests/golden/mambainllama_ref.py mamba1 tests/fixtures/tiny-mambainllama-mamba1

Follows jxiw/MambaInLlama, mamba/ and mamba2/ (paper: arXiv 2408.15237). The Mamba2 layer is zebra_ref.py's. attn_layers
of mamba_config.json says which layers attend. Caches: cache.N.k, cache.N.v [kv_heads, T, head_dim] (k roped); Mamba2
conv [d_inner + 2 d_xb, 4] and ssm [heads, P, N]; Mamba1 conv [d_inner, 4] (the repeated x before the conv, oldest
first, the current one included) and ssm [d_inner, 16]. Checked against the authors' own modules: docs/families.md.
"""
import math, os, sys
import torch, torch.nn.functional as F
import golden
from zebra_ref import mamba2, mlp, rms


def mamba1(w, p, c, x, state):
    """x (B, T, H). state: (conv (B, d_inner, 4), ssm (B, d_inner, N)) or None."""
    B, T, _ = x.shape
    di, dx = c["d_inner"], c["d_xb"]
    N, K = w[p + "A_log"].shape[1], 4
    rep = di // dx
    # A group is N (16) channels, not a head: group g of x and B serves groups g*rep .. g*rep + rep - 1.
    groups = lambda t: t.reshape(B, T, dx // N, N).repeat_interleave(rep, 2)       # (B, T, d_inner / N, N)
    u = F.linear(x, w[p + "in_proj_x.weight"])
    z = F.linear(x, w[p + "in_proj_z.weight"])
    Bs = groups(F.linear(x, w[p + "B_proj.weight"]))           # neither conv nor activation on B and C
    Cs = F.linear(x, w[p + "C_proj.weight"]).reshape(B, T, di // N, N)
    # dt_proj.bias counts twice: once in the linear layer, once as the scan's delta_bias.
    dt = F.linear(F.linear(x, w[p + "dt_proj_down.weight"]), w[p + "dt_proj.weight"], w[p + "dt_proj.bias"])
    dt = F.softplus(dt + w[p + "dt_proj.bias"])
    early = w[p + "conv1d.weight"].shape[0] == di                                  # repeat_kv_before_conv, the default
    u = (groups(u).flatten(2) if early else u).transpose(1, 2)
    conv = torch.zeros(B, u.shape[1], K) if state is None else state[0]
    full = torch.cat((conv, u), -1)
    u = F.silu(F.conv1d(full[..., 1:], w[p + "conv1d.weight"], w[p + "conv1d.bias"], groups=u.shape[1])).transpose(1, 2)
    u = u if early else groups(u).flatten(2)
    A = -torch.exp(w[p + "A_log"])
    S = torch.zeros(B, di, N) if state is None else state[1]
    ys = []
    for t in range(T):
        b, c_ = (v[:, t].repeat_interleave(N, 1) for v in (Bs, Cs))                # channel d uses group d // N
        S = torch.exp(dt[:, t, :, None] * A) * S + (dt[:, t] * u[:, t])[..., None] * b
        ys.append((S * c_).sum(-1) + w[p + "D"] * u[:, t])
    y = torch.stack(ys, 1) * F.silu(z)                                             # no norm
    return F.linear(y, w[p + "out_proj.weight"]), (full[..., -K:], S)


SEEDS = {"mamba2": 3, "mamba1": 1}                  # chosen so that the greedy tokens vary with clear margins


def configs(kind):
    head_dim = 16 if kind == "mamba2" else 32       # Mamba1: two groups of 16 in a head, so that mixing them up shows
    layers, attn = (4, [1, 3]) if kind == "mamba2" else (3, [1])
    llama = {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
             "bos_token_id": 1, "eos_token_id": 2, "head_dim": head_dim, "hidden_act": "silu", "hidden_size": 64,
             "intermediate_size": 96 if kind == "mamba2" else 64, "max_position_embeddings": 131072, "mlp_bias": False,
             "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": layers, "num_key_value_heads": 2,
             "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False,
             "torch_dtype": "bfloat16", "vocab_size": 97,
             "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                              "original_max_position_embeddings": 64, "rope_type": "llama3"}}
    ssm = {"expand": 1, "ngroups": 4, "d_state": head_dim} if kind == "mamba2" else {"expand": 1}
    return llama, {"d_model": 64, "ssm_cfg": ssm, "rms_norm_eps": 1e-5, "vocab_size": None, "d_inner": 4 * head_dim,
                   "d_xb": 2 * head_dim, "intermediate_size": llama["intermediate_size"], "hidden_act": "silu",
                   "n_layer": layers, "attn_layers": attn}


def shapes(llama, c, kind):
    H, I, V = c["d_model"], c["intermediate_size"], llama["vocab_size"]
    di, dx, nh = c["d_inner"], c["d_xb"], llama["num_attention_heads"]
    s = {"model.embed_tokens.weight": (V, H), "model.norm.weight": (H,), "lm_head.weight": (V, H)}
    for i in range(c["n_layer"]):
        p = f"model.layers.{i}."
        s |= {p + "input_layernorm.weight": (H,), p + "post_attention_layernorm.weight": (H,),
              p + "mlp.gate_proj.weight": (I, H), p + "mlp.up_proj.weight": (I, H), p + "mlp.down_proj.weight": (H, I)}
        if i in c["attn_layers"]:
            p += "self_attn."
            s |= {p + "q_proj.weight": (di, H), p + "k_proj.weight": (dx, H), p + "v_proj.weight": (dx, H),
                  p + "o_proj.weight": (H, di)}
        elif kind == "mamba2":
            p += "mamba."
            s |= {p + "in_proj.weight": (2 * di + 2 * dx + nh, H), p + "conv1d.weight": (di + 2 * dx, 1, 4),
                  p + "conv1d.bias": (di + 2 * dx,), p + "dt_bias": (nh,), p + "A_log": (nh,), p + "D": (nh,),
                  p + "norm.weight": (di,), p + "out_proj.weight": (H, di)}
        else:
            p += "mamba."
            rank = math.ceil(H / 16)
            s |= {p + "in_proj_x.weight": (dx, H), p + "in_proj_z.weight": (di, H), p + "conv1d.weight": (di, 1, 4),
                  p + "conv1d.bias": (di,), p + "B_proj.weight": (dx, H), p + "C_proj.weight": (di, H),
                  p + "dt_proj_down.weight": (rank, H), p + "dt_proj.weight": (di, rank), p + "dt_proj.bias": (di,),
                  p + "A_log": (di, 16), p + "D": (di,), p + "out_proj.weight": (H, di)}
    return s


def forward(w, llama, c, ids, cache, trace):
    cache = dict(cache or {"pos": 0})
    pos = torch.arange(ids.shape[1]) + cache["pos"]
    inv = golden.rope_llama3(llama["head_dim"], llama["rope_theta"], llama["rope_scaling"])
    eps = c["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][ids]
    for i in range(c["n_layer"]):
        p = f"model.layers.{i}."
        n = rms(x, w[p + "input_layernorm.weight"], eps)
        if i in c["attn_layers"]:
            y, cache[i] = golden.gqa(w, p + "self_attn.", llama["num_attention_heads"], llama["num_key_value_heads"],
                                     llama["head_dim"], n, pos, inv, cache.get(i))
        else:
            mixer = mamba1 if p + "mamba.B_proj.weight" in w else mamba2
            y, cache[i] = mixer(w, p + "mamba.", c, n, cache.get(i))
        x = x + y
        x = x + mlp(w, p + "mlp.", rms(x, w[p + "post_attention_layernorm.weight"], eps))
        if trace is not None:
            trace |= {f"layer{i}.mixer": y, f"layer{i}.out": x}
    cache["pos"] += ids.shape[1]
    return F.linear(rms(x, w["model.norm.weight"], llama["rms_norm_eps"]), w["lm_head.weight"]), cache


def run(d):
    llama, c, w = golden.read_json(d, "config.json"), golden.read_json(d, "mamba_config.json"), golden.load(d)
    return lambda ids, cache, trace: forward(w, llama, c, ids, cache, trace)


@torch.no_grad()
def main(kind, d):
    llama, c = configs(kind)
    golden.write_json(d, "config.json", llama)
    golden.write_json(d, "mamba_config.json", c)
    w = golden.random_weights(shapes(llama, c, kind), SEEDS[kind])
    for name in w:
        if kind == "mamba1" and name.endswith("mamba.out_proj.weight"):
            w[name] /= 16                            # no norm before it: keeps the layer from drowning the attention
    golden.save(os.path.join(d, "model.safetensors"), {k: v.to(torch.bfloat16) for k, v in w.items()})
    step = run(d)
    names = {i: ("k", "v") if i in c["attn_layers"] else ("conv", "ssm") for i in range(c["n_layer"])}
    tensors = golden.record(step, lambda s: {f"cache.{i}.{n}": t for i, ns in names.items() for n, t in zip(ns, s[i])})
    golden.check(step, tensors)
    golden.save(os.path.join(d, "expected.safetensors"), tensors)


if __name__ == "__main__":
    main(*sys.argv[1:])
