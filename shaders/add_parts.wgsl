// y[r, n] = 2^e[r] * sum_p parts[p, r, n]: what matmul_coop.wgsl left of the parts of k, put together.
//
// Then the epilogue (parts/epilogue.wgsl): in SWIGLU a row of a part is [gate | up].
//
// A lane owns four outputs of a row, and has four parts of them on their way at once.

struct Params {
    n: u32,          // outputs
    splits: u32,     // parts of k
    row_quads: u32,  // of a row of a part
    part_quads: u32, // of a part
    up_quads: u32,   // of a row before up
    y_stride: u32,
    y_offset: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;     // half_rows.wgsl's: [rows] exponents, and more
@group(0) @binding(3) var<storage, read> parts: array<vec4<f32>>; // [splits, part_quads]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;     // [rows, y_stride]

override WG: u32 = 64u;

// A part that is not there is the last one, and does not count.
fn part(p: u32, at: u32) -> vec4<f32> {
    let v = parts[min(p, params.splits - 1u) * params.part_quads + at];
    return select(vec4<f32>(0.0), v, p < params.splits);
}

fn sum(at: u32) -> vec4<f32> {
    var all = vec4<f32>(0.0);
    for (var p = 0u; p < params.splits; p += 4u) {
        let a = part(p, at);
        let b = part(p + 1u, at);
        let c = part(p + 2u, at);
        let d = part(p + 3u, at);
        all += (a + b) + (c + d);
    }
    return all;
}

// What y holds of output n of a row, where it counts.
fn held(row: u32, n: u32) -> f32 {
    if (EPILOGUE == ADD && n < params.n) {
        return y[row + n];
    }
    return 0.0;
}

fn put(row: u32, n: u32, v: f32) {
    if (n < params.n) {
        y[row + n] = activated(v);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let r = wid.z;
    let q = wid.x * WG + lid;
    let n = 4u * q;
    if (n >= params.n) {
        return;
    }
    let row = r * params.y_stride + params.y_offset;
    let before = vec4<f32>(held(row, n), held(row, n + 1u), held(row, n + 2u), held(row, n + 3u));
    let exponent = i32(unpack2x16float(x[r].x).x);
    let scale = bitcast<f32>(u32(exponent + 127) << 23u);
    let at = r * params.row_quads + q;
    var v = before + scale * sum(at);
    if (EPILOGUE == SWIGLU) {
        v = silu4(v) * (scale * sum(at + params.up_quads));
    }
    put(row, n, v.x);
    put(row, n + 1u, v.y);
    put(row, n + 2u, v.z);
    put(row, n + 3u, v.w);
}
