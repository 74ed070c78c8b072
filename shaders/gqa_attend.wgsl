// mla_attend.wgsl for grouped queries of rows that are apart, bound by what is read of the cache:
//
//   score[h, s] = query[h] . key[s]      o[h] = sum_s softmax(score)[h, s] value[s]
//
// One workgroup owns one row, four or eight heads of one kv head (a vec4 each four, which LANES lanes own) and a span of
// positions. A team of TEAM lanes walks as many positions at a time, with a running maximum of its own, so that teams wait
// for each other only at the end:
//   1. four lanes share the keys of four positions, and a lane has one position's scores when their sums are folded;
//   2. it weighs them by the team's maximum;
//   3. VALUE_VEC4 lanes share a value, 16 bytes of it each, which a lane sums over every SHARES-th position.
// Keys and values lie in registers only. They are asked for as early as registers allow: values before the scores are
// folded, the next keys when the values are summed.

override FOURS: u32;         // of heads: 1 or 2
override LANES: u32;         // of a four
override TEAM: u32;          // lanes, and positions at a time: a power of two, VALUE_VEC4 at least
override KEY_VEC4: u32;      // 16 bytes each, as they are cached
override VALUE_VEC4: u32;
override KEY_AT: u32;        // vec4 of a cached row before its key
override SCALES_AT: u32;     // and before its scales
override KV_HEADS: u32;      // rows of a position
override ROW_VEC4: u32;      // of a cached row
override POOL: u32;          // 4 * WG
override ALL_TEAMS: u32;     // of the workgroup
override EVEN: bool;         // whether shares and steps are whole: TEAM / VALUE_VEC4 and TEAM / SHARES

override TEAMS: u32 = LANES / TEAM;                    // of a four
override TURNS: u32 = (KEY_VEC4 + 3u) / 4u;            // in which four lanes go through a key
override SHARES: u32 = TEAM / VALUE_VEC4;              // lanes that share a sum's positions
override STEPS: u32 = (TEAM + SHARES - 1u) / SHARES;   // in which they go through them
override QUADS: u32 = VALUE_VEC4 * VECTORS;            // of a value
override POSITION_VEC4: u32 = KV_HEADS * ROW_VEC4;

const NONE: f32 = -1e30;     // the maximum of no position

