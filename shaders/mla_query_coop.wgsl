// mla_query.wgsl for many rows, on cooperative matrices: factors of f16, sums of f32.
//
// One workgroup owns LINES heads, those that share a kv head, of several rows, and OUTPUTS columns of the latent; or,
// as the last along x of a kv head, their roped parts. It walks Wk's rows by BLOCK. Each line is divided by a power of
// two, as f16 holds neither large nor tiny numbers. Of each four neighbours along a row of Wk the second and third are
// exchanged, as parts/group_*.wgsl leave them, and so they are of the sums.

const LANES: u32 = SIDE * SIDE / 8u; // of a subgroup
const SUBGROUPS: u32 = 4u;           // each with a matrix along the outputs
const WG: u32 = SUBGROUPS * LANES;
const LINES: u32 = 2u * SIDE;
const OUTPUTS: u32 = SUBGROUPS * SIDE;
const BLOCK: u32 = OUTPUTS;
const LINE_LANES: u32 = WG / LINES;  // SIDE / 4
const QUADS: u32 = SIDE / 4u;        // of a matrix's row
const BLOCK_QUADS: u32 = BLOCK / 4u; // 4 * LINE_LANES
const GROUPS: u32 = OUTPUTS / 32u;   // of a row of Wk
const STRIDE: u32 = BLOCK_QUADS + 2u; // of both tiles' rows: 16 bytes over, so that rows lie in different banks
const TILE_QUADS: u32 = (LINES + BLOCK) * STRIDE;
const ALL_SUMS: u32 = SUBGROUPS * LINES * QUADS;

override LATENT_QUADS: u32;

