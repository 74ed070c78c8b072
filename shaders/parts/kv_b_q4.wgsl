// kv_b_proj as int4 with scales, beside another matrix: laid out as parts/weight_q4.wgsl reads it.

@group(0) @binding(12) var<storage, read> kv_b_words: array<u32>;
@group(0) @binding(13) var<storage, read> kv_b_scales: array<u32>; // f16 [n, k / 32], two to a u32

fn kv_b_scale(group: u32) -> f32 { return unpack2x16float(kv_b_scales[group >> 1u])[group & 1u]; }

// The four weights that start at 4 * quad, rows being whole groups of 32.
fn kv_b_quad(quad: u32) -> vec4<f32> {
    let nibbles = (kv_b_words[quad >> 1u] >> ((quad & 1u) * 4u)) & 0x0f0f0f0fu;
    return kv_b_scale(quad >> 3u) * (vec4<f32>(unpack4xU8(nibbles)) - 8.0);
}