struct Params {
    heads: u32,
    context: u32,        // positions of a slot
    blocks: u32,         // of heads: of each kv head group / (4 * FOURS), rounded up
    spans: u32,          // at most, of a row
    parts: u32,          // at most, spans of all rows of a step; of fewer rows than that
    group: u32,          // heads of a kv head
    first_slot: u32,     // see parts/slots.wgsl
    slots: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;           // [rows, heads, head_dim / 4]
@group(0) @binding(3) var<storage, read> latents: array<vec4<u32>>;         // [slots here, context, KV_HEADS, ROW_VEC4]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;      // [rows, heads, spans, QUADS]
@group(0) @binding(5) var<storage, read_write> weights: array<vec2<f32>>;   // [rows, heads, spans] (maximum, sum)

var<workgroup> pool: array<vec4<f32>, POOL>;         // [4, WG]: sums, at the end
var<workgroup> tops: array<vec4<f32>, ALL_TEAMS>;    // of a team's positions
var<workgroup> totals: array<vec4<f32>, ALL_TEAMS>;  // sums of its weights

// What a lane has summed for four heads: 16 bytes of a value each.
struct Sums {
    head_0: Values,
    head_1: Values,
    head_2: Values,
    head_3: Values,
}

// Where a lane stands.
struct Place {
    base: u32,    // vec4 before the row of the slot's first position
    end: u32,     // of the span's positions
    lane: u32,    // of its team
    part: u32,    // which 16 bytes of a value are its own
    share: u32,   // of the positions
}

// A quad of four heads' queries, a column each. Heads past the last are zero.
fn four_queries(row: u32, h0: u32, h_end: u32, quad: u32) -> mat4x4<f32> {
    var m: mat4x4<f32>;
    for (var j = 0u; j < 4u; j++) {
        let v = query[(row * params.heads + min(h0 + j, h_end - 1u)) * QUERY_QUADS + quad];
        m[j] = select(vec4<f32>(0.0), v, h0 + j < h_end);
    }
    return m;
}

// Of each head.
fn largest(m: mat4x4<f32>) -> vec4<f32> {
    let t = transpose(m);
    return max(max(abs(t[0]), abs(t[1])), max(abs(t[2]), abs(t[3])));
}

// A row behind the span's end is its last one again, for which the lane has no weight.
fn row_of(place: Place, position: u32) -> u32 { return place.base + min(position, place.end - 1u) * POSITION_VEC4; }

// What a lane multiplies in a turn of the keys: past a key's end its last again, which counts as zero.
fn key_of(place: Place, position: u32, turn: u32) -> vec4<u32> {
    return latents[row_of(place, position) + KEY_AT + min(4u * turn + (place.lane & 3u), KEY_VEC4 - 1u)];
}

fn scales_of(place: Place, tile: u32) -> vec4<u32> {
    if (CODED) {
        return latents[row_of(place, tile + place.lane) + SCALES_AT];
    }
    return vec4<u32>();
}

fn value_of(place: Place, tile: u32, i: u32) -> vec4<u32> {
    return latents[row_of(place, tile + min(i * SHARES + place.share, TEAM - 1u)) + place.part];
}

// Adds the turn's products to four heads' scores at four positions. `own`: the scales of the lane's own position.
fn turned(s: mat4x4<f32>, lanes: Lanes, place: Place, own: vec4<u32>, four: u32, turn: u32,
          k0: vec4<u32>, k1: vec4<u32>, k2: vec4<u32>, k3: vec4<u32>) -> mat4x4<f32> {
    var scales = vec4<f32>(1.0);
    if (CODED) {
        let first = place.lane & ~3u;
        let part = place.lane & 3u;
        scales.x = key_scale(lanes, own, first, turn, part);
        scales.y = key_scale(lanes, own, first + 1u, turn, part);
        scales.z = key_scale(lanes, own, first + 2u, turn, part);
        scales.w = key_scale(lanes, own, first + 3u, turn, part);
        scales = select(vec4<f32>(0.0), scales, 4u * turn + part < KEY_VEC4);
    }
    return scored(s, k0, k1, k2, k3, four, turn, place.lane & 3u, scales);
}

// The scores of one of four positions: lane j of four lanes gets those of position j, of which all have a share.
fn folded(lanes: Lanes, s: mat4x4<f32>, lane: u32) -> vec4<f32> {
    let odd = (lane & 1u) == 1u;
    let low = select(s[0], s[1], odd) + from_other(lanes, select(s[1], s[0], odd), 1u);
    let high = select(s[2], s[3], odd) + from_other(lanes, select(s[3], s[2], odd), 1u);
    let second = (lane & 2u) == 2u;
    return select(low, high, second) + from_other(lanes, select(high, low, second), 2u);
}

fn faded(o: Sums, by: vec4<f32>) -> Sums {
    return Sums(by.x * o.head_0, by.y * o.head_1, by.z * o.head_2, by.w * o.head_3);
}

// Adds the value of step i.
fn summed(o: Sums, lanes: Lanes, place: Place, own: vec4<u32>, weight: vec4<f32>, value: vec4<u32>, i: u32) -> Sums {
    let start = min(i * SHARES + place.share, TEAM - 1u);
    var w = weight_of(lanes, weight, start);
    if (CODED) {
        w *= value_scale(lanes, own, start, place.part);
    }
    if (!EVEN) {
        w = select(vec4<f32>(0.0), w, place.share < SHARES && i * SHARES + place.share < TEAM);
    }
    let v = values(value);
    return Sums(weighed(o.head_0, w.x, v), weighed(o.head_1, w.y, v), weighed(o.head_2, w.z, v),
                weighed(o.head_3, w.w, v));
}

// Part of the sum of a quad of a head, of which the workgroup's lanes of a four have put their sums into the pool.
fn gathered(four: u32, index: u32) -> vec4<f32> {
    let quad = index % QUADS;
    let parts = LANES / QUADS;
    let start = quad % VECTORS * (FOURS * LANES) + four * LANES + quad / VECTORS;
    var sum = vec4<f32>(0.0);
    if (index / QUADS < parts) {
        for (var e = index / QUADS; e < TEAMS * SHARES; e += parts) {
            sum += pool[start + e / SHARES * TEAM + e % SHARES * VALUE_VEC4];
        }
    }
    return sum;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, lanes: Lanes) {
    let item = wid.y * groups.x + wid.x;
    let number = item / params.blocks;
    let blocks = params.blocks / KV_HEADS;
    let kv_head = item % params.blocks / blocks;
    let r = wid.z;
    let all = lane_index(lanes);
    let four = all / LANES;
    let index = all % LANES;
    let team = index / TEAM;
    let lane = index % TEAM;
    let h0 = kv_head * params.group + (item % blocks * FOURS + four) * 4u;
    // A four may have no heads: it computes the last one's scores for nobody.
    let h_end = (kv_head + 1u) * params.group;
    // Each team has a look at all queries. Their loads wait for nothing.
    let mine = four_queries(r, h0, h_end, min(lane, QUERY_QUADS - 1u));

    let row = row_at(r);
    if (!is_here(row.slot)) {
        return; // the whole workgroup: it has one row
    }
    let length = min(row.position + 1u, params.context);
    let spans = spans_of_step();
    let span = span_of(length, spans);
    let first = number * span;
    if (first >= length) {
        return; // the whole workgroup: the grid has as many spans as the longest row
    }
    let end = min(first + span, length);
    let base = first_position(row.slot) * POSITION_VEC4 + kv_head * ROW_VEC4;
    let place = Place(base, end, lane, lane % VALUE_VEC4, lane / VALUE_VEC4);

    var p = first + team * TEAM + (lane & ~3u);
    var k0 = key_of(place, p, 0u);
    var k1 = key_of(place, p + 1u, 0u);
    var k2 = key_of(place, p + 2u, 0u);
    var k3 = key_of(place, p + 3u, 0u);
    var k4: vec4<u32>;
    var k5: vec4<u32>;
    var k6: vec4<u32>;
    var k7: vec4<u32>;
    if (TURNS > 1u) {
        k4 = key_of(place, p, 1u);
        k5 = key_of(place, p + 1u, 1u);
        k6 = key_of(place, p + 2u, 1u);
        k7 = key_of(place, p + 3u, 1u);
    }
    var own = scales_of(place, first + team * TEAM);

    var scale = vec4<f32>(1.0); // of the queries as they are kept
    if (CODED) {
        var most = largest(mine);
        for (var q = lane + TEAM; q < QUERY_QUADS; q += TEAM) {
            most = max(most, largest(four_queries(r, h0, h_end, q)));
        }
        scale = most_of_team(lanes, most) / CODES;
    }
    if (team == 0u) {
        if (lane < QUERY_QUADS) {
            keep_query(four, lane, mine, scale);
        }
        for (var q = lane + TEAM; q < QUERY_QUADS; q += TEAM) {
            keep_query(four, q, four_queries(r, h0, h_end, q), scale);
        }
    }
    workgroupBarrier();
    scale *= UNIT;

    var top = vec4<f32>(NONE);
    var total = vec4<f32>(0.0); // of this lane's weights
    var o = Sums();
    for (var at = first; at < end; at += LANES) {
        let tile = at + team * TEAM;
        show_scales(lanes, own);
        var s = mat4x4<f32>();
        s = turned(s, lanes, place, own, four, 0u, k0, k1, k2, k3);
        if (TURNS > 1u) {
            s = turned(s, lanes, place, own, four, 1u, k4, k5, k6, k7);
        }
        for (var turn = 2u; turn < TURNS; turn += 2u) {
            k0 = key_of(place, p, turn);
            k1 = key_of(place, p + 1u, turn);
            k2 = key_of(place, p + 2u, turn);
            k3 = key_of(place, p + 3u, turn);
            if (turn + 1u < TURNS) {
                k4 = key_of(place, p, turn + 1u);
                k5 = key_of(place, p + 1u, turn + 1u);
                k6 = key_of(place, p + 2u, turn + 1u);
                k7 = key_of(place, p + 3u, turn + 1u);
            }
            s = turned(s, lanes, place, own, four, turn, k0, k1, k2, k3);
            if (turn + 1u < TURNS) {
                s = turned(s, lanes, place, own, four, turn + 1u, k4, k5, k6, k7);
            }
        }

        // In the keys' place the values of the first eight steps.
        var v0 = value_of(place, tile, 0u);
        var v1: vec4<u32>;
        var v2: vec4<u32>;
        var v3: vec4<u32>;
        var v4: vec4<u32>;
        var v5: vec4<u32>;
        var v6: vec4<u32>;
        var v7: vec4<u32>;
        if (STEPS > 1u) { v1 = value_of(place, tile, 1u); }
        if (STEPS > 2u) { v2 = value_of(place, tile, 2u); }
        if (STEPS > 3u) { v3 = value_of(place, tile, 3u); }
        if (STEPS > 4u) { v4 = value_of(place, tile, 4u); }
        if (STEPS > 5u) { v5 = value_of(place, tile, 5u); }
        if (STEPS > 6u) { v6 = value_of(place, tile, 6u); }
        if (STEPS > 7u) { v7 = value_of(place, tile, 7u); }

        let there = tile + lane < end;
        let score = select(vec4<f32>(NONE), folded(lanes, s, lane) * scale, there);
        let most = max(top, most_of_team(lanes, score));
        let weight = select(vec4<f32>(0.0), exp(score - most), there);
        if (any(most > top)) {
            let fade = exp(top - most);
            o = faded(o, fade);
            total *= fade;
            top = most;
        }
        total += weight;
        show_weight(lanes, weight);
        for (var i = 0u; i < STEPS; i += 8u) {
            o = summed(o, lanes, place, own, weight, v0, i);
            if (STEPS > 1u) { o = summed(o, lanes, place, own, weight, v1, i + 1u); }
            if (STEPS > 2u) { o = summed(o, lanes, place, own, weight, v2, i + 2u); }
            if (STEPS > 3u) { o = summed(o, lanes, place, own, weight, v3, i + 3u); }
            if (STEPS > 4u) { o = summed(o, lanes, place, own, weight, v4, i + 4u); }
            if (STEPS > 5u) { o = summed(o, lanes, place, own, weight, v5, i + 5u); }
            if (STEPS > 6u) { o = summed(o, lanes, place, own, weight, v6, i + 6u); }
            if (STEPS > 7u) { o = summed(o, lanes, place, own, weight, v7, i + 7u); }
            if (i + 8u < STEPS) {
                v0 = value_of(place, tile, i + 8u);
                v1 = value_of(place, tile, i + 9u);
                v2 = value_of(place, tile, i + 10u);
                v3 = value_of(place, tile, i + 11u);
                v4 = value_of(place, tile, i + 12u);
                v5 = value_of(place, tile, i + 13u);
                v6 = value_of(place, tile, i + 14u);
                v7 = value_of(place, tile, i + 15u);
            }
        }
        if (at + LANES < end) {
            p += LANES;
            k0 = key_of(place, p, 0u);
            k1 = key_of(place, p + 1u, 0u);
            k2 = key_of(place, p + 2u, 0u);
            k3 = key_of(place, p + 3u, 0u);
            if (TURNS > 1u) {
                k4 = key_of(place, p, 1u);
                k5 = key_of(place, p + 1u, 1u);
                k6 = key_of(place, p + 2u, 1u);
                k7 = key_of(place, p + 3u, 1u);
            }
            own = scales_of(place, tile + LANES);
        }
    }

    // The teams' sums by the largest maximum, a head at a time.
    let sum = sum_of_team(lanes, total);
    if (lane == 0u) {
        tops[all / TEAM] = top;
        totals[all / TEAM] = sum;
    }
    workgroupBarrier();
    var most = tops[four * TEAMS];
    for (var t = 1u; t < TEAMS; t++) {
        most = max(most, tops[four * TEAMS + t]);
    }
    o = faded(o, exp(top - most));
    keep_values(all, o.head_0);
    workgroupBarrier();
    let part_0 = gathered(four, index);
    workgroupBarrier();
    keep_values(all, o.head_1);
    workgroupBarrier();
    let part_1 = gathered(four, index);
    workgroupBarrier();
    keep_values(all, o.head_2);
    workgroupBarrier();
    let part_2 = gathered(four, index);
    workgroupBarrier();
    keep_values(all, o.head_3);
    workgroupBarrier();
    let part_3 = gathered(four, index);
    workgroupBarrier();
    pool[all] = part_0;
    pool[WG + all] = part_1;
    pool[2u * WG + all] = part_2;
    pool[3u * WG + all] = part_3;
    workgroupBarrier();
    for (var i = index; i < 4u * QUADS; i += LANES) {
        let j = i / QUADS;
        let start = j * WG + four * LANES + i % QUADS;
        var v = pool[start];
        for (var part = 1u; part < LANES / QUADS; part++) {
            v += pool[start + part * QUADS];
        }
        if (h0 + j < h_end) {
            sums[((r * params.heads + h0 + j) * spans + number) * QUADS + i % QUADS] = v;
        }
    }
    if (index < 4u && h0 + index < h_end) {
        var by = 0.0;
        for (var t = 0u; t < TEAMS; t++) {
            by += totals[four * TEAMS + t][index] * exp(tops[four * TEAMS + t][index] - most[index]);
        }
        weights[(r * params.heads + h0 + index) * spans + number] = vec2<f32>(most[index], by);
    }
}