struct Params {
    heads: u32,
    share: u32,          // query heads that share a kv head
    nope_quads: u32,
    rope: u32,
    head_rows: u32,      // nope + v: rows of kv_b_proj for each kv head
    rope_quads: u32,
    groups: u32,         // of 32, in a row of kv_b_proj
    q_stride: u32,       // quads
    scale: f32,          // of the softmax
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;            // [rows, heads, nope_quads + rope_quads]
@group(0) @binding(3) var<storage, read> turns: array<vec2<f32>>;        // see parts/rope.wgsl
@group(0) @binding(4) var<storage, read_write> query: array<vec4<f32>>;  // [rows, heads, LATENT_QUADS + rope_quads]

var<workgroup> tiles: array<vec4<f16>, TILE_QUADS>; // queries, then Wk's rows
var<workgroup> values: array<vec4<f32>, ALL_SUMS>;  // two matrices for each subgroup
var<workgroup> scales_of_lines: array<f32, LINES>;

struct Line {
    row: u32,
    head: u32,
    there: bool,
}

fn line_of(i: u32, r0: u32, kv_head: u32) -> Line {
    let row = r0 + i / params.share;
    let there = i < LINES / params.share * params.share && row < step_rows();
    return Line(row, kv_head * params.share + i % params.share, there);
}

// A line's first quad of q, and where its query begins.
fn q_of(line: Line) -> u32 {
    return line.row * params.q_stride + line.head * (params.nope_quads + params.rope_quads);
}

fn query_of(line: Line) -> u32 {
    return (line.row * params.heads + line.head) * (LATENT_QUADS + params.rope_quads);
}

fn nope_quad(line: Line, i: u32) -> vec4<f32> {
    if (line.there && i < params.nope_quads) {
        return q[q_of(line) + i];
    }
    return vec4<f32>(0.0);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
    let lid = subgroup * LANES + lane;
    let columns = (4u * LATENT_QUADS + OUTPUTS - 1u) / OUTPUTS;
    let kv_head = wid.x / (columns + 1u);
    let column = wid.x % (columns + 1u);
    let r0 = wid.z * (LINES / params.share);
    if (column == columns) {
        for (var i = lid; i < LINES * params.rope_quads; i += WG) {
            let line = line_of(i / params.rope_quads, r0, kv_head);
            let quad = i % params.rope_quads;
            if (line.there) {
                let v = q[q_of(line) + params.nope_quads + quad];
                let position = row_at(line.row).position;
                let first = turned_by(turn(2u * quad, position), v.xy);
                let second = turned_by(turn(2u * quad + 1u, position), v.zw);
                query[query_of(line) + LATENT_QUADS + quad] = vec4<f32>(first, second) * params.scale;
            }
        }
        return; // the whole workgroup
    }

    // The lane's row of each block of Wk, or a part of it.
    let wk = kv_head * params.head_rows;
    let d = lid / GROUPS;
    let group = lid % GROUPS;
    let w_group = min(column * GROUPS + group, params.groups - 1u);
    let last = 4u * params.nope_quads - 1u;
    var w = group_at((wk + min(d, last)) * params.groups + w_group);

    // A line's power of two takes its largest number to 16 .. 32.
    let mine = lid / LINE_LANES;
    let part = lid % LINE_LANES;
    let line = line_of(mine, r0, kv_head);
    var large = vec4<f32>(0.0);
    for (var i = part; i < params.nope_quads; i += 4u * LINE_LANES) {
        large = max(max(max(abs(nope_quad(line, i)), abs(nope_quad(line, i + LINE_LANES))),
                        max(abs(nope_quad(line, i + 2u * LINE_LANES)), abs(nope_quad(line, i + 3u * LINE_LANES)))),
                    large);
    }
    var largest = max(max(large.x, large.y), max(large.z, large.w));
    largest = max(largest, subgroupShuffleXor(largest, 1u));
    if (LINE_LANES > 2u) {
        largest = max(largest, subgroupShuffleXor(largest, 2u));
    }
    // Its exponent's bits; no smaller than what the power and its inverse both are normal numbers for.
    let bits = clamp((bitcast<u32>(largest) >> 23u) & 255u, 5u, 254u);
    let down = bitcast<f32>((258u - bits) << 23u);
    if (part == 0u) {
        scales_of_lines[mine] = bitcast<f32>((bits - 4u) << 23u) * params.scale;
    }

    let to = mine * STRIDE + part;
    let w_to = (LINES + d) * STRIDE + 8u * group;
    let w_from = LINES * STRIDE + subgroup * QUADS;
    var c0 = Sums();
    var c1 = Sums();
    let blocks = (params.nope_quads + BLOCK_QUADS - 1u) / BLOCK_QUADS;
    for (var block = 0u; block < blocks; block++) {
        let i = block * BLOCK_QUADS + part;
        let v0 = nope_quad(line, i);
        let v1 = nope_quad(line, i + LINE_LANES);
        let v2 = nope_quad(line, i + 2u * LINE_LANES);
        let v3 = nope_quad(line, i + 3u * LINE_LANES);
        workgroupBarrier();
        tiles[to] = vec4<f16>(v0 * down);
        tiles[to + LINE_LANES] = vec4<f16>(v1 * down);
        tiles[to + 2u * LINE_LANES] = vec4<f16>(v2 * down);
        tiles[to + 3u * LINE_LANES] = vec4<f16>(v3 * down);
        put_group(w_to, w);
        workgroupBarrier();
        // A row past the last is the last again: the query is zero there.
        w = group_at((wk + min((block + 1u) * BLOCK + d, last)) * params.groups + w_group);
        for (var k = 0u; k < BLOCK / SIDE; k++) {
            let b = coopLoadT<Right>(&tiles[w_from + k * SIDE * STRIDE], STRIDE);
            let a0 = coopLoadT<Left>(&tiles[k * QUADS], STRIDE);
            let a1 = coopLoadT<Left>(&tiles[SIDE * STRIDE + k * QUADS], STRIDE);
            c0 = coopMultiplyAdd(a0, b, c0);
            c1 = coopMultiplyAdd(a1, b, c1);
        }
    }

    // Which elements of a cooperative matrix a lane has is not known: they go through workgroup memory.
    let place = subgroup * (LINES * QUADS);
    let place_1 = place + SIDE * QUADS;
    coopStoreT(c0, &values[place], QUADS);
    coopStoreT(c1, &values[place_1], QUADS);
    workgroupBarrier();
    for (var i = lane; i < LINES * QUADS; i += LANES) {
        let of_line = line_of(i / QUADS, r0, kv_head);
        let quad = column * (OUTPUTS / 4u) + subgroup * QUADS + i % QUADS;
        if (of_line.there && quad < LATENT_QUADS) {
            query[query_of(of_line) + quad] = values[place + i].xzyw * scales_of_lines[i / QUADS];
        }
    }
}
