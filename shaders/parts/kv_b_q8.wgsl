// kv_b_proj as int8 with scales, beside another matrix: laid out as parts/weight_q8.wgsl reads it.

@group(0) @binding(12) var<storage, read> kv_b_words: array<u32>;
@group(0) @binding(13) var<storage, read> kv_b_scales: array<u32>; // f16 [n, k / 32], two to a u32

// As they are loaded: a computation would wait for them.
struct KvQuad {
    codes: u32,
    scales: u32,
    shift: u32,
}

// The four weights that start at 4 * quad, rows being whole groups of 32; `kv_b_values` makes numbers of them.
fn kv_b_at(quad: u32) -> KvQuad { return KvQuad(kv_b_words[quad], kv_b_scales[quad >> 4u], (quad & 8u) << 1u); }
fn kv_b_values(w: KvQuad) -> vec4<f32> {
    return unpack2x16float(w.scales >> w.shift).x * vec4<f32>(unpack4xI8(w.codes));
}
