"""What the scripts of this folder share: random weights, the run that a golden records, and its file.

A golden is 12 prompt tokens, then 8 greedy tokens fed one by one (an end token does not stop it). The names are
the same for every family: input_ids, prefill.logits, layerN.mixer (before the residual is added), layerN.out,
greedy_ids, decodeK.logits (the row after feeding greedy_ids[K]) and cache.N.* after all 20 tokens. All f32, with a
batch axis of 1.
"""
import json, os
import torch

PROMPT = [5, 17, 3, 88, 42, 9, 61, 0, 23, 70, 11, 96]
DECODE = 8


def random_weights(shapes, seed, embedding=1.0):
    """Values of a trained model's order: decays and time steps that matter, norms away from 1, biases away from 0."""
    g = torch.Generator().manual_seed(seed)
    w = {}
    for name, shape in shapes.items():
        r = torch.randn(shape, generator=g)
        last = name.rsplit(".", 2)[-2:]
        if last[-1] == "A_log": w[name] = (torch.rand(shape, generator=g) * 15 + 1).log()
        elif last[-1] == "dt_bias": w[name] = r - 3
        elif last[-1] == "D" or "norm" in name: w[name] = 1 + 0.3 * r
        elif last == ["conv1d", "weight"]: w[name] = 0.5 * r
        elif last[-1] == "bias": w[name] = 0.2 * r
        elif "embed" in name: w[name] = embedding * r
        else: w[name] = r * (1.5 / shape[-1] ** 0.5)
    return w


def rope_llama3(dim, theta, scaling):
    """Inverse frequencies of half-split RoPE: plain, or Llama 3's piecewise rescaling."""
    inv = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    if scaling is None:
        return inv
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * inv / (2 * torch.pi)   # in the original context
    keep = ((turns - low) / (high - low)).clamp(0, 1)                             # 1 = keep, 0 = divide by the factor
    return inv * (keep + (1 - keep) / factor)


def rotate_half(x, pos, inv):
    """Pairs (i, i + d/2) of the last axis rotated by pos * inv[i]. x (..., T, d)."""
    a = pos[:, None].float() * inv
    x0, x1 = x.chunk(2, -1)
    return torch.cat((x0 * a.cos() - x1 * a.sin(), x1 * a.cos() + x0 * a.sin()), -1)


def gqa(w, p, heads, kv_heads, head_dim, x, pos, inv, cache):
    """Llama's attention. cache: (k, v), each (B, kv_heads, S, head_dim) with roped k, or None."""
    B, T, _ = x.shape
    split = lambda name, n: torch.nn.functional.linear(x, w[p + name]).view(B, T, n, head_dim).transpose(1, 2)
    q, k, v = split("q_proj.weight", heads), split("k_proj.weight", kv_heads), split("v_proj.weight", kv_heads)
    q, k = rotate_half(q, pos, inv), rotate_half(k, pos, inv)
    if cache is not None:
        k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
    S = k.shape[2]
    kk, vv = k.repeat_interleave(heads // kv_heads, 1), v.repeat_interleave(heads // kv_heads, 1)
    score = q @ kk.transpose(-1, -2) * head_dim ** -0.5
    score = score.masked_fill(torch.arange(S)[None, :] > pos[:, None], -torch.inf)
    o = (score.softmax(-1) @ vv).transpose(1, 2).reshape(B, T, heads * head_dim)
    return torch.nn.functional.linear(o, w[p + "o_proj.weight"]), (k, v)


def record(step, names):
    """step(ids, cache, trace) -> logits, cache. names(cache) -> {"cache.N.x": tensor}. Returns the golden's tensors."""
    out, trace = {"input_ids": torch.tensor([PROMPT])}, {}
    logits, cache = step(out["input_ids"], None, trace)
    out |= {"prefill.logits": logits} | trace
    greedy = []
    for k in range(DECODE):
        greedy.append(logits[0, -1].argmax().item())
        logits, cache = step(torch.tensor([[greedy[-1]]]), cache, None)
        out[f"decode{k}.logits"] = logits
    out["greedy_ids"] = torch.tensor(greedy)
    return out | names(cache)


def check(step, golden):
    """Prefill equals token by token, and greedy choices have room: no golden is written that does not hold itself."""
    ids = torch.cat((golden["input_ids"][0], golden["greedy_ids"]))[None]
    whole, _ = step(ids, None, None)
    steps = torch.cat([golden["prefill.logits"]] + [golden[f"decode{k}.logits"] for k in range(DECODE)], 1)
    error = (whole - steps).abs().max().item()
    top = steps[0, 11:19].topk(2).values
    margin = (top[:, 0] - top[:, 1]).min().item()
    print(f"logits std {whole.std():.3f}  prefill against decode {error:.1e}  smallest margin {margin:.3f}"
          f"  greedy {golden['greedy_ids'].tolist()}")
    assert error < 1e-4 and margin > 0.05 and len(set(golden["greedy_ids"].tolist())) > 5


def write_json(d, name, value):
    os.makedirs(d, exist_ok=True)
    with open(os.path.join(d, name), "w") as f:
        f.write(json.dumps(value, indent=2) + "\n")


def save(path, tensors):
    from safetensors.torch import save_file
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})


def load(d):
    from safetensors.torch import load_file
    w = {}
    for f in sorted(os.listdir(d)):
        if f.startswith("model") and f.endswith(".safetensors"):
            w |= {k: v.float() for k, v in load_file(os.path.join(d, f)).items()}
    return w


def read_json(d, name):
    with open(os.path.join(d, name)) as f:
        return json.load(f)
