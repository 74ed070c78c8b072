// y[r, n] = sum_k x[r, k] W[n, k] for many rows on int8 dot products, x as quantize_rows.wgsl rounds it.
//
// One workgroup of 64 lanes owns a tile of 64 rows by 64 rows of W and walks k by groups of 32. Both tiles of a group
// go through workgroup memory as int8 codes, four neighbours a word, with the group's scales. Two buffers take turns:
// the next group is under way while this one is multiplied, and a group needs one barrier. A lane sums 8 x 8 products,
// of rows and of columns 8 apart: neighbours among lanes then read and write neighbours. Sums within a group are exact.
//
// In SWIGLU a tile is 32 rows of gate and then the 32 rows of up that belong to them, and a lane owns 4 of each.
//
// Whatever holds a lane's sums is spelled out instead of indexed in a loop: a register has no index, and a driver that
// does not unroll such a loop keeps the sums in memory.

struct Params {
    n: u32,            // outputs: rows of W, in SWIGLU half of them
    groups: u32,       // of 32 in k
    y_stride: u32,
    y_offset: u32,     // of this part of W, where an adapter's limits cut it
    counter: u32,      // which of the step's counts is the number of rows: 0 rows, 2 logit rows
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>;          // [rows, 3, groups]: codes, then the scale
@group(0) @binding(3) var<storage, read_write> y: array<f32>;          // [rows, y_stride]

const TILE: u32 = 64u;   // rows, outputs and lanes
// Half groups of a tile: 4 more than its lines, so that lanes that store both halves at once meet no bank twice.
const PLANE: u32 = TILE + 4u;

var<workgroup> tile_x: array<vec4<u32>, 4u * PLANE>;   // [2 buffers, 2 halves of a group, rows]
var<workgroup> tile_w: array<vec4<u32>, 4u * PLANE>;   // [2 buffers, 2 halves of a group, outputs]
var<workgroup> unit_x: array<f32, 2u * TILE>;          // scales: [2 buffers, rows]
var<workgroup> unit_w: array<f32, 2u * TILE>;          // [2 buffers, outputs]

// What a lane brings of the tiles of a group: half groups of two rows of x, a group of W, a scale of each.
struct Share {
    x0: vec4<u32>,
    x1: vec4<u32>,
    w: Packed,
    x_unit: f32,
    w_unit: f32,
}

// Where a lane's share of the first group lies.
struct Source {
    x0: u32,       // in quads: half a group, or its scale
    x1: u32,
    x_unit: u32,
    w: u32,        // in groups
}

fn fetch(source: Source, group: u32) -> Share {
    return Share(x[source.x0 + group], x[source.x1 + group], packed_group(source.w + group),
                 bitcast<f32>(x[source.x_unit + group].x), scale_of(source.w + group));
}

fn keep(buffer: u32, lid: u32, share: Share) {
    let plane = 2u * buffer * PLANE;
    let x_to = plane + (lid & 1u) * PLANE + (lid >> 1u);
    tile_x[x_to] = share.x0;
    tile_x[x_to + TILE / 2u] = share.x1;
    let w = group_codes(share.w);
    tile_w[plane + lid] = w[0];
    tile_w[plane + PLANE + lid] = w[1];
    unit_x[buffer * TILE + lid] = share.x_unit;
    unit_w[buffer * TILE + lid] = share.w_unit;
}

// Row of W in column c of tile `item`. A tile may hang over the end: it reads a row that exists and stores nothing.
fn output_row(item: u32, c: u32) -> u32 {
    if (EPILOGUE == SWIGLU) {
        return min(item * (TILE / 2u) + c % (TILE / 2u), params.n - 1u) + c / (TILE / 2u) * params.n;
    }
    return min(item * TILE + c, params.n - 1u);
}

struct Group {
    a: vec4<u32>,
    b: vec4<u32>,
}

fn group_x(buffer: u32, line: u32) -> Group {
    let at = 2u * buffer * PLANE + line;
    return Group(tile_x[at], tile_x[at + PLANE]);
}

fn group_w(buffer: u32, line: u32) -> Group {
    let at = 2u * buffer * PLANE + line;
    return Group(tile_w[at], tile_w[at + PLANE]);
}

// The groups of a lane's 8 columns and their scales.
struct Columns {
    w0: Group, w1: Group, w2: Group, w3: Group, w4: Group, w5: Group, w6: Group, w7: Group,
    low: vec4<f32>,
    high: vec4<f32>,
}

fn columns_at(buffer: u32, tx: u32) -> Columns {
    let u = buffer * TILE + tx;
    return Columns(
        group_w(buffer, tx), group_w(buffer, tx + 8u), group_w(buffer, tx + 16u), group_w(buffer, tx + 24u),
        group_w(buffer, tx + 32u), group_w(buffer, tx + 40u), group_w(buffer, tx + 48u), group_w(buffer, tx + 56u),
        vec4<f32>(unit_w[u], unit_w[u + 8u], unit_w[u + 16u], unit_w[u + 24u]),
        vec4<f32>(unit_w[u + 32u], unit_w[u + 40u], unit_w[u + 48u], unit_w[u + 56u]),
    );
}

// A sum of a group is below 2^20. Added to the bits of 1.5 * 2^23 it is the low bits of that float's fraction: one
// subtraction makes a float of it, where a conversion takes the time of eight.
const BIAS: f32 = 12582912.0;

fn dot_biased(x: Group, w: Group) -> i32 {
    return bitcast<i32>(BIAS) + dot4I8Packed(x.a.x, w.a.x) + dot4I8Packed(x.a.y, w.a.y)
        + dot4I8Packed(x.a.z, w.a.z) + dot4I8Packed(x.a.w, w.a.w) + dot4I8Packed(x.b.x, w.b.x)
        + dot4I8Packed(x.b.y, w.b.y) + dot4I8Packed(x.b.z, w.b.z) + dot4I8Packed(x.b.w, w.b.w);
}

// The products of a row's group with the 8 columns'.
fn products(buffer: u32, line: u32, c: Columns) -> mat2x4<f32> {
    let x = group_x(buffer, line);
    let unit = unit_x[buffer * TILE + line];
    let low = vec4<i32>(dot_biased(x, c.w0), dot_biased(x, c.w1), dot_biased(x, c.w2), dot_biased(x, c.w3));
    let high = vec4<i32>(dot_biased(x, c.w4), dot_biased(x, c.w5), dot_biased(x, c.w6), dot_biased(x, c.w7));
    return mat2x4<f32>((unit * c.low) * (bitcast<vec4<f32>>(low) - BIAS),
                       (unit * c.high) * (bitcast<vec4<f32>>(high) - BIAS));
}

fn store(to: u32, n: u32, v: f32) {
    if (n < params.n) {
        if (EPILOGUE == ADD) {
            y[to + n] += v;
        } else {
            y[to + n] = activated(v);
        }
    }
}

// Outputs n, n + 8, n + 16, n + 24.
fn store4(to: u32, n: u32, v: vec4<f32>) {
    store(to, n, v.x);
    store(to, n + 8u, v.y);
    store(to, n + 16u, v.z);
    store(to, n + 24u, v.w);
}

fn store_row(r: u32, rows: u32, item: u32, tx: u32, v: mat2x4<f32>) {
    if (r < rows) {
        let to = r * params.y_stride + params.y_offset;
        if (EPILOGUE == SWIGLU) {
            store4(to, item * (TILE / 2u) + tx, silu4(v[0]) * v[1]);
        } else {
            store4(to, item * TILE + tx, v[0]);
            store4(to, item * TILE + TILE / 2u + tx, v[1]);
        }
    }
}

@compute @workgroup_size(TILE)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let item = wid.y * grid.x + wid.x;
    let rows = step[0][params.counter];
    let r0 = wid.z * TILE;
    let groups = params.groups;
    let source = Source(
        min(r0 + (lid >> 1u), rows - 1u) * 3u * groups + (lid & 1u) * groups,
        min(r0 + TILE / 2u + (lid >> 1u), rows - 1u) * 3u * groups + (lid & 1u) * groups,
        (min(r0 + lid, rows - 1u) * 3u + 2u) * groups,
        output_row(item, lid) * groups,
    );
    let tx = lid & 7u;
    let ty = lid >> 3u;
    var s0 = mat2x4<f32>();
    var s1 = mat2x4<f32>();
    var s2 = mat2x4<f32>();
    var s3 = mat2x4<f32>();
    var s4 = mat2x4<f32>();
    var s5 = mat2x4<f32>();
    var s6 = mat2x4<f32>();
    var s7 = mat2x4<f32>();
    keep(0u, lid, fetch(source, 0u));
    workgroupBarrier();
    for (var g = 0u; g < groups; g++) {
        let buffer = g & 1u;
        // After the last group it comes once more and is not used.
        let next = fetch(source, min(g + 1u, groups - 1u));
        let c = columns_at(buffer, tx);
        s0 += products(buffer, ty, c);
        s1 += products(buffer, ty + 8u, c);
        s2 += products(buffer, ty + 16u, c);
        s3 += products(buffer, ty + 24u, c);
        s4 += products(buffer, ty + 32u, c);
        s5 += products(buffer, ty + 40u, c);
        s6 += products(buffer, ty + 48u, c);
        s7 += products(buffer, ty + 56u, c);
        keep(1u - buffer, lid, next);
        workgroupBarrier();
    }
    let r = r0 + ty;
    store_row(r, rows, item, tx, s0);
    store_row(r + 8u, rows, item, tx, s1);
    store_row(r + 16u, rows, item, tx, s2);
    store_row(r + 24u, rows, item, tx, s3);
    store_row(r + 32u, rows, item, tx, s4);
    store_row(r + 40u, rows, item, tx, s5);
    store_row(r + 48u, rows, item, tx, s6);
    store_row(r + 56u, rows, item, tx, s7);
}
