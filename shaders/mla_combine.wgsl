// o[r, h, :] = Wv[g(h)] (sum of the spans' parts, each with its own maximum): from latents back to values.
//
// One workgroup owns one head of one row.

struct Params {
    heads: u32,
    share: u32,          // query heads that share a kv head
    nope: u32,
    v_dim: u32,          // v_head_dim
    latent_quads: u32,
    w_octs: u32,         // of a row of kv_b_proj, padded to groups of 32
    span: u32,
    spans: u32,          // that `sums` has room for
    o_stride: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> sums: array<vec4<f32>>;        // [rows, heads, spans, latent_quads]
@group(0) @binding(3) var<storage, read> weights: array<vec2<f32>>;     // [rows, heads, spans] (maximum, sum)
@group(0) @binding(4) var<storage, read_write> o: array<f32>;           // [rows, heads, v_dim], rows o_stride apart

override LATENT_QUADS_PADDED: u32; // latent quads padded to groups of 32
override WG: u32 = 64u;

var<workgroup> latent: array<vec4<f32>, LATENT_QUADS_PADDED>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let h = wid.x;
    let r = wid.z;
    let spans = row_at(r).position / params.span + 1u;
    let start = (r * params.heads + h) * params.spans;
    var top = -1e30;
    for (var s = 0u; s < spans; s++) {
        top = max(top, weights[start + s].x);
    }
    var total = 0.0;
    for (var s = 0u; s < spans; s++) {
        let w = weights[start + s];
        total += exp(w.x - top) * w.y;
    }
    for (var q = lid; q < LATENT_QUADS_PADDED; q += WG) {
        var sum = vec4<f32>(0.0);
        if (q < params.latent_quads) {
            for (var s = 0u; s < spans; s++) {
                sum += exp(weights[start + s].x - top) * sums[(start + s) * params.latent_quads + q];
            }
        }
        latent[q] = sum / total;
    }
    workgroupBarrier();
    let wv = h / params.share * (params.nope + params.v_dim) + params.nope;
    for (var d = lid; d < params.v_dim; d += WG) {
        var sum = 0.0;
        for (var i = 0u; i < params.w_octs; i++) {
            let w = weight_oct((wv + d) * params.w_octs + i);
            sum += dot(w[0], latent[2u * i]) + dot(w[1], latent[2u * i + 1u]);
        }
        o[r * params.o_stride + h * params.v_dim + d] = sum;
    }
}
