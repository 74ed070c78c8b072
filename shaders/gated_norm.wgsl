// y[r, h, :] = rmsnorm(y[r, h, :] * silu(z[r, h, :])) * weight[h, :], the norm over each head's own head_dim, in place;
// or y[r, h, :] * silu(z[r, h, :] + bias[h, :]), see parts/gate_*.wgsl.
//
// A lane owns one quad; a workgroup has the quads of whole heads of one row.
//
// Floor: rows * d_inner * 12 bytes (512 x 2048: 12.6 MB).

override WG: u32;      // a multiple of head_dim / 4

struct Params {
    head_quads: u32,   // vec4 of a head
    quads: u32,        // vec4 of all heads
    in_quads: u32,     // vec4 of a row of in_proj
    z_quads: u32,      // vec4 before z in such a row
    y_quads: u32,      // vec4 of a row of y
    eps: f32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> z: array<vec4<f32>>;            // [rows, in_quads]
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;       // [quads], or z's bias
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;      // [rows, y_quads]

var<workgroup> squares: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let r = wid.z;
    let q = wid.x * WG + lid;
    var gated = vec4<f32>(0.0);
    if (q < params.quads) {
        let gate = gate_of(z[r * params.in_quads + params.z_quads + q], weight[q]);
        gated = y[r * params.y_quads + q] * gate / (1.0 + exp(-gate));
    }
    if (NORMS) {
        squares[lid] = dot(gated, gated);
        workgroupBarrier();
        let first = lid - lid % params.head_quads;
        var sum = 0.0;
        for (var i = 0u; i < params.head_quads; i++) {
            sum += squares[first + i];
        }
        if (q < params.quads) {
            gated = gated * inverseSqrt(sum / f32(4u * params.head_quads) + params.eps) * weight[q];
        }
    }
    if (q < params.quads) {
        y[r * params.y_quads + q] = gated;
    }
}
