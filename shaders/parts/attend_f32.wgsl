// Keys and values in f32 for gqa_attend.wgsl: 4 numbers in 16 bytes.

const CODED: bool = false;
const CODES: f32 = 1.0;
const UNIT: f32 = 1.0;
const VECTORS: u32 = 1u; // quads of 16 bytes

alias Values = vec4<f32>;

override QUERY_QUADS: u32;
override QUERIES: u32;       // FOURS * 16 * TURNS

var<workgroup> queries: array<vec4<f32>, QUERIES>; // [FOURS, TURNS, 4 columns, 4 lanes] of four heads

fn keep_query(four: u32, quad: u32, m: mat4x4<f32>, scale: vec4<f32>) {
    let t = transpose(m);
    let to = (four * TURNS + quad / 4u) * 16u + quad % 4u;
    queries[to] = t[0];
    queries[to + 4u] = t[1];
    queries[to + 8u] = t[2];
    queries[to + 12u] = t[3];
}

fn key_scale(lanes: Lanes, own: vec4<u32>, lane: u32, turn: u32, part: u32) -> f32 { return 1.0; }
fn value_scale(lanes: Lanes, own: vec4<u32>, lane: u32, part: u32) -> f32 { return 1.0; }

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
