// From a row's [q_a | latent | k_pe] to its absorbed queries and its cached row, for few rows (MLA, absorbed form):
//
//   q[h] = q_b_proj[h] q_a      query[h] = scale * [Wk[g(h)]^T q_nope | rope(q_pe)]      cache <- [latent | rope(k_pe)]
//
// One workgroup owns one head of one row: first the head's own rows of q_b_proj, SPLIT lanes to each, then the absorption
// as in mla_query.wgsl. One workgroup more appends the row to its slot's cache, as mla_latent.wgsl does.

override WG: u32;
override X_QUADS: u32;        // of q_a, padded to groups of 32
override SPLIT: u32;          // lanes that share a row of q_b_proj: WG / (nope + rope), rounded down
override LATENT_QUADS: u32;   // at most WG
override SHARES: u32;         // WG / LATENT_QUADS, rounded down: lanes that share a quad of the absorbed query
override HEAD_ROWS: u32;      // nope + rope, at most WG
override ROW_QUADS: u32;      // latent_quads + rope_quads

struct Params {
    heads: u32,
    share: u32,          // query heads that share a kv head
    nope: u32,
    rope: u32,
    kv_rows: u32,        // nope + v: rows of kv_b_proj for each kv head
    kv_quads: u32,       // of a row of kv_b_proj, padded to groups of 32
    latent: u32,
    latent_quads: u32,
    rope_quads: u32,
    a_stride: u32,       // in quads
    c_offset: u32,       // of the latent in a row, in f32
    k_offset: u32,       // of k_pe in a row, in f32
    row_words: u32,      // of a cached row
    context: u32,        // cached rows of a slot
    scale: f32,          // of the softmax
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> a: array<vec4<f32>>;            // [rows, a_stride]: q_a, latent, k_pe
@group(0) @binding(3) var<storage, read> turns: array<vec2<f32>>;        // see parts/rope.wgsl
@group(0) @binding(4) var<storage, read_write> query: array<vec4<f32>>;  // [rows, heads, latent_quads + rope_quads]
@group(0) @binding(5) var<storage, read_write> latents: array<u32>;      // [slots, context, row_words]

var<workgroup> x: array<vec4<f32>, X_QUADS>;
var<workgroup> folds: array<vec4<f32>, WG>;
var<workgroup> q: array<f32, HEAD_ROWS>;
var<workgroup> row_new: array<vec4<f32>, ROW_QUADS>; // latent quads, then rope quads

fn new_quad(i: u32) -> vec4<f32> { return row_new[i]; }

fn a_at(r: u32, i: u32) -> f32 { return a[r * params.a_stride + i / 4u][i % 4u]; }

fn append(r: u32, lid: u32) {
    let row = row_at(r);
    for (var i = lid; i < ROW_QUADS; i += WG) {
        var v = vec4<f32>(0.0);
        for (var j = 0u; j < 4u; j++) {
            if (i < params.latent_quads) {
                if (4u * i + j < params.latent) {
                    v[j] = a_at(r, params.c_offset + 4u * i + j);
                }
            } else {
                let e = 4u * (i - params.latent_quads) + j;
                if (e < params.rope) {
                    let even = params.k_offset + (e & ~1u);
                    v[j] = turned(vec2<f32>(a_at(r, even), a_at(r, even + 1u)), e, row.position);
                }
            }
        }
        row_new[i] = v;
    }
    workgroupBarrier();
    if (row.live && row.position < params.context) {
        store_row((row.slot * params.context + row.position) * params.row_words, lid, WG);
    }
}

// Eight weights times the eight of q_a that start at 8 * oct.
fn times_x(w: mat2x4<f32>, oct: u32) -> f32 {
    let at = min(2u * oct, X_QUADS - 2u);
    return select(0.0, dot(w[0], x[at]) + dot(w[1], x[at + 1u]), 2u * oct < X_QUADS);
}

fn project(r: u32, h: u32, lid: u32) {
    // A lane's first four eights of its row, and what it absorbs first, are under way before q_a is there.
    let octs = X_QUADS / 2u;
    let d = lid / SPLIT;
    let row_at_w = (h * HEAD_ROWS + min(d, HEAD_ROWS - 1u)) * octs;
    let oct0 = lid % SPLIT;
    var w0 = weight_oct(row_at_w + min(oct0, octs - 1u));
    var w1 = weight_oct(row_at_w + min(oct0 + SPLIT, octs - 1u));
    var w2 = weight_oct(row_at_w + min(oct0 + 2u * SPLIT, octs - 1u));
    var w3 = weight_oct(row_at_w + min(oct0 + 3u * SPLIT, octs - 1u));
    let share = lid / LATENT_QUADS;
    let quad = lid % LATENT_QUADS;
    let wk = h / params.share * params.kv_rows * params.kv_quads;
    let absorbed = kv_b_quad(wk + min(share, params.nope - 1u) * params.kv_quads + quad);
    let position = row_at(r).position;
    for (var i = lid; i < X_QUADS; i += WG) {
        x[i] = a[r * params.a_stride + i];
    }
    workgroupBarrier();
    if (d < HEAD_ROWS) {
        var sum = 0.0;
        for (var oct = oct0; oct < octs; oct += 4u * SPLIT) {
            if (oct != oct0) {
                w0 = weight_oct(row_at_w + oct);
                w1 = weight_oct(row_at_w + min(oct + SPLIT, octs - 1u));
                w2 = weight_oct(row_at_w + min(oct + 2u * SPLIT, octs - 1u));
                w3 = weight_oct(row_at_w + min(oct + 3u * SPLIT, octs - 1u));
            }
            // What hangs over the row's end counts for nothing.
            sum += times_x(w0, oct) + times_x(w1, oct + SPLIT) + times_x(w2, oct + 2u * SPLIT)
                + times_x(w3, oct + 3u * SPLIT);
        }
        folds[lid] = vec4<f32>(sum);
    }
    workgroupBarrier();
    if (lid < HEAD_ROWS) {
        var sum = 0.0;
        for (var i = 0u; i < SPLIT; i++) {
            sum += folds[lid * SPLIT + i].x;
        }
        q[lid] = sum;
    }
    workgroupBarrier();

    var part = vec4<f32>(0.0);
    if (share < SHARES && share < params.nope) {
        part = q[share] * absorbed;
        for (var i = share + SHARES; i < params.nope; i += SHARES) {
            part += q[i] * kv_b_quad(wk + i * params.kv_quads + quad);
        }
    }
    folds[lid] = part;
    workgroupBarrier();
    let to = (r * params.heads + h) * ROW_QUADS;
    if (lid < LATENT_QUADS) {
        var sum = vec4<f32>(0.0);
        for (var i = 0u; i < SHARES; i++) {
            sum += folds[i * LATENT_QUADS + lid];
        }
        query[to + lid] = sum * params.scale;
    }
    for (var i = lid; i < params.rope_quads; i += WG) {
        var v = vec4<f32>(0.0);
        for (var j = 0u; j < 4u; j++) {
            let e = 4u * i + j;
            if (e < params.rope) {
                let even = params.nope + (e & ~1u);
                v[j] = turned(vec2<f32>(q[even], q[even + 1u]), e, position);
            }
        }
        query[to + LATENT_QUADS + i] = v * params.scale;
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    if (wid.x == params.heads) {
        append(wid.z, lid);
    } else {
        project(wid.z, wid.x, lid);
    }
}
