// mla_attend.wgsl on cooperative matrices: factors of f16, sums of f32. For cached rows that fit f16.
//
// One workgroup owns LINES queries of one kv head and a span of positions, which it walks in tiles of TILE. A line is a
// head of one row; or, for prompts, one of ROW_HEADS heads of one of ROWS rows of a segment, each with its own end of
// the context. For each tile
//   1. the cached rows become f16 in workgroup memory, by rounds of all lanes, and the next tile's are asked for;
//   2. a subgroup multiplies one matrix of scores: so many lines at so many positions;
//   3. LINE_LANES lanes weigh a line's positions, eight each;
//   4. a subgroup sums up to COLUMNS columns of matrices of the values.
// Weights are taken by a maximum that only moves when a score exceeds it by RISE: e^RISE fits f16, and the sums, which
// would have to go through workgroup memory to be scaled, stay where they are for most tiles.
//
// f16 holds neither large nor tiny numbers: each line's query is divided by a power of two, by which its scores are
// multiplied.

override LANES: u32;          // of a subgroup: SIDE * SIDE / 8
override TILES: u32;          // matrices along the positions: 4 or 2
override LATENT_QUADS: u32;   // of a row, before those of the rope
override ROW_QUADS: u32;      // latent_quads + rope_quads
override QUERY_QUADS: u32;    // of a key, and so of a query
override VALUE_QUADS: u32;    // from a row's first on
override KEYS_FROM: u32;      // quads before a row's key: whole matrices
override KV_HEADS: u32;       // rows of a position
override ROW_VEC4: u32;       // of a cached row
override QUERY_LINES: u32;    // 0, or LINES where K_STEPS is more than KEPT
override WHOLE: bool;         // heads fill their blocks, and values their matrices: sums are put out as they are
override ROWS: u32;           // of a workgroup
override ROW_HEADS: u32;      // of each: LINES where ROWS is 1

const QUADS: u32 = SIDE / 4u; // of a matrix's row
const TILES_M: u32 = 2u;      // matrices along the lines
const LINES: u32 = TILES_M * SIDE;
const KEPT: u32 = 14u;        // matrices of queries that a subgroup keeps in registers
const RISE: f32 = 8.0;
const NONE: f32 = -1e30;

override SUBGROUPS: u32 = TILES_M * TILES;
override WG: u32 = SUBGROUPS * LANES;
override TILE: u32 = TILES * SIDE;               // positions
override LINE_LANES: u32 = WG / LINES;           // TILE / 8
override NEIGHBOURS: u32 = LINE_LANES;           // for parts/coop_line.wgsl
override K_STEPS: u32 = (QUERY_QUADS + QUADS - 1u) / QUADS;
override K_QUADS: u32 = K_STEPS * QUADS;         // of a query in workgroup memory
override FILLED: u32 = KEYS_FROM + K_QUADS;      // of a row there
override PITCH: u32 = FILLED + 2u;               // 16 bytes over, so that rows lie in different banks
override VALUE_COLUMNS: u32 = (VALUE_QUADS + QUADS - 1u) / QUADS;               // of matrices
override COLUMNS: u32 = (VALUE_COLUMNS + SUBGROUPS - 1u) / SUBGROUPS;           // of a subgroup: 3 at most
override SCORE_PITCH: u32 = TILES * QUADS + 2u;
override QUERY_AT: u32 = QUERY_LINES / LINES * TILE * PITCH;

override CACHED: u32 = (TILE + QUERY_LINES) * PITCH;
override SCORES: u32 = LINES * SCORE_PITCH;

