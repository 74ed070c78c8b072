// Absorbed latent attention over a span of the context, with a running softmax:
//
//   score[h, s] = query[h] . cached[s]      o[h] = sum_s softmax(score)[h, s] latent[s]
//
// One workgroup owns one row, HEADS heads and `span` positions, of which it takes 128 at a time: a lane scores one
// position for all its heads, reading each cached row once; then a lane sums one quad of the latent over a share of the
// positions. It leaves the unnormalised sum with the maximum and the sum of weights, for mla_combine.wgsl.

const WG: u32 = 128u;
override HEADS: u32;          // of one workgroup, at most 8
override QUERY_QUADS: u32;    // latent_quads + rope_quads
override LATENT_QUADS: u32;   // at most WG
override SHARES: u32;         // WG / LATENT_QUADS, rounded down: lanes that share a quad

struct Params {
    heads: u32,
    latent_quads: u32,
    rope_quads: u32,
    row_words: u32,      // of a cached row
    context: u32,        // cached rows of a slot
    span: u32,           // positions of one workgroup, a multiple of 128
    spans: u32,          // that `partial` has room for
    blocks: u32,         // heads / HEADS, rounded up
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;           // [rows, heads, latent_quads + rope_quads]
@group(0) @binding(3) var<storage, read> latents: array<u32>;               // [slots, context, row_words]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;      // [rows, heads, spans, latent_quads]
@group(0) @binding(5) var<storage, read_write> weights: array<vec2<f32>>;   // [rows, heads, spans] (maximum, sum)

var<workgroup> queries: array<vec4<f32>, HEADS * QUERY_QUADS>;
var<workgroup> scores: array<f32, HEADS * WG>;
var<workgroup> folds: array<vec4<f32>, SHARES * LATENT_QUADS>;
var<workgroup> tops: array<f32, WG>;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let item = wid.y * groups.x + wid.x;
    let block = item % params.blocks;
    let span = item / params.blocks;
    let r = wid.z;
    let row = row_at(r);
    let length = row.position + 1u;
    let first = span * params.span;
    let end = min(first + params.span, length);
    let h0 = block * HEADS;
    let heads = min(HEADS, params.heads - h0);
    let cached = row.slot * params.context * params.row_words;

    for (var i = lid; i < heads * QUERY_QUADS; i += WG) {
        queries[i] = query[(r * params.heads + h0) * QUERY_QUADS + i];
    }
    for (var i = heads * QUERY_QUADS + lid; i < HEADS * QUERY_QUADS; i += WG) {
        queries[i] = vec4<f32>(0.0);
    }
    let share = lid / LATENT_QUADS;
    let quad = lid % LATENT_QUADS;
    var o: array<vec4<f32>, 8>;
    var top: array<f32, 8>;
    var sum: array<f32, 8>;
    for (var h = 0u; h < HEADS; h++) {
        o[h] = vec4<f32>(0.0);
        top[h] = -1e30;
        sum[h] = 0.0;
    }
    workgroupBarrier();
    for (var s0 = first; s0 < end; s0 += WG) {
        let count = min(WG, end - s0);
        // Scores: a lane, a position.
        var dots: array<f32, 8>;
        for (var h = 0u; h < HEADS; h++) {
            dots[h] = 0.0;
        }
        let at = cached + (s0 + min(lid, count - 1u)) * params.row_words;
        for (var i = 0u; i < LATENT_QUADS; i++) {
            let v = latent_quad(at, i);
            for (var h = 0u; h < HEADS; h++) {
                dots[h] += dot(queries[h * QUERY_QUADS + i], v);
            }
        }
        for (var i = 0u; i < params.rope_quads; i++) {
            let v = rope_quad(at, i);
            for (var h = 0u; h < HEADS; h++) {
                dots[h] += dot(queries[h * QUERY_QUADS + LATENT_QUADS + i], v);
            }
        }
        for (var h = 0u; h < HEADS; h++) {
            scores[h * WG + lid] = select(-1e30, dots[h], lid < count);
        }
        workgroupBarrier();
        // The running maximum: 16 lanes a head fold 128 scores, then everyone reads the 16.
        let head = lid / 16u;
        if (head < HEADS) {
            var most = -1e30;
            for (var i = lid % 16u; i < WG; i += 16u) {
                most = max(most, scores[head * WG + i]);
            }
            tops[lid] = most;
        }
        workgroupBarrier();
        for (var h = 0u; h < HEADS; h++) {
            var most = top[h];
            for (var i = 0u; i < 16u; i++) {
                most = max(most, tops[h * 16u + i]);
            }
            let fade = exp(top[h] - most);
            top[h] = most;
            o[h] *= fade;
            sum[h] *= fade;
            let weight = select(0.0, exp(dots[h] - most), lid < count);
            sum[h] += weight;
            scores[h * WG + lid] = weight;
        }
        workgroupBarrier();
        // Weighted latents: a lane, a quad of the latent and every SHARES-th position.
        if (share < SHARES) {
            for (var i = share; i < count; i += SHARES) {
                let v = latent_quad(cached + (s0 + i) * params.row_words, quad);
                for (var h = 0u; h < HEADS; h++) {
                    o[h] += scores[h * WG + i] * v;
                }
            }
        }
        workgroupBarrier();
    }
    // Fold the lanes' sums, head by head.
    for (var h = 0u; h < HEADS; h++) {
        scores[h * WG + lid] = sum[h];
        if (share < SHARES) {
            folds[lid] = o[h];
        }
        workgroupBarrier();
        if (h < heads && first < length) {
            let to = (r * params.heads + h0 + h) * params.spans + span;
            if (lid < LATENT_QUADS) {
                var v = vec4<f32>(0.0);
                for (var i = 0u; i < SHARES; i++) {
                    v += folds[i * LATENT_QUADS + lid];
                }
                sums[to * LATENT_QUADS + lid] = v;
            }
            if (lid == 0u) {
                var total = 0.0;
                for (var i = 0u; i < WG; i++) {
                    total += scores[h * WG + i];
                }
                weights[to] = vec2<f32>(top[h], total);
            }
        }
        workgroupBarrier();
    }
}
