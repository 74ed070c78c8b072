// kv_b_proj as f16, beside another matrix: laid out as parts/weight_f16.wgsl reads it.

@group(0) @binding(12) var<storage, read> kv_b_words: array<vec2<u32>>;

alias KvQuad = vec2<u32>;

// The four weights that start at 4 * quad, rows being whole groups of 32; `kv_b_values` makes numbers of them.
fn kv_b_at(quad: u32) -> KvQuad { return kv_b_words[quad]; }
fn kv_b_values(w: KvQuad) -> vec4<f32> { return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)); }
