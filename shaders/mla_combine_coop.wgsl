// mla_combine.wgsl for many rows, on cooperative matrices: factors of f16, sums of f32. For latents that were cached in
// f16 or int8: what is put together of them by weights that add up to 1 fits f16 as they did.
//
// One workgroup owns LINES heads, those that share a kv head, of several rows, and OUTPUTS of its values. It walks the
// latent by BLOCK columns: LINE_LANES lanes put four quads each of a line together, and rows of Wv are made f16. What
// four spans have for the next block, and what it needs of Wv, is on its way while this one is multiplied. Of each four
// neighbours along a row, both have the second and third exchanged, as parts/group_*.wgsl leave them.

const LANES: u32 = SIDE * SIDE / 8u; // of a subgroup
const SUBGROUPS: u32 = 4u;           // each with a matrix along the outputs
const WG: u32 = SUBGROUPS * LANES;
const LINES: u32 = 2u * SIDE;
const OUTPUTS: u32 = SUBGROUPS * SIDE;
const LINE_LANES: u32 = WG / LINES;  // SIDE / 4
const BLOCK_QUADS: u32 = 4u * LINE_LANES;
const BLOCK_GROUPS: u32 = BLOCK_QUADS / 8u;
const STEPS: u32 = 4u * BLOCK_QUADS / SIDE;
const STRIDE: u32 = BLOCK_QUADS + 2u; // of a tile's row: 16 bytes over, so that rows lie in different banks
const TILE_QUADS: u32 = (LINES + OUTPUTS) * STRIDE;
const ALL_SUMS: u32 = LINES * OUTPUTS;
const NONE: f32 = -1e30;

override QUADS: u32;                 // of a latent

