// mla_attend.wgsl on cooperative matrices for single rows of grouped queries: factors of f16, sums of f32. For rows
// cached in f16 or int8.
//
// One workgroup owns up to SIDE heads of a kv head of one row and a span of positions, and is one subgroup: a barrier
// waits for no other, and subgroups of different spans hide each other's waits. It walks the span in tiles of TILE. For
// each
//   1. the tile's values and keys go to workgroup memory as factors, and the next tile's are asked for;
//   2. scores are the queries, which stay in registers, times the keys: lines are heads;
//   3. LINE_LANES lanes weigh a line's positions, PAIRS pairs each;
//   4. weights times values: the sums' matrices stay in registers.
// Weights are taken by a maximum that only moves when a score exceeds it by RISE, as in mla_attend_coop.wgsl.
//
// Factors of int8 are codes: their scales, one of each of GROUPS groups of columns, are left to scores and weights,
// which are few. So there is a matrix of scores and one of weights for each group; see parts/gqa_coop_q8.wgsl.
//
// Quads of a key, and of a value, lie in workgroup memory in the order in which lanes store them without meeting in a
// bank. Queries lie in the same order, and what is put out is taken back from it.
//
// f16 holds neither large nor tiny numbers: each line's query is divided by a power of two, by which its scores are
// multiplied.

override LANES: u32;          // of a subgroup: SIDE * SIDE / 8
override TILES: u32;          // matrices along the positions: 1 or 2
override HEAD_QUADS: u32;     // of a key, and of a value: 8 matrices at most
override LINES: u32;          // that are weighed: 4, or a power of two up to SIDE
override KV_HEADS: u32;       // rows of a position
override ROW_VEC4: u32;       // of a cached row

const QUADS: u32 = SIDE / 4u; // of a matrix's row
const HALF: u32 = SIDE / 2u;  // pairs of a matrix's row
const RISE: f32 = 4.0;
const NONE: f32 = -1e30;

override TILE: u32 = TILES * SIDE;                // positions
override STEPS: u32 = HEAD_QUADS / QUADS;         // matrices along a key, or a value; of group step % GROUPS
override PITCH: u32 = HEAD_QUADS + 2u;            // 16 bytes over, so that rows lie in different banks
override KEYS: u32 = TILE * PITCH;                // where they begin
override SECOND: u32 = KEYS - SIDE * PITCH;       // where the last matrix of positions begins
override LINE_LANES: u32 = LANES / LINES;
override PAIRS: u32 = TILE / (2u * LINE_LANES);   // 8 at most
override SCORE_PITCH: u32 = TILES * HALF + 4u;
override PLANE: u32 = SIDE * SCORE_PITCH;         // of a group

// Who carries what: VECS lanes a row's value or key, in each round TEAMS rows.
override VECS: u32 = HEAD_QUADS / EACH;
override TEAMS: u32 = LANES / VECS;
override ROUNDS: u32 = TILE / TEAMS;              // 8 at most

override TILE_QUADS: u32 = 2u * TILE * PITCH;
override SCORES: u32 = GROUPS * PLANE;

