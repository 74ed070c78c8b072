// mla_attend_coop.wgsl for latents too wide for it: the queries of all lines would not fit beside a tile.
//
// One workgroup owns LINES heads of one row and a span of positions, which it walks in tiles of TILE. Each subgroup
// owns a part of a key's columns, of which it keeps the queries' matrices in registers, and columns of matrices of the
// values. For each tile
//   1. the cached rows become f16 in workgroup memory, by rounds of all lanes, and the next tile's are asked for;
//   2. a subgroup multiplies its columns of all lines at SIDE positions, and leaves its part of the scores;
//   3. LINE_LANES lanes put a line's scores together, a quad each, and weigh them; where a tile has half as many quads,
//      two of them share one's parts;
//   4. a subgroup sums its columns of the values for all lines.
// Weights are taken by a maximum that only moves when a score exceeds it by RISE, and queries are divided by a power of
// two, as in mla_attend_coop.wgsl.

override LANES: u32;          // of a subgroup: SIDE * SIDE / 8
override LATENT_QUADS: u32;   // of a row, before those of the rope
override ROW_QUADS: u32;      // latent_quads + rope_quads
override ROW_VEC4: u32;       // of a cached row
override TILES: u32;          // matrices along the positions: 1 or 2
override STEPS: u32;          // matrices of a key for each subgroup: 8 at most
override WHOLE: bool;         // heads fill their blocks, and values their matrices: sums are put out as they are

const SUBGROUPS: u32 = 8u;
const KV_HEADS: u32 = 1u;     // for parts/coop_cache_*.wgsl: rows of a position
const QUADS: u32 = SIDE / 4u; // of a matrix's row
const LINES: u32 = 2u * SIDE;
const RISE: f32 = 8.0;
const NONE: f32 = -1e30;

override WG: u32 = SUBGROUPS * LANES;
override TILE: u32 = TILES * SIDE;               // positions
override TILE_QUADS: u32 = TILES * QUADS;
override NEIGHBOURS: u32 = TILE_QUADS;           // for parts/coop_line.wgsl
override PARTS: u32 = SUBGROUPS / TILES;         // of a key's columns
override LINE_LANES: u32 = WG / LINES;           // 2 * QUADS: as many as a tile's quads, or twice
override QUERY_LANES: u32 = WG / SIDE;           // of a line whose query is read
override FILLED: u32 = PARTS * STEPS * QUADS;    // of a row in workgroup memory
override QUERY_ROUNDS: u32 = FILLED / QUERY_LANES;   // 16 at most
override PITCH: u32 = FILLED + 2u;               // 16 bytes over, so that rows lie in different banks
override VALUE_COLUMNS: u32 = (LATENT_QUADS + QUADS - 1u) / QUADS;              // of matrices
override COLUMNS: u32 = (VALUE_COLUMNS + SUBGROUPS - 1u) / SUBGROUPS;           // of a subgroup: 8 at most
const SCORE_PITCH: u32 = SUBGROUPS * QUADS + 2u;
override SHARE_PITCH: u32 = TILE_QUADS + 2u;

override CACHED: u32 = TILE * PITCH;
const SCORES: u32 = LINES * SCORE_PITCH;
override SHARES: u32 = LINES * SHARE_PITCH;

