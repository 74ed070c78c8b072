// y[r, :] = f16(v[r, :] / 2^e[r]) and e[r], the rows that matmul_coop.wgsl multiplies. v = x[s, :], or normed as
// rmsnorm.wgsl does, where s = r or the row of logit row r. 2^e takes the largest number of a row to 16 .. 32: far from
// where f16 ends on either side, for the row's small numbers and for their products.
//
// One workgroup owns one row. Of each eight neighbours, the second and third are exchanged, and the sixth and seventh
// (see matmul_coop.wgsl). What pads a row to whole blocks is zero.

override LOGIT_ROWS: bool = false;
override WG: u32 = 256u;

struct Params {
    width: u32,
    x_stride: u32,   // in quads
    x_offset: u32,   // in quads
    x_quads: u32,    // of a row, its padding included
    octs: u32,       // of a row of y
    eps: f32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;          // [rows, x_stride], padded with zeros

var<workgroup> parts: array<vec2<f32>, WG>; // sum of squares, largest magnitude

// Four of row s, from quad q on, times the norm's weights; zeros past its end.
fn weighted(start: u32, q: u32) -> vec4<f32> {
    if (q >= params.x_quads) {
        return vec4<f32>(0.0);
    }
    let v = x[start + q];
    if (NORM) {
        let i = 4u * q;
        return v * vec4<f32>(norm_weight(i), norm_weight(i + 1u), norm_weight(i + 2u), norm_weight(i + 3u));
    }
    return v;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let r = wid.z;
    var s = r;
    if (LOGIT_ROWS) {
        s = logit_row_at(r);
    }
    let start = s * params.x_stride + params.x_offset;
    var squares = 0.0;
    var most = vec4<f32>(0.0);
    for (var q = lid; q < params.x_quads; q += WG) {
        let v = x[start + q];
        squares += dot(v, v);
        most = max(most, abs(weighted(start, q)));
    }
    parts[lid] = vec2<f32>(squares, max(max(most.x, most.y), max(most.z, most.w)));
    workgroupBarrier();
    // Halving rounded up, so that a WG that is no power of two is right too.
    var count = WG;
    while (count > 1u) {
        let half = (count + 1u) / 2u;
        if (lid + half < count) {
            let other = parts[lid + half];
            parts[lid] = vec2<f32>(parts[lid].x + other.x, max(parts[lid].y, other.y));
        }
        count = half;
        workgroupBarrier();
    }
    var scale = 1.0;
    if (NORM) {
        scale = inverseSqrt(parts[0].x / f32(params.width) + params.eps);
    }
    // The exponent's bits of the largest number; no smaller than what 2^e and 2^-e both are normal numbers for.
    let bits = clamp((bitcast<u32>(parts[0].y * scale) >> 23u) & 255u, 5u, 254u);
    let down = scale * bitcast<f32>((258u - bits) << 23u);
    for (var o = lid; o < params.octs; o += WG) {
        let a = weighted(start, 2u * o) * down;
        let b = weighted(start, 2u * o + 1u) * down;
        y[MAX_ROWS + r * params.octs + o] =
            vec4<u32>(pack2x16float(a.xz), pack2x16float(a.yw), pack2x16float(b.xz), pack2x16float(b.yw));
    }
    if (lid == 0u) {
        y[r] = vec4<u32>(pack2x16float(vec2<f32>(f32(i32(bits) - 131), 0.0)), 0u, 0u, 0u);
    }
}
