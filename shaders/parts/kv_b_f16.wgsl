// kv_b_proj as f16, beside another matrix: laid out as parts/weight_f16.wgsl reads it.

@group(0) @binding(12) var<storage, read> kv_b_words: array<vec2<u32>>;

// The four weights that start at 4 * quad, rows being whole groups of 32.
fn kv_b_quad(quad: u32) -> vec4<f32> {
    let w = kv_b_words[quad];
    return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}