struct Params {
    heads: u32,
    share: u32,          // query heads that share a kv head
    nope: u32,
    v_dim: u32,          // v_head_dim
    groups: u32,         // of 32, in a row of kv_b_proj
    context: u32,
    spans: u32,          // as the attention had them
    parts: u32,
    o_stride: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> sums: array<vec4<f32>>;        // [rows, heads, spans, QUADS]
@group(0) @binding(3) var<storage, read> weights: array<vec2<f32>>;     // [rows, heads, spans] (maximum, sum)
@group(0) @binding(4) var<storage, read_write> o: array<f32>;           // [rows, heads, v_dim], rows o_stride apart

var<workgroup> tiles: array<vec4<f16>, TILE_QUADS>; // latents, then Wv's rows
var<workgroup> values: array<f32, ALL_SUMS>;        // two matrices for each subgroup

// A lane's line: its first span, those it has, what is left of each by the largest maximum of all.
struct Line {
    start: u32,
    spans: u32, // none where there is no such line
    top: f32,
    scale: f32,
}

fn weight_of(line: Line, s: u32) -> f32 {
    if (s < line.spans) {
        return exp(weights[line.start + s].x - line.top) * line.scale;
    }
    return 0.0;
}

// What another row may have left is none of this one's.
fn quad_of(line: Line, s: u32, q: u32) -> vec4<f32> {
    if (s < line.spans && q < QUADS) {
        return sums[(line.start + s) * QUADS + q];
    }
    return vec4<f32>(0.0);
}

// Four quads of a span.
struct Quads {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

fn quads_of(line: Line, s: u32, q: u32) -> Quads {
    return Quads(quad_of(line, s, q), quad_of(line, s, q + LINE_LANES), quad_of(line, s, q + 2u * LINE_LANES),
                 quad_of(line, s, q + 3u * LINE_LANES));
}

fn plus(sum: Quads, f: f32, v: Quads) -> Quads {
    return Quads(sum.a + f * v.a, sum.b + f * v.b, sum.c + f * v.c, sum.d + f * v.d);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
    let lid = subgroup * LANES + lane;
    let columns = (params.v_dim + OUTPUTS - 1u) / OUTPUTS;
    let kv_head = wid.x / columns;
    let d0 = wid.x % columns * OUTPUTS;
    let rows = LINES / params.share;
    let r0 = wid.z * rows;
    let all_rows = step_rows();

    // The lane's row of Wv, or half of it where a block has two groups.
    let wv = kv_head * (params.nope + params.v_dim) + params.nope;
    let output = lid / BLOCK_GROUPS;
    let w_at = (wv + min(d0 + output, params.v_dim - 1u)) * params.groups;
    let w_group = lid % BLOCK_GROUPS;
    let last = params.groups - 1u;
    var w = group_at(w_at + min(w_group, last));

    // Its line: neighbours look at its spans in turns.
    let at = lid / LINE_LANES;
    let part = lid % LINE_LANES;
    let r = r0 + at / params.share;
    let there = at < rows * params.share && r < all_rows;
    let room = spans_of_step();
    var line = Line(0u, 0u, NONE, 0.0);
    if (there) {
        let length = min(row_at(r).position + 1u, params.context);
        let span = span_of(length, room);
        line.start = (r * params.heads + kv_head * params.share + at % params.share) * room;
        line.spans = (length + span - 1u) / span;
    }
    for (var s = part; s < line.spans; s += LINE_LANES) {
        line.top = max(line.top, weights[line.start + s].x);
    }
    line.top = max(line.top, subgroupShuffleXor(line.top, 1u));
    if (LINE_LANES > 2u) {
        line.top = max(line.top, subgroupShuffleXor(line.top, 2u));
    }
    var total = 0.0;
    for (var s = part; s < line.spans; s += LINE_LANES) {
        let weight = weights[line.start + s];
        total += exp(weight.x - line.top) * weight.y;
    }
    total += subgroupShuffleXor(total, 1u);
    if (LINE_LANES > 2u) {
        total += subgroupShuffleXor(total, 2u);
    }
    line.scale = select(0.0, 1.0 / total, there);
    let f0 = weight_of(line, 0u);
    let f1 = weight_of(line, 1u);
    let f2 = weight_of(line, 2u);
    let f3 = weight_of(line, 3u);

    var p0 = quads_of(line, 0u, part);
    var p1 = Quads();
    var p2 = Quads();
    var p3 = Quads();
    if (room > 1u) {
        p1 = quads_of(line, 1u, part);
        p2 = quads_of(line, 2u, part);
        p3 = quads_of(line, 3u, part);
    }
    let to = at * STRIDE + part;
    let w_to = (LINES + output) * STRIDE + 8u * w_group;
    let column = (LINES + subgroup * SIDE) * STRIDE;
    var c0 = Sums();
    var c1 = Sums();

    let blocks = (QUADS + BLOCK_QUADS - 1u) / BLOCK_QUADS;
    for (var block = 0u; block < blocks; block++) {
        var all = plus(plus(plus(plus(Quads(), f0, p0), f1, p1), f2, p2), f3, p3);
        let q = block * BLOCK_QUADS + part;
        for (var s = 4u; s < line.spans; s += 4u) {
            let v0 = quads_of(line, s, q);
            let v1 = quads_of(line, s + 1u, q);
            let v2 = quads_of(line, s + 2u, q);
            let v3 = quads_of(line, s + 3u, q);
            all = plus(all, weight_of(line, s), v0);
            all = plus(all, weight_of(line, s + 1u), v1);
            all = plus(all, weight_of(line, s + 2u), v2);
            all = plus(all, weight_of(line, s + 3u), v3);
        }
        workgroupBarrier();
        tiles[to] = vec4<f16>(all.a).xzyw;
        tiles[to + LINE_LANES] = vec4<f16>(all.b).xzyw;
        tiles[to + 2u * LINE_LANES] = vec4<f16>(all.c).xzyw;
        tiles[to + 3u * LINE_LANES] = vec4<f16>(all.d).xzyw;
        put_group(w_to, w);
        workgroupBarrier();
        // The last block asks for itself again. A group past a row's end is its last again: the latent is zero there.
        let next = min(block + 1u, blocks - 1u);
        w = group_at(w_at + min(next * BLOCK_GROUPS + w_group, last));
        let next_q = next * BLOCK_QUADS + part;
        p0 = quads_of(line, 0u, next_q);
        if (room > 1u) {
            p1 = quads_of(line, 1u, next_q);
            p2 = quads_of(line, 2u, next_q);
            p3 = quads_of(line, 3u, next_q);
        }
        for (var k = 0u; k < STEPS; k++) {
            let b = coopLoad<Right>(&tiles[column + k * (SIDE / 4u)], STRIDE);
            let a0 = coopLoadT<Left>(&tiles[k * (SIDE / 4u)], STRIDE);
            let a1 = coopLoadT<Left>(&tiles[SIDE * STRIDE + k * (SIDE / 4u)], STRIDE);
            c0 = coopMultiplyAdd(a0, b, c0);
            c1 = coopMultiplyAdd(a1, b, c1);
        }
    }

    // Which elements of a cooperative matrix a lane has is not known: they go through workgroup memory.
    let mine = subgroup * (LINES * SIDE);
    let mine_1 = mine + SIDE * SIDE;
    coopStoreT(c0, &values[mine], SIDE);
    coopStoreT(c1, &values[mine_1], SIDE);
    workgroupBarrier();
    for (var i = lane; i < LINES * SIDE; i += LANES) {
        let of_line = i / SIDE;
        let row = r0 + of_line / params.share;
        let d = d0 + subgroup * SIDE + i % SIDE;
        if (of_line < rows * params.share && row < all_rows && d < params.v_dim) {
            let head = kv_head * params.share + of_line % params.share;
            o[row * params.o_stride + head * params.v_dim + d] = values[mine + i];
        }
    }
}
