// The selective scan, token by token, and the gated norm of its output (Mamba2 as MambaInLlama has it):
//
//   dt = softplus(dt_raw + dt_bias)      a = exp(-exp(A_log) dt)
//   S = a S + dt x (outer) B             y = S C + D x
//   out = rmsnorm_per_head(y * silu(z)) * weight
//
// One workgroup owns one head of one segment and holds its state S [P, N], P = N = head_dim, in registers: LANES lanes
// share a row p of S and take its quads of n in turn. It also carries the state of the convolution.

override LANES: u32;                      // WG = head_dim * LANES
override QUADS: u32;                      // quads of S that a lane holds: head_dim / 4 / LANES, at most 16

struct Params {
    head_dim: u32,
    repeat: u32,         // heads that share one group of x and B
    repeated: u32,       // as in ssm_conv
    in_stride: u32,      // of the in_proj rows [z | x | B | C | dt], whose z is at 0
    in_offset: u32,      // of x in them
    dt_offset: u32,
    u_stride: u32,
    b_offset: u32,       // of B in a row of u
    c_offset: u32,       // of C in a row of u
    y_stride: u32,
    state_stride: u32,   // of a slot's state [heads, P, N | channels, 4]
    taps_offset: u32,
    eps: f32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> zxbcdt: array<f32>;        // [rows, in_stride]
@group(0) @binding(3) var<storage, read> u: array<f32>;             // [rows, u_stride]
@group(0) @binding(4) var<storage, read> heads: array<vec4<f32>>;   // [heads] (A_log, D, dt_bias, 0)
@group(0) @binding(5) var<storage, read> weight: array<f32>;        // [d_inner]
@group(0) @binding(6) var<storage, read_write> state: array<f32>;   // [slots, state_stride]
@group(0) @binding(7) var<storage, read_write> y: array<f32>;       // [rows, y_stride]

var<workgroup> bs: array<vec4<f32>, 32>;   // B of the token
var<workgroup> cs: array<vec4<f32>, 32>;   // C of the token
var<workgroup> parts: array<f32, WG>;      // each lane's share of S C

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, lanes: Lanes) {
    let head = wid.x;
    let segment = segment_at(wid.z);
    let live = row_at(segment.first).live;
    let lid = lanes.index;
    let p = lid / LANES;
    let lane = lid % LANES;
    let dim = params.head_dim;
    let base = segment.slot * params.state_stride + (head * dim + p) * dim;
    let per_head = heads[head];
    let decay = -exp(per_head.x);

    var s: array<vec4<f32>, 16>;
    for (var i = 0u; i < QUADS; i++) {
        let at = base + 4u * (i * LANES + lane);
        s[i] = vec4<f32>(state[at], state[at + 1u], state[at + 2u], state[at + 3u]);
    }
    for (var t = 0u; t < segment.count; t++) {
        let r = segment.first + t;
        let ur = r * params.u_stride;
        let zr = r * params.in_stride;
        if (lid < dim / 4u) {
            let b = ur + params.b_offset + x_channel(head) + 4u * lid;
            let c = ur + params.c_offset + head * dim + 4u * lid;
            bs[lid] = vec4<f32>(u[b], u[b + 1u], u[b + 2u], u[b + 3u]);
            cs[lid] = vec4<f32>(u[c], u[c + 1u], u[c + 2u], u[c + 3u]);
        }
        workgroupBarrier();
        let dt = softplus(zxbcdt[zr + params.dt_offset + head] + per_head.z);
        let a = exp(decay * dt);
        let x = u[ur + x_channel(head) + p];
        var sum = 0.0;
        for (var i = 0u; i < QUADS; i++) {
            let q = i * LANES + lane;
            s[i] = s[i] * a + dt * x * bs[q];
            sum += dot(s[i], cs[q]);
        }
        parts[lid] = sum;
        workgroupBarrier();
        var gated = 0.0;
        if (lane == 0u) {
            var v = per_head.y * x;
            for (var i = 0u; i < LANES; i++) {
                v += parts[lid + i];
            }
            let z = zxbcdt[zr + head * dim + p];
            gated = v * z / (1.0 + exp(-z));
        }
        let squares = workgroup_sum(lanes, gated * gated);
        if (lane == 0u) {
            let at = head * dim + p;
            y[r * params.y_stride + at] = gated * inverseSqrt(squares / f32(dim) + params.eps) * weight[at];
        }
    }
    if (live) {
        for (var i = 0u; i < QUADS; i++) {
            let at = base + 4u * (i * LANES + lane);
            for (var j = 0u; j < 4u; j++) {
                state[at + j] = s[i][j];
            }
        }
        carry_conv(segment, head, lid, WG);
    }
}
