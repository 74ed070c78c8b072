#!/usr/bin/env python3
"""Llamba in plain PyTorch (f32): every mixer is a discrete Mamba2 whose decay comes from the input.

  python tests/golden/llamba_ref.py tests/fixtures/tiny-llamba

Follows cartesia-ai/edge, cartesia-pytorch/cartesia_pytorch/Llamba (paper: arXiv 2502.14458). The tiny one has head_dim
16 and d_state 8, and a vocabulary of 97 that is padded to 104 rows. cache.N.conv is [d_inner + 2 heads d_state, 4]
(before the conv, oldest first, the current one included), cache.N.ssm [heads, head_dim, d_state].
Checked against the authors' own modules: docs/families.md.
"""
import os, sys
import torch, torch.nn.functional as F
import golden
from zebra_ref import mlp, rms

CONFIG = {"d_model": 64, "lm_head_bias": False, "model_type": "llamba", "n_layer": 2, "norm_epsilon": 1e-5,
          "mlp_cfg": {"act_fn": "silu", "bias": False, "intermediate_size": 96}, "pad_vocab_size_multiple": 8,
          "resid_dropout": 0.0, "tie_embeddings": False, "vocab_size": 97,
          "ssm_cfg": {"activation": "identity", "bias": False, "chunk_size": 128, "d_state": 8, "expand": 1,
                      "n_qk_heads": 4, "n_v_heads": 4}}

SEED = 1                                            # chosen so that the greedy tokens vary with clear margins


def mixer(w, p, c, x, state):
    """x (B, T, H). state: (conv (B, channels, 4), ssm (B, heads, P, N)) or None."""
    B, T, _ = x.shape
    di, s = c["d_model"] * c["ssm_cfg"]["expand"], c["ssm_cfg"]
    nh, nqk, N = s["n_v_heads"], s["n_qk_heads"], s["d_state"]
    P, channels, K = di // nh, di + 2 * nqk * N, 4
    u, z, A_log = F.linear(x, w[p + "in_proj.weight"]).split([channels, di, nh], -1)
    u = u.transpose(1, 2)
    conv = torch.zeros(B, channels, K) if state is None else state[0]
    full = torch.cat((conv, u), -1)
    u = F.conv1d(full[..., 1:], w[p + "conv1d.weight"], w[p + "conv1d.bias"], groups=channels).transpose(1, 2)
    xs, Bs, Cs = u.split([di, nqk * N, nqk * N], -1)                # no activation after the conv
    heads = lambda t: t.reshape(B, T, nqk, N).repeat_interleave(nh // nqk, 2)
    xs, Bs, Cs = xs.reshape(B, T, nh, P), heads(Bs), heads(Cs)
    decay = torch.exp(-F.softplus(A_log))                           # = sigmoid(-A_log): of the token, no parameter
    S = torch.zeros(B, nh, P, N) if state is None else state[1]
    ys = []
    for t in range(T):
        S = decay[:, t, :, None, None] * S + xs[:, t, :, :, None] * Bs[:, t, :, None, :]     # x is not scaled by a step
        ys.append(torch.einsum("bhpn,bhn->bhp", S, Cs[:, t]) + w[p + "D"][:, None] * xs[:, t])
    y = torch.stack(ys, 1).flatten(2) * F.silu(z + w[p + "z_bias"])                          # no norm
    return F.linear(y, w[p + "out_proj.weight"]), (full[..., -K:], S)


def shapes(c):
    H, I, s = c["d_model"], c["mlp_cfg"]["intermediate_size"], c["ssm_cfg"]
    V = -(-c["vocab_size"] // c["pad_vocab_size_multiple"]) * c["pad_vocab_size_multiple"]
    di, nh = H * s["expand"], s["n_v_heads"]
    channels = di + 2 * s["n_qk_heads"] * s["d_state"]
    t = {"backbone.embedding.weight": (V, H), "backbone.final_layernorm.weight": (H,), "lm_head.weight": (V, H)}
    for i in range(c["n_layer"]):
        p = f"backbone.layers.{i}."
        t |= {p + "input_layernorm.weight": (H,), p + "post_attention_layernorm.weight": (H,),
              p + "mlp.gate_proj.weight": (I, H), p + "mlp.up_proj.weight": (I, H), p + "mlp.down_proj.weight": (H, I),
              p + "mixer.in_proj.weight": (channels + di + nh, H), p + "mixer.z_bias": (di,), p + "mixer.D": (nh,),
              p + "mixer.conv1d.weight": (channels, 1, 4), p + "mixer.conv1d.bias": (channels,),
              p + "mixer.out_proj.weight": (H, di)}
    return t


def forward(w, c, ids, cache, trace):
    cache = dict(cache or {})
    x = w["backbone.embedding.weight"][ids]
    for i in range(c["n_layer"]):
        p = f"backbone.layers.{i}."
        y, cache[i] = mixer(w, p + "mixer.", c, rms(x, w[p + "input_layernorm.weight"], 1e-5), cache.get(i))
        x = x + y            # the layers' eps is 1e-5 in the code; norm_epsilon is the final norm's
        x = x + mlp(w, p + "mlp.", rms(x, w[p + "post_attention_layernorm.weight"], 1e-5))
        if trace is not None:
            trace |= {f"layer{i}.mixer": y, f"layer{i}.out": x}
    x = rms(x, w["backbone.final_layernorm.weight"], c["norm_epsilon"])
    return F.linear(x, w.get("lm_head.weight", w["backbone.embedding.weight"])), cache


def run(d):
    c, w = golden.read_json(d, "config.json"), golden.load(d)
    return lambda ids, cache, trace: forward(w, c, ids, cache, trace)


@torch.no_grad()
def main(d):
    golden.write_json(d, "config.json", CONFIG)
    w = golden.random_weights(shapes(CONFIG), SEED)
    for name in w:
        if name.endswith("z_bias"):
            w[name] *= 2
        if name.endswith("out_proj.weight"):
            w[name] /= 6                                                     # no norm before it
        if name.endswith("in_proj.weight"):
            w[name][-CONFIG["ssm_cfg"]["n_v_heads"]:] *= 1.5                 # decays from near 0 to near 1
    golden.save(os.path.join(d, "model.safetensors"), w)
    step = run(d)
    tensors = golden.record(step, lambda s: {f"cache.{i}.{n}": t for i in s for n, t in zip(("conv", "ssm"), s[i])})
    golden.check(step, tensors)
    assert max(tensors["greedy_ids"].tolist()) < CONFIG["vocab_size"]        # no padding row was chosen
    golden.save(os.path.join(d, "expected.safetensors"), tensors)


if __name__ == "__main__":
    main(*sys.argv[1:])
