// What parts/attend_f16.wgsl and parts/attend_f32.wgsl share: queries in f32, and nothing has a scale.

const CODED: bool = false;
const CODES: f32 = 1.0;
const UNIT: f32 = 1.0;

override QUERY_QUADS: u32;
override QUERIES: u32;       // FOURS * TURNS * 4 lanes' columns

var<workgroup> queries: array<vec4<f32>, QUERIES>; // [FOURS, TURNS, a lane's columns, 4 lanes] of four heads

fn keep_query(four: u32, quad: u32, m: mat4x4<f32>, scale: vec4<f32>) {
    let t = transpose(m);
    let to = query_place(four, quad);
    queries[to] = t[0];
    queries[to + 4u] = t[1];
    queries[to + 8u] = t[2];
    queries[to + 12u] = t[3];
}

fn key_scale(lanes: Lanes, own: vec4<u32>, lane: u32, turn: u32, part: u32) -> f32 { return 1.0; }
fn value_scale(lanes: Lanes, own: vec4<u32>, lane: u32, part: u32) -> f32 { return 1.0; }
