// From a row's [q_a | latent | k_pe] to its absorbed queries and its cached row, for few rows (MLA, absorbed form):
//
//   q[h] = q_b_proj[h] q_a      query[h] = scale * [Wk[g(h)]^T q_nope | rope(q_pe)]      cache <- [latent | rope(k_pe)]
//
// One workgroup owns the absorbed part of one head of one row, another the roped part, one more appends the row to its
// slot's cache. For a head's rows of q_b_proj a team of TEAM lanes makes four outputs at a time; a lane takes every
// TEAM-th item of q_a: a group of 32 that is coded already (parts/project_i8.wgsl) or eight f32 (parts/project_f32.wgsl).
// All that a lane needs of memory is asked for before the first barrier.

override TEAM: u32;           // a power of two
override TEAMS: u32;          // WG / TEAM
override ROUNDS: u32;         // for max(nope, rope) outputs
override ITEMS: u32;          // of q_a
override PAIRS: bool;         // a lane has more items than one: two at a time
override LATENT_QUADS: u32;   // at most WG
override SHARES: u32;         // WG / LATENT_QUADS, rounded down: lanes that share a quad of the absorbed query
override EACH: u32;           // nope / SHARES, rounded up: rows of Wk of a lane
override HEAD_ROWS: u32;      // max(nope, rope), at most WG
override ROW_QUADS: u32;      // latent_quads + rope_quads

const AHEAD: u32 = 8u;        // rows of Wk that a lane asks for at once

