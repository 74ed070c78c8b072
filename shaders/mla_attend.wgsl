// Attention over a span of the context, with a running softmax:
//
//   score[h, s] = query[h] . key[s]      o[h] = sum_s softmax(score)[h, s] value[s]
//
// Key and value of a position are columns of one cached row: of absorbed latent attention [latent | rope], of which all
// is the key and the latent the value, for all heads; of grouped queries [v | k], a row for each kv head.
//
// One workgroup owns one row, HEADS heads of one kv head and a span of positions, which it walks in tiles of TILE. It
// leaves the unnormalised sum with the maximum and the sum of weights, for mla_combine.wgsl or gqa_combine.wgsl. For
// each tile
//   1. the cached rows, as they are packed, lie in workgroup memory, and the next tile's are asked for;
//   2. a lane scores four heads at four positions over a share of the quads (16 sums in registers), and the shares are
//      folded;
//   3. a lane weighs one position for four heads by the running maximum;
//   4. a lane sums one quad of the values for four or eight heads over a share of the positions.
// Four heads lie in the components of a vec4, so that everything stays in registers.

override WG: u32 = 256u;
override HEADS: u32;          // 4 or a multiple of 4 * PAIR
override PAIR: u32;           // fours of heads that a lane sums values for: 1 or 2
override TILE: u32;           // positions
override LATENT_QUADS: u32;   // of a row, before those of the rope
override QUERY_QUADS: u32;    // of a key, and so of a query
override VALUE_QUADS: u32;    // from a row's first on
override KEYS_FROM: u32;      // quads before a row's key
override KV_HEADS: u32;       // rows of a position
override ROW_VEC4: u32;       // of a cached row
override K_SHARES: u32;       // lanes that share a score's quads
override SHARES: u32;         // lanes that share a sum's positions
override POOL: u32;           // vec4 for queries and K_SHARES parts of the scores, and at the end for 4 * WG sums

override FOURS: u32 = HEADS / 4u;
override COLUMNS: u32 = (TILE + 3u) / 4u;        // lanes that share a tile's positions, each with every COLUMNS-th
override SLOTS: u32 = 4u * COLUMNS;              // TILE, or four where it is less
override ROW_STRIDE: u32 = ROW_VEC4 | 1u;        // in workgroup memory: odd, so that rows begin in different banks
override TILE_VEC4: u32 = TILE * ROW_STRIDE;
override CELLS: u32 = FOURS * SLOTS;
override COMPONENTS: u32 = FOURS * QUERY_QUADS;  // of a component of all queries' quads
override GROUPS: u32 = FOURS / PAIR;             // of heads, for the sums
override LATENT_KEYS: u32 = LATENT_QUADS - KEYS_FROM;    // quads of a key before those of the rope
override POSITION_VEC4: u32 = KV_HEADS * ROW_VEC4;

