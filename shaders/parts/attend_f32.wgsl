// Keys and values in f32 for gqa_attend.wgsl: 4 numbers in 16 bytes.

const VECTORS: u32 = 1u; // quads of 16 bytes

alias Values = vec4<f32>;

// A lane has 4 columns in a turn.
fn query_place(four: u32, quad: u32) -> u32 { return (four * TURNS + quad / 4u) * 16u + quad % 4u; }

fn four_columns(s: vec4<f32>, k: vec4<f32>, q: mat4x4<f32>) -> vec4<f32> {
    return (((s + k.x * q[0]) + k.y * q[1]) + k.z * q[2]) + k.w * q[3];
}

fn scored(s: mat4x4<f32>, k0: vec4<u32>, k1: vec4<u32>, k2: vec4<u32>, k3: vec4<u32>, four: u32, turn: u32, part: u32,
          scales: vec4<f32>) -> mat4x4<f32> {
    let start = (four * TURNS + turn) * 16u + part;
    let q = mat4x4<f32>(queries[start], queries[start + 4u], queries[start + 8u], queries[start + 12u]);
    return mat4x4<f32>(four_columns(s[0], bitcast<vec4<f32>>(k0), q), four_columns(s[1], bitcast<vec4<f32>>(k1), q),
                       four_columns(s[2], bitcast<vec4<f32>>(k2), q), four_columns(s[3], bitcast<vec4<f32>>(k3), q));
}

fn values(v: vec4<u32>) -> Values { return bitcast<vec4<f32>>(v); }

fn weighed(o: Values, w: f32, v: Values) -> Values { return o + w * v; }

fn keep_values(to: u32, o: Values) { pool[to] = o; }
