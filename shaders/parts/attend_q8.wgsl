// Keys and values in int8 for gqa_attend.wgsl: 16 numbers in 16 bytes, behind them an f16 scale for each 32. A query is
// int8 too, twice: what the first leaves over is in the second, 1 / 254 of it each, so that products are exact in integers
// and a query is off by 1 / 64,516 of its largest number at most, a hundredth of what the cache's own codes lose.

const CODED: bool = true;
const CODES: f32 = 127.0;
const REST: i32 = 254;
const UNIT: f32 = 1.0 / 254.0;
const VECTORS: u32 = 4u; // quads of 16 bytes

alias Values = mat4x4<f32>;

override QUERY_QUADS: u32;
override QUERIES: u32;       // FOURS * 32 * TURNS

var<workgroup> queries: array<vec4<u32>, QUERIES>; // [FOURS, TURNS, 4 words, 2 codes, 4 lanes] of four heads

fn codes_of(v: vec4<f32>) -> vec4<f32> { return clamp(round(v), vec4<f32>(-127.0), vec4<f32>(127.0)); }

fn keep_query(four: u32, quad: u32, m: mat4x4<f32>, scale: vec4<f32>) {
    let inverse = select(vec4<f32>(0.0), 1.0 / scale, scale > vec4<f32>(0.0));
    let q0 = m[0] * inverse.x;
    let q1 = m[1] * inverse.y;
    let q2 = m[2] * inverse.z;
    let q3 = m[3] * inverse.w;
    let c0 = codes_of(q0);
    let c1 = codes_of(q1);
    let c2 = codes_of(q2);
    let c3 = codes_of(q3);
    let rest = f32(REST);
    let to = ((four * TURNS + quad / 16u) * 4u + quad % 4u) * 8u + quad / 4u % 4u;
    queries[to] = vec4<u32>(pack4xI8(vec4<i32>(c0)), pack4xI8(vec4<i32>(c1)), pack4xI8(vec4<i32>(c2)),
                            pack4xI8(vec4<i32>(c3)));
    queries[to + 4u] = vec4<u32>(pack4xI8(vec4<i32>(codes_of(rest * (q0 - c0)))),
                                 pack4xI8(vec4<i32>(codes_of(rest * (q1 - c1)))),
                                 pack4xI8(vec4<i32>(codes_of(rest * (q2 - c2)))),
                                 pack4xI8(vec4<i32>(codes_of(rest * (q3 - c3)))));
}

// A half of the word of scales that the reader chooses of two.
fn scale_at(word: u32, group: u32) -> f32 {
    return select(unpack2x16float(word).x, unpack2x16float(word).y, (group & 1u) == 1u);
}

// Lane `part` of four has 16 columns in a turn, two lanes a group.
fn key_scale(lanes: Lanes, own: vec4<u32>, lane: u32, turn: u32, part: u32) -> f32 {
    let group = VALUE_VEC4 / 2u + 2u * turn;
    var word = scales_word(lanes, own, group / 2u, lane);
    if (VALUE_VEC4 / 2u % 2u == 1u) {
        word = select(word, scales_word(lanes, own, min(group / 2u + 1u, 3u), lane), part >= 2u);
    }
    return scale_at(word, group + (part >> 1u));
}

fn value_scale(lanes: Lanes, own: vec4<u32>, lane: u32, part: u32) -> f32 {
    var word = scales_word(lanes, own, 0u, lane);
    if (VALUE_VEC4 > 4u) {
        word = select(word, scales_word(lanes, own, 1u, lane), part >= 4u);
    }
    return scale_at(word, part >> 1u);
}

fn dots(k: u32, q: vec4<u32>) -> vec4<i32> {
    return vec4<i32>(dot4I8Packed(k, q.x), dot4I8Packed(k, q.y), dot4I8Packed(k, q.z), dot4I8Packed(k, q.w));
}

fn scored(s: mat4x4<f32>, k0: vec4<u32>, k1: vec4<u32>, k2: vec4<u32>, k3: vec4<u32>, four: u32, turn: u32, part: u32,
          scales: vec4<f32>) -> mat4x4<f32> {
    let start = (four * TURNS + turn) * 32u + part;
    let x = queries[start];
    let y = queries[start + 8u];
    let z = queries[start + 16u];
    let w = queries[start + 24u];
    var a0 = REST * (((dots(k0.x, x) + dots(k0.y, y)) + dots(k0.z, z)) + dots(k0.w, w));
    var a1 = REST * (((dots(k1.x, x) + dots(k1.y, y)) + dots(k1.z, z)) + dots(k1.w, w));
    var a2 = REST * (((dots(k2.x, x) + dots(k2.y, y)) + dots(k2.z, z)) + dots(k2.w, w));
    var a3 = REST * (((dots(k3.x, x) + dots(k3.y, y)) + dots(k3.z, z)) + dots(k3.w, w));
    let rest_x = queries[start + 4u];
    let rest_y = queries[start + 12u];
    let rest_z = queries[start + 20u];
    let rest_w = queries[start + 28u];
    a0 = (((a0 + dots(k0.x, rest_x)) + dots(k0.y, rest_y)) + dots(k0.z, rest_z)) + dots(k0.w, rest_w);
    a1 = (((a1 + dots(k1.x, rest_x)) + dots(k1.y, rest_y)) + dots(k1.z, rest_z)) + dots(k1.w, rest_w);
    a2 = (((a2 + dots(k2.x, rest_x)) + dots(k2.y, rest_y)) + dots(k2.z, rest_z)) + dots(k2.w, rest_w);
    a3 = (((a3 + dots(k3.x, rest_x)) + dots(k3.y, rest_y)) + dots(k3.z, rest_z)) + dots(k3.w, rest_w);
    return mat4x4<f32>(s[0] + scales.x * vec4<f32>(a0), s[1] + scales.y * vec4<f32>(a1),
                       s[2] + scales.z * vec4<f32>(a2), s[3] + scales.w * vec4<f32>(a3));
}

fn values(v: vec4<u32>) -> Values {
    return Values(vec4<f32>(unpack4xI8(v.x)), vec4<f32>(unpack4xI8(v.y)), vec4<f32>(unpack4xI8(v.z)),
                  vec4<f32>(unpack4xI8(v.w)));
}

fn weighed(o: Values, w: f32, v: Values) -> Values {
    return Values(o[0] + w * v[0], o[1] + w * v[1], o[2] + w * v[2], o[3] + w * v[3]);
}

fn keep_values(to: u32, o: Values) {
    pool[to] = o[0];
    pool[WG + to] = o[1];
    pool[2u * WG + to] = o[2];
    pool[3u * WG + to] = o[3];
}