struct Params {
    heads: u32,
    context: u32,        // positions of a slot
    blocks: u32,         // of heads: heads / LINES, rounded up
    spans: u32,          // at most, of a row
    parts: u32,          // at most, spans of all rows of a step; of fewer rows than that
    group: u32,          // heads: all share a row
    first_slot: u32,     // see parts/slots.wgsl
    slots: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;           // [rows, heads, ROW_QUADS]
@group(0) @binding(3) var<storage, read> latents: array<vec4<u32>>;         // [slots here, context, ROW_VEC4]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;      // [rows, heads, spans, LATENT_QUADS]
@group(0) @binding(5) var<storage, read_write> weights: array<vec2<f32>>;   // [rows, heads, spans] (maximum, sum)

// Each is whole 16 bytes long: see mla_attend_coop.wgsl.
var<workgroup> tile: array<vec4<f16>, CACHED>;     // [TILE, PITCH]; before, queries of SIDE lines
var<workgroup> scores: array<vec4<f32>, SCORES>;   // [LINES, PARTS, TILE_QUADS], SCORE_PITCH apart; or two matrices of
                                                   // each subgroup, of all lines
var<workgroup> shares: array<vec4<f16>, SHARES>;   // [LINES, SHARE_PITCH]: weights
var<workgroup> fades: array<f32, LINES>;           // of what was summed before this tile; first, what scales scores up
var<workgroup> risen: vec4<u32>;                   // .x: whether any of them is not 1

// What a lane reads of a line's query: every QUERY_LANES-th quad.
struct Queries {
    q0: vec4<f32>,
    q1: vec4<f32>,
    q2: vec4<f32>,
    q3: vec4<f32>,
    q4: vec4<f32>,
    q5: vec4<f32>,
    q6: vec4<f32>,
    q7: vec4<f32>,
    q8: vec4<f32>,
    q9: vec4<f32>,
    q10: vec4<f32>,
    q11: vec4<f32>,
    q12: vec4<f32>,
    q13: vec4<f32>,
    q14: vec4<f32>,
    q15: vec4<f32>,
}

fn query_quad(start: u32, q: u32, there: bool) -> vec4<f32> {
    if (there && q < ROW_QUADS) {
        return query[start + q];
    }
    return vec4<f32>(0.0);
}

// Of a row's head, of which `there` are.
fn ask_queries(row: u32, head: u32, there: bool, lid: u32) -> Queries {
    let at = (row * params.heads + head) * ROW_QUADS;
    let part = lid % QUERY_LANES;
    var a: Queries;
    a.q0 = query_quad(at, part, there);
    if (QUERY_ROUNDS > 1u) { a.q1 = query_quad(at, part + 1u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 2u) { a.q2 = query_quad(at, part + 2u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 3u) { a.q3 = query_quad(at, part + 3u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 4u) { a.q4 = query_quad(at, part + 4u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 5u) { a.q5 = query_quad(at, part + 5u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 6u) { a.q6 = query_quad(at, part + 6u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 7u) { a.q7 = query_quad(at, part + 7u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 8u) { a.q8 = query_quad(at, part + 8u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 9u) { a.q9 = query_quad(at, part + 9u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 10u) { a.q10 = query_quad(at, part + 10u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 11u) { a.q11 = query_quad(at, part + 11u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 12u) { a.q12 = query_quad(at, part + 12u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 13u) { a.q13 = query_quad(at, part + 13u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 14u) { a.q14 = query_quad(at, part + 14u * QUERY_LANES, there); }
    if (QUERY_ROUNDS > 15u) { a.q15 = query_quad(at, part + 15u * QUERY_LANES, there); }
    return a;
}

// Into the tile, so scaled that the largest number lies in 16 .. 32. Says what scales scores back.
fn keep_queries(a: Queries, lid: u32) -> f32 {
    var m = max(max(max(abs(a.q0), abs(a.q1)), max(abs(a.q2), abs(a.q3))),
                max(max(abs(a.q4), abs(a.q5)), max(abs(a.q6), abs(a.q7))));
    m = max(m, max(max(max(abs(a.q8), abs(a.q9)), max(abs(a.q10), abs(a.q11))),
                   max(max(abs(a.q12), abs(a.q13)), max(abs(a.q14), abs(a.q15)))));
    var largest = max(max(m.x, m.y), max(m.z, m.w));
    largest = max(largest, subgroupShuffleXor(largest, 1u));
    largest = max(largest, subgroupShuffleXor(largest, 2u));
    largest = max(largest, subgroupShuffleXor(largest, 4u));
    if (QUERY_LANES > 8u) {
        largest = max(largest, subgroupShuffleXor(largest, 8u));
    }
    // Its exponent's bits; no smaller than what the power and its inverse both are normal numbers for.
    let bits = clamp((bitcast<u32>(largest) >> 23u) & 255u, 5u, 254u);
    let down = bitcast<f32>((258u - bits) << 23u);
    let to = lid / QUERY_LANES * PITCH + lid % QUERY_LANES;
    tile[to] = vec4<f16>(a.q0 * down);
    if (QUERY_ROUNDS > 1u) { tile[to + 1u * QUERY_LANES] = vec4<f16>(a.q1 * down); }
    if (QUERY_ROUNDS > 2u) { tile[to + 2u * QUERY_LANES] = vec4<f16>(a.q2 * down); }
    if (QUERY_ROUNDS > 3u) { tile[to + 3u * QUERY_LANES] = vec4<f16>(a.q3 * down); }
    if (QUERY_ROUNDS > 4u) { tile[to + 4u * QUERY_LANES] = vec4<f16>(a.q4 * down); }
    if (QUERY_ROUNDS > 5u) { tile[to + 5u * QUERY_LANES] = vec4<f16>(a.q5 * down); }
    if (QUERY_ROUNDS > 6u) { tile[to + 6u * QUERY_LANES] = vec4<f16>(a.q6 * down); }
    if (QUERY_ROUNDS > 7u) { tile[to + 7u * QUERY_LANES] = vec4<f16>(a.q7 * down); }
    if (QUERY_ROUNDS > 8u) { tile[to + 8u * QUERY_LANES] = vec4<f16>(a.q8 * down); }
    if (QUERY_ROUNDS > 9u) { tile[to + 9u * QUERY_LANES] = vec4<f16>(a.q9 * down); }
    if (QUERY_ROUNDS > 10u) { tile[to + 10u * QUERY_LANES] = vec4<f16>(a.q10 * down); }
    if (QUERY_ROUNDS > 11u) { tile[to + 11u * QUERY_LANES] = vec4<f16>(a.q11 * down); }
    if (QUERY_ROUNDS > 12u) { tile[to + 12u * QUERY_LANES] = vec4<f16>(a.q12 * down); }
    if (QUERY_ROUNDS > 13u) { tile[to + 13u * QUERY_LANES] = vec4<f16>(a.q13 * down); }
    if (QUERY_ROUNDS > 14u) { tile[to + 14u * QUERY_LANES] = vec4<f16>(a.q14 * down); }
    if (QUERY_ROUNDS > 15u) { tile[to + 15u * QUERY_LANES] = vec4<f16>(a.q15 * down); }
    return bitcast<f32>((bits - 4u) << 23u);
}

// Scales the two matrices that a subgroup has in `scores`.
fn fade(mine: u32, lane: u32) {
    for (var at = lane; at < LINES * QUADS; at += LANES) {
        scores[mine + at] *= fades[at / QUADS];
    }
}

// Puts them out: columns from quad q0 on.
fn finish(mine: u32, lane: u32, row: u32, head: u32, q0: u32, number: u32, spans: u32) {
    for (var at = lane; at < LINES * QUADS; at += LANES) {
        let h = head + at / QUADS;
        let q = q0 + at % QUADS;
        if (h < params.heads && q < LATENT_QUADS) {
            sums[((row * params.heads + h) * spans + number) * LATENT_QUADS + q] = scores[mine + at];
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let lid = subgroup * LANES + lane;
    let item = wid.y * groups.x + wid.x;
    let head = item % params.blocks * LINES;
    let number = item / params.blocks;
    // Queries first: their loads wait for nothing.
    let query_line = head + lid / QUERY_LANES;
    let queries_0 = ask_queries(wid.z, query_line, query_line < params.heads, lid);
    let queries_1 = ask_queries(wid.z, query_line + SIDE, query_line + SIDE < params.heads, lid);

    // row_at and span_of written out, or naga takes what they make for another value in each lane.
    let row = step[1u + wid.z];
    let length = min(row.z + 1u, params.context);
    let spans = spans_of_step();
    let span = (length + spans * SPAN_UNIT - 1u) / (spans * SPAN_UNIT) * SPAN_UNIT;
    let first = number * span;
    let end = min(first + span, length);
    if (first >= end) {
        return; // the whole workgroup: the grid has as many spans as the longest row
    }
    // parts/slots.wgsl written out: naga takes what a function makes of its arguments for another value in each lane.
    let slot = row.y - params.first_slot;
    if (slot >= params.slots) {
        return; // the whole workgroup: it has one row
    }
    let cached = slot * params.context;

    // The first tile: what a lane carries of it is under way at once, in the loop while the tile before is worked on.
    var count = min(TILE, end - first);
    var next_0: Cached;
    var next_1: Cached;
    var next_2: Cached;
    var next_3: Cached;
    var next_4: Cached;
    var next_5: Cached;
    var next_6: Cached;
    var next_7: Cached;
    if (ROUNDS > 0u) { next_0 = ask(0u, lid, cached + first, count); }
    if (ROUNDS > 1u) { next_1 = ask(1u, lid, cached + first, count); }
    if (ROUNDS > 2u) { next_2 = ask(2u, lid, cached + first, count); }
    if (ROUNDS > 3u) { next_3 = ask(3u, lid, cached + first, count); }
    if (ROUNDS > 4u) { next_4 = ask(4u, lid, cached + first, count); }
    if (ROUNDS > 5u) { next_5 = ask(5u, lid, cached + first, count); }
    if (ROUNDS > 6u) { next_6 = ask(6u, lid, cached + first, count); }
    if (ROUNDS > 7u) { next_7 = ask(7u, lid, cached + first, count); }

    // The subgroup's columns of keys and its positions, and its columns of the values: one that is not there is
    // another's again, and has the same sums.
    let columns_from = subgroup / TILES * STEPS * QUADS;
    let key_from = subgroup % TILES * SIDE * PITCH + columns_from;
    let column_0 = min(subgroup, VALUE_COLUMNS - 1u);
    let column_1 = min(subgroup + SUBGROUPS, VALUE_COLUMNS - 1u);
    let column_2 = min(subgroup + 2u * SUBGROUPS, VALUE_COLUMNS - 1u);
    let column_3 = min(subgroup + 3u * SUBGROUPS, VALUE_COLUMNS - 1u);
    let column_4 = min(subgroup + 4u * SUBGROUPS, VALUE_COLUMNS - 1u);
    let column_5 = min(subgroup + 5u * SUBGROUPS, VALUE_COLUMNS - 1u);
    let column_6 = min(subgroup + 6u * SUBGROUPS, VALUE_COLUMNS - 1u);
    let column_7 = min(subgroup + 7u * SUBGROUPS, VALUE_COLUMNS - 1u);
    // Its parts of the scores, and its place in `scores` for others.
    let score_0 = subgroup / TILES * TILE_QUADS + subgroup % TILES * QUADS;
    let score_1 = SIDE * SCORE_PITCH + score_0;
    let mine = subgroup * (LINES * QUADS);
    let mine_1 = mine + SIDE * QUADS;

    // Queries: those of half the lines at a time. An array of matrices would not stay in registers.
    let up_0 = keep_queries(queries_0, lid);
    if (lid == 0u) {
        risen = vec4<u32>();
    }
    workgroupBarrier();
    var q00 = Left();
    var q01 = Left();
    var q02 = Left();
    var q03 = Left();
    var q04 = Left();
    var q05 = Left();
    var q06 = Left();
    var q07 = Left();
    if (STEPS > 0u) { q00 = coopLoadT<Left>(&tile[columns_from + 0u * QUADS], PITCH); }
    if (STEPS > 1u) { q01 = coopLoadT<Left>(&tile[columns_from + 1u * QUADS], PITCH); }
    if (STEPS > 2u) { q02 = coopLoadT<Left>(&tile[columns_from + 2u * QUADS], PITCH); }
    if (STEPS > 3u) { q03 = coopLoadT<Left>(&tile[columns_from + 3u * QUADS], PITCH); }
    if (STEPS > 4u) { q04 = coopLoadT<Left>(&tile[columns_from + 4u * QUADS], PITCH); }
    if (STEPS > 5u) { q05 = coopLoadT<Left>(&tile[columns_from + 5u * QUADS], PITCH); }
    if (STEPS > 6u) { q06 = coopLoadT<Left>(&tile[columns_from + 6u * QUADS], PITCH); }
    if (STEPS > 7u) { q07 = coopLoadT<Left>(&tile[columns_from + 7u * QUADS], PITCH); }
    workgroupBarrier();
    let up_1 = keep_queries(queries_1, lid);
    if (lid % QUERY_LANES == 0u) {
        fades[lid / QUERY_LANES] = up_0;
        fades[SIDE + lid / QUERY_LANES] = up_1;
    }
    workgroupBarrier();
    var q10 = Left();
    var q11 = Left();
    var q12 = Left();
    var q13 = Left();
    var q14 = Left();
    var q15 = Left();
    var q16 = Left();
    var q17 = Left();
    if (STEPS > 0u) { q10 = coopLoadT<Left>(&tile[columns_from + 0u * QUADS], PITCH); }
    if (STEPS > 1u) { q11 = coopLoadT<Left>(&tile[columns_from + 1u * QUADS], PITCH); }
    if (STEPS > 2u) { q12 = coopLoadT<Left>(&tile[columns_from + 2u * QUADS], PITCH); }
    if (STEPS > 3u) { q13 = coopLoadT<Left>(&tile[columns_from + 3u * QUADS], PITCH); }
    if (STEPS > 4u) { q14 = coopLoadT<Left>(&tile[columns_from + 4u * QUADS], PITCH); }
    if (STEPS > 5u) { q15 = coopLoadT<Left>(&tile[columns_from + 5u * QUADS], PITCH); }
    if (STEPS > 6u) { q16 = coopLoadT<Left>(&tile[columns_from + 6u * QUADS], PITCH); }
    if (STEPS > 7u) { q17 = coopLoadT<Left>(&tile[columns_from + 7u * QUADS], PITCH); }
    // Who weighs what: a line's quad of positions, of some of the parts.
    let line = lid / LINE_LANES;
    let quad = lid % TILE_QUADS;
    let parity = lid % LINE_LANES / TILE_QUADS;
    let up = fades[line];
    workgroupBarrier();
    // What pads the cached rows to whole matrices.
    for (var i = lid; i < TILE * (FILLED - ROW_QUADS); i += WG) {
        tile[i % TILE * PITCH + ROW_QUADS + i / TILE] = vec4<f16>();
    }
    var o00 = Sums();
    var o01 = Sums();
    var o02 = Sums();
    var o03 = Sums();
    var o04 = Sums();
    var o05 = Sums();
    var o06 = Sums();
    var o07 = Sums();
    var o10 = Sums();
    var o11 = Sums();
    var o12 = Sums();
    var o13 = Sums();
    var o14 = Sums();
    var o15 = Sums();
    var o16 = Sums();
    var o17 = Sums();
    var top = NONE;
    var total = 0.0; // of this lane's positions

    for (var at = first; at < end; at += TILE) {
        if (ROUNDS > 0u) { keep(0u, lid, next_0); }
        if (ROUNDS > 1u) { keep(1u, lid, next_1); }
        if (ROUNDS > 2u) { keep(2u, lid, next_2); }
        if (ROUNDS > 3u) { keep(3u, lid, next_3); }
        if (ROUNDS > 4u) { keep(4u, lid, next_4); }
        if (ROUNDS > 5u) { keep(5u, lid, next_5); }
        if (ROUNDS > 6u) { keep(6u, lid, next_6); }
        if (ROUNDS > 7u) { keep(7u, lid, next_7); }
        for (var j = 8u; j < ROUNDS; j++) {
            keep(j, lid, ask(j, lid, cached + at, count));
        }
        workgroupBarrier();
        let here = count;
        if (at + TILE < end) {
            let base = cached + at + TILE;
            count = min(TILE, end - at - TILE);
            if (ROUNDS > 0u) { next_0 = ask(0u, lid, base, count); }
            if (ROUNDS > 1u) { next_1 = ask(1u, lid, base, count); }
            if (ROUNDS > 2u) { next_2 = ask(2u, lid, base, count); }
            if (ROUNDS > 3u) { next_3 = ask(3u, lid, base, count); }
            if (ROUNDS > 4u) { next_4 = ask(4u, lid, base, count); }
            if (ROUNDS > 5u) { next_5 = ask(5u, lid, base, count); }
            if (ROUNDS > 6u) { next_6 = ask(6u, lid, base, count); }
            if (ROUNDS > 7u) { next_7 = ask(7u, lid, base, count); }
        }

        // Scores, of this subgroup's columns.
        var s0 = Sums();
        var s1 = Sums();
        if (STEPS > 0u) {
            let k = coopLoad<Right>(&tile[key_from + 0u * QUADS], PITCH);
            s0 = coopMultiplyAdd(q00, k, s0);
            s1 = coopMultiplyAdd(q10, k, s1);
        }
        if (STEPS > 1u) {
            let k = coopLoad<Right>(&tile[key_from + 1u * QUADS], PITCH);
            s0 = coopMultiplyAdd(q01, k, s0);
            s1 = coopMultiplyAdd(q11, k, s1);
        }
        if (STEPS > 2u) {
            let k = coopLoad<Right>(&tile[key_from + 2u * QUADS], PITCH);
            s0 = coopMultiplyAdd(q02, k, s0);
            s1 = coopMultiplyAdd(q12, k, s1);
        }
        if (STEPS > 3u) {
            let k = coopLoad<Right>(&tile[key_from + 3u * QUADS], PITCH);
            s0 = coopMultiplyAdd(q03, k, s0);
            s1 = coopMultiplyAdd(q13, k, s1);
        }
        if (STEPS > 4u) {
            let k = coopLoad<Right>(&tile[key_from + 4u * QUADS], PITCH);
            s0 = coopMultiplyAdd(q04, k, s0);
            s1 = coopMultiplyAdd(q14, k, s1);
        }
        if (STEPS > 5u) {
            let k = coopLoad<Right>(&tile[key_from + 5u * QUADS], PITCH);
            s0 = coopMultiplyAdd(q05, k, s0);
            s1 = coopMultiplyAdd(q15, k, s1);
        }
        if (STEPS > 6u) {
            let k = coopLoad<Right>(&tile[key_from + 6u * QUADS], PITCH);
            s0 = coopMultiplyAdd(q06, k, s0);
            s1 = coopMultiplyAdd(q16, k, s1);
        }
        if (STEPS > 7u) {
            let k = coopLoad<Right>(&tile[key_from + 7u * QUADS], PITCH);
            s0 = coopMultiplyAdd(q07, k, s0);
            s1 = coopMultiplyAdd(q17, k, s1);
        }
        coopStoreT(s0, &scores[score_0], SCORE_PITCH);
        coopStoreT(s1, &scores[score_1], SCORE_PITCH);
        workgroupBarrier();

        // Weights: neighbours read neighbouring parts. Lanes that share a quad come to the same.
        let part_at = line * SCORE_PITCH + parity * TILE_QUADS + quad;
        var part = (scores[part_at] + scores[part_at + LINE_LANES])
            + (scores[part_at + 2u * LINE_LANES] + scores[part_at + 3u * LINE_LANES]);
        if (TILES == 1u) {
            part += subgroupShuffleXor(part, TILE_QUADS);
        }
        let seen = vec4<u32>(0u, 1u, 2u, 3u) + 4u * quad < vec4<u32>(here);
        let score = select(vec4<f32>(NONE), part * up, seen);
        let most = most_of_line(max(max(score.x, score.y), max(score.z, score.w)));
        var faded = 1.0;
        if (most > top + RISE) {
            faded = exp(top - most);
            top = most;
            if (at > first) {
                risen = vec4<u32>(1u);
            }
        }
        let share = vec4<f16>(exp(score - top));
        if (parity == 0u) {
            shares[line * SHARE_PITCH + quad] = share;
            if (quad == 0u) {
                fades[line] = faded;
            }
        }
        let kept = vec4<f32>(share);
        total = total * faded + ((kept.x + kept.y) + (kept.z + kept.w));

        if (workgroupUniformLoad(&risen).x != 0u) {
            coopStoreT(o00, &scores[mine], QUADS);
            coopStoreT(o10, &scores[mine_1], QUADS);
            workgroupBarrier();
            fade(mine, lane);
            workgroupBarrier();
            o00 = coopLoadT<Sums>(&scores[mine], QUADS);
            o10 = coopLoadT<Sums>(&scores[mine_1], QUADS);
            if (COLUMNS > 1u) {
                workgroupBarrier();
                coopStoreT(o01, &scores[mine], QUADS);
                coopStoreT(o11, &scores[mine_1], QUADS);
                workgroupBarrier();
                fade(mine, lane);
                workgroupBarrier();
                o01 = coopLoadT<Sums>(&scores[mine], QUADS);
                o11 = coopLoadT<Sums>(&scores[mine_1], QUADS);
            }
            if (COLUMNS > 2u) {
                workgroupBarrier();
                coopStoreT(o02, &scores[mine], QUADS);
                coopStoreT(o12, &scores[mine_1], QUADS);
                workgroupBarrier();
                fade(mine, lane);
                workgroupBarrier();
                o02 = coopLoadT<Sums>(&scores[mine], QUADS);
                o12 = coopLoadT<Sums>(&scores[mine_1], QUADS);
            }
            if (COLUMNS > 3u) {
                workgroupBarrier();
                coopStoreT(o03, &scores[mine], QUADS);
                coopStoreT(o13, &scores[mine_1], QUADS);
                workgroupBarrier();
                fade(mine, lane);
                workgroupBarrier();
                o03 = coopLoadT<Sums>(&scores[mine], QUADS);
                o13 = coopLoadT<Sums>(&scores[mine_1], QUADS);
            }
            if (COLUMNS > 4u) {
                workgroupBarrier();
                coopStoreT(o04, &scores[mine], QUADS);
                coopStoreT(o14, &scores[mine_1], QUADS);
                workgroupBarrier();
                fade(mine, lane);
                workgroupBarrier();
                o04 = coopLoadT<Sums>(&scores[mine], QUADS);
                o14 = coopLoadT<Sums>(&scores[mine_1], QUADS);
            }
            if (COLUMNS > 5u) {
                workgroupBarrier();
                coopStoreT(o05, &scores[mine], QUADS);
                coopStoreT(o15, &scores[mine_1], QUADS);
                workgroupBarrier();
                fade(mine, lane);
                workgroupBarrier();
                o05 = coopLoadT<Sums>(&scores[mine], QUADS);
                o15 = coopLoadT<Sums>(&scores[mine_1], QUADS);
            }
            if (COLUMNS > 6u) {
                workgroupBarrier();
                coopStoreT(o06, &scores[mine], QUADS);
                coopStoreT(o16, &scores[mine_1], QUADS);
                workgroupBarrier();
                fade(mine, lane);
                workgroupBarrier();
                o06 = coopLoadT<Sums>(&scores[mine], QUADS);
                o16 = coopLoadT<Sums>(&scores[mine_1], QUADS);
            }
            if (COLUMNS > 7u) {
                workgroupBarrier();
                coopStoreT(o07, &scores[mine], QUADS);
                coopStoreT(o17, &scores[mine_1], QUADS);
                workgroupBarrier();
                fade(mine, lane);
                workgroupBarrier();
                o07 = coopLoadT<Sums>(&scores[mine], QUADS);
                o17 = coopLoadT<Sums>(&scores[mine_1], QUADS);
            }
            if (lid == 0u) {
                risen = vec4<u32>();
            }
        }

        // Weighted values.
        for (var k = 0u; k < TILES; k++) {
            let v_at = k * SIDE * PITCH;
            let a0 = coopLoadT<Left>(&shares[k * QUADS], SHARE_PITCH);
            let a1 = coopLoadT<Left>(&shares[SIDE * SHARE_PITCH + k * QUADS], SHARE_PITCH);
            if (COLUMNS > 0u) {
                let v = coopLoadT<Right>(&tile[v_at + column_0 * QUADS], PITCH);
                o00 = coopMultiplyAdd(a0, v, o00);
                o10 = coopMultiplyAdd(a1, v, o10);
            }
            if (COLUMNS > 1u) {
                let v = coopLoadT<Right>(&tile[v_at + column_1 * QUADS], PITCH);
                o01 = coopMultiplyAdd(a0, v, o01);
                o11 = coopMultiplyAdd(a1, v, o11);
            }
            if (COLUMNS > 2u) {
                let v = coopLoadT<Right>(&tile[v_at + column_2 * QUADS], PITCH);
                o02 = coopMultiplyAdd(a0, v, o02);
                o12 = coopMultiplyAdd(a1, v, o12);
            }
            if (COLUMNS > 3u) {
                let v = coopLoadT<Right>(&tile[v_at + column_3 * QUADS], PITCH);
                o03 = coopMultiplyAdd(a0, v, o03);
                o13 = coopMultiplyAdd(a1, v, o13);
            }
            if (COLUMNS > 4u) {
                let v = coopLoadT<Right>(&tile[v_at + column_4 * QUADS], PITCH);
                o04 = coopMultiplyAdd(a0, v, o04);
                o14 = coopMultiplyAdd(a1, v, o14);
            }
            if (COLUMNS > 5u) {
                let v = coopLoadT<Right>(&tile[v_at + column_5 * QUADS], PITCH);
                o05 = coopMultiplyAdd(a0, v, o05);
                o15 = coopMultiplyAdd(a1, v, o15);
            }
            if (COLUMNS > 6u) {
                let v = coopLoadT<Right>(&tile[v_at + column_6 * QUADS], PITCH);
                o06 = coopMultiplyAdd(a0, v, o06);
                o16 = coopMultiplyAdd(a1, v, o16);
            }
            if (COLUMNS > 7u) {
                let v = coopLoadT<Right>(&tile[v_at + column_7 * QUADS], PITCH);
                o07 = coopMultiplyAdd(a0, v, o07);
                o17 = coopMultiplyAdd(a1, v, o17);
            }
        }
        workgroupBarrier();
    }

    let all = sum_of_line(total);
    if (lid % LINE_LANES == 0u && head + line < params.heads) {
        weights[(wid.z * params.heads + head + line) * spans + number] = vec2<f32>(top, all);
    }
    if (WHOLE) {
        // naga wants names for what a store is told.
        let pitch = spans * LATENT_QUADS;
        let start = ((wid.z * params.heads + head) * spans + number) * LATENT_QUADS;
        let below = start + SIDE * pitch;
        if (COLUMNS > 0u) {
            let to = start + column_0 * QUADS;
            let to_below = below + column_0 * QUADS;
            coopStoreT(o00, &sums[to], pitch);
            coopStoreT(o10, &sums[to_below], pitch);
        }
        if (COLUMNS > 1u) {
            let to = start + column_1 * QUADS;
            let to_below = below + column_1 * QUADS;
            coopStoreT(o01, &sums[to], pitch);
            coopStoreT(o11, &sums[to_below], pitch);
        }
        if (COLUMNS > 2u) {
            let to = start + column_2 * QUADS;
            let to_below = below + column_2 * QUADS;
            coopStoreT(o02, &sums[to], pitch);
            coopStoreT(o12, &sums[to_below], pitch);
        }
        if (COLUMNS > 3u) {
            let to = start + column_3 * QUADS;
            let to_below = below + column_3 * QUADS;
            coopStoreT(o03, &sums[to], pitch);
            coopStoreT(o13, &sums[to_below], pitch);
        }
        if (COLUMNS > 4u) {
            let to = start + column_4 * QUADS;
            let to_below = below + column_4 * QUADS;
            coopStoreT(o04, &sums[to], pitch);
            coopStoreT(o14, &sums[to_below], pitch);
        }
        if (COLUMNS > 5u) {
            let to = start + column_5 * QUADS;
            let to_below = below + column_5 * QUADS;
            coopStoreT(o05, &sums[to], pitch);
            coopStoreT(o15, &sums[to_below], pitch);
        }
        if (COLUMNS > 6u) {
            let to = start + column_6 * QUADS;
            let to_below = below + column_6 * QUADS;
            coopStoreT(o06, &sums[to], pitch);
            coopStoreT(o16, &sums[to_below], pitch);
        }
        if (COLUMNS > 7u) {
            let to = start + column_7 * QUADS;
            let to_below = below + column_7 * QUADS;
            coopStoreT(o07, &sums[to], pitch);
            coopStoreT(o17, &sums[to_below], pitch);
        }
    } else {
        // Which elements of a cooperative matrix a lane has is not known: they go through workgroup memory.
        if (COLUMNS > 0u) {
            coopStoreT(o00, &scores[mine], QUADS);
            coopStoreT(o10, &scores[mine_1], QUADS);
            workgroupBarrier();
            finish(mine, lane, wid.z, head, column_0 * QUADS, number, spans);
        }
        if (COLUMNS > 1u) {
            workgroupBarrier();
            coopStoreT(o01, &scores[mine], QUADS);
            coopStoreT(o11, &scores[mine_1], QUADS);
            workgroupBarrier();
            finish(mine, lane, wid.z, head, column_1 * QUADS, number, spans);
        }
        if (COLUMNS > 2u) {
            workgroupBarrier();
            coopStoreT(o02, &scores[mine], QUADS);
            coopStoreT(o12, &scores[mine_1], QUADS);
            workgroupBarrier();
            finish(mine, lane, wid.z, head, column_2 * QUADS, number, spans);
        }
        if (COLUMNS > 3u) {
            workgroupBarrier();
            coopStoreT(o03, &scores[mine], QUADS);
            coopStoreT(o13, &scores[mine_1], QUADS);
            workgroupBarrier();
            finish(mine, lane, wid.z, head, column_3 * QUADS, number, spans);
        }
        if (COLUMNS > 4u) {
            workgroupBarrier();
            coopStoreT(o04, &scores[mine], QUADS);
            coopStoreT(o14, &scores[mine_1], QUADS);
            workgroupBarrier();
            finish(mine, lane, wid.z, head, column_4 * QUADS, number, spans);
        }
        if (COLUMNS > 5u) {
            workgroupBarrier();
            coopStoreT(o05, &scores[mine], QUADS);
            coopStoreT(o15, &scores[mine_1], QUADS);
            workgroupBarrier();
            finish(mine, lane, wid.z, head, column_5 * QUADS, number, spans);
        }
        if (COLUMNS > 6u) {
            workgroupBarrier();
            coopStoreT(o06, &scores[mine], QUADS);
            coopStoreT(o16, &scores[mine_1], QUADS);
            workgroupBarrier();
            finish(mine, lane, wid.z, head, column_6 * QUADS, number, spans);
        }
        if (COLUMNS > 7u) {
            workgroupBarrier();
            coopStoreT(o07, &scores[mine], QUADS);
            coopStoreT(o17, &scores[mine_1], QUADS);
            workgroupBarrier();
            finish(mine, lane, wid.z, head, column_7 * QUADS, number, spans);
        }
    }
}