struct Params {
    heads: u32,
    context: u32,        // positions of a slot
    blocks: u32,         // of heads: of each kv head group / HEADS, rounded up
    spans: u32,          // at most, of a row
    parts: u32,          // at most, spans of all rows of a step; of fewer rows than that
    group: u32,          // heads of a kv head
    first_slot: u32,     // see parts/slots.wgsl
    slots: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;           // [rows, heads, QUERY_QUADS]
@group(0) @binding(3) var<storage, read> latents: array<vec4<u32>>;         // [slots here, context, KV_HEADS, ROW_VEC4]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;      // [rows, heads, spans, VALUE_QUADS]
@group(0) @binding(5) var<storage, read_write> weights: array<vec2<f32>>;   // [rows, heads, spans] (maximum, sum)

// [4 components][FOURS, QUERY_QUADS] of four heads' queries, then [K_SHARES][FOURS, SLOTS] parts of four heads' scores.
var<workgroup> pool: array<vec4<f32>, POOL>;
var<workgroup> tile: array<vec4<u32>, TILE_VEC4>;
var<workgroup> scores: array<vec4<f32>, CELLS>;                // [FOURS, SLOTS], then weights
var<workgroup> tops: array<vec4<f32>, HEADS>;                  // [FOURS][4 shares of a tile]
var<workgroup> fades: array<vec4<f32>, FOURS>;                 // of what was summed before this tile

// For parts/cache_*.wgsl: words of a row of the tile.
fn tile_vec4(row: u32, i: u32) -> vec4<u32> { return tile[row * ROW_STRIDE + i]; }
fn tile_word(row: u32, i: u32) -> u32 { return tile[row * ROW_STRIDE + (i >> 2u)][i & 3u]; }

// Word i of the rows of a tile, counted without gaps.
fn keep(i: u32, v: vec4<u32>) { tile[i / ROW_VEC4 * ROW_STRIDE + i % ROW_VEC4] = v; }

// Where word i of the rows of a tile lies behind the first.
fn place(i: u32) -> u32 { return select(i / ROW_VEC4 * POSITION_VEC4 + i % ROW_VEC4, i, KV_HEADS == 1u); }

// One quad of four heads' queries: component by component, the four heads together. Heads past the last are zero.
fn four_queries(row: u32, h0: u32, h_end: u32, i: u32) -> mat4x4<f32> {
    let h = h0 + 4u * (i / QUERY_QUADS);
    var m: mat4x4<f32>;
    for (var j = 0u; j < 4u; j++) {
        let v = query[(row * params.heads + min(h + j, h_end - 1u)) * QUERY_QUADS + i % QUERY_QUADS];
        m[j] = select(vec4<f32>(0.0), v, h + j < h_end);
    }
    return transpose(m);
}

fn keep_queries(i: u32, m: mat4x4<f32>) {
    pool[i] = m[0];
    pool[COMPONENTS + i] = m[1];
    pool[2u * COMPONENTS + i] = m[2];
    pool[3u * COMPONENTS + i] = m[3];
}

fn queries_at(i: u32) -> mat4x4<f32> {
    return mat4x4<f32>(pool[i], pool[COMPONENTS + i], pool[2u * COMPONENTS + i], pool[3u * COMPONENTS + i]);
}

// Scores of four heads with one more quad of a row: from left to right, so that each step is one fused multiplication.
fn scored(a: vec4<f32>, m: mat4x4<f32>, v: vec4<f32>) -> vec4<f32> {
    return (((a + v.x * m[0]) + v.y * m[1]) + v.z * m[2]) + v.w * m[3];
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let item = wid.y * groups.x + wid.x;
    let number = item / params.blocks;
    var h0 = item % params.blocks * HEADS;
    var h_end = params.heads;
    var kv_head = 0u;
    if (KV_HEADS > 1u) {
        let blocks = params.blocks / KV_HEADS;
        kv_head = item % params.blocks / blocks;
        h0 = kv_head * params.group + item % blocks * HEADS;
        h_end = (kv_head + 1u) * params.group;
    }
    let r = wid.z;
    // Queries first: their loads wait for nothing. What one load a lane does not reach comes below.
    var mine: mat4x4<f32>;
    if (lid < COMPONENTS) {
        mine = four_queries(r, h0, h_end, lid);
    }
    let row = row_at(r);
    let length = min(row.position + 1u, params.context);
    let spans = spans_of_step();
    let span = span_of(length, spans);
    let first = number * span;
    if (first >= length || !is_here(row.slot)) {
        return; // the whole workgroup: the grid has as many spans as the longest row, and all rows
    }
    let end = min(first + span, length);
    let cached = first_position(row.slot);

    // The first tile: up to four loads a lane are under way at once, in the loop while the tile before is worked on.
    var base = (cached + first) * POSITION_VEC4 + kv_head * ROW_VEC4;
    var words = min(TILE, end - first) * ROW_VEC4;
    var next_0: vec4<u32>;
    var next_1: vec4<u32>;
    var next_2: vec4<u32>;
    var next_3: vec4<u32>;
    if (lid < words) { next_0 = latents[base + place(lid)]; }
    if (lid + WG < words) { next_1 = latents[base + place(lid + WG)]; }
    if (lid + 2u * WG < words) { next_2 = latents[base + place(lid + 2u * WG)]; }
    if (lid + 3u * WG < words) { next_3 = latents[base + place(lid + 3u * WG)]; }
    if (lid < COMPONENTS) {
        keep_queries(lid, mine);
    }
    for (var i = lid + WG; i < COMPONENTS; i += WG) {
        keep_queries(i, four_queries(r, h0, h_end, i));
    }

    // Who scores what: neighbouring lanes have neighbouring positions, and the same quads.
    let column = lid % COLUMNS;
    let four = lid / COLUMNS % FOURS;
    let k_share = lid / (COLUMNS * FOURS);
    let s0 = min(column, TILE - 1u);
    let s1 = min(column + COLUMNS, TILE - 1u);
    let s2 = min(column + 2u * COLUMNS, TILE - 1u);
    let s3 = min(column + 3u * COLUMNS, TILE - 1u);
    // Who weighs what.
    let slot = lid % SLOTS;
    let weighs = lid / SLOTS; // four heads
    var top = vec4<f32>(-1e30);
    var total = vec4<f32>(0.0);
    // Who sums what.
    let quad = lid % VALUE_QUADS;
    let group = lid / VALUE_QUADS % GROUPS;
    let share = lid / (VALUE_QUADS * GROUPS);
    var o0 = vec4<f32>(0.0);
    var o1 = vec4<f32>(0.0);
    var o2 = vec4<f32>(0.0);
    var o3 = vec4<f32>(0.0);
    var o4 = vec4<f32>(0.0);
    var o5 = vec4<f32>(0.0);
    var o6 = vec4<f32>(0.0);
    var o7 = vec4<f32>(0.0);

    for (var at = first; at < end; at += TILE) {
        let count = min(TILE, end - at);
        if (lid < words) { keep(lid, next_0); }
        if (lid + WG < words) { keep(lid + WG, next_1); }
        if (lid + 2u * WG < words) { keep(lid + 2u * WG, next_2); }
        if (lid + 3u * WG < words) { keep(lid + 3u * WG, next_3); }
        for (var i = lid + 4u * WG; i < words; i += WG) {
            keep(i, latents[base + place(i)]);
        }
        workgroupBarrier();
        if (at + TILE < end) {
            base += TILE * POSITION_VEC4;
            words = min(TILE, end - at - TILE) * ROW_VEC4;
            if (lid < words) { next_0 = latents[base + place(lid)]; }
            if (lid + WG < words) { next_1 = latents[base + place(lid + WG)]; }
            if (lid + 2u * WG < words) { next_2 = latents[base + place(lid + 2u * WG)]; }
            if (lid + 3u * WG < words) { next_3 = latents[base + place(lid + 3u * WG)]; }
        }

        // Scores. Rows behind the end hold anything: their scores are dropped below.
        if (k_share < K_SHARES && column < count) {
            var a0 = vec4<f32>(0.0);
            var a1 = vec4<f32>(0.0);
            var a2 = vec4<f32>(0.0);
            var a3 = vec4<f32>(0.0);
            var q = k_share;
            for (; q < LATENT_KEYS; q += K_SHARES) {
                let m = queries_at(four * QUERY_QUADS + q);
                a0 = scored(a0, m, latent_quad(s0, KEYS_FROM + q));
                a1 = scored(a1, m, latent_quad(s1, KEYS_FROM + q));
                a2 = scored(a2, m, latent_quad(s2, KEYS_FROM + q));
                a3 = scored(a3, m, latent_quad(s3, KEYS_FROM + q));
            }
            for (; q < QUERY_QUADS; q += K_SHARES) {
                let m = queries_at(four * QUERY_QUADS + q);
                a0 = scored(a0, m, rope_quad(s0, q - LATENT_KEYS));
                a1 = scored(a1, m, rope_quad(s1, q - LATENT_KEYS));
                a2 = scored(a2, m, rope_quad(s2, q - LATENT_KEYS));
                a3 = scored(a3, m, rope_quad(s3, q - LATENT_KEYS));
            }
            let to = 4u * COMPONENTS + k_share * CELLS + four * SLOTS + column;
            pool[to] = a0;
            pool[to + COLUMNS] = a1;
            pool[to + 2u * COLUMNS] = a2;
            pool[to + 3u * COLUMNS] = a3;
        }
        workgroupBarrier();
        var score = vec4<f32>(-1e30);
        if (weighs < FOURS) {
            if (slot < count) {
                score = vec4<f32>(0.0);
                for (var k = 0u; k < K_SHARES; k++) {
                    score += pool[4u * COMPONENTS + k * CELLS + lid];
                }
            }
            scores[lid] = score;
        }
        workgroupBarrier();

        // The running maximum: four lanes of each four heads look through a quarter of the positions, then everyone
        // looks at the four.
        if (lid < HEADS) {
            var most = scores[lid / 4u * SLOTS + lid % 4u * COLUMNS];
            for (var i = 1u; i < COLUMNS; i++) {
                most = max(most, scores[lid / 4u * SLOTS + lid % 4u * COLUMNS + i]);
            }
            tops[lid] = most;
        }
        workgroupBarrier();
        if (weighs < FOURS) {
            let i = 4u * weighs;
            let most = max(max(top, tops[i]), max(max(tops[i + 1u], tops[i + 2u]), tops[i + 3u]));
            let fade = exp(top - most);
            let weight = select(vec4<f32>(0.0), exp(score - most), slot < count);
            top = most;
            total = total * fade + weight;
            scores[lid] = weight;
            if (slot == 0u) {
                fades[weighs] = fade;
            }
        }
        workgroupBarrier();

        // Weighted values.
        if (share < SHARES) {
            let fade = fades[group * PAIR];
            o0 *= fade.x;
            o1 *= fade.y;
            o2 *= fade.z;
            o3 *= fade.w;
            if (PAIR > 1u) {
                let other = fades[group * PAIR + 1u];
                o4 *= other.x;
                o5 *= other.y;
                o6 *= other.z;
                o7 *= other.w;
            }
            for (var i = share; i < count; i += SHARES) {
                let v = latent_quad(i, quad);
                let p = scores[group * PAIR * SLOTS + i];
                o0 += p.x * v;
                o1 += p.y * v;
                o2 += p.z * v;
                o3 += p.w * v;
                if (PAIR > 1u) {
                    let q = scores[(group * PAIR + 1u) * SLOTS + i];
                    o4 += q.x * v;
                    o5 += q.y * v;
                    o6 += q.z * v;
                    o7 += q.w * v;
                }
            }
        }
        workgroupBarrier();
    }

    // The shares' sums, four heads of each group at a time, in the place of the queries.
    if (weighs < FOURS) {
        scores[lid] = total;
        if (slot == 0u) {
            fades[weighs] = top;
        }
    }
    for (var pair = 0u; pair < PAIR; pair++) {
        pool[lid] = select(o0, o4, pair == 1u);
        pool[WG + lid] = select(o1, o5, pair == 1u);
        pool[2u * WG + lid] = select(o2, o6, pair == 1u);
        pool[3u * WG + lid] = select(o3, o7, pair == 1u);
        workgroupBarrier();
        for (var i = lid; i < 4u * GROUPS * VALUE_QUADS; i += WG) {
            let lane = i % (GROUPS * VALUE_QUADS);
            let j = i / (GROUPS * VALUE_QUADS);
            let h = h0 + (lane / VALUE_QUADS * PAIR + pair) * 4u + j;
            var v = vec4<f32>(0.0);
            for (var s = 0u; s < SHARES; s++) {
                v += pool[j * WG + s * GROUPS * VALUE_QUADS + lane];
            }
            if (h < h_end) {
                sums[((r * params.heads + h) * spans + number) * VALUE_QUADS + lane % VALUE_QUADS] = v;
            }
        }
        if (pair == 0u && lid < HEADS && h0 + lid < h_end) {
            var all = 0.0;
            for (var i = 0u; i < SLOTS; i++) {
                all += scores[lid / 4u * SLOTS + i][lid & 3u];
            }
            weights[(r * params.heads + h0 + lid) * spans + number] = vec2<f32>(fades[lid / 4u][lid & 3u], all);
        }
        workgroupBarrier();
    }
}
