// Keys and values in f16 for gqa_attend.wgsl: 8 numbers in 16 bytes. Products and sums are f32.

const VECTORS: u32 = 2u; // quads of 16 bytes

alias Values = mat2x4<f32>;

// A lane has 8 columns in a turn.
fn query_place(four: u32, quad: u32) -> u32 {
    return ((four * TURNS + quad / 8u) * 8u + quad % 2u * 4u) * 4u + quad / 2u % 4u;
}

// Two columns of four positions' keys, a word each.
fn two_columns(s: mat4x4<f32>, k: vec4<u32>, start: u32) -> mat4x4<f32> {
    let q0 = queries[start];
    let q1 = queries[start + 4u];
    let v0 = unpack2x16float(k.x);
    let v1 = unpack2x16float(k.y);
    let v2 = unpack2x16float(k.z);
    let v3 = unpack2x16float(k.w);
    return mat4x4<f32>((s[0] + v0.x * q0) + v0.y * q1, (s[1] + v1.x * q0) + v1.y * q1,
                       (s[2] + v2.x * q0) + v2.y * q1, (s[3] + v3.x * q0) + v3.y * q1);
}

fn scored(s: mat4x4<f32>, k0: vec4<u32>, k1: vec4<u32>, k2: vec4<u32>, k3: vec4<u32>, four: u32, turn: u32, part: u32,
          scales: vec4<f32>) -> mat4x4<f32> {
    let start = (four * TURNS + turn) * 32u + part;
    var a = two_columns(s, vec4<u32>(k0.x, k1.x, k2.x, k3.x), start);
    a = two_columns(a, vec4<u32>(k0.y, k1.y, k2.y, k3.y), start + 8u);
    a = two_columns(a, vec4<u32>(k0.z, k1.z, k2.z, k3.z), start + 16u);
    return two_columns(a, vec4<u32>(k0.w, k1.w, k2.w, k3.w), start + 24u);
}

fn values(v: vec4<u32>) -> Values {
    return Values(vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)),
                  vec4<f32>(unpack2x16float(v.z), unpack2x16float(v.w)));
}

fn weighed(o: Values, w: f32, v: Values) -> Values { return Values(o[0] + w * v[0], o[1] + w * v[1]); }

fn keep_values(to: u32, o: Values) {
    pool[to] = o[0];
    pool[WG + to] = o[1];
}
