// o[r, h, :] = Wv[g(h)] (sum of the spans' parts, each with its own maximum): from latents back to values.
//
// One workgroup owns one head of one row. The lanes first weigh the spans, each a share of them; then a lane sums one
// quad of the latent over every SHARES-th span; then a lane makes a value.

override LATENT_QUADS: u32;
override LATENT_QUADS_PADDED: u32; // padded to groups of 32
override SHARES: u32;              // WG / LATENT_QUADS, rounded down: lanes that share a quad
override SPANS: u32;               // that `sums` has room for

struct Params {
    heads: u32,
    share: u32,          // query heads that share a kv head
    nope: u32,
    v_dim: u32,          // v_head_dim
    w_octs: u32,         // of a row of kv_b_proj, padded to groups of 32
    span: u32,
    o_stride: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> sums: array<vec4<f32>>;        // [rows, heads, SPANS, LATENT_QUADS]
@group(0) @binding(3) var<storage, read> weights: array<vec2<f32>>;     // [rows, heads, SPANS] (maximum, sum)
@group(0) @binding(4) var<storage, read_write> o: array<f32>;           // [rows, heads, v_dim], rows o_stride apart

var<workgroup> factors: array<f32, SPANS>;
var<workgroup> folds: array<vec4<f32>, WG>;
var<workgroup> latent: array<vec4<f32>, LATENT_QUADS_PADDED>;
var<workgroup> tops: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, lanes: Lanes) {
    let lid = lanes.index;
    let h = wid.x;
    let r = wid.z;
    let spans = row_at(r).position / params.span + 1u;
    let start = (r * params.heads + h) * SPANS;

    var top = -1e30;
    for (var s = lid; s < spans; s += WG) {
        top = max(top, weights[start + s].x);
    }
    tops[lid] = top;
    workgroupBarrier();
    for (var i = 0u; i < min(WG, spans); i++) {
        top = max(top, tops[i]);
    }
    var part = 0.0;
    for (var s = lid; s < spans; s += WG) {
        let w = weights[start + s];
        let factor = exp(w.x - top);
        factors[s] = factor;
        part += factor * w.y;
    }
    let total = workgroup_sum(lanes, part);

    let share = lid / LATENT_QUADS;
    let quad = lid % LATENT_QUADS;
    var sum = vec4<f32>(0.0);
    if (share < SHARES) {
        for (var s = share; s < spans; s += SHARES) {
            sum += factors[s] * sums[(start + s) * LATENT_QUADS + quad];
        }
    }
    folds[lid] = sum;
    workgroupBarrier();
    for (var q = lid; q < LATENT_QUADS_PADDED; q += WG) {
        var all = vec4<f32>(0.0);
        if (q < LATENT_QUADS) {
            for (var i = 0u; i < SHARES; i++) {
                all += folds[i * LATENT_QUADS + q];
            }
        }
        latent[q] = all / total;
    }
    workgroupBarrier();
    let wv = h / params.share * (params.nope + params.v_dim) + params.nope;
    for (var d = lid; d < params.v_dim; d += WG) {
        var value = 0.0;
        for (var i = 0u; i < params.w_octs; i++) {
            let w = weight_oct((wv + d) * params.w_octs + i);
            value += dot(w[0], latent[2u * i]) + dot(w[1], latent[2u * i + 1u]);
        }
        o[r * params.o_stride + h * params.v_dim + d] = value;
    }
}
