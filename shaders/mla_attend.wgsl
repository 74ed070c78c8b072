// Absorbed latent attention over a span of the context, with a running softmax:
//
//   score[h, s] = query[h] . cached[s]      o[h] = sum_s softmax(score)[h, s] latent[s]
//
// One workgroup owns one row, eight heads (four where workgroup memory is small) and `span` positions, of which it takes
// 128 at a time: a lane scores one position for all its heads, reading each cached row once; then a lane sums one quad
// of the latent over a share of the positions. Heads lie in the components of vec4, so that everything stays in
// registers. It leaves the unnormalised sum with the maximum and the sum of weights, for mla_combine.wgsl.

const WG: u32 = 128u;
override HEADS: u32;          // 8 or 4
override HALVES: u32;         // HEADS / 4
override QUERY_QUADS: u32;    // latent_quads + rope_quads
override QUERY_WORDS: u32;    // 4 * QUERY_QUADS * HALVES
override LATENT_QUADS: u32;   // at most WG
override SHARES: u32;         // WG / LATENT_QUADS, rounded down: lanes that share a quad

struct Params {
    heads: u32,
    latent_quads: u32,
    rope_quads: u32,
    row_words: u32,      // of a cached row
    context: u32,        // cached rows of a slot
    span: u32,           // positions of one workgroup, a multiple of 128
    spans: u32,          // that `sums` has room for
    blocks: u32,         // heads / HEADS, rounded up
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;           // [rows, heads, latent_quads + rope_quads]
@group(0) @binding(3) var<storage, read> latents: array<u32>;               // [slots, context, row_words]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;      // [rows, heads, spans, latent_quads]
@group(0) @binding(5) var<storage, read_write> weights: array<vec2<f32>>;   // [rows, heads, spans] (maximum, sum)

var<workgroup> queries: array<vec4<f32>, QUERY_WORDS>; // [HALVES][4 * QUERY_QUADS], the four heads of a half in a vec4
var<workgroup> scores: array<vec4<f32>, 256>;          // [HALVES][WG]
var<workgroup> tops: array<vec4<f32>, 32>;             // [HALVES][16]
var<workgroup> folds: array<vec4<f32>, WG>;

// The dot products of four heads with one quad of a cached row.
fn score4(half: u32, quad: u32, v: vec4<f32>) -> vec4<f32> {
    let at = half * 4u * QUERY_QUADS + 4u * quad;
    return v.x * queries[at] + v.y * queries[at + 1u] + v.z * queries[at + 2u] + v.w * queries[at + 3u];
}

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
    let cached = row.slot * params.context * params.row_words;