struct Params {
    heads: u32,
    share: u32,          // query heads that share a kv head
    nope: u32,
    rope: u32,           // at most WG, padded to whole quads
    kv_rows: u32,        // nope + v: rows of kv_b_proj for each kv head
    kv_quads: u32,       // of a row of kv_b_proj, padded to groups of 32
    latent: u32,
    latent_quads: u32,
    rope_quads: u32,
    a_stride: u32,       // in quads
    a_groups: u32,       // of a coded row of a
    c_offset: u32,       // of the latent in a row, in f32
    k_offset: u32,       // of k_pe in a row, in f32
    row_words: u32,      // of a cached row
    context: u32,        // cached rows of a slot
    scale: f32,          // of the softmax
    first_slot: u32,     // see parts/slots.wgsl
    slots: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> a: array<vec4<f32>>;            // [rows, a_stride]: q_a, latent, k_pe
@group(0) @binding(3) var<storage, read> turns: array<vec2<f32>>;        // see parts/rope.wgsl
@group(0) @binding(4) var<storage, read_write> query: array<f32>;        // [rows, heads, 4 * ROW_QUADS]
@group(0) @binding(5) var<storage, read_write> latents: array<u32>;      // [slots here, context, row_words]

var<workgroup> q: array<f32, HEAD_ROWS>;
var<workgroup> folds: array<vec4<f32>, WG>;          // [SHARES, LATENT_QUADS]
var<workgroup> row_new: array<vec4<f32>, ROW_QUADS>; // latent quads, then rope quads

fn new_quad(i: u32) -> vec4<f32> { return row_new[i]; }

fn a_at(r: u32, i: u32) -> f32 {
    let at = min(i, 4u * params.a_stride - 1u);
    return a[r * params.a_stride + at / 4u][at % 4u];
}

fn new_latent(r: u32, i: u32) -> vec4<f32> {
    let at = params.c_offset + 4u * i;
    let v = vec4<f32>(a_at(r, at), a_at(r, at + 1u), a_at(r, at + 2u), a_at(r, at + 3u));
    return select(vec4<f32>(0.0), v, vec4<u32>(0u, 1u, 2u, 3u) + 4u * i < vec4<u32>(params.latent));
}

fn new_rope(r: u32, i: u32, position: u32) -> vec4<f32> {
    let at = params.k_offset + 4u * i;
    let first = vec2<f32>(a_at(r, at), a_at(r, at + 1u));
    let second = vec2<f32>(a_at(r, at + 2u), a_at(r, at + 3u));
    let pairs = params.rope / 2u;
    let t = turn(min(2u * i, pairs - 1u), position);
    let u = turn(min(2u * i + 1u, pairs - 1u), position);
    let v = vec4<f32>(turned_by(t, first), turned_by(u, second));
    return select(vec4<f32>(0.0), v, vec4<u32>(0u, 1u, 2u, 3u) + 4u * i < vec4<u32>(params.rope));
}

fn append(lane: u32, r: u32) {
    let row = row_at(r);
    for (var i = lane; i < ROW_QUADS; i += WG) {
        if (i < params.latent_quads) {
            row_new[i] = new_latent(r, i);
        } else {
            row_new[i] = new_rope(r, i - params.latent_quads, row.position);
        }
    }
    workgroupBarrier();
    // Of a cache cut by slots mla_latent.wgsl appends to the pieces after the first.
    if (row.live && is_here(row.slot) && row.position < params.context) {
        store_row((first_position(row.slot) + row.position) * params.row_words, lane, WG);
    }
}

// Rows first .. first + count of q_b_proj times q_a: `gather` has them after it.
fn project(lanes: Lanes, r: u32, first: u32, count: u32) {
    let lane = lane_index(lanes);
    let team = lane / TEAM;
    for (var round = 0u; round < ROUNDS; round++) {
        // Past the last one it is made again, and nobody reads that.
        let rows = first + min(4u * (round * TEAMS + team) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
        var sum = vec4<f32>(0.0);
        if (PAIRS) {
            for (var i = lane % TEAM; i < ITEMS; i += 2u * TEAM) {
                let both = i + TEAM < ITEMS;
                let j = select(i, i + TEAM, both);
                let w0 = weights_at(rows, i);
                let w1 = weights_at(rows, j);
                let x0 = input_at(r, i);
                let x1 = input_at(r, j);
                sum += products(w0, x0) + select(0.0, 1.0, both) * products(w1, x1);
            }
        } else if (lane % TEAM < ITEMS) {
            sum = products(weights_at(rows, lane % TEAM), input_at(r, lane % TEAM));
        }
        put(lanes, round, sum);
    }
}

// q[0 .. count), for every lane.
fn gather(lanes: Lanes, count: u32) {
    let lane = lane_index(lanes);
    workgroupBarrier();
    if (lane < count) {
        q[lane] = together(lanes, lane / (4u * TEAMS), lane % 4u, lane / 4u % TEAMS);
    }
    workgroupBarrier();
}

// q[i], 0 past the last one.
fn nope_at(i: u32) -> f32 { return select(0.0, q[min(i, params.nope - 1u)], i < params.nope); }

fn fold(share: u32, column: u32) -> f32 {
    let value = folds[min(share, SHARES - 1u) * LATENT_QUADS + column / 4u][column % 4u];
    return select(0.0, value, share < SHARES);
}

fn absorb(lanes: Lanes, r: u32, h: u32) {
    let lane = lane_index(lanes);
    let share = lane / LATENT_QUADS;
    let last = params.nope - 1u;
    let wk = h / params.share * params.kv_rows * params.kv_quads + lane % LATENT_QUADS;
    let w0 = kv_b_at(wk + min(share, last) * params.kv_quads);
    var w1 = w0;
    var w2 = w0;
    var w3 = w0;
    var w4 = w0;
    var w5 = w0;
    var w6 = w0;
    var w7 = w0;
    if (EACH > 1u) { w1 = kv_b_at(wk + min(share + SHARES, last) * params.kv_quads); }
    if (EACH > 2u) { w2 = kv_b_at(wk + min(share + 2u * SHARES, last) * params.kv_quads); }
    if (EACH > 3u) { w3 = kv_b_at(wk + min(share + 3u * SHARES, last) * params.kv_quads); }
    if (EACH > 4u) { w4 = kv_b_at(wk + min(share + 4u * SHARES, last) * params.kv_quads); }
    if (EACH > 5u) { w5 = kv_b_at(wk + min(share + 5u * SHARES, last) * params.kv_quads); }
    if (EACH > 6u) { w6 = kv_b_at(wk + min(share + 6u * SHARES, last) * params.kv_quads); }
    if (EACH > 7u) { w7 = kv_b_at(wk + min(share + 7u * SHARES, last) * params.kv_quads); }

    project(lanes, r, h * (params.nope + params.rope), params.nope);
    gather(lanes, params.nope);

    var part = nope_at(share) * kv_b_values(w0);
    if (EACH > 1u) { part += nope_at(share + SHARES) * kv_b_values(w1); }
    if (EACH > 2u) { part += nope_at(share + 2u * SHARES) * kv_b_values(w2); }
    if (EACH > 3u) { part += nope_at(share + 3u * SHARES) * kv_b_values(w3); }
    if (EACH > 4u) { part += nope_at(share + 4u * SHARES) * kv_b_values(w4); }
    if (EACH > 5u) { part += nope_at(share + 5u * SHARES) * kv_b_values(w5); }
    if (EACH > 6u) { part += nope_at(share + 6u * SHARES) * kv_b_values(w6); }
    if (EACH > 7u) { part += nope_at(share + 7u * SHARES) * kv_b_values(w7); }
    for (var i = share + AHEAD * SHARES; i < params.nope; i += SHARES) {
        part += q[i] * kv_b_values(kv_b_at(wk + i * params.kv_quads));
    }
    folds[lane] = part;
    workgroupBarrier();
    let to = 4u * (r * params.heads + h) * ROW_QUADS;
    for (var c = lane; c < 4u * LATENT_QUADS; c += WG) {
        var sum = 0.0;
        for (var s = 0u; s < SHARES; s += 8u) {
            sum += ((fold(s, c) + fold(s + 1u, c)) + (fold(s + 2u, c) + fold(s + 3u, c)))
                + ((fold(s + 4u, c) + fold(s + 5u, c)) + (fold(s + 6u, c) + fold(s + 7u, c)));
        }
        query[to + c] = sum * params.scale;
    }
}

fn turn_query(lanes: Lanes, r: u32, h: u32) {
    let lane = lane_index(lanes);
    let e = min(lane, params.rope - 1u);
    // The turn waits for the row's position: its loads come after those of the product, and are under way in its end.
    let position = row_at(r).position;
    project(lanes, r, h * (params.nope + params.rope) + params.nope, params.rope);
    let t = turn(e / 2u, position);
    gather(lanes, params.rope);
    if (lane < 4u * params.rope_quads) {
        let both = turned_by(t, vec2<f32>(q[e & ~1u], q[e | 1u]));
        let to = 4u * ((r * params.heads + h) * ROW_QUADS + LATENT_QUADS);
        query[to + lane] = select(0.0, both[e & 1u] * params.scale, lane < params.rope);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, lanes: Lanes) {
    let r = wid.z;
    if (wid.x < params.heads) {
        absorb(lanes, r, wid.x);
    } else if (wid.x < 2u * params.heads) {
        turn_query(lanes, r, wid.x - params.heads);
    } else {
        append(lane_index(lanes), r);
    }
}