struct Params {
    heads: u32,
    context: u32,        // positions of a slot
    blocks: u32,         // of heads: of each kv head group / SIDE, rounded up
    spans: u32,          // at most, of a row
    parts: u32,          // at most, spans of all rows of a step; of fewer rows than that
    group: u32,          // heads of a kv head
    first_slot: u32,     // see parts/slots.wgsl
    slots: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;           // [rows, heads, HEAD_QUADS]
@group(0) @binding(3) var<storage, read> latents: array<vec4<u32>>;         // [slots here, context, KV_HEADS, ROW_VEC4]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;      // [rows, heads, spans, HEAD_QUADS]
@group(0) @binding(5) var<storage, read_write> weights: array<vec2<f32>>;   // [rows, heads, spans] (maximum, sum)

// Matrices begin at multiples of 16 bytes, see mla_attend_coop.wgsl: each of these is whole 16 bytes long.
var<workgroup> tile: array<vec4<f16>, TILE_QUADS>;  // [values, keys][TILE, PITCH]; queries in the place of keys
var<workgroup> scores: array<vec2<f32>, SCORES>;    // [GROUPS][SIDE, SCORE_PITCH]; or a matrix of sums
var<workgroup> shares: array<vec2<f16>, SCORES>;    // [GROUPS][SIDE, SCORE_PITCH]: weights
var<workgroup> fades: array<f32, LINES>;            // of what was summed before this tile
var<workgroup> risen: vec4<u32>;                    // .x: whether a maximum moves; .y: and there are sums before it

fn query_quad(start: u32, q: u32, there: bool) -> vec4<f32> {
    if (there && q < HEAD_QUADS) {
        return query[start + q];
    }
    return vec4<f32>(0.0);
}

fn keep_query(line: u32, q: u32, v: vec4<f32>) {
    if (q < HEAD_QUADS) {
        tile[KEYS + line * PITCH + slot_of(q)] = vec4<f16>(ordered(v));
    }
}

// The first vec4 of the cached row of a position. Past the last one it is the last one's, whose weight is dropped.
fn cached_row(cached: u32, position: u32, end: u32) -> u32 {
    return (cached + min(position, end - 1u) * KV_HEADS) * ROW_VEC4;
}

// The largest of a line's lanes, which are neighbours in the subgroup.
fn most_of_line(v: f32) -> f32 {
    var most = v;
    if (LINE_LANES > 1u) { most = max(most, subgroupShuffleXor(most, 1u)); }
    if (LINE_LANES > 2u) { most = max(most, subgroupShuffleXor(most, 2u)); }
    if (LINE_LANES > 4u) { most = max(most, subgroupShuffleXor(most, 4u)); }
    return most;
}

fn sum_of_line(v: f32) -> f32 {
    var sum = v;
    if (LINE_LANES > 1u) { sum += subgroupShuffleXor(sum, 1u); }
    if (LINE_LANES > 2u) { sum += subgroupShuffleXor(sum, 2u); }
    if (LINE_LANES > 4u) { sum += subgroupShuffleXor(sum, 4u); }
    return sum;
}

// A pair of scores of a line, of positions from `place` on, of which so many are there.
fn pair(i: u32, up: f32, place: u32, count: u32) -> vec2<f32> {
    return select(vec2<f32>(NONE), scored(i, place) * up, vec2<u32>(place, place + 1u) < vec2<u32>(count));
}

fn most_of(v: vec2<f32>) -> f32 { return max(v.x, v.y); }

// Scales the lines of the matrix that is in `scores`.
fn fade(lane: u32) {
    for (var i = lane; i < LINES * HALF; i += LANES) {
        scores[i / HALF * SCORE_PITCH + i % HALF] *= fades[i / HALF];
    }
}

// Puts the matrix out that is in `scores`: column c of matrices. `first` is the sum of the first line, `pitch` what is
// between those of two lines.
fn finish(lane: u32, lines: u32, first: u32, pitch: u32, c: u32) {
    for (var i = lane; i < lines * QUADS; i += LANES) {
        let line = i / QUADS;
        let q = i % QUADS;
        let at = line * SCORE_PITCH + 2u * q;
        sums[first + line * pitch + quad_of(c * QUADS + q)] =
            ordered(vec4<f32>(scores[at], scores[at + 1u])) / SHARE;
    }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(subgroup_invocation_id) lane: u32) {
    let item = wid.y * groups.x + wid.x;
    let number = item / params.blocks;
    let blocks = params.blocks / KV_HEADS;
    let kv_head = item % params.blocks / blocks;
    let head = kv_head * params.group + item % blocks * SIDE;
    let lines = min((kv_head + 1u) * params.group - head, SIDE);
    let r = wid.z;
    // Queries first: their loads wait for nothing.
    let line = lane / LINE_LANES;
    let part = lane % LINE_LANES;
    let there = line < lines;
    let query_at = (r * params.heads + head + line) * HEAD_QUADS;
    let query_0 = query_quad(query_at, part, there);
    let query_1 = query_quad(query_at, part + LINE_LANES, there);
    let query_2 = query_quad(query_at, part + 2u * LINE_LANES, there);
    let query_3 = query_quad(query_at, part + 3u * LINE_LANES, there);
    let query_4 = query_quad(query_at, part + 4u * LINE_LANES, there);
    let query_5 = query_quad(query_at, part + 5u * LINE_LANES, there);
    let query_6 = query_quad(query_at, part + 6u * LINE_LANES, there);
    let query_7 = query_quad(query_at, part + 7u * LINE_LANES, there);
    // row_at and span_of written out: what a function makes of its arguments naga takes for another value in each lane.
    let row = step[1u + r];
    let length = min(row.z + 1u, params.context);
    let spans = spans_of_step();
    let span = (length + spans * SPAN_UNIT - 1u) / (spans * SPAN_UNIT) * SPAN_UNIT;
    let first = number * span;
    if (first >= length) {
        return; // the whole workgroup: the grid has as many spans as the longest row
    }
    let end = min(first + span, length);
    // parts/slots.wgsl written out, for the same reason.
    let slot = row.y - params.first_slot;
    if (slot >= params.slots) {
        return; // the whole workgroup: it has one row
    }
    let cached = slot * params.context * KV_HEADS + kv_head;

    // The first tile. What a lane carries of one is asked for at once, and of the next one as soon as this one's is
    // kept.
    let piece = lane % VECS;
    let place = place_of(piece);
    let team = lane / VECS;
    var value_0: vec4<u32>;
    var value_1: vec4<u32>;
    var value_2: vec4<u32>;
    var value_3: vec4<u32>;
    var value_4: vec4<u32>;
    var value_5: vec4<u32>;
    var value_6: vec4<u32>;
    var value_7: vec4<u32>;
    var key_0: vec4<u32>;
    var key_1: vec4<u32>;
    var key_2: vec4<u32>;
    var key_3: vec4<u32>;
    var key_4: vec4<u32>;
    var key_5: vec4<u32>;
    var key_6: vec4<u32>;
    var key_7: vec4<u32>;
    var scales_0: vec4<u32>; // a row's, of so many rows
    var scales_1: vec4<u32>;
    if (ROUNDS > 0u) {
        let source = cached_row(cached, first + row_of(team, 0u), end) + piece;
        key_0 = latents[source + VECS];
        value_0 = latents[source];
    }
    if (ROUNDS > 1u) {
        let source = cached_row(cached, first + row_of(team, 1u), end) + piece;
        key_1 = latents[source + VECS];
        value_1 = latents[source];
    }
    if (ROUNDS > 2u) {
        let source = cached_row(cached, first + row_of(team, 2u), end) + piece;
        key_2 = latents[source + VECS];
        value_2 = latents[source];
    }
    if (ROUNDS > 3u) {
        let source = cached_row(cached, first + row_of(team, 3u), end) + piece;
        key_3 = latents[source + VECS];
        value_3 = latents[source];
    }
    if (ROUNDS > 4u) {
        let source = cached_row(cached, first + row_of(team, 4u), end) + piece;
        key_4 = latents[source + VECS];
        value_4 = latents[source];
    }
    if (ROUNDS > 5u) {
        let source = cached_row(cached, first + row_of(team, 5u), end) + piece;
        key_5 = latents[source + VECS];
        value_5 = latents[source];
    }
    if (ROUNDS > 6u) {
        let source = cached_row(cached, first + row_of(team, 6u), end) + piece;
        key_6 = latents[source + VECS];
        value_6 = latents[source];
    }
    if (ROUNDS > 7u) {
        let source = cached_row(cached, first + row_of(team, 7u), end) + piece;
        key_7 = latents[source + VECS];
        value_7 = latents[source];
    }
    if (SCALED) {
        scales_0 = latents[cached_row(cached, first + min(lane, TILE - 1u), end) + 2u * VECS];
        if (TILE > LANES) { scales_1 = latents[cached_row(cached, first + LANES + lane, end) + 2u * VECS]; }
    }

    // A line's power of two takes its largest number to 16 .. 32.
    var large = max(max(max(abs(query_0), abs(query_1)), max(abs(query_2), abs(query_3))),
                    max(max(abs(query_4), abs(query_5)), max(abs(query_6), abs(query_7))));
    for (var q = part + 8u * LINE_LANES; q < HEAD_QUADS; q += LINE_LANES) {
        large = max(large, abs(query_quad(query_at, q, there)));
    }
    let largest = most_of_line(max(max(large.x, large.y), max(large.z, large.w)));
    // Its exponent's bits; no smaller than what the power and its inverse both are normal numbers for.
    let bits = clamp((bitcast<u32>(largest) >> 23u) & 255u, 5u, 254u);
    let down = bitcast<f32>((258u - bits) << 23u);
    let up = bitcast<f32>((bits - 4u) << 23u);
    keep_query(line, part, query_0 * down);
    keep_query(line, part + LINE_LANES, query_1 * down);
    keep_query(line, part + 2u * LINE_LANES, query_2 * down);
    keep_query(line, part + 3u * LINE_LANES, query_3 * down);
    keep_query(line, part + 4u * LINE_LANES, query_4 * down);
    keep_query(line, part + 5u * LINE_LANES, query_5 * down);
    keep_query(line, part + 6u * LINE_LANES, query_6 * down);
    keep_query(line, part + 7u * LINE_LANES, query_7 * down);
    for (var q = part + 8u * LINE_LANES; q < HEAD_QUADS; q += LINE_LANES) {
        keep_query(line, q, query_quad(query_at, q, there) * down);
    }
    // Lines that are not weighed are zero: their queries and their weights.
    for (var i = lane; i < (SIDE - LINES) * HEAD_QUADS; i += LANES) {
        tile[KEYS + (LINES + i / HEAD_QUADS) * PITCH + i % HEAD_QUADS] = vec4<f16>();
    }
    for (var i = lane; i < SCORES; i += LANES) {
        shares[i] = vec2<f16>();
    }
    if (lane == 0u) {
        risen = vec4<u32>();
    }
    workgroupBarrier();
    // An array of matrices would not stay in registers.
    var q0 = Left();
    var q1 = Left();
    var q2 = Left();
    var q3 = Left();
    var q4 = Left();
    var q5 = Left();
    var q6 = Left();
    var q7 = Left();
    if (STEPS > 0u) { q0 = coopLoadT<Left>(&tile[KEYS + 0u * QUADS], PITCH); }
    if (STEPS > 1u) { q1 = coopLoadT<Left>(&tile[KEYS + 1u * QUADS], PITCH); }
    if (STEPS > 2u) { q2 = coopLoadT<Left>(&tile[KEYS + 2u * QUADS], PITCH); }
    if (STEPS > 3u) { q3 = coopLoadT<Left>(&tile[KEYS + 3u * QUADS], PITCH); }
    if (STEPS > 4u) { q4 = coopLoadT<Left>(&tile[KEYS + 4u * QUADS], PITCH); }
    if (STEPS > 5u) { q5 = coopLoadT<Left>(&tile[KEYS + 5u * QUADS], PITCH); }
    if (STEPS > 6u) { q6 = coopLoadT<Left>(&tile[KEYS + 6u * QUADS], PITCH); }
    if (STEPS > 7u) { q7 = coopLoadT<Left>(&tile[KEYS + 7u * QUADS], PITCH); }
    workgroupBarrier();
    var offset = Right(); // of factors
    if (SCALED) {
        for (var i = lane; i < SIDE * QUADS; i += LANES) {
            tile[KEYS + i / QUADS * PITCH + i % QUADS] = vec4<f16>(OFFSET);
        }
        workgroupBarrier();
        offset = coopLoad<Right>(&tile[KEYS], PITCH);
        workgroupBarrier();
    }
    var o0 = Sums();
    var o1 = Sums();
    var o2 = Sums();
    var o3 = Sums();
    var o4 = Sums();
    var o5 = Sums();
    var o6 = Sums();
    var o7 = Sums();
    var top = NONE;
    var total = 0.0; // of this lane's positions

    for (var at = first; at < end; at += TILE) {
        // Behind the last tile it is the last row that is asked for: no branch is between loads.
        if (ROUNDS > 0u) {
            let to = row_of(team, 0u) * PITCH + place;
            keep(KEYS + to, key_0);
            keep(to, value_0);
            let source = cached_row(cached, at + TILE + row_of(team, 0u), end) + piece;
            key_0 = latents[source + VECS];
            value_0 = latents[source];
        }
        if (ROUNDS > 1u) {
            let to = row_of(team, 1u) * PITCH + place;
            keep(KEYS + to, key_1);
            keep(to, value_1);
            let source = cached_row(cached, at + TILE + row_of(team, 1u), end) + piece;
            key_1 = latents[source + VECS];
            value_1 = latents[source];
        }
        if (ROUNDS > 2u) {
            let to = row_of(team, 2u) * PITCH + place;
            keep(KEYS + to, key_2);
            keep(to, value_2);
            let source = cached_row(cached, at + TILE + row_of(team, 2u), end) + piece;
            key_2 = latents[source + VECS];
            value_2 = latents[source];
        }
        if (ROUNDS > 3u) {
            let to = row_of(team, 3u) * PITCH + place;
            keep(KEYS + to, key_3);
            keep(to, value_3);
            let source = cached_row(cached, at + TILE + row_of(team, 3u), end) + piece;
            key_3 = latents[source + VECS];
            value_3 = latents[source];
        }
        if (ROUNDS > 4u) {
            let to = row_of(team, 4u) * PITCH + place;
            keep(KEYS + to, key_4);
            keep(to, value_4);
            let source = cached_row(cached, at + TILE + row_of(team, 4u), end) + piece;
            key_4 = latents[source + VECS];
            value_4 = latents[source];
        }
        if (ROUNDS > 5u) {
            let to = row_of(team, 5u) * PITCH + place;
            keep(KEYS + to, key_5);
            keep(to, value_5);
            let source = cached_row(cached, at + TILE + row_of(team, 5u), end) + piece;
            key_5 = latents[source + VECS];
            value_5 = latents[source];
        }
        if (ROUNDS > 6u) {
            let to = row_of(team, 6u) * PITCH + place;
            keep(KEYS + to, key_6);
            keep(to, value_6);
            let source = cached_row(cached, at + TILE + row_of(team, 6u), end) + piece;
            key_6 = latents[source + VECS];
            value_6 = latents[source];
        }
        if (ROUNDS > 7u) {
            let to = row_of(team, 7u) * PITCH + place;
            keep(KEYS + to, key_7);
            keep(to, value_7);
            let source = cached_row(cached, at + TILE + row_of(team, 7u), end) + piece;
            key_7 = latents[source + VECS];
            value_7 = latents[source];
        }
        if (SCALED) {
            keep_scales(lane, scales_0);
            if (TILE > LANES) { keep_scales(LANES + lane, scales_1); }
            scales_0 = latents[cached_row(cached, at + TILE + min(lane, TILE - 1u), end) + 2u * VECS];
            if (TILE > LANES) { scales_1 = latents[cached_row(cached, at + TILE + LANES + lane, end) + 2u * VECS]; }
        }
        workgroupBarrier();

        // Scores, in four sums that do not wait for each other.
        var s0 = Sums();
        var s1 = Sums();
        var s2 = Sums();
        var s3 = Sums();
        var b: Right;
        if (TILES == 1u) {
            if (STEPS > 0u) {
                b = coopLoad<Right>(&tile[KEYS + 0u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s0 = coopMultiplyAdd(q0, b, s0);
            }
            if (STEPS > 1u) {
                b = coopLoad<Right>(&tile[KEYS + 1u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s1 = coopMultiplyAdd(q1, b, s1);
            }
            if (STEPS > 2u) {
                b = coopLoad<Right>(&tile[KEYS + 2u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s2 = coopMultiplyAdd(q2, b, s2);
            }
            if (STEPS > 3u) {
                b = coopLoad<Right>(&tile[KEYS + 3u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s3 = coopMultiplyAdd(q3, b, s3);
            }
            if (STEPS > 4u) {
                b = coopLoad<Right>(&tile[KEYS + 4u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s0 = coopMultiplyAdd(q4, b, s0);
            }
            if (STEPS > 5u) {
                b = coopLoad<Right>(&tile[KEYS + 5u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s1 = coopMultiplyAdd(q5, b, s1);
            }
            if (STEPS > 6u) {
                b = coopLoad<Right>(&tile[KEYS + 6u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s2 = coopMultiplyAdd(q6, b, s2);
            }
            if (STEPS > 7u) {
                b = coopLoad<Right>(&tile[KEYS + 7u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s3 = coopMultiplyAdd(q7, b, s3);
            }
            if (GROUPS < 4u) {
                s0 = s0 + s2;
                s1 = s1 + s3;
            }
            if (GROUPS < 2u) {
                s0 = s0 + s1;
            }
            coopStoreT(s0, &scores[0], SCORE_PITCH);
            if (GROUPS > 1u) { coopStoreT(s1, &scores[GROUP_1], SCORE_PITCH); }
            if (GROUPS > 2u) { coopStoreT(s2, &scores[GROUP_2], SCORE_PITCH); }
            if (GROUPS > 2u) { coopStoreT(s3, &scores[GROUP_3], SCORE_PITCH); }
        } else {
            if (STEPS > 0u) {
                b = coopLoad<Right>(&tile[KEYS + 0u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s0 = coopMultiplyAdd(q0, b, s0);
                b = coopLoad<Right>(&tile[KEYS + SECOND + 0u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s2 = coopMultiplyAdd(q0, b, s2);
            }
            if (STEPS > 1u) {
                b = coopLoad<Right>(&tile[KEYS + 1u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s1 = coopMultiplyAdd(q1, b, s1);
                b = coopLoad<Right>(&tile[KEYS + SECOND + 1u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s3 = coopMultiplyAdd(q1, b, s3);
            }
            if (STEPS > 2u) {
                b = coopLoad<Right>(&tile[KEYS + 2u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s0 = coopMultiplyAdd(q2, b, s0);
                b = coopLoad<Right>(&tile[KEYS + SECOND + 2u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s2 = coopMultiplyAdd(q2, b, s2);
            }
            if (STEPS > 3u) {
                b = coopLoad<Right>(&tile[KEYS + 3u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s1 = coopMultiplyAdd(q3, b, s1);
                b = coopLoad<Right>(&tile[KEYS + SECOND + 3u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                s3 = coopMultiplyAdd(q3, b, s3);
            }
            if (GROUPS < 2u) {
                s0 = s0 + s1;
                s2 = s2 + s3;
            }
            coopStoreT(s0, &scores[0], SCORE_PITCH);
            coopStoreT(s2, &scores[HALF], SCORE_PITCH);
            if (GROUPS > 1u) { coopStoreT(s1, &scores[GROUP_1], SCORE_PITCH); }
            if (GROUPS > 1u) { coopStoreT(s3, &scores[GROUP_1 + HALF], SCORE_PITCH); }
        }
        workgroupBarrier();

        // Weights.
        let line_at = line * SCORE_PITCH + part;
        let count = end - at;
        let e0 = pair(line_at, up, 2u * part, count);
        var most = most_of(e0);
        var e1 = vec2<f32>(NONE);
        var e2 = vec2<f32>(NONE);
        var e3 = vec2<f32>(NONE);
        var e4 = vec2<f32>(NONE);
        var e5 = vec2<f32>(NONE);
        var e6 = vec2<f32>(NONE);
        var e7 = vec2<f32>(NONE);
        if (PAIRS > 1u) {
            e1 = pair(line_at + LINE_LANES, up, 2u * (part + LINE_LANES), count);
            most = max(most, most_of(e1));
        }
        if (PAIRS > 2u) {
            e2 = pair(line_at + 2u * LINE_LANES, up, 2u * (part + 2u * LINE_LANES), count);
            most = max(most, most_of(e2));
        }
        if (PAIRS > 3u) {
            e3 = pair(line_at + 3u * LINE_LANES, up, 2u * (part + 3u * LINE_LANES), count);
            most = max(most, most_of(e3));
        }
        if (PAIRS > 4u) {
            e4 = pair(line_at + 4u * LINE_LANES, up, 2u * (part + 4u * LINE_LANES), count);
            most = max(most, most_of(e4));
        }
        if (PAIRS > 5u) {
            e5 = pair(line_at + 5u * LINE_LANES, up, 2u * (part + 5u * LINE_LANES), count);
            most = max(most, most_of(e5));
        }
        if (PAIRS > 6u) {
            e6 = pair(line_at + 6u * LINE_LANES, up, 2u * (part + 6u * LINE_LANES), count);
            most = max(most, most_of(e6));
        }
        if (PAIRS > 7u) {
            e7 = pair(line_at + 7u * LINE_LANES, up, 2u * (part + 7u * LINE_LANES), count);
            most = max(most, most_of(e7));
        }
        if (most > top + RISE) {
            risen = vec4<u32>(1u, u32(at > first), 0u, 0u);
        }
        let rise = workgroupUniformLoad(&risen);
        if (rise.x != 0u) {
            let highest = most_of_line(most);
            var faded = 1.0;
            if (highest > top + RISE) {
                faded = exp(top - highest);
                top = highest;
                total *= faded;
            }
            if (part == 0u) {
                fades[line] = faded;
            }
            if (lane == 0u) {
                risen = vec4<u32>();
            }
        }
        if (rise.y != 0u) {
            workgroupBarrier();
            coopStoreT(o0, &scores[0], SCORE_PITCH);
            workgroupBarrier();
            fade(lane);
            workgroupBarrier();
            o0 = coopLoadT<Sums>(&scores[0], SCORE_PITCH);
            if (STEPS > 1u) {
                workgroupBarrier();
                coopStoreT(o1, &scores[0], SCORE_PITCH);
                workgroupBarrier();
                fade(lane);
                workgroupBarrier();
                o1 = coopLoadT<Sums>(&scores[0], SCORE_PITCH);
            }
            if (STEPS > 2u) {
                workgroupBarrier();
                coopStoreT(o2, &scores[0], SCORE_PITCH);
                workgroupBarrier();
                fade(lane);
                workgroupBarrier();
                o2 = coopLoadT<Sums>(&scores[0], SCORE_PITCH);
            }
            if (STEPS > 3u) {
                workgroupBarrier();
                coopStoreT(o3, &scores[0], SCORE_PITCH);
                workgroupBarrier();
                fade(lane);
                workgroupBarrier();
                o3 = coopLoadT<Sums>(&scores[0], SCORE_PITCH);
            }
            if (STEPS > 4u) {
                workgroupBarrier();
                coopStoreT(o4, &scores[0], SCORE_PITCH);
                workgroupBarrier();
                fade(lane);
                workgroupBarrier();
                o4 = coopLoadT<Sums>(&scores[0], SCORE_PITCH);
            }
            if (STEPS > 5u) {
                workgroupBarrier();
                coopStoreT(o5, &scores[0], SCORE_PITCH);
                workgroupBarrier();
                fade(lane);
                workgroupBarrier();
                o5 = coopLoadT<Sums>(&scores[0], SCORE_PITCH);
            }
            if (STEPS > 6u) {
                workgroupBarrier();
                coopStoreT(o6, &scores[0], SCORE_PITCH);
                workgroupBarrier();
                fade(lane);
                workgroupBarrier();
                o6 = coopLoadT<Sums>(&scores[0], SCORE_PITCH);
            }
            if (STEPS > 7u) {
                workgroupBarrier();
                coopStoreT(o7, &scores[0], SCORE_PITCH);
                workgroupBarrier();
                fade(lane);
                workgroupBarrier();
                o7 = coopLoadT<Sums>(&scores[0], SCORE_PITCH);
            }
        }
        total += share(line_at, e0, top, 2u * part);
        if (PAIRS > 1u) { total += share(line_at + LINE_LANES, e1, top, 2u * (part + LINE_LANES)); }
        if (PAIRS > 2u) { total += share(line_at + 2u * LINE_LANES, e2, top, 2u * (part + 2u * LINE_LANES)); }
        if (PAIRS > 3u) { total += share(line_at + 3u * LINE_LANES, e3, top, 2u * (part + 3u * LINE_LANES)); }
        if (PAIRS > 4u) { total += share(line_at + 4u * LINE_LANES, e4, top, 2u * (part + 4u * LINE_LANES)); }
        if (PAIRS > 5u) { total += share(line_at + 5u * LINE_LANES, e5, top, 2u * (part + 5u * LINE_LANES)); }
        if (PAIRS > 6u) { total += share(line_at + 6u * LINE_LANES, e6, top, 2u * (part + 6u * LINE_LANES)); }
        if (PAIRS > 7u) { total += share(line_at + 7u * LINE_LANES, e7, top, 2u * (part + 7u * LINE_LANES)); }
        workgroupBarrier();

        // Weighted values.
        var a0 = coopLoadT<Left>(&shares[0], SCORE_PITCH);
        var a1 = a0;
        if (GROUPS > 1u) { a1 = coopLoadT<Left>(&shares[GROUP_1], SCORE_PITCH); }
        var a2 = a0;
        var a3 = a1;
        if (GROUPS > 2u) { a2 = coopLoadT<Left>(&shares[GROUP_2], SCORE_PITCH); }
        if (GROUPS > 2u) { a3 = coopLoadT<Left>(&shares[GROUP_3], SCORE_PITCH); }
        if (STEPS > 0u) {
            b = coopLoadT<Right>(&tile[0u * QUADS], PITCH);
            if (SCALED) { b = b - offset; }
            o0 = coopMultiplyAdd(a0, b, o0);
        }
        if (STEPS > 1u) {
            b = coopLoadT<Right>(&tile[1u * QUADS], PITCH);
            if (SCALED) { b = b - offset; }
            o1 = coopMultiplyAdd(a1, b, o1);
        }
        if (STEPS > 2u) {
            b = coopLoadT<Right>(&tile[2u * QUADS], PITCH);
            if (SCALED) { b = b - offset; }
            o2 = coopMultiplyAdd(a2, b, o2);
        }
        if (STEPS > 3u) {
            b = coopLoadT<Right>(&tile[3u * QUADS], PITCH);
            if (SCALED) { b = b - offset; }
            o3 = coopMultiplyAdd(a3, b, o3);
        }
        if (STEPS > 4u) {
            b = coopLoadT<Right>(&tile[4u * QUADS], PITCH);
            if (SCALED) { b = b - offset; }
            o4 = coopMultiplyAdd(a0, b, o4);
        }
        if (STEPS > 5u) {
            b = coopLoadT<Right>(&tile[5u * QUADS], PITCH);
            if (SCALED) { b = b - offset; }
            o5 = coopMultiplyAdd(a1, b, o5);
        }
        if (STEPS > 6u) {
            b = coopLoadT<Right>(&tile[6u * QUADS], PITCH);
            if (SCALED) { b = b - offset; }
            o6 = coopMultiplyAdd(a2, b, o6);
        }
        if (STEPS > 7u) {
            b = coopLoadT<Right>(&tile[7u * QUADS], PITCH);
            if (SCALED) { b = b - offset; }
            o7 = coopMultiplyAdd(a3, b, o7);
        }
        if (TILES > 1u) {
            a0 = coopLoadT<Left>(&shares[HALF], SCORE_PITCH);
            a1 = a0;
            if (GROUPS > 1u) { a1 = coopLoadT<Left>(&shares[GROUP_1 + HALF], SCORE_PITCH); }
            if (STEPS > 0u) {
                b = coopLoadT<Right>(&tile[SECOND + 0u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                o0 = coopMultiplyAdd(a0, b, o0);
            }
            if (STEPS > 1u) {
                b = coopLoadT<Right>(&tile[SECOND + 1u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                o1 = coopMultiplyAdd(a1, b, o1);
            }
            if (STEPS > 2u) {
                b = coopLoadT<Right>(&tile[SECOND + 2u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                o2 = coopMultiplyAdd(a0, b, o2);
            }
            if (STEPS > 3u) {
                b = coopLoadT<Right>(&tile[SECOND + 3u * QUADS], PITCH);
                if (SCALED) { b = b - offset; }
                o3 = coopMultiplyAdd(a1, b, o3);
            }
        }
        workgroupBarrier();
    }

    let all = sum_of_line(total);
    let sum_at = (r * params.heads + head) * spans + number;
    if (part == 0u && there) {
        weights[sum_at + line * spans] = vec2<f32>(top, all);
    }
    // Which elements of a cooperative matrix a lane has is not known: they go through workgroup memory.
    coopStoreT(o0, &scores[0], SCORE_PITCH);
    workgroupBarrier();
    finish(lane, lines, sum_at * HEAD_QUADS, spans * HEAD_QUADS, 0u);
    if (STEPS > 1u) {
        workgroupBarrier();
        coopStoreT(o1, &scores[0], SCORE_PITCH);
        workgroupBarrier();
        finish(lane, lines, sum_at * HEAD_QUADS, spans * HEAD_QUADS, 1u);
    }
    if (STEPS > 2u) {
        workgroupBarrier();
        coopStoreT(o2, &scores[0], SCORE_PITCH);
        workgroupBarrier();
        finish(lane, lines, sum_at * HEAD_QUADS, spans * HEAD_QUADS, 2u);
    }
    if (STEPS > 3u) {
        workgroupBarrier();
        coopStoreT(o3, &scores[0], SCORE_PITCH);
        workgroupBarrier();
        finish(lane, lines, sum_at * HEAD_QUADS, spans * HEAD_QUADS, 3u);
    }
    if (STEPS > 4u) {
        workgroupBarrier();
        coopStoreT(o4, &scores[0], SCORE_PITCH);
        workgroupBarrier();
        finish(lane, lines, sum_at * HEAD_QUADS, spans * HEAD_QUADS, 4u);
    }
    if (STEPS > 5u) {
        workgroupBarrier();
        coopStoreT(o5, &scores[0], SCORE_PITCH);
        workgroupBarrier();
        finish(lane, lines, sum_at * HEAD_QUADS, spans * HEAD_QUADS, 5u);
    }
    if (STEPS > 6u) {
        workgroupBarrier();
        coopStoreT(o6, &scores[0], SCORE_PITCH);
        workgroupBarrier();
        finish(lane, lines, sum_at * HEAD_QUADS, spans * HEAD_QUADS, 6u);
    }
    if (STEPS > 7u) {
        workgroupBarrier();
        coopStoreT(o7, &scores[0], SCORE_PITCH);
        workgroupBarrier();
        finish(lane, lines, sum_at * HEAD_QUADS, spans * HEAD_QUADS, 7u);
    }
}