    // Transposed: component by component of the row, its four heads together. Heads past the last are zero.
    for (var i = lid; i < HALVES * QUERY_QUADS; i += WG) {
        let half = i / QUERY_QUADS;
        let quad = i % QUERY_QUADS;
        let h = h0 + half * 4u;
        var m: mat4x4<f32>;
        for (var j = 0u; j < 4u; j++) {
            m[j] = select(vec4<f32>(0.0), query[(r * params.heads + min(h + j, params.heads - 1u)) * QUERY_QUADS + quad],
                          h + j < params.heads);
        }
        let t = transpose(m);
        let at = half * 4u * QUERY_QUADS + 4u * quad;
        queries[at] = t[0];
        queries[at + 1u] = t[1];
        queries[at + 2u] = t[2];
        queries[at + 3u] = t[3];
    }
    let share = lid / LATENT_QUADS;
    let quad = lid % LATENT_QUADS;
    var o0 = vec4<f32>(0.0);
    var o1 = vec4<f32>(0.0);
    var o2 = vec4<f32>(0.0);
    var o3 = vec4<f32>(0.0);
    var o4 = vec4<f32>(0.0);
    var o5 = vec4<f32>(0.0);
    var o6 = vec4<f32>(0.0);
    var o7 = vec4<f32>(0.0);
    var top_a = vec4<f32>(-1e30);
    var top_b = vec4<f32>(-1e30);
    var sum_a = vec4<f32>(0.0);
    var sum_b = vec4<f32>(0.0);
    workgroupBarrier();
    for (var s0 = first; s0 < end; s0 += WG) {
        let count = min(WG, end - s0);
        // Scores: a lane, a position. Four quads at a time, so that their loads are under way together.
        var a = vec4<f32>(0.0);
        var b = vec4<f32>(0.0);
        let at = cached + (s0 + min(lid, count - 1u)) * params.row_words;
        let whole = LATENT_QUADS & ~3u;
        for (var i = 0u; i < whole; i += 4u) {
            let v0 = latent_quad(at, i);
            let v1 = latent_quad(at, i + 1u);
            let v2 = latent_quad(at, i + 2u);
            let v3 = latent_quad(at, i + 3u);
            a += score4(0u, i, v0) + score4(0u, i + 1u, v1) + score4(0u, i + 2u, v2) + score4(0u, i + 3u, v3);
            if (HALVES > 1u) {
                b += score4(1u, i, v0) + score4(1u, i + 1u, v1) + score4(1u, i + 2u, v2) + score4(1u, i + 3u, v3);
            }
        }
        for (var i = whole; i < LATENT_QUADS; i++) {
            let v = latent_quad(at, i);
            a += score4(0u, i, v);
            if (HALVES > 1u) { b += score4(1u, i, v); }
        }
        for (var i = 0u; i < params.rope_quads; i++) {
            let v = rope_quad(at, i);
            a += score4(0u, LATENT_QUADS + i, v);
            if (HALVES > 1u) { b += score4(1u, LATENT_QUADS + i, v); }
        }
        let inside = lid < count;
        a = select(vec4<f32>(-1e30), a, inside);
        b = select(vec4<f32>(-1e30), b, inside);
        scores[lid] = a;
        scores[WG + lid] = b;
        workgroupBarrier();
        // The running maximum: 16 lanes a half fold 128 scores, then everyone reads the 16.
        if (lid < 32u) {
            let half = lid / 16u * WG;
            var most = scores[half + lid % 16u];
            for (var i = 16u; i < WG; i += 16u) {
                most = max(most, scores[half + i + lid % 16u]);
            }
            tops[lid] = most;
        }
        workgroupBarrier();
        var most_a = top_a;
        var most_b = top_b;
        for (var i = 0u; i < 16u; i++) {
            most_a = max(most_a, tops[i]);
            most_b = max(most_b, tops[16u + i]);
        }
        let fade_a = exp(top_a - most_a);
        let fade_b = exp(top_b - most_b);
        top_a = most_a;
        top_b = most_b;
        a = select(vec4<f32>(0.0), exp(a - most_a), inside);
        b = select(vec4<f32>(0.0), exp(b - most_b), inside);
        sum_a = sum_a * fade_a + a;
        sum_b = sum_b * fade_b + b;
        scores[lid] = a;
        scores[WG + lid] = b;
        workgroupBarrier();
        // Weighted latents: a lane, a quad of the latent and every SHARES-th position.
        o0 *= fade_a.x;
        o1 *= fade_a.y;
        o2 *= fade_a.z;
        o3 *= fade_a.w;
        o4 *= fade_b.x;
        o5 *= fade_b.y;
        o6 *= fade_b.z;
        o7 *= fade_b.w;
        if (share < SHARES) {
            for (var i = share; i < count; i += 2u * SHARES) {
                // The second of the pair may lie behind the end, where its weights are zero.
                let j = min(i + SHARES, WG - 1u);
                let v = latent_quad(cached + (s0 + i) * params.row_words, quad);
                let w = latent_quad(cached + (s0 + min(i + SHARES, count - 1u)) * params.row_words, quad);
                let later = select(0.0, 1.0, i + SHARES < count);
                let p = scores[i];
                let q = scores[j] * later;
                o0 += p.x * v + q.x * w;
                o1 += p.y * v + q.y * w;
                o2 += p.z * v + q.z * w;
                o3 += p.w * v + q.w * w;
                if (HALVES > 1u) {
                    let p_b = scores[WG + i];
                    let q_b = scores[WG + j] * later;
                    o4 += p_b.x * v + q_b.x * w;
                    o5 += p_b.y * v + q_b.y * w;
                    o6 += p_b.z * v + q_b.z * w;
                    o7 += p_b.w * v + q_b.w * w;
                }
            }
        }
        workgroupBarrier();
    }
    // The lanes' sums of weights, then their sums of latents head by head.
    scores[lid] = sum_a;
    scores[WG + lid] = sum_b;
    workgroupBarrier();
    if (lid < 32u) {
        let half = lid / 16u * WG;
        var total = scores[half + lid % 16u];
        for (var i = 16u; i < WG; i += 16u) {
            total += scores[half + i + lid % 16u];
        }
        tops[lid] = total;
    }
    workgroupBarrier();
    var total_a = vec4<f32>(0.0);
    var total_b = vec4<f32>(0.0);
    for (var i = 0u; i < 16u; i++) {
        total_a += tops[i];
        total_b += tops[16u + i];
    }
    for (var h = 0u; h < HEADS; h++) {
        var mine = o0;
        switch (h) {
            case 1u: { mine = o1; }
            case 2u: { mine = o2; }
            case 3u: { mine = o3; }
            case 4u: { mine = o4; }
            case 5u: { mine = o5; }
            case 6u: { mine = o6; }
            case 7u: { mine = o7; }
            default: {}
        }
        folds[lid] = mine;
        workgroupBarrier();
        if (h0 + h < params.heads && first < length) {
            let to = (r * params.heads + h0 + h) * params.spans + span;
            if (lid < LATENT_QUADS) {
                var v = vec4<f32>(0.0);
                for (var i = 0u; i < SHARES; i++) {
                    v += folds[i * LATENT_QUADS + lid];
                }
                sums[to * LATENT_QUADS + lid] = v;
            }
            if (lid == 0u) {
                let top = select(top_a, top_b, h >= 4u)[h & 3u];
                let total = select(total_a, total_b, h >= 4u)[h & 3u];
                weights[to] = vec2<f32>(top, total);
            }
        }
        workgroupBarrier();
    }
}