struct Params {
    heads: u32,
    context: u32,        // positions of a slot
    blocks: u32,         // of heads: of each kv head group / ROW_HEADS, rounded up
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

// Matrices begin at multiples of 16 bytes, or an NVIDIA driver reads them from 8 bytes before. Nothing else sees to it
// that a vec4<f16> does: so each of these is whole 16 bytes long.
var<workgroup> tile: array<vec4<f16>, CACHED>;     // [TILE, PITCH]; queries before, or behind [LINES, PITCH]
var<workgroup> scores: array<vec4<f32>, SCORES>;   // [LINES, SCORE_PITCH]; or a matrix for each subgroup
var<workgroup> shares: array<vec4<f16>, SCORES>;   // [LINES, SCORE_PITCH]: weights
var<workgroup> fades: array<f32, LINES>;           // of what was summed before this tile
var<workgroup> risen: vec4<u32>;                   // .x: whether any of them is not 1

fn query_quad(start: u32, q: u32, there: bool) -> vec4<f32> {
    if (there && q < QUERY_QUADS) {
        return query[start + q];
    }
    return vec4<f32>(0.0);
}

fn keep_query(line: u32, q: u32, v: vec4<f32>) {
    if (q < K_QUADS) {
        tile[QUERY_AT + line * PITCH + q] = vec4<f16>(v);
    }
}

// Scales the rows of the matrix that a subgroup has in `scores`.
fn fade(mine: u32, lane: u32, m: u32) {
    for (var at = lane; at < SIDE * QUADS; at += LANES) {
        scores[mine + at] *= fades[m * SIDE + at / QUADS];
    }
}

// The rows and heads of a workgroup.
struct Block {
    row: u32,
    rows: u32,
    head: u32,
    head_end: u32,
}

struct Line {
    row: u32,
    head: u32,
    there: bool,
}

fn line_of(block: Block, i: u32) -> Line {
    if (ROWS == 1u) {
        return Line(block.row, block.head + i, block.head + i < block.head_end);
    }
    let row = i / ROW_HEADS;
    let head = block.head + i % ROW_HEADS;
    return Line(block.row + row, head, row < block.rows && head < block.head_end);
}

// The positions of a line's span.
fn span_of_line(line: Line, number: u32, spans: u32) -> vec2<u32> {
    if (!line.there) {
        return vec2<u32>(0u);
    }
    let length = min(step[1u + line.row].z + 1u, params.context);
    let span = span_of(length, spans);
    return vec2<u32>(min(number * span, length), min((number + 1u) * span, length));
}

// Puts it out: column c of matrices, lines from m * SIDE on.
fn finish(mine: u32, lane: u32, block: Block, m: u32, c: u32, number: u32, spans: u32) {
    for (var at = lane; at < SIDE * QUADS; at += LANES) {
        let line = line_of(block, m * SIDE + at / QUADS);
        let q = c * QUADS + at % QUADS;
        var there = line.there && q < VALUE_QUADS;
        if (ROWS > 1u) {
            let span = span_of_line(line, number, spans);
            there = there && span.x < span.y;
        }
        if (there) {
            sums[((line.row * params.heads + line.head) * spans + number) * VALUE_QUADS + q] = scores[mine + at];
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_invocation_id) lane: u32) {
    let lid = subgroup * LANES + lane;
    let item = wid.y * groups.x + wid.x;
    // All of this is `let` and `select`: naga takes what a variable holds, as `&&` makes one, for another value in each
    // lane.
    let blocks = params.blocks / KV_HEADS;
    let kv_head = select(0u, item % params.blocks / blocks, KV_HEADS > 1u);
    let head = select(item % params.blocks, item % blocks, KV_HEADS > 1u) * ROW_HEADS + kv_head * params.group;
    let head_end = select(params.heads, (kv_head + 1u) * params.group, KV_HEADS > 1u);
    // Where a workgroup has several rows, they are what a segment has of ROWS rows of the step.
    let segments = select(1u, max(step[0].y, 1u), ROWS > 1u);
    let number = item / params.blocks / segments;
    let segment = step[1u + MAX_ROWS + item / params.blocks % segments];
    let row_0 = select(wid.z, max(wid.z * ROWS, segment.x), ROWS > 1u);
    let row_end = select(wid.z + 1u, min((wid.z + 1u) * ROWS, segment.x + segment.y), ROWS > 1u);
    if (row_0 >= row_end) {
        return; // the whole workgroup: the segment has none of these rows
    }
    let block = Block(row_0, row_end - row_0, head, head_end);
    // Queries first: their loads wait for nothing.
    let line = lid / LINE_LANES;
    let part = lid % LINE_LANES;
    let here_line = line_of(block, line);
    let there = here_line.there;
    let query_at = (here_line.row * params.heads + here_line.head) * QUERY_QUADS;
    let query_0 = query_quad(query_at, part, there);
    let query_1 = query_quad(query_at, part + LINE_LANES, there);
    let query_2 = query_quad(query_at, part + 2u * LINE_LANES, there);
    let query_3 = query_quad(query_at, part + 3u * LINE_LANES, there);
    let query_4 = query_quad(query_at, part + 4u * LINE_LANES, there);
    let query_5 = query_quad(query_at, part + 5u * LINE_LANES, there);

    // row_at and span_of written out: naga takes what a function makes of its arguments for another value in each lane,
    // and matrices must not depend on such a one.
    let row = step[1u + block.row];
    let length = min(row.z + 1u, params.context);
    let spans = spans_of_step();
    let span = (length + spans * SPAN_UNIT - 1u) / (spans * SPAN_UNIT) * SPAN_UNIT;
    let first = number * span;
    // A longer row's span begins no earlier and ends no earlier.
    let longest = min(row.z + block.rows, params.context);
    let longest_span = (longest + spans * SPAN_UNIT - 1u) / (spans * SPAN_UNIT) * SPAN_UNIT;
    let end = select(min(first + span, length), min((number + 1u) * longest_span, longest), ROWS > 1u);
    var mask = vec2<u32>(first, end);
    if (ROWS > 1u) {
        mask = span_of_line(here_line, number, spans);
    }
    if (first >= end) {
        return; // the whole workgroup: the grid has as many spans as the longest row
    }
    // parts/slots.wgsl written out, for the same reason.
    let place = row.y - params.first_slot;
    if (place >= params.slots) {
        return; // the whole workgroup: its rows are of one slot
    }
    let cached = place * params.context * KV_HEADS + kv_head;

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
    if (ROUNDS > 0u) { next_0 = ask(0u, lid, cached + first * KV_HEADS, count); }
    if (ROUNDS > 1u) { next_1 = ask(1u, lid, cached + first * KV_HEADS, count); }
    if (ROUNDS > 2u) { next_2 = ask(2u, lid, cached + first * KV_HEADS, count); }
    if (ROUNDS > 3u) { next_3 = ask(3u, lid, cached + first * KV_HEADS, count); }
    if (ROUNDS > 4u) { next_4 = ask(4u, lid, cached + first * KV_HEADS, count); }
    if (ROUNDS > 5u) { next_5 = ask(5u, lid, cached + first * KV_HEADS, count); }
    if (ROUNDS > 6u) { next_6 = ask(6u, lid, cached + first * KV_HEADS, count); }
    if (ROUNDS > 7u) { next_7 = ask(7u, lid, cached + first * KV_HEADS, count); }

    // A line's power of two takes its largest number to 16 .. 32.
    var large = max(max(abs(query_0), abs(query_1)), max(abs(query_2), abs(query_3)));
    large = max(large, max(abs(query_4), abs(query_5)));
    for (var q = part + 6u * LINE_LANES; q < QUERY_QUADS; q += LINE_LANES) {
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
    for (var q = part + 6u * LINE_LANES; q < K_QUADS; q += LINE_LANES) {
        keep_query(line, q, query_quad(query_at, q, there) * down);
    }
    if (lid == 0u) {
        risen = vec4<u32>();
    }
    workgroupBarrier();

    // The subgroup's matrix of scores, its place in `scores` for others, and its columns of the values: one that is not
    // there is another's again, and is not put out.
    let query_from = QUERY_AT + subgroup % TILES_M * SIDE * PITCH;
    let tile_from = subgroup / TILES_M * SIDE * PITCH + KEYS_FROM;
    let score_to = subgroup % TILES_M * SIDE * SCORE_PITCH + subgroup / TILES_M * QUADS;
    let mine = subgroup * (SIDE * QUADS);
    let column_0 = min(subgroup, VALUE_COLUMNS - 1u);
    let column_1 = min(subgroup + SUBGROUPS, VALUE_COLUMNS - 1u);
    let column_2 = min(subgroup + 2u * SUBGROUPS, VALUE_COLUMNS - 1u);
    // An array of matrices would not stay in registers.
    var q00 = Left();
    var q01 = Left();
    var q02 = Left();
    var q03 = Left();
    var q04 = Left();
    var q05 = Left();
    var q06 = Left();
    var q07 = Left();
    var q08 = Left();
    var q09 = Left();
    var q10 = Left();
    var q11 = Left();
    var q12 = Left();
    var q13 = Left();
    if (K_STEPS > 0u) { q00 = coopLoadT<Left>(&tile[query_from + 0u * QUADS], PITCH); }
    if (K_STEPS > 1u) { q01 = coopLoadT<Left>(&tile[query_from + 1u * QUADS], PITCH); }
    if (K_STEPS > 2u) { q02 = coopLoadT<Left>(&tile[query_from + 2u * QUADS], PITCH); }
    if (K_STEPS > 3u) { q03 = coopLoadT<Left>(&tile[query_from + 3u * QUADS], PITCH); }
    if (K_STEPS > 4u) { q04 = coopLoadT<Left>(&tile[query_from + 4u * QUADS], PITCH); }
    if (K_STEPS > 5u) { q05 = coopLoadT<Left>(&tile[query_from + 5u * QUADS], PITCH); }
    if (K_STEPS > 6u) { q06 = coopLoadT<Left>(&tile[query_from + 6u * QUADS], PITCH); }
    if (K_STEPS > 7u) { q07 = coopLoadT<Left>(&tile[query_from + 7u * QUADS], PITCH); }
    if (K_STEPS > 8u) { q08 = coopLoadT<Left>(&tile[query_from + 8u * QUADS], PITCH); }
    if (K_STEPS > 9u) { q09 = coopLoadT<Left>(&tile[query_from + 9u * QUADS], PITCH); }
    if (K_STEPS > 10u) { q10 = coopLoadT<Left>(&tile[query_from + 10u * QUADS], PITCH); }
    if (K_STEPS > 11u) { q11 = coopLoadT<Left>(&tile[query_from + 11u * QUADS], PITCH); }
    if (K_STEPS > 12u) { q12 = coopLoadT<Left>(&tile[query_from + 12u * QUADS], PITCH); }
    if (K_STEPS > 13u) { q13 = coopLoadT<Left>(&tile[query_from + 13u * QUADS], PITCH); }
    workgroupBarrier();
    // What pads the cached rows to whole matrices.
    for (var i = lid; i < TILE * (FILLED - ROW_QUADS); i += WG) {
        tile[i % TILE * PITCH + ROW_QUADS + i / TILE] = vec4<f16>();
    }
    var o00 = Sums();
    var o10 = Sums();
    var o01 = Sums();
    var o11 = Sums();
    var o02 = Sums();
    var o12 = Sums();
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
            keep(j, lid, ask(j, lid, cached + at * KV_HEADS, count));
        }
        workgroupBarrier();
        let here = count;
        if (at + TILE < end) {
            let base = cached + (at + TILE) * KV_HEADS;
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

        // Scores.
        var s = Sums();
        if (K_STEPS > 0u) { s = coopMultiplyAdd(q00, coopLoad<Right>(&tile[tile_from + 0u * QUADS], PITCH), s); }
        if (K_STEPS > 1u) { s = coopMultiplyAdd(q01, coopLoad<Right>(&tile[tile_from + 1u * QUADS], PITCH), s); }
        if (K_STEPS > 2u) { s = coopMultiplyAdd(q02, coopLoad<Right>(&tile[tile_from + 2u * QUADS], PITCH), s); }
        if (K_STEPS > 3u) { s = coopMultiplyAdd(q03, coopLoad<Right>(&tile[tile_from + 3u * QUADS], PITCH), s); }
        if (K_STEPS > 4u) { s = coopMultiplyAdd(q04, coopLoad<Right>(&tile[tile_from + 4u * QUADS], PITCH), s); }
        if (K_STEPS > 5u) { s = coopMultiplyAdd(q05, coopLoad<Right>(&tile[tile_from + 5u * QUADS], PITCH), s); }
        if (K_STEPS > 6u) { s = coopMultiplyAdd(q06, coopLoad<Right>(&tile[tile_from + 6u * QUADS], PITCH), s); }
        if (K_STEPS > 7u) { s = coopMultiplyAdd(q07, coopLoad<Right>(&tile[tile_from + 7u * QUADS], PITCH), s); }
        if (K_STEPS > 8u) { s = coopMultiplyAdd(q08, coopLoad<Right>(&tile[tile_from + 8u * QUADS], PITCH), s); }
        if (K_STEPS > 9u) { s = coopMultiplyAdd(q09, coopLoad<Right>(&tile[tile_from + 9u * QUADS], PITCH), s); }
        if (K_STEPS > 10u) { s = coopMultiplyAdd(q10, coopLoad<Right>(&tile[tile_from + 10u * QUADS], PITCH), s); }
        if (K_STEPS > 11u) { s = coopMultiplyAdd(q11, coopLoad<Right>(&tile[tile_from + 11u * QUADS], PITCH), s); }
        if (K_STEPS > 12u) { s = coopMultiplyAdd(q12, coopLoad<Right>(&tile[tile_from + 12u * QUADS], PITCH), s); }
        if (K_STEPS > 13u) { s = coopMultiplyAdd(q13, coopLoad<Right>(&tile[tile_from + 13u * QUADS], PITCH), s); }
        for (var k = KEPT; k < K_STEPS; k++) {
            let a = coopLoadT<Left>(&tile[query_from + k * QUADS], PITCH);
            let b = coopLoad<Right>(&tile[tile_from + k * QUADS], PITCH);
            s = coopMultiplyAdd(a, b, s);
        }
        coopStoreT(s, &scores[score_to], SCORE_PITCH);
        workgroupBarrier();

        // Weights.
        let line_at = line * SCORE_PITCH + 2u * part;
        let places = vec4<u32>(0u, 1u, 2u, 3u) + 8u * part;
        var seen_0 = places < vec4<u32>(here);
        var seen_1 = places + 4u < vec4<u32>(here);
        if (ROWS > 1u) {
            seen_0 = (places + at < vec4<u32>(mask.y)) & (places + at >= vec4<u32>(mask.x));
            seen_1 = (places + at + 4u < vec4<u32>(mask.y)) & (places + at + 4u >= vec4<u32>(mask.x));
        }
        let score_0 = select(vec4<f32>(NONE), scores[line_at] * up, seen_0);
        let score_1 = select(vec4<f32>(NONE), scores[line_at + 1u] * up, seen_1);
        let both = max(score_0, score_1);
        let most = most_of_line(max(max(both.x, both.y), max(both.z, both.w)));
        var faded = 1.0;
        if (most > top + RISE) {
            faded = exp(top - most);
            top = most;
            if (at > first) {
                risen = vec4<u32>(1u);
            }
        }
        if (part == 0u) {
            fades[line] = faded;
        }
        var share_0 = vec4<f16>(exp(score_0 - top));
        var share_1 = vec4<f16>(exp(score_1 - top));
        if (ROWS > 1u) {
            // A line that has seen nothing yet has no maximum.
            share_0 = select(vec4<f16>(), share_0, seen_0);
            share_1 = select(vec4<f16>(), share_1, seen_1);
        }
        shares[line_at] = share_0;
        shares[line_at + 1u] = share_1;
        let share = vec4<f32>(share_0) + vec4<f32>(share_1);
        total = total * faded + ((share.x + share.y) + (share.z + share.w));

        if (workgroupUniformLoad(&risen).x != 0u) {
            coopStoreT(o00, &scores[mine], QUADS);
            workgroupBarrier();
            fade(mine, lane, 0u);
            workgroupBarrier();
            o00 = coopLoadT<Sums>(&scores[mine], QUADS);
            workgroupBarrier();
            coopStoreT(o10, &scores[mine], QUADS);
            workgroupBarrier();
            fade(mine, lane, 1u);
            workgroupBarrier();
            o10 = coopLoadT<Sums>(&scores[mine], QUADS);
            if (COLUMNS > 1u) {
                workgroupBarrier();
                coopStoreT(o01, &scores[mine], QUADS);
                workgroupBarrier();
                fade(mine, lane, 0u);
                workgroupBarrier();
                o01 = coopLoadT<Sums>(&scores[mine], QUADS);
                workgroupBarrier();
                coopStoreT(o11, &scores[mine], QUADS);
                workgroupBarrier();
                fade(mine, lane, 1u);
                workgroupBarrier();
                o11 = coopLoadT<Sums>(&scores[mine], QUADS);
            }
            if (COLUMNS > 2u) {
                workgroupBarrier();
                coopStoreT(o02, &scores[mine], QUADS);
                workgroupBarrier();
                fade(mine, lane, 0u);
                workgroupBarrier();
                o02 = coopLoadT<Sums>(&scores[mine], QUADS);
                workgroupBarrier();
                coopStoreT(o12, &scores[mine], QUADS);
                workgroupBarrier();
                fade(mine, lane, 1u);
                workgroupBarrier();
                o12 = coopLoadT<Sums>(&scores[mine], QUADS);
            }
            if (lid == 0u) {
                risen = vec4<u32>();
            }
        }

        // Weighted values.
        for (var k = 0u; k < TILES; k++) {
            let a0 = coopLoadT<Left>(&shares[k * QUADS], SCORE_PITCH);
            let a1 = coopLoadT<Left>(&shares[SIDE * SCORE_PITCH + k * QUADS], SCORE_PITCH);
            let b0 = coopLoadT<Right>(&tile[k * SIDE * PITCH + column_0 * QUADS], PITCH);
            o00 = coopMultiplyAdd(a0, b0, o00);
            o10 = coopMultiplyAdd(a1, b0, o10);
            if (COLUMNS > 1u) {
                let b1 = coopLoadT<Right>(&tile[k * SIDE * PITCH + column_1 * QUADS], PITCH);
                o01 = coopMultiplyAdd(a0, b1, o01);
                o11 = coopMultiplyAdd(a1, b1, o11);
            }
            if (COLUMNS > 2u) {
                let b2 = coopLoadT<Right>(&tile[k * SIDE * PITCH + column_2 * QUADS], PITCH);
                o02 = coopMultiplyAdd(a0, b2, o02);
                o12 = coopMultiplyAdd(a1, b2, o12);
            }
        }
        workgroupBarrier();
    }

    let all = sum_of_line(total);
    if (part == 0u && there && (ROWS == 1u || mask.x < mask.y)) {
        weights[(here_line.row * params.heads + here_line.head) * spans + number] = vec2<f32>(top, all);
    }
    if (WHOLE) {
        // A subgroup's column that is another's again has the same sums. naga wants names for what a store is told.
        let pitch = spans * VALUE_QUADS;
        let start = ((block.row * params.heads + block.head) * spans + number) * VALUE_QUADS;
        let to_0 = start + column_0 * QUADS;
        let to_1 = start + column_1 * QUADS;
        let to_2 = start + column_2 * QUADS;
        let below_0 = to_0 + SIDE * pitch;
        let below_1 = to_1 + SIDE * pitch;
        let below_2 = to_2 + SIDE * pitch;
        coopStoreT(o00, &sums[to_0], pitch);
        coopStoreT(o10, &sums[below_0], pitch);
        if (COLUMNS > 1u) {
            coopStoreT(o01, &sums[to_1], pitch);
            coopStoreT(o11, &sums[below_1], pitch);
        }
        if (COLUMNS > 2u) {
            coopStoreT(o02, &sums[to_2], pitch);
            coopStoreT(o12, &sums[below_2], pitch);
        }
    } else {
        // Which elements of a cooperative matrix a lane has is not known: they go through workgroup memory. What a
        // column that is not there would put out lies past VALUE_QUADS.
        coopStoreT(o00, &scores[mine], QUADS);
        workgroupBarrier();
        finish(mine, lane, block, 0u, subgroup, number, spans);
        workgroupBarrier();
        coopStoreT(o10, &scores[mine], QUADS);
        workgroupBarrier();
        finish(mine, lane, block, 1u, subgroup, number, spans);
        if (COLUMNS > 1u) {
            workgroupBarrier();
            coopStoreT(o01, &scores[mine], QUADS);
            workgroupBarrier();
            finish(mine, lane, block, 0u, subgroup + SUBGROUPS, number, spans);
            workgroupBarrier();
            coopStoreT(o11, &scores[mine], QUADS);
            workgroupBarrier();
            finish(mine, lane, block, 1u, subgroup + SUBGROUPS, number, spans);
        }
        if (COLUMNS > 2u) {
            workgroupBarrier();
            coopStoreT(o02, &scores[mine], QUADS);
            workgroupBarrier();
            finish(mine, lane, block, 0u, subgroup + 2u * SUBGROUPS, number, spans);
            workgroupBarrier();
            coopStoreT(o12, &scores[mine], QUADS);
            workgroupBarrier();
            finish(mine, lane, block, 1u, subgroup + 2u * SUBGROUPS, number, spans);
        }
    }
}
