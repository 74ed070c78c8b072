// The absorbed query: qc[r, h, :] = scale * [Wk[g(h)]^T q_nope | rope(q_pe)], g(h) = h / (heads / kv_heads).
//
// One workgroup owns one head of one row. kv_b_proj is [kv_heads * (nope + v), latent], of each head first Wk, then Wv;
// Wk is read along its rows: a lane sums one quad of the latent over every SHARES-th d, so that lanes read neighbouring
// words, and the shares are folded.

override WG: u32 = 256u;
override LATENT_QUADS: u32;   // at most WG
override SHARES: u32;         // WG / LATENT_QUADS, rounded down: lanes that share a quad

struct Params {
    heads: u32,
    share: u32,          // query heads that share a kv head
    nope: u32,
    rope: u32,
    head_rows: u32,      // nope + v: rows of kv_b_proj for each kv head
    rope_quads: u32,
    w_quads: u32,        // of a row of kv_b_proj, padded to groups of 32
    q_stride: u32,
    scale: f32,          // of the softmax
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> q: array<f32>;                  // [rows, heads, nope + rope]
@group(0) @binding(3) var<storage, read> turns: array<vec2<f32>>;        // see parts/rope.wgsl
@group(0) @binding(4) var<storage, read_write> query: array<vec4<f32>>;  // [rows, heads, latent_quads + rope_quads]

var<workgroup> folds: array<vec4<f32>, WG>;

fn roped(start: u32, i: u32, position: u32) -> f32 {
    if (i >= params.rope) {
        return 0.0;
    }
    let pair = pair_of(i);
    return turned(vec2<f32>(q[start + first_of(pair)], q[start + second_of(pair)]), i, position);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let h = wid.x;
    let r = wid.z;
    let start = r * params.q_stride + h * (params.nope + params.rope);
    let to = (r * params.heads + h) * (LATENT_QUADS + params.rope_quads);
    let wk = h / params.share * params.head_rows * params.w_quads;
    let share = lid / LATENT_QUADS;
    let quad = lid % LATENT_QUADS;
    var sum = vec4<f32>(0.0);
    if (share < SHARES) {
        for (var d = share; d < params.nope; d += SHARES) {
            sum += q[start + d] * weight_quad(wk + d * params.w_quads + quad);
        }
    }
    folds[lid] = sum;
    workgroupBarrier();
    if (lid < LATENT_QUADS) {
        var all = vec4<f32>(0.0);
        for (var i = 0u; i < SHARES; i++) {
            all += folds[i * LATENT_QUADS + lid];
        }
        query[to + lid] = all * params.scale;
    }
    let position = row_at(r).position;
    for (var i = lid; i < params.rope_quads; i += WG) {
        var v = vec4<f32>(0.0);
        for (var j = 0u; j < 4u; j++) {
            v[j] = roped(start + params.nope, 4u * i + j, position);
        }
        query[to + LATENT_QUADS + i] = v * params.scale;
    }
}
